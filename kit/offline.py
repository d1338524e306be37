"""Whether the network may be asked at all: KIT_OFFLINE=1, HF_HUB_OFFLINE=1 or --offline forbid every request.

offline()                                        # 'KIT_OFFLINE=1', or None
look("https://huggingface.co")                   # OSError at once where it cannot be reached
"""

import os
import socket
from urllib.parse import urlsplit
from urllib.request import getproxies

LOOK_SECONDS = 3
FEWEST_SECONDS = 1
SWITCHES = ("KIT_OFFLINE", "HF_HUB_OFFLINE")
YES = ("1", "ON", "YES", "TRUE")


def offline() -> str | None:
    """The environment variable that forbids every request, as "KIT_OFFLINE=1"; None where the network may be asked.

    HF_HUB_OFFLINE is Hugging Face's own; whoever sets it has no network, so that kit asks nobody else either.
    """
    values = ((name, os.environ.get(name, "")) for name in SWITCHES)
    return next((f"{name}={value}" for name, value in values if value.upper() in YES), None)


def look(url: str) -> None:
    """Connect once to the host of an address. Raises `OSError`, within seconds, where no connection comes about.

    Clients wait longer, for each of the host's addresses. With a proxy nothing is tried: it alone knows the host.
    """
    parts = urlsplit(url)
    if getproxies().get(parts.scheme):
        return
    port = parts.port or (80 if parts.scheme == "http" else 443)
    places = [place for *_, place in socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)]
    failure: OSError = TimeoutError("no address")
    for place in places:
        try:
            return socket.create_connection(place[:2], max(LOOK_SECONDS / len(places), FEWEST_SECONDS)).close()
        except OSError as error:
            failure = error
    raise failure


def go_offline() -> None:
    """From here on nothing is asked of the network, by kit, by Hugging Face's client, or by a process started later."""
    os.environ.update(dict.fromkeys(SWITCHES, "1"))
