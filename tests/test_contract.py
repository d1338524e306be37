"""One contract for every label form and every family of networks: whatever goes in, the run that comes out is whole."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from conftest import SHAPES, draw_shape, write_shapes

import kit
from kit import bundle


def by_folder(folder):
    return write_shapes(folder), {}


def by_split_folders(folder):
    write_shapes(folder / "train", count=6)
    write_shapes(folder / "val", count=2, first=20)
    return folder, {}


def by_pattern(folder):
    for shape in SHAPES:
        for number in range(8):
            draw_shape(shape, number).save(folder / f"{shape}_{number}.png")
    return folder, {"label": r"^(.+)_\d+"}


def by_function(folder):
    return by_pattern(folder)[0], {"label": lambda path: path.name.split("_")[0]}


def by_csv(folder):
    by_pattern(folder)
    rows = [(path.name, path.name.split("_")[0]) for path in sorted(folder.glob("*.png"))]
    pd.DataFrame(rows, columns=["path", "label"]).to_csv(folder / "labels.csv", index=False)
    return folder, {"labels": str(folder / "labels.csv")}


def by_dataframe(folder):
    write_shapes(folder)
    paths = sorted(folder.rglob("*.png"))
    return pd.DataFrame({"path": [str(p) for p in paths], "label": [p.parent.name for p in paths]}), {}


FORMS = [by_folder, by_split_folders, by_pattern, by_function, by_csv, by_dataframe]
NETWORKS = ["resnet18", "resnet50", "timm/resnet18", "convnext_atto", "mobilenetv3_small_050", "efficientnet_lite0"]
QUICK = "resnet18"


def check_contract(run):
    config = json.loads((run.bundle / "config.json").read_text())
    assert config["vocab"] == sorted(run.table["label"].unique())
    assert run.evaluation.vocab == config["vocab"]
    predictions = bundle.load(run.folder).predict(run.evaluation.predictions["path"].tolist())
    for one, row in zip(predictions, run.evaluation.probabilities, strict=True):
        assert sum(one.probabilities.values()) == pytest.approx(1)
        assert list(one.plain.values()) == pytest.approx(row.tolist(), abs=1e-5)
    for name in ("recipe.json", "table.csv", "result.json", "history.csv", "predictions.csv"):
        assert (run.folder / name).stat().st_size > 20


@pytest.mark.parametrize("form", FORMS)
def test_every_label_form_gives_a_whole_run(form, tiny, tmp_path):
    (tmp_path / "images").mkdir()
    source, options = form(tmp_path / "images")
    check_contract(kit.fine_tune(source, tiny, out=tmp_path / "run", onnx=False, **options))


@pytest.mark.parametrize("arch", [pytest.param(n, marks=[] if n == QUICK else pytest.mark.slow) for n in NETWORKS])
def test_every_family_of_networks_gives_a_whole_run(arch, shapes, tiny, tmp_path):
    check_contract(kit.fine_tune(shapes, replace(tiny, arch=arch), out=tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_transformers_give_a_whole_run_at_their_own_size(arch, shapes, tiny, tmp_path):
    check_contract(kit.fine_tune(shapes, replace(tiny, arch=arch, size=224), out=tmp_path / "run"))


@pytest.mark.parametrize(
    "changes",
    [{"resize": "pad"}, {"resize": "squish"}, {"presize": 48}, {"augment": False}, {"precision": "bf16"}],
    ids=str,
)
def test_every_recipe_gives_a_whole_run(changes, shapes, tiny, tmp_path):
    check_contract(kit.fine_tune(shapes, replace(tiny, **changes), out=tmp_path / "run", onnx=False))
