"""Asking another process what torch says, with a time limit, and reading its answer however it ended.

torch = answer_of(ask(), seconds=120)
"""

import json
import subprocess
import sys
from typing import Any

from kit.doctor import probe
from kit.doctor.facts import Device, Torch

LAST_CHARACTERS = 4000


def ask() -> subprocess.Popen:
    """Start the process; it goes on while other facts are gathered. -P: the current folder does not count."""
    return subprocess.Popen(
        [sys.executable, "-P", probe.__file__],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )


def answer_of(process: subprocess.Popen, seconds: float) -> Torch:
    """What the process said; it is stopped when it takes longer than `seconds`."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        return read(out, err, None)
    return read(out, err, process.returncode)


def read(out: str, err: str, code: int | None) -> Torch:
    """The facts in what a process wrote. A stage that began and neither ended nor failed is where it crashed."""
    values: dict[str, Any] = {"done": (), "seconds": {}, "exit": code}
    begun = ""
    for line in out.splitlines():
        if not line.startswith(probe.MARK):
            continue
        said = json.loads(line.removeprefix(probe.MARK))
        begun = said.pop("begun", begun)
        if ended := said.pop("ended", ""):
            values["done"] += (ended,)
            values["seconds"] = values["seconds"] | {ended: said.pop("seconds")}
            begun = ""
        values |= said
    if begun or (code != 0 and not values["done"]):
        said = values.get("error") or err
        values |= {"failed": begun or "torch", "error": said[-LAST_CHARACTERS:].strip()}
    devices = tuple(Device(**{**one, "capability": _pair(one.get("capability"))}) for one in values.get("devices", ()))
    return Torch(**{**values, "devices": devices, "architectures": tuple(values.get("architectures", ()))})


def _pair(numbers: list[int] | None) -> tuple[int, int] | None:
    return (numbers[0], numbers[1]) if numbers else None
