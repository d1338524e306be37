"""What the benchmarks share: a bundle with random weights, the same network as plain fastai exports it, small helps.

with untrained("resnet34", 224) as folder: ...      # folder/bundle, folder/export.pkl

Speed does not depend on the weights. The bundle is made of the drawn sample, so that no photo is needed.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SAMPLE_IMAGES = 48


@contextmanager
def untrained(arch: str, size: int) -> Iterator[Path]:
    """A folder with `bundle` and `export.pkl`, which is removed afterwards.

    Another process makes them: the peak memory of a process counts that of the one that starts it.
    """
    with tempfile.TemporaryDirectory(prefix=f"kit-bench-{arch}-") as folder:
        subprocess.run([sys.executable, "-W", "ignore", __file__, arch, str(size), folder], check=True)
        yield Path(folder)


def make(arch: str, size: int, folder: Path) -> None:
    """Write `bundle` and `export.pkl`: one network with random weights for two classes."""
    from kit import Recipe, bundle, data, evaluate, model, train

    recipe = Recipe(arch=arch, size=size, weights="none", label="is_cat", batch=16, workers=0, device="cpu")
    train.seed_everything(recipe.seed)
    table = data.table("sample", label=recipe.label)
    few = table.groupby(["split", "label"]).head(SAMPLE_IMAGES // 4).reset_index(drop=True)
    learn = model.learner(data.blocks(recipe).dataloaders(few), recipe)
    with learn.no_bar(), learn.no_logging():
        bundle.save(learn, evaluate.evaluate(learn), folder / "bundle")
    export_plain(learn, few, size, folder / "export.pkl")


def export_plain(learn, table, size: int, path: Path) -> None:
    """The network of `learn` in a Learner that fastai alone made, with its defaults, as `export.pkl`."""
    import torchvision
    from fastai.vision.all import ImageDataLoaders, Normalize, Resize, imagenet_stats, vision_learner

    normalize = Normalize.from_stats(*imagenet_stats, cuda=False)
    columns = {"fn_col": "path", "label_col": "label"}
    dls = ImageDataLoaders.from_df(table, "/", **columns, item_tfms=Resize(size), batch_tfms=normalize, device="cpu")
    plain = vision_learner(dls, getattr(torchvision.models, learn.spec.recipe.arch), pretrained=False)
    plain.model.load_state_dict(learn.model.state_dict())
    plain.export(path)


def sample(count: int) -> list[str]:
    """Drawings, where a benchmark is given no photos."""
    from kit.files import packaged

    return [str(path) for path in sorted(packaged("sample").glob("*.jpg"))[:count]]


def fields(told: list[str]) -> dict[str, object]:
    """NAME=VALUE words as fields of a recipe: numbers, true and false become themselves."""
    found: dict[str, object] = dict(word.split("=", 1) for word in told)
    for name, value in found.items():
        with suppress(ValueError):
            found[name] = json.loads(value)
    return found


def spread(values: list[float], unit: str = "") -> str:
    """The median, and from where to where the values go."""
    return f"{statistics.median(values):.2f}{unit} ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    make(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
