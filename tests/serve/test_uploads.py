"""What the page may be sent, without a page: forms, stored files, and events in every spelling that is not its own."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.datastructures import UploadFile

from kit.serve import uploads
from kit.serve.gate import Gate
from kit.serve.reply import FILES, Refusal
from kit.serve.uploads import DEEPEST, MOST_FILES, UPLOAD, Events, check_cancel, read, routes, store


def event(data, **fields) -> bytes:
    return json.dumps({"fn_index": 0, "session_hash": "s", "data": data} | fields).encode()


def events(cache, kind: str) -> Events:
    """What stands before a page of one function, which takes one value."""
    component = SimpleNamespace(get_block_name=lambda: kind)
    blocks = SimpleNamespace(fns={0: SimpleNamespace(fn=print, queue=True, inputs=[component])})
    return Events(None, blocks, cache, Gate(1, 1))


@pytest.fixture
def stored(tmp_path) -> str:
    (tmp_path / "a.png").write_bytes(b"x")
    return str(tmp_path / "a.png")


@pytest.mark.parametrize("fields", [{"other": "text"}, {"files": "text"}])
def test_a_form_without_files_is_refused(tmp_path, fields):
    app = FastAPI()
    app.include_router(routes(SimpleNamespace(upload_file_set=set()), tmp_path))
    with pytest.raises(Refusal, match="no files, or one without a name") as caught:
        TestClient(app).post(UPLOAD, data=fields)
    assert caught.value.status == 422


def test_a_disk_that_is_nearly_full_takes_nothing_more(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "ROOM", 10**18)
    with pytest.raises(Refusal, match="this server's disk is nearly full") as caught:
        asyncio.run(store(UploadFile(None, filename="a.png"), tmp_path))
    assert caught.value.status == 507
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_uploaded_is_let_through_as_its_path_alone(tmp_path, stored):
    given = {"path": stored, "url": f"http://127.0.0.1{FILES}{stored}", "orig_name": "b.png"}
    checked = events(tmp_path, "image").check(event([given]))
    assert checked == {"fn_index": 0, "data": [{"path": stored, "meta": uploads.FILE}], "session_hash": "s"}


@pytest.mark.parametrize("url", ["http://evil.example/a.png", f"http://127.0.0.1{FILES}/etc/passwd"])
def test_an_address_that_is_not_the_uploaded_files_is_refused(tmp_path, stored, url):
    with pytest.raises(Refusal, match="a file's address is not this server's"):
        events(tmp_path, "image").check(event([{"path": stored, "url": url}]))


@pytest.mark.parametrize(
    ("kind", "value"),
    [("image", "text"), ("image", []), ("file", "text"), ("file", [{"path": "a"}, 1]),
     ("file", [{"path": "a"}] * (MOST_FILES + 1))],
    ids=["text", "list", "text for files", "a number among files", "too many files"],
)  # fmt: skip
def test_a_value_that_no_upload_gives_is_refused(tmp_path, kind, value):
    with pytest.raises(Refusal, match="a value is no uploaded file, or more than 1000"):
        events(tmp_path, kind).check(event([value]))


def test_a_value_is_followed_only_so_deep(tmp_path, stored):
    inner = None
    for _ in range(DEEPEST - 1):
        inner = [inner]
    assert events(tmp_path, "image").check(event([{"path": stored, "more": inner}]))
    with pytest.raises(Refusal, match="a value is nested too deeply"):
        events(tmp_path, "image").check(event([{"path": stored, "more": [[inner]]}]))


@pytest.mark.parametrize("fields", [{}, {"event_id": 1}, {"event_id": "../a"}, {"event_id": "a", "fn_index": True}])
def test_what_is_cancelled_must_be_named(fields):
    assert check_cancel(event([], event_id="a"))["event_id"] == "a"
    with pytest.raises(Refusal, match="no event_id, or no fn_index"):
        check_cancel(event([], **fields))


def test_a_body_that_ends_before_it_is_whole_is_no_body():
    messages = [{"type": "http.disconnect"}, {"type": "http.request", "body": b"half", "more_body": True}]

    async def receive():
        return messages.pop()

    with pytest.raises(Refusal, match="the request was cut off"):
        asyncio.run(read(receive))
