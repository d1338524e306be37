"""Large photos to what a network sees: kit's loader, fastai's, torchvision's; how quick, and how near to a full decode.

python tests/bench/decode.py --images FOLDER             # any photos: they are enlarged to 12 megapixels first

One thread each, in turns, so that whatever else the machine does meets all alike. Quality: the peak signal-to-noise
ratio (dB, more is nearer) to the middle square of the wholly decoded photo, reduced by an exact box filter to four
times the size and by Lanczos from there. The last line is the ratio of times, fastai / kit.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from kit.cli.script import script

WIDE, HIGH = 4000, 3000


def main(
    images: Annotated[Path, typer.Option(help="a folder of photos")],
    count: int = 16,
    rounds: int = 3,
    size: int = 224,
):
    """Print each way's milliseconds a photo, its ratio to fastai in the same round, and its quality."""
    with tempfile.TemporaryDirectory() as folder:
        files = [enlarged(path, Path(folder)) for path in sorted(images.glob("*.jpg"))[:count]]
        exact = [reference(path, size) for path in files]
        seconds = {name: [timed(way, files, size) for _ in range(rounds)] for name, way in WAYS.items()}
        print("| way | ms a photo | fastai / this | PSNR, dB |\n|---|---|---|---|")
        for name, way in WAYS.items():
            ratios = [theirs / ours for theirs, ours in zip(seconds["fastai"], seconds[name], strict=True)]
            quality = statistics.mean(psnr(way(path, size), one) for path, one in zip(files, exact, strict=True))
            each = 1000 * statistics.median(seconds[name]) / len(files)
            print(f"| {name} | {each:.1f} | {statistics.median(ratios):.2f} | {quality:.1f} |")
            if name == "kit":
                ratio = statistics.median(ratios)
    print(f"{ratio:.1f}x")


def enlarged(path: Path, folder: Path) -> Path:
    """A photo at 12 megapixels, as a camera would save it."""
    made = folder / path.name
    Image.open(path).convert("RGB").resize((WIDE, HIGH), Image.Resampling.LANCZOS).save(made, quality=92)
    return made


def reference(path: Path, size: int) -> np.ndarray:
    """The middle square of the whole photo, reduced as exactly as Pillow can."""
    image = Image.open(path)
    side, left, top = min(image.size), (image.width - min(image.size)) // 2, (image.height - min(image.size)) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=4.0))


def psnr(found: np.ndarray, exact: np.ndarray) -> float:
    """The peak signal-to-noise ratio of two uint8 images, in decibels."""
    return float(10 * np.log10(255**2 / np.square(found.astype(float) - exact).mean()))


def kit(path: Path, size: int) -> np.ndarray:
    """kit's one way in: a JPEG is decoded at a fraction of its size where that leaves twice what is wanted."""
    from kit.data.images import open_image, square

    return np.asarray(square(open_image(path, size), size, "crop"))


def fastai(path: Path, size: int) -> np.ndarray:
    """fastai's PILImage and Resize."""
    from fastai.vision.all import PILImage, Resize

    return np.asarray(Resize(size)(PILImage.create(path), split_idx=1))


def torchvision(path: Path, size: int) -> np.ndarray:
    """torchvision's own decoder and antialiased resize."""
    from torchvision.io import decode_image
    from torchvision.transforms import v2

    image = v2.functional.resize(decode_image(str(path)), size, antialias=True)
    return v2.functional.center_crop(image, size).permute(1, 2, 0).numpy()


WAYS = {"kit": kit, "fastai": fastai, "torchvision": torchvision}


def timed(way, files: list[Path], size: int) -> float:
    """Seconds for all files, after one to warm up."""
    import torch

    torch.set_num_threads(1)
    way(files[0], size)
    begun = time.perf_counter()
    for path in files:
        way(path, size)
    return time.perf_counter() - begun


if __name__ == "__main__":
    script(main)
