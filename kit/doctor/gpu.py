"""Driver, CUDA, cuDNN and GPU: is there one, does torch reach it, and do their versions fit?

Three things are called CUDA, and are kept apart here: what the driver takes at most, what torch was compiled with and
brings along, and a toolkit that may be installed besides and that torch does not use.
"""

from collections.abc import Iterator

from kit.doctor import mends
from kit.doctor.facts import GB, Device, Facts, Finding, fine, note, size, wrong
from kit.doctor.imports import last_line
from kit.doctor.known import CUDA, IMPORTS, SMI, recognised

LITTLE_MEMORY = 2 * GB


def about_gpu(facts: Facts) -> Iterator[Finding]:
    """Everything about the GPU, or that there is none."""
    nvidia, torch = facts.nvidia, facts.torch
    if not (_there(facts) or torch.devices):
        yield from _none(facts)
        return
    if not torch.devices or nvidia.driver:
        driver = _driver(facts)
        yield driver
        if driver.verdict != "fine":
            return
    if "torch" in torch.done:
        yield from _torch_on_gpu(facts)
    yield from _libraries(facts)
    yield from _memory(facts)


def _there(facts: Facts) -> bool:
    """Whether there is an NVIDIA GPU. A driver on a machine whose bus has none fails too, and is no fault."""
    nvidia, system = facts.nvidia, facts.system
    idle = system.name == "Linux" and not system.wsl and nvidia.error
    return bool(nvidia.boards or ((nvidia.smi or nvidia.module) and not idle))


def _none(facts: Facts) -> Iterator[Finding]:
    """No NVIDIA GPU: another kind, or none."""
    if facts.torch.mps_built and not facts.torch.mps:
        what = "Apple's GPU cannot be used: this macOS is too old for torch"
        yield note("GPU", what, "update macOS (System Settings, General, Software Update) to 14 or later")
    elif facts.nvidia.amd and not facts.torch.hip:
        what = "an AMD GPU; this torch is not built for it (ROCm), and kit was never tried on one"
        yield note("GPU", what, "choose ROCm on https://pytorch.org/get-started/locally, if you want to try")
    else:
        what = "none: training uses the processor, which is slower"
        mend = "nothing is broken; for shorter runs: --arch resnet18 --size 128, or a machine with a GPU"
        yield note("GPU", what, mend)


def _driver(facts: Facts) -> Finding:
    """The driver without torch. Boards on the bus that no driver serves are the commonest case."""
    nvidia = facts.nvidia
    if nvidia.error:
        known = recognised(SMI, nvidia.error, facts)
        return known or wrong("driver", f"nvidia-smi fails: {last_line(nvidia.error)}", mends.reboot(facts))
    if not nvidia.smi and facts.system.container and not nvidia.nodes:
        return note("GPU", "this machine has one, but the container was started without it", mends.seen(facts))
    if not nvidia.smi and not nvidia.module:
        return wrong("driver", "there is an NVIDIA GPU and no driver", mends.driver(facts, mends.OLDEST_DRIVER[13]))
    text = f"NVIDIA {nvidia.driver or nvidia.module}"
    return fine("driver", f"{text}, takes programs of CUDA up to {nvidia.cuda}" if nvidia.cuda else text)


def _torch_on_gpu(facts: Facts) -> Iterator[Finding]:
    """torch's build against the driver and the GPUs, worst first."""
    torch, hidden = facts.torch, facts.system.variables.get("CUDA_VISIBLE_DEVICES")
    if torch.devices or torch.failed == "gpu":
        yield from _trials(facts)
    elif not torch.cuda and not torch.hip:
        yield _wrong_build(facts)
    elif hidden is not None:
        yield _hidden(facts, hidden)
    elif too_old := _too_old(facts):
        yield too_old
    elif text := torch.cuda_error or ("No CUDA GPUs are available" if "gpu" in torch.done else ""):
        yield recognised(CUDA, text, facts) or wrong("CUDA", last_line(text), mends.reboot(facts))


def _wrong_build(facts: Facts) -> Finding:
    build = mends.build_for(facts)
    what = f"torch {facts.torch.version} is built for the processor only: the GPU is not used"
    if not build:
        return wrong("torch", what, f"first {mends.driver(facts, mends.OLDEST_DRIVER[13])}")
    return wrong("torch", what, mends.both(facts, build))


