"""Every family of timm once, as a table: what trains, is read again, and can be exported to ONNX; or why not.

python tests/bench/families.py [FAMILY ...] [--no-onnx]
"""

import gc
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import timm
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "model"))

from test_families import Trial, of_family, trial

from kit.bundle.engines import onnx_engine, torch_engine
from kit.bundle.onnx import write_onnx
from kit.errors import KitError
from kit.model.architectures import IMAGENET_MEAN, IMAGENET_STD


def exported(done: Trial, folder: Path) -> str:
    """How far ONNX Runtime's probabilities are from torch's on random pixels, or why there is no such file."""
    image = {"size": done.size, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    config = {"task": "classification", "image": image, "vocab_sha256": "0" * 64}
    try:
        write_onnx(done.network, config, folder / "model.onnx")
        pixels = torch.randint(0, 256, (3, done.size, done.size, 3), dtype=torch.uint8).numpy()
        ours = torch_engine(done.network, image, torch.device("cpu"))(pixels)
        theirs = onnx_engine(folder / "model.onnx", config)(pixels)
        return f"{abs(ours.outputs - theirs.outputs).max():.0e}"
    except KitError as error:
        return f"not: {error.problem[:200]}"


def row(family: str, onnx: bool) -> str:
    """One line of the table."""
    started = time.perf_counter()
    name, size = of_family(family)
    try:
        done = trial(name, size)
        with tempfile.TemporaryDirectory() as folder:
            proof = exported(done, Path(folder)) if onnx else ""
    except KitError as error:
        return f"| {family} | {name} | refused: {error.problem} | | |"
    except Exception as error:
        return f"| {family} | {name} | FAILED {type(error).__name__}: {str(error)[:300]} | | |"
    count = sum(value.numel() for value in done.network.parameters()) / 1e6
    form = f"{size} px, {done.features} {'numbers' if done.pooled else 'maps'}"
    return f"| {family} | {name}, {count:.1f} M | {form} | {proof} | {time.perf_counter() - started:.0f} s |"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    wanted = [name for name in sys.argv[1:] if not name.startswith("-")] or timm.list_modules()
    print("| family | network with its head | trains, is read again | largest difference as ONNX | |")
    print("|---|---|---|---|---|")
    for family in wanted:
        print(row(family, "--no-onnx" not in sys.argv), flush=True)
        gc.collect()
    print(f"largest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")
