"""Bad inputs and faults of the page and the API, over real sockets: each test carries the number of its row.

After every one of them the next good request succeeds.
"""

import base64
import gc
import http.client
import json
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from over_sockets import (
    BOUNDARY,
    FORM,
    IMAGE,
    JSON,
    LIMIT,
    Held,
    ask,
    begin,
    call,
    function_index,
    functions,
    good,
    hears,
    image_functions,
    inside,
    join,
    listen,
    memory,
    messages,
    outcome,
    part,
    reachable,
    rows_of_many,
    served,
    started,
    stored,
    until,
    upload,
)
from PIL import Image

from kit.bundle.predictor import Predictor
from kit.cli.serve import serve as serve_command
from kit.errors import KitError
from kit.serve import gradio_internals, http_server, middleware, webpage
from kit.serve.server import Settings, announce

OUTSIDE = [
    "/etc/passwd", "../../../etc/passwd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "//etc/passwd", "file:///etc/passwd",
    "http://127.0.0.1/", "https://example.com/x.png", "data:text/html,x", "\\\\etc\\passwd", "/proc/self/environ",
    "%00", "/etc/passwd%00.png", "~/.bashrc", "CACHE", "CACHE/../../etc/passwd", "CACHE/%2e%2e/%2e%2e/etc/passwd",
]  # fmt: skip
LEADING_OUT = [
    "/assets/../../../../etc/passwd", "/assets/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/assets//etc/passwd",
    "/static//etc/passwd", "/static/..%2f..%2f..%2fetc%2fpasswd", "/svelte/../../etc/passwd",
    "/gradio_api/file//etc/passwd", "/../etc/passwd", "//etc/passwd",
    "/custom_component/1/client/component/../../../etc/passwd", "/gradio_api/proxy=http://127.0.0.1/",
    "/gradio_api/deep_link?path=/etc/passwd",
]  # fmt: skip


@pytest.mark.parametrize("path", [*(f"/gradio_api/file={name}" for name in (*OUTSIDE, "x" * 5000)), *LEADING_OUT])
def test_11_a_path_that_leads_out_is_refused_on_every_file_route(server, path):
    status, _, body = ask(server.port, "GET", path.replace("CACHE", str(server.cache)))
    assert 400 <= status < 500
    assert b"root:" not in body
    assert b"/etc" not in body


