"""fine_tune(1) from cold files on one GPU: kit, plain fastai (to_fp16, 8 workers), the loops of torchvision and timm.

python tests/bench/gpu.py --images PETS                                   # 7,390 files, resnet34, resnet50, Lite0
python tests/bench/gpu.py --images PETS --device cpu --count 80 --size 64 --arch resnet18     # to try it on a CPU

Fewer photos than `count` are made up to it by variants: cropped, turned, mirrored and lightened, so that no file is
equal to another. All ways train on the same files, one fifth held out, batches of 64, and validate after each of two
epochs: kit and fastai with the body frozen first, the loops of torchvision's and timm's scripts on all layers. "kit" is
the default (a head from features, then all layers if a trial says so) with run folder and bundle, "kit whole" fastai's
phases. ResNets start from random weights in a file, because speed does not depend on them; Lite0 from its ImageNet
weights. Each way has a process of its own; the clock starts after the imports.

Of kit's time the share of each stage is told, how often a file was decoded after it was scanned, and of its training
and of fastai's how long the GPU was busy: by torch's profiler over 40 steps, and by NVML. `decode` compares the
decoding of JPEGs on the GPU (nvJPEG) with kit's image loader, in time and in pixels. --seconds ends it in time: what
was not measured is named. --json writes all figures, after each measurement.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from fine_tune import body_of, fastai_loaders

from kit.cli.script import script

BATCH, WORKERS, RATE, EPOCHS = 64, 8, 2e-3, 2
LITE0 = "tf_efficientnet_lite0"
ARCHS = ("resnet34", "resnet50", LITE0)
WAYS = ("kit", "fastai", "kit whole", "torchvision", "timm")
DECODE = "decode"
PROFILED_FROM, PROFILED = 10, 40  # steps
GOALS = {"seconds": 6.0, "ratio": 5.0, "busy": 0.85, "decodings": 1.0}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main(
    images: Annotated[Path, typer.Option(help="a folder of photos in Oxford Pets' names")],
    arch: Annotated[list[str], typer.Option()] = list(ARCHS),  # noqa: B006 (typer copies it)
    ways: Annotated[list[str], typer.Option("--way", help=f"of: {', '.join(WAYS)}, {DECODE}")] = [*WAYS, DECODE],  # noqa: B006
    count: int = 7_390,
    size: int = 224,
    device: str = "auto",
    seconds: Annotated[float, typer.Option(help="stop after this time")] = 3600,
    written: Annotated[Path | None, typer.Option("--json", help="write all figures here")] = None,
    run: Annotated[str | None, typer.Option(hidden=True)] = None,
):
    """Print a line for each network and way, then what was reached of the goals."""
    if run:
        print(json.dumps(MEASURES[run](images, arch[0], size, device)))
        return
    until = time.monotonic() + seconds
    found: dict[str, Any] = {"count": count, "size": size, "batch": BATCH, "machine": machine()}
    found |= {"measured": {}, "not measured": {}}

    def keep() -> None:
        if written:
            written.write_text(json.dumps(found, indent=1))

    with tempfile.TemporaryDirectory(prefix="kit-gpu-") as folder:
        started = time.perf_counter()
        make_files(images, Path(folder) / "photos", count)
        found["seconds to make the files"] = round(time.perf_counter() - started, 1)
        plan = [(name, way) for name in arch for way in ways if way != DECODE]
        plan[len(ways) - 1 : len(ways) - 1] = [("", DECODE)] * (DECODE in ways)
        for name, way in plan:
            key = f"{name}: {way}" if name else way
            command = [sys.executable, __file__, "--images", folder, "--size", str(size), "--device", device]
            figures = measured([*command, "--arch", name, "--run", way], until - time.monotonic())
            found["not measured" if isinstance(figures, str) else "measured"][key] = figures
            print(f"{key}: {figures}", flush=True)
            keep()
    found["goals"] = goals(found["measured"])
    keep()
    print("\n".join(f"goal: {name}: {value}" for name, value in found["goals"].items()))


def measured(command: list[str], seconds: float) -> dict | str:
    """What a way prints in a process of its own, or why it did not."""
    if seconds < 1:
        return "no time was left"
    pipe = subprocess.PIPE
    # A session of its own, so that its loading processes can be ended with it.
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    try:
        out, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:.0f} s, because no time was left"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return f"failed: {errors[-1500:]}" if process.returncode else json.loads(out.splitlines()[-1])


def goals(found: dict[str, dict]) -> dict[str, str]:
    """Each goal with what was measured."""
    lines = {}
    for arch in dict.fromkeys(key.split(": ")[0] for key in found if ": " in key):
        kit, whole, plain = (found.get(f"{arch}: {way}") for way in ("kit", "kit whole", "fastai"))
        if kit:
            lines[f"{arch}, at most {GOALS['seconds']} s"] = f"{kit['wall']} s"
            lines[f"{arch}, decoded at most once"] = f"{kit['decodings']} times a file"
        for name, ours in (("kit", kit), ("kit whole", whole)):
            if ours and plain:
                lines[f"{arch}, {name} at least {GOALS['ratio']}x fastai"] = f"{plain['wall'] / ours['wall']:.1f}x"
        for name, one in (("kit", whole), ("fastai", plain)):
            if one and one.get("busy") is not None:
                lines[f"{arch}, {name}'s training over {GOALS['busy']:.0%} busy"] = f"{one['busy']:.0%}"
    return lines


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import platform

    import torch

    facts = {"python": platform.python_version(), "torch": torch.__version__, "cores": len(os.sched_getaffinity(0))}
    if torch.cuda.is_available():
        facts |= {"card": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
        facts["cudnn"] = torch.backends.cudnn.version()
    return facts | {"load": os.getloadavg()[0]}


# Files ----------------------------------------------------------------------------------------------------------------


def make_files(images: Path, folder: Path, count: int) -> None:
    """Write `count` files to folder/SIDE/CLASS: photos in random order, then variants of them. Every fifth photo, with
    its variants, is for validation."""
    import random

    from joblib import Parallel, delayed

    photos = sorted(images.glob("*.jpg"))
    if not photos:
        raise SystemExit(f"{images} has no .jpg files")
    random.Random(0).shuffle(photos)  # by name all cats come first
    for side in ("train", "valid"):
        for label in ("cat", "dog"):
            (folder / side / label).mkdir(parents=True, exist_ok=True)
    numbered = ((photos[number % len(photos)], folder, number, len(photos)) for number in range(count))
    Parallel(n_jobs=-1, batch_size=32)(delayed(write_variant)(*one) for one in numbered)


def write_variant(photo: Path, folder: Path, number: int, photos: int) -> None:
    """Copy a photo, or write a variant of it as a JPEG of the same size."""
    import random
    import shutil

    from PIL import Image, ImageEnhance, ImageOps

    side, label = "train" if number % photos % 5 else "valid", "cat" if photo.name[0].isupper() else "dog"
    path = folder / side / label / f"{photo.stem}_{number}.jpg"
    if number < photos:
        shutil.copy(photo, path)
        return
    dice = random.Random(number)
    with Image.open(photo) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    image = image.rotate(dice.uniform(-15, 15), Image.Resampling.BILINEAR)
    share = dice.uniform(0.5, 0.9)
    left, top = dice.uniform(0, 1 - share) * width, dice.uniform(0, 1 - share) * height
    box = (left, top, left + share * width, top + share * height)
    image = image.resize((width, height), Image.Resampling.BICUBIC, box)
    image = ImageOps.mirror(image) if dice.random() < 0.5 else image
    ImageEnhance.Brightness(image).enhance(dice.uniform(0.7, 1.3)).save(path, quality=93)


def table(folder: Path):
    """Path, label and split of each file."""
    import pandas as pd

    rows = [(str(path), path.parent.name, path.parts[-3]) for path in sorted((folder / "photos").rglob("*.jpg"))]
    return pd.DataFrame(rows, columns=["path", "label", "split"])


# Time -----------------------------------------------------------------------------------------------------------------


def now() -> float:
    """The time, when the GPU is done."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def where(device: str):
    """The device of a name."""
    from kit.data.datablock import device as find_device

    return find_device(device)


