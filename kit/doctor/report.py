"""The findings for people: aligned and coloured on a terminal, a line each in a log; and for programs.

print("\\n".join(lines(findings)))
"""

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from kit.doctor.facts import Facts, Finding

VERDICTS = ("wrong", "note", "fine")
STYLES = {"wrong": "bold red", "note": "yellow", "fine": "green"}


def lines(findings: Sequence[Finding]) -> list[str]:
    """A line a finding, its mend behind it, and a last line that counts them."""
    wide = max((len(finding.name) for finding in findings), default=0)
    rows = [f"{one.verdict:<5}  {one.name:<{wide}}  {one.what}" for one in findings]
    mends = [f"; mend: {one.mend}" if one.mend else "" for one in findings]
    return [*map(str.__add__, rows, mends), summary(findings)]


def summary(findings: Sequence[Finding]) -> str:
    """How many findings of each verdict there are."""
    counts = Counter(finding.verdict for finding in findings)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)


def show(findings: Sequence[Finding]) -> None:
    """The same in colour, wrapped under its own column; a mend stands on a line of its own, whole, to be copied."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    wide = max((len(finding.name) for finding in findings), default=0)
    indent = " " * (wide + 9)
    for one in findings:
        wrapped = textwrap.wrap(one.what, max(20, console.width - len(indent)), break_on_hyphens=False) or [""]
        first = Text.assemble((f"{one.verdict:<5}", STYLES[one.verdict]), f"  {one.name:<{wide}}  {wrapped[0]}")
        for line in (first, *(indent + rest for rest in wrapped[1:])):
            console.print(line, soft_wrap=True, markup=False)
        if one.mend:
            console.print(Text.assemble(indent, ("mend: ", "bold"), one.mend), soft_wrap=True)
    console.print(summary(findings), soft_wrap=True, markup=False)


def to_json(facts: Facts, findings: Sequence[Finding]) -> dict[str, Any]:
    """Findings, their counts and the facts behind them, as plain JSON values."""
    counts = Counter(finding.verdict for finding in findings)
    return {
        **{verdict: counts[verdict] for verdict in VERDICTS},
        "findings": [asdict(finding) for finding in findings],
        "facts": asdict(facts),
    }
