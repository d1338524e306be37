"""kit weights: list the pretrained weights on this machine, and the options that use each of them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kit.cli.options import Offline

Json = Annotated[bool, typer.Option("--json", help="print the list as JSON")]


def weights(as_json: Json = False, offline: Offline = False) -> None:
    """List weights on this machine: kit's own, KIT_WEIGHTS, caches, packages; exit code 1 if a file is damaged.

    The network is not used. KIT_WEIGHTS=FOLDER names a folder that is searched before the caches, for files with the
    names of torchvision (resnet18-f37072fd.pth), of timm (resnet18.a1_in1k.safetensors), or of the hub (a folder
    timm/resnet18.a1_in1k with config.json and model.safetensors).
    """
    from kit.model.inventory import DAMAGED, inventory, places

    found = list(inventory())
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=2, default=str))
    else:
        for place, folder in places().items():
            print("\n".join(lines(place, folder, [one for one in found if one.place == place])))
    if any(one.check == DAMAGED for one in found):
        raise typer.Exit(1)


def lines(place: str, folder: Path | None, found: list) -> list[str]:
    """Lines about the files in one folder: what each is, whether its checksum is right, and the options that use it."""
    where = "not set" if folder is None else f"{folder}{'' if found else ': nothing'}"
    text = [f"{place}: {where}"]
    for one in found:
        text.append(f"  {one.path.relative_to(folder)}  {one.bytes / 1e6:,.1f} MB  {one.what}  {one.check}")
        if one.use:
            text.append(f"      {one.use}")
    return text
