"""Segmentation: the scenes, the measure, and that the network learns. Gradients: test_agreement.py."""

import pytest
import torch
from torch import nn

from kit.mechanism.batches import Dataset
from kit.mechanism.convolution import ConvTranspose2d
from kit.mechanism.segmentation import FCN, bilinear, draw_scenes, intersection_over_union, predict, train


def test_bilinear_weights_interpolate_inside_the_image():
    layer = bilinear(ConvTranspose2d(2, 2, 4, 2, 1))
    x = torch.rand(1, 2, 5, 6, generator=torch.Generator().manual_seed(0))
    theirs = nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(layer(x)[..., 1:-1, 1:-1], theirs[..., 1:-1, 1:-1])


def test_scenes_repeat_by_their_seed_and_hold_all_shapes():
    one, two, other = draw_scenes(50), draw_scenes(50), draw_scenes(50, seed=1)
    assert torch.equal(one.x, two.x) and torch.equal(one.y, two.y) and not torch.equal(one.y, other.y)
    assert one.x.shape == (50, 3, 32, 32) and one.y.shape == (50, 32, 32)
    assert one.x.min() >= 0 and one.x.max() <= 1
    assert one.y.unique().tolist() == [0, 1, 2, 3]
    shares = [(one.y == label).double().mean().item() for label in range(4)]
    assert 0.7 < shares[0] < 0.9 and all(0.03 < share < 0.15 for share in shares[1:])


def test_the_pixels_of_a_shape_have_one_colour_and_that_says_nothing_about_its_class():
    scenes = draw_scenes(200)
    means = []
    for label in (1, 2, 3):
        inside = scenes.y == label
        means.append(scenes.x.permute(0, 2, 3, 1)[inside].mean().item())
        spread = torch.stack([x[:, y].std(1).mean() for x, y in zip(scenes.x, inside, strict=True) if y.sum() > 9])
        assert spread.max() < 0.08
    assert max(means) - min(means) < 0.03
    background = scenes.x.permute(0, 2, 3, 1)[scenes.y == 0]
    assert background.mean().item() == pytest.approx(0.2, abs=0.03) and min(means) > 0.6


def test_intersection_over_union_counts_pixels_in_both_and_in_either():
    target, prediction = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 0]])
    shares = intersection_over_union(prediction, target, 3)
    assert shares[:2] == [pytest.approx(1 / 3), pytest.approx(1 / 3)]
    assert shares[2] != shares[2]
    assert intersection_over_union(target, target, 2) == [1, 1]


def test_a_network_learns_its_training_scenes():
    """The accuracy that is reported is the share of correct pixels."""
    torch.manual_seed(0)
    scenes, network = draw_scenes(24, size=16), FCN(4, width=8)
    rows = train(network, scenes, Dataset(*scenes[list(range(12))]), epochs=12)
    assert rows[-1]["train_loss"] < 0.6 * rows[0]["train_loss"]
    correct = (predict(network, scenes.x[:12]) == scenes.y[:12]).double().mean().item()
    assert rows[-1]["accuracy"] == pytest.approx(correct)
    assert correct > 0.8 > (scenes.y[:12] == 0).double().mean().item()


@pytest.mark.slow
def test_a_network_finds_the_shapes_of_new_scenes_in_images_of_any_size():
    torch.manual_seed(0)
    valid, network = draw_scenes(60, seed=1), FCN(4)
    train(network, draw_scenes(400), valid)
    assert all(share > 0.6 for share in intersection_over_union(predict(network, valid.x), valid.y, 4))
    assert predict(network, draw_scenes(1, size=48).x).shape == (1, 48, 48)
