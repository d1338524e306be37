"""The REST API: images in, predictions as JSON out.

    curl -F image=@cat.jpg http://127.0.0.1:7860/v1/predict

POST /v1/predict takes one or several images: as multipart files of any field name, as JSON {"images": ["<base64>"]},
or one image as the body itself (Content-Type: image/...). GET /v1/model describes the model.
"""

import asyncio
import base64
import json
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import UploadFile

from kit.bundle.predictor import Predictor
from kit.data.images import count_pixels
from kit.serve.concurrency import Capacity, unless_disconnected
from kit.serve.responses import RequestError, State
from kit.serve.uploads import read_form
from kit.tasks import Prediction, of

MAX_IMAGES, MAX_PIXELS, AT_ONCE = 64, 200_000_000, 4
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
USAGE = 'send files (multipart), or JSON {"images": ["<base64>", ...]}, or one image as the body'


def routes(
    predictor: Predictor,
    capacity: Capacity,
    pool: Executor,
    state: State,
    metrics: bool = False,
    docs: bool = False,
) -> APIRouter:
    """The API's routes. metrics, docs: whether /metrics and /v1/docs are among them."""
    router = APIRouter()

    @router.post("/v1/predict", openapi_extra=SCHEMA)
    async def predict(request: Request) -> JSONResponse:
        """Predict one or several images. A bad image is a row with an error; if all are bad, the status is 422."""
        capacity.check()  # before the body is read
        images = await read_images(request)
        begun = time.perf_counter()
        with capacity.slot():
            found = await unless_disconnected(request, predict_in(pool, predictor, [data for _, data in images]))
        took = time.perf_counter() - begun
        rows = [row(name, one, predictor.task) for (name, _), one in zip(images, found, strict=True)]
        good = sum(row["error"] is None for row in rows)
        state.images.update(good=good, bad=len(rows) - good)
        state.seconds += took
        return JSONResponse({"predictions": rows, "seconds": round(took, 4)}, 200 if good else 422)

    @router.get("/v1/model")
    def model() -> dict[str, Any]:
        """The model's architecture, classes, training data and metrics."""
        return describe(predictor.config)

    @router.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        """Whether the process responds."""
        return {"live": True}

    @router.get("/v2/health/ready")
    async def ready() -> JSONResponse:
        """Whether new requests are accepted; 503 during shutdown."""
        return JSONResponse({"ready": state.ready}, 200 if state.ready else 503)

    if docs:
        # Swagger UI from a package; FastAPI's own page takes it from a CDN. Relative addresses, for any prefix.
        router.mount("/v1/docs/files", StaticFiles(packages=[("fastapi_swagger", "resources")]))
        files = {"js": "swagger-ui-bundle.js", "css": "swagger-ui.css", "favicon": "favicon-32x32.png"}
        addresses = {f"swagger_{kind}_url": f"docs/files/{name}" for kind, name in files.items()}
        page = get_swagger_ui_html(openapi_url="openapi.json", title="kit", **addresses)
        router.add_api_route("/v1/docs", lambda: page, include_in_schema=False)

    if metrics:
        router.add_api_route(
            "/metrics", lambda: PlainTextResponse(exposition(state, capacity)), include_in_schema=False
        )
    return router


def check_pixels(images: list[bytes]) -> None:
    """Raise `RequestError` (413) for images that are small as files, but would take minutes to decode."""
    total = sum(map(count_pixels, images))
    if total > MAX_PIXELS:
        problem = f"the images have {total:,} pixels together; at most {MAX_PIXELS:,} are decoded for one request"
        raise RequestError(413, problem, fix="send fewer images at a time, or smaller ones")


async def predict_in(pool: Executor, predictor: Predictor, images: list[bytes]) -> list[Prediction]:
    """Predict images in the pool, `AT_ONCE` at a time, so that other requests get their turn."""
    run, found = asyncio.get_running_loop().run_in_executor, []
    await run(pool, check_pixels, images)
    for start in range(0, len(images), AT_ONCE):
        several = [run(pool, predictor.predict, data) for data in images[start : start + AT_ONCE]]
        found += [rows[0] for rows in await asyncio.gather(*several)]
    return found


def row(name: str, one: Prediction, task: str) -> dict[str, Any]:
    """A prediction as JSON values. The fields depend on the task:

    classification: label, probability, probabilities (likeliest first), and plain, those before calibration.
    multilabel: labels (those predicted, likeliest first; None with an error), and the probability of each class.
    regression: numbers by name. All: unlike (whether the image is unlike the training images; None if the bundle has
    no detector), and error.
    """
    return {"name": name} | of(task).json(one)


async def read_images(request: Request) -> list[tuple[str, bytes]]:
    """The name and the bytes of each image of a request. Raises `RequestError` for an invalid request."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        images = await _from_form(request)
    elif kind == "application/json":
        images = _from_json(await request.body())
    elif kind.startswith("image/") or kind == "application/octet-stream":
        images = [("", await request.body())]
    else:
        raise RequestError(415, f"Content-Type {kind or 'missing'!r}", fix=USAGE)
    _check_count(len(images))
    return images


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_IMAGES:
        raise RequestError(422, f"{count} images; 1 to {MAX_IMAGES} were expected", fix=USAGE)


async def _from_form(request: Request) -> list[tuple[str, bytes]]:
    form, images = await read_form(request, MAX_IMAGES, USAGE), []
    for field, value in form.multi_items():
        if not isinstance(value, UploadFile) or not value.filename:
            raise RequestError(422, f"field {field!r} is not a file with a name", fix="curl -F image=@cat.jpg ...")
        images.append((value.filename, await value.read()))
    await form.close()
    return images


def _from_json(body: bytes) -> list[tuple[str, bytes]]:
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, "the body is not JSON", fix=USAGE) from error
    texts = given.get("images") if isinstance(given, dict) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise RequestError(422, "images is not a list of texts", fix=USAGE)
    _check_count(len(texts))
    return [("", _decode(text, place)) for place, text in enumerate(texts)]


def _decode(text: str, place: int) -> bytes:
    """Decode base64. Paths, URLs and data: URLs are refused."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise RequestError(
            422, f"images[{place}] is not base64", fix="encode the file's bytes, without a prefix"
        ) from error


def describe(config: Mapping[str, Any]) -> dict[str, Any]:
    """A description of the model from a bundle's config, without paths of the machine that it was trained on.

    The main metric of the task (error_rate, f1 or r2) is given with n and its 95 % interval.
    """
    metrics, data, task = config["metrics"], config["data"], of(config["task"])
    return {
        "name": config["architecture"]["name"],
        "task": task.name,
        task.nouns: config["vocab"],
        "image": {name: config["image"][name] for name in ("size", "resize")},
        task.headline: {name: metrics.get(name) for name in (task.headline, "n", "low", "high")},
        **task.described(config),
        "trained_on": {name: data[name] for name in ("train", "valid") if name in data},
        "versions": config["versions"],
    }


def exposition(state: State, capacity: Capacity) -> str:
    """The counters in the text format of Prometheus."""
    lines = ["# TYPE kit_answers_total counter"]
    lines += [f'kit_answers_total{{status="{status}"}} {count}' for status, count in sorted(state.answers.items())]
    lines += ["# TYPE kit_images_total counter"]
    lines += [f'kit_images_total{{result="{result}"}} {state.images[result]}' for result in ("good", "bad")]
    lines += ["# TYPE kit_predict_seconds_total counter", f"kit_predict_seconds_total {state.seconds:.6f}"]
    lines += ["# TYPE kit_requests_inside gauge", f"kit_requests_inside {capacity.used}"]
    return "\n".join([*lines, ""])
