"""What was found by trying to break a running server: odd zips, names, classes, headers, methods, and broken requests.

After every one of them the next good request succeeds.
"""

import io
import json
import random
import socket
import zipfile

import pytest
from over_sockets import (
    BOUNDARY,
    FORM,
    IMAGE,
    JSON,
    ask,
    functions,
    good,
    hears,
    image_functions,
    join,
    messages,
    outcome,
    served,
    stored,
    table_of_many,
    until,
)

from kit.bundle.predictor import Predictor
from kit.serve import gradio_internals


def zip_of(*members) -> bytes:
    """A zip of names with bytes; a name may also be a ZipInfo."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


def test_many_files_with_everything_wrong_are_rows_with_their_reasons(server, photo):
    inner = zip_of(("a.png", photo))
    out = "its path leads out of the zip"
    no_image = "not an image by its name"
    members = [
        ("good.png", photo, ""),
        ("inner.zip", inner, no_image),
        ("a.svg", b"<svg/>", no_image),
        ("../out.png", photo, out),
        ("/etc/out.png", photo, out),
        ("C:\\out.png", photo, out),
        (link("link.png"), b"/etc/passwd", "a link, not a file"),
        ("bomb.png", bytes(60_000_000), "unpacks to more than 50,000,000 bytes"),
        ("empty.png", b"", "the file is empty"),
        ("=HYPERLINK(1).png", photo, ""),
        ("<img src=x onerror=alert(1)>.png", photo, ""),
        ("猫 \u202e👍.png", photo, ""),
        ("x" * 3000 + ".png", photo, ""),
        ("deep/" * 50 + "a.png", photo, ""),
    ]
    data = zip_of(*((name, data) for name, data, _ in members))
    bad = zip_of(("a.png", photo)).replace(photo[:20], b"x" * 20)
    paths = [stored(server.port, name, data) for name, data in (("a.zip", data), ("b.zip", bad), ("c.zip", b"no zip"))]
    seen, rows = table_of_many(server.port, paths, "wrong")
    errors = [row["error"] for row in rows]
    assert [bool(reason) for *_, reason in members] == [bool(error) for error in errors[:-2]]
    assert all(error.startswith(reason) for (*_, reason), error in zip(members, errors[:-2], strict=True))
    assert errors[-1] == "not a zip, or a damaged one"
    assert rows[9]["path"] == "'=HYPERLINK(1).png"
    assert "<img src=x" not in seen
    assert "/etc/passwd" not in seen


def test_a_thousand_files_of_one_byte_are_a_thousand_rows(server):
    data = zip_of(*((f"{number}.png", b"x") for number in range(1000)))
    _, rows = table_of_many(server.port, [stored(server.port, "small.zip", data)], "small")
    assert len(rows) == 1000
    assert all(row["error"].startswith("not an image of the formats") for row in rows)


def renamed(value, names):
    """A bundle's config whose classes have other names."""
    if isinstance(value, dict):
        return {names.get(key, key): renamed(one, names) for key, one in value.items()}
    if isinstance(value, list):
        return [renamed(one, names) for one in value]
    return names.get(value, value) if isinstance(value, str) else value


@pytest.mark.parametrize(
    "names",
    [
        ["x" * 5000, "猫" * 700, "a"],
        ["<script>alert(1)</script>", "=1+1", '"&quot;'],
        ["two\nlines", "\u202eright to left\u202c", "👩‍👩‍👧‍👦"],
        [" ", "../../etc/passwd", "{{7*7}} ${7*7} %s"],
    ],
    ids=["long", "code", "signs", "blank"],
)
def test_classes_of_any_name_are_served_as_they_are_called(predictor, photo, names):
    config = renamed(predictor.config, dict(zip(predictor.vocab, names, strict=True)))
    odd = Predictor(config, predictor.engine, predictor.folder)
    with served(odd) as server:
        said = json.loads(ask(server.port, "POST", "/v1/predict", photo, IMAGE)[2])["predictions"][0]
        assert set(said["probabilities"]) == set(names)
        assert json.loads(ask(server.port, "GET", "/v1/model")[2])["classes"] == names
        path = stored(server.port, "a.png", photo)
        for function in image_functions(server.port):
            done = outcome(server.port, function, [{"path": path}], f"s{function}")
            assert done["success"]
            assert "<script>alert" not in str(done["output"]["data"]) or function != image_functions(server.port)[0]
        seen, (row,) = table_of_many(server.port, [path], "many")
        assert row["prediction"].lstrip("'") in names
        assert "<script>alert" not in seen
        status, _, page = ask(server.port, "GET", "/")
        assert status == 200
        assert b"<script>alert" not in page


