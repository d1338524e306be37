"""Predicting: a list in, a list out, and a bad image is an error in its own row."""

import io
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import L
from PIL import Image

from kit import bundle
from kit.bundle.engines import torch_engine
from kit.bundle.predictor import Predictor
from kit.bundle.read import check_bf16, load_network
from kit.errors import BundleError, first_line
from kit.manifest import read_config
from kit.tasks import of


@pytest.fixture(scope="module")
def predictor(run):
    return bundle.load(run.bundle)


def test_paths_bytes_files_and_images_can_be_predicted_alike(predictor, shapes):
    path = shapes / "circle" / "00.png"
    sources = [path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), Image.open(path)]
    predictions = predictor.predict(sources)
    for one in predictions[1:]:
        assert list(one.probabilities.values()) == pytest.approx(list(predictions[0].probabilities.values()), abs=1e-6)
    assert predictor.predict(path)[0].label == predictions[0].label


def test_a_bad_image_is_a_row_with_its_reason_and_the_others_are_not_disturbed(predictor, shapes, tmp_path):
    (tmp_path / "bad.jpg").write_text("text")
    good = sorted(shapes.rglob("*.png"))[:3]
    mixed = predictor.predict([good[0], tmp_path / "bad.jpg", good[1], tmp_path / "nowhere.png", good[2]], batch=2)
    assert [one.error is None for one in mixed] == [True, False, True, False, True]
    assert mixed[1].error.startswith("not an image of the formats")
    assert mixed[3].error == "there is no such file"
    alone = predictor.predict(good)
    assert [one.label for one in mixed if not one.error] == [one.label for one in alone]


def test_the_batch_size_does_not_change_the_answers(predictor, shapes):
    paths = sorted(shapes.rglob("*.png"))
    by_one, by_all = (predictor.predict(paths, batch=size) for size in (1, 24))
    for one, other in zip(by_one, by_all, strict=True):
        assert list(one.probabilities.values()) == pytest.approx(list(other.probabilities.values()), abs=1e-6)


def test_the_table_has_a_column_for_each_class_and_one_for_the_error(predictor, shapes, tmp_path):
    table = predictor.predict([shapes / "circle" / "00.png", tmp_path / "nowhere.png"]).table()
    assert isinstance(table, pd.DataFrame)
    assert list(table) == ["path", "prediction", "probability", "p_circle", "p_square", "p_triangle", "unlike", "error"]
    assert table["error"].isna().tolist() == [True, False]


def test_a_table_of_errors_alone_has_all_columns(predictor, tmp_path):
    columns = of(predictor.task).columns(predictor.vocab)
    assert list(predictor.predict([tmp_path / "nowhere.png"]).table()) == columns
    assert list(predictor.predict([]).table()) == columns


def test_top_gives_the_likeliest_first(predictor, shapes):
    one = predictor.predict(shapes / "circle" / "00.png")[0]
    assert [value for _, value in one.top(3)] == sorted(one.probabilities.values(), reverse=True)
    assert one.top(1) == [(one.label, one.probability)]


def test_whatever_gives_images_one_by_one_is_several_images(predictor, shapes):
    paths = sorted(shapes.rglob("*.png"))[:3]
    for several in (L(paths), tuple(paths), (path for path in paths), pd.Series([str(path) for path in paths])):
        assert [one.error for one in predictor.predict(several)] == [None] * 3


def test_an_image_that_the_caller_opened_stays_as_it_is(predictor):
    image = Image.open(io.BytesIO(jpeg()))
    predictor.predict(image)
    assert image.size == (1600, 1200)


class Watched(Predictor):
    """A predictor that notes what it opens."""

    def __init__(self, predictor, engine=None):
        super().__init__(predictor.config, engine or predictor.engine, predictor.folder, predictor.unknown)
        self.opened, self.came = [], threading.Condition()

    def prepare(self, source):
        with self.came:
            self.opened.append(source)
            self.came.notify_all()
        return super().prepare(source)


def test_the_next_batch_is_prepared_while_one_is_computed(predictor, shapes):
    paths, found = sorted(shapes.rglob("*.png"))[:12], []

    def engine(pixels):
        wanted = paths[4 * len(found) + 4 :][:1]
        with watched.came:
            found.append(watched.came.wait_for(lambda: set(wanted) <= set(watched.opened), timeout=20))
        return predictor.engine(pixels)

    watched = Watched(predictor, engine)
    assert [one.path for one in watched.predict_each(paths, batch=4)] == list(map(str, paths))
    assert found == [True] * 3


def test_no_more_than_one_batch_is_prepared_ahead(predictor, shapes):
    paths, taken = sorted(shapes.rglob("*.png")), []
    watched = Watched(predictor)
    stream = watched.predict_each((taken.append(path) or path for path in paths), batch=4)
    next(stream)
    assert taken == paths[:8]
    assert set(watched.opened) <= set(taken)
    assert [one.path for one in stream] == list(map(str, paths[1:]))


def test_who_stops_early_leaves_no_thread_behind(predictor, shapes):
    before, watched = set(threading.enumerate()), Watched(predictor)
    stream = watched.predict_each(sorted(shapes.rglob("*.png")), batch=4)
    next(stream)
    stream.close()
    assert set(threading.enumerate()) == before
    opened = len(watched.opened)
    assert list(stream) == []
    assert len(watched.opened) == opened <= 8


@pytest.mark.parametrize(
    ("chosen", "dtype"),
    [({}, torch.float32), ({"precision": "fp32"}, torch.float32), ({"precision": "bf16"}, torch.bfloat16)],
)
def test_the_body_computes_in_the_precision_that_is_asked_for_and_answers_in_fp32(
    predictor, run, shapes, chosen, dtype
):
    config, seen = read_config(run.bundle), set()
    network = load_network(run.bundle, config)
    for module in network[0].modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    answers = torch_engine(network, config["image"], torch.device("cpu"), **chosen)(
        predictor.prepare(shapes / "circle" / "00.png")[None]
    )
    assert seen == {dtype}
    assert {part.dtype for part in (answers.outputs, answers.features, answers.maps)} == {np.dtype("float32")}


def test_bf16_answers_nearly_as_fp32_does_and_says_why_it_is_quick_or_slow(run, shapes, capsys):
    paths = sorted(shapes.rglob("*.png"))
    exact = bundle.load(run.bundle, engine="torch").predict(paths)
    assert capsys.readouterr().err == ""
    half = bundle.load(run.bundle, precision="bf16").predict(paths)
    assert capsys.readouterr().err.startswith("bf16: ")
    gaps = [
        abs(one.plain[name] - other.plain[name]) for one, other in zip(exact, half, strict=True) for name in one.plain
    ]
    assert 0 < max(gaps) < 0.05


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"precision": "bf16", "engine": "onnx"}, "the ONNX engine computes in fp32, not bf16"),
        ({"precision": "fp8"}, "precision 'fp8'.*\n.*choose one of fp32, bf16"),
    ],
)
def test_a_precision_that_cannot_be_is_refused(run, options, problem):
    with pytest.raises(BundleError, match=problem):
        bundle.load(run.bundle, **options)


def test_a_device_without_bf16_is_refused():
    with pytest.raises(BundleError, match=r"precision bf16 is not used on meta\n  Fix: --precision fp32"):
        check_bf16(torch.device("meta"))


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((1600, 1200), 40).save(stream, "JPEG")
    return stream.getvalue()


def test_what_a_library_says_becomes_one_line_without_colours():
    assert first_line(ValueError("\n\x1b[96mstep 3\x1b[0m failed\nnext")) == "step 3 failed"
    assert first_line(KeyError()) == "KeyError"
