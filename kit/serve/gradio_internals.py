"""All uses of Gradio's undocumented interface, and an ASGI app that checks requests before Gradio gets them.

mount.app = GradioGuard(mount.app, cache, capacity, state)

`GradioGuard` passes on only the routes and events that kit's page uses. Where Gradio accepts any path or URL as a file,
it accepts only the path of an uploaded file, in one spelling. `check_gradio` names what an installed Gradio lacks.
"""

import json
import re
import secrets
from contextlib import ExitStack
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

import gradio
from gradio import networking, routes
from gradio.routes import App
from jinja2 import ChoiceLoader, DictLoader
from pydantic import BaseModel, Field, StrictInt, TypeAdapter, ValidationError, ValidationInfo, model_validator
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from kit.errors import KitError, first_line
from kit.serve import responses
from kit.serve.concurrency import Capacity
from kit.serve.responses import RequestError, State, not_allowed
from kit.serve.uploads import FILES, USAGE, inside

JOIN, RUN, CANCEL = "/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/cancel"
POSTS = (JOIN, RUN, CANCEL)
ANSWERS, HEARTBEAT = "/gradio_api/queue/data", "/gradio_api/heartbeat/"
ROUTES = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/(assets|static)/[\w@./+-]+"
    r"|/gradio_api/(queue/join|queue/data|run/predict|cancel|info|startup-events|heartbeat/[\w-]{1,64})"
)
DROPPED_HEADERS = ("cookie", "x-forwarded-host", "x-forwarded-proto")
MAX_STREAMS, MAX_SESSIONS = 400, 300
TESTED_VERSION = "6.31.0"
PRIVATE = (
    "stop_event",
    "state_holder.capacity",
    "blocks.fns",
    "blocks.upload_file_set",
    "blocks._queue.event_queue_per_concurrency_id",
    "blocks._queue.pending_event_ids_session",
    "blocks._queue.pending_messages_per_session.max_size",
)

PAGE, GRADIOS_HEAD = "frontend/index.html", re.compile(r'<meta\s+(property="og:|name="twitter:)[^>]*>')
# What chats show of a link; the address is the one that was asked for, before a proxy in front.
HEAD = """{% set address %}{{ request.url.scheme }}://{{ request.headers.host }}{{
request.headers.get("x-forwarded-prefix", "") }}{% endset %}
<title>{{ config.title }}</title>
<link rel="icon" type="image/png" href="favicon.ico" />
<meta property="og:type" content="website" />
<meta property="og:url" content="{{ address }}/" />
<meta property="og:title" content="{{ config.title }}" />
<meta property="og:description" content="{{ config.kit_description }}" />
<meta property="og:image" content="{{ address }}/preview.jpg" />
<meta name="description" content="{{ config.kit_description }}" />
<meta name="twitter:card" content="summary_large_image" />"""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Event(BaseModel):
    """A call of one of the page's functions. Other fields are dropped."""

    fn_index: StrictInt
    session_hash: Name
    data: list[Any]


class Cancellation(BaseModel):
    """A request to cancel an event."""

    event_id: Name
    fn_index: StrictInt
    session_hash: Name


class File(BaseModel):
    """An uploaded file. Other fields are dropped."""

    path: str
    url: str | None = Field(None, exclude=True)
    meta: dict[Literal["_type"], Literal["gradio.FileData"]] = {"_type": "gradio.FileData"}

    @model_validator(mode="after")
    def _is_upload(self, info: ValidationInfo) -> "File":
        if not inside(info.context, self.path):
            raise ValueError("the file was not uploaded here")
        if self.url and unquote(self.url).partition(FILES)[2] != self.path:
            raise ValueError("the file's address is not this server's")
        return self


@cache
def describe_links() -> None:
    """In Gradio's template, replace what chats show of a link by `HEAD`, for pages that have a description."""
    env = routes.templates.env
    source = env.loader.get_source(env, PAGE)[0]
    changed = GRADIOS_HEAD.sub("", source).replace("</head>", f"{HEAD}</head>", 1)
    both = f"{{% if config.kit_description %}}{changed}{{% else %}}{source}{{% endif %}}"
    env.loader = ChoiceLoader([DictLoader({PAGE: both}), env.loader])
    env.cache.clear()


def check_gradio(app: App) -> None:
    """Raise `KitError` if the installed Gradio lacks an attribute that this module uses. app: of a mounted page."""
    for name in PRIVATE:
        try:
            attrgetter(name)(app)
        except AttributeError as error:
            problem = f"gradio {gradio.__version__} has no App.{name}, which kit serve uses"
            raise KitError(problem, fix=f"install gradio=={TESTED_VERSION}, which kit is tested with") from error


