"""The guard's parts, without a socket: hosts, origins, counted bodies, the gate, the login and its brake."""

import asyncio
import base64
import io
import threading
import zipfile

import pytest

from kit.errors import KitError
from kit.serve import archive
from kit.serve.gate import Gate, Left
from kit.serve.guard import Body, Guard, Hosts, Limits, is_route
from kit.serve.login import ATTEMPTS, WINDOW, Login
from kit.serve.reply import Refusal, State
from kit.serve.server import Settings
from kit.serve.uploads import inside


def scope(path="/v1/model", method="GET", **headers):
    pairs = {"host": "127.0.0.1:7860"} | {name.replace("_", "-"): value for name, value in headers.items()}
    raw = [(name.encode(), value.encode()) for name, value in pairs.items()]
    return {"type": "http", "path": path, "method": method, "headers": raw, "client": ("10.0.0.1", 1)}


def guard(app=None, login=None, **limits):
    return Guard(app, hosts=Hosts({"127.0.0.1", "pets.example"}), login=login, limits=Limits(**limits), state=State())


def ask(guard, request, *parts):
    """The status, the headers and the body of the answer to a request that arrives in `parts`."""
    sent, messages = [], [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive():
        return messages.pop(0) if messages else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    asyncio.run(guard(request, receive, send))
    assert [one["type"] for one in sent[:2]] == ["http.response.start", "http.response.body"]
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


async def echo(scope, receive, send):
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RuntimeError("the client left")
        size, more = size + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def test_hosts_are_names_with_or_without_a_port_and_addresses_only_where_all_are_listened_at():
    hosts = Settings(host="0.0.0.0", public=True, allow_host=("Pets.Example",)).hosts
    for name in ("localhost:7860", "127.0.0.1", "[::1]:7860", "pets.example", "192.168.1.7:7860", "pets.example.:80"):
        assert hosts.allows(name), name
    for name in ("evil.example", "", "127.0.0.1.evil.example", "[::1", "localhost@evil.example", "a b"):
        assert not hosts.allows(name), name
    assert not Settings().hosts.allows("192.168.1.7")


@pytest.mark.parametrize(
    "headers, status",
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:7860"}, 200),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}, 200),
        ({"host": "evil.example"}, 421),
        ({"content_length": "999999999"}, 413),
        ({"content_length": "-1"}, 413),
    ],
)
def test_who_asks_from_where_is_checked_before_anything_is_read(headers, status):
    assert ask(guard(echo), scope(**headers))[0] == status


def test_every_answer_carries_the_headers_that_keep_a_browser_from_guessing_and_from_asking_elsewhere():
    for answer in (ask(guard(echo), scope()), ask(guard(echo), scope(host="evil"))):
        assert answer[1][b"x-content-type-options"] == b"nosniff"
        assert answer[1][b"content-security-policy"].startswith(b"default-src 'self'")


def test_a_body_is_counted_as_it_streams():
    assert ask(guard(echo, upload=10), scope(method="POST"), b"12345", b"67890")[2] == b"10"
    status, _, body = ask(guard(echo, upload=10), scope(method="POST"), b"12345", b"678901")
    assert status == 413
    assert b"more than 10 bytes" in body


def test_a_body_that_stalls_is_given_up():
    async def never():
        await asyncio.Event().wait()

    async def read():
        body = Body(never, Limits(silence=0.01))
        return await body(), await body(), body.refusal

    first, second, refusal = asyncio.run(read())
    assert first == second == {"type": "http.disconnect"}
    assert refusal.status == 408


def test_an_unforeseen_error_is_a_number_and_the_log_has_it(caplog):
    async def broken(scope, receive, send):
        raise RuntimeError("/secret/path")

    import logging

    logging.getLogger("kit.serve").propagate = True
    status, _, body = ask(guard(broken), scope())
    assert status == 500
    assert b"secret" not in body
    number = body.split(b"number ")[1][:8].decode()
    assert number in caplog.text
    assert "/secret/path" in caplog.text


@pytest.mark.parametrize(
    "path", ["/monitoring", "/docs", "/openapi.json", "/gradio_api/proxy=http://x", "/gradio_api/vibe-edit/",
             "/gradio_api/runs", "/gradio_api/mcp", "/gradio_api/run/other", "/gradio_api/component_server",
             "/assets/../config", "/static/..%2f", "//evil.example", "/gradio_api/file/etc", "/a\\b"],
)  # fmt: skip
def test_what_the_page_does_not_need_is_not_there(path):
    assert not is_route(path) or "%" in path


