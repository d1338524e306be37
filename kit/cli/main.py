"""The command `kit`: one file a command, and errors as one red line with their fix, never a traceback.

kit --help
"""

from collections.abc import Callable

import typer

from kit.cli import (
    cache,
    check,
    compare,
    convert,
    demo,
    doctor,
    evaluate,
    export,
    fine_tune,
    predict,
    rates,
    serve,
    space,
    weights,
)
from kit.cli.script import guarded

app = typer.Typer(
    name="kit",
    help="Turn a folder of labelled images into a model that people can trust, share and see through.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
COMMANDS: dict[str, Callable] = {
    "demo": demo.demo,
    "check": check.check,
    "fine-tune": fine_tune.fine_tune,
    "rates": rates.rates,
    "evaluate": evaluate.evaluate,
    "compare": compare.compare,
    "predict": predict.predict,
    "export": export.export,
    "convert": convert.convert,
    "serve": serve.serve,
    "space": space.space,
    "weights": weights.weights,
    "cache": cache.cache,
    "doctor": doctor.doctor,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


def run() -> None:
    """Run the command line."""
    guarded(app)


if __name__ == "__main__":
    run()
