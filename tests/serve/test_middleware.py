"""The middleware without a socket: hosts, origins, bodies that are counted, errors, and the login with its limit."""

import asyncio
import base64
import json
import logging
from ipaddress import ip_network

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient

from kit.errors import KitError
from kit.serve.login import ATTEMPTS, DELAY, MAX_FORM_BYTES, MAX_WAIT, SESSION_SECONDS, WINDOW, Login
from kit.serve.middleware import Hosts, SecurityMiddleware
from kit.serve.responses import RequestError, State
from kit.serve.server import Settings


def scope(path="/v1/model", method="GET", **headers):
    pairs = {"host": "127.0.0.1:7860"} | {name.replace("_", "-"): value for name, value in headers.items()}
    raw = [(name.encode(), value.encode()) for name, value in pairs.items()]
    return {
        "type": "http",
        "path": path,
        "method": method,
        "query_string": b"",
        "headers": raw,
        "client": ("10.0.0.1", 1),
    }


def middleware(app=None, login=None, tunnels=(), max_upload=10_000_000, patience=10.0, ready=True, **proxy):
    hosts = Hosts({"127.0.0.1", "pets.example"}, tunnels=set(tunnels), origins={"pets.example"})
    limits = {"max_upload": max_upload, "patience": patience} | proxy
    return SecurityMiddleware(app, hosts=hosts, login=login, state=State(ready=ready), **limits)


