"""Pretrain resnet18 from scratch on small photos: this is where the bundled weights come from.

    python data/pretrain.py --images cifar10 --out data/weights/resnet18-cifar10.safetensors

FOLDER holds train/CLASS/*.jpg and test/CLASS/*.jpg (CIFAR-10 as JPEG files; about three hours on two cores).
Images grow while the network learns (32 to 96 pixels, at last any size from 48 to 112), every batch is augmented at
once by one affine warp, the weights that are kept are the running average of those that were trained, and the choice
between two runs is made by the test photos of CIFAR-10 alone. It may be stopped at any time: the same command goes on.
"""

import csv
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import resnet18

BATCH = 128
WEIGHT_DECAY = 5e-4
LABEL_SMOOTHING = 0.1
AVERAGE_DECAY = 0.999


@dataclass(frozen=True)
class Cycle:
    """One rise and fall of the learning rate to `peak` and back, over stages of (epochs, pixels a side).

    strength: how far the augmentation goes, from 0 (not at all) to 1.
    smallest: where given, each batch has its own size, from `smallest` to the stage's in steps of 16.
    """

    peak: float
    strength: float
    stages: tuple[tuple[int, int], ...]
    smallest: int | None = None

    @property
    def epochs(self) -> int:
        """How many epochs the cycle has."""
        return sum(epochs for epochs, _ in self.stages)

    def draw_size(self, size: int) -> int:
        """The pixels a side of the next batch in a stage of `size`."""
        if self.smallest is None:
            return size
        return self.smallest + 16 * int(torch.randint(0, (size - self.smallest) // 16 + 1, ()))


# First learn much from hard images, then settle on gentler ones, which look more like those that are to be told apart;
# then learn to see the same thing at many sizes, for whoever fine-tunes may bring images of any sharpness.
CYCLES = (
    Cycle(peak=0.2, strength=1.0, stages=((3, 32), (10, 48), (8, 64), (1, 96))),
    Cycle(peak=0.04, strength=0.5, stages=((3, 64), (1, 96))),
    Cycle(peak=0.1, strength=0.6, stages=((5, 64), (8, 112)), smallest=48),
)


@dataclass(frozen=True)
class Photos:
    """Photos as uint8 `images` of shape (n, 3, 32, 32) and integer `labels` of shape (n,), with their class names."""

    images: Tensor
    labels: Tensor
    classes: list[str]


def read_photos(folder: Path) -> Photos:
    """Decode FOLDER/CLASS/*.jpg into memory, in the order of their names."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = [(path, index) for index, name in enumerate(classes) for path in sorted((folder / name).iterdir())]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in files])
    return Photos(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.tensor([label for _, label in files]), classes)


def random_warp(images: Tensor, size: int, strength: float) -> Tensor:
    """Crop, zoom, turn and mirror each image of (n, 3, h, w) by its own random affine map, to (n, 3, size, size)."""
    n = len(images)
    area = torch.empty(n).uniform_(1 - 0.7 * strength, 1 + 0.2 * strength)
    ratio = torch.empty(n).uniform_(math.log(3 / 4), math.log(4 / 3)).exp()
    wide, high = (area * ratio).sqrt(), (area / ratio).sqrt()
    angle = torch.empty(n).uniform_(-math.pi / 12, math.pi / 12) * strength
    mirror = torch.randint(0, 2, (n,)) * 2 - 1
    room_x, room_y = (1 - wide).clamp(min=0), (1 - high).clamp(min=0)
    shift_x, shift_y = (torch.empty(n).uniform_(-1, 1) * room for room in (room_x, room_y))
    cos, sin = angle.cos(), angle.sin()
    rows = [torch.stack([wide * mirror * cos, -high * sin, shift_x], 1)]
    rows += [torch.stack([wide * mirror * sin, high * cos, shift_y], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), (n, 3, size, size), align_corners=False)
    return F.grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False)


def random_light(images: Tensor, strength: float) -> Tensor:
    """Change brightness, contrast and saturation of each image of (n, 3, h, w); values stay within 0 and 1."""
    n = len(images)
    widths = (0.3 * strength, 0.3 * strength, 0.4 * strength)
    bright, contrast, saturation = (torch.empty(n, 1, 1, 1).uniform_(1 - width, 1 + width) for width in widths)
    grey_only = torch.rand(n, 1, 1, 1) < 0.05 * strength
    saturation = torch.where(grey_only, 0.0, saturation)
    images = images * bright
    images = images.mean((1, 2, 3), keepdim=True).lerp(images, contrast)
    return images.mean(1, keepdim=True).lerp(images, saturation).clamp(0, 1)


class Pretraining:
    """One run: the network, the running average of its weights, its optimiser, and where it stands."""

    def __init__(self, train: Photos, test: Photos, checkpoint: Path):
        self.train, self.test, self.checkpoint = train, test, checkpoint
        pixels = train.images.float().div(255)
        self.mean, self.std = (figure.view(1, 3, 1, 1) for figure in (pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))))
        self.model = resnet18(num_classes=len(train.classes)).to(memory_format=torch.channels_last)
        self.average = resnet18(num_classes=len(train.classes)).to(memory_format=torch.channels_last)
        self.average.load_state_dict(self.model.state_dict())
        self.optimizer = torch.optim.SGD(self._groups(), lr=CYCLES[0].peak, momentum=0.9, nesterov=True, fused=True)
        self.steps_an_epoch = len(train.labels) // BATCH
        self.history: list[dict] = []

    def _groups(self) -> list[dict]:
        """Weight decay for matrices and kernels; none for norms and biases."""
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim == 1]
        return [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]

    def rate(self, cycle: Cycle, progress: float) -> float:
        """The rate at `progress` (0 to 1) of a cycle: up for the first tenth, then down half a cosine to zero."""
        if progress < 0.1:
            return cycle.peak * progress / 0.1
        return cycle.peak * 0.5 * (1 + math.cos(math.pi * (progress - 0.1) / 0.9))

    def epoch(self, cycle: Cycle, size: int, done: int) -> float:
        """Train once through the photos at `size` pixels, `done` epochs into the cycle; returns the mean loss."""
        self.model.train()
        order, losses = torch.randperm(len(self.train.labels)), []
        for index in range(self.steps_an_epoch):
            chosen = order[index * BATCH : (index + 1) * BATCH]
            pixels = self.train.images[chosen].float().div(255)
            images = random_warp(pixels, cycle.draw_size(size), cycle.strength)
            loss = self._loss(random_light(images, cycle.strength), self.train.labels[chosen])
            progress = (done + index / self.steps_an_epoch) / cycle.epochs
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate(cycle, progress)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self._follow()
            losses.append(loss.item())
        return sum(losses) / len(losses)

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.model(self._normalised(images))
        return F.cross_entropy(logits.float(), labels, label_smoothing=LABEL_SMOOTHING)

    def _normalised(self, images: Tensor) -> Tensor:
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the running average towards the weights; batch-norm statistics are averages already."""
        for kept, new in zip(self.average.parameters(), self.model.parameters(), strict=True):
            kept.lerp_(new, 1 - AVERAGE_DECAY)
        for kept, new in zip(self.average.buffers(), self.model.buffers(), strict=True):
            kept.copy_(new)

    @torch.no_grad()
    def accuracy(self, size: int, exact: bool = False) -> float:
        """The share of test photos, enlarged to `size`, that the averaged weights name rightly; in fp32 if `exact`."""
        self.average.eval()
        right = 0
        for images, labels in zip(self.test.images.split(250), self.test.labels.split(250), strict=True):
            images = F.interpolate(images.float().div(255), size=size, mode="bicubic").clamp(0, 1)
            with torch.autocast("cpu", torch.bfloat16, enabled=not exact):
                right += (self.average(self._normalised(images)).argmax(1) == labels).sum().item()
        return right / len(self.test.labels)

    def save(self) -> None:
        """Write the state beside the old one, then replace it: a stop at any moment loses one epoch at most."""
        names = ("model", "average", "optimizer")
        state = {name: getattr(self, name).state_dict() for name in names}
        state |= {"history": self.history, "random": torch.get_rng_state()}
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def resume(self) -> None:
        """Go on from the checkpoint where there is one."""
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, weights_only=True)
        for name in ("model", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.history = state["history"]
        torch.set_rng_state(state["random"])

    def run(self) -> None:
        """All the epochs that are still to do, one printed line each."""
        plan = [
            (cycle, size, done)
            for cycle in CYCLES
            for done, size in enumerate(size for epochs, size in cycle.stages for _ in range(epochs))
        ]
        for number, (cycle, size, done) in enumerate(plan[len(self.history) :], len(self.history) + 1):
            start = time.perf_counter()
            loss = self.epoch(cycle, size, done)
            seconds = round(time.perf_counter() - start)
            row = {"epoch": number, "size": size, "loss": round(loss, 4), "test_accuracy": self.accuracy(size)}
            self.history.append(row | {"seconds": seconds})
            print(json.dumps(self.history[-1]), flush=True)
            self.save()

    def export(self, out: Path) -> None:
        """Write the averaged weights in half precision, and the log beside them."""
        facts = {
            "architecture": "resnet18",
            "trained_on": "CIFAR-10 (Krizhevsky, 2009), 50,000 photos of 32x32",
            "classes": json.dumps(self.train.classes),
            "mean": json.dumps([round(value, 4) for value in self.mean.flatten().tolist()]),
            "std": json.dumps([round(value, 4) for value in self.std.flatten().tolist()]),
            "test_accuracy": str(self.accuracy(64, exact=True)),
        }
        tensors = {
            name: tensor.half() if tensor.is_floating_point() else tensor
            for name, tensor in self.average.state_dict().items()
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, out, metadata=facts)
        with out.with_suffix(".csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, self.history[0].keys())
            writer.writeheader()
            writer.writerows(self.history)


def main(
    images: Annotated[Path, typer.Option(help="folder with train/CLASS/*.jpg and test/CLASS/*.jpg")],
    out: Annotated[Path, typer.Option(help="the weights to write")] = Path("data/weights/resnet18-cifar10.safetensors"),
    checkpoint: Annotated[Path, typer.Option(help="where the run keeps its state")] = Path("pretrain.checkpoint"),
    seed: int = 1,
) -> None:
    """Pretrain resnet18 on IMAGES and write its weights to OUT; the same command resumes."""
    torch.manual_seed(seed)
    run = Pretraining(read_photos(images / "train"), read_photos(images / "test"), checkpoint)
    run.resume()
    run.run()
    run.export(out)


if __name__ == "__main__":
    typer.run(main)
