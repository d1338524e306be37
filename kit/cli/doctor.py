"""kit doctor: check this machine, and print how to fix problems."""

import sys
from typing import Annotated

import typer

from kit.console import say, terminal

Network = Annotated[bool, typer.Option("--network", help="also connect to the hosts of downloads")]
Json = Annotated[bool, typer.Option("--json", help="print findings and facts as JSON")]


def doctor(network: Network = False, as_json: Json = False) -> None:
    """Check Python, packages, driver, CUDA, cuDNN, GPU, memory, disk, kit's files; exit code 1 if one is wrong."""
    from kit.doctor.examination import examine, gather
    from kit.doctor.findings import lines, show, to_json

    if terminal():
        say("importing torch and fastai to see whether they work; it takes some seconds ...")
    facts = gather(network)
    findings = examine(facts)
    if as_json:
        print(to_json(facts, findings))
    elif sys.stdout.isatty():
        show(findings)
    else:
        print("\n".join(lines(findings)))
    if any(finding.verdict == "wrong" for finding in findings):
        raise typer.Exit(1)
