"""A program that imports torch, torchvision, fastai and kit, one after the other, tries the GPUs, and prints facts.

python -P kit/doctor/probe.py

A broken installation ends an import with an error, a crash, or never. That happens to this process only; the one that
started it reads how far this one came. Each line that begins with MARK has all facts so far; "failed" is the stage that
has not ended. Only the standard library is imported at the top.
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
TEXTS = ("error", "version", "file", "cudnn_error", "cuda_error", "numpy_error", "device", "precision")
FACTS: dict[str, Any] = {
    **dict.fromkeys(TEXTS, ""),
    **dict.fromkeys(("cuda", "hip", "cudnn")),
    **{"done": [], "failed": "torch", "seconds": {}, "architectures": [], "devices": [], "threads": 0, "workers": 0},
}


def tell(**facts: Any) -> None:
    """Add facts, and print all: what was printed before a crash is kept."""
    FACTS.update(facts)
    print(MARK + json.dumps(FACTS), flush=True)


def import_torch() -> None:
    """torch: its version and build, cuDNN, CUDA's first answer, and whether it can hand an array to NumPy."""
    import torch

    site = Path(torch.__file__).parents[1]
    file = site.resolve() / Path(torch.__file__).relative_to(site)  # lib64 is often a link to lib
    tell(version=torch.__version__, file=str(file), cuda=torch.version.cuda, hip=torch.version.hip)
    tell(threads=torch.get_num_threads(), architectures=torch.cuda.get_arch_list())
    tell(numpy_error=error_of(lambda: torch.zeros(1).numpy()))
    if torch.version.cuda or torch.version.hip:
        tell(cudnn_error=error_of(lambda: tell(cudnn=torch.backends.cudnn.version())))
        tell(cuda_error=error_of(torch.cuda.init))


def import_torchvision() -> None:
    """torchvision: its compiled operators are registered only where it was built for this torch."""
    import torch
    import torchvision  # noqa: F401

    torch.ops.torchvision.nms  # noqa: B018


def import_fastai() -> None:
    """fastai, and what kit would choose: the device, the precision there, loading processes."""
    import fastai.vision.all  # noqa: F401

    sys.path.append(str(Path(__file__).parents[2]))
    from kit.data.datablock import device, worker_count
    from kit.train.precision import choose_precision, device_facts

    place = device("auto")
    chosen = choose_precision("auto", place, device_facts(place))
    tell(device=str(place), precision=f"{chosen.name} ({chosen.reason})", workers=worker_count(None))


def try_gpus() -> None:
    """Each GPU that torch sees."""
    import torch

    names = [f"cuda:{index}" for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
    names += ["mps"] if torch.backends.mps.is_available() else []
    tell(devices=[try_gpu(name) for name in names])


def try_gpu(name: str) -> dict[str, Any]:
    """A GPU's name and memory (bytes), and the error of a convolution on it, "" where it worked."""
    import torch

    facts = {"name": name, "title": "Apple GPU", "uuid": "", "capability": 0, "total": 0, "free": 0, "error": ""}
    if name != "mps":
        properties = torch.cuda.get_device_properties(name)
        facts |= {"title": properties.name, "total": properties.total_memory}
        facts["capability"] = float(f"{properties.major}.{properties.minor}")
        facts["uuid"] = str(getattr(properties, "uuid", ""))  # ROCm's have none
        facts["error"] = error_of(lambda: facts.update(free=torch.cuda.mem_get_info(name)[0]))
    return facts | {"error": facts["error"] or error_of(lambda: convolve(name))}


def convolve(device: str) -> None:
    """Run a convolution forward and backward, which needs the driver, CUDA and cuDNN."""
    import torch

    layer = torch.nn.Conv2d(3, 8, 3).to(device)
    layer(torch.randn(2, 3, 32, 32, device=device)).sum().backward()
    layer.weight.grad.sum().item()


def error_of(action: Callable[[], Any]) -> str:
    """What an action says when it fails, and "" where it does not; torch only warns about NumPy."""
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return next((str(warning.message) for warning in said if "NumPy" in str(warning.message)), "")


STAGES = {"torch": import_torch, "torchvision": import_torchvision, "fastai": import_fastai, "gpu": try_gpus}


def main() -> None:
    """Go through the stages; the first that fails is the last."""
    warnings.simplefilter("ignore")
    for name, stage in STAGES.items():
        tell(failed=name)
        started = time.perf_counter()
        try:
            stage()
        except BaseException:
            tell(error=traceback.format_exc())
            return
        seconds = FACTS["seconds"] | {name: round(time.perf_counter() - started, 1)}
        tell(failed="", done=[*FACTS["done"], name], seconds=seconds)


if __name__ == "__main__":
    main()
