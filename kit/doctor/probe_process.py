"""Run `kit.doctor.probe` in another process with a time limit, and read its facts however it ended.

torch = answer(ask(), seconds=120)
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

from kit.doctor import probe
from kit.doctor.error_patterns import recognised
from kit.doctor.findings import Finding, fine, last_line, note, wrong
from kit.doctor.fixes import Fixes

LAST_CHARACTERS = 4000
SLOW_SECONDS = 60
PACKAGES = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "typing_extensions": "typing-extensions"}
ILLEGAL, KILLED = (-4, 132, 0xC000001D), (-9, 137)


def ask() -> subprocess.Popen:
    """Start the process; it runs while other facts are gathered. -P: the current folder is not on its path."""
    command, pipe = [sys.executable, "-P", probe.__file__], subprocess.PIPE
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, encoding="utf-8", errors="replace"
    )


def answer(process: subprocess.Popen, seconds: float) -> SimpleNamespace:
    """The facts that the process found; it is stopped when it takes longer than `seconds`."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        return read(out, err, None)
    return read(out, err, process.returncode)


def read(out: str, err: str, code: int | None) -> SimpleNamespace:
    """The facts in the last line that the process marked; code: its exit code, None where it was stopped."""
    marked = [line.removeprefix(probe.MARK) for line in out.splitlines() if line.startswith(probe.MARK)]
    facts = SimpleNamespace(**(json.loads(marked[-1]) if marked else probe.FACTS), exit=code)
    facts.devices = [SimpleNamespace(**device) for device in facts.devices]
    if facts.failed:
        facts.error = (facts.error or err)[-LAST_CHARACTERS:].strip()
    return facts


def about_imports(facts: SimpleNamespace, fix: Fixes) -> Iterator[Finding]:
    """How the imports ended: well, slowly, with an error, with a crash, or never."""
    torch = facts.torch
    if torch.failed in ("torch", "torchvision", "fastai"):
        if torch.failed in fix.packages:  # one that is missing is reported with the packages
            yield from filter(None, [_failed(facts, fix)])
    else:
        seconds = ", ".join(f"{name} {torch.seconds[name]:.1f} s" for name in torch.done if name != "gpu")
        yield fine("imports", f"they work ({seconds})")
        if sum(torch.seconds.values()) > SLOW_SECONDS:
            what = "they take very long: a slow or far disk, or a virus scanner that reads every file"
            yield note("imports", what, f"put the environment on this machine's own disk: {fix.new_environment}")
    if torch.numpy_error and "numpy" in fix.packages:
        yield wrong("numpy", f"torch cannot hand arrays to it ({last_line(torch.numpy_error)})", fix.numpy)
    if torch.precision:
        yield fine("precision", f"{torch.precision}, on {torch.device}")


def _failed(facts: SimpleNamespace, fix: Fixes) -> Finding | None:
    """Why an import failed; None where the reason is reported with the packages."""
    torch, name = facts.torch, facts.torch.failed
    if torch.exit is None:
        command = f"try once more (the first import is slow), else: {fix.new_environment}"
        return wrong(name, "the import did not end in time", command)
    if absent := re.search(r"No module named '(\w+)", torch.error):
        return _absent(PACKAGES.get(absent[1], absent[1]), name, fix)
    if known := recognised(torch.error, facts):
        return known
    if torch.exit in ILLEGAL:
        command = "use a processor of 2013 or later; in a virtual machine, pass the host's processor through"
        return wrong(name, "the processor lacks instructions that it was compiled for (AVX2)", command)
    if torch.exit in KILLED:
        command = "end other programs, or give this machine or its container at least 8 GB"
        return wrong(name, "the system ended the import, most likely because memory was short", command)
    if torch.exit < 0 or torch.exit > 128:
        what = f"the import crashed (exit code {torch.exit}): a file is damaged, or libraries do not fit each other"
        return wrong(name, what, fix.libraries)
    again = fix.reinstall(f"{name}=={fix.packages[name].version}")
    what = f"import {name} fails: {last_line(torch.error)}"
    return wrong(name, what, f"{again}   (if that does not help: {fix.new_environment})")


def _absent(name: str, importing: str, fix: Fixes) -> Finding | None:
    """A module that is missing: a part of a package, or a package that no other requires."""
    if name in fix.packages:
        version = fix.packages[name].version
        return wrong(name, f"a part of {name} {version} is gone", fix.reinstall("--no-deps", f"{name}=={version}"))
    if any(re.match(rf"{name}\b", text) for package in fix.packages.values() for text in package.requires):
        return None
    return wrong(name, f"import {importing} needs it, and it is missing", fix.install(name))
