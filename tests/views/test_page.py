"""The parts of the page without a browser: one prediction, a table of many, and what is known of the model."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kit import bundle
from kit.evaluate.classification import Evaluation
from kit.manifest import MISTAKES
from kit.tasks import Prediction, of
from kit.tasks.text import percent
from kit.views.page import about_html, card_html, doubt_of, prediction_html
from kit.views.pictures import HEAT, heat_picture
from kit.views.render import render_template
from kit.views.view import view_of

PICTURE = Image.new("RGB", (8, 8))
PETS = {"vocab": ["cat", "dog"], "task": "classification", "metrics": {}}
SEVERAL = {"vocab": ["cat", "dog", "fox"], "task": "multilabel", "thresholds": [0.5, 0.2, 0.9], "metrics": {"n": 9}}
NUMBERS = {
    "vocab": ["age", "mass"],
    "task": "regression",
    "range": {"low": [0, -5.0], "high": [100, 5.0], "bounded": True},
    "metrics": {"n": 9, "per_target": {"age": {"mae": 10.0, "low": 8.0, "high": 12.0, "rmse": 13.0, "r2": 0.9}}},
}


@pytest.fixture(scope="module")
def predictor(run):
    return bundle.load(run.bundle)


def several(shares: dict[str, float], config: dict = SEVERAL) -> Prediction:
    """A prediction of several classes."""
    return Prediction("a.png", plain=shares, **of("multilabel").answer(shares, config))


def test_an_image_unlike_the_training_images_is_said_to_be_so():
    one = Prediction("", "cat", 0.9, {"cat": 0.9, "dog": 0.1}, unlike=True)
    seen = prediction_html(one, None, PETS, PICTURE, 0.01)
    assert "This does not look like the training images" in seen
    assert "Unlike the training images" in card_html(one, PETS, None)


def test_where_nothing_in_the_picture_stands_out_no_heat_map_is_promised():
    one = Prediction("x.png", "cat", 0.9, {"cat": 0.9, "dog": 0.1})
    for maps, told in ((np.zeros((2, 3, 3)), False), (np.eye(3)[None].repeat(2, 0), True)):
        seen = prediction_html(one, maps, PETS, PICTURE, 0.01)
        assert ("Choose a class to see its heat map" in seen) is told
        assert ('class="strength"' in seen) is told
        assert ('type="radio"' in seen) is told
        assert ("No part of the image contributes to the answer more than others" in seen) is not told


def test_names_of_classes_and_files_are_text_and_never_html():
    evil = "<script>alert(1)</script>"
    one = Prediction(evil, evil, 1.0, {evil: 1.0, "b": 0.0})
    bad = Prediction(evil, error=evil)
    for seen in (
        prediction_html(one, None, PETS | {"vocab": [evil, "b"]}, PICTURE, 1),
        card_html(one, PETS, None),
        card_html(bad, PETS, None),
        render_template("message.html", text=evil, trouble=True),
    ):
        assert "<script" not in seen
        assert "&lt;script" in seen


def test_about_says_the_error_rate_with_its_interval_and_every_class(predictor):
    seen = about_html(predictor.config, predictor.folder)
    figures = predictor.config["metrics"]
    for text in (
        percent(figures["low"]),
        percent(figures["high"]),
        f"{figures['n']} images",
        *predictor.vocab,
    ):
        assert text in seen
    assert "95 % interval" in seen


def config_of(counts: list[list[int]], vocab: list[str]) -> dict:
    """What a bundle says of predictions that were made so often: a row a true class."""
    pairs = [(t, s) for t, row in enumerate(counts) for s, times in enumerate(row) for _ in range(times)]
    labels, probabilities = [vocab[true] for true, _ in pairs], np.eye(len(vocab))[[said for _, said in pairs]]
    result = Evaluation.from_probabilities(["a.jpg"] * len(pairs), labels, probabilities, vocab)
    return {"task": "classification", "vocab": vocab, "metrics": result.figures() | result.to_json()}


def matrix_of(config: dict) -> str:
    """The section of the page with the matrix, or nothing."""
    html = render_template("about.html", view=view_of(config), mistakes=[])
    return "".join(part for part in html.split("<section")[1:] if "Confusion matrix" in part)


def rows_of(html: str) -> dict[str, list[int]]:
    """A matrix read back: the counts of each row by its name."""
    rows = re.findall(r'<tr><th scope="row" title="([^"]*)">.*?</th>(.*?)</tr>', html)
    return {name: [int(count) for count in re.findall(r">(\d+)</td>", cells)] for name, cells in rows}


def test_the_confusion_matrix_is_a_table_with_headings_for_every_row_and_column():
    counts = [[3, 1, 0], [0, 4, 0], [2, 0, 5]]
    seen = matrix_of(config_of(counts, ["cat", "dog", "fox"]))
    assert rows_of(seen) == dict(zip(["cat", "dog", "fox"], counts, strict=True))
    assert re.findall(r'<th scope="col" title="(\w+)">', seen) == ["cat", "dog", "fox"]
    assert "<caption>" in seen
    assert 'tabindex="0" role="region"' in seen
    assert '<td class="right" style="--share:0.750" title="3 of 4 cat: predicted as cat">3</td>' in seen
    assert '<td class="wrong" style="--share:0.286" title="2 of 7 fox: predicted as cat">2</td>' in seen
    assert '<td class="none">0</td>' in seen
    assert "confused most" not in seen


def test_of_many_classes_the_matrix_shows_those_confused_most_and_says_so():
    vocab = [f"breed {number}" for number in range(37)]
    counts = np.diag(np.full(37, 5))
    for place in range(30):
        counts[place, place + 1] = 1
    counts[36, 0], counts[0, 36] = 4, 3
    seen = matrix_of(config_of(counts.tolist(), vocab))
    assert "Shown are the 25 of 37 classes that are confused most" in seen
    rows = rows_of(seen)
    assert len(rows) == 25
    assert {len(row) for row in rows.values()} == {26}
    assert "breed 36" in rows
    assert {name: sum(row) for name, row in rows.items()} == {name: sum(counts[vocab.index(name)]) for name in rows}
    assert sum(row[-1] for row in rows.values()) > 0


def test_many_classes_without_a_mistake_have_no_matrix():
    vocab = [f"breed {number}" for number in range(37)]
    assert matrix_of(config_of(np.diag(np.full(37, 2)).tolist(), vocab)) == ""


@pytest.fixture
def mistaken(run, tmp_path):
    """A bundle's config and folder with a mistake of each kind: shown, no image, not named in files, elsewhere."""
    folder = Path(shutil.copytree(run.bundle, tmp_path / "bundle"))
    shutil.rmtree(folder / MISTAKES, ignore_errors=True)
    (folder / MISTAKES).mkdir()
    for name, colour in {"mistakes/a.jpg": "red", "mistakes/unnamed.jpg": "lime", "secret.jpg": "blue"}.items():
        Image.new("RGB", (40, 30), colour).save(folder / name)
    (folder / "mistakes/text.jpg").write_text("no image")
    files = ("mistakes/a.jpg", "mistakes/text.jpg", "secret.jpg")
    entries = [*files, "mistakes/unnamed.jpg", "mistakes/../secret.jpg", "../secret.jpg", "/etc/passwd"]
    config = bundle.load(run.bundle).config | {"files": dict.fromkeys(files, "")}
    return config | {"mistakes": [mistake(name) for name in entries]}, folder