def _hidden(facts: Facts, hidden: str) -> Finding:
    """A variable that names no GPU, or one that is not here."""
    mend = mends.unset(facts, "CUDA_VISIBLE_DEVICES")
    if hidden.strip() in ("", "-1", "none", "NoDevFiles"):
        return note("GPU", f"hidden by CUDA_VISIBLE_DEVICES={hidden!r}: training uses the processor", mend)
    count = max(len(facts.nvidia.gpus), facts.nvidia.boards)
    what = f"CUDA_VISIBLE_DEVICES={hidden} names none that is here (there are {count}, counted from 0)"
    return wrong("GPU", what, mend)


def _too_old(facts: Facts) -> Finding | None:
    """The driver against the CUDA that torch was compiled with; only CUDA's major version counts for that."""
    nvidia, torch = facts.nvidia, facts.torch
    wanted, takes = mends.branch(torch.cuda or ""), mends.branch(nvidia.cuda)
    oldest = mends.OLDEST_DRIVER.get(wanted, 0)
    if not nvidia.driver:
        return None
    if mends.branch(nvidia.driver) >= oldest and (not takes or takes >= wanted):
        return None
    words = mends.commands(facts)
    asks = f"driver {oldest} or newer" if oldest else "a newer driver"
    what = f"NVIDIA {nvidia.driver} (CUDA up to {nvidia.cuda or '?'}) is too old: torch is built with CUDA {torch.cuda}"
    return wrong("driver", f"{what}, which asks for {asks}", words["driver"] + words["or_build"])


def _trials(facts: Facts) -> Iterator[Finding]:
    """Each GPU that torch sees: is it compiled for it, and did a convolution run there?"""
    if facts.torch.failed == "gpu":
        text = facts.torch.error
        crash = wrong("GPU", f"the trial on it failed: {last_line(text)}", mends.commands(facts)["cudnn"])
        yield recognised(CUDA, text, facts) or recognised(IMPORTS, text, facts) or crash
    yield from _cudnn(facts)
    for device in facts.torch.devices:
        yield _trial(facts, device)
    if len(facts.torch.devices) > 1:
        many = f"{len(facts.torch.devices)} GPUs do not add up: a network and its batch must fit into one of them"
        yield fine("GPU", f"kit trains on {facts.torch.device}; {many}")


def _trial(facts: Facts, device: Device) -> Finding:
    title = f"{device.title} ({device.name})"
    if device.capability and facts.torch.cuda and not compiled_for(device.capability, facts.torch.architectures):
        return _other_architecture(facts, device, title)
    if device.error:
        unknown = wrong("GPU", f"{title}: {last_line(device.error)}", mends.reboot(facts))
        return recognised(CUDA, device.error, facts) or recognised(IMPORTS, device.error, facts) or unknown
    if not device.capability:
        return fine("GPU", f"{title}: a convolution ran on it, forth and back")
    kind = ".".join(map(str, device.capability))
    text = f"{title}, {size(device.total)}, compute capability {kind}, CUDA {facts.torch.cuda} of torch's own"
    return fine("GPU", f"{text}: a convolution ran on it, forth and back")


def compiled_for(capability: tuple[int, int], architectures: tuple[str, ...]) -> bool:
    """Whether a build runs on a GPU: it has code for its major version up to its minor, or PTX (compute_) of before."""
    if not architectures:
        return True
    for text in architectures:
        kind, _, digits = text.partition("_")
        digits = digits.rstrip("af")
        one = (int(digits[:-1] or 0), int(digits[-1])) if digits.isdigit() else (99, 9)
        if (kind == "compute" or one[0] == capability[0]) and one <= capability:
            return True
    return False


