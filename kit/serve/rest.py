"""REST: images in, JSON out.

    curl -F image=@cat.jpg http://127.0.0.1:7860/v1/predict

POST /v1/predict takes one or several images: as multipart files of any field name, as JSON {"images": ["<base64>"]},
or one image as the body itself (Content-Type: image/...). GET /v1/model says what the model is.
"""

import base64
import binascii
import json
import threading
import time
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from kit.bundle.prediction import Prediction
from kit.bundle.predictor import Predictor
from kit.manifest import HEADLINES
from kit.serve.gate import Gate, Left
from kit.serve.reply import Refusal, State
from kit.task import CLASSIFICATION, MULTILABEL, REGRESSION

MOST_IMAGES = 64
LEFT = 499
DIGITS = 6
SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}}
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {"images": {"type": "array", "items": {"type": "string", "format": "base64"}}},
                }
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
HOW = 'send files (multipart), or JSON {"images": ["<base64>", ...]}, or one image as the body'


def routes(predictor: Predictor, gate: Gate, state: State, metrics: bool = False) -> APIRouter:
    """The API's routes; /metrics among them where `metrics`."""
    router = APIRouter()

    @router.post("/v1/predict", openapi_extra=SCHEMA)
    async def predict(request: Request) -> JSONResponse:
        """Predict one image or several; a bad one is a row with its error, and alone it is a 422."""
        images = await read_images(request)
        begun = time.perf_counter()
        rows = await gate.run(lambda stop: _predict(predictor, images, stop), lambda: _leaves(request))
        took = time.perf_counter() - begun
        good = sum(row["error"] is None for row in rows)
        state.images.update(good=good, bad=len(rows) - good)
        state.seconds += took
        return JSONResponse({"predictions": rows, "seconds": round(took, 4)}, 200 if good else 422)

    @router.get("/v1/model")
    def model() -> dict[str, Any]:
        """What the model is, what it was trained on, and how good it is."""
        return describe(predictor.config)

    @router.head("/v2/health/live", include_in_schema=False)
    @router.get("/v2/health/live")
    def live() -> dict[str, bool]:
        """The process answers."""
        return {"live": True}

    @router.head("/v2/health/ready", include_in_schema=False)
    @router.get("/v2/health/ready")
    def ready() -> JSONResponse:
        """Whether new requests are welcome: not while it stops."""
        return JSONResponse({"ready": state.ready}, 200 if state.ready else 503)

    if metrics:
        router.add_api_route("/metrics", lambda: PlainTextResponse(exposition(state, gate)), include_in_schema=False)
    return router


def _predict(predictor: Predictor, images: list[tuple[str, bytes]], stop: threading.Event) -> list[dict[str, Any]]:
    rows = []
    for (name, _), one in zip(images, predictor.predict_each([data for _, data in images], batch=4), strict=True):
        if stop.is_set():
            raise Left
        rows.append(row(name, one, predictor.task))
    return rows


def row(name: str, one: Prediction, task: str = CLASSIFICATION) -> dict[str, Any]:
    """One prediction as JSON values. What it says depends on the task:

    classification: label, probability, probabilities (likeliest first), and plain, those before calibration.
    multilabel: labels (those said, likeliest first; None with an error), and probabilities, each for itself.
    regression: numbers by name. All: unlike (whether it does not look like the training images, None where the bundle
    cannot tell), and error.
    """
    return (
        {"name": name}
        | ANSWERS[task](one)
        | {
            "unlike": None if one.unlike is None else bool(one.unlike),
            "error": one.error,
        }
    )


def _class(one: Prediction) -> dict[str, Any]:
    return {
        "label": one.label,
        "probability": None if one.probability is None else round(one.probability, DIGITS),
        "probabilities": _rounded(dict(one.top(len(one.probabilities)))),
        "plain": _rounded(one.plain),
    }


def _classes(one: Prediction) -> dict[str, Any]:
    said = None if one.labels is None else list(one.labels)
    return {"labels": said, "probabilities": _rounded(dict(one.top(len(one.probabilities))))}


def _numbers(one: Prediction) -> dict[str, Any]:
    return {"numbers": {name: float(f"{number:.7g}") for name, number in one.numbers.items()}}


ANSWERS = {CLASSIFICATION: _class, MULTILABEL: _classes, REGRESSION: _numbers}


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, DIGITS) for name, value in values.items()}


