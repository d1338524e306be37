"""Exports of plain fastai become bundles that predict the same; nothing is opened unasked."""

import hashlib
import json
import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import with_paths_of_this_machine
from fastai.tabular.all import TabularDataLoaders, tabular_learner
from fastai.vision.all import (
    BCEWithLogitsLossFlat,
    CategoryBlock,
    CropPad,
    DataBlock,
    ImageBlock,
    MaskBlock,
    MultiCategoryBlock,
    Normalize,
    PILImageBW,
    PointBlock,
    RandomCrop,
    RandomResizedCrop,
    RandomSplitter,
    RegressionBlock,
    Resize,
    accuracy_multi,
    aug_transforms,
    get_image_files,
    imagenet_stats,
    load_learner,
    vision_learner,
)
from PIL import Image
from torch import nn
from torchvision.models import resnet18, squeezenet1_1
from typer.testing import CliRunner

from kit import bundle
from kit.bundle.convert import convert, open_export, read_export
from kit.cli.main import application
from kit.data.labels import Targets
from kit.data.sources import labelled_images
from kit.errors import BundleError

VOCAB = ["circle", "square", "triangle"]


def label(path):
    return path.parent.name


def export(
    folder,
    out,
    *,
    arch="test_resnet",
    get_y=label,
    resize=None,
    batch_tfms=None,
    by_reference=False,
    epochs=1,
    stats=imagenet_stats,
    blocks=(ImageBlock, CategoryBlock),
    **options,
):
    """A learner as in the first lesson: untrained, but with batch-norm statistics of its own."""
    block = DataBlock(
        blocks,
        get_items=get_image_files,
        get_y=get_y,
        splitter=RandomSplitter(seed=1),
        item_tfms=resize or Resize(64),
        batch_tfms=[*(batch_tfms or []), Normalize.from_stats(*stats)],
    )
    dls = block.dataloaders(folder, bs=8, num_workers=0, device="cpu")
    learn = vision_learner(dls, arch, pretrained=False, normalize=False, **options)
    with learn.no_bar(), learn.no_logging():
        learn.fit(epochs, 1e-3)
    learn.export(out, **({"pickle_module": pickle} if by_reference else {}))
    return out


@pytest.fixture(scope="module")
def exported(shapes, tmp_path_factory):
    return export(shapes, tmp_path_factory.mktemp("exports") / "export.pkl", arch=resnet18)


@pytest.fixture(scope="module")
def rows(shapes):
    return labelled_images(shapes)


@pytest.fixture(scope="module")
def converted(exported, shapes, tmp_path_factory):
    """The bundle that the command makes of that export, and what it prints."""
    folder = tmp_path_factory.mktemp("converted") / "out"
    command = ["convert", str(exported), str(folder), "--images", str(shapes), "--trust-pickle"]
    done = CliRunner().invoke(application(), command)
    assert done.exit_code == 0, done.output
    return folder, done.output


def test_53_a_converted_bundle_holds_no_path_of_this_machine(converted, exported):
    assert with_paths_of_this_machine(converted[0], str(exported.parent)) == []


def test_3_trusted_the_command_makes_a_bundle_that_predicts_what_fastai_predicts(exported, converted, rows):
    folder, said = converted
    assert "0 of 24 images get another class" in said
    learn, _ = open_export(exported)
    paths = [Path(path) for path in rows["path"][::5]]
    theirs = learn.get_preds(dl=learn.dls.test_dl(paths, num_workers=0))[0].numpy()
    predictor = bundle.load(folder)
    assert predictor.vocab == VOCAB
    assert np.allclose([[one.plain[name] for name in VOCAB] for one in predictor.predict(paths)], theirs, atol=1e-4)


def test_the_bundle_says_where_it_comes_from_and_claims_nothing_about_training(exported, converted):
    folder, _ = converted
    config = json.loads((folder / "config.json").read_text())
    assert config["start"]["kind"] == "converted"
    assert config["start"]["sha256"] == hashlib.sha256(exported.read_bytes()).hexdigest()
    assert config["data"]["train"] == 0
    card = (folder / "README.md").read_text()
    assert "not known" in card
    assert "copy of a training image" not in card
    assert "which it may have been trained on" in card


