"""A Hugging Face hub on this machine: repositories as files, answered as the hub answers its own client."""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LocalHub:
    """`files` maps an ID to its files by name; `requests` are the (method, path) that were asked; `gated` are IDs."""

    def __init__(self):
        self.files: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.address = ""

    def add(self, name: str, config: dict | None = None, **files: bytes) -> None:
        """A repository of `config` as config.json, and files whose names have _ for the dot."""
        named = {name.replace("__", "."): content for name, content in files.items()}
        self.files[name] = named | ({} if config is None else {"config.json": json.dumps(config).encode()})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        hub = self.server.hub
        hub.requests.append((self.command, self.path))
        asked = re.fullmatch(r"/(.+)/resolve/([^/]+)/([^/]+)", self.path)
        files = hub.files.get(asked[1]) if asked else None
        if files is None:
            self.refuse(404, "RepoNotFound")
        elif asked[1] in hub.gated:
            self.refuse(403, "GatedRepo")
        elif asked[2] not in ("main", COMMIT):
            self.refuse(404, "RevisionNotFound")
        elif asked[3] not in files:
            self.refuse(404, "EntryNotFound")
        else:
            self.give(files[asked[3]], body)

    def refuse(self, status: int, code: str):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def give(self, content: bytes, body: bool):
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@contextmanager
def local_hub():
    """A running `LocalHub`."""
    hub = LocalHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub, hub.address = hub, f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def ask_only(monkeypatch, hub: LocalHub, cache) -> None:
    """Let Hugging Face's client ask that hub alone, with an empty cache, and no switch or folder set from outside."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    for name in ("KIT_OFFLINE", "HF_HUB_OFFLINE", "KIT_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
