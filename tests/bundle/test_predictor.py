"""Predicting: a list in, a list out, and a bad image is an error in its own row."""

import io

import pandas as pd
import pytest
from fastai.vision.all import L
from PIL import Image

from kit import bundle


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


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((1600, 1200), 40).save(stream, "JPEG")
    return stream.getvalue()
