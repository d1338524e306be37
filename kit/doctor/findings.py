"""Findings, and how they are shown: a line each in a log, coloured on a terminal, as JSON for programs.

print("\\n".join(lines(findings)))
"""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

STYLES = {"wrong": "bold red", "note": "yellow", "fine": "green"}
GB = 1_000_000_000


@dataclass(frozen=True)
class Finding:
    """A line of the report. verdict: "fine", "note" (it works, but slower or at a risk) or "wrong"; fix: what to do."""

    verdict: str
    name: str
    what: str
    fix: str = ""


fine, note, wrong = (partial(Finding, verdict) for verdict in ("fine", "note", "wrong"))


def size(count: float) -> str:
    """A number of bytes for people: 45 MB, 1.4 GB."""
    return f"{count / GB:.1f} GB" if count >= GB else f"{count / 1e6:.0f} MB"


def last_line(text: str) -> str:
    """The line of a traceback that says what went wrong."""
    return (text.strip().splitlines() or ["no reason given"])[-1].strip()[:300]


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    return {verdict: sum(finding.verdict == verdict for finding in findings) for verdict in STYLES}


def _heads(findings: Sequence[Finding]) -> list[str]:
    """Verdict and name of each finding, in columns."""
    width = max((len(finding.name) for finding in findings), default=0)
    return [f"{one.verdict:<5}  {one.name:<{width}}  " for one in findings]


def lines(findings: Sequence[Finding]) -> list[str]:
    """A line for each finding, which ends with its fix, and a last line that counts them."""
    rows = zip(_heads(findings), findings, strict=True)
    total = ", ".join(f"{count} {verdict}" for verdict, count in _counts(findings).items())
    return [*(head + one.what + (f"; fix: {one.fix}" if one.fix else "") for head, one in rows), total]


def show(findings: Sequence[Finding]) -> None:
    """Print the same in colour, wrapped in its own column; a fix has its own line and is not wrapped, to be copied."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for head, one in zip(_heads(findings), findings, strict=True):
        indent = " " * len(head)
        text = textwrap.fill(head + one.what, console.width, subsequent_indent=indent, break_on_hyphens=False)
        console.print(Text.assemble((text[:5], STYLES[one.verdict]), text[5:]))
        if one.fix:
            console.print(Text.assemble(indent, ("fix: ", "bold"), one.fix))
    console.print(lines(findings)[-1])


def to_json(facts: SimpleNamespace, findings: Sequence[Finding]) -> str:
    """Findings, their counts and the facts behind them."""
    return json.dumps({**_counts(findings), "findings": findings, "facts": facts}, default=vars)