@pytest.mark.parametrize(
    "value",
    [
        "/etc/passwd",
        {"path": "/etc/passwd"},
        {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
        {"path": "CACHE/../../etc/passwd"},
        {"path": "CACHE"},
        {"path": "CACHE/none.png"},
        {"path": "file:///etc/passwd"},
        {"path": "../etc/passwd"},
        {"path": "http://127.0.0.1:9/x.png"},
        {"path": "http://127.0.0.1:9/x.png", "url": "http://127.0.0.1:9/x.png"},
        {"path": "GOOD", "url": "http://127.0.0.1:9/x.png"},
        {"path": "GOOD", "url": "data:image/png;base64,AAAA"},
        {"path": None, "url": "data:image/png;base64,AAAA"},
        {"url": "/gradio_api/file=/etc/passwd"},
        {"path": ["GOOD"]},
        {"path": "GOOD", "meta": {"path": "/etc/passwd"}},
        ["GOOD"],
        7,
    ],
)
def test_12_an_image_argument_that_names_anything_but_an_upload_is_refused(server, photo, value):
    kept = stored(server.port, "a.png", photo)
    text = json.dumps(value).replace("CACHE", str(server.cache)).replace("GOOD", kept)
    status, _, body = join(server.port, [json.loads(text)])
    assert status == 422, body
    assert b"error" in body


def test_12_an_upload_itself_is_predicted(server, photo):
    path = stored(server.port, "a.png", photo)
    url = f"http://127.0.0.1:{server.port}/gradio_api/file={path}"
    assert join(server.port, [{"path": path, "url": url}], session_hash="s12")[0] == 200
    assert '"label":' in hears(server.port, "s12")


def pieces(size):
    for _ in range(size // 65536):
        yield b"x" * 65536


KINDS = {
    "multipart": (FORM, part("files", b"", "a.png")[: -len(BOUNDARY) - 8]),
    "json": (JSON, b'{"images": ["'),
    "image": ({"Content-Type": "image/png"}, b""),
}


@pytest.mark.parametrize("path", ["/v1/predict", "/gradio_api/upload", "/gradio_api/queue/join"])
@pytest.mark.parametrize("kind", KINDS)
def test_13_a_body_over_the_limit_is_a_413(server, path, kind):
    headers, start = KINDS[kind]
    status, _, said = ask(server.port, "POST", path, start + b"x" * (LIMIT + 1), headers)
    assert status == 413
    assert b"--max-upload" in said


@pytest.mark.parametrize(
    "path, kind",
    [
        ("/v1/predict", "multipart"),
        ("/v1/predict", "json"),
        ("/v1/predict", "image"),
        ("/gradio_api/upload", "multipart"),
        ("/gradio_api/queue/join", "json"),
    ],
)
def test_13_a_streamed_body_without_a_length_is_a_413_where_it_passes_the_limit(server, path, kind):
    headers, start = KINDS[kind]
    body = (chunk for chunk in (start, *pieces(3 * LIMIT)))
    status, _, said = ask(server.port, "POST", path, body, headers, encode_chunked=True)
    assert status == 413
    assert b"--max-upload" in said


def test_13_a_few_images_that_take_minutes_to_decode_are_a_413(server, photo):
    large = BytesIO()
    Image.new("1", (9_000, 9_000)).save(large, "PNG")
    images = [base64.b64encode(large.getvalue()).decode()] * 3
    assert sum(map(len, images)) < LIMIT
    status, _, said = ask(server.port, "POST", "/v1/predict", json.dumps({"images": images}), JSON)
    assert status == 413
    assert b"243,000,000 pixels together" in said
    assert b"send fewer images at a time" in said
    assert good(server.port, photo)


def test_49_bodies_together_are_limited_and_those_beyond_it_refused_before_they_are_read(predictor, photo, monkeypatch):
    monkeypatch.setattr(middleware, "MAX_BODIES", 3 * LIMIT)
    with served(predictor, patience=30) as server:
        head = f"Host: 127.0.0.1\r\nContent-Type: {FORM['Content-Type']}\r\nContent-Length: {LIMIT}\r\n"
        held = []
        for path in ("/v1/predict", "/gradio_api/upload", "/gradio_api/queue/join"):
            held.append(socket.create_connection(("127.0.0.1", server.port), timeout=15))
            held[-1].sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + KINDS["multipart"][1])
        until(lambda: server.bodies.used == 3 * LIMIT)
        for body, chunked in ((photo, False), (iter([photo]), True)):
            status, headers, said = ask(server.port, "POST", "/v1/predict", body, IMAGE, encode_chunked=chunked)
            assert (status, headers["retry-after"]) == (503, "1")
            assert b"try again in a moment" in said
        with socket.create_connection(("127.0.0.1", server.port), timeout=15) as unread:
            unread.sendall(f"POST /v1/predict HTTP/1.1\r\n{head}Expect: 100-continue\r\n\r\n".encode())
            assert unread.makefile("rb").readline().startswith(b"HTTP/1.1 503")
        assert ask(server.port, "GET", "/v2/health/ready")[0] == 200
        held.pop().close()
        until(lambda: server.bodies.used == 2 * LIMIT)
        assert good(server.port, photo)
        for connection in held:
            connection.close()
        until(lambda: server.bodies.used == 0)


LONG = '{"session_hash": "' + "x" * 65 + '", "fn_index": FN, "data": [null]}'
MANY = '{"session_hash": "a", "fn_index": FN, "data": [[' + ", ".join(['{"path": "x"}'] * 50_000) + "]]}"
DEEP = '{"session_hash": "a", "fn_index": FN, "data": [' + "[" * 400 + "]" * 400 + "]}"


@pytest.mark.parametrize(
    "status, method, path, body, headers",
    [
        (400, "POST", "/v1/predict", "{bad", JSON),
        (422, "POST", "/v1/predict", "{}", JSON),
        (415, "POST", "/v1/predict", "x", {"Content-Type": "text/plain"}),
        (422, "POST", "/v1/predict", part("image", b"x", ""), FORM),
        (405, "GET", "/v1/predict", None, {}),
        (405, "PUT", "/v1/predict", b"x", IMAGE),
        (405, "OPTIONS", "/v1/predict", None, {}),
        (405, "DELETE", "/v1/model", None, {}),
        (405, "POST", "/v2/health/ready", None, {}),
        (405, "POST", "/config", None, {}),
        (405, "GET", "/gradio_api/upload", None, {}),
        (308, "POST", "/v1/predict/", b"x", IMAGE),
        (404, "GET", "/v1/nothing", None, {}),
        (404, "POST", "/nothing", "x", {}),
        (400, "POST", "/gradio_api/queue/join", "{bad", JSON),
        (400, "POST", "/gradio_api/queue/join", b"\xff\xfe", JSON),
        (422, "POST", "/gradio_api/queue/join", "[]", JSON),
        (422, "POST", "/gradio_api/queue/join", '{"session_hash": 1}', JSON),
        (404, "POST", "/gradio_api/queue/join", '{"session_hash": "a", "fn_index": 999, "data": []}', JSON),
        (422, "POST", "/gradio_api/queue/join", '{"session_hash": "a", "fn_index": "0", "data": []}', JSON),
        (422, "POST", "/gradio_api/queue/join", '{"session_hash": "a", "fn_index": FN, "data": []}', JSON),
        (422, "POST", "/gradio_api/queue/join", '{"session_hash": "a", "fn_index": FN, "data": [null, null]}', JSON),
        (422, "POST", "/gradio_api/queue/join", '{"session_hash": "a", "fn_index": FN, "data": "x"}', JSON),
        (422, "POST", "/gradio_api/queue/join", '{"session_hash": "a", "fn_index": FN}', JSON),
        (422, "POST", "/gradio_api/upload", part("files", b"x", ""), FORM),
        (422, "POST", "/gradio_api/upload", part("files", b"x"), FORM),
        (422, "POST", "/gradio_api/upload", part("other", b"x", "a.png"), FORM),
        (400, "POST", "/gradio_api/upload", b"x", FORM),
        (404, "GET", "/gradio_api/nothing", None, {}),
        (422, "POST", "/gradio_api/run/predict", "{}", JSON),
        (404, "POST", "/gradio_api/run/predict", '{"session_hash": "a", "fn_index": FN, "data": [null]}', JSON),
        (404, "POST", "/gradio_api/call/predict", "{}", JSON),
        (
            422,
            "POST",
            "/gradio_api/queue/join",
            '{"session_hash": "%s", "fn_index": FN, "data": [null]}' % ("x" * 65),
            JSON,
        ),
        (422, "POST", "/gradio_api/queue/join", '{"session_hash": "", "fn_index": FN, "data": [null]}', JSON),
        (400, "POST", "/gradio_api/queue/join", '{"session_hash": "\\ud800", "fn_index": FN, "data": [null]}', JSON),
        (400, "POST", "/gradio_api/queue/join", DEEP, JSON),
        (422, "POST", "/gradio_api/queue/join", MANY, JSON),
        (400, "POST", "/gradio_api/cancel", "{bad", JSON),
        (422, "POST", "/gradio_api/cancel", "[NaN]", JSON),
        (422, "POST", "/gradio_api/cancel", '{"session_hash": "a", "fn_index": NaN, "event_id": "b"}', JSON),
        (422, "POST", "/gradio_api/cancel", '{"session_hash": "a", "fn_index": true, "event_id": "b"}', JSON),
        (400, "POST", "/gradio_api/cancel", '{"session_hash": "a", "fn_index": 1, "event_id": "\\ud800"}', JSON),
        (400, "POST", "/v1/predict", '{"images": %s}' % ("9" * 5000), JSON),
        (422, "POST", "/v1/predict", '{"images": [NaN]}', JSON),
        (422, "POST", "/v1/predict", '{"images": ["\\ud800"]}', JSON),
        (422, "POST", "/v1/predict", '{"images": [%s""]}' % ('"AAAA", ' * 100_000), JSON),
        (404, "POST", "/login", "username=a&password=b", FORM),
        (404, "GET", "/logout", None, {}),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_14_a_malformed_request_is_a_4xx_that_says_why(server, status, method, path, body, headers):
    if isinstance(body, str) and "FN" in body:
        body = body.replace("FN", str(function_index(server.port)))
    answered, _, said = ask(server.port, method, path, body, headers)
    assert answered == status, said
    assert set(json.loads(said)) == {"error", "fix"}
    assert b"Traceback" not in said


def test_14_values_that_a_function_cannot_take_are_refused_before_it_runs(server, photo):
    file, tried = {"path": stored(server.port, "a.png", photo)}, 0
    kinds = {one["id"]: one["type"] for one in json.loads(ask(server.port, "GET", "/config")[2])["components"]}
    good = {"image": file, "file": file, "number": 0}
    wrong = {
        "image": [[], [file], 1, "x", {}],
        "file": [[file], [1], 1, "x", {}],
        "number": [None, [], "", -1, 1.5, True],
    }
    for function in functions(server.port):
        path = "/gradio_api/queue/join" if function["queue"] is not False else "/gradio_api/run/predict"
        inputs = [kinds[one] for one in function["inputs"]]
        for place, value in ((place, value) for place, kind in enumerate(inputs) for value in wrong[kind]):
            data = [value if place == number else good[kind] for number, kind in enumerate(inputs)]
            event = {"fn_index": function["id"], "session_hash": "a", "data": data}
            status, _, said = ask(server.port, "POST", path, json.dumps(event), JSON)
            assert status == 422, (function["api_name"], value, said)
            tried += 1
        if not function["backend_fn"]:
            event = {"fn_index": function["id"], "session_hash": "a", "data": []}
            assert ask(server.port, "POST", path, json.dumps(event), JSON)[0] == 404
            tried += 1
    assert tried >= 21


def test_14_a_program_that_sends_no_image_is_told_so(server, caplog):
    done = outcome(server.port, function_index(server.port), [None], "none")
    assert not done["success"]
    assert done["output"]["error"] == "no image was given"
    assert not [one for one in caplog.records if one.name == "kit.serve"]


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.js", "a.xml", "a", "a.png.html", "a.pdf"])
def test_15_an_upload_that_a_browser_could_run_comes_back_as_a_download(server, name):
    path = stored(server.port, name, b"<svg onload=alert(1)><script>alert(1)</script>")
    status, headers, _ = ask(server.port, "GET", f"/gradio_api/file={path}")
    assert status == 200
    assert headers["content-disposition"].startswith("attachment")
    assert headers["content-type"] == "application/octet-stream"
    assert headers["x-content-type-options"] == "nosniff"
    assert "no-store" in headers["cache-control"]


@pytest.mark.parametrize(
    "name, kept",
    [
        ("../../a.png", "a.png"),
        ("..\\a.png", ".._a.png"),
        ("/etc/a.png", "a.png"),
        (".bashrc", "bashrc"),
        ("..", "file"),
        ("...", "file"),
        ("photo", "photo"),
        ("x" * 400 + ".png", "x" * 120 + ".png"),
        ("猫" * 200 + ".jpeg", "猫" * 40 + ".jpeg"),
        ("x." + "猫" * 200, "x.猫猫猫"),
        ("ü ß.png", "ü ß.png"),
        ("=1+1.png", "_1_1.png"),
        ("a\u202egnp.exe", "a_gnp.exe"),
    ],
)
def test_15_an_upload_is_stored_under_a_name_that_leads_nowhere(server, name, kept):
    status, _, said = upload(server.port, name, b"x")
    assert status == 200
    path = Path(json.loads(said)[0])
    assert path.parent.parent == server.cache
    assert path.name == kept.lstrip(".")
    assert path.is_file()


@pytest.mark.parametrize("path", ["/v1/predict", "/gradio_api/upload", "/gradio_api/queue/join", "/", "/config"])
@pytest.mark.parametrize(
    "status, headers",
    [
        (403, {"Origin": "https://evil.example"}),
        (403, {"Origin": "null"}),
        (403, {"Origin": "http://127.0.0.1:1"}),
        (403, {"Origin": "http://[::1"}),
        (403, {"Origin": "x" * 5000}),
        (403, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}),
        (421, {"Host": "evil.example", "X-Forwarded-Host": "127.0.0.1"}),
        (421, {"Host": "evil.example"}),
        (421, {"Host": "127.0.0.1.evil.example:7860"}),
        (421, {"Host": ""}),
    ],
)
def test_16_another_origin_and_a_foreign_host_are_refused(server, path, status, headers):
    method = "GET" if path in ("/", "/config") else "POST"
    answered, said, _ = ask(server.port, method, path, "x", headers)
    assert answered == status
    assert "access-control-allow-origin" not in said


def test_16_the_servers_own_page_may_post(server, photo):
    assert good(server.port, photo, Origin=f"http://127.0.0.1:{server.port}")


def test_17_of_fifty_at_once_twelve_are_served_and_the_rest_told_at_once(predictor, photo):
    held = Held(predictor)
    with served(held.predictor) as server, ThreadPoolExecutor(50) as pool, held:
        headers = {"Content-Type": "image/png"}
        jobs = [pool.submit(ask, server.port, "POST", "/v1/predict", photo, headers) for _ in range(50)]
        until(lambda: sum(job.done() for job in jobs) == 38)
        refused = [job.result() for job in jobs if job.done()]
        assert {status for status, *_ in refused} == {503}
        assert all("retry-after" in said for _, said, _ in refused)
        held.release.set()
        assert sorted(job.result()[0] for job in jobs) == [200] * 12 + [503] * 38
        assert good(server.port, photo)


def test_17_a_client_that_was_refused_is_served_on_the_same_connection_a_little_later(predictor, photo, monkeypatch):
    monkeypatch.setattr(middleware, "PAUSE_SECONDS", 0.1)
    held = Held(predictor)
    with served(held.predictor, metrics=True, concurrency=1) as server, held:
        waiting = [begin(server.port, photo) for _ in range(11)]
        until(lambda: inside(server.port) == 11)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        for refused in (503, 503, 200):
            if refused == 200:
                held.release.set()
                until(lambda: inside(server.port) == 0)
            connection.request("POST", "/v1/predict", photo, IMAGE)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == refused
            assert connection.sock is not None, "the connection was closed"
        for one in (*waiting, connection):
            one.close()


def test_17_the_pages_queue_is_as_short(predictor, photo):
    held = Held(predictor)
    with served(held.predictor) as server, held:
        path = stored(server.port, "a.png", photo)
        answers = [join(server.port, [{"path": path}], session_hash=f"s{number}") for number in range(50)]
        assert [status for status, *_ in answers] == [200] * 12 + [503] * 38
        assert "retry-after" in answers[-1][1]
        held.release.set()
        assert all('"label":' in hears(server.port, f"s{number}") for number in range(12))
        assert good(server.port, photo)


@pytest.mark.parametrize("workers", [1, 2])
def test_17_page_and_api_share_one_limit(predictor, photo, workers):
    held, users = Held(predictor), 50
    with served(held.predictor, concurrency=workers) as server, ThreadPoolExecutor(users) as pool, held:
        path, classify = stored(server.port, "a.png", photo), image_functions(server.port)

        def come(number):
            if number % 3 == 0:
                return ask(server.port, "POST", "/v1/predict", photo, IMAGE)[0]
            return call(server.port, classify[number % 3 - 1], [{"path": path}], f"s{number}")[0]

        jobs = [pool.submit(come, number) for number in range(users)]
        until(lambda: [job.result() for job in jobs if job.done()].count(503) == users - workers - 10)
        until(lambda: held.working == workers)
        held.release.set()
        answers = [job.result() for job in jobs]
        assert sorted(answers) == [200] * (workers + 10) + [503] * (users - workers - 10)
        for number in range(users):
            if number % 3 == 2 and answers[number] == 200:
                (done,) = (one for one in messages(hears(server.port, f"s{number}")) if "completed" in one["msg"])
                assert done["success"]
        assert held.most == workers
        assert good(server.port, photo)


STALLS = {
    "body": b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: 9999\r\n\r\nx",
    "form": b"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n3\r\n--x\r\n",
    "head": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    "nothing": b"",
}


def stall(port, count) -> list[socket.socket]:
    """Clients that begin to ask, and then are silent. None of them waits longer than 15 s for an answer."""
    stalled = []
    for number in range(count):
        connection = socket.create_connection(("127.0.0.1", port), timeout=15)
        connection.sendall(list(STALLS.values())[number % len(STALLS)])
        stalled.append(connection)
    return stalled


def are_closed(connections) -> bool:
    """Whether the server closes each: a client that waits in vain raises TimeoutError."""
    for connection in connections:
        while connection.recv(65536):
            pass
        connection.close()
    return True


def test_18_three_hundred_that_stall_are_let_go_while_others_are_served(predictor, photo, monkeypatch):
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.5)
    with served(predictor) as server:
        stalled = stall(server.port, 300)
        assert good(server.port, photo)
        assert are_closed(stalled)
        assert good(server.port, photo)


@pytest.mark.slow
def test_18_with_the_settings_as_they_are_they_are_closed_within_15_seconds(predictor, photo):
    with served(predictor, patience=Settings().patience) as server:
        stalled = stall(server.port, 300)
        assert good(server.port, photo)
        assert are_closed(stalled)
        assert good(server.port, photo)


def test_18_clients_that_ask_and_never_read_the_answer_are_cut_off(predictor, photo, monkeypatch):
    monkeypatch.setattr(http_server, "UNREAD_SECONDS", 0.5)
    with served(predictor) as server:
        path = stored(server.port, "a.txt", bytes(LIMIT - 1000))
        silent = []
        for _ in range(20):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", server.port))
            head = f"GET /gradio_api/file={path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
            connection.sendall(head * 20)
            silent.append(connection)
        until(lambda: not server.process.server_state.connections)
        assert good(server.port, photo)
        for connection in silent:
            connection.close()


def test_18_more_connections_than_the_server_holds_are_closed_at_once(predictor, photo, monkeypatch):
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 20)
    monkeypatch.setattr(http_server, "SPARE", 10)
    with served(predictor) as server:
        held = [socket.create_connection(("127.0.0.1", server.port), timeout=15) for _ in range(30)]
        until(lambda: len(server.process.server_state.connections) == 30)
        late = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        with late, suppress(ConnectionResetError):
            assert late.recv(1) == b""
        assert len(server.process.server_state.connections) == 30
        for connection in held:
            connection.close()
        until(lambda: not server.process.server_state.connections)
        assert good(server.port, photo)


