"""kit export RUN: add model.onnx to a bundle, after comparing it with torch on real images."""

from typing import Annotated

import typer

from kit.cli.options import Bundle
from kit.console import say
from kit.manifest import EXAMPLES, ONNX, find_bundle

Images = Annotated[
    list[str] | None, typer.Option(help="images for the comparison; default: the examples in the bundle")
]


def export(bundle: Bundle, images: Images = None) -> None:
    """Add model.onnx to BUNDLE, which then predicts with ONNX Runtime, without torch, and starts in half a second."""
    from kit.cli.predict import find_images

    folder = find_bundle(bundle)
    compared_on = list(find_images(images)) if images else sorted(map(str, (folder / EXAMPLES).glob("*.jpg")))
    from kit.bundle.onnx import export as write  # torch, which takes seconds

    proof = write(folder, compared_on)
    size = (folder / ONNX).stat().st_size / 1e6
    say(f"{folder / ONNX}: {size:.0f} MB")
    print(f"largest difference of a probability {proof['largest_difference']:.1e} on {proof['images']} images")