def test_a_login_opens_by_password_or_session_and_not_otherwise():
    login = Login("anna", "secret")
    basic = "Basic " + base64.b64encode(b"anna:secret").decode()
    assert ask(guard(echo, login), scope(authorization=basic))[0] == 200
    assert ask(guard(echo, login), scope(cookie=f"a=b; kit_session={login.open_session()}"))[0] == 200
    assert ask(guard(echo, login), scope("/v2/health/ready"))[0] == 200
    for headers in ({}, {"cookie": "kit_session=x"}, {"authorization": "Basic x"}, {"authorization": "Bearer y"}):
        assert ask(guard(echo, login), scope(**headers))[0] == 401
    page = ask(guard(echo, login), scope("/", accept="text/html"))
    assert (page[0], page[1][b"Location"]) == (303, b"/login")


def test_guessing_is_braked_for_a_while_and_only_for_the_one_who_guesses():
    now = [0.0]
    login = Login("anna", "secret", clock=lambda: now[0])
    for attempt in range(300):
        with pytest.raises(Refusal) as caught:
            login.attempt("anna", f"guess {attempt}", "10.0.0.1")
        assert caught.value.status == (401 if attempt < ATTEMPTS else 429)
    with pytest.raises(Refusal, match="too many wrong passwords"):
        login.attempt("anna", "secret", "10.0.0.1")
    login.attempt("anna", "secret", "10.0.0.2")
    now[0] = WINDOW + 1
    login.attempt("anna", "secret", "10.0.0.1")


def test_the_gate_lets_some_work_some_wait_and_refuses_the_rest_at_once():
    async def crowd():
        gate, begin = Gate(2, 3), threading.Event()
        forever = asyncio.Event()
        jobs = [asyncio.ensure_future(gate.run(lambda stop: begin.wait(10), forever.wait)) for _ in range(9)]
        done, waiting = await asyncio.wait(jobs, timeout=0.2)
        begin.set()
        return done, await asyncio.gather(*waiting)

    refused, served = asyncio.run(crowd())
    assert [one.exception().status for one in refused] == [503] * 4
    assert served == [True] * 5


def test_a_client_that_leaves_gives_its_place_to_the_next():
    async def leave():
        gate, left, ended = Gate(1, 1), asyncio.Event(), threading.Event()

        def work(stop):
            stop.wait(10)
            ended.set()

        first = asyncio.ensure_future(gate.run(work, left.wait))
        await asyncio.sleep(0.05)
        left.set()
        with pytest.raises(Left):
            await first
        return ended, await asyncio.wait_for(gate.run(lambda stop: "next", asyncio.Event().wait), 5)

    ended, answer = asyncio.run(leave())
    assert ended.is_set()
    assert answer == "next"


@pytest.mark.parametrize(
    "given, problem",
    [
        ({"share": True}, "--share opens this page to everybody"),
        ({"host": "0.0.0.0"}, "--host 0.0.0.0 opens this page to other machines"),
        ({"auth": "anna"}, "a login without a password"),
    ],
)
def test_settings_that_would_open_the_page_unmeant_are_refused(given, problem):
    with pytest.raises(KitError, match=problem):
        Settings(**given)


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


def zipped(tmp_path, *members):
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive_:
        for name, data in members:
            archive_.writestr(name, data)
    return path


def test_a_zip_is_read_member_by_member_and_what_is_wrong_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_BYTES_EACH", 1000)
    members = [
        ("a/one.jpg", b"one"),
        ("../out.jpg", b"x"),
        ("/abs.jpg", b"x"),
        ("C:\\x.jpg", b"x"),
        ("notes.txt", b"x"),
    ]
    members += [("bomb.jpg", bytes(1001)), ("__MACOSX/._one.jpg", b"x"), (".hidden.jpg", b"x"), ("inner.zip", b"x")]
    rows = dict(archive.images(zipped(tmp_path, *members)))
    assert rows["a/one.jpg"] == b"one"
    out = "its path leads out of the zip"
    assert [rows[name] for name in ("../out.jpg", "/abs.jpg", "C:\\x.jpg")] == [out] * 3
    assert rows["bomb.jpg"] == "unpacks to more than 1,000 bytes"
    assert rows["notes.txt"] == rows["inner.zip"] == "not an image by its name"
    assert len(rows) == 7 == archive.count(tmp_path / "some.zip")


def test_a_zip_that_is_none_or_is_damaged_is_a_row(tmp_path):
    none = tmp_path / "none.zip"
    none.write_bytes(b"no zip")
    assert list(archive.images(none)) == [("none.zip", "not a zip, or a damaged one")]
    assert list(archive.images(zipped(tmp_path))) == [("some.zip", "an empty zip")]
    good = zipped(tmp_path, ("one.jpg", bytes(range(256)) * 20)).read_bytes()
    for place in range(30, len(good), 7):
        none.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        for _, data in archive.images(none):
            assert isinstance(data, bytes | archive.Refused)


def test_a_zip_bomb_fills_neither_memory_nor_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_BYTES_EACH", 100_000)
    stream = io.BytesIO(bytes(50_000_000))
    path = zipped(tmp_path, *((f"{number}.jpg", stream.getvalue()) for number in range(3)))
    assert [len(data) < 100 for _, data in archive.images(path)] == [True] * 3
