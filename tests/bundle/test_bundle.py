"""Bundles: data only, complete, hashed, and refused when anything is not as it was saved."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageCms, PngImagePlugin
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import kit
from kit import Recipe, bundle, data, evaluate, model
from kit.cli.fine_tune import Examples
from kit.errors import ArchitectureError, BundleError, OutputError
from kit.evaluate.calibration import Calibration
from kit.evaluate.classification import Evaluation
from kit.files import sha256
from kit.manifest import EXAMPLES, MISTAKES, find_bundle, photos, read_config
from kit.tasks.text import percent


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """A bundle that a test may spoil."""
    return Path(shutil.copytree(run.bundle, tmp_path / "bundle"))


def change(folder: Path, **fields) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))
    (folder / "config.json.sha256").unlink(missing_ok=True)


def rehash(folder: Path) -> None:
    """Make the hashes fit again, as an attacker would."""
    change(folder, files={"model.safetensors": sha256(folder / "model.safetensors")})


def test_a_bundle_holds_data_and_nothing_executable(run):
    names = sorted(path.relative_to(run.bundle).as_posix() for path in run.bundle.rglob("*") if path.is_file())
    assert [name for name in names if not name.startswith((f"{EXAMPLES}/", f"{MISTAKES}/"))] == [
        "README.md", "config.json", "config.json.sha256", "model.onnx", "model.safetensors", "trained_on.txt",
        "unknown.safetensors",
    ]  # fmt: skip
    config = json.loads((run.bundle / "config.json").read_text())
    assert set(config["files"]) == set(names) - {"config.json", "config.json.sha256"}
    assert config["vocab"] == ["circle", "square", "triangle"]
    assert config["metrics"]["n"] == 6
    assert config["proof"]["largest_difference"] <= 1e-5
    assert "kit" in config["versions"]


def test_a_loaded_bundle_predicts_what_the_learner_did(run):
    predictions = bundle.load(run.bundle).predict(run.evaluation.predictions["path"].tolist())
    ours = np.array([[one.plain[name] for name in run.evaluation.vocab] for one in predictions])
    assert np.abs(ours - run.evaluation.probabilities).max() < 1e-5
    assert [one.label for one in predictions] == run.evaluation.predictions["prediction"].tolist()


def test_it_needs_neither_the_training_images_nor_the_script(run, tmp_path, monkeypatch):
    shutil.copytree(run.bundle, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    (one,) = bundle.load("elsewhere").predict(Image.new("RGB", (50, 40), "red"))
    assert sum(one.probabilities.values()) == pytest.approx(1)


def test_a_bundle_becomes_a_learner_to_go_on_with(run, shapes, tiny):
    dls = data.blocks(tiny).dataloaders(run.table)
    learn = bundle.learner(run.folder, dls)
    state = learn.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in run.learner.model.state_dict().items())
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 1e-4)


def test_the_size_that_suits_the_weights_stays_with_the_bundle_and_other_sizes_are_noted(shapes, tmp_path, capsys):
    recipe = Recipe(arch="resnet18", weights="bundled", layers="head", workers=0, device="cpu")
    run = kit.fine_tune(shapes, recipe, out=tmp_path / "run", onnx=False)
    assert json.loads((run.folder / "recipe.json").read_text())["chosen"]["size"] == 128
    dls = data.blocks(recipe).dataloaders(run.table)
    again = bundle.learner(run.folder, dls)
    assert again.spec.image_rules() == run.learner.spec.image_rules()
    assert "note: images of" not in capsys.readouterr().err
    model.learner(dls, replace(recipe, weights=str(run.folder)))
    assert (
        "note: images of 128 pixels a side suit bundle: run; these have 224\n  Fix: --size 128"
        in capsys.readouterr().err
    )
    model.learner(dls, replace(recipe, weights=str(run.folder), size=224))
    assert "note: images of" not in capsys.readouterr().err


def test_a_learner_over_other_classes_is_refused(run, shapes, tiny, tmp_path):
    for name in ("circle", "square"):
        shutil.copytree(shapes / name, tmp_path / name)
    dls = data.blocks(tiny).dataloaders(data.table(tmp_path))
    with pytest.raises(
        BundleError, match="the data has the classes circle, square; the bundle knows circle, square, tri"
    ):
        bundle.learner(run.bundle, dls)


def test_training_may_start_from_a_bundles_body_for_other_classes(run, shapes, tiny, tmp_path):
    for name in ("circle", "square"):
        shutil.copytree(shapes / name, tmp_path / "two" / name)
    second = kit.fine_tune(tmp_path / "two", tiny, weights=str(run.bundle), out=tmp_path / "run", onnx=False)
    assert second.learner.spec.weights.kind == "bundle"
    assert [row["phase"] for row in second.history.rows] == ["whole"]


def test_a_run_folder_stands_for_its_bundle(run):
    assert find_bundle(run.folder) == run.bundle
    with pytest.raises(BundleError, match="is no bundle: it holds no config.json"):
        find_bundle(run.folder / "pictures")
    with pytest.raises(BundleError, match="is no bundle: it is not a folder"):
        find_bundle("nowhere")


def test_one_flipped_bit_in_any_file_is_refused_by_its_name(copy):
    for name in json.loads((copy / "config.json").read_text())["files"]:
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        good = (copy / name).read_bytes()
        (copy / name).write_bytes(content)
        with pytest.raises(BundleError, match=f"{name} is not the file that was saved"):
            bundle.load(copy)
        (copy / name).write_bytes(good)
    bundle.load(copy)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"format": "zip"}, "does not describe a kit bundle"),
        ({"version": 99}, "version 99; this kit reads version 1"),
        ({"vocab": ["circle", "triangle", "square"]}, "field vocab does not fit its hash"),
        ({"vocab": "circle"}, "field vocab is not a list"),
        ({"image": {"size": "large"}}, "field image.size is not a int"),
        ({"files": {}}, "field files names no model.safetensors"),
        ({"architecture": {"name": 18}}, "field architecture.name is not a str"),
        ({"architecture": {"name": "resnet18", "head": "none"}}, "field architecture.head is none of linear, fastai"),
        ({"files": {"model.safetensors": "0", "../../secret": "0"}}, "model.safetensors is not the file|leads out"),
        ({"temperature": None}, "field temperature is not a float"),
        ({"metrics": {"confusion": {"0": 1}}}, r"field metrics.confusion is not a list of \[class, class, times\]"),
        (
            {"metrics": {"confusion": [[0, 1, "<b>"]]}},
            r"field metrics.confusion is not a list of \[class, class, times\]",
        ),
        ({"metrics": {"confusion": [[0, 3, 1]]}}, r"field metrics.confusion is not a list of \[class, class, times\]"),
        ({"mistakes": [{"file": "a.jpg", "label": "b"}]}, "field mistakes is not a list of file, label, prediction"),
    ],
)
def test_a_config_that_is_not_as_it_should_be_is_refused_by_its_field(copy, fields, problem):
    change(copy, **fields)
    with pytest.raises(BundleError, match=problem):
        bundle.load(copy)


def test_weights_that_lack_a_tensor_do_not_fit(copy):
    path = copy / "model.safetensors"
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    tensors = load_file(path)
    del tensors["1.8.weight"]
    save_file(tensors, path, facts)
    rehash(copy)
    with pytest.raises(BundleError, match="model.safetensors does not fit the network timm/test_resnet"):
        bundle.load(copy, engine="torch")


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ({"resize": "stretch"}, "field image.resize is none of crop"),
        ({"input": 10**9}, "field image.input is not a whole number from 8 to 4096"),
        ({"input": "large"}, "field image.input is not a whole number"),
        ({"part": 0}, "field image.part is not a number above 0 and at most 1"),
    ],
)
def test_image_rules_that_nobody_knows_are_refused(copy, rules, problem):
    image = read_config(copy)["image"]
    change(copy, image=image | rules)
    with pytest.raises(BundleError, match=problem):
        bundle.load(copy)


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        ([["linear", 10**6, 10**6]], "field architecture.head is none of linear, fastai, and no list of layers"),
        ([["linear", "a"]], "field architecture.head is none of"),
        ([["os.system", 1]], r"no layer of a head: \['os.system', 1\]"),
        ([["linear", 3]], r"no layer of a head: \['linear', 3\]"),
        ([["linear", 3, 3]], "model.safetensors does not fit the network"),
    ],
)
def test_a_head_of_layers_that_are_unknown_too_large_or_others_is_refused(copy, head, problem):
    change(copy, architecture=read_config(copy)["architecture"] | {"head": head})
    with pytest.raises(BundleError, match=problem):
        bundle.load(copy, engine="torch")


def test_a_missing_file_is_named(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(BundleError, match="model.safetensors is missing"):
        bundle.load(copy)


SECRETS = (b"Anna", b"secret", b"garden", b"GPS", b"sRGB", b"adobe", b"Exif", b"ICC_PROFILE")


def write_telling(source: Path, target: Path) -> None:
    """The image with everything that a photo may tell of its photographer: EXIF with GPS, ICC, XMP, comments."""
    image = Image.open(source).convert("RGB")
    exif = image.getexif()
    exif[0x013B], exif[0x010E] = "Anna", "secret"
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0), 29: "2024:07:31"})
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    told = {"exif": exif.tobytes(), "icc_profile": profile}
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>garden</x:xmpmeta>"
    if target.suffix == ".jpg":
        image.save(target, quality=95, comment=b"secret", xmp=xmp, **told)
    else:
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", "secret")
        text.add_itxt("XML:com.adobe.xmp", xmp.decode())
        image.save(target, pnginfo=text, **told)


def segments(data: bytes) -> list[int]:
    """The markers of a JPEG file up to its pixels."""
    found, place = [], 2
    while not found or found[-1] != 0xDA:
        assert data[place] == 0xFF
        found.append(data[place + 1])
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return found


@pytest.fixture(scope="module")
def telling(run, shapes, tmp_path_factory) -> Evaluation:
    """An evaluation of images that tell a lot about their photographer, every other one of them wrong."""
    folder = tmp_path_factory.mktemp("Annas garden")
    sources = sorted(shapes.rglob("*.png"))
    for number, source in enumerate(sources):
        write_telling(source, folder / f"Anna_garden_{number}.{'jpg' if number % 2 else 'png'}")
    paths = sorted(map(str, folder.iterdir()))
    said = bundle.load(run.bundle).predict(paths)
    other = {name: run.evaluation.vocab[place - 1] for place, name in enumerate(run.evaluation.vocab)}
    labels = [other[one.label] if number % 2 else one.label for number, one in enumerate(said)]
    return evaluate.evaluate(run.learner, pd.DataFrame({"path": paths, "label": labels}))


@pytest.fixture
def told(run, telling, tmp_path) -> Path:
    """A bundle made with those images."""
    return bundle.save(run.learner, telling, tmp_path / "told", onnx=False)


def test_photos_in_a_bundle_are_pixels_alone_whatever_the_files_they_come_from_tell(told, telling):
    for path in telling.predictions["path"]:
        image = Image.open(path)
        assert image.getexif().get_ifd(0x8825)
        assert image.info["icc_profile"]
        assert b"garden" in Path(path).read_bytes()
    for part in (EXAMPLES, MISTAKES):
        files = sorted((told / part).iterdir())
        assert [file.name for file in files] == [f"{part[:-1]}_{number}.jpg" for number in range(1, 7)]
        for file in files:
            image, content = Image.open(file), file.read_bytes()
            assert not image.getexif()
            assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
            assert set(segments(content)) <= {0xE0, 0xDB, 0xC0, 0xC4, 0xDA}
            assert [secret for secret in SECRETS if secret in content] == []
    assert "Anna" not in (told / "config.json").read_text() + (told / "README.md").read_text()


def test_mistakes_say_what_they_are_and_what_the_bundle_takes_them_for(run, telling, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "kit.evaluate.classification.calibrate", lambda probabilities, truth: Calibration(3.0, 0.2, 0.1, 24)
    )
    predictor = bundle.load(bundle.save(run.learner, telling, tmp_path / "told", onnx=False))
    mistakes = predictor.config["mistakes"]
    assert [one["file"] for one in mistakes] == photos(predictor.config, MISTAKES)
    wrong = telling.predictions[~telling.predictions["correct"]]
    said = {(row.label, row.prediction): [] for row in wrong.itertuples()}
    for row in wrong.itertuples():
        said[row.label, row.prediction].append(predictor.predict(row.path)[0].probability)
    for one in mistakes:
        sure = said[one["label"], one["prediction"]]
        assert min(abs(one["probability"] - value) for value in sure) < 1e-4


def test_photos_can_be_left_out_and_the_card_says_whether_they_are_shared(run, telling, told, tmp_path):
    folder = bundle.save(run.learner, telling, tmp_path / "without", examples=False, onnx=False)
    assert not (folder / EXAMPLES).exists()
    assert not (folder / MISTAKES).exists()
    assert "mistakes" not in json.loads((folder / "config.json").read_text())
    assert "No photo is shared with this bundle" in (folder / "README.md").read_text()
    assert "They are shared with the bundle: whoever gets it" in (told / "README.md").read_text()
    assert "photos are shared with the bundle" in Examples.__metadata__[0].help


def test_a_model_without_mistakes_has_none_to_show(run, tmp_path):
    labels = run.evaluation.predictions["prediction"].tolist()
    right = Evaluation.from_probabilities(
        run.evaluation.predictions["path"], labels, run.evaluation.probabilities, run.evaluation.vocab
    )
    folder = bundle.save(run.learner, right, tmp_path / "right", onnx=False)
    assert json.loads((folder / "config.json").read_text())["mistakes"] == []
    assert not (folder / MISTAKES).exists()


def test_photos_of_a_bundle_are_those_that_config_json_names_in_that_folder_itself():
    files = dict.fromkeys(
        ("mistakes/b.jpg", "mistakes/a.jpg", "mistakes/../secret.jpg", "mistakes/in/c.jpg", "examples/d.jpg", "e.jpg"),
        "",
    )
    assert photos({"files": files}, MISTAKES) == ["mistakes/a.jpg", "mistakes/b.jpg"]


def test_a_bundle_is_never_written_over_something(run, copy):
    with pytest.raises(OutputError, match="exists and is not empty"):
        bundle.save(run.learner, run.evaluation, copy)


def test_a_bundle_that_could_not_predict_as_the_learner_is_refused_before_training(shapes, tiny, tmp_path, monkeypatch):
    from fastai.vision.all import Resize

    monkeypatch.setattr("kit.train.fine_tune", None)
    with pytest.raises(BundleError, match="validation images are not prepared as a bundle would prepare them"):
        kit.fine_tune(shapes, tiny, item_tfms=[Resize(24)], out=tmp_path / "run")


def test_a_bundle_that_does_not_predict_as_the_learner_did_is_not_made(run, tmp_path):
    told = run.evaluation.predictions
    wrong = Evaluation(told.assign(p_circle=told["p_square"], p_square=told["p_circle"]), run.evaluation.vocab)
    with pytest.raises(BundleError, match="the bundle does not predict what the learner did: an answer differs by"):
        bundle.save(run.learner, wrong, tmp_path / "bad")
    assert list(tmp_path.iterdir()) == []


def test_a_learner_that_kit_did_not_make_cannot_be_saved_and_the_error_says_how(run, tmp_path):
    learn = SimpleNamespace(dls=run.learner.dls, model=run.learner.model)
    with pytest.raises(ArchitectureError, match=r"this Learner was not made by kit.model.learner"):
        bundle.save(learn, run.evaluation, tmp_path / "bad")


def test_every_file_of_a_bundle_can_be_read_by_others(run):
    assert {oct(path.stat().st_mode & 0o044) for path in run.bundle.rglob("*") if path.is_file()} == {oct(0o044)}


def test_the_training_images_are_listed_by_hash(run):
    listed = (run.bundle / "trained_on.txt").read_text().split()
    assert listed == sorted(run.table[run.table["split"] == "train"]["sha256"])


def test_the_model_card_tells_the_error_rate_with_its_interval(run):
    text = (run.bundle / "README.md").read_text()
    rate, low, high = (percent(value) for value in (run.error_rate.value, run.error_rate.low, run.error_rate.high))
    assert f"Error rate: {rate} (95 % interval: {low} to {high}), measured on 6 images" in text
    assert "none of them a copy of a training image" in text
    assert "assigns one of them to any image" in text
    assert "| circle | 2 |" in text
