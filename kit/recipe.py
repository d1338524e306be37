"""The recipe: everything that a training run is told, in one frozen dataclass.

Recipe(arch="resnet34", epochs=3) in Python, `--arch resnet34 --epochs 3` on the command line, recipe.json in a run
folder: one source for all three. Variants are made with `dataclasses.replace`.
"""

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from itertools import pairwise
from typing import Any

from kit.errors import RecipeError, did_you_mean

RESIZES = ("crop", "pad", "squish")
SPLITS = ("stratified", "random", "grouped", "given")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
MOST_PIXELS_A_SIDE = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What a training run is told. Every field is checked when the recipe is made; `RecipeError` names what is off."""

    label: str | Callable[[Any], Any] = "folder"
    """How a file says its label: folder, is_cat, a pattern with one group like '^(.*)_[0-9]+', or module:function."""

    labels: str | None = None
    """A CSV file with a row an image: columns path and label, and if you like split and group."""

    arch: str = "resnet18"
    """The network: resnet18 to resnet152, resnext..., wide_resnet..., or any name of timm's ("timm/resnet18" too)."""

    weights: str = "imagenet"
    """Where to start: imagenet, bundled (kit's own, for resnet18), none, a .safetensors or .pth file, or a bundle."""

    epochs: int = 1
    """Passes over the training images with the whole network awake."""

    freeze_epochs: int = 1
    """Passes before that with the pretrained body frozen, so that the new head learns first."""

    rate: float | None = None
    """The highest learning rate of the frozen phase; by default 2e-3 (fastai's), from the bundled weights 5e-3."""

    lr_mult: float | None = None
    """How many times lower the first layers' rate is, once all are awake; by default 100, from bundled weights 10."""

    size: int = 224
    """Pixels a side that the network sees."""

    presize: int | None = None
    """Pixels a side before augmentation (presizing): augmentation then loses no corner. Try 460 for size 224."""

    resize: str = "crop"
    """How an image becomes square: crop, pad or squish."""

    augment: bool = True
    """Whether training images are flipped, turned, zoomed, warped and relit at random."""

    batch: int = 64
    """Images a step."""

    split: str = "stratified"
    """Which images validate: stratified (each class alike), random (as fastai's), grouped, given (by folder or CSV)."""

    valid: float = 0.2
    """The share of images that validates."""

    seed: int = 42
    """The seed of everything random: the split, the new head, the order, the augmentation."""

    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1, mps."""

    precision: str = "auto"
    """The arithmetic of training: auto (from facts about the device), fp32, bf16, fp16. Results are always fp32."""

    workers: int | None = None
    """Processes that load images; by default one a core and eight at most. Another number, other random numbers."""

    def __post_init__(self):
        """Refuse what no run can follow, before anything is read or written."""
        for name, lowest, highest in _RANGES:
            _check_number(name, getattr(self, name), lowest, highest)
        for name, known in (("resize", RESIZES), ("split", SPLITS), ("precision", PRECISIONS)):
            _check_choice(name, getattr(self, name), known)
        if self.presize is not None and self.presize < self.size:
            raise RecipeError(
                f"presize={self.presize} is less than size={self.size}", fix=f"presize={self.size * 2}, or leave it out"
            )

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values; a label function becomes 'module:name'."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"label": label_name(self.label)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Recipe":
        """The recipe that `to_json` wrote; an unknown field is refused by name."""
        names = [field.name for field in fields(cls)]
        for name in values:
            if name not in names:
                raise RecipeError(
                    f"unknown field {name!r}.{did_you_mean(name, names)}", fix=f"one of: {', '.join(names)}"
                )
        return cls(**values)


_RANGES = (
    ("epochs", 1, 100_000),
    ("freeze_epochs", 0, 100_000),
    ("rate", 1e-12, 100.0),
    ("lr_mult", 1, 1e6),
    ("size", 16, MOST_PIXELS_A_SIDE),
    ("presize", 16, MOST_PIXELS_A_SIDE),
    ("batch", 2, 1_000_000),
    ("valid", 0.01, 0.9),
    ("seed", 0, 2**32 - 1),
    ("workers", 0, 256),
)


def _check_number(name: str, value: Any, lowest: float, highest: float) -> None:
    """`value` must be a number of the field's own kind within both bounds; None is fine where the field allows it."""
    if value is None and name in ("rate", "lr_mult", "presize", "workers"):
        return
    kinds = (int, float) if name in ("rate", "lr_mult", "valid") else (int,)
    if isinstance(value, bool) or not isinstance(value, kinds) or not lowest <= value <= highest:
        kind = "a number" if float in kinds else "a whole number"
        expected = f"{kind} from {lowest:g} to {highest:g}"
        raise RecipeError(f"{name}={value!r} is not {expected}", fix=f"give {name} as {expected}")


def _check_choice(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        hint = did_you_mean(str(value), known)
        raise RecipeError(f"{name}={value!r} is not known.{hint}", fix=f"one of: {', '.join(known)}")


def label_name(label: str | Callable) -> str:
    """The label rule in words that JSON can hold: a name, a pattern, or 'module:function' of a function."""
    if isinstance(label, str):
        return label
    named = label if hasattr(label, "__qualname__") else type(label)
    return getattr(label, "label_name", None) or f"{named.__module__}:{named.__qualname__}"


@cache
def explanations() -> dict[str, str]:
    """The line under each field, by the field's name: the one source of the command line's help."""
    body = ast.parse(inspect.getsource(Recipe)).body[0].body
    texts = {}
    for line, below in pairwise(body):
        if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr):
            texts[line.target.id] = below.value.value
    return texts
