"""A program of its own: import torch, torchvision, fastai and kit, one after the other, try the GPUs, and tell.

python -P kit/doctor/probe.py

A broken installation ends such an import with an error, a crash, or never; the process that asked lives on and reads
how far this one came. Every line that counts begins with MARK. At the top nothing is imported but the standard library.
"""

import json
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARK = "kit-doctor: "


def tell(**facts: Any) -> None:
    """Say facts to the process that asked."""
    print(MARK + json.dumps(facts), flush=True)


def about_torch() -> None:
    """torch: its version and build, cuDNN, CUDA's first answer, and whether it can hand an array to NumPy."""
    import torch

    tell(version=torch.__version__, file=_place(torch.__file__), cuda=torch.version.cuda, hip=torch.version.hip)
    tell(threads=torch.get_num_threads(), architectures=torch.cuda.get_arch_list())
    tell(mps_built=torch.backends.mps.is_built(), mps=torch.backends.mps.is_available())
    tell(numpy_error=_error_of(lambda: torch.zeros(1).numpy()))
    if torch.version.cuda or torch.version.hip:
        tell(cudnn_error=_error_of(lambda: tell(cudnn=torch.backends.cudnn.version())))
        tell(cuda_error=_error_of(torch.cuda.init))


def _place(file: str) -> str:
    """A module's file, in a folder of packages that may have several names (lib64 is often a link to lib)."""
    packages = Path(file).parents[1]
    return str(packages.resolve() / Path(file).relative_to(packages))


def about_torchvision() -> None:
    """torchvision: its compiled operators are registered only where it was built for this torch."""
    import torch
    import torchvision  # noqa: F401

    torch.ops.torchvision.nms  # noqa: B018


def about_kit() -> None:
    """fastai, and what kit would choose: the device, the arithmetic there and on the processor, loading processes."""
    import fastai.vision.all  # noqa: F401
    import torch

    sys.path.append(str(Path(__file__).parents[2]))
    from kit.data.datablock import device, worker_count
    from kit.train.precision import choose_precision, device_facts

    chosen = {}
    for place in {device("auto"), torch.device("cpu")}:
        precision = choose_precision("auto", place, device_facts(place))
        chosen[str(place)] = f"{precision.name} ({precision.reason})"
    tell(device=str(device("auto")), precision=chosen, workers=worker_count(None))


def about_gpus() -> None:
    """Each GPU: its name and memory, and whether a convolution with cuDNN runs on it, forth and back."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = [_gpu(index) for index in range(count)]
    if torch.backends.mps.is_available():
        devices.append({"name": "mps", "title": "Apple GPU", "error": _error_of(lambda: convolve("mps"))})
    tell(devices=devices)


def _gpu(index: int) -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(index)
    facts = {"name": f"cuda:{index}", "title": properties.name, "total": properties.total_memory}
    facts["capability"] = [properties.major, properties.minor]
    facts["error"] = _error_of(lambda: facts.update(free=torch.cuda.mem_get_info(index)[0]))
    return facts | {"error": facts["error"] or _error_of(lambda: convolve(facts["name"]))}


def convolve(device: str) -> None:
    """The smallest thing that needs the driver, CUDA and cuDNN together."""
    import torch

    layer = torch.nn.Conv2d(3, 8, 3).to(device)
    layer(torch.randn(2, 3, 32, 32, device=device)).sum().item()
    layer(torch.randn(2, 3, 32, 32, device=device)).sum().backward()
    layer.weight.grad.sum().item()


def _error_of(action: Callable[[], Any]) -> str:
    """What an action says when it fails, and "" where it does not; some warn rather than fail."""
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return next((str(warning.message) for warning in said if "NumPy" in str(warning.message)), "")


STAGES = {"torch": about_torch, "torchvision": about_torchvision, "fastai": about_kit, "gpu": about_gpus}


def main() -> None:
    """Go through the stages; the first that fails is the last."""
    warnings.simplefilter("ignore")
    for name, stage in STAGES.items():
        tell(begun=name)
        started = time.perf_counter()
        try:
            stage()
        except BaseException:
            tell(failed=name, error=traceback.format_exc())
            return
        tell(ended=name, seconds=round(time.perf_counter() - started, 1))


if __name__ == "__main__":
    main()