def ask(app, request, *parts, then=b""):
    """The status, the headers and the body of the answer to a request that arrives in `parts`; None ends it early."""
    sent, messages = [], [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.disconnect"} if then is None else {"type": "http.request", "body": then})

    async def receive():
        return messages.pop(0) if messages else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    asyncio.run(app(request, receive, send))
    if not sent:
        return None
    assert [one["type"] for one in sent[:2]] == ["http.response.start", "http.response.body"]
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(one["body"] for one in sent[1:])


async def echo(scope, receive, send):
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RuntimeError("the client left")
        size, more = size + len(message["body"]), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def test_hosts_are_names_with_or_without_a_port_and_addresses_only_where_all_are_listened_at():
    hosts = Settings(host="0.0.0.0", public=True, allow_host=("Pets.Example",)).hosts
    for name in ("localhost:7860", "127.0.0.1", "[::1]:7860", "pets.example", "192.168.1.7:7860", "pets.example.:80"):
        assert hosts.allows(name), name
    for name in ("evil.example", "", "127.0.0.1.evil.example", "[::1", "localhost@evil.example", "a b"):
        assert not hosts.allows(name), name
    assert not Settings().hosts.allows("192.168.1.7")


@pytest.mark.parametrize(
    "headers, status",
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:7860"}, 200),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "https://evil.example", "path": "/assets/index.js"}, 200),
        ({"origin": "https://pets.example:8443"}, 200),
        ({"origin": "https://elsewhere.example", "sec_fetch_site": "same-origin"}, 200),
        ({"origin": "https://elsewhere.example", "sec_fetch_site": "same-site"}, 403),
        ({"origin": "null", "sec_fetch_site": "cross-site", "sec_fetch_mode": "cors"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[::1"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}, 200),
        ({"host": "evil.example"}, 421),
        ({"content_length": "999999999"}, 413),
    ],
)
def test_who_asks_from_where_is_checked_before_anything_is_read(headers, status):
    assert ask(middleware(echo), scope(**headers))[0] == status


@pytest.mark.parametrize(
    "headers, words",
    [
        ({"host": "evil.example"}, b"this server does not accept the host name 'evil.example'"),
        ({"origin": "https://evil.example"}, b"requests from another origin are refused"),
    ],
)
def test_who_is_refused_is_told_why(headers, words):
    assert words in ask(middleware(echo), scope(**headers))[2]


def test_what_fails_unforeseen_before_the_request_is_let_through_is_a_number_too(monkeypatch):
    def broken(scope):
        raise RuntimeError("/secret/path")

    login = Login("anna", "secret")
    monkeypatch.setattr(login, "check", broken)
    status, _, body = ask(middleware(echo, login), scope())
    assert status == 500
    assert b"number " in body
    assert b"secret" not in body


def test_every_answer_carries_the_headers_that_keep_a_browser_from_guessing_and_from_asking_elsewhere():
    for answer in (ask(middleware(echo), scope()), ask(middleware(echo), scope(host="evil"))):
        assert answer[1][b"x-content-type-options"] == b"nosniff"
        assert answer[1][b"content-security-policy"].startswith(b"default-src 'self'")


def test_a_body_is_counted_as_it_streams():
    assert ask(middleware(echo, max_upload=10), scope(method="POST"), b"12345", b"67890")[2] == b"10"
    status, _, body = ask(middleware(echo, max_upload=10), scope(method="POST"), b"12345", b"678901")
    assert status == 413
    assert b"more than 10 bytes" in body


def test_a_body_that_stalls_is_given_up():
    async def never():
        await asyncio.Event().wait()

    async def ask_and_stall():
        sent = []

        async def send(message):
            sent.append(message)

        await middleware(echo, patience=0.01)(scope(method="POST"), never, send)
        return sent

    start, body, *_ = asyncio.run(ask_and_stall())
    assert start["status"] == 408
    assert dict(start["headers"])[b"connection"] == b"close"
    assert b"the request did not arrive in time" in body["body"]


def test_a_client_that_left_is_told_nothing_and_fills_no_log(caplog):
    assert ask(middleware(echo), scope(method="POST"), b"12", then=None) is None
    assert not caplog.records


def test_a_server_that_shuts_down_asks_for_new_connections():
    assert b"connection" not in ask(middleware(echo), scope())[1]
    assert ask(middleware(echo, ready=False), scope())[1][b"connection"] == b"close"


async def broken(scope, receive, send):
    raise RuntimeError("/secret/path")


async def responds_with_500(scope, receive, send):
    await send({"type": "http.response.start", "status": 500, "headers": []})
    await send({"type": "http.response.body", "body": b"/secret/path"})


async def refuses(scope, receive, send):
    raise RequestError(418, "no coffee", fix="drink tea", headers={"Retry-After": "1"})


@pytest.mark.parametrize("app", [broken, responds_with_500])
@pytest.mark.parametrize("wrapped", [False, True])
def test_an_unforeseen_error_is_a_number_and_the_log_has_it(app, wrapped, caplog):
    logging.getLogger("kit.serve").propagate = True
    if wrapped:
        outer = FastAPI()
        outer.mount("/", app)
        app = outer
    status, headers, body = ask(middleware(app), scope())
    assert status == 500
    assert b"secret" not in body
    assert json.loads(body)["error"].split("number ")[1][:8] in caplog.text
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert "the app responded with 500" in caplog.text or "/secret/path" in caplog.text


def test_an_error_of_the_app_is_its_response_however_deep_it_is_raised():
    app = FastAPI()
    app.mount("/", refuses)
    for one in (refuses, app):
        status, headers, body = ask(middleware(one), scope())
        assert (status, headers[b"retry-after"]) == (418, b"1")
        assert json.loads(body) == {"error": "no coffee", "fix": "drink tea"}


async def arrival(scope, receive, send):
    """An app that answers how the request came."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    came = [scope["scheme"], scope["client"][0], *sorted(name.decode() for name, _ in scope["headers"])]
    await send({"type": "http.response.body", "body": " ".join(came).encode()})


@pytest.mark.parametrize(
    "headers, came",
    [
        ({}, "http 10.0.0.1 host"),
        ({"origin": "http://127.0.0.1:7860"}, "http 10.0.0.1 host origin"),
        ({"host": "abc.gradio.live"}, "https tunnel host"),
        ({"host": "ABC.gradio.live:443"}, "https tunnel host"),
        ({"host": "pets.example", "origin": "https://pets.example"}, "https 10.0.0.1 host origin"),
        ({"host": "pets.example", "x_forwarded_proto": "https"}, "http 10.0.0.1 host"),
        ({"x_forwarded_for": "1.2.3.4", "x_forwarded_prefix": "/evil", "x_forwarded_host": "x"}, "http 10.0.0.1 host"),
    ],
)
def test_who_came_by_https_or_through_the_tunnel_is_known(headers, came):
    assert ask(middleware(arrival, tunnels={"abc.gradio.live"}), scope(**headers))[2].decode() == came


PROXY = {"proxies": [ip_network("10.0.0.0/24")]}


@pytest.mark.parametrize(
    "headers, came",
    [
        ({}, "http 10.0.0.1 /v1/model 127.0.0.1:7860"),
        ({"x_forwarded_proto": "https"}, "https 10.0.0.1 /v1/model 127.0.0.1:7860"),
        ({"x_forwarded_host": "pets.example"}, "http 10.0.0.1 /v1/model pets.example"),
        ({"x_forwarded_for": "1.2.3.4"}, "http 1.2.3.4 /v1/model 127.0.0.1:7860"),
        ({"x_forwarded_for": "6.6.6.6, 1.2.3.4, 10.0.0.9"}, "http 1.2.3.4 /v1/model 127.0.0.1:7860"),
        ({"x_forwarded_for": ""}, "http 10.0.0.1 /v1/model 127.0.0.1:7860"),
        ({"x_forwarded_prefix": "/cats"}, "http 10.0.0.1 /v1/model 127.0.0.1:7860 /cats"),
        ({"x_forwarded_prefix": "/cats/", "path": "/cats/v1/model"}, "http 10.0.0.1 /v1/model 127.0.0.1:7860 /cats"),
        ({"x_forwarded_prefix": "/v1"}, "http 10.0.0.1 /model 127.0.0.1:7860 /v1"),
    ],
)
def test_what_a_named_proxy_says_is_how_the_request_came(headers, came):
    async def seen(scope, receive, send):
        request = Request(scope)
        words = [request.url.scheme, request.client.host, scope["path"], request.headers["host"]]
        words += request.headers.getlist("x-forwarded-prefix")
        await PlainTextResponse(" ".join(words))(scope, receive, send)

    assert ask(middleware(seen, **PROXY), scope(**headers))[2].decode() == came


def test_a_proxy_on_this_machine_that_is_not_named_chooses_no_address_of_clients():
    login = Login("anna", "secret")
    request = scope(authorization="Basic x", x_forwarded_for="1.2.3.4", x_forwarded_proto="https")
    request["client"] = ("127.0.0.1", 1)
    assert ask(middleware(echo, login), request)[0] == 401
    assert set(login.failures) == {"127.0.0.1"}


@pytest.mark.parametrize(
    "headers, status, words",
    [
        ({"x_forwarded_host": "evil.example"}, 421, "--allow-host evil.example"),
        ({"host": "backend:7860"}, 421, "--allow-host backend"),
        ({"x_forwarded_prefix": "cats"}, 400, "set it like /cats"),
        ({"x_forwarded_prefix": '/"><script>'}, 400, "set it like /cats"),
        ({"origin": "http://other.example:81"}, 403, "if that is other.example:81, behind a proxy, start"),
        ({"path": "/v1/model/"}, 308, "use /v1/model"),
    ],
)
def test_what_a_proxy_has_wrong_is_said_with_its_fix(headers, status, words):
    answered, _, body = ask(middleware(echo, **PROXY), scope(**headers))
    assert (answered, words in json.loads(body)["fix"]) == (status, True), body


@pytest.mark.parametrize(
    "path, place",
    [
        ("/cats", "cats/"),
        ("/a/cats", "cats/"),
        ("/v1/model/", "../model"),
        ("/login/", "../login"),
    ],
)
def test_redirects_are_relative_so_that_they_are_right_behind_any_proxy(path, place):
    server = middleware(echo, root_path=path if "cats" in path else "")
    status, headers, _ = ask(server, scope(path))
    assert (status, headers[b"location"].decode()) == (308, place)


def test_a_login_opens_by_password_or_session_and_not_otherwise():
    login = Login("anna", "secret")
    basic = "Basic " + base64.b64encode(b"anna:secret").decode()
    assert ask(middleware(echo, login), scope(authorization=basic))[0] == 200
    assert ask(middleware(echo, login), scope(cookie=f"a=b; kit_session={login.open_session()}"))[0] == 200
    assert ask(middleware(echo, login), scope("/v2/health/ready"))[0] == 200
    for headers in ({}, {"cookie": "kit_session=x"}, {"authorization": "Bearer y"}):
        status, _, body = ask(middleware(echo, login), scope(**headers))
        assert (status, json.loads(body)["error"]) == (401, "sign in first")
    status, _, body = ask(middleware(echo, login), scope(authorization="Basic x"))
    assert (status, json.loads(body)["error"]) == (401, "wrong user or password")
    page = ask(middleware(echo, login), scope("/", accept="text/html"))
    assert (page[0], page[1][b"location"], json.loads(page[2])["error"]) == (303, b"login", "sign in first")


def signed_in(login, **headers):
    """A client of a server with that login, and the status of its attempt to sign in by the form."""
    app = FastAPI()
    app.include_router(login.routes())
    client = TestClient(middleware(app, login), base_url="http://127.0.0.1", follow_redirects=False)
    form = {"username": "anna", "password": "secret"}
    return client, client.post("/login", data=form, headers=headers)


def test_the_form_signs_a_program_or_a_browser_in_until_it_signs_out():
    login = Login("anna", "secret")
    client, answer = signed_in(login)
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert client.get("/v1/nothing").status_code == 404
    cookie = {"cookie": f"kit_session={client.cookies['kit_session']}"}
    assert client.post("/logout").headers["location"] == "login"
    assert client.get("/v1/nothing", headers=cookie).status_code == 401
    client, answer = signed_in(login, accept="text/html")
    assert (answer.status_code, answer.headers["location"]) == (303, "./")
    assert client.get("/v1/nothing").status_code == 404


def test_the_form_says_to_a_browser_what_was_wrong():
    client, _ = signed_in(Login("anna", "other"))
    assert '<p role="alert">' not in client.get("/login").text
    answer = client.post("/login", data={"username": "anna"}, headers={"accept": "text/html"})
    assert answer.status_code == 401
    assert '<p role="alert">wrong user or password: try again</p>' in answer.text


def test_a_session_ends_after_a_while():
    now = [0.0]
    login = Login("anna", "secret", clock=lambda: now[0])
    client, _ = signed_in(login)
    now[0] = SESSION_SECONDS - 1
    assert client.get("/v1/nothing").status_code == 404
    now[0] = SESSION_SECONDS + 1
    assert client.get("/v1/nothing").status_code == 401
    login.open_session()
    assert len(login.sessions) == 1


def test_a_form_longer_than_any_password_is_not_parsed():
    client, _ = signed_in(Login("anna", "secret"))
    answer = client.post("/login", content=b"x" * (MAX_FORM_BYTES + 1))
    assert (answer.status_code, answer.json()["error"]) == (413, "no name or password is that long")


def outcome(login, password, client="10.0.0.1") -> int:
    """The status of an attempt to sign in."""
    try:
        asyncio.run(login.attempt("anna", password, client))
    except RequestError as error:
        return error.status
    return 200


def test_guessing_is_slowed_down_while_the_right_password_works(monkeypatch):
    now, waited = [0.0], []

    async def sleep(seconds):
        waited.append(seconds)

    monkeypatch.setattr("kit.serve.login.asyncio.sleep", sleep)
    login = Login("anna", "secret", clock=lambda: now[0])
    assert [outcome(login, f"guess {number}") for number in range(300)] == [401] * ATTEMPTS + [429] * (300 - ATTEMPTS)
    assert waited == [DELAY * (number + 1) for number in range(int(MAX_WAIT / DELAY))], "each waits for the one before"
    assert outcome(login, "secret", "10.0.0.2") == 200, "another client does not wait"
    now[0] = MAX_WAIT
    assert outcome(login, "secret") == 200
    assert waited[-1] == DELAY
    now[0] = MAX_WAIT + WINDOW + 1
    assert outcome(login, "a guess") == 401


def test_ten_wrong_passwords_do_not_lock_out_the_right_one_of_the_same_address(monkeypatch):
    monkeypatch.setattr("kit.serve.login.DELAY", 0.01)
    login = Login("anna", "secret")
    assert [outcome(login, "wrong") for _ in range(30)] == [401] * ATTEMPTS + [429] * 20
    assert outcome(login, "secret") == 200
    assert outcome(login, "another") == 429


@pytest.mark.parametrize(
    "header, status",
    [
        ("kit_session=TOKEN", 200),
        ("a=b;kit_session=TOKEN; c=d", 200),
        ("a=b; kit_session=TOKEN", 200),
        ('a="' + "\\" * 1_000_000 + '"; kit_session=TOKEN', 200),
        ("kit_session=", 401),
        ("kit_session=TOKEN b", 401),
        ('kit_session="TOKEN"', 401),
        ("kit_session_7860=TOKEN", 401),
        ("xkit_session=TOKEN", 401),
        ("kit_session=" + "x" * 200, 401),
        ("", 401),
    ],
    ids=lambda text: str(text)[:30],
)
def test_of_all_cookies_only_the_logins_own_is_looked_at(header, status):
    login = Login("anna", "secret")
    cookie = header.replace("TOKEN", login.open_session())
    assert ask(middleware(echo, login), scope(cookie=cookie))[0] == status


def test_those_who_guess_through_the_tunnel_slow_down_nobody_else(monkeypatch):
    monkeypatch.setattr("kit.serve.login.DELAY", 0.01)
    login = Login("anna", "secret")
    server = middleware(echo, login, tunnels={"abc.gradio.live"})
    wrong, right = (
        {"authorization": "Basic " + base64.b64encode(f"anna:{word}".encode()).decode()} for word in ("x", "secret")
    )
    tries = [ask(server, scope(host="abc.gradio.live", **wrong))[0] for _ in range(20)]
    assert tries == [401] * ATTEMPTS + [429] * (20 - ATTEMPTS)
    assert set(login.failures) == {"tunnel"}
    assert ask(server, scope(host="abc.gradio.live", **right))[0] == 200
    assert ask(server, scope(**right))[0] == 200


@pytest.mark.parametrize(
    "given, problem",
    [
        ({"share": True}, "--share opens this page to everybody"),
        ({"host": "0.0.0.0"}, "--host 0.0.0.0 opens this page to other machines"),
        ({"auth": "anna"}, "the login has no password"),
        ({"allow_host": ("https://pets.example",)}, "--allow-host 'https://pets.example' is no host name"),
        ({"allow_host": ("*",)}, "--allow-host"),
        ({"allow_host": ("",)}, "--allow-host '' is no host name"),
        ({"root_path": "cats"}, "--root-path 'cats' is no path"),
        ({"root_path": "https://pets.example/cats"}, "is no path"),
        ({"proxy": ("proxy.example",)}, "--proxy: 'proxy.example' does not appear to be an IPv4 or IPv6 network"),
    ],
)
def test_settings_that_would_open_the_page_unmeant_are_refused(given, problem):
    with pytest.raises(KitError, match=problem):
        Settings(**given)
