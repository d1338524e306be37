"""Run a program: a `KitError` is printed in red and ends with exit code 1, Ctrl-C with 130, without traceback.

script(main)        # in apps/: the function's parameters are the program's options
"""

import sys
from collections.abc import Callable
from io import TextIOWrapper

import typer

from kit.console import complain
from kit.errors import KitError
from kit.files import MAKE_ROOM, NO_ROOM


def script(function: Callable) -> None:
    """Run `function` as a program; its parameters become options."""
    guarded(lambda: typer.run(function))


def guarded(program: Callable[[], None]) -> None:
    """Run `program`, and print kit's errors and Ctrl-C without traceback.

    What the encoding of standard output lacks is escaped with a backslash, as on standard error.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        program()
    except KitError as error:
        complain(str(error))
        sys.exit(1)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        what = error.filename or "a file of the output, of KIT_CACHE or of TMPDIR"
        complain(f"{what} cannot be written: {error.strerror}\n  Fix: {MAKE_ROOM}")
        sys.exit(1)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(130)
