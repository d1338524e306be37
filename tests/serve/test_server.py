"""Listening on an address: each way to fail says what is wrong and how to mend it."""

import os
import socket

import pytest

from kit.errors import KitError
from kit.serve.server import bind


@pytest.mark.parametrize(
    "host, reason, fix",
    [
        ("10.99.99.99", "it is no address of this machine", "--host 127.0.0.1 for this machine alone"),
        ("nosuchname.invalid", "this name has no address", "check its spelling"),
        ("http://127.0.0.1", "this name has no address", "give the address alone, like 127.0.0.1"),
        ("127.0.0.1:8000", "this name has no address", "give the address alone, like 127.0.0.1"),
        ("", "this name has no address", "check its spelling"),
        ("*", "this name has no address", "check its spelling"),
        ("x" * 300, "this name has no address", "check its spelling"),
        ("a\0b", "this name has no address", "check its spelling"),
    ],
)
def test_an_address_that_cannot_be_used_is_not_blamed_on_the_port(host, reason, fix):
    with pytest.raises(KitError) as caught:
        bind(host, 0)
    assert reason in caught.value.problem
    assert fix in caught.value.fix
    assert "--port" not in caught.value.fix


def test_a_port_in_use_is_said_with_another():
    with bind("localhost", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(KitError, match=f"127.0.0.1:{port} cannot be used: the port is in use") as caught:
            bind("127.0.0.1", port)
        assert caught.value.fix == f"choose another: --port {port + 1}"


def test_a_port_of_the_administrator_is_said(monkeypatch):
    def refuse(*given, **options):
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(KitError, match="127.0.0.1:80 cannot be used: ports below 1024") as caught:
        bind("127.0.0.1", 80)
    assert caught.value.fix == "--port 7860, with a reverse proxy in front of it"


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_an_ipv6_address_may_stand_in_brackets():
    try:
        listener = bind("[::1]", 0)
    except KitError:
        pytest.skip("this machine has no IPv6")
    with listener:
        assert listener.getsockname()[0] == "::1"
