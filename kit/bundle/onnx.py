"""model.onnx: the network of a bundle as a file for ONNX Runtime, checked to give the outputs of the learner.

kit export runs/pets        # for a bundle that has none yet; kit fine-tune writes it too
"""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import Message
from onnx.compose import add_prefix, merge_models
from torch import Tensor, nn

from kit.bundle.engines import onnx_engine
from kit.bundle.inference_model import InferenceHead, InferenceModel
from kit.bundle.predictor import Predictor
from kit.bundle.read import load, load_network
from kit.data.images import Source
from kit.errors import BundleError, first_line
from kit.features.compute import store_of
from kit.files import atomic_path, locked, sha256
from kit.manifest import ONNX, find_bundle, read_config, write_config
from kit.model.heads import featurizer
from kit.tasks import of

OUTPUTS = ("outputs", "features", "maps")
MAPS = "maps_of_body"
OPSET, IR_VERSION = 18, 10
BATCH = 8  # images that are compared together, so that a file for one batch size is not taken for correct
TOLERANCE = 1e-4
BODY = f"body-{onnx.__version__}.onnx"


def export(path: str | Path, images: Sequence[Source], expected: np.ndarray | None = None) -> dict[str, Any]:
    """Add model.onnx to a bundle or replace it; returns the result of the check, which config.json stores as `onnx`.

    images: images on which ONNX Runtime must give the outputs `expected` (images, classes), by default those of torch.
    Raises `BundleError` with the difference where it does not, and leaves the bundle unchanged.
    """
    folder = find_bundle(path)
    with locked(folder):
        config = read_config(folder)
        expected = outputs(load(folder, "cpu", "torch"), images) if expected is None else expected
        with atomic_path(folder / ONNX) as partial:
            write_onnx(load_network(folder, config), config, partial)
            proof = {"images": len(images), "largest_difference": prove(folder, config, partial, images, expected)}
        files = dict(sorted((config["files"] | {ONNX: sha256(folder / ONNX)}).items()))
        write_config(folder, config | {"onnx": proof, "files": files})
    return proof


def outputs(predictor: Predictor, images: Sequence[Source]) -> np.ndarray:
    """Outputs of a predictor's engine for images, the first alone and the others in batches: (images, classes)."""
    if not images:
        raise BundleError("there is no image to prove the ONNX file on", fix="give some: --images FOLDER")
    ends = [0, *range(1, len(images), BATCH), len(images)]
    batches = (images[start:end] for start, end in pairwise(ends))
    return np.concatenate([predictor.outputs(np.stack(list(map(predictor.prepare, batch)))) for batch in batches])


def largest_difference(config: Mapping[str, Any], found: np.ndarray, expected: np.ndarray) -> float:
    """The largest absolute difference of outputs (images, classes); of regression as a share of each range."""
    return float((np.abs(found - expected) / of(config["task"]).width(config)).max())


def prove(folder: Path, config: dict[str, Any], path: Path, images: Sequence[Source], expected: np.ndarray) -> float:
    """The largest difference between the outputs of the ONNX file at `path` and the expected ones.

    Raises `BundleError` where it is above 1e-4 or another class comes first.
    """
    found = outputs(Predictor(config, onnx_engine(path, config), folder), images)
    difference = largest_difference(config, found, expected)
    task = of(config["task"])
    changed = task.changed(found, expected)
    if not difference <= TOLERANCE or changed:
        problem = f"as ONNX the network answers differently: {task.difference} by {difference:.2g}"
        problem += f", and another class comes first for {changed} of {len(images)} images" if changed else ""
        raise BundleError(problem, fix="leave it out (--no-onnx); the bundle then predicts with torch")
    return difference


def write_onnx(network: nn.Module, config: Mapping[str, Any], path: Path) -> None:
    """Write a network of body and head, with the image rules of its bundle, to `path`; any number of images a batch.

    The file contains the weights and takes uint8 pixels (n, size, size, 3). Body and head are written separately:
    converting a body takes seconds, so the ONNX form of a body whose features are cached is cached beside them.
    Raises `BundleError` where the network has an operation that cannot be converted.
    """
    store = store_of(featurizer(network), config["image"])
    model, size = InferenceModel(network, config["image"], config["task"]), config["image"]["size"]
    pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    if known := store.read_file(BODY):
        body = onnx.load_from_string(known)
    else:
        body = _converted(nn.Sequential(model.preprocess, model.body), pixels, "pixels", [MAPS])
        if store.exists():
            store.add_file(BODY, body.SerializeToString())
    with torch.no_grad():
        activations = model.body(model.preprocess(pixels))
    if len(model.head.classifier) == 1:
        head = _linear_head(model.head, activations.shape[1:], config["task"], body)
    else:
        head = _converted(model.head, activations, MAPS, OUTPUTS if model.head.pool else OUTPUTS[:2])
    head = add_prefix(head, "head/", rename_inputs=False, rename_outputs=False)
    whole = merge_models(body, head, io_map=[(MAPS, MAPS)])
    remove_metadata(whole)
    onnx.helper.set_model_props(whole, {"vocab_sha256": config["vocab_sha256"]})
    path.write_bytes(whole.SerializeToString())


