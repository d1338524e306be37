"""kit space BUNDLE OUT: write a bundle as a stand-alone Gradio app, which is also a Hugging Face Space."""

from pathlib import Path
from typing import Annotated

import typer

from kit.cli.options import Bundle

Out = Annotated[Path, typer.Argument(help="the new folder")]
Title = Annotated[str | None, typer.Option(help="the heading of the page; default: the classes")]
Push = Annotated[str | None, typer.Option(help="upload it to this Hugging Face Space, USER/NAME")]
Private = Annotated[bool, typer.Option("--private", help="with --push: create a new Space as private")]


def space(bundle: Bundle, out: Out, title: Title = None, push: Push = None, private: Private = False) -> None:
    """Write BUNDLE to OUT as an app that needs only gradio, onnxruntime, pillow and numpy, and test that it starts."""
    from kit.serve import space as spaces

    if push:
        spaces.check_repository(push)
    folder = spaces.write_space(bundle, out, title=title)
    print(f"{folder}: app.py, requirements.txt, smoke.py; it predicts as the bundle does")
    if push:
        print(f"uploaded: {spaces.push(folder, push, private)}")
