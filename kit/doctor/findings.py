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


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """How many findings of each verdict there are."""
    return {verdict: sum(finding.verdict == verdict for finding in findings) for verdict in STYLES}


def _rows(findings: Sequence[Finding]) -> list[tuple[str, Finding]]:
    """Verdict and name of each finding, aligned, before it."""
    width = max((len(finding.name) for finding in findings), default=0)
    return [(f"{one.verdict:<5}  {one.name:<{width}}  ", one) for one in findings]


def lines(findings: Sequence[Finding]) -> list[str]:
    """A line for each finding with its fix behind it, and a last line that counts them."""
    rows = [head + one.what + (f"; fix: {one.fix}" if one.fix else "") for head, one in _rows(findings)]
    return [*rows, ", ".join(f"{count} {verdict}" for verdict, count in counts(findings).items())]


def show(findings: Sequence[Finding]) -> None:
    """The same in colour, wrapped under its own column; a fix is on a line of its own, whole, to be copied."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for head, one in _rows(findings):
        indent = " " * len(head)
        text = textwrap.fill(head + one.what, console.width, subsequent_indent=indent, break_on_hyphens=False)
        console.print(Text.assemble((text[:5], STYLES[one.verdict]), text[5:]), soft_wrap=True)
        if one.fix:
            console.print(Text.assemble(indent, ("fix: ", "bold"), one.fix), soft_wrap=True)
    console.print(lines(findings)[-1], soft_wrap=True)


def to_json(facts: SimpleNamespace, findings: Sequence[Finding]) -> str:
    """Findings, their counts and the facts behind them."""
    return json.dumps({**counts(findings), "findings": findings, "facts": facts}, default=vars, ensure_ascii=False)
