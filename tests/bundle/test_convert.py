"""Exports of plain fastai become bundles that predict the same; nothing is opened unasked."""

import hashlib
import json
import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from fastai.vision.all import (
    CategoryBlock,
    DataBlock,
    ImageBlock,
    MultiCategoryBlock,
    Normalize,
    RandomSplitter,
    Resize,
    aug_transforms,
    get_image_files,
    imagenet_stats,
    vision_learner,
)
from torchvision.models import resnet18
from typer.testing import CliRunner

from kit import bundle
from kit.bundle.convert import convert, open_export, read_export
from kit.cli.main import application
from kit.data.sources import labelled_images
from kit.errors import BundleError

VOCAB = ["circle", "square", "triangle"]


def label(path):
    return path.parent.name


def export(folder, out, *, arch="test_resnet", get_y=label, resize=None, batch_tfms=None, by_reference=False):
    """A learner as in the first lesson: untrained, but with batch-norm statistics of its own."""
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=get_y,
        splitter=RandomSplitter(seed=1),
        item_tfms=resize or Resize(64),
        batch_tfms=[*(batch_tfms or []), Normalize.from_stats(*imagenet_stats)],
    )
    dls = block.dataloaders(folder, bs=8, num_workers=0, device="cpu")
    learn = vision_learner(dls, arch, pretrained=False, normalize=False)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
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
    folder, proof = convert(exported, tmp_path / "out", renamed, names=names, onnx=False)
    assert bundle.load(folder).vocab == names
    assert (proof.images, proof.other_classes) == (24, 0)
    assert proof.largest_difference < 1e-4


@pytest.mark.parametrize("names", [["a", "b"], ["a", "a", "b"]])
def test_names_that_do_not_fit_the_classes_are_refused(exported, rows, tmp_path, names):
    with pytest.raises(BundleError, match="names for 3 classes: circle, square, triangle"):
        convert(exported, tmp_path / "out", rows, names=names)


def test_a_label_function_that_is_nowhere_is_no_trouble(shapes, rows, tmp_path, monkeypatch):
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "notebook_label", notebook_label, raising=False)
    monkeypatch.setattr(notebook_label, "__module__", "__main__")
    path = export(shapes, tmp_path / "export.pkl", get_y=notebook_label, by_reference=True)
    monkeypatch.delattr(main, "notebook_label")
    assert open_export(path)[1] == ["__main__.notebook_label"]
    assert convert(path, tmp_path / "out", rows, onnx=False)[1].largest_difference < 1e-4


def notebook_label(path):
    return path.parent.name


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
    with pytest.raises(BundleError, match="the export's own transforms do not run here .*gone are: .*brighter"):
        convert(path, tmp_path / "out", rows)


def test_a_network_that_it_is_not_is_refused(exported, rows, tmp_path):
    with pytest.raises(BundleError, match="the export's weights do not fit the network resnet34 with fastai's head"):
        convert(exported, tmp_path / "out", rows, arch="resnet34")


def test_a_network_of_timms_is_known_by_itself(shapes, rows, tmp_path):
    path = export(shapes, tmp_path / "export.pkl", arch="resnet10t")
    folder, proof = convert(path, tmp_path / "out", rows, onnx=False)
    assert proof.largest_difference < 1e-4
    assert json.loads((folder / "config.json").read_text())["architecture"]["name"] == "timm/resnet10t"


def test_squished_images_and_no_normalisation_are_kept(shapes, rows, tmp_path):
    path = export(shapes, tmp_path / "export.pkl", resize=Resize(48, "squish"))
    exported = read_export(path)
    assert (exported.recipe.size, exported.recipe.resize) == (48, "squish")
    assert convert(path, tmp_path / "out", rows, onnx=False)[1].largest_difference < 1e-4


def test_presizing_leaves_a_difference_that_has_to_be_accepted(shapes, rows, tmp_path):
    path = export(shapes, tmp_path / "export.pkl", resize=Resize(80), batch_tfms=aug_transforms(size=64))
    assert read_export(path).recipe.size == 64
    with pytest.raises(
        BundleError, match="would not predict as the export does: .*a probability differs by up to"
    ) as error:
        convert(path, tmp_path / "out", rows)
    assert "--tolerance" in error.value.fix
    folder, proof = convert(path, tmp_path / "out", rows, tolerance=0.9, onnx=False)
    assert 1e-4 < proof.largest_difference < 0.9
    assert bundle.load(folder).config["image"]["size"] == 64


def test_a_head_of_ones_own_is_refused(shapes, rows, tmp_path):
    block = DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=label, item_tfms=Resize(64))
    dls = block.dataloaders(shapes, bs=8, num_workers=0, device="cpu")
    vision_learner(dls, "test_resnet", pretrained=False, lin_ftrs=[32]).export(tmp_path / "export.pkl")
    with pytest.raises(BundleError, match="or its head is not fastai's own"):
        convert(tmp_path / "export.pkl", tmp_path / "out", rows)


def test_a_learner_of_several_labels_is_refused(shapes, rows, tmp_path):
    block = DataBlock((ImageBlock, MultiCategoryBlock), get_items=get_image_files, get_y=several, item_tfms=Resize(64))
    dls = block.dataloaders(shapes, bs=8, num_workers=0, device="cpu")
    vision_learner(dls, "test_resnet", pretrained=False).export(tmp_path / "export.pkl")
    with pytest.raises(BundleError, match="does not tell classes apart, one for an image"):
        convert(tmp_path / "export.pkl", tmp_path / "out", rows)


def several(path):
    return [path.parent.name]


def test_what_is_no_export_says_so(tmp_path, rows):
    (tmp_path / "text.pkl").write_text("no pickle")
    with pytest.raises(BundleError, match="cannot be opened as a fastai export"):
        convert(tmp_path / "text.pkl", tmp_path / "out", rows)


def test_what_only_looks_like_a_learner_says_what_it_is(tmp_path):
    torch.save(SimpleNamespace(dls=torch.nn.Identity()), tmp_path / "other.pkl")
    with pytest.raises(BundleError, match="other.pkl holds a SimpleNamespace, not a Learner"):
        open_export(tmp_path / "other.pkl")


def test_a_learner_that_resizes_no_image_is_refused(shapes, tmp_path):
    block = DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=label)
    dls = block.dataloaders(shapes, bs=8, num_workers=0, device="cpu")
    vision_learner(dls, "test_resnet", pretrained=False).export(tmp_path / "export.pkl")
    with pytest.raises(BundleError, match="resizes single images 0 times; a bundle does it once"):
        read_export(tmp_path / "export.pkl")


def test_a_handful_of_images_prove_nothing(exported, rows, tmp_path):
    with pytest.raises(BundleError, match="3 images to prove it on"):
        convert(exported, tmp_path / "out", rows.head(3))


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