def mistake(name: str) -> dict:
    return {"file": name, "label": f"<i>{name}</i>", "prediction": "square", "probability": 0.934}


def test_mistakes_are_shown_with_their_true_and_their_predicted_class(mistaken):
    seen = about_html(*mistaken)
    assert "true: <b>&lt;i&gt;mistakes/a.jpg&lt;/i&gt;</b><br>predicted: <b>square</b> (93 %)" in seen
    assert seen.count('src="data:image/jpeg') == 1
    assert "<i>mistakes" not in seen


def test_a_photo_is_shown_only_where_the_bundle_names_it_among_its_mistakes(mistaken):
    seen = about_html(*mistaken)
    for name in ("unnamed", "secret", "passwd", "text.jpg"):
        assert name not in seen


def test_a_bundle_from_before_the_matrix_and_the_mistakes_still_has_its_card(predictor):
    config = {name: value for name, value in predictor.config.items() if name != "mistakes"}
    config["metrics"] = {name: value for name, value in config["metrics"].items() if name != "confusion"}
    seen = about_html(config, predictor.folder)
    assert "Error rate" in seen
    assert "Confusion matrix" not in seen
    assert "Mistakes" not in seen


def test_everything_that_a_bundle_says_of_itself_is_text_and_never_html(predictor):
    evil, config = "<script>alert(1)</script>", predictor.config
    figures = config["metrics"] | {"most_confused": [[evil, evil, evil]]}
    hostile = config | {"architecture": {"name": evil, "library": evil}, "metrics": figures, "start": {"origin": evil}}
    hostile |= {"versions": {"torch": evil}, "data": {"train": evil, "valid": evil}}
    view = view_of(hostile)
    seen = about_html(hostile, predictor.folder) + render_template("title.html", view=view)
    for name in ("card.md", "space.md"):
        seen += render_template(name, view=view, title="a", gradio="6", python="3.11", photos=True)
    assert "<script" not in seen
    assert "&lt;script" in seen


