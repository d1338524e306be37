"""What stands before Gradio's app: which events it lets through, and what it needs of the installed Gradio."""

import asyncio
import json
from inspect import signature
from operator import attrgetter
from types import SimpleNamespace

import gradio
import pytest
from fastapi import FastAPI
from gradio.routes import App
from starlette.routing import Match

from kit.errors import KitError
from kit.serve.concurrency import Capacity
from kit.serve.gradio_internals import CANCEL, JOIN, PRIVATE, ROUTES, RUN, TESTED_VERSION, GradioGuard, check_gradio
from kit.serve.responses import RequestError, State
from kit.serve.uploads import FILES


@pytest.fixture(scope="module")
def app() -> App:
    """Gradio's app of a page with a function for each kind of input."""
    with gradio.Blocks() as blocks:
        image, file, number, button = gradio.Image(), gradio.File(), gradio.Number(), gradio.Button()
        image.change(lambda value: None, image, None)
        button.click(lambda value, start: None, [file, number], None, queue=False)
    parent = gradio.mount_gradio_app(FastAPI(), blocks, "/")
    return parent.routes[-1].app


@pytest.fixture
def guard(app, tmp_path) -> GradioGuard:
    return GradioGuard(app, tmp_path, Capacity(2), State())


@pytest.fixture
def stored(tmp_path) -> str:
    (tmp_path / "a.png").write_bytes(b"x")
    return str(tmp_path / "a.png")


IMAGE, SOME = range(2)


def event(data, function=IMAGE, **fields) -> bytes:
    return json.dumps({"fn_index": function, "session_hash": "s", "data": data} | fields).encode()


@pytest.mark.parametrize("name", PRIVATE)
def test_gradio_still_has(app, name):
    attrgetter(name)(app)


@pytest.mark.parametrize(
    "route",
    ["GET /", "GET /config", "GET /theme.css", "GET /gradio_api/info", "GET /gradio_api/startup-events",
     "POST /gradio_api/queue/join", "GET /gradio_api/queue/data", "POST /gradio_api/run/predict",
     "POST /gradio_api/cancel", "GET /gradio_api/heartbeat/x", "POST /gradio_api/upload",
     "GET /gradio_api/upload_progress", "POST /gradio_api/reset", "GET /gradio_api/file=x"],
)  # fmt: skip
def test_gradio_still_has_the_route(app, route):
    method, path = route.split()
    scope = {"type": "http", "method": method, "path": path, "headers": []}
    assert any(one.matches(scope)[0] == Match.FULL for one in app.routes)


def test_gradio_still_has_the_tunnel():
    assert list(signature(gradio.networking.setup_tunnel).parameters)[:3] == ["local_host", "local_port", "share_token"]


def test_a_gradio_that_lacks_something_is_refused_by_name_with_the_version_to_install():
    with pytest.raises(
        KitError, match=f"gradio {gradio.__version__} has no App.stop_event, which kit serve uses"
    ) as caught:
        check_gradio(SimpleNamespace())
    assert f"gradio=={TESTED_VERSION}" in caught.value.fix


@pytest.mark.parametrize(
    "path", ["/monitoring", "/docs", "/openapi.json", "/gradio_api/proxy=http://x", "/gradio_api/vibe-edit/",
             "/gradio_api/runs", "/gradio_api/mcp", "/gradio_api/run/other", "/gradio_api/component_server",
             "/static/..%2f", "//evil.example", "/gradio_api/file/etc", "/a\\b", "/config\n", "/login"],
)  # fmt: skip
def test_what_the_page_does_not_need_is_no_route(path):
    assert not ROUTES.fullmatch(path)


def test_a_file_that_was_uploaded_is_let_through_as_its_path_alone(guard, stored):
    given = {"path": stored, "url": f"http://127.0.0.1{FILES}{stored}", "orig_name": "b.png", "size": 7}
    file = {"path": stored, "meta": {"_type": "gradio.FileData"}}
    checked = guard.check(JOIN, event([given], event_data={"path": "/etc/passwd"}))
    assert checked.model_dump() == {"fn_index": IMAGE, "data": [file], "session_hash": "s"}
    assert json.loads(guard.check(RUN, event([given, 8], SOME)).model_dump_json())["data"] == [file, 8]
    assert guard.check(JOIN, event([None])).data == [None]


