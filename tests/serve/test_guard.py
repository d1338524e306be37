"""The guard's parts, without a socket: hosts, origins, counted bodies, the gate, the login and its brake."""

import asyncio
import base64
import contextlib
import io
import json
import struct
import threading
import zipfile

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from kit.errors import KitError
from kit.serve import archive
from kit.serve.gate import Gate, Left, Turns
from kit.serve.guard import HEARTBEAT, MOST_STREAMS, Body, Guard, Hosts, Limits, is_route
from kit.serve.login import ATTEMPTS, LONGEST_FORM, WINDOW, Login
from kit.serve.reply import Refusal, State
from kit.serve.server import Settings
from kit.serve.uploads import inside, safe_name


def scope(path="/v1/model", method="GET", **headers):
    pairs = {"host": "127.0.0.1:7860"} | {name.replace("_", "-"): value for name, value in headers.items()}
    raw = [(name.encode(), value.encode()) for name, value in pairs.items()]
    return {"type": "http", "path": path, "method": method, "headers": raw, "client": ("10.0.0.1", 1)}


def guard(app=None, login=None, tunnels=(), **limits):
    hosts = Hosts({"127.0.0.1", "pets.example"}, tunnels=set(tunnels))
    return Guard(app, hosts=hosts, login=login, limits=Limits(**limits), state=State())


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
        ({"origin": "http://[::1"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}, 200),
        ({"host": "evil.example"}, 421),
        ({"content_length": "999999999"}, 413),
        ({"content_length": "-1"}, 413),
        ({"content_length": "9" * 5000}, 413),
    ],
)
def test_who_asks_from_where_is_checked_before_anything_is_read(headers, status):
    assert ask(guard(echo), scope(**headers))[0] == status


@pytest.mark.parametrize(
    "headers, words",
    [
        ({"host": "evil.example"}, b"this server has another name"),
        ({"origin": "https://evil.example"}, b"another page may not use this server"),
    ],
)
def test_who_is_refused_is_told_why(headers, words):
    assert words in ask(guard(echo), scope(**headers))[2]


def test_what_is_not_there_is_said_with_where_to_look():
    status, _, body = ask(guard(echo), scope("/docs"))
    said = json.loads(body)
    assert (status, said["error"]) == (404, "there is nothing here")
    assert "the page is at /, the API at /v1/predict" in said["fix"]


def test_the_pages_streams_do_not_take_all_connections():
    server = guard(echo)
    server.streams = MOST_STREAMS - 1
    assert ask(server, scope(f"{HEARTBEAT}x"))[0] == 200
    server.streams = MOST_STREAMS
    status, _, body = ask(server, scope(f"{HEARTBEAT}x"))
    assert status == 503
    assert b"too many visitors at once" in body
    assert server.streams == MOST_STREAMS
    assert ask(server, scope())[0] == 200


def test_what_fails_unforeseen_before_the_request_is_let_through_is_a_number_too(monkeypatch):
    def broken(scope):
        raise RuntimeError("/secret/path")

    login = Login("anna", "secret")
    monkeypatch.setattr(login, "check", broken)
    status, _, body = ask(guard(echo, login), scope())
    assert status == 500
    assert b"number " in body
    assert b"secret" not in body


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
    assert (refusal.status, refusal.problem) == (408, "the request did not arrive in time")


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


