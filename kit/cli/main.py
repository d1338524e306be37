"""The program `kit`: errors are printed in red with their fix, without traceback.

kit --help
"""

import sys
from collections.abc import Sequence
from importlib import import_module

import typer

from kit import processes
from kit.cli.script import guarded

COMMANDS = (
    "demo",
    "check",
    "clean",
    "label",
    "fine-tune",
    "tune",
    "runs",
    "rates",
    "explain",
    "evaluate",
    "compare",
    "predict",
    "export",
    "convert",
    "serve",
    "space",
    "weights",
    "cache",
    "doctor",
)


def application(names: Sequence[str] = COMMANDS) -> typer.Typer:
    """The program with these commands. Other commands are not imported, so that `kit predict` starts fast."""
    app = typer.Typer(
        name="kit",
        help="Turn a folder of labelled images into a model that people can trust, share and see through.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(lambda: None)  # with a callback, an application of one command still expects the command's name
    for name in names:
        function = name.replace("-", "_")
        app.command(name)(getattr(import_module(f"kit.cli.{function}"), function))
    return app


def run() -> None:
    """Run the command line."""
    asked = sys.argv[1:2]
    if asked and asked[0] in COMMANDS and asked != ["fine-tune"]:
        guarded(lambda: processes.check_alone(f"kit {asked[0]}"))
    guarded(application(asked if asked and asked[0] in COMMANDS else COMMANDS))


if __name__ == "__main__":
    run()
