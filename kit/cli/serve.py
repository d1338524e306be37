"""kit serve BUNDLE: serve a web page and a REST API for a bundle."""

import os
import re
from typing import Annotated

import typer

from kit.cli.options import Bundle, Device, Engine
from kit.errors import KitError
from kit.manifest import find_bundle

Host = Annotated[str, typer.Option(help="the address to listen on; 0.0.0.0 for all interfaces")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="the port; 0 for any free port")]
Auth = Annotated[
    str | None, typer.Option(help="require a login as this user; the password is KIT_PASSWORD, or asked for")
]
AllowHost = Annotated[list[str] | None, typer.Option(help="another host name that requests may use for this server")]
RootPath = Annotated[str, typer.Option(help="the path under which a reverse proxy serves this, for example /cats")]
Proxy = Annotated[
    list[str] | None,
    typer.Option(help="address or network of a reverse proxy whose X-Forwarded headers are read"),
]
Share = Annotated[bool, typer.Option("--share", help="a public address by Gradio's tunnel; needs --auth or --public")]
Public = Annotated[bool, typer.Option("--public", help="allow access without a login")]
MaxUpload = Annotated[str, typer.Option(help="the largest request body, for example 10mb")]
Concurrency = Annotated[int, typer.Option(min=1, help="predictions that run at the same time; ten more may wait")]
Metrics = Annotated[bool, typer.Option("--metrics", help="enable /metrics for Prometheus")]
Docs = Annotated[bool, typer.Option("--docs", help="enable /v1/docs and /v1/openapi.json")]
UNITS = {"": 1, "b": 1, "kb": 1_000, "mb": 1_000_000, "gb": 1_000_000_000}
PASSWORD = "KIT_PASSWORD"


def serve(
    bundle: Bundle,
    host: Host = "127.0.0.1",
    port: Port = 7860,
    auth: Auth = None,
    allow_host: AllowHost = None,
    root_path: RootPath = "",
    proxy: Proxy = None,
    share: Share = False,
    public: Public = False,
    max_upload: MaxUpload = "10mb",
    concurrency: Concurrency = 2,
    metrics: Metrics = False,
    docs: Docs = False,
    device: Device = "auto",
    engine: Engine = "auto",
) -> None:
    """Serve BUNDLE: a page for people and a REST API for programs, on one port."""
    find_bundle(bundle)  # before gradio is loaded, which takes seconds
    from kit.serve import Settings, run

    settings = Settings(
        host=host,
        port=port,
        auth=auth,
        password=ask_password(auth) if auth else None,
        allow_host=tuple(allow_host or ()),
        root_path=root_path,
        proxy=tuple(proxy or ()),
        share=share,
        public=public,
        max_upload=parse_size(max_upload),
        concurrency=concurrency,
        metrics=metrics,
        docs=docs,
        device=device,
        engine=engine,
    )
    run(bundle, settings)


def parse_size(text: str) -> int:
    """Bytes from a text like "10mb". Raises `KitError` where it is not a size."""
    found = re.fullmatch(r"(\d{1,12})\s*([kmg]?b?)", text.strip().lower())
    if not found or found[2] not in UNITS:
        raise KitError(f"--max-upload {text!r} is no size", fix="write it like 10mb or 500kb")
    return int(found[1]) * UNITS[found[2]]


def ask_password(user: str) -> str:
    """The password from KIT_PASSWORD or from a prompt; other users could read it on a command line."""
    return os.environ.get(PASSWORD) or typer.prompt(f"password for {user}", hide_input=True)
