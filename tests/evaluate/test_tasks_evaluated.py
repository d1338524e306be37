"""Results of several classes an image, and of numbers: every figure against one worked out anew."""

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score

from kit.errors import DataError
from kit.evaluate.multilabel import MultiLabelEvaluation
from kit.evaluate.pictures import draw_overview, draw_predictions
from kit.evaluate.regression import RegressionEvaluation
from kit.evaluate.thresholds import best_threshold, fit_thresholds

VOCAB = ["cat", "dog", "fox"]
PATHS = [f"{number}.png" for number in range(300)]


@pytest.fixture(scope="module")
def several() -> MultiLabelEvaluation:
    dice = np.random.default_rng(0)
    truth = dice.random((300, 3)) < [0.5, 0.3, 0.15]
    logits = dice.normal(size=(300, 3)) + 3.0 * truth - 2.2
    return MultiLabelEvaluation.from_probabilities(PATHS, truth, 1 / (1 + np.exp(-logits)), VOCAB)


@pytest.fixture(scope="module")
def numbers() -> RegressionEvaluation:
    dice = np.random.default_rng(0)
    truth = np.stack([dice.uniform(0, 100, 300), dice.uniform(-1, 1, 300)], 1).round(2)
    said = truth + dice.normal(size=(300, 2)) * [5, 0.2]
    return RegressionEvaluation.from_numbers(PATHS, truth, said, ["age", "tilt"], [100.0, 2.0])


def test_f1_is_the_mean_of_the_classes_with_an_interval_around_it(several):
    said = several.probabilities >= 0.5
    assert several.f1.value == pytest.approx(f1_score(several.truth, said, average="macro"))
    assert several.f1.low < several.f1.value < several.f1.high
    assert several.f1.n == 300
    assert several.headline == several.f1


def test_a_row_says_what_was_said_what_is_there_and_whether_all_of_it_is_right(several):
    row = several.predictions.iloc[0]
    said = sorted(name for name in VOCAB if row[f"p_{name}"] >= 0.5)
    assert row["prediction"] == ";".join(said)
    assert row["correct"] == (row["prediction"] == row["label"])
    shares = np.where(several.truth[0], several.probabilities[0], 1 - several.probabilities[0])
    assert row["loss"] == pytest.approx(-np.log(shares).mean())
    assert several.exact.value == several.predictions["correct"].mean()


def test_captions_name_what_was_missed_and_made_up():
    truth = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]])
    shares = np.array([[0.1, 0.9, 0.2], [0.0, 0.9, 0.9], [0.0, 0.0, 0.0]])
    result = MultiLabelEvaluation.from_probabilities(PATHS[:3], truth, shares, VOCAB)
    captions = [result.caption(row) for row in result.predictions.itertuples()]
    assert captions == [("dog; missed cat; has no dog", False), ("dog, fox", True), ("none of the classes", True)]


def test_examples_are_right_and_mistakes_are_wrong(several, numbers):
    assert several.examples(6)["correct"].all()
    assert not several.mistakes(6)["correct"].any()
    assert several.mistakes(1)["loss"].iloc[0] == several.predictions.loc[~several.predictions["correct"], "loss"].max()
    assert len(several.selection(4)) == len(numbers.selection(4)) == 4
    assert numbers.examples(5)["true_age"].is_monotonic_increasing


def test_thresholds_change_what_is_said(several):
    low = MultiLabelEvaluation.from_probabilities(PATHS, several.truth, several.probabilities, VOCAB, [0.1, 0.5, 0.9])
    assert (low.predicted == (several.probabilities >= [0.1, 0.5, 0.9])).all()
    assert low.per_class["threshold"].tolist() == [0.1, 0.5, 0.9]


def test_the_best_threshold_is_found_by_trying_all(several):
    for place in range(3):
        shares, truth = several.probabilities[:, place], several.truth[:, place]
        best = max(f1_score(truth, shares >= cut) for cut in np.unique(shares))
        found = best_threshold(shares, truth)
        assert f1_score(truth, shares >= found) == pytest.approx(best)


def test_few_positives_set_no_threshold():
    assert best_threshold(np.linspace(0, 1, 50), np.arange(50) >= 41) == 0.5
    assert best_threshold(np.linspace(0, 1, 50), np.arange(50) >= 20) == pytest.approx((19 + 20) / 2 / 49)


def test_equal_probabilities_are_never_parted():
    shares = np.repeat([0.9, 0.4, 0.1], 20)
    truth = np.arange(60) < 30
    cut = best_threshold(shares, truth)
    assert cut in (pytest.approx(0.65), pytest.approx(0.25))


