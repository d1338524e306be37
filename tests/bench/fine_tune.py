"""How long fine-tuning takes from files to result, and images a second in it: kit, fastai, a torch loop, HF Trainer.

python tests/bench/fine_tune.py --images FOLDER --arch resnet18          # photos in Oxford Pets' names

All get the same photos and split, 224 pixels, batches of 64, one epoch with the body frozen and one of all layers, the
same kinds of augmentation, two loader processes (where a way has any), and the same weights where kit has some without
network. kit's default is the head from features, then all layers where a trial says that it is better. Each way runs
in a process of its own; in each round all take their turn, so that whatever else the machine does meets them alike, and
ratios are taken within a round, each with another seed. The clock starts when torch and fastai (or torch and what else
a way needs) are imported; a column of its own counts that too. The error after so few steps is mostly chance:
tests/bench/pets_folds.py compares errors.
The last line is the ratio of wall times, plain fastai / kit.
"""

import json
import random
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from bundles import fields

from kit.cli.script import script

STARTED = time.perf_counter()
WAYS = ("kit", "kit whole", "kit fp32", "fastai", "torch", "trainer")
EXTRAS = {"trainer": ("transformers", "accelerate")}  # packages that are no dependencies of kit
SIZE, WORKERS, RATE = 224, 2, 2e-3
PACKAGED = ("tf_efficientnet_lite0", "tf_efficientnet_lite2")  # ImageNet weights that pip brings


