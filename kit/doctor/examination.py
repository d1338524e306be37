"""The whole examination: facts about this machine, each from its own module, and what they mean.

findings = examine(gather())
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from kit.doctor.findings import Finding, note
from kit.doctor.fixes import Fixes
from kit.doctor.gpu import about_gpu, nvidia
from kit.doctor.network import about_network, hosts, proxies
from kit.doctor.packages import about_packages, about_python, installed, python
from kit.doctor.probe_process import about_imports, answer, ask
from kit.doctor.resources import about_files, about_machine, machine, places, shipped, system

IMPORT_SECONDS, HOST_SECONDS = 180, 5
SUBJECTS = (about_python, about_packages, about_imports, about_gpu, about_machine, about_files, about_network)


def gather(network: bool = False, seconds: float = IMPORT_SECONDS) -> SimpleNamespace:
    """All facts that `examine` judges; one that cannot be found is missing, and `unseen` says why.

    network: connect to the hosts that downloads come from; else no connection is made. seconds: how long torch and
    fastai may take to import, in another process.
    """
    process = ask()
    looks: dict[str, Callable[[], Any]] = {
        "python": python,
        "packages": installed,
        "system": system,
        "nvidia": nvidia,
        "machine": machine,
        "places": places,
        "shipped": shipped,
        "proxies": proxies,
        "hosts": lambda: hosts(HOST_SECONDS) if network else None,
        "torch": lambda: answer(process, seconds),
    }
    facts = SimpleNamespace(unseen=[])
    for name, look in looks.items():
        try:
            setattr(facts, name, look())
        except Exception as error:
            facts.unseen.append(f"{name}: {type(error).__name__}: {error}")
    return facts


def examine(facts: SimpleNamespace) -> list[Finding]:
    """What the facts mean, in the order in which a person would look: Python first, the network last."""
    findings: list[Finding] = []
    for subject in SUBJECTS:
        try:
            findings += subject(facts, Fixes(facts))
        except AttributeError:  # facts that could not be found
            if not facts.unseen:
                raise
    fix = "the lines about it are missing here; fix that error first"
    findings += [note("doctor", f"could not look at {text}", fix) for text in facts.unseen]
    return list(dict.fromkeys(findings))
