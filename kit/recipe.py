"""The recipe: all settings of a training run in one frozen dataclass.

Recipe(arch="resnet34", epochs=3) in Python, `--arch resnet34 --epochs 3` on the command line, and recipe.json in a run
folder have the same fields. Variants are made with `dataclasses.replace`.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, get_args

from kit.errors import RecipeError, did_you_mean
from kit.tasks import of
from kit.tasks.text import CLASSIFICATION, TASKS

RESIZES = ("crop", "pad", "squish")
SPLITS = ("stratified", "random", "grouped", "given")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
UNLABELLED = ("error", "skip")
BALANCES = ("none", "balanced")
LAYERS = ("auto", "head", "all", "whole")
CACHES = ("auto", "memory", "disk", "none")
LOGS = ("none", "tensorboard", "wandb", "mlflow")
SIZE, MAX_SIZE = 224, 4096
BUNDLED_SIZE = 128
"""For the bundled weights, which were trained on photos of 32 pixels, enlarged to at most 112. Chosen on four sets
(tests/bench/README.md): at 224 pixels their errors are up to 2.8 times as many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The settings of a training run. Fields are checked when a recipe is made; `RecipeError` names an invalid one."""

    label: str | Callable[[Any], Any] = "folder"
    """The label of a file: folder, is_cat, a pattern with one group like '^(.*)_[0-9]+', or module:function."""

    labels: str | None = None
    """A CSV file with a row for each image: columns path and label, optionally split (or is_valid) and group."""

    task: str = CLASSIFICATION
    """What an image has: classification (one class), multilabel (any number of classes), regression (numbers)."""

    delimiter: str = ";"
    """The separator between the classes of a multilabel label."""

    targets: str | None = None
    """Columns of --labels to use instead of label, comma-separated: 0 or 1 for a class (multilabel), or numbers."""

    y_range: str = "auto"
    """The range of regression's answers: auto (that of the training labels plus a tenth), none, or LOW,HIGH for all."""

    unlabelled: str = "error"
    """For files without a label and rows without a file: error, or skip (they are counted and named)."""

    follow_links: bool = False
    """Whether links to images outside of the folder are followed."""

    arch: str = "auto"
    """The network: resnet18 to resnet152, resnext..., any name in timm, or auto (by the weights; else resnet18)."""

    weights: str = "imagenet"
    """Initial weights: imagenet, bundled (for resnet18), none, hub:ID, a .safetensors or .pth file, or a bundle."""

    layers: str = "auto"
    """What is trained: head (from features computed once), all (after it), auto (all if better), whole (fastai)."""

    epochs: int = 1
    """Passes over the training images in which all layers are trained."""

    freeze_epochs: int = 1
    """With layers=whole: passes before these in which the pretrained body is frozen and only the head is trained."""

    rate: float | str | None = None
    """The highest learning rate: by default 1e-4 after a trained head, else 2e-3; auto: by a learning-rate finder."""

    lr_mult: float | None = None
    """Factor by which the first layers' rate is lower; by default 1 after a trained head, else 100 (bundled: 10)."""

    size: int | None = None
    """Input size of the network, in pixels a side; by default 224, for the bundled weights 128."""

    presize: int | None = None
    """Size before augmentation (presizing), in pixels a side, to avoid empty corners. Try 460 for size 224."""

    resize: str = "crop"
    """How images are made square: crop, pad or squish."""

    augment: bool = True
    """Whether training images are randomly flipped, rotated, zoomed, warped, and changed in brightness and contrast."""

    progressive: bool = False
    """Progressive resizing: training starts with images of half the size and ends with full size; faster."""

    mixup: float = 0.0
    """Mixup's alpha: pairs of training images and their labels are blended; 0 for none, 0.4 is usual."""

    cutmix: float = 0.0
    """CutMix's alpha: patches of training images are pasted into others, labels blended; 0 for none, 1 is usual."""

    label_smoothing: float = 0.0
    """The share of each label that is distributed over all classes in the training loss; 0 for none, 0.1 is usual."""

    class_weights: str = "none"
    """Weights of classes in the training loss: none, balanced (the same total weight for all classes)."""

    sampler: str = "none"
    """Sampling of training images: none, balanced (images of all classes equally often)."""

    batch: int = 64
    """Batch size, of all processes together; halved, with accumulation, when one process is out of memory."""

    accumulate: int = 1
    """Batches whose gradients are accumulated for one step, which saves memory."""

    clip: float | None = None
    """Gradient clipping: the largest norm of a step's gradient; by default none, 1 is usual."""

    patience: int | None = None
    """Early stopping: end a phase after this many epochs without a lower validation loss, and keep the best weights."""

    split: str = "stratified"
    """The validation split: stratified (by class), random (as in fastai), grouped, given (by folder or CSV)."""

    valid: float = 0.2
    """The share of validation images."""

    seed: int = 42
    """The seed of all random numbers: split, new head, order of images, augmentation."""

    device: str = "auto"
    """The device: auto, cpu, cuda, cuda:1, mps."""

    precision: str = "auto"
    """Precision of training: auto (by the device), fp32, bf16, fp16. Evaluation is always in fp32."""

    compile: bool = False
    """Whether to use torch.compile, which takes minutes, and was not faster on CPUs."""

    sync_bn: bool = False
    """With several processes (torchrun): batch norms use the statistics of the whole batch; on GPUs alone."""

    workers: int | None = None
    """Processes that load images; by default one a core, at most eight. The number changes the random numbers."""

    cache: str = "auto"
    """Cache of decoded images: auto (memory, or disk if many), memory, disk, none (decode in each epoch)."""

    tta: int = 0
    """Test-time augmentation: number of augmented views of each validation image, for a second error rate."""

    log: str = "none"
    """Additional logging: none, tensorboard (in the run folder), wandb (Weights & Biases), mlflow."""

    checkpoint_every: float = 5.0
    """Minutes between checkpoints inside an epoch; there is one at each epoch's end too. 0: no checkpoints."""

    def __post_init__(self) -> None:
        """Check all fields; raises `RecipeError`."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _RANGES and not (value is None and field.default is None):
                _check_number(field, value)
            if field.name in _CHOICES:
                _check_choice(field.name, value, _CHOICES[field.name])
        if self.presize is not None and self.presize < self.input_size:
            problem = f"presize={self.presize} is less than size={self.input_size}"
            raise RecipeError(problem, fix=f"presize={self.input_size * 2}, or leave it out")
        _check_together(self)

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values; a label function becomes 'module:name'."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"label": label_name(self.label)}

    @property
    def input_size(self) -> int:
        """`size`, or the default for the weights."""
        return self.size or (BUNDLED_SIZE if self.weights == "bundled" else SIZE)

    @property
    def read_size(self) -> int:
        """The least side of the images that are read: `presize`, or the input size."""
        return self.presize or self.input_size

    @property
    def fixed_batch(self) -> int | None:
        """`batch`, or None where training adapts it to the number of images (layers auto, head and all)."""
        return self.batch if self.layers == "whole" or self.weights == "none" else None

    def target_names(self) -> list[str]:
        """The columns in `targets`; [] where there are none."""
        return [name.strip() for name in self.targets.split(",")] if self.targets else []

    def limits(self) -> tuple[float, float] | None:
        """Low and high of `y_range`; None for auto and none."""
        if self.y_range in ("auto", "none"):
            return None
        try:
            low, high = map(float, self.y_range.split(","))
        except ValueError:
            low = high = float("nan")
        if not -float("inf") < low < high < float("inf"):
            fix = "say auto, none, or two numbers like 0,100"
            raise RecipeError(f"y_range={self.y_range!r} is not a range", fix=fix)
        return low, high

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


_RANGES = {
    "epochs": (1, 100_000),
    "freeze_epochs": (0, 100_000),
    "rate": (1e-12, 100.0),
    "lr_mult": (1, 1e6),
    "size": (16, MAX_SIZE),
    "presize": (16, MAX_SIZE),
    "mixup": (0, 100),
    "cutmix": (0, 100),
    "label_smoothing": (0, 0.9),
    "batch": (2, 1_000_000),
    "accumulate": (1, 100_000),
    "clip": (1e-12, 1e12),
    "patience": (1, 100_000),
    "valid": (0.01, 0.9),
    "seed": (0, 2**32 - 1),
    "workers": (0, 256),
    "tta": (0, 1_000),
    "checkpoint_every": (0, 1e6),
}
_CHOICES = {
    "task": TASKS,
    "layers": LAYERS,
    "cache": CACHES,
    "resize": RESIZES,
    "class_weights": BALANCES,
    "sampler": BALANCES,
    "split": SPLITS,
    "unlabelled": UNLABELLED,
    "precision": PRECISIONS,
    "log": LOGS,
}
OF_ALL_LAYERS = ("rate", "lr_mult", "progressive", "mixup", "cutmix", "label_smoothing", "clip", "patience")
_OF_THE_LEARNER = ("task", "arch", "weights", "y_range", "size", "presize", "resize")
_OF_THE_LEARNER += ("augment", "batch", "sampler", "device", "workers")


def _check_number(field: Any, value: Any) -> None:
    """`RecipeError` unless `value` is a number of the field's type within its bounds, or "auto" where allowed."""
    (lowest, highest), kinds = _RANGES[field.name], {field.type, *get_args(field.type)}
    if str in kinds and value == "auto":
        return
    numbers = (int, float) if float in kinds else (int,)
    if isinstance(value, bool) or not isinstance(value, numbers) or not lowest <= value <= highest:
        kind = "a number" if float in kinds else "a whole number"
        expected = f"{kind} from {lowest:g} to {highest:g}" + (", or auto" if str in kinds else "")
        raise RecipeError(f"{field.name}={value!r} is not {expected}", fix=f"give {field.name} as {expected}")


