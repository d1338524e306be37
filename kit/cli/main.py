"""The command `kit`: one file a command, and errors as one red line with their fix, never a traceback.

kit --help
"""

from collections.abc import Callable

import typer

from kit.cli import check, compare, demo, evaluate, export, fine_tune, predict, serve, space
from kit.cli.script import guarded

app = typer.Typer(
    name="kit",
    help="Turn a folder of labelled images into a classifier that people can trust, share and see through.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
COMMANDS: dict[str, Callable] = {
    "demo": demo.demo,
    "check": check.check,
    "fine-tune": fine_tune.fine_tune,
    "evaluate": evaluate.evaluate,
    "compare": compare.compare,
    "predict": predict.predict,
    "export": export.export,
    "serve": serve.serve,
    "space": space.space,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


def run() -> None:
    """Run the command line."""
    guarded(app)


if __name__ == "__main__":
    run()
