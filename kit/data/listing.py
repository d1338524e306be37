"""The images of a folder, found one by one: what is an image by its name, and what is left out.

images, others = list_images(Path("photos"))
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

from kit.data.images import looks_like_image
from kit.files import sorted_texts

NOT_IMAGE, EMPTY_FOLDER = "not an image by its name", "an empty folder"
LINKED_FOLDER = "a link to a folder, not followed"
OUTSIDE = "a link that leads out of the folder, not followed"
OWN_OUTPUT = "written by kit: a run, a bundle, a report, a Space or a chart"
# A folder with both files of a pair is kit's own output; the images in it are copies of the user's, and charts.
OWN_FILES = (
    {"recipe.json", "report.html"},
    {"recipe.json", "result.json"},
    {"config.json", "model.safetensors"},
    {"config.json", "config.json.sha256"},
    {"check.json", "images.csv"},
    {"model.json", "model.onnx"},
)
OWN_NAMES = frozenset.union(*map(frozenset, OWN_FILES))
OWN_CHART = {"Software": "kit"}  # PNG metadata of charts that are written beside the images by default
SYSTEM_FOLDERS = (".", "__MACOSX", "@eaDir", "$RECYCLE.BIN")


def list_images(folder: Path, follow_links: bool = True) -> tuple[list[Path], list[tuple[Path, str]]]:
    """All images of `walk_images`, and all else with the reason to leave it out."""
    images, others = [], []
    for path, reason in walk_images(folder, follow_links):
        others.append((path, reason)) if reason else images.append(path)
    return images, others


def walk_images(folder: Path, follow_links: bool = True) -> Iterator[tuple[Path, str | None]]:
    """All images in `folder` and its subfolders, in the order of their names, those of a folder before those of its
    subfolders; and between them all other files with the reason to leave them out.

    Links to folders are not followed. Links to files are, except out of `folder` where `follow_links` is off. Hidden
    files and folders, and folders of the system, are ignored. Empty folders and kit's own output are listed as folders.
    Memory does not grow with the number of files: `sorted_texts` has the names of a large folder on the disk.
    """
    waiting, home = [folder], folder.resolve()
    while waiting:
        where, folders, own = waiting.pop(), [], set()
        try:
            with os.scandir(where) as entries:
                names = sorted_texts(_visible_files(entries, folders, own))
                first = next(names, None)  # from here on all entries have been read
        except OSError as error:
            yield where, f"cannot be read ({error.strerror})"
            continue
        if any(files <= own for files in OWN_FILES):
            yield where, OWN_OUTPUT
            continue
        folders.sort()
        yield from ((Path(where, name), LINKED_FOLDER) for name, linked in folders if linked)
        if not folders and first is None and where != folder:
            yield where, EMPTY_FOLDER
        for name in chain([] if first is None else [first], names):
            path = Path(where, name)
            yield path, _left_out(path, folder, None if follow_links else home)
        waiting += [Path(where, name) for name, linked in reversed(folders) if not linked]


def _visible_files(entries: Iterable[os.DirEntry], folders: list[tuple[str, bool]], own: set[str]) -> Iterator[str]:
    """The names of the files that are not hidden. Fills in subfolders, and whether each is a link; and names of
    `OWN_FILES`."""
    for entry in entries:
        if entry.name in OWN_NAMES:
            own.add(entry.name)
        if _is_folder(entry):
            if not entry.name.startswith(SYSTEM_FOLDERS):
                folders.append((entry.name, entry.is_symlink()))
        elif not entry.name.startswith("."):
            yield entry.name


def _is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder, or a link to one; a link to itself is not."""
    with suppress(OSError):
        return entry.is_dir()
    return False


def _left_out(path: Path, folder: Path, home: Path | None) -> str | None:
    """Why a file of `folder` is left out; None for an image. home: the folder that links must not leave."""
    if not looks_like_image(path):
        return NOT_IMAGE
    if path.parent == folder and _is_own_chart(path):
        return OWN_OUTPUT
    if home and path.is_symlink() and not path.resolve().is_relative_to(home):
        return OUTSIDE
    return None


def _is_own_chart(path: Path) -> bool:
    if path.suffix.lower() != ".png":
        return False
    try:
        with path.open("rb") as file:
            return b"Software\0kit" in file.read(256)
    except OSError:
        return False