MALFORMED = {
    "a chunk of no size": b"zz\r\nabc\r\n0\r\n\r\n",
    "a chunk of less than nothing": b"-5\r\nabc\r\n0\r\n\r\n",
    "a chunk that is cut off": b"ff\r\nabc",
    "bytes behind the end": b"0\r\n\r\nabc",
}


@pytest.mark.parametrize("what", MALFORMED)
@pytest.mark.parametrize("path", ["/v1/predict", "/gradio_api/upload", "/gradio_api/queue/join"])
def test_chunks_that_are_malformed_or_cut_off_are_refused_and_fill_no_log(server, what, path, caplog):
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as connection:
        connection.sendall(head.encode() + MALFORMED[what])
        answer = connection.makefile("rb").readline()
    assert answer.startswith(b"HTTP/1.1 4")
    assert "Traceback" not in caplog.text
    assert not [one for one in caplog.records if one.name == "kit.serve"]


@pytest.mark.parametrize(
    "status, path, headers",
    [
        (421, "/v1/predict", {"Host": "evil.example"}),
        (403, "/v1/predict", {"Origin": "https://evil.example"}),
        (401, "/nothing", {}),
        (401, "/gradio_api/upload", {}),
        (401, "/v1/predict", {}),
    ],
)
def test_who_is_refused_amid_a_large_upload_still_hears_why(predictor, status, path, headers):
    with served(predictor, auth="anna", password="right", max_upload=50_000_000) as server:
        answered, _, said = ask(server.port, "POST", path, bytes(40_000_000), IMAGE | headers)
        assert answered == status
        assert b"error" in said


def test_a_client_that_leaves_amid_its_upload_fills_no_log(predictor, photo, caplog):
    with served(predictor, metrics=True) as server:
        for path in ("/v1/predict", "/gradio_api/upload", "/gradio_api/queue/join"):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=15)
            head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n"
            connection.sendall(head.encode() + b"x")
            connection.close()
        until(lambda: not server.process.server_state.connections)
        assert good(server.port, photo)
    assert not [one for one in caplog.records if one.name == "kit.serve"]


def test_a_stream_for_an_unknown_session_ends_at_once_and_says_so(server, caplog):
    for query in ("session_hash=nobody", "session_hash=", "", "session_hash=%ff", "session_hash=a&session_hash=b"):
        status, said, body = ask(server.port, "GET", f"/gradio_api/queue/data?{query}")
        assert status == 200
        assert said["content-type"].startswith("text/event-stream")
        (message,) = messages(body.decode())
        assert message["session_not_found"]
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


@pytest.mark.parametrize(
    "method", ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND", "X" * 500]
)
@pytest.mark.parametrize("path", ["/", "/v1/model", "/v1/predict", "/gradio_api/queue/join", "/v2/health/ready", "*"])
def test_other_methods_are_refused_or_answered_and_never_fail(server, method, path):
    status, said, _ = ask(server.port, method, path)
    assert status in ((200, 404, 405) if method == "HEAD" else (404, 405))
    assert said["x-content-type-options"] == "nosniff"


def test_the_health_of_the_server_may_be_asked_by_head(server):
    for name in ("live", "ready"):
        assert ask(server.port, "HEAD", f"/v2/health/{name}")[0] == 200


@pytest.mark.parametrize(
    "status, lines",
    [
        (200, ["Host: 127.0.0.1", *(f"X-{number}: y" for number in range(2000))]),
        (400, ["Host: 127.0.0.1", "Host: 127.0.0.1"]),
        (400, []),
        (421, ["Host: evil.example", "X-Forwarded-Host: 127.0.0.1", "X-Gradio-Server: http://127.0.0.1"]),
        (421, ["Host: 127.0.0.1", "X-Forwarded-Host: [::1", "X-Gradio-Server: http://["]),
        (200, ["Host: 127.0.0.1", "Cookie: " + "a=b; " * 5000]),
        (400, ["Host: 127.0.0.1", "Content-Length: -1"]),
        (400, ["Host: 127.0.0.1", "Transfer-Encoding: gzip, chunked"]),
        (403, ["Host: 127.0.0.1", "Origin: http://[::1"]),
    ],
    ids=lambda value: ascii(value)[:40],
)
@pytest.mark.parametrize("path", ["/v1/model", "/config"])
def test_headers_of_any_kind_and_number_are_borne(server, status, lines, path):
    request = "\r\n".join([f"GET {path} HTTP/1.1", *lines, "Connection: close", "", ""])
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as connection:
        connection.sendall(request.encode())
        assert connection.makefile("rb").readline().split()[1] == str(status).encode()