def main(
    images: Annotated[Path, typer.Option(help="a folder of photos in Oxford Pets' names")],
    arch: str = "resnet18",
    rounds: int = 3,
    ways: Annotated[list[str], typer.Option("--way", help=f"of: {', '.join(WAYS)}")] = list(WAYS),  # noqa: B006
    batch: int = 64,
    recipe: Annotated[list[str], typer.Option(help="for kit: a field of the recipe, NAME=VALUE")] = [],  # noqa: B006
    way: Annotated[str | None, typer.Option("--run", hidden=True)] = None,
):
    """Print a table of all ways, medians over the rounds with the range, and the ratio."""
    if way:
        print(json.dumps(measured(way, images, arch, batch, recipe)))
        return
    check(ways)
    found: dict[str, list[dict]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in ways:
            told = [word for one in (f"seed={number + 1}", *recipe) for word in ("--recipe", one)]
            command = [sys.executable, __file__, "--images", str(images), "--arch", arch, "--batch", str(batch), *told]
            done = subprocess.run([*command, "--run", name], capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{name}: {done.stderr[-2000:]}")
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number + 1}: {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    print_table(found)


def check(ways: list[str]) -> None:
    """End before the first measurement where a way is unknown, or a package that it needs is missing."""
    if unknown := [name for name in ways if name not in WAYS]:
        raise SystemExit(f"--way {', '.join(unknown)}: none of {', '.join(WAYS)}")
    missing = [package for name in ways for package in EXTRAS.get(name, ()) if find_spec(package) is None]
    if missing:
        others = " ".join(f"--way '{name}'" for name in WAYS if name not in EXTRAS)
        raise SystemExit(f"missing: pip install {' '.join(missing)}; or leave that way out: {others}")


def print_table(found: dict[str, list[dict]]) -> None:
    """Each way's figures, and its ratio to fastai in the same round."""
    print("| way | images/s, all awake | body frozen | from files to result | fastai / this | with imports | error |")
    print("|---|---|---|---|---|---|---|")
    ratios = {}
    for name, runs in found.items():
        cells = [spread([run[key] for run in runs]) for key in ("awake", "frozen", "wall", "process")]
        pairs = zip(found.get("fastai", runs), runs, strict=True)
        ratios[name] = [theirs["wall"] / ours["wall"] for theirs, ours in pairs]
        error = f"{statistics.mean(run['error'] for run in runs):.3f}"
        print(f"| {name} | {cells[0]} | {cells[1]} | {cells[2]} s | {spread(ratios[name])} | {cells[3]} s | {error} |")
    print(f"{statistics.median(ratios.get('kit', [1.0])):.1f}x")


def spread(values: list[float]) -> str:
    """The median, and the range; a dash for what a way has not."""
    if not any(values):
        return "-"
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def measured(way: str, images: Path, arch: str, batch: int, recipe: list[str]) -> dict:
    """One run of one way: images a second in both epochs, the wall time of all, and the error."""
    run = {
        "kit": kit,
        "kit whole": kit_whole,
        "kit fp32": kit_fp32,
        "fastai": fastai,
        "torch": torch_loop,
        "trainer": trainer,
    }[way]
    return run(images, arch, batch, recipe)


def figures(seconds: list[float], count: int, begun: float, error: float) -> dict:
    """What is printed of a run that ends now. seconds: of both epochs' training, the frozen one first (infinite where
    there is none); count: images in each; begun: when all was imported."""
    frozen, awake = (round(count / taken, 2) for taken in seconds)
    wall, process = (round(time.perf_counter() - since, 2) for since in (begun, STARTED))
    return {"awake": awake, "frozen": frozen, "wall": wall, "process": process, "error": round(error, 4)}


def split(images: Path) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Paths and labels (1: cat) of the training and of the validation photos."""
    files = sorted(images.glob("*.jpg"))
    random.Random(42).shuffle(files)
    rows = [(str(path), int(path.name[0].isupper())) for path in files]
    count = len(rows) // 5
    return rows[count:], rows[:count]


def table(images: Path):
    """The same as a DataFrame."""
    import pandas as pd

    rows = [
        (path, ("dog", "cat")[cat], side)
        for side, part in zip(("train", "valid"), split(images), strict=True)
        for path, cat in part
    ]
    return pd.DataFrame(rows, columns=["path", "label", "split"])


def weights_of(arch: str) -> str:
    """Where all begin."""
    return "bundled" if arch == "resnet18" else "imagenet" if arch in PACKAGED else "none"


def clock():
    """A callback of fastai's that takes the seconds of each epoch's training, validation left out."""
    from fastai.vision.all import Callback

    class Clock(Callback):
        def __init__(self):
            self.seconds, self.images = [], []

        def before_train(self):
            self.begun, self.count = time.perf_counter(), 0

        def after_batch(self):
            self.count += len(self.xb[0]) if self.training else 0

        def after_train(self):
            self.seconds.append(time.perf_counter() - self.begun)
            self.images.append(self.count)

    return Clock()


def kit(images: Path, arch: str, batch: int, recipe: list[str], **options) -> dict:
    """kit.fine_tune with its defaults: run folder, report, bundle, ONNX file and its proof too."""
    import tempfile

    import fastai.vision.all  # noqa: F401

    import kit as package

    begun = time.perf_counter()
    rows, taken = table(images), clock()
    told = {"arch": arch, "weights": weights_of(arch), "size": SIZE, "batch": batch, "workers": WORKERS}
    with tempfile.TemporaryDirectory() as folder:
        run = package.fine_tune(rows, out=Path(folder) / "run", cbs=[taken], **told | options | fields(recipe))
        phases = [row["phase"] for row in run.history.rows if row["phase"] != "head"]
        seconds = {"frozen": float("inf"), "whole": float("inf")} | dict(zip(phases, taken.seconds, strict=True))
        count = taken.images[0] if taken.images else 0
        return figures([seconds["frozen"], seconds["whole"]], count, begun, run.error_rate.value)


def kit_whole(images: Path, arch: str, batch: int, recipe: list[str]) -> dict:
    """The same with fastai's schedule and rates."""
    return kit(images, arch, batch, recipe, layers="whole", rate=RATE, lr_mult=100)


def kit_fp32(images: Path, arch: str, batch: int, recipe: list[str]) -> dict:
    """The same without bf16."""
    return kit(images, arch, batch, recipe, layers="whole", rate=RATE, lr_mult=100, precision="fp32")


def fastai(images: Path, arch: str, batch: int, recipe: list[str]) -> dict:
    """The lines of fastai's own lesson, with its defaults and two workers."""
    from fastai.vision.all import error_rate, models, vision_learner

    begun = time.perf_counter()
    dls = fastai_loaders(table(images), batch, WORKERS, SIZE)
    taken = clock()
    network = arch if arch in PACKAGED else getattr(models, arch)
    learn = vision_learner(dls, network, pretrained=False, metrics=error_rate, cbs=[taken])
    if weights_of(arch) != "none":
        learn.model[0].load_state_dict(body_of(arch))
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(1, RATE)
    return figures(taken.seconds, taken.images[0], begun, learn.final_record[-1])


def fastai_loaders(rows, batch: int, workers: int, size: int):
    """fastai's own loaders of a table, as its lesson makes them."""
    from fastai.vision.all import ImageDataLoaders, Normalize, Resize, aug_transforms, imagenet_stats

    columns = {"fn_col": "path", "label_col": "label", "valid_col": "is_valid"}
    rows = rows.assign(is_valid=rows["split"] == "valid")
    steps = [*aug_transforms(), Normalize.from_stats(*imagenet_stats)]
    return ImageDataLoaders.from_df(
        rows, path="/", bs=batch, num_workers=workers, item_tfms=Resize(size), batch_tfms=steps, **columns
    )


def body_of(arch: str) -> dict:
    """The weights that kit takes, as a body of fastai's cutting."""
    from kit.model.architectures import build_network, cut_body, find_architecture
    from kit.model.weights import load_weights

    architecture = find_architecture(arch)
    network = build_network(architecture)
    body = cut_body(network, architecture, SIZE)
    load_weights(network, body.module, architecture, weights_of(arch))
    return body.module.state_dict()


class Photos:
    """A map-style dataset of photos: RGB, transformed, with their labels."""

    def __init__(self, rows: list[tuple[str, int]], transform):
        self.rows, self.transform = rows, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int):
        from PIL import Image

        path, label = self.rows[place]
        return self.transform(Image.open(path).convert("RGB")), label


def photos(images: Path) -> tuple[Photos, Photos]:
    """Training photos augmented as fastai does by default (torchvision's words for it), and validation photos."""
    from torchvision.transforms import v2

    still = [v2.PILToTensor(), v2.ToDtype(__import__("torch").float32, scale=True)]
    end = [*still, v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    augmented = [
        v2.Resize(SIZE), v2.RandomCrop(SIZE), v2.RandomHorizontalFlip(), v2.RandomAffine(10, scale=(1.0, 1.1)),
        v2.RandomPerspective(0.2), v2.ColorJitter(0.2, 0.2), *end,
    ]  # fmt: skip
    plain = [v2.Resize(SIZE), v2.CenterCrop(SIZE), *end]
    train, valid = split(images)
    return Photos(train, v2.Compose(augmented)), Photos(valid, v2.Compose(plain))


def torch_loop(images: Path, arch: str, batch: int, recipe: list[str]) -> dict:
    """The loop of torch's transfer-learning tutorial: the head alone for an epoch, then all."""
    import torch
    from torch import nn
    from torchvision import models
    from torchvision.transforms import v2  # noqa: F401

    begun = time.perf_counter()
    train, valid = photos(images)
    loader = torch.utils.data.DataLoader(train, batch, shuffle=True, num_workers=WORKERS, drop_last=True)
    network, taken = getattr(models, arch)(), []
    network.fc = nn.Linear(network.fc.in_features, 2)
    for frozen in (True, False):
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not frozen or name.startswith("fc"))
        optimizer = torch.optim.Adam([one for one in network.parameters() if one.requires_grad], 1e-3)
        network.train()
        started = time.perf_counter()
        for x, y in loader:
            loss = nn.functional.cross_entropy(network(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        taken.append(time.perf_counter() - started)
        network.eval()
        with torch.no_grad():
            checks = torch.utils.data.DataLoader(valid, batch, num_workers=WORKERS)
            wrong = sum(int((network(x).argmax(1) != y).sum()) for x, y in checks)
    return figures(taken, len(loader) * batch, begun, wrong / len(valid))


def trainer(images: Path, arch: str, batch: int, recipe: list[str]) -> dict:
    """The Hugging Face Trainer (pip install transformers accelerate) on its own ResNet; both epochs with all awake."""
    import tempfile

    import torch
    from torchvision.transforms import v2  # noqa: F401
    from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

    begun = time.perf_counter()
    train, valid = photos(images)
    depths = {"resnet18": [2, 2, 2, 2], "resnet34": [3, 4, 6, 3]}[arch]
    config = ResNetConfig(depths=depths, hidden_sizes=[64, 128, 256, 512], layer_type="basic", num_labels=2)
    with tempfile.TemporaryDirectory() as folder:
        told = TrainingArguments(
            folder, per_device_train_batch_size=batch, num_train_epochs=2, dataloader_num_workers=WORKERS,
            use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        way = Trainer(ResNetForImageClassification(config), told, train_dataset=train, data_collator=collated)
        started = time.perf_counter()
        way.train()
        each = (time.perf_counter() - started) / 2
        with torch.no_grad():
            said = way.predict(valid).predictions.argmax(1)
    wrong = sum(int(said[place]) != label for place, (_, label) in enumerate(valid.rows))
    return figures([each, each], len(train), begun, wrong / len(valid))


def collated(rows: list) -> dict:
    """A batch as the Trainer wants it."""
    import torch

    images, labels = zip(*rows, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}


if __name__ == "__main__":
    script(main)
