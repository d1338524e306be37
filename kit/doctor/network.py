"""Proxies, and, only when asked, whether the hosts answer that downloads come from.

hosts(seconds=5); about_network(facts, Fixes(facts))
"""

import os
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener, getproxies

from kit.data.datasets import PETS_SOURCES
from kit.doctor.findings import Finding, fine, note, wrong
from kit.doctor.fixes import Fixes


def proxies() -> dict[str, str]:
    """The proxies that downloads go through, by scheme, without names and passwords; "no" lists what goes directly."""
    return {scheme: address if scheme == "no" else _host(address) for scheme, address in getproxies().items()}


def _host(address: str) -> str:
    """Host and port of an address, without a password; a proxy may be given without a scheme."""
    return urlsplit(address if "//" in address else f"//{address}").netloc.rpartition("@")[2]


def addresses() -> dict[str, str]:
    """The addresses that kit may download from, and what it gets there."""
    index = os.environ.get("PIP_INDEX_URL")
    return {
        "https://download.pytorch.org/": "torchvision's weights",
        os.environ.get("HF_ENDPOINT") or "https://huggingface.co": "timm's weights, Spaces",
        **{f"https://{source.host}/": "Oxford Pets" for source in PETS_SOURCES},
        **({f"https://{_host(index)}/": "packages"} if index else {}),  # its path may hold a password
    }


def hosts(seconds: float) -> list[SimpleNamespace]:
    """Ask every host at once for its headers; each has `seconds` to connect, and as many to answer."""
    with ThreadPoolExecutor() as pool:
        return [*pool.map(lambda one: reach(*one, seconds), addresses().items())]


def reach(address: str, use: str, seconds: float) -> SimpleNamespace:
    """One host's answer. A refusal by the server (404) is an answer too; a proxy's demand for a password is not."""
    answer = error = ""
    try:
        with build_opener().open(Request(address, method="HEAD"), timeout=seconds) as response:
            answer = str(response.status)
    except HTTPError as failure:
        text = f"{failure.code} {failure.reason}"
        answer, error = ("", text) if failure.code == 407 else (text, "")
    except (OSError, ValueError) as failure:
        cause = failure.reason if isinstance(failure, URLError) else failure
        error = str(cause) or type(cause).__name__
        if isinstance(cause, ssl.SSLCertVerificationError):
            error = f"certificate: {cause.verify_message}"
    return SimpleNamespace(name=_host(address), use=use, answer=answer, error=error)


def about_network(facts: SimpleNamespace, fix: Fixes) -> Iterator[Finding]:
    """Proxies, offline mode, and the hosts where they were asked."""
    outward = {scheme: host for scheme, host in facts.proxies.items() if scheme in ("http", "https", "all")}
    if outward:
        yield fine("proxy", ", ".join(f"{scheme} by {host}" for scheme, host in sorted(outward.items())))
    direct = facts.proxies.get("no", "")
    if outward.keys() - {"https"} and not any(word in direct for word in ("localhost", "127.0.0.1", "*")):
        what = "requests to this machine itself go to the proxy too: programs here cannot ask kit serve"
        yield note("proxy", what, fix.set("NO_PROXY", "localhost,127.0.0.1"))
    if facts.system.variables.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        yield note("network", "HF_HUB_OFFLINE is set: nothing comes from the Hub", fix.unset("HF_HUB_OFFLINE"))
    if facts.hosts is None:
        yield fine("network", "not asked (kit doctor --network asks the hosts that downloads come from)")
    for host in facts.hosts or ():
        text = f"{host.name} ({host.use})"
        if host.error:
            yield wrong("network", f"{text}: {host.error}", _fix(facts, fix, host))
        else:
            yield fine("network", f"{text} answers ({host.answer})")


def _fix(facts: SimpleNamespace, fix: Fixes, host: SimpleNamespace) -> str:
    """What to do about a host; a name that is not found means no network, unless others answered."""
    if "certificate" in host.error and facts.system.name == "Darwin":
        version = ".".join(facts.python.version.split(".")[:2])
        return f'open "/Applications/Python {version}/Install Certificates.command"'
    if "certificate" in host.error:
        return f"{fix.set('SSL_CERT_FILE', 'YOUR_COMPANYS_CERTIFICATES.pem')}   (never switch the check off)"
    if "407" in host.error:
        return fix.set("HTTPS_PROXY", "http://NAME:PASSWORD@PROXY:PORT")
    unnamed = any(text in host.error for text in ("Name or service", "getaddrinfo", "name resolution", "nodename"))
    if unnamed and all(other.error for other in facts.hosts):
        proxy = fix.set("HTTPS_PROXY", "http://PROXY:PORT")
        return f"no name is found: connect this machine, or name your proxy: {proxy}"
    return f"let your firewall or proxy pass {host.name}, or bring the files by hand: kit says which go where"
