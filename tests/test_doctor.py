"""What `kit doctor` says, on made-up facts: every finding in the code, with its fix."""

import json
import re
import subprocess
import sys

import pytest
from doctor_machines import (
    CARD,
    CASES,
    HEALTHY,
    NO_GPU,
    RTX,
    TEXTS,
    broken_gpu,
    changed,
    having,
    made,
    system,
    unable,
)

from kit.doctor import findings as findings_module
from kit.doctor.error_patterns import PATTERNS
from kit.doctor.examination import examine
from kit.doctor.findings import Finding
from kit.doctor.fixes import Fixes


def the(findings: list[Finding], verdict: str, name: str, what: str, fix: str) -> Finding:
    """The finding with this verdict and name that says this; a failure shows all that are not fine."""
    for one in findings:
        if (one.verdict, one.name) == (verdict, name) and what in one.what and fix in one.fix:
            return one
    raise AssertionError("\n".join(map(str, (one for one in findings if one.fix))) or "all is fine")


def test_a_healthy_machine_is_fine_in_every_line():
    findings = examine(HEALTHY)
    assert [one for one in findings if one.verdict != "fine" or one.fix] == []
    text = "\n".join(findings_module.lines(findings))
    assert "torch 2.15.0, torchvision 0.29.2, timm 1.0.31, fastai 2.8.12, gradio 6.31.0; all 9 packages" in text
    assert "NVIDIA 595.50, supports CUDA up to 13.2" in text
    assert "RTX 4090 (cuda:0), 24.0 GB, compute capability 8.9, CUDA 13.2 of torch's own, 23.0 GB free" in text
    assert "cuDNN          9.26.0, which fits this torch" in text
    assert "bf16 (the GPU has compute capability 8.9), on cuda" in text
    assert text.endswith("0 wrong, 0 note, 14 fine")


@pytest.mark.parametrize(("facts", "verdict", "name", "what", "fix"), CASES.values(), ids=CASES)
def test_every_fault_is_named_with_its_fix(facts, verdict, name, what, fix):
    findings = examine(facts)
    found = the(findings, verdict, name, what, fix)
    assert all(bool(one.fix) == (one.verdict != "fine") for one in findings)
    # One fault, one line: whatever else is said is not a second verdict on the same thing.
    assert [one for one in findings if one.fix and one.name == found.name and one != found] == []


ROWS = [(table, *row) for table, rows in TEXTS.items() for row in rows]


@pytest.mark.parametrize(("table", "text", "name", "what", "fix"), ROWS, ids=[row[1][:60] for row in ROWS])
def test_every_known_error_text_is_explained_and_fixed(table, text, name, what, fix):
    facts = unable(text) if table == "an import" else broken_gpu(text)
    if table == "nvidia-smi":
        facts = made(nvidia=changed(NO_GPU, boards=1, smi=True, error=text), torch={"devices": []})
    the(examine(facts), "wrong", name, what, fix)


def test_every_pattern_is_tried_by_a_text_that_no_pattern_above_it_takes():
    taken = {next(pattern for pattern in PATTERNS if re.search(pattern, text)) for _, text, *_ in ROWS}
    assert [pattern for pattern in PATTERNS if pattern not in taken] == []


def test_an_import_that_fails_hides_no_finding_about_the_driver():
    facts = made(
        torch={"done": [], "failed": "torch", "error": "libcudnn.so.9: cannot open shared object", "devices": []},
        nvidia={"error": "Failed to initialize NVML: Driver/library version mismatch", "driver": ""},
    )
    assert [one.name for one in examine(facts) if one.verdict == "wrong"] == ["cuDNN", "driver"]


def test_a_missing_package_is_told_once_and_not_again_as_a_failed_import():
    error = "ModuleNotFoundError: No module named 'numpy'"
    facts = having(without=("numpy",), torch={"failed": "torchvision", "error": error, "numpy_error": "Numpy is not"})
    (only,) = [one for one in examine(facts) if one.verdict == "wrong"]
    assert (only.name, only.fix) == ("numpy", 'python -m pip install "numpy<3.0,>=1.0,>=2.0"')


def test_a_mac_with_its_gpu_is_fine():
    mps = changed(CARD, name="mps", title="Apple GPU", capability=0, total=0, free=0)
    torch = {"version": "2.15.0", "cuda": None, "cudnn": None, "architectures": [], "devices": [mps], "device": "mps"}
    facts = made(torch=torch, nvidia=NO_GPU, system=system("Darwin"), machine={"shared_memory": None})
    assert [one for one in examine(facts) if one.fix] == []
    assert any("Apple GPU (mps): a convolution ran" in one.what for one in examine(facts))


def test_wsl_is_fine_when_windows_driver_serves_it():
    facts = made(nvidia={"boards": 0, "module": ""}, system=system(wsl=True))
    assert [one for one in examine(facts) if one.fix] == []


def test_several_gpus_are_said_not_to_add_up():
    """The notes: five cards of 12 GB are not one of 60."""
    five = [changed(CARD, name=f"cuda:{index}") for index in range(5)]
    assert any("5 GPUs do not add up" in one.what for one in examine(made(torch={"devices": five})))


