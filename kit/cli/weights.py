"""kit weights: what weights lie on this machine, what each file is, and how to start from it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kit.cli.options import Offline

Json = Annotated[bool, typer.Option("--json", help="print the list as JSON")]


def weights(as_json: Json = False, offline: Offline = False) -> None:
    """List the weights on this machine: kit's own, KIT_WEIGHTS, the caches, packages; exits with 1 if one is damaged.

    Nothing is asked of the network. KIT_WEIGHTS=FOLDER names a folder that is looked into before any cache: put files
    there by the names that they have at torchvision (resnet18-f37072fd.pth), at timm (resnet18.a1_in1k.safetensors), or
    on the hub (a folder timm/resnet18.a1_in1k with config.json and model.safetensors).
    """
    from kit.model.inventory import DAMAGED, inventory, places

    found = list(inventory())
    if as_json:
        print(json.dumps([asdict(one) for one in found], ensure_ascii=False, indent=2, default=str))
    else:
        for place, folder in places().items():
            print("\n".join(lines(place, folder, [one for one in found if one.place == place])))
    if any(one.check == DAMAGED for one in found):
        raise typer.Exit(1)


def lines(place: str, folder: Path | None, found: list) -> list[str]:
    """A place with its files: what each is, whether its hash fits, and the options that start from it."""
    where = "not set" if folder is None else f"{folder}{'' if found else ': nothing'}"
    text = [f"{place}: {where}"]
    for one in found:
        text.append(f"  {one.path.relative_to(folder)}  {one.bytes / 1e6:,.1f} MB  {one.what}  {one.check}")
        if one.use:
            text.append(f"      {one.use}")
    return text
