"""From a bundle's folder to a Predictor, or to a fastai Learner for further training.

predictor = load("runs/pets"); learn = learner("runs/pets", dls)
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.console import say
from kit.errors import ArchitectureError, BundleError, RecipeError
from kit.manifest import (
    CONFIG,
    GET_ANOTHER,
    ONNX,
    UNKNOWN,
    WEIGHTS,
    check_file,
    find_bundle,
    input_size,
    read_config,
    read_form,
)
from kit.tasks import of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from kit.bundle.predictor import Predictor
    from kit.evaluate.ood import OODDetector

ENGINES = ("auto", "onnx", "torch")
PRECISIONS = ("fp32", "bf16")


def load(
    path: str | Path, device: str = "auto", engine: str = "auto", many: bool = True, precision: str = "fp32"
) -> "Predictor":
    """A `Predictor` from a bundle or a run folder; it needs neither the training images nor the training script.

    engine: "onnx" (ONNX Runtime, on the CPU), "torch", or "auto": ONNX where the bundle has it and no other device is
    given. many: optimise for many images, at the cost of a slower start. precision: "fp32", or "bf16" by torch, less
    exact, and faster on processors with bf16 arithmetic. Every file is checked against its SHA-256 first. Raises
    `BundleError` for a file that changed since the bundle was saved, and for an unsupported engine or precision.
    """
    folder = find_bundle(path)
    config = read_form(folder)
    engine = choose_engine(config, device, engine, precision)
    with checking(folder, config, first=ONNX if engine == "onnx" else WEIGHTS) as wait_for:
        from kit.bundle.engines import onnx_engine, torch_engine
        from kit.bundle.predictor import Predictor

        unknown = None
        if UNKNOWN in config["files"]:
            wait_for(UNKNOWN)
            unknown = load_unknown(folder)
        if engine == "onnx":
            wait_for(ONNX)
            return Predictor(config, onnx_engine(folder / ONNX, config, many), folder, unknown)
        from kit.data.datablock import device as find_device

        where = find_device(device)
        if precision == "bf16":
            check_bf16(where)
        wait_for(WEIGHTS)
        network = load_network(folder, config)
        computed = torch_engine(network, config["image"], where, precision, config["task"])
        return Predictor(config, computed, folder, unknown)


@contextmanager
def checking(folder: Path, config: dict[str, Any], first: str) -> Iterator[Callable[[str], None]]:
    """Check all files of a bundle against their SHA-256 in a thread: small ones, then `first`, then the others.

    Yields a function to call with a file's name before it is used, which waits for its check. On exit all files are
    checked. Raises `BundleError` for a file with another SHA-256.
    """
    names = sorted(config["files"], key=lambda name: (name in (ONNX, WEIGHTS), name != first))
    with ThreadPoolExecutor(1) as pool:
        checks = {name: pool.submit(check_file, folder, config, name) for name in names}
        try:
            yield lambda name: checks[name].result()
            for check in checks.values():
                check.result()
        finally:
            pool.shutdown(cancel_futures=True)


def load_unknown(folder: Path) -> "OODDetector":
    """The out-of-distribution detector of a bundle that has one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as load_arrays

    from kit.evaluate.ood import OODDetector

    try:
        arrays = load_arrays((folder / UNKNOWN).read_bytes())
    except SafetensorError as error:
        raise BundleError(f"{folder / UNKNOWN} cannot be read ({error})", fix=GET_ANOTHER) from error
    return OODDetector.from_arrays(arrays)


def choose_engine(config: dict[str, Any], device: str, engine: str, precision: str = "fp32") -> str:
    """ "onnx" or "torch". Prints a note where torch is used because the bundle has no model.onnx."""
    for name, value, known in (("engine", engine, ENGINES), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise BundleError(f"{name} {value!r}", fix=f"choose one of {', '.join(known)}")
    if precision == "bf16":
        if engine == "onnx":
            raise BundleError("the ONNX engine computes in fp32, not bf16", fix="--engine torch, or --precision fp32")
        return "torch"
    there = ONNX in config["files"]
    if engine == "onnx" and not there:
        raise BundleError(f"this bundle holds no {ONNX}", fix="write it with kit export, or take --engine torch")
    if engine == "onnx" and device not in ("auto", "cpu"):
        raise BundleError(
            f"the ONNX engine computes on the CPU, not on {device}", fix="--engine torch, or --device cpu"
        )
    if engine != "auto":
        return engine
    if not there:
        say(f"note: this bundle holds no {ONNX}; torch predicts (kit export writes it)")
    return "onnx" if there and device in ("auto", "cpu") else "torch"


def check_bf16(device: "torch.device") -> None:
    """Print why bf16 is fast or slow on a device. Raises `BundleError` where the device does not support it."""
    from kit.train.precision import choose_precision, device_facts

    try:
        say(f"bf16: {choose_precision('bf16', device, device_facts(device)).reason}")
    except RecipeError as error:
        raise BundleError(error.problem, fix="--precision fp32") from error


def load_network(folder: Path, config: dict[str, Any]) -> "nn.Module":
    """The network of a bundle with this config: a torch module of body and head, in eval mode, fp32."""
    import torch

    from kit.model.heads import Range, empty_network
    from kit.model.weightfile import read_tensors

    path, name = folder / WEIGHTS, config["architecture"]["name"]
    tensors, facts = read_tensors(path)
    if facts.get("vocab_sha256") != config["vocab_sha256"]:
        raise BundleError(f"{path} was trained for other classes, or in another order", fix=GET_ANOTHER)
    try:
        limits = Range.from_json(config["range"]) if of(config["task"]).ranges(config) else None
        head = config["architecture"]["head"]
        network = empty_network(name, len(config["vocab"]), input_size(config["image"]), limits, head)
    except ArchitectureError as error:
        raise BundleError(f"{folder / CONFIG}: field architecture.name: {error.problem}", fix=error.fix) from error
    if broken := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise BundleError(f"{path} holds values that are not finite ({broken[0]})", fix=GET_ANOTHER)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise BundleError(f"{path} does not fit the network {name}", fix=GET_ANOTHER) from error
    return network.eval()


def learner(path: str | Path, dls: Any, **kwargs: Any) -> Any:
    """A fastai Learner with a bundle's network, including its head, over your DataLoaders, for further training.

    kwargs: fastai's own, for `Learner`. Raises `BundleError` where `dls.vocab` is not the bundle's.
    """
    from kit.model.build import learner as build_learner
    from kit.recipe import Recipe

    folder = find_bundle(path)
    config = read_config(folder)
    vocab = [str(name) for name in dls.vocab]
    if vocab != config["vocab"]:
        problem = (
            f"the data has the classes {', '.join(vocab[:10])}; the bundle knows {', '.join(config['vocab'][:10])}"
        )
        raise BundleError(problem, fix="for other classes, start from its body: --weights BUNDLE")
    arch, size = config["architecture"]["name"], input_size(config["image"])
    recipe = Recipe.from_json(config["recipe"] | {"arch": arch, "weights": str(folder), "size": size})
    learn = build_learner(dls, recipe, head=config["architecture"]["head"], **kwargs)
    learn.model.load_state_dict(load_network(folder, config).state_dict())
    return learn
