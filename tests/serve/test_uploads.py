"""Uploads: forms, stored files and their names, and which paths are files of the cache."""

import asyncio

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.datastructures import UploadFile

from kit.serve import uploads
from kit.serve.responses import RequestError
from kit.serve.uploads import FILES, UPLOAD, inside, routes, safe_name, store


@pytest.fixture
def client(tmp_path):
    app, client_stored = FastAPI(), []
    app.include_router(routes(tmp_path, client_stored.extend))
    client = TestClient(app)
    client.stored = client_stored
    return client


@pytest.mark.parametrize("fields", [{"other": "text"}, {"files": "text"}])
def test_a_form_without_files_is_refused(client, fields):
    with pytest.raises(RequestError, match="no files, or one without a name") as caught:
        client.post(UPLOAD, data=fields)
    assert caught.value.status == 422


def test_an_upload_comes_back_as_it_was_and_is_told_of_so_that_it_is_deleted_later(client):
    (path,) = client.post(UPLOAD, files={"files": ("a.png", b"picture")}).json()
    assert client.stored == [path]
    answer = client.get(FILES + path)
    assert (answer.content, answer.headers["content-type"]) == (b"picture", "image/png")
    assert "content-disposition" not in answer.headers
    assert client.head(FILES + path).headers["content-length"] == "7"


def test_a_disk_that_is_nearly_full_takes_nothing_more(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "MIN_FREE_BYTES", 10**18)
    with pytest.raises(RequestError, match="this server's disk is nearly full") as caught:
        asyncio.run(store(UploadFile(None, filename="a.png"), tmp_path))
    assert caught.value.status == 507
    assert list(tmp_path.iterdir()) == []


def test_only_uploaded_files_in_their_one_spelling_are_files(tmp_path):
    cache, secret = tmp_path / "cache", tmp_path / "secret.txt"
    cache.mkdir()
    secret.write_text("x")
    (cache / "a.txt").write_text("x")
    (cache / "link.txt").symlink_to(secret)
    assert inside(cache, str(cache / "a.txt"))
    for path in (secret, cache / "link.txt", cache, cache / "none", f"{cache}/../secret.txt", f"{cache}//a.txt",
                 f"{cache}/./a.txt", "a.txt", "", f"file://{cache}/a.txt", "\0", "x" * 5000):  # fmt: skip
        assert not inside(cache, str(path)), path


NAMES = [
    "..", ".", "...", ".png", "a.", " ", "", "/", "猫" * 300, "x" * 300 + ".jpeg", "a/b/c.png", "con", "\ud800.png",
    "a\0b.png", "e\u0301" * 200, "👍" * 100 + ".gif",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_becomes_one_that_the_disk_takes(tmp_path, name):
    safe = safe_name(name)
    (tmp_path / safe).write_bytes(b"x")
    assert [path.name for path in tmp_path.iterdir()] == [safe]
    assert len(safe.encode()) <= 200
    assert not safe.startswith(".")
