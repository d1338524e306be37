"""How `kit doctor` finds its facts: on made-up file systems, with programs that play torch and nvidia-smi."""

import http.server
import os
import socket
import ssl
import sys
import threading
from pathlib import Path

import pytest

from kit.doctor import gathering, machine, network, nvidia, probe, trial
from kit.doctor.facts import Gpu, Process, Torch
from kit.doctor.gathering import gather
from kit.doctor.installed import installed
from kit.files import packaged, sha256

GIB = 1 << 30
POSIX = pytest.mark.skipif(os.name != "posix", reason="a shell script plays nvidia-smi")


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def distribution(folder: Path, name: str, version: str, *requires: str, python: str = "") -> None:
    """A package as pip leaves it, without its code."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Python: {python}"] * bool(python) + [f"Requires-Dist: {text}" for text in requires]
    write(folder / f"{name}-{version}.dist-info" / "METADATA", "\n".join(lines) + "\n")


def test_packages_are_read_from_metadata_in_the_order_of_the_path(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    distribution(first, "kit", "0.1.0", "torch>=2.10", 'tqdm; extra == "test"', 'pywin32; sys_platform == "nowhere"')
    distribution(first, "torch", "2.15.0", "cuda-toolkit[cublas]==13.2.2", "Typing_Extensions>=4", python=">=3.11")
    distribution(first, "cuda_toolkit", "13.2.2", 'nvidia-cublas==13.4.*; extra == "cublas"', 'cufft; extra == "cufft"')
    distribution(first, "tqdm", "4.0")
    distribution(second, "torch", "2.9.0", "numpy (>=1.0)")
    write(first / "broken-1.0.dist-info" / "METADATA", "no name\n")
    found = installed([str(first), str(second)], project=None)
    named = {(one.name, one.version): one for one in found}
    assert named.keys() == {
        ("kit", "0.1.0"),
        ("torch", "2.15.0"),
        ("cuda-toolkit", "13.2.2"),
        ("tqdm", "4.0"),
        ("torch", "2.9.0"),
    }
    torch = named["torch", "2.15.0"]
    assert torch.requires == ("cuda-toolkit==13.2.2", "typing-extensions>=4")
    assert (torch.python, torch.folder, torch.ours) == (">=3.11", str(first.resolve()), True)
    assert named["kit", "0.1.0"].requires == ("torch>=2.10",)
    assert named["cuda-toolkit", "13.2.2"].requires == ("nvidia-cublas==13.4.*",)
    assert not named["tqdm", "4.0"].ours
    assert [one.version for one in found if one.name == "torch"] == ["2.15.0", "2.9.0"]


def test_in_its_repository_kit_wants_what_pyproject_says_now(tmp_path):
    distribution(tmp_path, "kit", "0.1.0", "torch>=1.0")
    project = write(tmp_path / "pyproject.toml", '[project]\nname = "kit"\ndependencies = ["torch>=2.10"]\n')
    (kit,) = installed([str(tmp_path)], project=project)
    assert kit.requires == ("torch>=2.10",)


def test_a_folder_that_is_on_the_path_twice_counts_once(tmp_path):
    distribution(tmp_path / "lib", "torch", "2.15.0")
    (tmp_path / "lib64").symlink_to(tmp_path / "lib")
    assert len(installed([str(tmp_path / "lib"), str(tmp_path / "lib64")], project=None)) == 1


# What nvidia-smi says


HEAD = "| NVIDIA-SMI 595.50    Driver Version: 595.50    CUDA Version: 13.2 |"
NEW_HEAD = "| NVIDIA-SMI 610.43  KMD Version: 610.43  CUDA UMD Version: 13.4 |"


def test_the_newest_cuda_is_read_from_the_head_of_the_table():
    assert nvidia.newest_cuda(HEAD) == "13.2"
    assert nvidia.newest_cuda(NEW_HEAD) == "13.4"
    assert nvidia.newest_cuda("CUDA Version: N/A") == ""


def play_nvidia_smi(folder: Path, monkeypatch, script: str) -> None:
    program = write(folder / "bin" / "nvidia-smi", f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


GPU_SCRIPT = f"""case "$1" in
--query-gpu*) echo "0, NVIDIA H200, 143771, 1024, 9.0, 595.50, GPU-a"
              echo "1, Tesla K80, [N/A], [N/A], [N/A], 595.50, GPU-b";;