# Module and function of kit's stages. Features that evaluation and bundle compute count as theirs.
STAGES = (
    ("scan", "kit.pipeline", "checked_table"),
    ("decode", "kit.data.cached_dl", "decode_images"),
    ("features", "kit.model.build", "compute_features"),
    ("head", "kit.train.transfer", "fit_head"),
    ("training", "kit.train", "fine_tune"),
    ("evaluation", "kit.pipeline", "evaluated"),
    ("bundle", "kit.pipeline", "saved"),
    ("report", "kit.pipeline", "write_run"),
)
WHOLE_STAGES = ("evaluation", "bundle", "report")


class Stopwatch:
    """Seconds of each stage without those of the stages inside it, and the number of files that each one opened."""

    def __init__(self):
        self.seconds, self.opened = Counter(), Counter()
        self.stack: list[str] = ["rest"]
        self.since = now()

    def switch(self) -> None:
        at = now()
        self.seconds[self.stack[-1]] += at - self.since
        self.since = at

    def timed(self, name: str, function: Callable) -> Callable:
        @wraps(function)
        def timed(*args, **kwargs):
            if self.stack[-1] in WHOLE_STAGES:
                return function(*args, **kwargs)
            self.switch()
            self.stack.append(name)
            try:
                return function(*args, **kwargs)
            finally:
                self.switch()
                self.stack.pop()

        return timed

    def counted(self, function: Callable) -> Callable:
        @wraps(function)
        def counted(*args, **kwargs):
            self.opened[self.stack[-1]] += 1
            return function(*args, **kwargs)

        return counted


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """A stopwatch on kit's stages; in the end kit's functions are as before."""
    watch, before = Stopwatch(), []
    places = [(place, name, lambda old, stage=stage: watch.timed(stage, old)) for stage, place, name in STAGES]
    places += [(place, "open_image", watch.counted) for place in ("kit.data.decode", "kit.data.images")]
    for place, name, wrap in places:
        module = import_module(place)
        before.append((module, name, getattr(module, name)))
        setattr(module, name, wrap(before[-1][2]))
    try:
        yield watch
    finally:
        for module, name, old in before:
            setattr(module, name, old)
        watch.switch()


