"""Two runs compared: only on what both held out, with a verdict in words."""

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from kit import evaluate
from kit.cli.main import application
from kit.errors import DataError


def write_run(folder, held_out, wrong=(), trained=(), label=lambda number: "ab"[number % 2], place="photos"):
    """A run folder of images known by numbers: those held out, those of them that were wrong, those trained on."""
    folder.mkdir()
    rows = [(f"{place}/{number}.jpg", label(number), side, f"sha{number}") for side, numbers in
            (("valid", held_out), ("train", trained)) for number in numbers]  # fmt: skip
    pd.DataFrame(rows, columns=["path", "label", "split", "sha256"]).to_csv(folder / "table.csv", index=False)
    said = [(f"{place}/{number}.jpg", label(number), number not in wrong) for number in held_out]
    pd.DataFrame(said, columns=["path", "label", "correct"]).to_csv(folder / "predictions.csv", index=False)
    return folder


def test_runs_that_chance_could_explain_cannot_be_told_apart_and_it_says_what_that_would_take(tmp_path):
    a = write_run(tmp_path / "a", range(74), wrong=range(6))
    b = write_run(tmp_path / "b", range(74), wrong=range(4, 8))
    found = evaluate.compare(a, b)
    assert not found.differ
    assert found.lines()[0].startswith("a and b cannot be told apart on 74 images; about ")
    assert found.lines()[0].endswith("would be needed if they differ as they do here")
    assert "a: error rate 0.0811; b: 0.0541; both on the same 74 images" in str(found)
    assert "only a wrong: 4, only b wrong: 2; McNemar's exact test: p = 0.688" in str(found)


def test_a_clear_difference_names_the_better_run(tmp_path):
    a = write_run(tmp_path / "a", range(200), wrong=range(40))
    b = write_run(tmp_path / "b", range(200), wrong=range(10))
    found = evaluate.compare(a, b)
    assert found.differ
    assert found.verdict() == "b is better than a on these 200 images"
    assert evaluate.compare(b, a).verdict() == found.verdict()
    assert found.comparison.difference.low > 0


def test_equally_many_wrong_says_so(tmp_path):
    a, b = (write_run(tmp_path / name, range(40), wrong=[place]) for place, name in enumerate("ab"))
    assert evaluate.compare(a, b).verdict().endswith("40 images: they have equally many wrong")


def test_only_images_that_both_held_out_count_wherever_they_lie(tmp_path):
    a = write_run(tmp_path / "a", range(0, 30), wrong=[5, 25], trained=range(30, 60))
    b = write_run(tmp_path / "b", range(20, 50), wrong=[25, 45], trained=range(0, 20), place="elsewhere")
    found = evaluate.compare(a, b)
    assert found.n == 10
    assert found.errors == (0.1, 0.1)
    assert found.left_out == (20, 20)
    assert "left out, because only one run held them out: 20 and 20" in str(found)


def test_runs_that_share_nothing_say_who_was_trained_on_what(tmp_path):
    a = write_run(tmp_path / "a", range(10), trained=range(10, 20))
    b = write_run(tmp_path / "b", range(10, 20), trained=range(10))
    with pytest.raises(DataError, match="b was trained on 10 of a's 10, a on 10 of b's 10") as error:
        evaluate.compare(a, b)
    assert error.value.problem.startswith("no image was held out by both a and b: ")
    assert "same images, split and seed" in error.value.fix


def test_an_image_that_counts_and_was_trained_on_is_named(tmp_path):
    a = write_run(tmp_path / "a", range(10), trained=[3])
    b = write_run(tmp_path / "b", range(10))
    with pytest.raises(DataError, match=r"a was trained on 1 of the 10 images: .*photos/3.jpg"):
        evaluate.compare(a, b)


def test_a_prediction_of_an_image_that_the_table_lacks_is_named(tmp_path):
    a, b = (write_run(tmp_path / name, range(4)) for name in "ab")
    table = pd.read_csv(a / "table.csv")
    table[table["path"] != "photos/2.jpg"].to_csv(a / "table.csv", index=False)
    with pytest.raises(DataError, match=r"a: predicted images that its table.csv does not hold: photos/2.jpg\n"):
        evaluate.compare(a, b)


def test_runs_that_learned_other_labels_are_not_compared(tmp_path):
    a, b = write_run(tmp_path / "a", range(4)), write_run(tmp_path / "b", range(4), label=lambda number: "cat")
    with pytest.raises(DataError, match="4 of 4 images have different labels: photos/0.jpg is 'a' in a and 'cat' in b"):
        evaluate.compare(a, b)


def test_a_label_that_looks_like_a_number_or_like_nothing_is_still_a_label(tmp_path):
    a, b = (write_run(tmp_path / name, range(4), label=lambda number: ["NA", "01"][number % 2]) for name in "ab")
    assert evaluate.compare(a, b).n == 4
    assert set(evaluate.comparison.held_out(a)["label"]) == {"NA", "01"}


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(DataError, match=r"is no run folder: there is no predictions.csv"):
        evaluate.compare(tmp_path, tmp_path)


def test_a_run_equals_itself_and_the_command_prints_json(run):
    done = CliRunner().invoke(application(), ["compare", str(run.folder), str(run.folder), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["n"] == run.evaluation.n
    assert found["p"] == 1.0
    assert found["differ"] is False
    assert found["a"]["error_rate"] == pytest.approx(run.error_rate.value)
