"""Proxies, and, only when asked, whether the hosts answer that downloads come from.

hosts(seconds=5)
"""

import os
import ssl
import threading
from collections.abc import Sequence
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener, getproxies

from kit.data.datasets import PETS_SOURCES
from kit.doctor.facts import Host


def proxies() -> dict[str, str]:
    """The proxies that downloads go through, by scheme, without names and passwords; "no" lists what goes directly."""
    return {scheme: address if scheme == "no" else _host(address) for scheme, address in getproxies().items()}


def _host(address: str) -> str:
    """Host and port of an address, without a password; a proxy may be given without a scheme."""
    return urlsplit(address if "//" in address else f"//{address}").netloc.rpartition("@")[2]


def addresses() -> list[tuple[str, str]]:
    """What kit may download from, and what is to be had there."""
    hub = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    pets = [(f"https://{source.host}/", "Oxford Pets") for source in PETS_SOURCES]
    index = os.environ.get("PIP_INDEX_URL")
    packages = [(f"https://{_host(index)}/", "packages")] if index else []  # its path may hold a password
    return [
        ("https://download.pytorch.org/", "torchvision's weights"),
        (hub, "timm's weights, Spaces"),
        *pets,
        *packages,
    ]


def hosts(seconds: float, places: Sequence[tuple[str, str]] | None = None) -> tuple[Host, ...]:
    """Ask every host at once for its headers; each has `seconds` in all, the look-up of its name included."""
    places = addresses() if places is None else places
    answers: dict[str, Host] = {}

    def ask(address: str, use: str) -> None:
        answers[address] = reach(address, use, seconds)

    threads = [threading.Thread(target=ask, args=one, daemon=True) for one in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    late = f"no answer in {seconds:g} s"
    return tuple(answers.get(address) or Host(_host(address), use, error=late) for address, use in places)


def reach(address: str, use: str, seconds: float) -> Host:
    """One host's answer. A refusal by the server (404) is an answer too; a proxy's demand for a password is not."""
    try:
        with build_opener().open(Request(address, method="HEAD"), timeout=seconds) as response:
            return Host(_host(address), use, answer=str(response.status))
    except HTTPError as error:
        kind = "error" if error.code == 407 else "answer"
        return Host(_host(address), use, **{kind: f"{error.code} {error.reason}"})
    except (OSError, ValueError) as error:
        cause = error.reason if isinstance(error, URLError) else error
        said = f"certificate: {cause.verify_message}" if isinstance(cause, ssl.SSLCertVerificationError) else str(cause)
        return Host(_host(address), use, error=said or type(cause).__name__)