def test_18_the_pages_streams_may_not_take_all_connections(predictor, photo, monkeypatch):
    monkeypatch.setattr(gradio_internals, "MAX_STREAMS", 5)
    with served(predictor) as server:
        beat = b"GET /gradio_api/heartbeat/s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        hearts = []
        for _ in range(5):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=15)
            connection.sendall(beat)
            assert connection.recv(12) == b"HTTP/1.1 200"
            hearts.append(connection)
        assert ask(server.port, "GET", "/gradio_api/heartbeat/t")[0] == 503
        assert ask(server.port, "GET", "/gradio_api/queue/data?session_hash=t")[0] == 503
        assert good(server.port, photo)
        hearts.pop().close()
        until(lambda: ask(server.port, "GET", "/gradio_api/queue/data?session_hash=t")[0] == 200)
        for connection in hearts:
            connection.close()


def test_19_the_jobs_of_clients_that_leave_are_dropped(predictor, photo, caplog):
    held = Held(predictor)
    with served(held.predictor, concurrency=1, metrics=True) as server, held:
        running = begin(server.port, photo)
        assert held.started.acquire(timeout=15)
        waiting = [begin(server.port, photo) for _ in range(5)]
        until(lambda: inside(server.port) == 6)
        for connection in waiting:
            connection.close()
        until(lambda: inside(server.port) == 1)
        running.close()
        until(lambda: inside(server.port) == 0)
        held.release.set()
        assert good(server.port, photo)
        assert held.started.acquire(timeout=15)
        assert not held.started.acquire(blocking=False), "a job of a client that had left was run"
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_19_the_events_of_visitors_who_leave_are_dropped(predictor, photo):
    held = Held(predictor)
    with served(held.predictor, concurrency=1, metrics=True) as server, held:
        path = stored(server.port, "a.png", photo)
        assert join(server.port, [{"path": path}], session_hash="stays")[0] == 200
        assert held.started.acquire(timeout=15)
        leaving = []
        for number in range(5):
            assert join(server.port, [{"path": path}], session_hash=f"leaves{number}")[0] == 200
            leaving.append(listen(server.port, f"leaves{number}"))
        assert inside(server.port) == 6
        for connection in leaving:
            connection.close()
        until(lambda: inside(server.port) == 1)
        held.release.set()
        assert '"label":' in hears(server.port, "stays")
        assert not held.started.acquire(blocking=False), "an event of a visitor who had left was run"
        assert good(server.port, photo)


