"""Heads: their layers, their description in a bundle, and for numbers the range in which they are answered."""

import numpy as np
import pytest
import torch
from fastai.vision.all import AdaptiveConcatPool2d, Flatten, SigmoidRange
from torch import nn

from kit import Recipe
from kit.errors import ArchitectureError, RecipeError
from kit.model.heads import (
    FASTAI,
    LINEAR,
    Range,
    classifier,
    described,
    empty_network,
    featurizer,
    range_of,
    split_head,
)
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
    assert {one.dtype for one in Range([0, 1], [3, 4]).state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("kind", [LINEAR, FASTAI])
def test_a_head_built_from_its_description_gives_the_same_answers(kind):
    network = empty_network("timm/test_resnet", 3, 32, kind=kind).eval()
    layers = described(network[1])
    again = empty_network("timm/test_resnet", 3, 32, kind=layers).eval()
    assert described(again[1]) == layers
    again.load_state_dict(network.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(images), network(images))


def test_a_head_is_described_by_the_names_and_the_arguments_of_its_layers():
    layers = [nn.AdaptiveAvgPool2d((1, 1)), Flatten(), nn.BatchNorm1d(8, eps=0.1), nn.Dropout(0.3), nn.ReLU()]
    head = nn.Sequential(*layers, nn.Sequential(nn.Linear(8, 4, bias=False), nn.Linear(4, 2)))
    assert described(head) == [
        ["average pooling"],
        ["flatten"],
        ["batch norm", 8, 0.1],
        ["dropout", 0.3],
        ["relu"],
        ["linear", 8, 4, 0],
        ["linear", 4, 2, 1],
    ]
    assert described(AdaptiveConcatPool2d(1)) == [["max and average pooling"]]


class Backwards(nn.Sequential):
    """A sequence whose layers run in another order."""

    def forward(self, x):
        return x


@pytest.mark.parametrize(
    "layer", [nn.Tanh(), nn.AdaptiveAvgPool2d(2), AdaptiveConcatPool2d(2), Backwards(nn.ReLU())], ids=repr
)
def test_a_layer_that_no_bundle_describes_is_refused_by_name(layer):
    with pytest.raises(ArchitectureError, match=f"its head has a layer {type(layer).__name__}") as error:
        described(nn.Sequential(layer))
    assert "only heads of these layers can be saved: max and average pooling, average pooling" in error.value.fix


@pytest.mark.parametrize("layer", [["tanh"], ["linear", 3], ["linear", "three", 2], ["linear", -1, 2]], ids=str)
def test_a_description_of_no_layer_is_refused(layer):
    with pytest.raises(ArchitectureError, match="no layer of a head: ") as error:
        empty_network("timm/test_resnet", 2, 32, kind=[layer])
    assert error.value.fix.startswith("one of max and average pooling, average pooling, flatten, linear")


@pytest.mark.parametrize("kind", [LINEAR, FASTAI])
def test_a_network_is_its_features_and_a_classifier_of_them(kind):
    network, images = empty_network("timm/test_resnet", 3, 32, kind=kind).eval(), torch.randn(2, 3, 32, 32)
    features = featurizer(network)(images)
    assert features.ndim == 2
    assert torch.equal(classifier(network)(features), network(images))
    linear = nn.Linear(4, 2)
    assert split_head(nn.Sequential(linear)) == ([], [linear])  # of a body that pools


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
