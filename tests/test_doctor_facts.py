"""How `kit doctor` finds its facts: on made-up file systems, with programs that play torch and nvidia-smi."""

import http.server
import json
import os
import socket
import ssl
import sys
import threading
from pathlib import Path

import pytest

from kit.doctor import examination, gpu, network, packages, probe, probe_process, resources
from kit.doctor.examination import gather
from kit.doctor.packages import KIT, installed, needed
from kit.files import packaged, sha256
from kit.model.weight_paths import LITE0

POSIX = pytest.mark.skipif(os.name != "posix", reason="a shell script plays nvidia-smi")


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def distribution(folder: Path, name: str, version: str, *requires: str) -> None:
    """A package as pip leaves it, without its code."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {text}" for text in requires]
    write(folder / f"{name}-{version}.dist-info" / "METADATA", "\n".join(lines) + "\n")


def test_packages_are_read_from_metadata_in_the_order_of_the_path(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    distribution(first, "torch", "2.15.0", "Typing_Extensions>=4")
    distribution(first, "cuda_toolkit", "13.2.2")
    distribution(second, "torch", "2.9.0", "numpy (>=1.0)")
    write(first / "broken-1.0.dist-info" / "METADATA", "no name\n")
    found = installed([str(first), str(second)], project=tmp_path / "nowhere")
    assert {(one.name, one.version) for one in found} == {
        ("torch", "2.15.0"),
        ("cuda-toolkit", "13.2.2"),
        ("torch", "2.9.0"),
    }
    torch, older = (one for one in found if one.name == "torch")
    assert (torch.version, torch.folder, torch.requires) == ("2.15.0", str(first.resolve()), ["Typing_Extensions>=4"])
    assert older.folder == str(second.resolve())


def test_what_kit_needs_is_found_through_markers_and_extras(tmp_path):
    distribution(tmp_path, KIT, "0.1.0", "torch>=2.10", 'tqdm; extra == "test"', 'pywin32; sys_platform == "nowhere"')
    distribution(tmp_path, "torch", "2.15.0", "cuda-toolkit[cublas]==13.2.2", "Typing_Extensions>=4", "not a require!")
    distribution(
        tmp_path, "cuda_toolkit", "13.2.2", 'nvidia-cublas==13.4.*; extra == "cublas"', 'cufft; extra == "cufft"'
    )
    distribution(tmp_path, "stranger", "1.0", "rich")
    found = installed([str(tmp_path)], project=tmp_path / "nowhere")
    wishes = needed({one.name: one for one in found})
    assert {name: [str(one.specifier) for _, one in every] for name, every in wishes.items()} == {
        "torch": [">=2.10"],
        "cuda-toolkit": ["==13.2.2"],
        "typing-extensions": [">=4"],
        "nvidia-cublas": ["==13.4.*"],
    }


def test_in_its_repository_kit_wants_what_pyproject_says_now(tmp_path):
    distribution(tmp_path, KIT, "0.1.0", "torch>=1.0")
    project = write(tmp_path / "pyproject.toml", '[project]\ndependencies = ["torch>=2.10"]\n')
    (kit,) = installed([str(tmp_path)], project=project)
    assert kit.requires == ["torch>=2.10"]


def test_the_project_has_the_name_by_which_its_requirements_are_looked_up():
    assert f'\nname = "{KIT}"' in packages.PROJECT.read_text(encoding="utf-8")


def test_a_folder_that_is_on_the_path_twice_counts_once(tmp_path):
    distribution(tmp_path / "lib", "torch", "2.15.0")
    (tmp_path / "lib64").symlink_to(tmp_path / "lib")
    assert len(installed([str(tmp_path / "lib"), str(tmp_path / "lib64")])) == 1


# What nvidia-smi says


HEAD = "| NVIDIA-SMI 595.50    Driver Version: 595.50    CUDA Version: 13.2 |"
NEW_HEAD = "| NVIDIA-SMI 610.43  KMD Version: 610.43  CUDA UMD Version: 13.4 |"


def play_nvidia_smi(folder: Path, monkeypatch, script: str) -> None:
    program = write(folder / "bin" / "nvidia-smi", f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


GPU_SCRIPT = """case "$1" in
--query-gpu*) echo "595.50, NVIDIA H200, 9.0"; echo "595.50, Tesla K80, [N/A]"; echo "an odd message";;
--query-compute*) echo "4711, /usr/bin/python3, 512, GPU-b"; echo "12, [Not Found], [N/A], GPU-a";;
*) echo "HEAD";;
esac"""


@POSIX
@pytest.mark.parametrize(("head", "cuda"), [(HEAD, "13.2"), (NEW_HEAD, "13.4"), ("CUDA Version: N/A", "")])
def test_driver_gpus_and_processes_are_read_from_nvidia_smi(tmp_path, monkeypatch, head, cuda):
    play_nvidia_smi(tmp_path, monkeypatch, GPU_SCRIPT.replace("HEAD", head))
    found = gpu.nvidia(tmp_path)
    assert (found.smi, found.error, found.driver, found.cuda) == (True, "", "595.50", cuda)
    assert [(one.name, one.capability) for one in found.gpus] == [("NVIDIA H200", 9.0), ("Tesla K80", 0)]
    one, other = found.processes
    assert (one.pid, one.name, one.memory, one.gpu) == (4711, "python3", 512 << 20, "GPU-b")
    assert (other.pid, other.name, other.memory) == (12, "[Not Found]", 0)


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
    found = gpu.nvidia(tmp_path)
    assert error in found.error
    assert found.gpus == []


@POSIX
def test_a_driver_that_hangs_is_left(tmp_path, monkeypatch):
    play_nvidia_smi(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr(gpu, "SMI_SECONDS", 0.1)
    assert gpu.nvidia(tmp_path).error == "no answer in 0.1 s"


def test_boards_and_kernel_module_are_found_without_nvidia_smi(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpu, "SMI_PLACES", ())
    for number, (kind, vendor) in enumerate([("0x030000", "0x10de"), ("0x030200", "0x10de"), ("0x030000", "0x1002")]):
        write(tmp_path / f"sys/bus/pci/devices/{number}/class", kind)
        write(tmp_path / f"sys/bus/pci/devices/{number}/vendor", vendor)
    write(tmp_path / "sys/bus/pci/devices/audio/class", "0x040300")
    write(tmp_path / "sys/bus/pci/devices/audio/vendor", "0x10de")
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23"
    write(tmp_path / "proc/driver/nvidia/version", text)
    found = gpu.nvidia(tmp_path)
    assert (found.boards, found.amd, found.module, found.nodes, found.smi) == (2, 1, "580.95.05", False, False)
    open_text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  595.71  Release Build"
    write(tmp_path / "proc/driver/nvidia/version", open_text)
    write(tmp_path / "dev/nvidia0")
    assert (gpu.nvidia(tmp_path).module, gpu.nvidia(tmp_path).nodes) == ("595.71", True)


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
    assert resources.machine(tmp_path).allowed == cores


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_containers_memory_counts(tmp_path, name):
    whole = resources.machine(tmp_path)
    write(tmp_path / "sys/fs/cgroup" / name, "1000000")
    found = resources.machine(tmp_path)
    assert (found.memory, found.available) == (1_000_000, 1_000_000)
    assert whole.memory > whole.available > 1_000_000


def test_places_are_where_the_variables_say_or_would_be_made(tmp_path, monkeypatch):
    write(tmp_path / "file")
    monkeypatch.setenv("KIT_CACHE", str(tmp_path / "not" / "yet"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    kit, torch, hub, *_ = resources.places()
    assert (kit.path, kit.variable) == (str(tmp_path / "not" / "yet"), "KIT_CACHE")
    assert kit.writable
    assert kit.free > 0
    assert not torch.writable
    assert (hub.path, hub.writable) == (str(tmp_path), True)


def test_the_bundled_weights_are_those_that_the_list_names_and_imagenets_are_whole():
    listed = dict(reversed(line.split()) for line in (packaged("weights") / "SHA256SUMS").read_text().splitlines())
    assert listed == {path.name: sha256(path) for path in packaged("weights").glob("*.safetensors")}
    assert resources.shipped() == dict.fromkeys([*listed, "the drawn sample", LITE0.file], "whole")


def test_imagenets_weights_that_are_damaged_or_gone_are_seen(tmp_path, monkeypatch):
    module = LITE0.name.replace("-", "_")
    write(tmp_path / module / "__init__.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert resources.shipped()[LITE0.file] == "missing"
    write(tmp_path / module / "models" / LITE0.file, "cut off")
    assert resources.shipped()[LITE0.file] == "changed"


def test_weights_that_changed_or_are_gone_are_seen(tmp_path, monkeypatch):
    weights = write(tmp_path / "weights" / "net.safetensors", "whole")
    write(tmp_path / "weights" / "SHA256SUMS", f"{sha256(weights)}  net.safetensors\n{'0' * 64}  other.safetensors\n")
    monkeypatch.setattr(resources, "packaged", lambda name: tmp_path / name)
    states = resources.shipped()
    assert states["net.safetensors"] == "whole"
    assert states["other.safetensors"] == states["the drawn sample"] == "missing"
    weights.write_text("changed")
    assert resources.shipped()["net.safetensors"] == "changed"
    (tmp_path / "weights" / "SHA256SUMS").unlink()
    assert resources.shipped()["SHA256SUMS"] == "missing"


# The system


def test_libraries_of_cuda_on_the_search_path_are_found(tmp_path, monkeypatch):
    ours = ["libcudnn.so.8", "libcudnn_ops_infer.so.8.9.2", "libcudart.so.11.0", "cudart64_100.dll", "cudnn64_7.dll"]
    for name in [*ours, "libcuda.so.1", "libc.so.6", "cudnn.h", "readme.txt"]:
        write(tmp_path / "lib" / name)
    search = os.pathsep.join(["", str(tmp_path / "gone"), str(tmp_path / "lib"), str(tmp_path / "lib")])
    monkeypatch.setenv("PATH" if os.name == "nt" else "LD_LIBRARY_PATH", search)
    assert resources.system(tmp_path).libraries == sorted(str(tmp_path / "lib" / name) for name in ours)


def test_condas_torch_is_found_with_its_version(tmp_path):
    for name in ("cudnn-8.2.1-cuda11.3_0", "pytorch-cuda-12.1-0", "pytorch-2.3.0-py3.11_0"):
        write(tmp_path / "conda-meta" / f"{name}.json")
    assert resources.system(prefix=tmp_path).conda_torch == "2.3.0"


def test_the_kind_of_an_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    assert packages.python(tmp_path, virtual=True).kind == "venv"
    assert packages.python(tmp_path, virtual=False).kind == "system"
    (tmp_path / "conda-meta").mkdir()
    assert packages.python(tmp_path, virtual=False).kind == "conda"
    (tmp_path / "condabin").mkdir()
    assert packages.python(tmp_path, virtual=False).kind == "conda base"
    assert packages.python(tmp_path).activated == ""
    assert packages.python(tmp_path / "other").activated == str(tmp_path)


def test_the_system_is_read_from_its_own_files(tmp_path, monkeypatch):
    write(tmp_path / "proc/version", "Linux version 5.15.153.1-microsoft-standard-WSL2")
    write(tmp_path / "etc/os-release", 'NAME="Ubuntu"\nVERSION_ID="24.04"\nID=ubuntu\n')
    write(tmp_path / ".dockerenv")
    (tmp_path / "usr/local/cuda-11.3").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "torch.py")
    found = resources.system(tmp_path)
    assert (found.wsl, found.container, found.distribution) == (True, True, "ubuntu")
    assert found.toolkits == [str(tmp_path / "usr/local/cuda-11.3")]
    assert found.shadows == [str(tmp_path / "torch.py")]


# torch, asked in another process


def play_torch(folder: Path, monkeypatch, code: str) -> None:
    """A package torch in the place of the real one, for the other process."""
    write(folder / "torch" / "__init__.py", code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def answer(seconds: float = 60):
    return probe_process.answer(probe_process.ask(), seconds)


def test_an_import_that_fails_is_told_with_its_text(tmp_path, monkeypatch):
    play_torch(tmp_path, monkeypatch, "raise ImportError('libcudnn.so.9: cannot open shared object file')")
    found = answer()
    assert (found.done, found.failed, found.exit) == ([], "torch", 0)
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


def marked(**facts) -> str:
    return probe.MARK + json.dumps({**probe.FACTS, **facts})


def test_what_was_said_before_a_crash_still_counts():
    done = {"done": ["torch"], "seconds": {"torch": 1.5}, "version": "2.15.0", "architectures": ["sm_90"]}
    lines = [marked(failed="torch"), "a library talks", marked(failed="", **done), marked(failed="torchvision", **done)]
    found = probe_process.read("\n".join(lines), "Unable to load any of {libcudnn_ops.so.9}", -6)
    assert (found.done, found.failed, found.version, found.exit) == (["torch"], "torchvision", "2.15.0", -6)
    assert found.error == "Unable to load any of {libcudnn_ops.so.9}"
    assert (found.architectures, found.seconds) == (["sm_90"], {"torch": 1.5})


def test_a_warning_about_numpy_counts_as_an_error():
    def warns():
        import warnings

        warnings.warn("Failed to initialize NumPy: _ARRAY_API not found", stacklevel=1)

    def fails():
        raise RuntimeError("odd")

    assert probe.error_of(warns) == "Failed to initialize NumPy: _ARRAY_API not found"
    assert probe.error_of(fails) == "RuntimeError: odd"
    assert probe.error_of(lambda: None) == ""


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
    places = {server: "a", f"{server}/proxy": "b", silent: "c", closed: "d"}
    monkeypatch.setattr(network, "addresses", lambda: places)
    refuses, proxied, late, nobody = network.hosts(0.5)
    assert (refuses.answer, refuses.error) == ("404 Not Found", "")
    assert (proxied.answer, proxied.error) == ("", "407 Proxy Authentication Required")
    assert (late.answer, late.error) == ("", "timed out")
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
    asked = " ".join(network.addresses())
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
    assert (facts.hosts, facts.unseen) == (None, [])
    assert facts.torch.failed == "torch"


def test_a_look_that_fails_costs_only_its_own_facts(tmp_path, monkeypatch):
    play_torch(tmp_path, monkeypatch, "raise ImportError('stop here')")

    def fail():
        raise OSError("no such thing")

    monkeypatch.setattr(examination, "places", fail)
    facts = gather()
    assert facts.unseen == ["places: OSError: no such thing"]
    assert facts.python.executable == sys.executable
