"""Row 52: the page behind a real nginx, at the root and under a sub path, with nginx's default Host header."""

import re
import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from over_sockets import ask, reachable, served, until

pytestmark = pytest.mark.browser
SNIPPET = Path(__file__).parents[2] / "apps" / "proxy" / "nginx.conf"
CONFIG = """
pid FOLDER/pid;
error_log FOLDER/error.log;
daemon off;
events {}
http {
    access_log off;
    client_body_temp_path FOLDER/body;
    proxy_temp_path FOLDER/proxy;
    fastcgi_temp_path FOLDER/fastcgi;
    uwsgi_temp_path FOLDER/uwsgi;
    scgi_temp_path FOLDER/scgi;
    server { listen 127.0.0.1:LISTEN; LOCATION }
}
"""
WAYS = {
    "the root": ("/", {}, "location / { proxy_pass http://127.0.0.1:7860; }"),
    "a sub path": ("/cats/", {}, "location /cats/ { proxy_pass http://127.0.0.1:7860/; }"),
    "a sub path that stays": (
        "/cats/",
        {"root_path": "/cats"},
        "location /cats { proxy_pass http://127.0.0.1:7860; }",
    ),
    "the snippet": ("/cats/", {"proxy": ("127.0.0.1",)}, SNIPPET.read_text()),
}


@contextmanager
def nginx(folder, location, port):
    """The port of an nginx with that location, in front of a server on `port`."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not program:
        pytest.skip("needs nginx: apt-get install nginx")
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = free.getsockname()[1]
    text = CONFIG.replace("LOCATION", location.replace("7860", str(port))).replace("LISTEN", str(listen))
    config = folder / "nginx.conf"
    config.write_text(text.replace("FOLDER", str(folder)))
    command = [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)]
    process = subprocess.Popen(command)
    try:
        until(lambda: reachable(listen))
        yield listen
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def visit(chromium, address):
    page = chromium.new_page()
    page.set_default_timeout(30_000)
    page.wrong = []
    page.on("response", lambda answer: answer.status >= 400 and page.wrong.append(answer.url))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    try:
        page.goto(address)
        yield page
        assert not page.wrong
    finally:
        page.close()


def predict(page, photo) -> None:
    page.locator("input[type=file]").first.set_input_files(photo)
    page.locator(".looking").wait_for(state="detached")
    page.locator(".result h2").wait_for()


@pytest.mark.parametrize("way", WAYS)
def test_52_the_page_behind_nginx_predicts(predictor, photo, chromium, tmp_path, way):
    path, settings, location = WAYS[way]
    file = tmp_path / "photo.png"
    file.write_bytes(photo)
    with served(predictor, **settings) as server, nginx(tmp_path, location, server.port) as port:
        with visit(chromium, f"http://127.0.0.1:{port}{path}?__theme=dark") as page:
            predict(page, file)
            page.get_by_role("tab", name=re.compile("Many")).click()
            page.locator("input[type=file][multiple]").set_input_files([file])
            with page.expect_download() as waited:
                page.get_by_text("Download as CSV").click()
            assert "photo.png" in Path(waited.value.path()).read_text()
            picture = page.locator("meta[property='og:image']").get_attribute("content")
            if settings or way == "the snippet":  # where the server is told the address that visitors see
                assert picture.startswith("http://127.0.0.1")
                assert picture.endswith(f"{path}preview.jpg")
        assert ask(port, "GET", f"{path}preview.jpg")[0] == 200
        if path != "/":
            assert ask(port, "GET", "/cats")[0] in (301, 308)
        assert ask(port, "POST", f"{path}v1/predict", photo, {"Content-Type": "image/png"})[0] == 200


def test_52_a_login_behind_nginx_is_for_the_sub_path_only(predictor, photo, chromium, tmp_path):
    settings = {"auth": "anna", "password": "right", "proxy": ("127.0.0.1",)}
    with served(predictor, **settings) as server, nginx(tmp_path, SNIPPET.read_text(), server.port) as port:
        address = f"http://127.0.0.1:{port}/cats/"
        with visit(chromium, address) as page:
            assert page.url == f"{address}login"
            page.get_by_label("User").fill("anna")
            page.get_by_label("Password").fill("right")
            page.get_by_role("button").click()
            predict(page, {"name": "photo.png", "mimeType": "image/png", "buffer": photo})
            (cookie,) = page.context.cookies()
            assert (cookie["path"], cookie["secure"], cookie["httpOnly"]) == ("/cats", False, True)


def test_52_docs_are_usable_behind_nginx(predictor, chromium, tmp_path):
    _, _, location = WAYS["a sub path"]
    with (
        served(predictor, docs=True) as server,
        nginx(tmp_path, location, server.port) as port,
        visit(chromium, f"http://127.0.0.1:{port}/cats/v1/docs") as page,
    ):
        page.locator("#operations-default-model_v1_model_get").click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        page.locator(".live-responses-table .response-col_status", has_text="200").first.wait_for()
