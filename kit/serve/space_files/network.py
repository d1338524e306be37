"""The model: an image in; probabilities or numbers out, whether it is unlike the training images, and heat maps.

What was learned lies in model.onnx; model.json says how an image is prepared for it and what its outputs mean, and
names each file by its SHA-256.
"""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import onnxruntime
from images import square
from PIL import Image

HERE = Path(__file__).parent
MODEL = json.loads((HERE / "model.json").read_text(encoding="utf-8"))
IMAGE, NAMES, TASK = MODEL["image"], MODEL["names"], MODEL["task"]


def saved(name: str) -> bytes:
    """A file of the model, if it is the one that was saved."""
    data = (HERE / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != MODEL["files"][name]:
        raise SystemExit(f"{name} is not the file that was saved; get this folder again from where it was made")
    return data


NETWORK = onnxruntime.InferenceSession(saved("model.onnx"), providers=["CPUExecutionProvider"])
UNKNOWN = dict(np.load(io.BytesIO(saved("unknown.npz")))) if "unknown.npz" in MODEL["files"] else None


def prepared(image: Image.Image, size: int) -> np.ndarray:
    """An image as the model sees it, at `size` pixels a side: uint8 (size, size, 3)."""
    return np.asarray(square(image, size, IMAGE["resize"]), np.uint8)


def predict(image: Image.Image) -> tuple[dict[str, float], bool | None, dict[str, np.ndarray]]:
    """Numbers by name, or probabilities, likeliest first; whether the image is unlike those of training; heat maps."""
    outputs, features, *maps = NETWORK.run(None, {"pixels": prepared(image, IMAGE["size"])[None]})
    values = outputs[0].astype(float)
    if TASK == "classification":
        values = calibrated(values)
    pairs = list(zip(NAMES, values.tolist(), strict=True))
    if TASK != "regression":
        pairs.sort(key=lambda pair: -pair[1])
    unlike = None if UNKNOWN is None else is_unlike(features[0].astype(float))
    return dict(pairs), unlike, dict(zip(NAMES, maps[0][0], strict=True)) if maps else {}


def calibrated(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities (classes,) that hold: of all answers of 80 %, about 80 % are right."""
    logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)) / MODEL["temperature"]
    return np.exp(logs - logs.max()) / np.exp(logs - logs.max()).sum()


def said(values: dict[str, float]) -> list[str]:
    """The classes whose probability reaches their threshold, likeliest first."""
    return [name for name, value in values.items() if value >= MODEL["thresholds"][name]]


def is_unlike(features: np.ndarray) -> bool:
    """Whether features (f,) lie farther from those of the training images than 95 % of the held-out images' do."""
    features = features / max(np.linalg.norm(features), 1e-12) - UNKNOWN["mean"]
    projected = features @ UNKNOWN["projection"].astype(float)
    distances = np.sort(np.linalg.norm(UNKNOWN["points"] - projected, axis=1))
    return not distances[int(UNKNOWN["nearest"][0]) - 1] <= UNKNOWN["threshold"][0]