def test_thresholds_are_judged_on_images_that_did_not_fit_them(several):
    fitted = fit_thresholds(several.probabilities, several.truth)
    assert fitted.f1_after > fitted.f1_before == pytest.approx(several.f1.value)
    own = MultiLabelEvaluation.from_probabilities(PATHS, several.truth, several.probabilities, VOCAB, fitted.values)
    assert own.f1.value > fitted.f1_after
    assert fitted.n == 300


def test_thresholds_that_do_not_help_stay_a_half():
    dice = np.random.default_rng(5)
    truth = dice.random((60, 2)) < 0.5
    fitted = fit_thresholds(np.where(truth, 0.9, 0.1) + 0 * dice.random((60, 2)), truth)
    assert fitted.values == [0.5, 0.5]
    assert fitted.f1_after == fitted.f1_before == 1


def test_numbers_are_judged_in_their_own_unit(numbers):
    gaps = numbers.outputs - numbers.truth
    assert numbers.per_target["mae"].tolist() == pytest.approx(np.abs(gaps).mean(0).tolist())
    assert numbers.per_target["rmse"].tolist() == pytest.approx(np.sqrt((gaps**2).mean(0)).tolist())
    assert numbers.off_by(0).low < numbers.off_by(0).value < numbers.off_by(0).high
    assert numbers.headline.value == pytest.approx(numbers.per_target["r2"].mean())
    assert numbers.headline.low < numbers.headline.value < numbers.headline.high


def test_the_loss_counts_all_numbers_alike(numbers):
    gaps = (numbers.outputs - numbers.truth) / [100, 2]
    assert numbers.predictions["loss"].to_numpy() == pytest.approx((gaps**2).mean(1))


def test_what_went_through_float32_is_written_without_noise():
    truth = np.array([[53.76]], np.float32).astype(float)
    result = RegressionEvaluation.from_numbers(["a"], truth, truth + 1, ["age"], [1.0])
    assert result.predictions["label"].tolist() == ["53.76"]
    assert result.predictions["true_age"].tolist() == [53.76]


def test_captions_of_numbers_tell_both(numbers):
    text, good = numbers.caption(numbers.predictions.nsmallest(1, "loss").iloc[0])
    assert text.startswith("age ")
    assert "(is " in text
    assert good
    assert not numbers.caption(numbers.predictions.nlargest(1, "loss").iloc[0])[1]


def test_numbers_that_do_not_vary_have_no_r2_and_json_says_null():
    result = RegressionEvaluation.from_numbers(PATHS[:4], np.full((4, 1), 3.0), np.arange(4.0)[:, None], ["age"], [1.0])
    assert result.figures()["r2"] is None
    assert result.to_json()["per_target"]["age"]["r2"] is None
    json.dumps(result.figures() | result.to_json(), allow_nan=False)


def test_all_figures_are_plain_json(several, numbers):
    for result in (several, numbers):
        json.dumps(result.figures() | result.to_json(), allow_nan=False)
        assert set(result.figures()) == {result.name, "n", "low", "high"}


def test_the_result_in_words(several, numbers):
    assert several.lines()[0].startswith(f"F1 {several.f1}, the mean of 3 classes; mean average precision 0.")
    assert several.lines()[1].startswith("found worst: ")
    assert numbers.lines()[0].startswith("age: off by ")
    assert numbers.lines()[2] == f"R2 {numbers.headline}, the mean of all"


def test_few_images_leave_much_open(several):
    few = MultiLabelEvaluation.from_probabilities(PATHS[:9], several.truth[:9], several.probabilities[:9], VOCAB)
    assert few.lines()[-1] == "note: 9 validation images leave much open: read the interval, not the figure alone"


def test_without_an_image_there_is_no_result():
    empty = np.empty((0, 1))
    with pytest.raises(DataError, match="no image could be predicted"):
        MultiLabelEvaluation.from_probabilities([], empty, empty, ["a"])
    with pytest.raises(DataError, match="no image could be predicted"):
        RegressionEvaluation.from_numbers([], empty, empty, ["a"], [1.0])


def test_other_outputs_of_the_same_images_make_another_result(several, numbers):
    assert several.again(several.truth.astype(float)).f1.value == 1
    assert numbers.again(numbers.truth).headline.value == 1


def test_each_task_has_its_picture(several, numbers, tmp_path, shapes):
    from kit.data.images import open_image

    assert draw_overview(several, tmp_path).name == "classes.png"
    assert draw_overview(numbers, tmp_path).name == "scatter.png"
    rows = numbers.predictions.head(2).assign(path=[str(path) for path in sorted(shapes.rglob("*.png"))[:2]])
    draw_predictions(numbers, rows, tmp_path / "some.png")
    assert all(open_image(path).width > 100 for path in tmp_path.glob("*.png"))
