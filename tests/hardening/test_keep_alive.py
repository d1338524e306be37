"""Row 48: clients that keep their connections lose no request, neither while they are used nor when the server stops.

These clients are naive: they do not look whether the server has closed a connection before they send on it.
"""

import asyncio
import random
import signal
import socket
from collections import Counter

import pytest
from over_sockets import LIMIT, ask, begin, good, reachable, served, started, until

from kit.serve import http_server
from kit.serve.server import Settings

EXPECT = "Expect: 100-continue\r\n"


def request(method, path, body=b"", kind="image/png", more="") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def requests_of(photo) -> list[bytes]:
    """Requests of several kinds, of which some are refused."""
    large = photo + bytes(LIMIT - len(photo) - 1)
    chunked = request("POST", "/v1/predict", more="Transfer-Encoding: chunked\r\n")
    return [
        *[request("POST", "/v1/predict", photo)] * 6,
        request("POST", "/v1/predict", large, more=EXPECT),
        chunked.replace(b"Content-Length: 0\r\n", b"") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(photo), photo),
        request("GET", "/v1/model"),
        request("HEAD", "/v2/health/live"),
        request("OPTIONS", "/v1/predict"),
        request("POST", "/v1/nothing", photo),
    ]


async def answer(reader, method) -> tuple[int, bool]:
    """The status of the next answer, and whether it says that the connection will be closed."""
    status = 100
    while status == 100:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        status = int(head.split()[1])
    headers = dict(line.split(": ", 1) for line in head.strip().split("\r\n")[1:])
    if method != b"HEAD":
        await reader.readexactly(int(headers["content-length"]))
    return status, headers.get("connection") == "close"


async def client(port, requests, think, until_closed, seen) -> None:
    """Ask again and again on one connection, until the server accepts no new one."""
    connection = None
    while until_closed() or connection:
        if connection is None:
            try:
                connection = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return
        reader, writer = connection
        sent = random.choice(requests)
        try:
            writer.write(sent)
            status, close = await answer(reader, sent.split()[0])
            seen[status] += 1
        except (OSError, asyncio.IncompleteReadError) as error:
            seen[f"lost: {sent[:30]} {error!r}"] += 1
            close = True
        seen["told"] += close
        if close or not until_closed():
            writer.close()
            connection = None
        await asyncio.sleep(random.uniform(0, think))


async def crowd(port, photo, clients, think, seconds, stop) -> Counter:
    """Clients that keep their connections, `stop` in the middle; how often each status was seen, and what was lost."""
    seen, open_ = Counter(), True

    async def end():
        nonlocal open_
        await asyncio.sleep(seconds / 2)
        stop()
        await asyncio.sleep(seconds / 2)
        open_ = False

    requests = requests_of(photo)
    users = [client(port, requests, think, lambda: open_, seen) for _ in range(clients)]
    await asyncio.gather(end(), *users)
    return seen


def lost(seen) -> list[str]:
    return [name for name in seen if str(name).startswith("lost")]


def test_48_a_stop_loses_no_request_of_clients_that_keep_their_connections(predictor, photo):
    with served(predictor) as server:
        stop = lambda: server.process.handle_exit(signal.SIGTERM, None)  # noqa: E731
        seen = asyncio.run(crowd(server.port, photo, 20, 0.2, 2.0, stop))
        assert not lost(seen), seen
        assert seen["told"] >= 20
        assert seen[200] > 20


@pytest.mark.slow
def test_48_two_hundred_kept_clients_for_thirty_seconds_lose_nothing(run, photo):
    with started(run.bundle) as (port, server):
        seen = asyncio.run(crowd(port, photo, 200, 2.0, 30.0, lambda: server.send_signal(signal.SIGTERM)))
        print(seen)
        assert not lost(seen), seen
        assert server.wait(30) == 0
        assert seen["told"] >= 200


def test_48_a_connection_that_is_used_is_not_closed_and_an_unused_one_is_kept(predictor, photo, monkeypatch):
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.3)
    with served(predictor) as server:

        async def use():
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            for pause in (0.1, 0.1, 0.1, 0.1, 0.7, 0.1):
                writer.write(request("POST", "/v1/predict", photo))
                assert await answer(reader, b"POST") == (200, False)
                await asyncio.sleep(pause)
            writer.write(b"GET /v1/model HTTP/1.1\r\n")
            assert await reader.read() == b"", "an unfinished head is not waited for"

        asyncio.run(use())


def test_48_a_body_of_which_nobody_waits_for_the_rest_is_not_waited_for(predictor, photo, monkeypatch):
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr("kit.serve.middleware.DISCARD_SECONDS", 0.1)
    with served(predictor) as server:
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=15)
        connection.sendall(request("POST", "/v1/nothing", photo)[:-1])
        stream = connection.makefile("rb")
        assert stream.readline() == b"HTTP/1.1 404 Not Found\r\n"
        stream.read()
        assert good(server.port, photo)


def test_48_requests_sent_together_are_answered_in_turn_until_the_answer_that_says_close(predictor, photo):
    with served(predictor) as server:

        async def pipeline(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request("POST", "/v1/predict", photo) * count)
            return [await answer(reader, b"POST") for _ in range(count)]

        assert asyncio.run(pipeline(5)) == [(200, False)] * 5
        server.state.ready = False
        assert asyncio.run(pipeline(1)) == [(200, True)]


def test_48_connections_that_wait_to_be_accepted_when_the_server_stops_are_served(predictor, photo):
    with served(predictor) as server:
        server.process.linger = 15.0
        early = begin(server.port, photo, 0)
        server.process.should_exit = True
        early.sendall(photo)
        assert early.makefile("rb").readline().startswith(b"HTTP/1.1 200")
        early.close()
        until(lambda: not reachable(server.port))


def test_48_a_keep_alive_longer_than_that_of_proxies():
    assert http_server.KEEP_ALIVE_SECONDS > 60
    assert http_server.HEAD_SECONDS + Settings().patience / 2 <= 15


def test_48_every_method_is_answered_while_the_server_drains(predictor):
    with served(predictor) as server:
        server.state.ready = False
        for method in ("GET", "HEAD", "OPTIONS", "PUT"):
            assert ask(server.port, method, "/v1/model")[1]["connection"] == "close"
        assert ask(server.port, "GET", "/v2/health/ready")[0] == 503
