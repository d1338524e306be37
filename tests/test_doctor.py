"""What `kit doctor` says, on made-up facts: every finding in the code, with its mend."""

import ast
import inspect
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from doctor_machines import CARD, CASES, HEALTHY, RTX, TEXTS, broken_gpu, having, made, system, unable

from kit.doctor import examination, gpu, imports, known, mends, packages, report, room
from kit.doctor.examination import examine
from kit.doctor.facts import Device, Finding, Nvidia


def the(findings: list[Finding], verdict: str, name: str, what: str, mend: str) -> Finding:
    """The finding with this verdict and name that says this; a failure shows all that are not fine."""
    for one in findings:
        if (one.verdict, one.name) == (verdict, name) and what in one.what and mend in one.mend:
            return one
    raise AssertionError("\n".join(map(str, (one for one in findings if one.mend))) or "all is fine")


def test_a_healthy_machine_is_fine_in_every_line():
    findings = examine(HEALTHY)
    assert [one for one in findings if one.verdict != "fine" or one.mend] == []
    text = "\n".join(report.lines(findings))
    assert "torch 2.15.0, torchvision 0.29.2, timm 1.0.31, fastai 2.8.12, gradio 6.31.0; all 11 packages" in text
    assert "NVIDIA 595.50, takes programs of CUDA up to 13.2" in text
    assert "RTX 4090 (cuda:0), 24.0 GB, compute capability 8.9, CUDA 13.2 of torch's own" in text
    assert "cuDNN          9.26.0, torch's own" in text
    assert "bf16 (the GPU has compute capability 8.9), on cuda" in text
    assert text.endswith("0 wrong, 0 note, 14 fine")


@pytest.mark.parametrize(("facts", "verdict", "name", "what", "mend"), CASES.values(), ids=CASES)
def test_every_fault_is_named_with_its_mend(facts, verdict, name, what, mend):
    findings = examine(facts)
    found = the(findings, verdict, name, what, mend)
    assert all(bool(one.mend) == (one.verdict != "fine") for one in findings)
    # One fault, one line: whatever else is said is not a second verdict on the same thing.
    assert [one for one in findings if one.mend and one.name == found.name and one != found] == []


ROWS = [(table, *row) for table, rows in TEXTS.items() for row in rows]


@pytest.mark.parametrize(("table", "text", "name", "what", "mend"), ROWS, ids=[row[1][:60] for row in ROWS])
def test_every_known_error_text_is_explained_and_mended(table, text, name, what, mend):
    facts = unable(text) if table is known.IMPORTS else broken_gpu(text)
    if table is known.SMI:
        facts = made(nvidia=Nvidia(boards=1, smi=True, error=text), torch={"devices": ()})
    the(examine(facts), "wrong", name, what, mend)


@pytest.mark.parametrize("table", TEXTS, ids=["imports", "cuda", "nvidia-smi"])
def test_every_row_of_the_tables_is_tried_by_a_text_that_no_row_above_it_takes(table):
    taken = {next(row for row in table if known.re.search(row.pattern, text)) for text, *_ in TEXTS[table]}
    assert [row.pattern for row in table if row not in taken] == []


def test_every_finding_in_the_code_is_reached_by_a_made_up_case(monkeypatch):
    """Each `note(...)` and `wrong(...)` in the judging modules is called by one of the cases above."""
    reached = set()

    def recorded(make):
        def call(*arguments):
            frame = inspect.currentframe().f_back
            reached.add((Path(frame.f_code.co_filename).stem, frame.f_lineno))
            return make(*arguments)

        return call

    written = set()
    for module in (packages, imports, gpu, room):
        monkeypatch.setattr(module, "note", recorded(module.note))
        monkeypatch.setattr(module, "wrong", recorded(module.wrong))
        for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("note", "wrong"):
                written.add((Path(module.__file__).stem, node.lineno))
    for facts, *_ in CASES.values():
        examine(facts)
    assert len(written) > 50
    assert written - reached == set()


def test_an_import_that_fails_hides_no_finding_about_the_driver():
    facts = made(
        torch={"done": (), "failed": "torch", "error": "libcudnn.so.9: cannot open shared object", "devices": ()},
        nvidia={"error": "Failed to initialize NVML: Driver/library version mismatch", "driver": ""},
    )
    assert [one.name for one in examine(facts) if one.verdict == "wrong"] == ["cuDNN", "driver"]


def test_a_missing_package_is_told_once_and_not_again_as_a_failed_import():
    error = "ModuleNotFoundError: No module named 'numpy'"
    facts = having(without=("numpy",), torch={"failed": "torchvision", "error": error, "numpy_error": "Numpy is not"})
    (only,) = [one for one in examine(facts) if one.verdict == "wrong"]
    assert (only.name, only.mend) == ("numpy", 'python -m pip install "numpy>=2.0,<3.0"')


def test_a_mac_with_its_gpu_is_fine():
    mps = Device("mps", "Apple GPU")
    torch = {"version": "2.15.0", "cuda": None, "cudnn": None, "architectures": (), "devices": (mps,), "device": "mps"}
    facts = made(torch=torch, nvidia=Nvidia(), system=system("Darwin"), machine={"shared_memory": None})
    assert [one for one in examine(facts) if one.mend] == []
    assert any("Apple GPU (mps): a convolution ran" in one.what for one in examine(facts))


def test_wsl_is_fine_when_windows_driver_serves_it():
    facts = made(nvidia={"boards": 0, "module": ""}, system=system(wsl=True))
    assert [one for one in examine(facts) if one.mend] == []


def test_several_gpus_are_said_not_to_add_up():
    """The notes: five cards of 12 GB are not one of 60."""
    cards = tuple(replace(CARD, name=f"cuda:{index}") for index in range(5))
    assert any("5 GPUs do not add up" in one.what for one in examine(made(torch={"devices": cards})))


