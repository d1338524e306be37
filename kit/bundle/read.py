"""From a bundle's folder to a Predictor, or to a fastai Learner to go on training.

predictor = load("runs/pets"); learn = learner("runs/pets", dls)
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.bundle.engines import onnx_engine, torch_engine
from kit.bundle.predictor import Predictor
from kit.console import say
from kit.errors import BundleError
from kit.evaluate.unknown import Unknown
from kit.manifest import GET_ANOTHER, ONNX, UNKNOWN, WEIGHTS, find_bundle, read_config

if TYPE_CHECKING:
    from torch import nn

ENGINES = ("auto", "onnx", "torch")


def load(path: str | Path, device: str = "auto", engine: str = "auto", many: bool = True) -> Predictor:
    """A `Predictor` from a bundle or a run folder; it needs neither the training images nor the script.

    engine: "onnx" (ONNX Runtime, on the CPU), "torch", or "auto", which takes ONNX where the bundle has it and no other
    device is asked for. many: whether many images will follow, so that a longer start pays. Every file is checked
    against its SHA-256 first. Raises `BundleError` for anything that is not as it was saved.
    """
    folder = find_bundle(path)
    config = read_config(folder)
    unknown = load_unknown(folder) if UNKNOWN in config["files"] else None
    if choose_engine(config, device, engine) == "onnx":
        return Predictor(config, onnx_engine(folder / ONNX, config, many), folder, unknown)
    from kit.data.datablock import device as find_device

    network = load_network(folder, config)
    return Predictor(config, torch_engine(network, config["image"], find_device(device)), folder, unknown)


def load_unknown(folder: Path) -> Unknown:
    """What tells images that are not like the training images, from a bundle that has it."""
    from safetensors.numpy import load as load_arrays

    return Unknown.from_arrays(load_arrays((folder / UNKNOWN).read_bytes()))


def choose_engine(config: dict[str, Any], device: str, engine: str) -> str:
    """ "onnx" or "torch". Says so where a bundle without model.onnx falls back to torch, which starts slower."""
    if engine not in ENGINES:
        raise BundleError(f"engine {engine!r}", fix=f"choose one of {', '.join(ENGINES)}")
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


def load_network(folder: Path, config: dict[str, Any]) -> "nn.Module":
    """The trained network of a bundle whose config was read: a torch module of body and head, in eval mode, fp32."""
    import torch
    from safetensors.torch import load as load_tensors
    from safetensors.torch import safe_open

    from kit.model.build import empty_network

    path = folder / WEIGHTS
    with safe_open(path, "pt") as file:
        vocab = (file.metadata() or {}).get("vocab_sha256")
    if vocab != config["vocab_sha256"]:
        raise BundleError(f"{path} was trained for other classes, or in another order", fix=GET_ANOTHER)
    network = empty_network(config["architecture"]["name"], len(config["vocab"]), config["image"]["size"])
    tensors = load_tensors(path.read_bytes())
    if broken := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise BundleError(f"{path} holds values that are not finite ({broken[0]})", fix=GET_ANOTHER)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        name = config["architecture"]["name"]
        raise BundleError(f"{path} does not fit the network {name}", fix=GET_ANOTHER) from error
    return network.eval()


def learner(path: str | Path, dls: Any, **kwargs: Any) -> Any:
    """A fastai Learner with a bundle's whole network, head and all, over your DataLoaders: to go on training.

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
        raise BundleError(problem, fix="for other classes, start anew from its body: --weights BUNDLE")
    recipe = Recipe.from_json(config["recipe"] | {"arch": config["architecture"]["name"], "weights": str(folder)})
    learn = build_learner(dls, recipe, **kwargs)
    learn.model.load_state_dict(load_network(folder, config).state_dict())
    return learn
