"""How a program ends that people run: a `KitError` as red lines with its fix, Ctrl-C as exit code 130, no traceback.

script(main)        # in apps/: the function's parameters are the program's options
"""

import sys
from collections.abc import Callable

import typer

from kit.console import complain
from kit.errors import KitError


def script(function: Callable) -> None:
    """Run `function` with options made from its parameters."""
    guarded(lambda: typer.run(function))


def guarded(program: Callable[[], None]) -> None:
    """Run `program`; turn the errors that kit raises on purpose into lines for people."""
    try:
        program()
    except KitError as error:
        complain(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(130)