def test_a_toolkit_that_torch_does_not_use_is_no_fault():
    facts = made(system=system(toolkits=["/usr/local/cuda-11.3"]))
    (line,) = [one for one in examine(facts) if one.name == "toolkit"]
    assert line == Finding("fine", "toolkit", "/usr/local/cuda-11.3: not used; torch has CUDA 13.2 of its own")


@pytest.mark.parametrize(("number", "version"), [(8902, "8.9.2"), (90100, "9.1.0"), (92600, "9.26.0")])
def test_cudnns_number_is_read_as_its_version(number, version):
    (line,) = [one for one in examine(made(torch={"cudnn": number})) if one.name == "cuDNN"]
    assert line.what == f"{version}, which fits this torch"


@pytest.mark.parametrize(
    ("driver", "capability", "build"),
    [
        ("595.10", 8.9, "cu130"),
        ("", 12.0, "cu130"),
        ("535.1", 8.9, "cu126"),
        ("595.10", 6.1, "cu126"),
        ("535.1", 12.0, ""),
        ("470.1", 8.9, ""),
        ("595.10", 3.7, ""),
    ],
)
def test_the_build_fits_driver_and_gpu(driver, capability, build):
    facts = made(nvidia={"driver": driver, "gpus": [changed(RTX, capability=capability)]}, torch={"devices": []})
    assert Fixes(facts).fitting_build == build


def test_commands_are_for_this_interpreter_and_this_shell():
    spaced = Fixes(made(python={"executable": "/my envs/bin/python"}))
    assert spaced.install("numpy>=2") == '"/my envs/bin/python" -m pip install "numpy>=2"'
    power = Fixes(made(python={"executable": "C:\\My Envs\\python.exe"}, system=system("Windows")))
    assert power.pip("install numpy") == '& "C:\\My Envs\\python.exe" -m pip install numpy'
    assert power.same_torch.count("; &") == 1
    assert power.unset("CUDA_VISIBLE_DEVICES").startswith("Remove-Item Env:CUDA_VISIBLE_DEVICES")
    assert power.set("OMP_NUM_THREADS", "2") == '$env:OMP_NUM_THREADS = "2"'
    assert "Scripts" in power.new_environment
    assert power.reboot == "Restart-Computer"
    assert Fixes(made(system=system(wsl=True))).reboot.startswith("in Windows: wsl --shutdown")
    assert Fixes(made(system=system(container=True))).reboot == "restart the host, then the container"
    uv = Fixes(made(python={"pip": "uv"}))
    assert uv.pip("uninstall -y torch") == "uv pip uninstall torch --python python"
    assert Fixes(made(python={"pip": ""})).install("x") == "python -m ensurepip && python -m pip install x"


def test_the_report_is_a_line_a_finding_in_a_log_and_a_fix_is_never_wrapped_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    fix = "python -m pip install " + "x" * 90
    findings = [Finding("wrong", "torch", "one two three " * 8, fix), Finding("fine", "disk [b]", "[red]plenty[/red]")]
    first, second, last = findings_module.lines(findings)
    assert first == f"wrong  torch     {'one two three ' * 8}; fix: {fix}"
    assert second == "fine   disk [b]  [red]plenty[/red]"
    assert last == "1 wrong, 0 note, 1 fine"
    findings_module.show(findings)
    shown = capsys.readouterr().out.splitlines()
    assert f"                 fix: {fix}" in shown
    assert "fine   disk [b]  [red]plenty[/red]" in shown
    assert all(len(line) <= 60 for line in shown if "fix" not in line)
    assert len([line for line in shown if "two" in line]) > 1


def test_the_json_report_holds_findings_counts_and_facts():
    values = json.loads(findings_module.to_json(HEALTHY, examine(HEALTHY)))
    assert (values["wrong"], values["note"]) == (0, 0)
    assert values["findings"][0] == {"name": "Python", "verdict": "fine", "what": "3.12.4, venv in /env", "fix": ""}
    assert values["facts"]["torch"]["cuda"] == "13.2"


@pytest.mark.parametrize("module", ["kit.cli.doctor", "kit.doctor.examination"])
def test_doctor_itself_loads_nothing_that_may_be_broken(module):
    heavy = {"torch", "torchvision", "fastai", "timm", "gradio", "numpy", "pandas", "PIL"}
    code = f"import sys, {module}; print(*(set(sys.modules) & {heavy!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_findings_come_in_the_order_in_which_a_person_would_look():
    names = list(dict.fromkeys(one.name for one in examine(HEALTHY)))
    order = ["Python", "packages", "imports", "driver", "GPU", "memory", "kit's cache", "kit's files", "network"]
    assert [name for name in names if name in order] == order


def test_facts_that_could_not_be_found_cost_only_their_own_lines():
    facts = made(unseen=["machine: ModuleNotFoundError: No module named 'psutil'"])
    del facts.machine
    names = {one.name for one in examine(facts)}
    assert {"Python", "packages", "GPU", "kit's files", "network", "doctor"} <= names
    assert not names & {"cores", "memory"}
