"""What the tests of bad inputs share: a server on a free port of this machine, and the clients that talk to it."""

import csv
import html
import http.client
import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from kit.bundle.predictor import Predictor
from kit.serve.http_server import Server
from kit.serve.responses import State
from kit.serve.server import Settings, bind, build, private_cache

LIMIT = 1_000_000
BOUNDARY = "xyz"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
JSON = {"Content-Type": "application/json"}
IMAGE = {"Content-Type": "image/png"}


@contextmanager
def served(predictor, **settings):
    """A server in a thread of this process, on a free port."""
    settings = Settings(**{"port": 0, "max_upload": LIMIT, "patience": 1.0} | settings)
    state, ready, hosts = State(), threading.Event(), settings.hosts
    with bind("127.0.0.1", 0) as listener, private_cache() as cache:
        port = listener.getsockname()[1]
        app = build(predictor, settings, state, hosts, cache, port)
        server = Server(app, state, ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert ready.wait(30)
            gradio = app.app.router.default
            yield SimpleNamespace(
                port=port, cache=cache, state=state, hosts=hosts, process=server, gradio=gradio, bodies=app.bodies
            )
        finally:
            server.should_exit = True
            thread.join(30)
        assert not thread.is_alive()


@contextmanager
def started(folder, code="", **environment):
    """A server as a process of its own; its port, and the process."""
    code = code or f"from kit.serve import Settings, run; run({str(folder)!r}, Settings(port=0))"
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
    return ask(port, "POST", "/v1/predict", photo, IMAGE | headers)[0] == 200


def part(name, data, filename=None):
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def upload(port, name, data):
    return ask(port, "POST", "/gradio_api/upload", part("files", data, name), FORM)


def stored(port, name, data) -> str:
    """The path under which the page's upload keeps a file."""
    status, _, said = upload(port, name, data)
    assert status == 200, said
    return json.loads(said)[0]


def functions(port) -> list[dict]:
    return json.loads(ask(port, "GET", "/config")[2])["dependencies"]


def function_index(port) -> int:
    return next(one["id"] for one in functions(port) if one["api_name"] == "predict")


def image_functions(port) -> list[int]:
    """What the page and programs call with one image."""
    inputs = next(one["inputs"] for one in functions(port) if one["api_name"] == "predict")
    found = [one["id"] for one in functions(port) if one["inputs"] == inputs]
    assert len(found) == 2
    return found


def rows_of_many(port, path, session="many") -> list[dict]:
    """What the page gets for each image of an uploaded file or zip: its card, its line of the CSV file, its doubt."""
    (function,) = (one["id"] for one in functions(port) if one["api_name"] == "show_some")
    cards, start = [], 0
    while start is not None:
        done = outcome(port, function, [{"path": path}, start], session)
        assert done["success"], done
        (found,) = done["output"]["data"]
        cards += found["cards"]
        start = found["next"]
    assert len(cards) == found["total"]
    outcome(port, function, [None, 0], session)  # the next visitor's turn
    return cards


def table_of_many(port, paths, session="many") -> tuple[str, list[dict]]:
    """The cards of many files as the page shows them, and the rows of its CSV file."""
    cards = [card for path in paths for card in rows_of_many(port, path, session)]
    parts = [one["props"].get("value") for one in json.loads(ask(port, "GET", "/config")[2])["components"]]
    (head,) = re.findall(r'data-columns="(.*?)"', "".join(one for one in parts if isinstance(one, str)), re.DOTALL)
    lines = html.unescape(head) + "".join(card["line"] for card in cards)
    table = csv.DictReader(io.StringIO(lines))
    return "".join(card["html"] for card in cards), list(table)


def join(port, data, **fields):
    event = {"data": data, "session_hash": "abc"} | fields
    if "fn_index" not in event:
        event["fn_index"] = function_index(port)
    return ask(port, "POST", "/gradio_api/queue/join", json.dumps(event), JSON)


def listen(port, session) -> socket.socket:
    """The page's event stream, its first bytes read."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = f"GET /gradio_api/queue/data?session_hash={session} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    connection.sendall(head.encode())
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def hears(port, session) -> str:
    """All that the page's event stream says until its event is over."""
    return ask(port, "GET", f"/gradio_api/queue/data?session_hash={session}")[2].decode()


def messages(text) -> list[dict]:
    """The messages of an event stream."""
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def call(port, function, data, session) -> tuple:
    """Call a function as the page does: directly, or by the queue."""
    if next(one["queue"] for one in functions(port) if one["id"] == function) is not False:
        return join(port, data, fn_index=function, session_hash=session)
    event = {"fn_index": function, "data": data, "session_hash": session}
    return ask(port, "POST", "/gradio_api/run/predict", json.dumps(event), JSON)


def outcome(port, function, data, session):
    """What a function of the page gives in the end."""
    status, _, said = call(port, function, data, session)
    assert status == 200, said
    if b"event_id" not in said:
        return {"success": True, "output": json.loads(said)}
    (done,) = (one for one in messages(hears(port, session)) if one["msg"] == "process_completed")
    return done


class Held:
    """A predictor whose network waits, from when the `with` of it begins until it is released, at the latest when that
    ends. most: how many were in it at one time."""

    def __init__(self, predictor):
        self.release, self.started, self.holds = threading.Event(), threading.Semaphore(0), False
        self.predictor = Predictor(predictor.config, self.engine, predictor.folder)
        self.real, self.lock, self.working, self.most = predictor.engine, threading.Lock(), 0, 0

    def __enter__(self):
        self.holds = True
        return self

    def __exit__(self, *error):
        self.release.set()

    def engine(self, pixels):
        if not self.holds:  # an example, which is answered before the page is served
            return self.real(pixels)
        with self.lock:
            self.working += 1
            self.most = max(self.most, self.working)
        self.started.release()
        assert self.release.wait(30)
        with self.lock:
            self.working -= 1
        return self.real(pixels)


def inside(port) -> int:
    """How many requests and events the server has let in. It needs `metrics`."""
    lines = ask(port, "GET", "/metrics")[2].decode().splitlines()
    return int(next(line for line in lines if line.startswith("kit_requests_inside")).split()[1])


def until(happens, seconds=15):
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def reachable(port) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def begin(port, photo, count=None):
    """A client that has sent its request, or `count` bytes of its photo, and waits."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=15)
    head = "POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
    connection.sendall(f"{head}Content-Length: {len(photo)}\r\n\r\n".encode() + photo[:count])
    return connection