def test_a_toolkit_that_torch_does_not_use_is_no_fault():
    facts = made(system=system(toolkits=("/usr/local/cuda-11.3",)))
    (line,) = [one for one in examine(facts) if one.name == "toolkit"]
    assert line == Finding("toolkit", "fine", "/usr/local/cuda-11.3: not used; torch brings its own CUDA 13.2")


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((8, 9), ("sm_80", "sm_90"), True),
        ((8, 6), ("sm_89",), False),
        ((7, 5), ("sm_80",), False),
        ((9, 0), ("sm_90a",), True),
        ((12, 0), ("sm_90", "sm_100"), False),
        ((12, 0), ("sm_90", "compute_90"), True),
        ((7, 5), ("compute_80",), False),
        ((12, 1), ("sm_120",), True),
        ((8, 0), (), True),
        ((8, 0), ("gfx90x",), False),
    ],
)
def test_code_runs_within_its_major_version_and_ptx_on_all_later_ones(capability, architectures, runs):
    assert gpu.compiled_for(capability, architectures) is runs


@pytest.mark.parametrize(
    ("number", "version"), [(7605, (7, 6, 5)), (8902, (8, 9, 2)), (90100, (9, 1, 0)), (92600, (9, 26, 0))]
)
def test_cudnns_number_is_read_as_its_version(number, version):
    assert gpu.cudnn_version(number) == version


@pytest.mark.parametrize(
    ("driver", "capability", "build"),
    [
        ("595.10", (8, 9), "cu130"),
        ("", (12, 0), "cu130"),
        ("535.1", (8, 9), "cu126"),
        ("595.10", (6, 1), "cu126"),
        ("535.1", (12, 0), ""),
        ("470.1", (8, 9), ""),
        ("595.10", (3, 7), ""),
    ],
)
def test_the_build_fits_driver_and_gpu(driver, capability, build):
    facts = made(nvidia={"driver": driver, "gpus": (replace(RTX, capability=capability),)}, torch={"devices": ()})
    assert mends.build_for(facts) == build


def test_commands_are_for_this_interpreter_and_this_shell():
    spaced = made(python={"executable": "/my envs/bin/python"})
    assert mends.install(spaced, "numpy>=2") == '"/my envs/bin/python" -m pip install "numpy>=2"'
    power = made(python={"executable": "C:\\My Envs\\python.exe"}, system=system("Windows"))
    assert mends.pip(power, "install numpy") == '& "C:\\My Envs\\python.exe" -m pip install numpy'
    assert mends.both(power).count("; &") == 1
    assert mends.unset(power, "CUDA_VISIBLE_DEVICES").startswith("Remove-Item Env:CUDA_VISIBLE_DEVICES")
    assert mends.put(power, "OMP_NUM_THREADS", "2") == '$env:OMP_NUM_THREADS = "2"'
    assert "Scripts" in mends.fresh(power)
    assert mends.reboot(power) == "Restart-Computer"
    assert mends.reboot(made(system=system(wsl=True))).startswith("in Windows: wsl --shutdown")
    assert mends.reboot(made(system=system(container=True))) == "restart the host, then the container"
    assert mends.pip(made(python={"pip": "uv"}), "uninstall -y torch") == "uv pip uninstall torch --python python"
    assert mends.install(made(python={"pip": ""}), "x") == "python -m ensurepip && python -m pip install x"


def test_ranges_of_versions_are_narrowed_to_the_bounds_that_count():
    ranges = [packages.SpecifierSet(text) for text in (">=1.9", ">=1.10,<3", "<3.0.1", "!=2.1", "")]
    assert packages.narrowed(ranges) == ">=1.10,<3,!=2.1"


def test_the_report_is_a_line_a_finding_in_a_log_and_a_mend_is_never_wrapped_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    mend = "python -m pip install " + "x" * 90
    findings = [Finding("torch", "wrong", "one two three " * 8, mend), Finding("disk [b]", "fine", "[red]plenty[/red]")]
    first, second, last = report.lines(findings)
    assert first == f"wrong  torch     {'one two three ' * 8}; mend: {mend}"
    assert second == "fine   disk [b]  [red]plenty[/red]"
    assert last == "1 wrong, 0 note, 1 fine"
    report.show(findings)
    shown = capsys.readouterr().out.splitlines()
    assert f"                 mend: {mend}" in shown
    assert "fine   disk [b]  [red]plenty[/red]" in shown
    assert all(len(line) <= 60 for line in shown if "mend" not in line)
    assert len([line for line in shown if "two" in line]) > 1


def test_the_json_report_holds_findings_counts_and_facts():
    values = json.loads(json.dumps(report.to_json(HEALTHY, examine(HEALTHY))))
    assert (values["wrong"], values["note"]) == (0, 0)
    assert values["findings"][0] == {"name": "Python", "verdict": "fine", "what": "3.12.4, venv in /env", "mend": ""}
    assert values["facts"]["torch"]["cuda"] == "13.2"


@pytest.mark.parametrize("module", ["kit.cli.doctor", "kit.doctor.gathering", "kit.doctor.examination"])
def test_doctor_itself_loads_nothing_that_may_be_broken(module):
    heavy = {"torch", "torchvision", "fastai", "timm", "gradio", "numpy", "pandas", "PIL"}
    code = f"import sys, {module}; print(*(set(sys.modules) & {heavy!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_subjects_are_judged_in_the_order_in_which_a_person_would_look():
    assert examination.SUBJECTS[0].__name__ == "about_python"
    assert [one.name for one in examine(HEALTHY)][-1] == "network"