def test_classes_can_be_given_better_names(exported, rows, tmp_path):
    names = ["round", "four corners", "three corners"]
    renamed = rows.assign(label=rows["label"].map(dict(zip(VOCAB, names, strict=True))))
    folder, proof = convert(read_export(exported, names), tmp_path / "out", renamed, onnx=False)
    assert bundle.load(folder).vocab == names
    assert (proof.images, proof.other_classes) == (24, 0)
    assert proof.largest_difference < 1e-4


@pytest.mark.parametrize("names", [["a", "b"], ["a", "a", "b"]])
def test_names_that_do_not_fit_the_classes_are_refused(exported, names):
    with pytest.raises(BundleError, match="names for 3 classes: circle, square, triangle"):
        read_export(exported, names)


def test_a_label_function_that_is_nowhere_is_no_trouble(shapes, rows, tmp_path, monkeypatch):
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "notebook_label", notebook_label, raising=False)
    monkeypatch.setattr(notebook_label, "__module__", "__main__")
    path = export(shapes, tmp_path / "export.pkl", get_y=notebook_label, by_reference=True)
    monkeypatch.delattr(main, "notebook_label")
    assert open_export(path)[1] == ["__main__.notebook_label"]
    assert convert(read_export(path), tmp_path / "out", rows, onnx=False)[1].largest_difference < 1e-4


def notebook_label(path):
    return path.parent.name


def size_of(path):
    return float(path.stem)


def corner(path):
    return torch.tensor([1.0, 2.0])


def mask(path):
    return np.zeros((64, 64), np.uint8)


class Labeller:
    """A label function with a state of its own."""

    def __call__(self, path):
        return path.parent.name


def test_a_label_object_that_is_nowhere_fails_only_when_it_is_called(shapes, tmp_path, monkeypatch):
    lesson = ModuleType("lesson")
    lesson.Labeller = Labeller
    monkeypatch.setitem(sys.modules, "lesson", lesson)
    monkeypatch.setattr(Labeller, "__module__", "lesson")
    path = export(shapes, tmp_path / "export.pkl", arch="test_resnet", get_y=Labeller())
    monkeypatch.delitem(sys.modules, "lesson")
    learn, missing = open_export(path)
    assert missing == ["lesson.Labeller"]
    with pytest.raises(BundleError, match="Labeller of the export is not here"):
        learn.dls.dataset.tls[1].tfms(shapes / "circle" / "00.png")


def brighter(image):
    return image


def test_a_transform_that_is_nowhere_is_named(shapes, rows, tmp_path, monkeypatch):
    lesson = ModuleType("lesson")
    lesson.brighter = brighter
    monkeypatch.setitem(sys.modules, "lesson", lesson)
    monkeypatch.setattr(brighter, "__module__", "lesson")
    steps = [brighter, Resize(64)]
    path = export(shapes, tmp_path / "export.pkl", resize=steps, by_reference=True)
    monkeypatch.delitem(sys.modules, "lesson")
    with pytest.raises(BundleError, match="its transform brighter.* as no bundle does; gone are: .*brighter"):
        convert(read_export(path), tmp_path / "out", rows)


def test_a_network_that_it_is_not_is_refused(exported):
    with pytest.raises(BundleError, match="the weights of its body do not fit the network resnet34"):
        read_export(exported, arch="resnet34")


def test_a_network_of_timms_is_known_by_itself(shapes, rows, tmp_path):
    path = export(shapes, tmp_path / "export.pkl", arch="resnet10t")
    folder, proof = convert(read_export(path), tmp_path / "out", rows, onnx=False)
    assert proof.largest_difference < 1e-4
    assert json.loads((folder / "config.json").read_text())["architecture"]["name"] == "timm/resnet10t"


