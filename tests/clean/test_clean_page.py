"""The page's routes: only rows stand for images, and decisions are checked."""

import io

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from kit.clean.decisions import Journal
from kit.clean.page import application
from kit.clean.session import start


@pytest.fixture(scope="module")
def session(drawings, of_package, tmp_path_factory):
    with Journal(tmp_path_factory.mktemp("page") / "labels.csv") as journal:
        yield start(drawings, of_package, journal)


@pytest.fixture(scope="module")
def client(session):
    return TestClient(application(session))


def test_the_state_lists_each_image_once_with_its_kinds(client, session):
    state = client.get("/clean/state").json()
    rows = [card["row"] for card in state["cards"]]
    assert len(rows) == len(set(rows))
    assert {one.row for one in session.findings} | set(session.audit) == set(rows)
    assert state["classes"] == ["cat", "dog"]
    assert state["mode"] == "clean"


def test_a_card_has_its_findings_and_look_alikes(client, session):
    row = session.findings[0].row
    card = client.get(f"/clean/card/{row}").json()
    assert card["findings"][0]["kind"] == session.findings[0].kind
    assert card["findings"][0]["similar"][0]["label"] in ("cat", "dog")
    assert (card["action"], card["seen"]) == (None, 0)


def test_images_are_small_jpegs_without_metadata(client):
    answer = client.get("/clean/image/0?side=100000")
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.format == "JPEG"
        assert max(image.size) <= 1024
        assert not image.getexif()
    assert answer.headers["cache-control"].startswith("private")


@pytest.mark.parametrize("row", ["-1", "100000", "..%2f..%2fetc%2fpasswd", "x"])
def test_there_is_no_other_image(client, row):
    assert client.get(f"/clean/image/{row}").status_code in (404, 422)


def test_decisions_conflicts_and_undo(client, session):
    row = session.findings[0].row
    told = {"version": session.version, "row": row, "action": "label", "label": "dog", "reason": "", "seen": 0}
    answer = client.post("/clean/decide", json=told)
    assert answer.json() | {"says": ""} == {"seen": 1, "label": "dog", "done": True, "decided": 1, "says": ""}
    again = client.post("/clean/decide", json=told)
    assert again.status_code == 409
    assert "another window" in again.json()["error"]
    assert client.post("/clean/undo", json={"version": session.version}).json()["row"] == row
    assert client.post("/clean/undo", json={"version": session.version}).json()["row"] is None
    assert client.get(f"/clean/card/{row}").json()["action"] is None


@pytest.mark.parametrize(
    "told",
    [
        {"row": 0, "action": "delete", "seen": 0},
        {"row": 0, "action": "label", "label": "", "seen": 0},
        {"row": 10**6, "action": "keep", "seen": 0},
        {"row": "a", "action": "keep", "seen": 0},
        {"action": "keep"},
    ],
)
def test_wrong_decisions_are_refused_and_change_nothing(client, session, told):
    before = dict(session.journal.decisions)
    assert client.post("/clean/decide", json={"version": session.version} | told).status_code == 422
    assert session.journal.decisions == before


def test_more_like_this_the_effect_and_another_look(client):
    assert len(client.get("/clean/like/0").json()) == 24
    assert client.get("/clean/effect").json()["lines"] == ["nothing was changed yet"]
    assert client.post("/clean/again", json={}).json()["images"] == client.get("/clean/state").json()["images"]