@pytest.mark.slow
def test_13_20_22_in_a_process_memory_stays_flat_and_a_stop_drops_nobody(run, photo):
    with started(run.bundle, GRADIO_SHARE="1", GRADIO_MCP_SERVER="1", GRADIO_ALLOWED_PATHS="/") as (port, server):
        assert ask(port, "GET", "/gradio_api/file=/etc/passwd")[0] == 404
        assert good(port, photo)
        before = memory(server.pid)
        for _ in range(3):
            assert ask(port, "POST", "/v1/predict", pieces(60_000_000), JSON, encode_chunked=True)[0] == 413
        held = []
        for _ in range(60):
            held.append(begin(port, bytes(9_900_000), 9_899_999))
        assert memory(server.pid) - before < 250
        for connection in held:
            connection.close()
        slow = begin(port, photo, 100)
        server.send_signal(signal.SIGTERM)
        until(lambda: ask(port, "GET", "/v2/health/ready")[0] == 503)
        assert good(port, photo)
        until(lambda: not reachable(port))
        slow.sendall(photo[100:])
        assert slow.makefile("rb").readline().startswith(b"HTTP/1.1 200")
        assert server.wait(20) == 0


def test_20_an_event_of_the_page_that_runs_is_finished_before_the_server_stops(predictor, photo):
    held = Held(predictor)
    with served(held.predictor) as server, held:
        path = stored(server.port, "a.png", photo)
        assert join(server.port, [{"path": path}], session_hash="s")[0] == 200
        assert held.started.acquire(timeout=15)
        stream = listen(server.port, "s")
        server.process.handle_exit(signal.SIGTERM, None)
        assert ask(server.port, "GET", "/v2/health/ready")[0] == 503
        until(lambda: not reachable(server.port))
        held.release.set()
        heard = stream.makefile("rb").read().decode()
        assert '"label":' in heard
        assert "process_completed" in heard