@pytest.fixture(scope="module")
def photos(shapes, tmp_path_factory):
    """The shapes, wide and high."""
    folder = tmp_path_factory.mktemp("photos")
    for number, path in enumerate(sorted(shapes.rglob("*.png"))):
        (folder / path.parent.name).mkdir(exist_ok=True)
        size = ((97, 64), (60, 131), (80, 80))[number % 3]
        Image.open(path).resize(size).save(folder / path.parent.name / path.name)
    return folder


def both(path):
    return [path.parent.name, "even" if int(path.stem) % 2 else "odd"]


GREY = (ImageBlock(cls=PILImageBW), CategoryBlock)
GREYS = {"blocks": GREY, "n_in": 1, "stats": ([0.4], [0.3])}
SEVERAL = {"blocks": (ImageBlock, MultiCategoryBlock), "get_y": both, "metrics": accuracy_multi}
OWN_HEAD = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.Flatten(), nn.Linear(96, 3)))
LESSON_2 = {"resize": RandomResizedCrop(64, min_scale=0.5), "batch_tfms": aug_transforms()}


@pytest.mark.parametrize(
    ("image", "options"),
    [
        ({"size": 64, "resize": "squish", "part": 0.8}, LESSON_2),
        ({"size": 64, "resize": "crop", "part": 0.8}, {"resize": [Resize(80), RandomCrop(64)]}),
        ({"size": 48, "resize": "squish"}, {"resize": Resize(48, "squish")}),
        ({"size": 64, "resize": "pad"}, {"resize": Resize(64, "pad", pad_mode="zeros")}),
        ({"size": 64, "resize": "pad-reflection"}, {"resize": Resize(64, "pad")}),
        ({"size": 64, "resize": "pad-border"}, {"resize": Resize(64, "pad", pad_mode="border")}),
        (
            {"size": 115, "resize": "crop", "input": 56},
            {"resize": Resize(115), "batch_tfms": aug_transforms(size=56, min_scale=0.75)},
        ),
        (
            {"size": 64, "resize": "crop", "grey": True},
            {"blocks": GREY, "n_in": 1, "stats": ([0.4], [0.3])},
        ),
        ({"size": 64, "resize": "crop"}, {"concat_pool": False}),
        ({"size": 64, "resize": "crop"}, {"lin_ftrs": [32, 16], "first_bn": False, "bn_final": True}),
        ({"size": 64, "resize": "crop"}, {"custom_head": OWN_HEAD}),
        ({"size": 64, "resize": "crop"}, {**SEVERAL, "loss_func": BCEWithLogitsLossFlat(thresh=0.45)}),
    ],
    ids=[
        "lesson_2",
        "cut",
        "squish",
        "black",
        "mirror",
        "border",
        "presized",
        "grey",
        "average",
        "layers",
        "own_head",
        "several",
    ],
)
def test_a_bundle_answers_as_learn_predict_does(photos, tmp_path, image, options):
    path = export(photos, tmp_path / "export.pkl", **options)
    exported = read_export(path)
    task = exported.spec.recipe.task
    rows = (
        labelled_images(photos, label=lambda file: ";".join(both(file)), targets=Targets(task))
        if (task == "multilabel")
        else labelled_images(photos)
    )
    folder, _ = convert(exported, tmp_path / "out", rows)
    config = json.loads((folder / "config.json").read_text())
    assert {name: config["image"].get(name) for name in image} == image
    learn, predictor = load_learner(path), bundle.load(folder, engine="onnx")
    for file in [Path(name) for name in rows["path"][::7]]:
        with learn.no_bar(), learn.no_logging():
            answer, _, probabilities = learn.predict(file)
        (one,) = predictor.predict([file])
        assert np.allclose([one.probabilities[name] for name in predictor.vocab], probabilities, rtol=0, atol=1e-5)
        assert sorted(one.labels) == sorted(answer) if task == "multilabel" else one.label == answer


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"resize": Resize((64, 80))}, "its images are 80 pixels wide and 64 high"),
        ({"resize": CropPad(64)}, "its transform CropPad .* prepares validation images as no bundle does"),
        ({"resize": Resize(64, resamples=(3, 0))}, "its transform Resize .*'resamples': .*3"),
        ({"custom_head": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Tanh())}, "its head has a layer Tanh"),
        ({"y_range": (-2, 2)}, "its head has a layer SigmoidRange"),
        ({"n_out": 7}, "its head ends in .*, not in a linear layer of 3 outputs"),
        ({"loss_func": BCEWithLogitsLossFlat()}, "its loss, BCEWithLogitsLossFlat, makes other probabilities"),
        ({"arch": squeezenet1_1}, "its body is none of resnet18, .*, and not made by timm"),
        ({"blocks": (ImageBlock, RegressionBlock), "get_y": size_of, "n_out": 1}, "it predicts numbers"),
        ({"blocks": (ImageBlock, PointBlock), "get_y": corner, "n_out": 2}, "it predicts points"),
        ({"blocks": (ImageBlock, MaskBlock(["a", "b"])), "get_y": mask, "n_out": 2}, "a class for each pixel"),
    ],
)
def test_what_no_bundle_can_do_is_refused_with_the_reason(shapes, tmp_path, options, problem):
    path = export(shapes, tmp_path / "export.pkl", epochs=0, **options)
    with pytest.raises(BundleError, match=f"export.pkl cannot be converted: .*{problem}"):
        read_export(path)