async def read_images(request: Request) -> list[tuple[str, bytes]]:
    """The name and the bytes of each image of a request. Raises `Refusal` that says what is wrong with it."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        images = await _from_form(request)
    elif kind == "application/json":
        images = _from_json(await request.body())
    elif kind.startswith("image/") or kind == "application/octet-stream":
        images = [("", await request.body())]
    else:
        raise Refusal(415, f"Content-Type {kind or 'missing'!r}", fix=HOW)
    _check_count(len(images))
    return images


def _check_count(count: int) -> None:
    if not 1 <= count <= MOST_IMAGES:
        raise Refusal(422, f"{count} images; 1 to {MOST_IMAGES} were expected", fix=HOW)


async def _from_form(request: Request) -> list[tuple[str, bytes]]:
    try:
        form = await request.form(max_files=MOST_IMAGES, max_fields=MOST_IMAGES)
    except (MultiPartException, HTTPException) as error:
        what = getattr(error, "message", None) or getattr(error, "detail", "")
        raise Refusal(400, f"the form cannot be read ({what})", fix=HOW) from error
    images = []
    for field, value in form.multi_items():
        if not isinstance(value, UploadFile) or not value.filename:
            raise Refusal(422, f"field {field!r} is not a file with a name", fix="curl -F image=@cat.jpg ...")
        images.append((value.filename, await value.read()))
    await form.close()
    return images


def _from_json(body: bytes) -> list[tuple[str, bytes]]:
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "the body is not JSON", fix=HOW) from error
    texts = given.get("images") if isinstance(given, dict) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refusal(422, "images is not a list of texts", fix=HOW)
    _check_count(len(texts))
    return [("", _decode(text, place)) for place, text in enumerate(texts)]


def _decode(text: str, place: int) -> bytes:
    """base64, and nothing that merely names an image: no path, no URL, no data: URL."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(422, f"images[{place}] is not base64", fix="encode the file's bytes, without a prefix") from error


async def _leaves(request: Request) -> None:
    """Ends when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def describe(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a bundle's config says of the model, without anything of the machine it was made on.

    The figure of the task, with its n and 95 % interval, stands under its own name: error_rate, f1 or r2.
    """
    metrics, data, task = config["metrics"], config["data"], config["task"]
    headline = HEADLINES[task]
    return {
        "name": config["architecture"]["name"],
        "task": task,
        "numbers" if task == REGRESSION else "classes": config["vocab"],
        "image": {name: config["image"][name] for name in ("size", "resize")},
        headline: {name: metrics.get(name) for name in (headline, "n", "low", "high")},
        **_of_task(config),
        "trained_on": {name: data[name] for name in ("train", "valid") if name in data},
        "versions": config["versions"],
    }


def _of_task(config: Mapping[str, Any]) -> dict[str, Any]:
    """What describes one task only."""
    metrics, names = config["metrics"], config["vocab"]
    if config["task"] == REGRESSION:
        limits = config["range"]
        ends = {end: dict(zip(names, limits[end], strict=True)) for end in ("low", "high")}
        return {"per_target": metrics.get("per_target", {}), "range": {**ends, "bounded": limits["bounded"]}}
    classes = {"per_class": metrics.get("per_class", {})}
    if config["task"] == MULTILABEL:
        also = {name: metrics.get(name) for name in ("mean_average_precision", "exact")}
        return classes | also | {"thresholds": dict(zip(names, config["thresholds"], strict=True))}
    return classes | {"most_confused": metrics.get("most_confused", [])}


def exposition(state: State, gate: Gate) -> str:
    """The counters in Prometheus's text format."""
    lines = ["# TYPE kit_answers_total counter"]
    lines += [f'kit_answers_total{{status="{status}"}} {count}' for status, count in sorted(state.answers.items())]
    lines += ["# TYPE kit_images_total counter"]
    lines += [f'kit_images_total{{result="{result}"}} {state.images[result]}' for result in ("good", "bad")]
    lines += ["# TYPE kit_predict_seconds_total counter", f"kit_predict_seconds_total {state.seconds:.6f}"]
    lines += ["# TYPE kit_requests_inside gauge", f"kit_requests_inside {gate.inside}"]
    return "\n".join([*lines, ""])


def handlers(app: FastAPI) -> None:
    """Every refusal of the app as the same JSON: error, and fix. What is unforeseen is the guard's to answer."""

    @app.exception_handler(Refusal)
    async def refuse(request: Request, refusal: Refusal) -> JSONResponse:
        body = {"error": refusal.problem, "fix": refusal.fix}
        return JSONResponse(body, refusal.status, headers=dict(refusal.headers))

    @app.exception_handler(Left)
    async def left(request: Request, error: Left) -> JSONResponse:
        return JSONResponse({"error": "the client left"}, LEFT)

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)
