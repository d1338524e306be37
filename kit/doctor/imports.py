"""Do torch, torchvision and fastai import? What the process said that tried.

about_imports(facts)
"""

import re
from collections.abc import Iterator

from kit.doctor import mends
from kit.doctor.facts import Facts, Finding, fine, note, wrong
from kit.doctor.known import CUDA, IMPORTS, recognised

SLOW_SECONDS = 60
MODULES = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "typing_extensions": "typing-extensions"}
ILLEGAL, KILLED = (-4, 132, 0xC000001D), (-9, 137)


def about_imports(facts: Facts) -> Iterator[Finding]:
    """How the imports ended: well, slowly, with an error, with a crash, or never. A missing torch is told elsewhere."""
    torch = facts.torch
    if torch.failed in ("torch", "torchvision", "fastai"):
        if facts.package(torch.failed):
            yield from _failed(facts)
    elif torch.done:
        seconds = ", ".join(f"{name} {torch.seconds[name]:.1f} s" for name in torch.done if name != "gpu")
        yield fine("imports", f"they work ({seconds})")
        if sum(torch.seconds.values()) > SLOW_SECONDS:
            what = "they take very long: a slow or far disk, or a virus scanner that reads every file"
            yield note("imports", what, f"put the environment on this machine's own disk: {mends.fresh(facts)}")
    if torch.numpy_error and facts.package("numpy"):
        what = f"torch cannot hand arrays to it ({last_line(torch.numpy_error)})"
        yield wrong("numpy", what, mends.commands(facts)["numpy"])


def _failed(facts: Facts) -> Iterator[Finding]:
    torch = facts.torch
    if torch.exit is None:
        what = "the import did not end in time"
        yield wrong(torch.failed, what, f"try once more (the first import is slow), else: {mends.fresh(facts)}")
    elif absent := re.search(r"No module named '(\w+)", torch.error):
        yield from _absent(facts, MODULES.get(absent[1], absent[1]))
    else:
        known = recognised(IMPORTS, torch.error, facts) or recognised(CUDA, torch.error, facts)
        yield known or _crashed(facts) or _unknown(facts)


def _absent(facts: Facts, name: str) -> Iterator[Finding]:
    """A module that is not there. A missing package that another one wants is told with the packages."""
    package = facts.package(name)
    if package:
        what = f"a part of {name} {package.version} is gone"
        yield wrong(name, what, mends.again(facts, "--no-deps", f"{name}=={package.version}"))
    elif not any(re.match(rf"{name}\b", text) for one in facts.packages if one.ours for text in one.requires):
        yield wrong(name, f"import {facts.torch.failed} needs it, and it is missing", mends.install(facts, name))


def _crashed(facts: Facts) -> Finding | None:
    torch = facts.torch
    if torch.exit in ILLEGAL:
        what = "the processor lacks instructions that it was compiled for (AVX2)"
        mend = "use a processor of 2013 or later; in a virtual machine, hand the host's processor through"
        return wrong(torch.failed, what, mend)
    if torch.exit in KILLED:
        what = "the system ended the import, most likely for want of memory"
        return wrong(torch.failed, what, "end other programs, or give this machine or its container at least 8 GB")
    if torch.exit and (torch.exit < 0 or torch.exit > 128):
        what = f"the import crashed (exit code {torch.exit}): a file is damaged, or libraries do not fit each other"
        return wrong(torch.failed, what, mends.commands(facts)["crash"])
    return None


def _unknown(facts: Facts) -> Finding:
    """The error as it is; a package that was damaged is best installed anew."""
    name = facts.torch.failed
    package = facts.package(name)
    mend = f"{mends.again(facts, f'{name}=={package.version}')}   (if that does not help: {mends.fresh(facts)})"
    return wrong(name, f"import {name} fails: {last_line(facts.torch.error)}", mend)


def last_line(text: str) -> str:
    """The line of a traceback that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no reason given"