def test_21_three_hundred_wrong_passwords_are_braked(predictor, photo):
    with served(predictor, auth="anna", password="right") as server:
        right = {"Authorization": "Basic " + base64.b64encode(b"anna:right").decode()}
        wrong = {"Authorization": "Basic " + base64.b64encode(b"anna:wrong").decode()}
        assert good(server.port, photo, **right)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        signed_in = ask(server.port, "POST", "/login", "username=anna&password=right", form)
        assert signed_in[0] == 200
        cookie = {"Cookie": signed_in[1]["set-cookie"].split(";")[0]}
        assert "httponly" in signed_in[1]["set-cookie"].lower()
        tries = [ask(server.port, "GET", "/v1/model", None, wrong)[0] for _ in range(150)]
        tries += [ask(server.port, "POST", "/login", "username=anna&password=wrong", form)[0] for _ in range(150)]
        assert tries == [401] * 10 + [429] * 290
        assert ask(server.port, "GET", "/v1/model", None, right)[0] == 200
        assert good(server.port, photo, **cookie)
        assert ask(server.port, "GET", "/")[0] == 401
        assert ask(server.port, "GET", "/config")[0] == 401


def test_51_uploads_are_gone_when_their_time_is_over(predictor, photo, monkeypatch):
    monkeypatch.setattr(webpage, "CACHE_SECONDS", 3)
    with served(predictor) as server:
        examples = set(server.cache.rglob("*.*"))
        for number in range(3):
            assert len(rows_of_many(server.port, stored(server.port, f"{number}.png", photo))) == 1
        kept = {path.suffix for path in set(server.cache.rglob("*.*")) - examples}
        assert kept == {".png"}
        until(lambda: set(server.cache.rglob("*.*")) <= examples)
        assert good(server.port, photo)