@pytest.mark.parametrize("url", ["http://evil.example/a.png", f"http://127.0.0.1{FILES}/etc/passwd"])
def test_an_address_that_is_not_the_uploaded_files_is_refused(guard, stored, url):
    with pytest.raises(RequestError, match="the file's address is not this server's"):
        guard.check(JOIN, event([{"path": stored, "url": url}]))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("text", "0: Input should be a valid dictionary"),
        ([], "0: Input should be a valid dictionary"),
        ({"path": "/etc/passwd"}, "0: Value error, the file was not uploaded here"),
        ({"url": "http://127.0.0.1/"}, "0.path: Field required"),
    ],
)
def test_a_value_that_is_no_upload_is_refused_with_its_place(guard, value, problem):
    with pytest.raises(RequestError) as caught:
        guard.check(JOIN, event([value]))
    assert caught.value.status == 422
    assert caught.value.problem.startswith(problem)


def test_a_function_is_called_only_as_the_page_calls_it(guard):
    assert guard.check(RUN, event([None, 0], SOME)).data == [None, 0]
    for path, function in ((RUN, IMAGE), (JOIN, SOME), (JOIN, 99)):
        with pytest.raises(RequestError, match=f"there is no such function: {function}") as caught:
            guard.check(path, event([None], function))
        assert caught.value.status == 404
    with pytest.raises(RequestError, match="data has 2 values; 1 expected"):
        guard.check(JOIN, event([None, None]))


@pytest.mark.parametrize("fields", [{}, {"event_id": 1}, {"event_id": "../a"}, {"event_id": "a", "fn_index": True}])
def test_what_is_cancelled_must_be_named(guard, fields):
    assert guard.check(CANCEL, event([], event_id="a")).event_id == "a"
    with pytest.raises(RequestError, match=r"event_id|fn_index") as caught:
        guard.check(CANCEL, event([], **fields))
    assert caught.value.status == 422


def ask(guard, path, **headers) -> list[dict]:
    """The messages with which the guard responds."""
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": pairs, "scheme": "http"}
    sent = []

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    return sent


def test_gradio_is_told_neither_cookies_nor_another_name_of_the_server(guard):
    async def gradio_app(scope, receive, send):
        await send((scope["path"], sorted(scope["headers"])))

    guard.app = gradio_app
    headers = {"host": "127.0.0.1", "cookie": "a=b", "x_forwarded_host": "evil.example", "x_gradio_server": "http://["}
    host = (b"host", b"127.0.0.1")
    assert ask(guard, "/config", **headers) == [("/config", [host, (b"x-gradio-server", b"http://127.0.0.1")])]
    assert ask(guard, "/", **headers) == [("/", [host, (b"x-gradio-server", b".")])]
    prefix = (b"x-forwarded-prefix", b"/cats")
    headers["x_forwarded_prefix"] = "/cats"
    assert ask(guard, "/", **headers) == [("/cats/", [host, prefix, (b"x-gradio-server", b"/cats")])]


def test_a_method_that_a_path_of_gradio_does_not_have_is_a_405(guard):
    with pytest.raises(RequestError, match="GET is not possible at /gradio_api/queue/join") as caught:
        ask(guard, JOIN)
    assert (caught.value.status, caught.value.fix, caught.value.headers) == (405, "use POST", {"Allow": "POST"})


def test_what_is_not_there_is_said_with_where_to_look(guard):
    with pytest.raises(RequestError, match="there is nothing here") as caught:
        ask(guard, "/docs")
    assert caught.value.status == 404
    assert "the page is at /, the API at /v1/predict" in caught.value.fix


def test_the_pages_streams_do_not_take_all_connections(guard):
    async def gradio_app(scope, receive, send):
        await send(guard.streams.used)

    guard.app, guard.streams = gradio_app, Capacity(1)
    heartbeat = "/gradio_api/heartbeat/x"
    assert ask(guard, heartbeat, host="127.0.0.1") == [1]
    with guard.streams.slot(), pytest.raises(RequestError, match="too many requests at once"):
        ask(guard, heartbeat)
    assert guard.streams.used == 0
    with guard.streams.slot():
        assert ask(guard, "/config", host="127.0.0.1") == [1]
