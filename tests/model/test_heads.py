"""What stands behind the body for numbers: the range in which they are answered, and the loss measured in it."""

import numpy as np
import pytest
import torch
from fastai.vision.all import SigmoidRange

from kit import Recipe
from kit.errors import RecipeError
from kit.model.heads import Range, empty_network, range_of
from kit.tasks.objectives import RangeLoss
from kit.tasks.training import training_of

NUMBERS = Recipe(task="regression")


def test_a_bounded_range_is_fastais_sigmoid_range_a_low_and_high_each():
    x = torch.linspace(-9, 9, 20).reshape(10, 2)
    ours = Range([0.0, -5.0], [100.0, 5.0])(x)
    assert torch.allclose(ours[:, 0], SigmoidRange(0, 100)(x[:, 0]))
    assert torch.allclose(ours[:, 1], SigmoidRange(-5, 5)(x[:, 1]))


def test_without_a_bound_it_scales_and_has_no_end():
    assert Range([10.0], [30.0], bounded=False)(torch.tensor([[0.5], [2.0], [-1.0]])).tolist() == [[20], [50], [-10]]


@pytest.mark.parametrize(
    ("y_range", "low", "high", "bounded"),
    [("auto", [-1, -0.4], [11, 4.4], True), ("none", [-1, -0.4], [11, 4.4], False), ("0,20", [0, 0], [20, 20], True)],
)
def test_the_range_is_told_or_a_tenth_beyond_the_training_numbers(y_range, low, high, bounded):
    found = range_of(Recipe(task="regression", y_range=y_range), ["0;0", "5;1", "10;4"])
    assert found.low.tolist() == pytest.approx(low)
    assert found.high.tolist() == pytest.approx(high)
    assert found.bounded == bounded
    again = Range.from_json(found.to_json())
    assert again.to_json() == found.to_json()


def test_a_number_that_never_varies_still_has_a_range():
    assert range_of(NUMBERS, ["3", "3"]).to_json() == {
        "low": [pytest.approx(2.9)],
        "high": [pytest.approx(3.1)],
        "bounded": True,
    }


@pytest.mark.parametrize("y_range", ["5", "9,3", "a,b", "0,inf", "1,2,3"])
def test_what_is_no_range_is_refused(y_range):
    with pytest.raises(RecipeError, match=f"y_range='{y_range}' is not a range") as error:
        Recipe(task="regression", y_range=y_range)
    assert "two numbers like 0,100" in error.value.fix


def test_the_loss_measures_each_number_in_the_width_of_its_range():
    loss = RangeLoss(Range([0.0, 0.0], [100.0, 2.0]))
    assert loss(torch.tensor([[10.0, 0.2]]), torch.tensor([[0.0, 0.0]])).item() == pytest.approx(0.01)


def test_the_range_is_the_last_layer_of_the_head_and_travels_with_the_weights():
    network = empty_network("timm/test_resnet", 2, 32, Range([0.0, 1.0], [3.0, 4.0]))
    assert isinstance(network[1][-1], Range)
    assert network.state_dict()["1.9.high"].tolist() == [3, 4]


def test_metrics_of_several_classes_and_numbers_are_those_of_all_images_at_once():
    f1, precision = training_of("multilabel").metrics(2)
    r2, mae = training_of("regression").metrics(1)
    assert (f1.name, precision.name, r2.name, mae.name) == (
        "f1_at_half", "mean_average_precision", "mean_r2", "mean_mae"
    )  # fmt: skip
    assert len(training_of("regression").metrics(3)) == 1
    logits, truth = torch.tensor([[3.0, -3.0], [-3.0, 3.0], [3.0, 3.0]]), torch.tensor([[1.0, 0], [1, 1], [0, 1]])
    assert f1(logits.sigmoid(), truth) == pytest.approx((0.5 + 1) / 2)
    numbers, true = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[1.0], [2.0], [3.0]])
    assert mae(numbers, true) == pytest.approx(1 / 3)
    assert r2(numbers, true) == pytest.approx(0.5)


def test_the_loss_of_several_classes_is_binary_cross_entropy():
    logits, truth = torch.randn(5, 3), (torch.rand(5, 3) > 0.5).float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
    assert np.isclose(training_of("multilabel").loss()(logits, truth).item(), expected.item())