class Utilisation:
    """The mean utilisation by NVML, sampled while a block runs; None without a GPU or NVML."""

    def __init__(self):
        self.samples, self.over = [], threading.Event()

    def __enter__(self):
        import torch

        self.thread = threading.Thread(target=self._sample, daemon=True)
        if torch.cuda.is_available():
            self.thread.start()
        return self

    def _sample(self) -> None:
        import torch

        try:
            while not self.over.wait(0.1):
                self.samples.append(torch.cuda.utilization() / 100)
        except Exception as error:  # without nvidia-ml-py, or on a machine that does not tell
            print(f"NVML: {error}", file=sys.stderr)

    def __exit__(self, *_):
        self.over.set()

    @property
    def mean(self) -> float | None:
        return round(sum(self.samples) / len(self.samples), 3) if self.samples else None


def profiler():
    """A callback of fastai's that ends training after some steps of all layers. share: of the time in which the GPU
    computed or copied something, None on a CPU."""
    import torch
    from fastai.vision.all import Callback, CancelFitException

    class Profiler(Callback):
        order = 3000
        share, step = None, 0

        def before_batch(self):
            if not self.training or self.opt.frozen_idx:
                return
            if self.step == PROFILED_FROM and torch.cuda.is_available():
                self.profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
                self.profile.start()
                self.begun = now()
            if self.step == PROFILED_FROM + PROFILED:
                if torch.cuda.is_available():
                    seconds = now() - self.begun
                    self.profile.stop()
                    self.share = round(computing(self.profile) / seconds, 3)
                raise CancelFitException
            self.step += 1

    return Profiler()


def computing(profile: Any) -> float:
    """Seconds in which at least one kernel or copy ran."""
    import torch

    cuda = torch.autograd.DeviceType.CUDA
    events = [one for one in profile.events() if one.device_type == cuda and not one.is_user_annotation]
    spans = sorted((one.time_range.start, one.time_range.end) for one in events)
    total = last = 0.0
    for start, end in spans:
        total += max(0.0, end - max(start, last))
        last = max(last, end)
    return total / 1e6


def busy(train: Callable[[Any], None]) -> dict[str, Any]:
    """The share of time in which the GPU was busy in `train`, a function of callbacks; or why it was not measured."""
    found = profiler()
    try:
        with Utilisation() as used:
            train([found])
    except Exception as error:  # the profiler may be forbidden; what was measured before is kept
        return {"busy": None, "not measured": f"{type(error).__name__}: {error}"}
    return {"busy": found.share, "utilisation of training": used.mean}


# Ways -----------------------------------------------------------------------------------------------------------------


def weights_of(arch: str, folder: Path) -> str:
    """Lite0's ImageNet weights, or a file of random ones that kit takes for pretrained."""
    if arch == LITE0:
        return "imagenet"
    import torch
    from safetensors.torch import save_file
    from torchvision import models

    path = folder / f"{arch}.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        save_file(getattr(models, arch)().state_dict(), path)
    return str(path)