def test_a_network_without_heat_maps_shows_its_classes_and_nothing_to_choose():
    one = Prediction("", "cat", 0.9, {"cat": 0.9, "dog": 0.1})
    seen = prediction_html(one, None, PETS, PICTURE, 0.01)
    assert "<input" not in seen
    assert seen.count("<label>") == 2
    assert "heat" not in seen.lower()


def test_a_map_in_which_nothing_spoke_for_a_class_has_no_picture():
    assert heat_picture(np.zeros((3, 3))) is None
    assert heat_picture(np.full((3, 3), np.nan)) is None
    assert heat_picture(np.eye(3)).size == (HEAT, HEAT)


def test_the_page_says_the_classes_and_tells_those_that_it_does_not_see_apart():
    one = several({"cat": 0.6, "dog": 0.3, "fox": 0.8})
    seen = prediction_html(one, np.ones((3, 2, 2)), SEVERAL, PICTURE, 0.01)
    heading = seen[seen.index("<h2>") : seen.index("</h2>")]
    assert re.findall(r"<b>(\w+)</b> <span>(.*?)</span>", heading) == [("cat", "60.0 %"), ("dog", "30.0 %")]
    sees, not_seen = re.findall(r"(?s)<fieldset.*?</fieldset>", seen)
    assert re.findall(r"<span>(\w+)</span><em>(.*?)</em>", sees) == [("cat", "60.0 %"), ("dog", "30.0 %")]
    assert "Not predicted" in not_seen
    assert re.findall(r"<span>(\w+)</span><em>(.*?)</em>", not_seen) == [("fox", "80.0 %")]
    assert re.findall(r"--mark:([\d.]+)", seen) == ["0.5000", "0.2000", "0.9000"]
    assert seen.count('type="radio"') == seen.count('class="heat"') == 3
    assert seen.count(" checked>") == 1


def test_an_image_of_none_of_the_classes_is_said_to_be_so():
    one = several({"cat": 0.1, "dog": 0.1, "fox": 0.2})
    seen = prediction_html(one, None, SEVERAL, PICTURE, 0.01)
    assert "<b>none of the classes</b> <span>(likeliest: fox 20.0 %)</span>" in seen
    assert "<legend>Predicted" not in seen
    assert re.findall(r"<span>(\w+)</span><em>", seen) == ["fox", "cat", "dog"]