def test_51_gradio_looks_often_enough_that_nothing_is_kept_longer_than_an_hour(predictor):
    every, age = webpage.page(predictor).delete_cache
    assert age + 2 * every < webpage.CACHE_SECONDS == 3600


@pytest.mark.slow
def test_51_what_a_killed_server_left_is_removed_when_the_next_one_starts(run, photo, tmp_path):
    with started(run.bundle, TMPDIR=str(tmp_path)) as (port, server):
        left = Path(stored(port, "a.png", photo))
        with started(run.bundle, TMPDIR=str(tmp_path)) as (other, _):
            assert left.is_file(), "the first server runs"
            kept = Path(stored(other, "a.png", photo))
            server.kill()
            server.wait(30)
            assert left.is_file()
            with started(run.bundle, TMPDIR=str(tmp_path)):
                assert not left.exists()
                assert kept.is_file()
    assert not list(tmp_path.glob("kit-serve-*"))


CLOSED = [
    "/docs", "/redoc", "/openapi.json", "/v1/docs", "/v1/openapi.json", "/metrics", "/monitoring",
    "/monitoring/summary", "/pwa_icon", "/gradio_api/openapi.json", "/gradio_api/runs",
    "/gradio_api/run-history/records", "/gradio_api/mcp/", "/gradio_api/mcp/sse", "/gradio_api/mcp/schema",
    "/gradio_api/queue/status", "/gradio_api/vibe-code/", "/gradio_api/profiling/traces", "/gradio_api/token",
    "/gradio_api/dev/reload",
]  # fmt: skip