def _other_architecture(facts: Facts, device: Device, title: str) -> Finding:
    """A GPU that is too old or too new for the build."""
    known = " ".join(facts.torch.architectures)
    number = f"sm_{device.capability[0]}{device.capability[1]}"
    if device.capability < (5, 0):
        what = f"{title} ({number}) is too old for every build of torch that kit works with ({known})"
        return wrong("GPU", what, f"train on the processor: {mends.put(facts, 'CUDA_VISIBLE_DEVICES', '-1')}")
    build = mends.build_for(facts)
    if build == "cu126":
        what = f"{title} ({number}) is too old for this build of torch ({known}); pytorch.org's cu126 still has it"
        return wrong("GPU", what, mends.both(facts, build))
    what = f"{title} ({number}) is too new for this build of torch ({known})"
    if not build:
        return wrong(
            "GPU", what, f"first {mends.driver(facts, mends.OLDEST_DRIVER[13])}, then {mends.both(facts, 'cu130')}"
        )
    return wrong("GPU", what, mends.both(facts, build))


def _cudnn(facts: Facts) -> Iterator[Finding]:
    """The cuDNN that was loaded against the one that torch was compiled with."""
    torch, words = facts.torch, mends.commands(facts)
    if torch.cudnn_error:
        unknown = wrong("cuDNN", last_line(torch.cudnn_error), words["cudnn"])
        yield recognised(CUDA, torch.cudnn_error, facts) or unknown
    elif torch.cudnn:
        loaded, wanted = cudnn_version(torch.cudnn), _wanted_cudnn(facts)
        if wanted and loaded != wanted:
            what = f"{_dotted(loaded)} was loaded, and torch comes with {_dotted(wanted)}"
            worse = loaded < wanted or loaded[0] != wanted[0]
            yield (wrong if worse else note)("cuDNN", what, words["cudnn"])
        else:
            yield fine("cuDNN", f"{_dotted(loaded)}, torch's own")


def cudnn_version(number: int) -> tuple[int, int, int]:
    """cuDNN's number as major, minor, patch: 8902 is 8.9.2, 91002 is 9.10.2."""
    scale = 10_000 if number >= 90_000 else 1000
    return number // scale, number % scale // 100, number % 100


def _wanted_cudnn(facts: Facts) -> tuple[int, ...]:
    """The cuDNN that torch's metadata name, as major, minor, patch; () where it is part of torch."""
    torch = facts.package("torch")
    pinned = [text for text in (torch.requires if torch else ()) if text.startswith("nvidia-cudnn") and "==" in text]
    return tuple(int(part) for part in pinned[0].partition("==")[2].split(".")[:3]) if pinned else ()


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _libraries(facts: Facts) -> Iterator[Finding]:
    """CUDA and cuDNN that lie around: harmless, unless they are found first."""
    found = facts.system.libraries
    if found:
        where = "PATH" if mends.windows(facts) else "LD_LIBRARY_PATH"
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        what = f"{where} leads to {found[0]}{more}: parts of them may be loaded in place of torch's own"
        yield note("libraries", what, mends.libraries_away(facts))
    if "PYTORCH_SKIP_CUDNN_COMPATIBILITY_CHECK" in facts.system.variables:
        what = "PYTORCH_SKIP_CUDNN_COMPATIBILITY_CHECK is set: torch no longer says when cuDNN does not fit"
        yield note("cuDNN", what, mends.unset(facts, "PYTORCH_SKIP_CUDNN_COMPATIBILITY_CHECK"))
    if facts.system.toolkits:
        names = ", ".join(facts.system.toolkits)
        yield fine("toolkit", f"{names}: not used; torch brings its own CUDA {facts.torch.cuda or ''}".rstrip())


def _memory(facts: Facts) -> Iterator[Finding]:
    """GPUs whose memory other programs hold."""
    for gpu in facts.nvidia.gpus:
        free = gpu.total - gpu.used
        if not gpu.total or free >= max(LITTLE_MEMORY, gpu.total // 2):
            continue
        holders = [one for one in facts.nvidia.processes if one.gpu == gpu.index]
        names = ", ".join(f"{one.name} ({one.pid}) {size(one.memory)}" for one in holders) or "programs not shown"
        what = f"{gpu.name} has {size(free)} of {size(gpu.total)} free; held by {names}"
        roomy = [one.index for one in facts.nvidia.gpus if one.total - one.used > max(free, LITTLE_MEMORY)]
        mend = f"--device cuda:{roomy[0]}   (it has room), or: {mends.busy(facts)}" if roomy else mends.busy(facts)
        yield (wrong if free < LITTLE_MEMORY else note)("GPU memory", what, mend)
