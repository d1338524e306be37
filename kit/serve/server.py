"""`kit serve`: the page and the REST API in one process, on one port.

run("runs/pets", Settings(port=7860))

The port is bound first, so that a port in use is reported at once. The model is loaded while Gradio is imported.
"""

import errno
import ipaddress
import logging
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
from filelock import FileLock, Timeout
from starlette.exceptions import HTTPException

from kit.console import say
from kit.errors import KitError
from kit.serve.middleware import LOOPBACK, PREFIX, Hosts, Network, SecurityMiddleware, hostname
from kit.serve.responses import LOG, State, http_error

if TYPE_CHECKING:
    from kit.bundle.predictor import Predictor

QUEUE = 10
FOLDER, LOCK = "kit-serve-", "lock"
# No requests to Gradio's servers; no statistics of all events after each event, for which Gradio imports pandas.
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**9),
    "HF_HUB_OFFLINE": "1",
}
HOST = re.compile(r"([\w.-]+|\[[\da-fA-F:.]+\])(:\d+)?")
# Reason and fix for the ways in which listening on an address fails.
BIND_ERRORS = {
    errno.EADDRINUSE: ("the port is in use", "choose another: --port {next}"),
    errno.EADDRNOTAVAIL: (
        "it is no address of this machine",
        "--host 127.0.0.1 for this machine alone, or 0.0.0.0 for all of its addresses",
    ),
    errno.EACCES: (
        "ports below 1024 are for the administrator",
        "--port 7860, with a reverse proxy in front of it",
    ),
    errno.EAFNOSUPPORT: ("this machine has no IPv6", "give an IPv4 address, like 127.0.0.1"),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a bundle is served.

    host, port: the address to listen on; port 0 takes a free one.
    auth, password: the user who may log in; without them, no login is needed.
    allow_host: further host names that requests may use for this server.
    root_path: the path under which a reverse proxy serves the page, such as /cats.
    proxy: addresses or networks of reverse proxies whose X-Forwarded headers are read.
    share: whether to open a public address by Gradio's tunnel.
    public: confirms that `share` or another host than this machine is meant without a login.
    max_upload: the largest request body in bytes. concurrency: how many predictions run at the same time.
    metrics, docs: whether /metrics and /v1/docs exist.
    patience: seconds after which a request that sends nothing is closed.
    engine, device: as of `kit.bundle.load`.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    auth: str | None = None
    password: str | None = None
    allow_host: tuple[str, ...] = ()
    root_path: str = ""
    proxy: tuple[str, ...] = ()
    share: bool = False
    public: bool = False
    max_upload: int = 10_000_000
    concurrency: int = 2
    metrics: bool = False
    docs: bool = False
    patience: float = 10.0
    engine: str = "auto"
    device: str = "auto"

    def __post_init__(self):
        for name in self.allow_host:
            if not HOST.fullmatch(name):
                fix = "write it like pets.example, without http://"
                raise KitError(f"--allow-host {name!r} is no host name", fix=fix)
        if not PREFIX.fullmatch(self.root_path.rstrip("/")):
            raise KitError(f"--root-path {self.root_path!r} is no path", fix="write it like /cats")
        _ = self.proxies
        if self.auth and not self.password:
            raise KitError("the login has no password", fix="enter one when asked, or set KIT_PASSWORD")
        if not (self.auth or self.public):
            if self.share:
                raise KitError("--share opens this page to everybody", fix="--auth USER, or --public if you mean it")
            if self.host not in LOOPBACK:
                problem = f"--host {self.host} opens this page to other machines"
                raise KitError(problem, fix="--auth USER, or --public if you mean it")

    @property
    def hosts(self) -> Hosts:
        """The host names that requests may use for this server."""
        everywhere = self.host in ("0.0.0.0", "::")
        own = {socket.gethostname().lower()} if everywhere else {self.host.lower()}
        named = set(map(hostname, self.allow_host))
        return Hosts({*LOOPBACK, *own, *named}, any_address=everywhere, origins=named)

    @property
    def proxies(self) -> list[Network]:
        """The networks of `proxy`. Raises `KitError` for one that is none."""
        try:
            return [ipaddress.ip_network(address) for address in self.proxy]
        except ValueError as error:
            raise KitError(
                f"--proxy: {error}", fix="give an address or a network, like 10.0.0.5 or 10.0.0.0/8"
            ) from error


def run(bundle: str | Path, settings: Settings | None = None) -> None:
    """Serve a bundle or a run folder until SIGTERM or Ctrl-C. Raises `KitError` if it cannot start."""
    begun, settings = time.perf_counter(), settings or Settings()
    log_to_stderr()
    with bind(settings.host, settings.port) as listener, private_cache() as cache:
        port = listener.getsockname()[1]
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(load, bundle, settings)
            from kit.serve import webpage  # noqa: F401 (Gradio is imported while the model loads)
            from kit.serve.http_server import Server

            predictor = loading.result()
        state, hosts = State(), settings.hosts
        app = build(predictor, settings, state, hosts, cache, port)
        name = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"http://{name}:{port}"
        Server(app, state, lambda: announce(address, begun, settings, hosts)).run(sockets=[listener])
    say("stopped")


def load(bundle: str | Path, settings: Settings) -> "Predictor":
    """Load the bundle's predictor and make a first prediction, which is slower than later ones."""
    from kit.bundle.read import load as load_bundle

    predictor = load_bundle(bundle, settings.device, settings.engine)
    size = predictor.config["image"]["size"]
    predictor.outputs(np.zeros((1, size, size, 3), np.uint8))
    return predictor


def build(
    predictor: "Predictor", settings: Settings, state: State, hosts: Hosts, cache: Path, port: int = 7860
) -> SecurityMiddleware:
    """The ASGI app: the REST API, the login and the page, behind the middleware. cache: the folder for uploads."""
    from fastapi import FastAPI

    from kit.serve import rest, uploads, webpage
    from kit.serve.concurrency import Capacity, in_pool
    from kit.serve.gradio_internals import GradioGuard
    from kit.serve.login import Login

    openapi, handlers = "/v1/openapi.json" if settings.docs else None, {HTTPException: http_error}
    app = FastAPI(
        title="kit",
        docs_url=None,
        redoc_url=None,
        openapi_url=openapi,
        servers=[{"url": ".."}],
        redirect_slashes=False,
        exception_handlers=handlers,
    )
    login = Login(settings.auth, settings.password, f"kit_session_{port}") if settings.auth else None
    if login:
        app.include_router(login.routes())
    capacity, pool = Capacity(settings.concurrency + QUEUE), ThreadPoolExecutor(settings.concurrency)
    app.include_router(rest.routes(predictor, capacity, pool, state, settings.metrics, settings.docs))
    blocks = webpage.page(in_pool(predictor, pool), settings.max_upload)
    app.include_router(uploads.routes(cache, blocks.upload_file_set.update))
    picture = webpage.preview(predictor)
    webpage.mount(app, blocks, picture, settings.max_upload, capacity.limit, settings.concurrency)
    # Not as a route: it would match paths of the API with a wrong method, too.
    app.router.default = GradioGuard(app.routes.pop().app, cache, capacity, state)
    return SecurityMiddleware(
        app,
        hosts=hosts,
        login=login,
        max_upload=settings.max_upload,
        patience=settings.patience,
        state=state,
        proxies=settings.proxies,
        root_path=settings.root_path.rstrip("/"),
    )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `KitError` if the address cannot be used."""
    try:
        name = host.strip("[] ")
        if name in ("", "*"):  # which Python takes for other addresses
            raise ValueError(name)
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        family, *_, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        return socket.create_server(address, family=family)
    except (OSError, OverflowError, ValueError) as error:
        reason, fix = BIND_ERRORS.get(getattr(error, "errno", None), (str(error), "--host 127.0.0.1 --port 7860"))
        if isinstance(error, socket.gaierror | ValueError):
            reason, fix = "this name has no address", "check its spelling, or give the address alone, like 127.0.0.1"
        raise KitError(f"{host}:{port} cannot be used: {reason}", fix=fix.format(next=port % 65535 + 1)) from error


@contextmanager
def private_cache() -> Iterator[Path]:
    """A temporary folder for uploads that only this user can read, set as Gradio's cache.

    Other GRADIO_ variables are removed from the environment meanwhile: they could override kit's settings.
    """
    remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=FOLDER)).resolve()
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("GRADIO_") or name in QUIET}
    try:
        with FileLock(folder / LOCK):
            cache = folder / "cache"
            cache.mkdir(0o700)
            os.environ |= QUIET | {"GRADIO_TEMP_DIR": str(cache)}
            yield cache
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for name in (*QUIET, "GRADIO_TEMP_DIR"):
            os.environ.pop(name, None)
        os.environ |= kept


def remove_leftovers() -> None:
    """Remove the uploads of this user's servers that were killed; a server that runs holds the lock of its folder."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*"):
        with suppress(OSError, Timeout):
            if folder.lstat().st_uid == user and not folder.is_symlink() and (folder / LOCK).is_file():
                with FileLock(folder / LOCK, blocking=False):
                    shutil.rmtree(folder, ignore_errors=True)


def announce(address: str, begun: float, settings: Settings, hosts: Hosts) -> None:
    """Print the address, then open the tunnel if there is to be one, and print its address."""
    print(f"ready: {address} (after {time.perf_counter() - begun:.1f} s; stop with Ctrl-C)", flush=True)
    if settings.share:
        from kit.serve.gradio_internals import open_tunnel

        say("note: --share downloads Gradio's tunnel program (frpc), and sends all traffic through gradio.live")
        try:
            public = open_tunnel(int(address.rpartition(":")[2]))
        except KitError as error:
            say(f"error: {error.problem}; {error.fix}")
            return
        hosts.tunnels.add(urlsplit(public).hostname)
        print(f"ready: {public} (public)", flush=True)


def log_to_stderr() -> None:
    """Log errors of the server to stderr. Warnings that any malformed request causes are not logged."""
    for name in ("uvicorn.error", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not LOG.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        LOG.addHandler(handler)
        LOG.propagate = False