def kit(folder: Path, arch: str, size: int, device: str, **options) -> dict:
    """kit.fine_tune with its defaults, from files to run folder and bundle."""
    import fastai.vision.all  # noqa: F401 (the other ways import it before the clock starts too)
    import torch

    import kit as package
    from kit import bundle, data, evaluate, model, train

    rows, weights = table(folder), weights_of(arch, folder)
    recipe = package.Recipe(arch=arch, weights=weights, size=size, batch=BATCH, device=device, **options)
    warm_up(device)
    with tempfile.TemporaryDirectory() as own:
        os.environ["KIT_CACHE"] = f"{own}/cache"
        for module in (bundle, data, evaluate, model, train):  # their functions are imported on first use
            dir(module)
        begun = now()
        with stopwatch() as watch, Utilisation() as used:
            run = package.fine_tune(rows, recipe, out=Path(own) / "run")
        wall = now() - begun
        memory = torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0
        layers = (run.history.chosen.get("layers") or {"kept": "whole"})["kept"]
        figures = {
            "wall": round(wall, 2),
            "images a second": round(len(rows) / wall, 1),
            "stages": {name: round(seconds, 2) for name, seconds in watch.seconds.items()},
            "decodings": round((watch.opened["decode"] + watch.opened["features"]) / len(rows), 2),
            "layers": layers,
            "cache": run.history.chosen.get("cache"),
            "error": round(run.error_rate.value, 4),
            "utilisation of the whole run": used.mean,
            "gigabytes": round(memory / 1e9, 2),
        }
        if layers == "whole":
            whole = replace(recipe, layers="whole")
            learn = model.learner(data.blocks(whole).dataloaders(run.table), whole)
            figures |= busy(lambda cbs: train.fine_tune(learn, whole, cbs=cbs))
    return figures


def kit_whole(folder: Path, arch: str, size: int, device: str) -> dict:
    """The same in fastai's phases, at its rates."""
    return kit(folder, arch, size, device, layers="whole", rate=RATE, lr_mult=100)


def warm_up(device: str) -> None:
    """Start CUDA and cuDNN, which takes a second or two, before the clock starts."""
    import torch

    place = where(device)
    if place.type == "cuda":
        torch.nn.Conv2d(3, 8, 3).to(place)(torch.zeros(2, 3, 32, 32, device=place)).sum().backward()


def fastai(folder: Path, arch: str, size: int, device: str) -> dict:
    """fastai's lesson in half precision: fine_tune(1), which trains the head for one epoch, then all layers."""
    import torch
    from fastai.vision.all import error_rate, models, vision_learner

    rows, place = table(folder), where(device)
    warm_up(device)
    begun = now()
    dls = fastai_loaders(rows, BATCH, WORKERS, size)
    dls.to(place)
    network = arch if arch == LITE0 else getattr(models, arch)
    learn = vision_learner(dls, network, pretrained=False, metrics=error_rate)
    if arch == LITE0:
        learn.model[0].load_state_dict(body_of(arch))
    learn = learn.to_fp16()
    with learn.no_bar(), learn.no_logging(), Utilisation() as used:
        learn.fine_tune(1, RATE)
        wall, error = now() - begun, float(learn.final_record[-1])
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0
    figures = {
        "wall": round(wall, 2),
        "images a second": round(len(rows) / wall, 1),
        "error": round(error, 4),
        "utilisation of the whole run": used.mean,
        "gigabytes": round(memory / 1e9, 2),
    }
    with learn.no_bar(), learn.no_logging():
        return figures | busy(lambda cbs: learn.fit_one_cycle(1, RATE, cbs=cbs))


def looped(rows: Any, place: Any, model: Any, train: Any, valid: Any, step: Callable, cast: Any) -> dict:
    """Two epochs of a training script, each followed by validation. step: one training batch; cast: autocast."""
    import torch

    seconds, begun = [], now()
    with Utilisation() as used:
        for _ in range(EPOCHS):
            model.train()
            started, seen = now(), 0
            for x, y in train:
                step(x.to(place, non_blocking=True), y.to(place, non_blocking=True))
                seen += len(x)
            seconds.append(now() - started)
            model.eval()
            wrong = total = 0
            with torch.inference_mode(), cast():
                for x, y in valid:
                    answers = model(x.to(place, non_blocking=True)).argmax(1)
                    wrong, total = wrong + (answers != y.to(place)).sum(), total + len(y)
    wall = now() - begun
    return {
        "wall": round(wall, 2),
        "images a second": round(len(rows) / wall, 1),
        "images a second in training": round(seen / seconds[-1], 1),
        "error": round(float(wrong) / total, 4),
        "utilisation of the whole run": used.mean,
    }