def test_a_class_that_is_said_has_a_row_however_many_are_likelier():
    shares = {f"c{place}": 0.9 - place / 100 for place in range(9)}
    config = SEVERAL | {"vocab": list(shares), "thresholds": [1.0] * 8 + [0.5]}
    seen = prediction_html(several(shares, config), None, config, PICTURE, 0.01)
    assert re.findall(r"<span>(\w+)</span><em>", seen) == ["c8", "c0", "c1", "c2", "c3"]


def test_the_page_says_each_number_large_where_it_lies_and_how_far_off_it_is():
    one = Prediction("", numbers={"age": 41.2345, "mass": 9.0})
    seen = prediction_html(one, np.ones((2, 2, 2)), NUMBERS, PICTURE, 0.01)
    assert "<b>age</b> <span>41.23</span>" in seen
    assert "<b>mass</b> <span>9</span>" in seen
    assert "--low:0.3123;--high:0.5123;--at:0.4123" in seen
    assert "--low:1.0000;--high:1.0000;--at:1.0000" in seen
    assert seen.count("on average") == 1
    assert "off by 10 on average" in seen
    assert seen.count('type="radio"') == 2
    assert "Bright parts of the heat map contribute to a higher number" in seen


def test_a_single_number_has_nothing_to_choose_and_its_heat_map_all_the_same():
    alone = NUMBERS | {"vocab": ["age"], "range": {"low": [0], "high": [100], "bounded": False}}
    one = Prediction("", numbers={"age": 41.2})
    seen = prediction_html(one, np.ones((1, 2, 2)), alone, PICTURE, 0.01)
    assert 'type="radio"' not in seen
    assert seen.count('class="heat"') == 1
    assert "Bright parts of the heat map contribute to a higher number" in seen
    assert "Within the range of the training images" in seen


def test_names_are_text_and_never_html_in_every_task():
    evil = "<script>alert(1)</script>"
    numbers = json.loads(json.dumps(NUMBERS).replace("age", evil))
    named = SEVERAL | {"vocab": [evil, "dog", "fox"]}
    measured = Prediction(evil, numbers={evil: 4.0, "mass": 0.0})
    for one, config in ((measured, numbers), (several({evil: 0.9, "dog": 0.1, "fox": 0.1}, named), named)):
        seen = prediction_html(one, None, config, PICTURE, 1) + card_html(one, config, None)
        seen += render_template("about.html", view=view_of(config), mistakes=[])
        assert "<script" not in seen
        assert "&lt;script" in seen


def test_the_card_of_one_of_many_says_its_answer_or_why_there_is_none():
    found = several({"cat": 0.6, "dog": 0.3, "fox": 0.1})
    seen = card_html(found, SEVERAL, PICTURE)
    assert '<b>cat <em>60.0 %</em></b><b>dog <em>30.0 %</em></b><span title="a.png">a.png</span>' in seen
    assert 'src="data:image/jpeg' in seen
    bad = card_html(Prediction("b.png", error="the file is empty"), SEVERAL, None)
    assert 'class="bad"' in bad
    assert "the file is empty" in bad


def test_many_are_ordered_by_doubt_those_unlike_the_training_images_first_and_errors_last():
    one = {name: Prediction(name, "cat", p, {"cat": p, "dog": 1 - p}) for name, p in (("sure", 0.99), ("unsure", 0.6))}
    one["unlike"] = Prediction("unlike", "cat", 1.0, {"cat": 1.0, "dog": 0.0}, unlike=True)
    one["bad"] = Prediction("bad", error="no image")
    assert sorted(one, key=lambda name: -doubt_of(one[name], PETS)) == ["unlike", "unsure", "sure", "bad"]