def remove_metadata(message: Message) -> None:
    """Remove comments and metadata from all parts of a model: the exporter writes stack traces with paths there."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in [value] if isinstance(value, Message) else value:
                remove_metadata(part)


def _linear_head(head: InferenceHead, shape: Sequence[int], task: str, body: onnx.ModelProto) -> onnx.ModelProto:
    """A head of one linear layer as ONNX: the formulas of `InferenceHead`, without the seconds that a conversion takes.

    shape: of the body's output for one image, (k, h, w) or (f,). body: the model that it will be merged with.
    """
    linear, output_range = head.classifier[0], head.output_range
    values = {"weight": linear.weight.detach().numpy(), "bias": linear.bias.detach().numpy()}
    pooled = f"GlobalAveragePool({MAPS})" if head.pool else f"Identity({MAPS})"
    lines = [f"pooled = {pooled}", "features = Flatten(pooled)", "logits = Gemm <transB = 1> (features, weight, bias)"]
    made = [f"float[batch, {linear.out_features}] outputs", f"float[batch, {linear.in_features}] features"]
    if output_range is None:
        lines.append(f"outputs = {of(task).onnx_activation} (logits)")
    else:
        low, high = output_range.low.numpy(), output_range.high.numpy()
        values |= {"low": low, "width": high - low}
        lines.append(f"shares = {'Sigmoid' if output_range.bounded else 'Identity'} (logits)")
        lines += ["scaled = Mul (shares, width)", "outputs = Add (scaled, low)"]
    if head.pool:
        channels, height, width = shape
        positions = height * width
        values |= {"flat": np.array([0, channels, positions]), "square": np.array([0, 0, height, width])}
        values["shares_of_positions"] = (values["weight"] / positions)[None]
        lines += [f"positions = Reshape ({MAPS}, flat)", "weighted = MatMul (shares_of_positions, positions)"]
        lines += ["positive = Relu (weighted)", "maps = Reshape (positive, square)"]
        made.append(f"float[batch, {linear.out_features}, {height}, {width}] maps")
    given = f"float[batch, {', '.join(map(str, shape))}] {MAPS}"
    text = f"head ({given}) => ({', '.join(made)}) {{\n" + "\n".join(lines) + "\n}"
    graph = onnx.parser.parse_graph(text)
    graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in values.items())
    return onnx.helper.make_model(graph, opset_imports=body.opset_import, ir_version=IR_VERSION)


def _converted(module: nn.Module, example: Tensor, given: str, outputs: Sequence[str]) -> onnx.ModelProto:
    """A torch module of one input as ONNX, for batches of any size.

    torch has two exporters. The one that traces the module takes a second where the newer one, which also handles
    control flow that depends on the input, takes ten: that one converts what the first cannot.
    """
    names = {"input_names": [given], "output_names": list(outputs), "opset_version": OPSET, "verbose": False}
    with _silence(), torch.no_grad():
        try:
            file, axes = io.BytesIO(), {name: {0: "batch"} for name in (given, *outputs)}
            torch.onnx.export(module.eval(), (example,), file, dynamo=False, dynamic_axes=axes, **names)
            made = onnx.load_from_string(file.getvalue())
        except Exception:
            made = _converted_with_control_flow(module, example, names)
    made.ir_version = IR_VERSION
    return made


def _converted_with_control_flow(module: nn.Module, example: Tensor, names: dict[str, Any]) -> onnx.ModelProto:
    try:
        shapes = ({0: "batch"},)
        return torch.onnx.export(module, (example,), dynamo=True, dynamic_shapes=shapes, **names).model_proto
    except Exception as error:
        problem = f"this network cannot be written as ONNX ({first_line(error)})"
        raise BundleError(problem, fix="leave it out (--no-onnx); the bundle then predicts with torch") from error


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress the warnings and log messages that the exporter writes about its own steps."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
