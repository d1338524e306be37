"""The REST API as programs meet it: one image or several, in three forms, and what is wrong said in words."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from kit import bundle
from kit.serve import rest
from kit.serve.concurrency import Capacity
from kit.serve.middleware import Hosts, SecurityMiddleware
from kit.serve.responses import State


@pytest.fixture(scope="module")
def predictor(run):
    return bundle.load(run.bundle)


@pytest.fixture(scope="module")
def client(predictor):
    app, state = FastAPI(), State(ready=True)
    app.include_router(rest.routes(predictor, Capacity(12), ThreadPoolExecutor(2), state, metrics=True))
    hosts = Hosts({"testserver"})
    client = TestClient(
        SecurityMiddleware(app, hosts=hosts, login=None, max_upload=10_000_000, patience=10.0, state=state)
    )
    client.state = state
    return client


@pytest.fixture(scope="module")
def photo(shapes):
    return shapes / "circle" / "00.png"


def coded(path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_a_file_a_body_and_base64_give_the_answer_of_the_predictor(client, predictor, photo):
    expected = predictor.predict(photo)[0]
    answers = [
        client.post("/v1/predict", files={"image": photo.open("rb")}),
        client.post("/v1/predict", content=photo.read_bytes(), headers={"content-type": "image/png"}),
        client.post("/v1/predict", json={"images": [coded(photo)]}),
    ]
    for answer in answers:
        assert answer.status_code == 200
        (row,) = answer.json()["predictions"]
        assert row["label"] == expected.label
        assert row["probability"] == pytest.approx(expected.probability, abs=1e-5)
        assert row["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
        assert row["error"] is None
        assert "unlike" in row
        assert answer.json()["seconds"] > 0


def test_several_images_come_back_in_their_order_with_their_names(client, shapes):
    files = [("image", (f"{name}.png", (shapes / name / "01.png").open("rb"))) for name in ("square", "circle")]
    rows = client.post("/v1/predict", files=files).json()["predictions"]
    assert [row["name"] for row in rows] == ["square.png", "circle.png"]


def test_a_bad_image_among_good_ones_is_a_row_and_alone_a_422(client, photo):
    bad = ("image", ("bad.jpg", b"no image"))
    answer = client.post("/v1/predict", files=[("image", photo.open("rb")), bad])
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["error"] is None
    assert "not an image of the formats JPEG" in answer.json()["predictions"][1]["error"]
    alone = client.post("/v1/predict", files=[bad])
    assert alone.status_code == 422
    assert "not an image of the formats JPEG" in alone.json()["predictions"][0]["error"]


@pytest.mark.parametrize(
    "status, problem, request_",
    [
        (400, "the body is not JSON", {"content": b"{bad", "headers": {"content-type": "application/json"}}),
        (400, "the body is not JSON", {"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}),
        (422, "images is not a list of texts", {"json": {}}),
        (422, "images is not a list of texts", {"json": []}),
        (422, "images is not a list of texts", {"json": {"images": [{"path": "/etc/passwd"}]}}),
        (422, "images[0] is not base64", {"json": {"images": ["/etc/passwd.."]}}),
        (422, "images[0] is not base64", {"json": {"images": ["data:image/png;base64,AAAA"]}}),
        (422, "images[0] is not base64", {"json": {"images": ["http://127.0.0.1/cat.jpg"]}}),
        (422, "0 images; 1 to 64 were expected", {"json": {"images": []}}),
        (422, "65 images; 1 to 64 were expected", {"json": {"images": ["AAAA"] * 65}}),
        (415, "Content-Type 'text/plain'", {"content": b"cat.jpg", "headers": {"content-type": "text/plain"}}),
        (415, "Content-Type 'missing'", {"content": b""}),
        (422, "field 'image' is not a file with a name", {"data": {"image": "cat.jpg"}, "files": {"x": ("x", b"")}}),
        (400, "the form cannot be read", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}),
    ],
)
def test_what_is_wrong_with_a_request_is_said_with_its_fix(client, status, problem, request_):
    answer = client.post("/v1/predict", **request_)
    assert answer.status_code == status, answer.text
    assert problem in answer.json()["error"]
    assert answer.json()["fix"]


def test_the_model_is_described_without_a_path_of_the_machine_it_was_made_on(client, run):
    said = client.get("/v1/model").json()
    assert said["classes"] == ["circle", "square", "triangle"]
    assert said["error_rate"].keys() == {"error_rate", "n", "low", "high"}
    assert said["image"]["size"] == 32
    assert str(run.bundle.parent) not in json.dumps(said)
    assert "/" not in json.dumps(said).replace("timm/test_resnet", "")


def test_health_says_whether_new_requests_are_welcome(client):
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").status_code == 200
    client.state.ready = False
    try:
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/v2/health/live").status_code == 200
    finally:
        client.state.ready = True


def test_the_metrics_count_images(client, photo):
    def count(kind):
        lines = client.get("/metrics").text.splitlines()
        return int(next(line for line in lines if f'"{kind}"' in line).split()[1])

    good, bad = count("good"), count("bad")
    client.post("/v1/predict", files=[("image", photo.open("rb")), ("image", ("bad.jpg", b"x"))])
    assert (count("good"), count("bad")) == (good + 1, bad + 1)