def test_a_learner_of_something_else_than_images_is_refused(tmp_path):
    frame = pd.DataFrame({"a": range(8), "y": list("xy") * 4})
    dls = TabularDataLoaders.from_df(frame, cont_names=["a"], y_names="y", bs=4)
    tabular_learner(dls).export(tmp_path / "export.pkl")
    with pytest.raises(BundleError, match="its input is not one RGB or grey image"):
        read_export(tmp_path / "export.pkl")


def test_labels_of_other_names_say_how_to_rename_the_classes(exported, rows, tmp_path):
    with pytest.raises(BundleError, match="labels that the export never saw: disc; its classes are: circle") as error:
        convert(read_export(exported), tmp_path / "out", rows.replace("circle", "disc"))
    assert "--names circle,square,triangle" in error.value.fix


def test_what_is_no_export_says_so(tmp_path):
    (tmp_path / "text.pkl").write_text("no pickle")
    with pytest.raises(BundleError, match="cannot be opened as a fastai export"):
        read_export(tmp_path / "text.pkl")


def test_what_only_looks_like_a_learner_says_what_it_is(tmp_path):
    torch.save(SimpleNamespace(dls=torch.nn.Identity()), tmp_path / "other.pkl")
    with pytest.raises(BundleError, match="other.pkl holds a SimpleNamespace, not a Learner"):
        open_export(tmp_path / "other.pkl")


def test_a_learner_that_resizes_no_image_is_refused(shapes, tmp_path):
    block = DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=label)
    dls = block.dataloaders(shapes, bs=8, num_workers=0, device="cpu")
    vision_learner(dls, "test_resnet", pretrained=False).export(tmp_path / "export.pkl")
    with pytest.raises(BundleError, match="it resizes no image before a batch is made"):
        read_export(tmp_path / "export.pkl")


def test_a_handful_of_images_prove_nothing(exported, rows, tmp_path):
    with pytest.raises(BundleError, match="3 images to prove it on"):
        convert(read_export(exported), tmp_path / "out", rows.head(3))


class Marks:
    """A pickle that writes a file when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_3_nothing_is_opened_before_its_hash_is_shown_and_it_is_trusted(shapes, tmp_path):
    path = tmp_path / "export.pkl"
    path.write_bytes(pickle.dumps(Marks(tmp_path / "ran")))
    command = ["convert", str(path), str(tmp_path / "out"), "--images", str(shapes)]
    done = CliRunner().invoke(application(), command)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in done.output
    assert isinstance(done.exception, BundleError)
    assert done.exception.problem == f"{path} is a pickle: opening it runs whatever code is in it"
    assert "--trust-pickle" in done.exception.fix
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()