@pytest.mark.parametrize("path", CLOSED)
def test_22_what_nobody_asked_for_is_not_there(server, path):
    assert ask(server.port, "GET", path)[0] == 404


def test_22_asked_for_it_is_there(predictor):
    with served(predictor, metrics=True, docs=True) as server:
        assert ask(server.port, "GET", "/metrics")[0] == 200
        paths = json.loads(ask(server.port, "GET", "/v1/openapi.json")[2])["paths"]
        assert set(paths) == {"/v1/predict", "/v1/model", "/v2/health/live", "/v2/health/ready"}
        page = ask(server.port, "GET", "/v1/docs")[2].decode()
        files = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert len(files) == 3
        for file in files:
            status, _, said = ask(server.port, "GET", f"/v1/{file}")
            assert (status, len(said) > 500) == (200, True), file


@pytest.mark.parametrize("method, path, allowed", [
    ("GET", "/v1/predict", "POST"),
    ("POST", "/v1/model", "GET, HEAD"),
    ("POST", "/v2/health/live", "GET, HEAD"),
    ("GET", "/gradio_api/queue/join", "POST"),
])  # fmt: skip
def test_14_a_wrong_method_is_told_the_right_one(server, method, path, allowed):
    status, headers, said = ask(server.port, method, path)
    assert (status, headers["allow"]) == (405, allowed)
    assert json.loads(said) == {"error": f"{method} is not possible at {path}", "fix": f"use {allowed}"}


@pytest.mark.parametrize("path", ["/", "/v1/model", "/v2/health/ready", "/config"])
def test_14_head_is_answered_like_get_without_the_body(server, path):
    status, headers, said = ask(server.port, "HEAD", path)
    get = ask(server.port, "GET", path)
    assert (status, headers["content-type"], said) == (200, get[1]["content-type"], b"")


def test_23_an_error_inside_predict_is_a_number_and_nothing_else(predictor, photo, caplog):
    def broken(pixels):
        raise RuntimeError("/secret/place")

    with served(Predictor(predictor.config, broken, predictor.folder)) as server:
        status, _, said = ask(server.port, "POST", "/v1/predict", photo, {"Content-Type": "image/png"})
        assert status == 500
        assert "something went wrong (number " in json.loads(said)["error"]
        path = stored(server.port, "a.png", photo)
        for function in image_functions(server.port):
            heard = str(outcome(server.port, function, [{"path": path}], f"broken{function}"))
            assert "number " in heard
            assert "secret" not in heard
            assert "Traceback" not in heard
        assert b"secret" not in said
        assert ask(server.port, "GET", "/v1/model")[0] == 200


def test_23_a_bad_image_says_no_path(server):
    path = stored(server.port, "bad.png", b"no image")
    assert join(server.port, [{"path": path}], session_hash="bad")[0] == 200
    heard = hears(server.port, "bad")
    assert "not an image of the formats" in heard
    assert str(server.cache) not in heard.split('"output"')[1].replace(path, "")


