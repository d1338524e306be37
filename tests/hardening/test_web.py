"""Bad inputs and faults of the page and the API, over real sockets: each test carries the number of its row.

After every one of them the next good request succeeds.
"""

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from kit import bundle
from kit.bundle.predictor import Predictor
from kit.serve import process
from kit.serve.reply import State
from kit.serve.server import Settings, bind, build, private_cache

LIMIT = 1_000_000
BOUNDARY = "xyz"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
JSON = {"Content-Type": "application/json"}


@contextmanager
def served(predictor, **settings):
    """A server in a thread of this process, on a free port."""
    settings = Settings(**{"port": 0, "max_upload": LIMIT, "patience": 1.0} | settings)
    state, ready = State(), threading.Event()
    with bind("127.0.0.1", 0) as listener, private_cache() as cache:
        port = listener.getsockname()[1]
        app = build(predictor, settings, state, settings.hosts, cache, port)
        server = process.Process(app, state, ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert ready.wait(30)
            yield SimpleNamespace(port=port, cache=cache, state=state)
        finally:
            server.should_exit = True
            thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def predictor(run):
    return bundle.load(run.bundle)


@pytest.fixture(scope="module")
def photo(shapes):
    return (shapes / "circle" / "00.png").read_bytes()


@pytest.fixture(scope="module")
def shared_server(predictor):
    with served(predictor) as server:
        yield server


@pytest.fixture
def server(shared_server, photo):
    yield shared_server
    assert good(shared_server.port, photo)


def ask(port, method, path, body=None, headers=None, **kwargs):
    """The status, the headers and the body of one answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers or {}, **kwargs)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def good(port, photo, **headers) -> bool:
    return ask(port, "POST", "/v1/predict", photo, {"Content-Type": "image/png"} | headers)[0] == 200


def part(name, data, filename=None):
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def upload(port, name, data):
    return ask(port, "POST", "/gradio_api/upload", part("files", data, name), FORM)


def function_index(port) -> int:
    config = json.loads(ask(port, "GET", "/config")[2])
    return next(one["id"] for one in config["dependencies"] if one["api_name"] == "predict")


def image_functions(port) -> list[int]:
    """What the page and programs call with one image."""
    functions = json.loads(ask(port, "GET", "/config")[2])["dependencies"]
    inputs = next(one["inputs"] for one in functions if one["api_name"] == "predict")
    found = [one["id"] for one in functions if one["inputs"] == inputs]
    assert len(found) == 2
    return found


def join(port, data, **fields):
    event = {"data": data, "fn_index": function_index(port), "session_hash": "abc"} | fields
    return ask(port, "POST", "/gradio_api/queue/join", json.dumps(event), JSON)


def hears(port, session):
    """All that the page's event stream says until its event is over."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", f"/gradio_api/queue/data?session_hash={session}")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


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
    stored = json.loads(upload(server.port, "a.png", photo)[2])[0]
    text = json.dumps(value).replace("CACHE", str(server.cache)).replace("GOOD", stored)
    status, _, body = join(server.port, [json.loads(text)])
    assert status == 422, body
    assert b"error" in body


def test_12_an_upload_itself_is_predicted(server, photo):
    stored = json.loads(upload(server.port, "a.png", photo)[2])[0]
    url = f"http://127.0.0.1:{server.port}/gradio_api/file={stored}"
    assert join(server.port, [{"path": stored, "url": url}], session_hash="s12")[0] == 200
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


@pytest.mark.parametrize(
    "status, method, path, body, headers",
    [
        (400, "POST", "/v1/predict", "{bad", JSON),
        (422, "POST", "/v1/predict", "{}", JSON),
        (415, "POST", "/v1/predict", "x", {"Content-Type": "text/plain"}),
        (422, "POST", "/v1/predict", part("image", b"x", ""), FORM),
        (404, "GET", "/v1/predict", None, {}),
        (404, "GET", "/v1/nothing", None, {}),
        (404, "POST", "/nothing", "x", {}),
        (400, "POST", "/gradio_api/queue/join", "{bad", JSON),
        (400, "POST", "/gradio_api/queue/join", b"\xff\xfe", JSON),
        (422, "POST", "/gradio_api/queue/join", "[]", JSON),
        (422, "POST", "/gradio_api/queue/join", '{"session_hash": 1}', JSON),
        (404, "POST", "/gradio_api/queue/join", '{"session_hash": "a", "fn_index": 999, "data": []}', JSON),
        (404, "POST", "/gradio_api/queue/join", '{"session_hash": "a", "fn_index": "0", "data": []}', JSON),
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
    ],
)
def test_14_a_malformed_request_is_a_4xx_that_says_why(server, status, method, path, body, headers):
    if isinstance(body, str) and "FN" in body:
        body = body.replace("FN", str(function_index(server.port)))
    answered, _, said = ask(server.port, method, path, body, headers)
    assert answered == status, said
    assert b"rror" in said or b"Not Found" in said
    assert b"Traceback" not in said


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.js", "a.xml", "a", "a.png.html", "a.pdf"])
def test_15_an_upload_that_a_browser_could_run_comes_back_as_a_download(server, name):
    stored = json.loads(upload(server.port, name, b"<svg onload=alert(1)><script>alert(1)</script>")[2])[0]
    status, headers, _ = ask(server.port, "GET", f"/gradio_api/file={stored}")
    assert status == 200
    assert headers["content-disposition"].startswith("attachment")
    assert headers["content-type"] == "application/octet-stream"
    assert headers["x-content-type-options"] == "nosniff"
    assert "no-store" in headers["cache-control"]


@pytest.mark.parametrize(
    "name", ["../../a.png", "..\\a.png", "/etc/a.png", ".bashrc", "a\0.png", "x" * 400 + ".png", "ü ß.png"]
)
def test_15_an_upload_is_stored_under_a_name_that_leads_nowhere(server, name):
    status, _, said = upload(server.port, name.encode().decode("latin-1"), b"x")
    assert status in (200, 400, 422)
    if status == 200:
        stored = Path(json.loads(said)[0])
        assert stored.parent.parent == server.cache
        assert stored.is_file()


@pytest.mark.parametrize("path", ["/v1/predict", "/gradio_api/upload", "/gradio_api/queue/join", "/", "/config"])
@pytest.mark.parametrize(
    "status, headers",
    [
        (403, {"Origin": "https://evil.example"}),
        (403, {"Origin": "null"}),
        (403, {"Origin": "http://127.0.0.1:1"}),
        (403, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}),
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


class Held:
    """A predictor whose network waits until it is released."""

    def __init__(self, predictor):
        self.release, self.started = threading.Event(), threading.Semaphore(0)
        self.predictor = Predictor(predictor.config, self.engine, predictor.folder)
        self.real = predictor.engine

    def engine(self, pixels):
        self.started.release()
        assert self.release.wait(30)
        return self.real(pixels)


def inside(port) -> int:
    lines = ask(port, "GET", "/metrics")[2].decode().splitlines()
    return int(next(line for line in lines if line.startswith("kit_requests_inside")).split()[1])


def until(happens, seconds=15):
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_17_of_fifty_at_once_twelve_are_served_and_the_rest_told_at_once(predictor, photo):
    held = Held(predictor)
    with served(held.predictor) as server, ThreadPoolExecutor(50) as pool:
        headers = {"Content-Type": "image/png"}
        jobs = [pool.submit(ask, server.port, "POST", "/v1/predict", photo, headers) for _ in range(50)]
        until(lambda: sum(job.done() for job in jobs) == 38)
        refused = [job.result() for job in jobs if job.done()]
        assert {status for status, *_ in refused} == {503}
        assert all("retry-after" in said for _, said, _ in refused)
        held.release.set()
        assert sorted(job.result()[0] for job in jobs) == [200] * 12 + [503] * 38
        assert good(server.port, photo)


def test_17_the_pages_queue_is_as_short(predictor, photo):
    held = Held(predictor)
    with served(held.predictor) as server:
        stored = json.loads(upload(server.port, "a.png", photo)[2])[0]
        answers = [join(server.port, [{"path": stored}], session_hash=f"s{number}")[0] for number in range(50)]
        assert 10 <= answers.count(200) <= 12
        assert answers.count(200) + answers.count(503) == 50
        held.release.set()
        assert '"label":' in hears(server.port, "s0")
        assert good(server.port, photo)


STALLS = {
    "body": b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: 9999\r\n\r\nx",
    "form": b"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n3\r\n--x\r\n",
    "head": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    "nothing": b"",
}


def test_18_three_hundred_that_stall_are_let_go_while_others_are_served(predictor, photo, monkeypatch):
    monkeypatch.setattr(process, "HEADER_SECONDS", 1.0)
    with served(predictor) as server:
        stalled = []
        for number in range(300):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=15)
            connection.sendall(list(STALLS.values())[number % len(STALLS)])
            stalled.append(connection)
        assert good(server.port, photo)
        for connection in stalled:
            while connection.recv(65536):
                pass
            connection.close()
        assert good(server.port, photo)


def begin(port, photo, count=None):
    """A client that has sent its request, or `count` bytes of its photo, and waits."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=15)
    head = "POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
    connection.sendall(f"{head}Content-Length: {len(photo)}\r\n\r\n".encode() + photo[:count])
    return connection


def test_19_the_jobs_of_clients_that_leave_are_dropped(predictor, photo):
    held = Held(predictor)
    with served(held.predictor, concurrency=1, metrics=True) as server:
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


@contextmanager
def started(folder, **environment):
    """A server as a process of its own; its port, and the process."""
    code = f"from kit.serve import Settings, run; run({str(folder)!r}, Settings(port=0))"
    command = [sys.executable, "-c", code]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | environment
    )
    try:
        line = server.stdout.readline()
        assert line.startswith("ready: http://127.0.0.1:"), line
        yield int(line.split(":")[3].split()[0]), server
    finally:
        server.terminate()
        server.wait(30)


def memory(pid) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) / 1000


def test_13_20_22_in_a_process_memory_stays_flat_and_a_stop_drops_nobody(run, photo):
    with started(run.bundle, GRADIO_SHARE="1", GRADIO_MCP_SERVER="1", GRADIO_ALLOWED_PATHS="/") as (port, server):
        assert ask(port, "GET", "/gradio_api/file=/etc/passwd")[0] == 404
        assert good(port, photo)
        before = memory(server.pid)
        for _ in range(3):
            assert ask(port, "POST", "/v1/predict", pieces(60_000_000), JSON, encode_chunked=True)[0] == 413
        assert memory(server.pid) - before < 40
        slow = begin(port, photo, 100)
        server.send_signal(signal.SIGTERM)
        until(lambda: ask(port, "GET", "/v2/health/ready")[0] == 503)
        assert good(port, photo)
        until(lambda: not reachable(port))
        slow.sendall(photo[100:])
        assert slow.makefile("rb").readline().startswith(b"HTTP/1.1 200")
        assert server.wait(20) == 0


def reachable(port) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


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
        tries += [ask(server.port, "POST", "/login", "username=anna&password=x", form)[0] for _ in range(150)]
        assert tries == [401] * 10 + [429] * 290
        assert ask(server.port, "GET", "/v1/model", None, right)[0] == 429
        assert good(server.port, photo, **cookie)
        assert ask(server.port, "GET", "/")[0] == 401
        assert ask(server.port, "GET", "/config")[0] == 401


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


def test_23_an_error_inside_predict_is_a_number_and_nothing_else(predictor, photo, caplog):
    def broken(pixels):
        raise RuntimeError("/secret/place")

    with served(Predictor(predictor.config, broken, predictor.folder)) as server:
        status, _, said = ask(server.port, "POST", "/v1/predict", photo, {"Content-Type": "image/png"})
        assert status == 500
        assert "something went wrong (number " in json.loads(said)["error"]
        stored = json.loads(upload(server.port, "a.png", photo)[2])[0]
        for function in image_functions(server.port):
            session = f"broken{function}"
            assert join(server.port, [{"path": stored}], fn_index=function, session_hash=session)[0] == 200
            heard = hears(server.port, session)
            assert "number " in heard
            assert "secret" not in heard
            assert "Traceback" not in heard
        assert b"secret" not in said
        assert ask(server.port, "GET", "/v1/model")[0] == 200


def test_23_a_bad_image_says_no_path(server):
    stored = json.loads(upload(server.port, "bad.png", b"no image")[2])[0]
    assert join(server.port, [{"path": stored}], session_hash="bad")[0] == 200
    heard = hears(server.port, "bad")
    assert "not an image of the formats" in heard
    assert str(server.cache) not in heard.split('"output"')[1].replace(stored, "")
