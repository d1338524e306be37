"""The command `kit`: one file a command, and errors as one red line with their fix, never a traceback.

kit --help
"""

import sys
import warnings
from collections.abc import Callable

import typer

from kit.cli import check, demo, evaluate, fine_tune, predict
from kit.console import complain
from kit.errors import KitError

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
    "predict": predict.predict,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


def run() -> None:
    """Run the command line; a `KitError` becomes its message and exit code 1, Ctrl-C exit code 130."""
    # fastai's imports make torch warn about torch.jit: nothing that a user of the command line could mend.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    try:
        app()
    except KitError as error:
        complain(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(130)


if __name__ == "__main__":
    run()