PUBLIC = "https://abc123.gradio.live"


@pytest.fixture
def tunnel(monkeypatch):
    """Gradio's tunnel, without the network: what opens it may be set, and what it was asked for is remembered."""
    asked = []

    def setup(*given):
        asked.append(given)
        if isinstance(opened.answer, Exception):
            raise opened.answer
        return opened.answer

    opened = SimpleNamespace(answer=PUBLIC, asked=asked)
    monkeypatch.setattr("gradio.networking.setup_tunnel", setup)
    return opened


def share(server, **settings):
    """What `kit serve --share` does once the server listens."""
    settings = Settings(**{"share": True, "public": True} | settings)
    announce(f"http://127.0.0.1:{server.port}", 0.0, settings, server.hosts)


def test_share_allows_the_host_of_the_tunnel_once_it_is_open(predictor, photo, tunnel, capsys):
    with served(predictor) as server:
        named = {"Host": "abc123.gradio.live"}
        assert ask(server.port, "GET", "/v1/model", None, named)[0] == 421
        share(server)
        out, err = capsys.readouterr()
        local, public = out.splitlines()
        assert local.startswith(f"ready: http://127.0.0.1:{server.port} ")
        assert public == f"ready: {PUBLIC} (public)"
        assert err.startswith("note: --share downloads Gradio's tunnel program (frpc)")
        assert tunnel.asked[0][:2] == ("127.0.0.1", server.port)
        assert ask(server.port, "GET", "/v1/model", None, named)[0] == 200
        assert good(server.port, photo, Origin=PUBLIC, **named)
        assert ask(server.port, "GET", "/v1/model", None, {"Host": "other.gradio.live"})[0] == 421
        assert ask(server.port, "POST", "/v1/predict", photo, named | {"Origin": "https://evil.example"})[0] == 403
        assert json.loads(ask(server.port, "GET", "/config", None, named)[2])["root"] == PUBLIC
        assert good(server.port, photo)


@pytest.mark.parametrize(
    "answer, said",
    [
        (RuntimeError("Could not get share link from Gradio API Server."), "Could not get share link from Gradio API"),
        (ValueError("Could not create share URL.\nlog of frpc\nmore of it"), "Could not create share URL."),
        (OSError(), "OSError"),
        ("", "'' is no address"),
        (None, "None is no address"),
    ],
)
def test_share_that_fails_is_one_clear_line_and_the_local_address_goes_on(
    predictor, photo, tunnel, capsys, answer, said
):
    tunnel.answer = answer
    with served(predictor) as server:
        share(server)
        note, error = capsys.readouterr().err.splitlines()
        assert note.startswith("note: --share downloads")
        assert error.startswith(f"error: the public address could not be had: {said}")
        assert error.endswith("the local address goes on working")
        assert not server.hosts.tunnels
        assert good(server.port, photo)


def test_share_wants_a_login_or_the_word_that_it_is_meant_before_anything_is_loaded(run, monkeypatch):
    monkeypatch.setattr("kit.bundle.read.load", lambda *given, **options: pytest.fail("the bundle was loaded"))
    monkeypatch.delenv("KIT_PASSWORD", raising=False)
    with pytest.raises(KitError, match="--share opens this page to everybody") as caught:
        serve_command(run.bundle, share=True)
    assert "--auth USER, or --public" in caught.value.fix


@pytest.mark.slow
def test_a_server_whose_tunnel_is_still_being_opened_stops_at_once(run, photo):
    code = (
        "import threading, gradio.networking as n; n.setup_tunnel = lambda *given: threading.Event().wait();"
        f"from kit.serve import Settings, run; run({str(run.bundle)!r}, Settings(port=0, share=True, public=True))"
    )
    with started(run.bundle, code) as (port, server):
        assert good(port, photo)
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0


def test_the_login_cookie_is_for_https_only_where_the_visitor_came_by_https(predictor, photo, tunnel):
    with served(predictor, auth="anna", password="right", allow_host=("pets.example",)) as server:
        share(server)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        ways = {
            "plain": {},
            "the page itself": {"Origin": f"http://127.0.0.1:{server.port}"},
            "the tunnel": {"Host": "abc123.gradio.live"},
            "the tunnel's page": {"Host": "abc123.gradio.live", "Origin": PUBLIC},
            "a proxy's page": {"Host": "pets.example", "Origin": "https://pets.example"},
        }
        for way, headers in ways.items():
            status, said, _ = ask(server.port, "POST", "/login", "username=anna&password=right", form | headers)
            cookie = said["set-cookie"].lower()
            assert status == 200
            assert "httponly" in cookie
            assert "samesite=strict" in cookie
            assert ("secure" in cookie) == ("tunnel" in way or "proxy" in way), way
            session = {"Cookie": said["set-cookie"].split(";")[0]}
            assert good(server.port, photo, **session, **headers)
