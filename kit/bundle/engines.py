"""Engines that compute the network of a bundle: ONNX Runtime, or torch where there is no model.onnx, and for bf16.

engine = onnx_engine(Path("bundle/model.onnx")); engine(pixels).outputs

Both take uint8 pixels and give the same outputs: this is checked on real images when model.onnx is written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.errors import BundleError, first_line
from kit.manifest import GET_ANOTHER
from kit.tasks.text import CLASSIFICATION

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Answers:
    """Outputs of a network for n images, float32: outputs (n, classes), which are probabilities or regression's
    numbers; features (n, f); and a heat map of each class (n, classes, h, w), None for networks without feature
    maps."""

    outputs: np.ndarray
    features: np.ndarray
    maps: np.ndarray | None = None


Engine = Callable[[np.ndarray], Answers]
"""uint8 pixels (n, size, size, 3), RGB -> `Answers`."""


def onnx_engine(path: Path, config: Mapping[str, Any], many: bool = True) -> Engine:
    """The engine of a model.onnx on the CPU. many: optimise more at the start, so that each image takes less time.

    config: its bundle's. Raises `BundleError` for a file that is not ONNX, or was written for other classes.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if many else levels.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BundleError(f"{path} cannot be run by ONNX Runtime ({first_line(error)})", fix=GET_ANOTHER) from error
    if session.get_modelmeta().custom_metadata_map.get("vocab_sha256") != config["vocab_sha256"]:
        raise BundleError(f"{path} was written for other classes, or in another order", fix=GET_ANOTHER)
    return lambda pixels: Answers(*session.run(None, {"pixels": pixels}))


def torch_engine(
    network: "nn.Module",
    rules: Mapping[str, Any],
    device: "torch.device",
    precision: str = "fp32",
    task: str = CLASSIFICATION,
) -> Engine:
    """The engine of a network of body and head, with the bundle's image rules, on a device.

    precision: "fp32", or "bf16" for the body, which is nearly all of the work; the head stays in fp32.
    """
    import torch

    from kit.bundle.inference_model import InBf16, InferenceModel
    from kit.machine import fp32_convolutions

    model = InferenceModel(network, rules, task).to(device)
    if device.type != "mps":
        model.body.to(memory_format=torch.channels_last)  # the layout of the pixels; faster on CPUs and GPUs
    if precision == "bf16":
        model.body = InBf16(model.body)

    @torch.inference_mode()
    def engine(pixels: np.ndarray) -> Answers:
        with fp32_convolutions():
            return Answers(*(output.cpu().numpy() for output in model(torch.from_numpy(pixels).to(device))))

    return engine