async def arrival(scope, receive, send):
    """An app that answers how the request came."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    came = [scope["scheme"], scope["client"][0], *sorted(name.decode() for name, _ in scope["headers"])]
    await send({"type": "http.response.body", "body": " ".join(came).encode()})


@pytest.mark.parametrize(
    "headers, came",
    [
        ({}, "http 10.0.0.1 host"),
        ({"origin": "http://127.0.0.1:7860"}, "http 10.0.0.1 host origin"),
        ({"host": "abc.gradio.live"}, "https tunnel host"),
        ({"host": "ABC.gradio.live:443"}, "https tunnel host"),
        ({"host": "pets.example", "origin": "https://pets.example"}, "https 10.0.0.1 host origin"),
        ({"host": "pets.example", "x_forwarded_proto": "https"}, "https 10.0.0.1 host"),
        ({"x_forwarded_host": "evil.example", "x_gradio_server": "http://evil.example"}, "http 10.0.0.1 host"),
    ],
)
def test_who_came_by_https_is_known_and_no_header_gives_the_server_another_name(headers, came):
    assert ask(guard(arrival, tunnels={"abc.gradio.live"}), scope(**headers))[2].decode() == came


def test_a_login_opens_by_password_or_session_and_not_otherwise():
    login = Login("anna", "secret")
    basic = "Basic " + base64.b64encode(b"anna:secret").decode()
    assert ask(guard(echo, login), scope(authorization=basic))[0] == 200
    assert ask(guard(echo, login), scope(cookie=f"a=b; kit_session={login.open_session()}"))[0] == 200
    assert ask(guard(echo, login), scope("/v2/health/ready"))[0] == 200
    for headers in ({}, {"cookie": "kit_session=x"}, {"authorization": "Bearer y"}):
        status, _, body = ask(guard(echo, login), scope(**headers))
        assert (status, json.loads(body)["error"]) == (401, "sign in first")
    status, _, body = ask(guard(echo, login), scope(authorization="Basic x"))
    assert (status, json.loads(body)["error"]) == (401, "wrong user or password")
    page = ask(guard(echo, login), scope("/", accept="text/html"))
    assert (page[0], page[1][b"Location"], json.loads(page[2])["error"]) == (303, b"/login", "sign in first")


def test_a_form_longer_than_any_password_is_not_parsed():
    app = FastAPI()
    app.include_router(Login("anna", "secret").routes())
    with pytest.raises(Refusal, match="no name or password is that long") as caught:
        TestClient(app).post("/login", content=b"x" * (LONGEST_FORM + 1))
    assert caught.value.status == 413


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


@pytest.mark.parametrize(
    "header, own",
    [
        ("kit_session=abc-_1", "kit_session=abc-_1"),
        ("a=b;kit_session=abc; c=d", "kit_session=abc"),
        ("a=b; kit_session=abc", "kit_session=abc"),
        ("kit_session=", ""),
        ("kit_session=a b", ""),
        ('kit_session="abc"', ""),
        ("kit_session_7860=abc", ""),
        ("xkit_session=abc", ""),
        ("kit_session=" + "x" * 200, ""),
        ('a="' + "\\" * 1_000_000 + '"; kit_session=abc', "kit_session=abc"),
        ("", ""),
    ],
    ids=lambda text: text[:30],
)
def test_of_all_cookies_only_the_logins_own_is_looked_at_and_passed_on(header, own):
    assert Login("anna", "secret").own_cookie(header.encode()) == own.encode()
    names = ask(guard(arrival, Login("a", "b", cookie="x")), scope("/login", cookie=header))[2].decode()
    assert "cookie" not in names
    assert "cookie" not in ask(guard(arrival), scope(cookie=header))[2].decode()


def test_those_who_guess_through_the_tunnel_lock_out_nobody_else():
    login = Login("anna", "secret")
    server = guard(echo, login, tunnels={"abc.gradio.live"})
    wrong, right = (
        {"authorization": "Basic " + base64.b64encode(f"anna:{word}".encode()).decode()} for word in ("x", "secret")
    )
    tries = [ask(server, scope(host="abc.gradio.live", **wrong))[0] for _ in range(20)]
    assert tries == [401] * ATTEMPTS + [429] * (20 - ATTEMPTS)
    assert ask(server, scope(host="abc.gradio.live", **right))[0] == 429
    assert ask(server, scope(**right))[0] == 200


def test_a_turn_is_handed_on_in_order_and_not_snatched_back():
    turns, order, threads = Turns(1), [], []

    def take(number):
        with turns:
            order.append(number)

    with turns:
        for number in range(5):
            threads.append(threading.Thread(target=take, args=(number,)))
            threads[-1].start()
            while len(turns.waiting) <= number and threads[-1].is_alive():
                pass
    take("again")
    for thread in threads:
        thread.join(5)
    assert order == [0, 1, 2, 3, 4, "again"]
    assert (turns.free, len(turns.waiting)) == (1, 0)


def test_no_more_than_the_turns_work_at_once_and_an_error_gives_its_turn_back():
    turns, begin, working, most = Turns(2), threading.Barrier(6), [], []

    @turns.around
    def work(fails):
        working.append(1)
        most.append(len(working))
        working.pop()
        if fails:
            raise ValueError("broken")

    def come():
        begin.wait(5)
        for number in range(200):
            with contextlib.suppress(ValueError):
                work(number % 3 == 0)

    threads = [threading.Thread(target=come) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(most) == 1200
    assert max(most) <= 2
    assert turns.free == 2


def test_the_gate_counts_those_that_something_else_let_in():
    gate = Gate(1, 1, elsewhere=lambda: 1)
    with gate.place():
        assert gate.inside == 2
        with pytest.raises(Refusal, match="too many requests at once"), gate.place():
            pass
    assert gate.inside == 1


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


def contents_alone(count: int) -> bytes:
    """A zip that is nothing but a table of contents."""
    entries = b"".join(
        b"PK\1\2" + struct.pack("<6H3I5H2I", 20, 20, *[0] * 7, len(name), *[0] * 6) + name
        for name in (b"%x.jpg" % number for number in range(count))
    )
    return entries + b"PK\5\6" + struct.pack("<4H2IH", 0, 0, *[min(count, 65535)] * 2, len(entries), 0, 0)


def test_a_zip_of_countless_files_is_refused_before_its_contents_are_read(tmp_path):
    path = tmp_path / "many.zip"
    path.write_bytes(contents_alone(100_000))
    assert list(archive.images(path)) == [("many.zip", archive.TOO_MANY)]
    assert archive.count(path) == 1
    path.write_bytes(contents_alone(3000))
    rows = list(archive.images(path))
    assert len(rows) == archive.MOST_MEMBERS + 1 == archive.count(path)
    assert rows[-1] == ("many.zip", "3,000 files; the first 2,000 were read")
    assert all(isinstance(data, archive.Refused) for _, data in rows)


def test_a_zip_bomb_fills_neither_memory_nor_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_BYTES_EACH", 100_000)
    stream = io.BytesIO(bytes(50_000_000))
    path = zipped(tmp_path, *((f"{number}.jpg", stream.getvalue()) for number in range(3)))
    assert [len(data) < 100 for _, data in archive.images(path)] == [True] * 3


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
