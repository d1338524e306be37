"""`python -m kit` is the program `kit`, for programs that start modules: torchrun -m kit fine-tune photos."""

from kit.cli.main import run

run()
