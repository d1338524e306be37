"""The model: an image in; a prediction and heat maps out.

What was learned lies in model.onnx; model.json says how an image is prepared for it and what its outputs mean, and
names each file by its SHA-256.
"""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import onnxruntime
from images import fit_image
from PIL import Image
from tasks import Prediction, of

HERE = Path(__file__).parent
MODEL = json.loads((HERE / "model.json").read_text(encoding="utf-8"))
IMAGE, VOCAB, TASK = MODEL["image"], MODEL["vocab"], of(MODEL["task"])


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
    return np.asarray(fit_image(image, size, IMAGE), np.uint8)


def predict(image: Image.Image) -> tuple[Prediction, dict[str, np.ndarray]]:
    """The prediction of an image, and a heat map of each class or number."""
    outputs, features, *maps = NETWORK.run(None, {"pixels": prepared(image, IMAGE["size"])[None]})
    plain = outputs[0].astype(float)
    values = plain if MODEL["temperature"] == 1 else calibrated(plain)
    plain, values = (dict(zip(VOCAB, part.tolist(), strict=True)) for part in (plain, values))
    unlike = None if UNKNOWN is None else is_unlike(features[0].astype(float))
    one = Prediction("", plain=plain, unlike=unlike, **TASK.answer(values, MODEL))
    return one, dict(zip(VOCAB, maps[0][0], strict=True)) if maps else {}


def calibrated(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities (classes,) that hold: of all answers of 80 %, about 80 % are right."""
    logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)) / MODEL["temperature"]
    return np.exp(logs - logs.max()) / np.exp(logs - logs.max()).sum()


def is_unlike(features: np.ndarray) -> bool:
    """Whether features (f,) lie farther from those of the training images than 95 % of the held-out images' do."""
    features = features / max(np.linalg.norm(features), 1e-12) - UNKNOWN["mean"]
    projected = features @ UNKNOWN["projection"].astype(float)
    distances = np.sort(np.linalg.norm(UNKNOWN["points"] - projected, axis=1))
    return not distances[int(UNKNOWN["nearest"][0]) - 1] <= UNKNOWN["threshold"][0]
