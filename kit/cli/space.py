"""kit space BUNDLE OUT: write a bundle as a folder that runs anywhere, and as a Hugging Face Space."""

from pathlib import Path
from typing import Annotated

import typer

from kit.cli.options import Bundle

Out = Annotated[Path, typer.Argument(help="the folder to write, new")]
Title = Annotated[str | None, typer.Option(help="the page's heading; by default the classes")]
Push = Annotated[str | None, typer.Option(help="upload it to the Hugging Face Hub as this Space, USER/NAME")]
Private = Annotated[bool, typer.Option("--private", help="with --push: for you alone to see, where it is new")]


def space(bundle: Bundle, out: Out, title: Title = None, push: Push = None, private: Private = False) -> None:
    """Write BUNDLE into OUT as a page that needs only gradio, onnxruntime, pillow and numpy, and start it once."""
    from kit.serve import space as spaces

    if push:
        spaces.check_repository(push)
    folder = spaces.write_space(bundle, out, title=title)
    print(f"{folder}: app.py, requirements.txt, smoke.py; it answers as the bundle does")
    if push:
        print(f"uploaded: {spaces.push(folder, push, private)}")
