"""Honest numbers: every figure from the predictions table, against figures worked out by hand and by scikit-learn."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

from kit import evaluate
from kit.data.images import open_image
from kit.errors import DataError
from kit.evaluate.classification import Evaluation
from kit.evaluate.pictures import draw_overview, draw_predictions

VOCAB = ["cat", "dog", "fox"]


@pytest.fixture(scope="module")
def made() -> Evaluation:
    """200 random predictions, better than chance."""
    dice = np.random.default_rng(0)
    truth = dice.integers(0, 3, 200)
    logits = dice.normal(size=(200, 3)) + 1.5 * np.eye(3)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = [VOCAB[index] for index in truth]
    return Evaluation.from_probabilities([f"{n}.jpg" for n in range(200)], labels, probabilities, VOCAB)


def test_the_error_rate_comes_with_its_n_and_interval(made):
    wrong = (made.predictions["label"] != made.predictions["prediction"]).sum()
    assert made.error_rate.value == wrong / 200
    assert made.error_rate.n == 200
    assert made.error_rate.low < wrong / 200 < made.error_rate.high
    assert made.accuracy.value == pytest.approx(1 - made.error_rate.value)


def test_figures_per_class_are_scikit_learns(made):
    truth, said = made.predictions["label"], made.predictions["prediction"]
    precision, recall, f1, n = precision_recall_fscore_support(truth, said, labels=VOCAB)
    for column, expected in (("precision", precision), ("recall", recall), ("f1", f1), ("n", n)):
        assert made.per_class[column].to_numpy() == pytest.approx(expected)
    assert np.array_equal(made.confusion.to_numpy(), confusion_matrix(truth, said, labels=VOCAB))
    assert made.to_json()["loss"] == pytest.approx(log_loss(truth, made.probabilities, labels=VOCAB))


def test_what_is_confused_is_counted_most_frequent_first(made):
    pairs = made.most_confused()
    assert [times for _, _, times in pairs] == sorted((times for _, _, times in pairs), reverse=True)
    assert sum(times for _, _, times in pairs) == round(made.error_rate.value * 200)
    assert {(true, said): times for true, said, times in pairs} == {
        (true, said): made.confusion.loc[true, said] for true in VOCAB for said in VOCAB if true != said
    }
    assert made.most_confused(least=10_000) == []


def test_the_confusion_matrix_can_be_had_as_its_cells_that_are_not_zero(made):
    counts = np.zeros((3, 3), int)
    for true, said, times in made.confusion_cells():
        counts[true, said] = times
    assert np.array_equal(counts, made.confusion.to_numpy())
    few = Evaluation.from_probabilities(["a"], ["fox"], np.array([[0.9, 0.1, 0]]), VOCAB)
    assert few.to_json()["confusion"] == [[2, 0, 1]]


def test_the_confusion_of_a_thousand_classes_stays_small_and_keeps_what_is_frequent():
    dice = np.random.default_rng(0)
    vocab = [f"class {number}" for number in range(1000)]
    truth, said = dice.integers(0, 1000, 30_000), dice.integers(0, 1000, 30_000)
    truth[:300], said[:300] = 7, 11
    predictions = pd.DataFrame({"label": [vocab[i] for i in truth], "prediction": [vocab[i] for i in said]})
    result = Evaluation(predictions, vocab)
    cells = result.confusion_cells()
    assert len(cells) == 5000
    assert max(cells, key=lambda cell: cell[2])[:2] == [7, 11]
    assert len(json.dumps(cells, indent=2)) < 400_000
    assert result.most_confused()[0] == ("class 7", "class 11", result.confusion.to_numpy()[7, 11])


def test_top_losses_are_the_surest_mistakes(made):
    top = made.top_losses(5)
    assert not top["correct"].any()
    assert top["loss"].is_monotonic_decreasing
    assert top["loss"].iloc[0] == made.predictions["loss"].max()


def test_a_class_never_predicted_has_no_precision_and_json_says_null():
    result = Evaluation.from_probabilities(["a", "b"], ["cat", "dog"], np.array([[0.9, 0.1, 0], [0.8, 0.2, 0]]), VOCAB)
    assert np.isnan(result.per_class.loc["dog", "precision"])
    assert result.to_json()["per_class"]["dog"]["precision"] is None
    assert result.to_json()["per_class"]["fox"]["recall"] is None


def test_a_label_that_the_model_never_saw_is_refused_with_those_it_knows():
    with pytest.raises(DataError, match="labels that the model never saw: wolf; it knows: cat, dog, fox"):
        Evaluation.from_probabilities(["a"], ["wolf"], np.ones((1, 3)) / 3, VOCAB)


def test_too_few_images_say_so_in_words():
    few = Evaluation.from_probabilities(["a"] * 9, ["cat"] * 9, np.tile([0.8, 0.1, 0.1], (9, 1)), VOCAB)
    assert any("9 validation images are too few to tell" in line for line in few.lines())


def test_a_learner_is_evaluated_on_its_validation_images_or_on_other_rows(run):
    table = run.table
    held = table[table["split"] == "valid"]
    assert run.evaluation.predictions["path"].tolist() == held["path"].tolist()
    assert run.evaluation.predictions["label"].tolist() == held["label"].tolist()
    on_training = evaluate.evaluate(run.learner, table[table["split"] == "train"])
    assert on_training.n == 18
    assert on_training.predictions["label"].tolist() == table[table["split"] == "train"]["label"].tolist()


def test_the_learners_own_get_preds_say_the_same(run):
    with run.learner.no_bar():
        probabilities, _ = run.learner.get_preds()
    assert np.abs(probabilities.numpy() - run.evaluation.probabilities).max() < 1e-6


def test_the_pictures_are_pictures(run, tmp_path):
    assert draw_overview(run.evaluation, tmp_path) == tmp_path / "confusion.png"
    draw_predictions(run.evaluation, run.evaluation.top_losses(3), tmp_path / "losses.png", "Highest losses")
    assert all(open_image(path).width > 100 for path in tmp_path.glob("*.png"))


def test_telling_examples_are_the_surest_of_each_class_and_the_worst_mistake(made):
    rows = made.selection(4)
    assert len(rows) == 4
    assert rows["correct"].tolist() == [True, True, True, False]
    assert set(rows["label"][:3]) == set(VOCAB)


def test_telling_mistakes_are_the_worst_of_each_confused_pair_first(made):
    rows = made.mistakes(8)
    pairs = list(zip(rows["label"], rows["prediction"], strict=True))
    assert len(set(pairs[:6])) == 6
    assert not rows["correct"].any()
    assert rows["loss"].iloc[0] == made.predictions.loc[~made.predictions["correct"], "loss"].max()
    assert rows["loss"].iloc[:6].is_monotonic_decreasing
    right = Evaluation.from_probabilities(["a"], ["cat"], np.array([[0.8, 0.1, 0.1]]), VOCAB)
    assert len(right.mistakes(6)) == 0