def torchvision(folder: Path, arch: str, size: int, device: str) -> dict:
    """The loop of torchvision's references/classification: its transforms, SGD, automatic mixed precision (fp16)."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import datasets, models
    from torchvision.transforms import v2

    place, rows = where(device), table(folder)
    warm_up(device)
    end = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    random_crops = v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), *end])
    centre = v2.Compose([v2.Resize(size * 256 // 224), v2.CenterCrop(size), *end])
    several = {"batch_size": BATCH, "num_workers": WORKERS, "pin_memory": place.type == "cuda"}
    train = DataLoader(datasets.ImageFolder(folder / "photos/train", random_crops), shuffle=True, **several)
    valid = DataLoader(datasets.ImageFolder(folder / "photos/valid", centre), **several)
    if arch == LITE0:
        import timm

        model = timm.create_model(arch, num_classes=2).to(place)
    else:
        model = getattr(models, arch)(num_classes=2).to(place)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(place.type, enabled=place.type == "cuda")

    def cast():
        return torch.autocast("cuda", torch.float16) if place.type == "cuda" else nullcontext()

    def step(x, y):
        with cast():
            loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return looped(rows, place, model, train, valid, step, cast)


def timm(folder: Path, arch: str, size: int, device: str) -> dict:
    """The loop of timm's train.py: its loader with prefetching, AdamW, channels last, bf16."""
    import timm as package
    import torch
    from timm.data import ImageDataset, create_loader
    from timm.optim import create_optimizer_v2

    place, rows = where(device), table(folder)
    warm_up(device)
    loaders = [
        create_loader(
            ImageDataset(str(folder / "photos" / side)), (3, size, size), BATCH, is_training=side == "train",
            num_workers=WORKERS, device=place, pin_memory=place.type == "cuda",
        )
        for side in ("train", "valid")
    ]  # fmt: skip
    model = package.create_model(arch, num_classes=2).to(place, memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)

    def cast():
        return torch.autocast("cuda", torch.bfloat16) if place.type == "cuda" else nullcontext()

    def step(x, y):
        with cast():
            loss = torch.nn.functional.cross_entropy(model(x.contiguous(memory_format=torch.channels_last)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return looped(rows, place, model, *loaders, step, cast)


# Decoding -------------------------------------------------------------------------------------------------------------


def decode(folder: Path, arch: str, size: int, device: str) -> dict:
    """Images a second of kit's loader, which also resizes, and of nvJPEG; and how far the pixels of both are apart."""
    import numpy as np
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    from kit.data.decode import ForPrediction, map_ahead
    from kit.data.images import open_image

    paths = table(folder)["path"].tolist()[:1024]
    started = time.perf_counter()
    for _ in map_ahead(ForPrediction(size, "crop", size), paths):
        pass
    figures: dict[str, Any] = {"files": len(paths), "kit": round(len(paths) / (time.perf_counter() - started), 1)}
    place, mode = where(device), ImageReadMode.RGB
    if place.type != "cuda":
        return figures | {"nvJPEG": "not measured: it needs CUDA"}
    try:
        decode_jpeg([torch.from_numpy(np.fromfile(paths[0], np.uint8))], mode, device=place)
        started = now()
        for at in range(0, len(paths), BATCH):
            encoded = [torch.from_numpy(np.fromfile(path, np.uint8)) for path in paths[at : at + BATCH]]
            for one in decode_jpeg(encoded, mode, device=place):
                torch.nn.functional.interpolate(one[None].float(), (size, size), mode="bilinear", antialias=True)
        figures["nvJPEG"] = round(len(paths) / (now() - started), 1)
    except RuntimeError as error:
        return figures | {"nvJPEG": f"failed: {error}"}
    apart = []
    for path in paths[:64]:
        encoded = torch.from_numpy(np.fromfile(path, np.uint8))
        theirs = decode_jpeg(encoded, mode, device=place).cpu().permute(1, 2, 0)
        ours = np.asarray(open_image(path))
        if theirs.shape != ours.shape:  # one of them is turned upright
            apart.append((255, 1.0))
            continue
        difference = np.abs(theirs.numpy().astype(int) - ours.astype(int))
        apart.append((int(difference.max()), float((difference > 0).mean())))
    figures |= {"largest difference of a pixel": max(one for one, _ in apart)}
    figures |= {"share of values that differ": round(float(np.mean([share for _, share in apart])), 4)}
    return figures | {"the same pixels": max(one for one, _ in apart) == 0}


MEASURES = {
    "kit": kit,
    "kit whole": kit_whole,
    "fastai": fastai,
    "torchvision": torchvision,
    "timm": timm,
    DECODE: decode,
}

if __name__ == "__main__":
    script(main)