--query-compute*) echo "4711, /usr/bin/python3, 512, GPU-b"; echo "12, [Not Found], [N/A], GPU-a";;
*) echo "{HEAD}";;
esac"""


@POSIX
def test_driver_gpus_and_processes_are_read_from_nvidia_smi(tmp_path, monkeypatch):
    play_nvidia_smi(tmp_path, monkeypatch, GPU_SCRIPT)
    found = nvidia.nvidia(tmp_path)
    assert (found.smi, found.error, found.driver, found.cuda) == (True, "", "595.50", "13.2")
    mib = 1 << 20
    assert found.gpus == (Gpu(0, "NVIDIA H200", 143771 * mib, 1024 * mib, (9, 0)), Gpu(1, "Tesla K80"))
    assert found.processes == (Process(4711, "python3", 512 * mib, 1), Process(12, "[Not Found]", 0, 0))


@POSIX
@pytest.mark.parametrize(
    ("script", "error"),
    [
        (
            "echo 'NVML: Driver/library version mismatch'; exit 18",
            "Driver/library version mismatch",
        ),
        ("echo 'No devices were found'", "No devices were found"),
        ("exit 3", "exit code 3"),
    ],
)
def test_a_failing_nvidia_smi_is_told_with_what_it_said(tmp_path, monkeypatch, script, error):
    play_nvidia_smi(tmp_path, monkeypatch, script)
    found = nvidia.nvidia(tmp_path)
    assert error in found.error
    assert found.gpus == ()


@POSIX
def test_a_driver_that_hangs_is_left(tmp_path, monkeypatch):
    play_nvidia_smi(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr(nvidia, "SECONDS", 0.1)
    assert nvidia.nvidia(tmp_path).error == "no answer in 0.1 s"


def test_boards_and_kernel_module_are_found_without_nvidia_smi(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nvidia, "PLACES", ())
    for number, (kind, vendor) in enumerate([("0x030000", "0x10de"), ("0x030200", "0x10de"), ("0x030000", "0x1002")]):
        write(tmp_path / f"sys/bus/pci/devices/{number}/class", kind)
        write(tmp_path / f"sys/bus/pci/devices/{number}/vendor", vendor)
    write(tmp_path / "sys/bus/pci/devices/audio/class", "0x040300")
    write(tmp_path / "sys/bus/pci/devices/audio/vendor", "0x10de")
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23"
    write(tmp_path / "proc/driver/nvidia/version", text)
    found = nvidia.nvidia(tmp_path)
    assert (found.boards, found.amd, found.module, found.nodes, found.smi) == (2, 1, "580.95.05", False, False)
    open_text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  595.71  Release Build"
    write(tmp_path / "proc/driver/nvidia/version", open_text)
    write(tmp_path / "dev/nvidia0")
    assert (nvidia.nvidia(tmp_path).module, nvidia.nvidia(tmp_path).nodes) == ("595.71", True)


# Cores, memory, folders


@pytest.fixture
def eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8), raising=False)


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "250000 100000"}, 2.5),
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("0::/a/b\n", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "max 100000"}, 1),
        ("4:cpu,cpuacct:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("", {}, 8),
    ],
)
@pytest.mark.usefixtures("eight_cores")
def test_a_containers_share_of_the_cores_counts(tmp_path, groups, files, cores):
    write(tmp_path / "proc/self/cgroup", groups)
    for name, text in files.items():
        write(tmp_path / "sys/fs/cgroup" / name, text)
    assert machine.allowed_cores(tmp_path) == cores


def test_a_containers_memory_counts(tmp_path):
    write(tmp_path / "proc/meminfo", "MemTotal:  33554432 kB\nMemAvailable: 16777216 kB\nHugePages_Total: 0\n")
    write(tmp_path / "proc/self/cgroup", "0::/\n")
    assert machine.memory(tmp_path) == (32 * GIB, 16 * GIB)
    write(tmp_path / "sys/fs/cgroup/memory.max", str(4 * GIB))
    assert machine.memory(tmp_path) == (4 * GIB, 4 * GIB)


def test_a_folder_is_measured_without_following_links_and_not_for_ever(tmp_path):
    write(tmp_path / "a" / "one", "x" * 100)
    write(tmp_path / "two", "x" * 50)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert machine.folder_size(tmp_path) == (150, True)
    assert machine.folder_size(tmp_path, most=1)[1] is False
    assert machine.folder_size(tmp_path / "nowhere") == (0, True)


def test_a_place_that_is_not_there_yet_is_judged_by_where_it_would_be_made(tmp_path):
    found = machine.place("kit's cache", tmp_path / "not" / "yet", "KIT_CACHE", measured=True)
    assert (found.writable, found.size, found.free > 0) == (True, 0, True)
    write(tmp_path / "file")
    assert not machine.place("kit's cache", tmp_path / "file" / "cache", "KIT_CACHE").writable


def test_places_are_where_the_variables_say(tmp_path, monkeypatch):
    for variable in ("KIT_CACHE", "TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    named = {one.variable: one.path for one in machine.places()}
    assert [named[variable] for variable in ("KIT_CACHE", "TORCH_HOME", "HF_HOME")] == [
        str(tmp_path / variable) for variable in ("KIT_CACHE", "TORCH_HOME", "HF_HOME")
    ]


def test_the_bundled_weights_are_those_that_the_list_names():
    listed = dict(reversed(line.split()) for line in (packaged("weights") / machine.SUMS).read_text().splitlines())
    assert listed == {path.name: sha256(path) for path in packaged("weights").glob("*.safetensors")}
    assert {one.state for one in machine.shipped()} == {"whole"}


def test_weights_that_changed_or_are_gone_are_seen(tmp_path, monkeypatch):
    weights = write(tmp_path / "weights" / "net.safetensors", "whole")
    write(tmp_path / "weights" / machine.SUMS, f"{sha256(weights)}  net.safetensors\n{'0' * 64}  other.safetensors\n")
    monkeypatch.setattr(machine, "packaged", lambda name: tmp_path / name)
    states = {one.name: one.state for one in machine.shipped()}
    assert states == {"net.safetensors": "whole", "other.safetensors": "missing", "the drawn sample": "missing"}
    weights.write_text("changed")
    assert machine.shipped()[0].state == "changed"
    (tmp_path / "weights" / machine.SUMS).unlink()
    assert machine.shipped()[0].state == "missing"


# The system


def test_libraries_of_cuda_on_the_search_path_are_found(tmp_path):
    ours = ["libcudnn.so.8", "libcudnn_ops_infer.so.8.9.2", "libcudart.so.11.0", "cudart64_100.dll", "cudnn64_7.dll"]
    for name in [*ours, "libcuda.so.1", "libc.so.6", "cudnn.h", "readme.txt"]:
        write(tmp_path / "lib" / name)
    search = os.pathsep.join(["", str(tmp_path / "gone"), str(tmp_path / "lib"), str(tmp_path / "lib")])
    assert sorted(Path(path).name for path in gathering.libraries(search)) == sorted(ours)


def test_condas_own_cuda_is_found_by_name_and_version(tmp_path):
    for name in (
        "cudnn-8.2.1-cuda11.3_0",
        "pytorch-2.3.0-py3.11_0",
        "keras-gpu-2.2.4-0",
        "cudnnx-1-0",
        "pip-24-0",
    ):
        write(tmp_path / "conda-meta" / f"{name}.json")
    assert gathering.conda_packages(tmp_path) == {"cudnn": "8.2.1", "keras-gpu": "2.2.4", "pytorch": "2.3.0"}


def test_the_kind_of_an_environment(tmp_path):
    assert gathering.kind_of(tmp_path, virtual=True) == "venv"
    assert gathering.kind_of(tmp_path, virtual=False) == "system"
    (tmp_path / "conda-meta").mkdir()
    assert gathering.kind_of(tmp_path, virtual=False) == "conda"
    (tmp_path / "condabin").mkdir()
    assert gathering.kind_of(tmp_path, virtual=False) == "conda base"
    assert gathering.activated(str(tmp_path), tmp_path) == ""
    assert gathering.activated("/other", tmp_path) == "/other"


def test_the_system_is_read_from_its_own_files(tmp_path, monkeypatch):
    write(tmp_path / "proc/version", "Linux version 5.15.153.1-microsoft-standard-WSL2")
    write(tmp_path / "etc/os-release", 'NAME="Ubuntu"\nVERSION_ID="24.04"\nID=ubuntu\n')
    write(tmp_path / ".dockerenv")
    (tmp_path / "usr/local/cuda-11.3").mkdir(parents=True)
    write(tmp_path / ".condarc", "channels:\n  - defaults\nssl_verify: no\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "torch.py")
    found = gathering.system(tmp_path)
    assert (found.wsl, found.container, found.distribution) == (True, True, "ubuntu")
    assert found.toolkits == (str(tmp_path / "usr/local/cuda-11.3"),)
    assert found.shadows == (str(tmp_path / "torch.py"),)
    assert found.conda_unverified


# torch, asked in another process


def play_torch(folder: Path, monkeypatch, code: str) -> None:
    """A package torch in the place of the real one, for the other process."""
    write(folder / "torch" / "__init__.py", code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def answer(seconds: float = 60) -> Torch:
    return trial.answer_of(trial.ask(), seconds)


def test_an_import_that_fails_is_told_with_its_text(tmp_path, monkeypatch):
    play_torch(tmp_path, monkeypatch, "raise ImportError('libcudnn.so.9: cannot open shared object file')")
    found = answer()
    assert (found.done, found.failed, found.exit) == ((), "torch", 0)
    assert "ImportError: libcudnn.so.9: cannot open shared object file" in found.error


def test_an_import_that_ends_the_process_is_told_with_what_it_printed_last(tmp_path, monkeypatch):
    play_torch(tmp_path, monkeypatch, "import os, sys; print('odd', file=sys.stderr, flush=True); os.abort()")
    found = answer()
    assert (found.failed, found.exit) == ("torch", -6 if os.name == "posix" else found.exit)
    assert found.error.startswith("odd")
    assert found.exit != 0


def test_an_import_that_never_ends_is_stopped(tmp_path, monkeypatch):
    play_torch(tmp_path, monkeypatch, "import threading; threading.Event().wait()")
    found = answer(seconds=1)
    assert (found.failed, found.exit) == ("torch", None)


def test_a_process_that_does_not_even_start_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "__file__", str(tmp_path / "nowhere.py"))
    found = answer()
    assert found.failed == "torch"
    assert "nowhere.py" in found.error


def test_what_was_said_before_a_crash_still_counts():
    lines = [
        f'{probe.MARK}{{"begun": "torch"}}',
        "a library talks",
        f'{probe.MARK}{{"version": "2.15.0", "cuda": "13.2", "architectures": ["sm_90"]}}',
        f'{probe.MARK}{{"ended": "torch", "seconds": 1.5}}',
        f'{probe.MARK}{{"begun": "torchvision"}}',
    ]
    found = trial.read("\n".join(lines), "Unable to load any of {libcudnn_ops.so.9}", -6)
    assert (found.done, found.failed, found.version, found.exit) == (("torch",), "torchvision", "2.15.0", -6)
    assert found.error == "Unable to load any of {libcudnn_ops.so.9}"
    assert (found.architectures, found.seconds) == (("sm_90",), {"torch": 1.5})


def test_devices_are_read_with_their_capability():
    line = '{"devices": [{"name": "cuda:0", "capability": [9, 0], "total": 5}, {"name": "mps"}]}'
    found = trial.read(f"{probe.MARK}{line}", "", 0)
    assert [(one.name, one.capability, one.total) for one in found.devices] == [("cuda:0", (9, 0), 5), ("mps", None, 0)]


def test_a_warning_about_numpy_counts_as_an_error():
    def warns():
        import warnings

        warnings.warn("Failed to initialize NumPy: _ARRAY_API not found", stacklevel=1)

    def fails():
        raise RuntimeError("odd")

    assert probe._error_of(warns) == "Failed to initialize NumPy: _ARRAY_API not found"
    assert probe._error_of(fails) == "RuntimeError: odd"
    assert probe._error_of(lambda: None) == ""


# The network


class Answers(http.server.BaseHTTPRequestHandler):
    """404 for everything, as a server that refuses a bare address; 407 below /proxy."""

    def do_HEAD(self):
        self.send_response(407 if self.path.startswith("/proxy") else 404)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def silent():
    """A host that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def closed():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def test_hosts_are_asked_at_once_and_a_refusal_is_an_answer(server, silent, closed, monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    places = [(server, "a"), (f"{server}/proxy", "b"), (silent, "c"), (closed, "d")]
    refuses, proxied, late, nobody = network.hosts(0.5, places)
    assert (refuses.answer, refuses.error) == ("404 Not Found", "")
    assert (proxied.answer, proxied.error) == ("", "407 Proxy Authentication Required")
    assert late.error in ("timed out", "no answer in 0.5 s")
    assert "refused" in nobody.error
    assert [one.use for one in (refuses, proxied, late, nobody)] == ["a", "b", "c", "d"]


def test_a_bad_certificate_is_called_one(monkeypatch):
    class Opener:
        def open(self, *arguments, **options):
            error = ssl.SSLCertVerificationError(1, "x")
            error.verify_message = "self-signed certificate"
            raise network.URLError(error)

    monkeypatch.setattr(network, "build_opener", Opener)
    assert network.reach("https://host/", "x", 1).error == "certificate: self-signed certificate"


def test_proxies_are_named_without_their_passwords(monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy:3128")
    monkeypatch.setenv("http_proxy", "me:secret@proxy:3129")
    monkeypatch.setenv("no_proxy", "localhost")
    found = {scheme: host for scheme, host in network.proxies().items() if scheme in ("http", "https", "no")}
    assert found == {"https": "proxy:3128", "http": "proxy:3129", "no": "localhost"}


def test_every_host_that_a_download_uses_is_asked(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    asked = " ".join(address for address, _ in network.addresses())
    for host in ("download.pytorch.org", "https://mirror.example", "s3.amazonaws.com", "www.robots.ox.ac.uk"):
        assert host in asked


# All together


def test_nothing_goes_to_the_network_unless_asked(tmp_path, monkeypatch):
    play_torch(tmp_path, monkeypatch, "raise ImportError('stop here')")

    def refuse(*arguments, **options):
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    facts = gather()
    assert (facts.hosts, facts.unseen) == (None, ())
    assert facts.torch.failed == "torch"


def test_a_look_that_fails_costs_only_its_own_facts(tmp_path, monkeypatch):
    play_torch(tmp_path, monkeypatch, "raise ImportError('stop here')")

    def fail():
        raise OSError("no such thing")

    monkeypatch.setattr(gathering, "places", fail)
    facts = gather()
    assert facts.unseen == ("places: OSError: no such thing",)
    assert facts.python.executable == sys.executable
    assert facts.package("kit").ours