def _check_choice(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        hint = did_you_mean(str(value), known)
        raise RecipeError(f"{name}={value!r} is not known.{hint}", fix=f"one of: {', '.join(known)}")


def _check_together(recipe: Recipe) -> None:
    """`RecipeError` for combinations of fields that have no meaning."""
    _check_task(recipe)
    for name in OF_ALL_LAYERS if recipe.layers == "head" else ():
        if _changed(recipe, name):
            problem = (
                f"{name}={getattr(recipe, name)!r} has no effect with layers='head', which is trained from features"
            )
            raise RecipeError(problem, fix="leave it out, or say layers=auto, all or whole")
    if recipe.mixup and recipe.cutmix:
        problem = f"mixup={recipe.mixup:g} and cutmix={recipe.cutmix:g} would both blend every batch"
        raise RecipeError(problem, fix="choose one of them")
    if recipe.class_weights == recipe.sampler == "balanced":
        problem = "class_weights=balanced and sampler=balanced would correct the same imbalance twice"
        raise RecipeError(problem, fix="choose one of them")
    if recipe.tta and not recipe.augment:
        problem = f"tta={recipe.tta} needs augmented views, and augment=False makes none"
        raise RecipeError(problem, fix="leave out one of the two")


def _changed(recipe: Recipe, name: str) -> bool:
    """Whether a field differs from its default."""
    return getattr(recipe, name) != next(field.default for field in fields(recipe) if field.name == name)


def _check_task(recipe: Recipe) -> None:
    """`RecipeError` for fields that have no meaning for the task, and for invalid names and ranges."""
    for name in {name: None for task in TASKS for name in of(task).recipe_fields}:
        if name not in of(recipe.task).recipe_fields and _changed(recipe, name):
            problem = f"{name}={getattr(recipe, name)!r} has no effect for the task {recipe.task}"
            tasks = [task for task in TASKS if name in of(task).recipe_fields]
            raise RecipeError(problem, fix=f"leave it out, or say task={' or '.join(tasks)}")
    names = recipe.target_names()
    if not all(names) or len(set(names)) != len(names):
        raise RecipeError(f"targets={recipe.targets!r} names a column twice, or none", fix="targets='width,height'")
    if not recipe.delimiter:
        raise RecipeError("delimiter='' separates nothing", fix="delimiter=';', or what stands between your labels")
    recipe.limits()


def label_name(label: str | Callable) -> str:
    """The label rule as text for JSON: a name, a pattern, or 'module:function' of a function."""
    if isinstance(label, str):
        return label
    named = label if hasattr(label, "__qualname__") else type(label)
    return getattr(label, "label_name", None) or f"{named.__module__}:{named.__qualname__}"


def check_same_data(made: Recipe, given: Recipe) -> None:
    """Raise `RecipeError` where `given` differs from `made`, the learner's recipe, in fields of data or network, which
    training would ignore."""
    other = [name for name in _OF_THE_LEARNER if getattr(made, name) != getattr(given, name)]
    other += ["layers"] if (made.layers == "whole") != (given.layers == "whole") else []
    if other:
        said = ", ".join(f"{name}={getattr(given, name)!r}, not {getattr(made, name)!r}" for name in other)
        problem = f"the learner was made with another recipe: {said}"
        raise RecipeError(
            problem, fix="make DataLoaders and learner with this recipe, or change fields of training only"
        )
