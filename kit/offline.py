"""Offline mode (KIT_OFFLINE=1, HF_HUB_OFFLINE=1, --offline), and a quick check whether a host can be reached.

offline()                                        # 'KIT_OFFLINE=1', or None
check_connection("https://huggingface.co")       # OSError within seconds where it cannot be reached
"""

import os
import socket
from urllib.parse import urlsplit
from urllib.request import getproxies

TIMEOUT_SECONDS = 3
LEAST_SECONDS = 1
SWITCHES = ("KIT_OFFLINE", "HF_HUB_OFFLINE")
YES = ("1", "ON", "YES", "TRUE")


def offline() -> str | None:
    """The environment variable that turns on offline mode, as "KIT_OFFLINE=1", or None where the network may be used.

    HF_HUB_OFFLINE is Hugging Face's own switch; kit obeys it for all hosts.
    """
    values = ((name, os.environ.get(name, "")) for name in SWITCHES)
    return next((f"{name}={value}" for name, value in values if value.upper() in YES), None)


def check_connection(url: str) -> None:
    """Connect to the host of `url` once. Raises `OSError` within seconds where that fails.

    HTTP clients wait for minutes instead, for each address of the host in turn. Skipped where a proxy is configured,
    because then only the proxy resolves the host.
    """
    parts = urlsplit(url)
    if getproxies().get(parts.scheme):
        return
    port = parts.port or (80 if parts.scheme == "http" else 443)
    addresses = [address for *_, address in socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)]
    failure: OSError = TimeoutError("no address")
    for address in addresses:
        try:
            return socket.create_connection(address[:2], max(TIMEOUT_SECONDS / len(addresses), LEAST_SECONDS)).close()
        except OSError as error:
            failure = error
    raise failure


def go_offline() -> None:
    """Turn on offline mode for kit, Hugging Face's client, and processes started later."""
    os.environ.update(dict.fromkeys(SWITCHES, "1"))