class GradioGuard:
    """An ASGI app that checks each request and passes it on to Gradio's app.

    cache: the folder of uploads. capacity: shared with the REST API. state: of the server, for its shutdown.
    """

    def __init__(self, app: App, cache: Path, capacity: Capacity, state: State):
        check_gradio(app)
        self.app, self.cache, self.capacity, self.streams = app, cache, capacity, Capacity(MAX_STREAMS)
        self.functions, self.queue = app.blocks.fns, app.blocks._queue
        self.inputs = {index: _inputs_of(function) for index, function in self.functions.items() if function.fn}
        capacity.elsewhere = self.count_events
        # Heartbeats end when this is set; without it, a shutdown would wait for them.
        app.stop_event = state.stopping
        # Gradio's defaults keep the state and unread messages of thousands of sessions in memory.
        app.state_holder.capacity = self.queue.pending_messages_per_session.max_size = MAX_SESSIONS

    def count_events(self) -> int:
        """The number of events that wait or run in Gradio's queue."""
        queues = self.queue.event_queue_per_concurrency_id.values()
        return sum(len(one.queue) + one.current_concurrency for one in queues)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. Raises `RequestError` for one that the page does not send."""
        path = scope["path"]
        if not ROUTES.fullmatch(path) or ".." in path or "//" in path:
            raise RequestError(404, "there is nothing here", fix=responses.USAGE)
        headers = MutableHeaders(scope=scope)
        for name in DROPPED_HEADERS:
            del headers[name]
        self._set_root(scope, headers)
        allowed = "POST" if path in POSTS else "GET, HEAD"
        if scope["method"] not in allowed:
            raise not_allowed(scope["method"], path, allowed)
        if path in POSTS:
            if path != CANCEL:
                self.capacity.check()  # before the body is read
            event = self.check(path, await Request(scope, receive).body())
            await self._pass_on(event, scope, receive, send)
        elif path.startswith((ANSWERS, HEARTBEAT)):
            known = path != ANSWERS or self._has_session(Request(scope))
            with self.streams.slot():
                await (self.app if known else _session_not_found())(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _set_root(self, scope: Scope, headers: MutableHeaders) -> None:
        """Set the address from which the page asks for everything else: below its own, whatever proxies call that.

        Programs, which read /config, need the whole address.
        """
        prefix = headers.get("x-forwarded-prefix", "")
        if scope["path"] in ("/config", "/config/"):
            headers["x-gradio-server"] = f"{scope['scheme']}://{headers['host']}{prefix}"
            scope["root_path"] = prefix
        else:
            headers["x-gradio-server"] = scope["root_path"] = prefix or "."
        scope["path"] = prefix + scope["path"]

    def check(self, path: str, body: bytes) -> Event | Cancellation:
        """Parse the body of a POST to `path`. Raises `RequestError` that names the invalid field."""
        try:
            if path == CANCEL:
                return Cancellation.model_validate_json(body)
            event = Event.model_validate_json(body)
            # A function that uses the queue may not be called directly, and vice versa.
            if event.fn_index not in self.inputs or self.functions[event.fn_index].queue is not (path == JOIN):
                raise RequestError(404, f"there is no such function: {event.fn_index}", fix=USAGE)
            inputs, count = self.inputs[event.fn_index], len(self.functions[event.fn_index].inputs)
            if len(event.data) != count:
                raise RequestError(422, f"data has {len(event.data)} values; {count} expected", fix=USAGE)
            event.data = list(inputs.dump_python(inputs.validate_python(event.data, context=self.cache)))
            return event
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            status = 400 if first["type"] == "json_invalid" else 422
            raise RequestError(status, f"{place or 'the body'}: {first['msg']}", fix=USAGE) from error

    async def _pass_on(self, event: Event | Cancellation, scope: Scope, receive: Receive, send: Send) -> None:
        """Call Gradio with the checked event as the body. All but a cancellation needs a slot."""
        body = event.model_dump_json().encode()
        MutableHeaders(scope=scope).update({"content-type": "application/json", "content-length": str(len(body))})
        messages = [{"type": "http.request", "body": body}]
        with ExitStack() as slot:
            if isinstance(event, Event):
                slot.enter_context(self.capacity.slot())
                self._forget_sessions()

            async def replay() -> Message:
                return messages.pop() if messages else await receive()

            async def respond(message: Message) -> None:
                slot.close()  # The answer is here, or the event is in Gradio's queue and counted by count_events.
                await send(message)

            await self.app(scope, replay, respond)

    def _has_session(self, request: Request) -> bool:
        return request.query_params.get("session_hash") in self.queue.pending_messages_per_session

    def _forget_sessions(self) -> None:
        """Delete the event ids of sessions that have no messages left; Gradio never deletes them."""
        events = self.queue.pending_event_ids_session
        if len(events) > 2 * MAX_SESSIONS:
            for session in events.keys() - self.queue.pending_messages_per_session.keys():
                del events[session]


def _inputs_of(function: Any) -> TypeAdapter:
    """A pydantic validator for the inputs of a function of the page."""
    kinds = {
        "image": File | None,
        "file": File | None,
        "number": Annotated[StrictInt, Field(ge=0)],
    }
    types = tuple(kinds[component.get_block_name()] for component in function.inputs)
    return TypeAdapter(tuple[types])


def _session_not_found() -> Response:
    """Gradio's message for an unknown session. Gradio's own response to one breaks off with an exception."""
    message = {"msg": "unexpected_error", "message": "unknown session", "session_not_found": True, "success": False}
    return Response(
        f"data: {json.dumps(message)}\n\n", media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


def open_tunnel(port: int) -> str:
    """Open Gradio's tunnel to a local port and return its public URL. Raises `KitError` if that fails."""
    try:
        address = networking.setup_tunnel("127.0.0.1", port, secrets.token_urlsafe(32), None, None)
        if not urlsplit(address).hostname:
            raise ValueError(f"{address!r} is no address")
    except Exception as error:
        problem = f"the public address could not be had: {first_line(error)}"
        raise KitError(problem, fix="try again with a network; the local address goes on working") from error
    return address