def test_requests_that_come_at_once_on_one_connection_are_answered_in_turn(server, photo):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        head = (
            f"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: {len(photo)}"
        )
        connection.sendall((head.encode() + b"\r\n\r\n" + photo) * 19)
        connection.sendall(head.encode() + b"\r\nConnection: close\r\n\r\n" + photo)
        answers = connection.makefile("rb").read()
    assert answers.count(b"HTTP/1.1 200 OK") == 20
    assert answers.count(b'"label":') == 20


def test_visitors_who_never_fetch_their_answer_are_forgotten(predictor, photo, monkeypatch):
    monkeypatch.setattr(gradio_internals, "MAX_SESSIONS", 5)
    with served(predictor) as server:
        path, queue = stored(server.port, "a.png", photo), server.gradio.queue
        for number in range(30):
            until(lambda name=f"silent{number}": join(server.port, [{"path": path}], session_hash=name)[0] == 200)
        until(lambda: server.gradio.count_events() == 0)
        assert len(queue.pending_messages_per_session) == 5
        assert len(queue.pending_event_ids_session) <= 11
        assert len(server.gradio.app.state_holder.session_data) <= 6
        assert "silent0" not in queue.pending_messages_per_session
        assert hears(server.port, "silent29").count('"label":') == 1
        assert len(queue.event_analytics) <= 1
        assert good(server.port, photo)


def any_value(dice, path, depth=0):
    """A JSON value of any kind, often one that almost fits."""
    if dice.random() < 0.7 or depth > 3:
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        odd = [None, True, 0, -1, 1.5, 1e308, 10**30, "", "../..", "\ud800", "\0", [], {}, {"path": path}, file, [file]]
        odd += [file | {"size": "x", "orig_name": {}, "is_stream": True}, file | {"meta": None}, {"video": file}]
        return dice.choice([*odd, {"__type__": "update", "value": 5}, {"path": f"{path}/"}, {"path": path, "b64": "x"}])
    if dice.random() < 0.5:
        return [any_value(dice, path, depth + 1) for _ in range(dice.randrange(4))]
    names = dice.choices(["path", "url", "meta", "value", "data", "choices"], k=dice.randrange(4))
    return {name: any_value(dice, path, depth + 1) for name in names}


def test_events_of_random_values_are_refused_or_answered_and_nothing_fails_unforeseen(server, photo, caplog):
    dice, path = random.Random(0), stored(server.port, "a.png", photo)
    known, answered = functions(server.port), 0
    for number in range(300):
        function = dice.choice(known)
        data = [any_value(dice, path) for _ in range(len(function["inputs"]) if dice.random() < 0.9 else 2)]
        event = {"fn_index": function["id"], "session_hash": f"any{number}", "data": data}
        fields = ("event_data", "trigger_id", "simple_format", "batched", "event_id", "request")
        event |= {name: any_value(dice, path) for name in fields if dice.random() < 0.2}
        route = dice.choice(["queue/join", "queue/join", "run/predict", "cancel", "reset"])
        status, _, said = ask(server.port, "POST", f"/gradio_api/{route}", json.dumps(event), JSON)
        assert status in (200, 400, 404, 422), (event, said)
        if status == 200 and route == "queue/join":
            assert any(one["msg"] == "process_completed" for one in messages(hears(server.port, f"any{number}"))), event
            answered += 1
    assert answered >= 5
    assert not [one for one in caplog.records if one.name == "kit.serve"]


@pytest.mark.parametrize("size", [20_000, 900_000])
def test_a_login_that_is_too_long_is_refused(predictor, size):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    with served(predictor, auth="anna", password="right") as server:
        assert ask(server.port, "POST", "/login", "a=b&" * (size // 4), form)[0] == 413
        assert ask(server.port, "POST", "/login", "username=anna&password=right", form)[0] == 200


def test_files_beyond_a_thousand_at_once_are_refused_with_the_number(server):
    one = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nx\r\n'
    status, _, said = ask(server.port, "POST", "/gradio_api/upload", one * 1001 + f"--{BOUNDARY}--\r\n", FORM)
    assert status == 400
    assert b"Maximum number of files is 1000" in said
