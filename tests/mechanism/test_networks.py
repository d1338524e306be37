"""Networks: what makes each what it is, and that each learns real digits. Gradients: test_agreement.py."""

import pytest
import torch
from torch import Tensor, nn

from kit.mechanism.autograd import Variable
from kit.mechanism.convolution import AvgPool2d, Conv2d, GlobalAvgPool, MaxPool2d
from kit.mechanism.layers import BatchNorm, Dropout, Layer, Linear, ReLU, Sequential, Sigmoid, SoftmaxCrossEntropy, Tanh
from kit.mechanism.networks import (
    Concat,
    Residual,
    alexnet,
    count,
    enlarge,
    feature_maps,
    first_filters,
    fully_convolutional,
    googlenet,
    inception,
    lenet,
    mlp,
    resnet,
    stacked,
    vgg,
)
from kit.mechanism.optimizers import SGD, Adam


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


NETWORKS = {
    "MLP": (lambda: mlp(64, 32, 10, generator=dice()), 8),
    "LeNet": (lambda: lenet(16, generator=dice()), 16),
    "AlexNet": (lambda: alexnet(16, generator=dice()), 16),
    "VGG": (lambda: vgg(8, generator=dice()), 8),
    "GoogLeNet": (lambda: googlenet(generator=dice()), 8),
    "ResNet": (lambda: resnet(generator=dice()), 8),
    "fully convolutional": (lambda: fully_convolutional(generator=dice()), 8),
}


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    """128 real digits, (128, 1, 8, 8) from 0 to 1, and their labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return torch.tensor(data.images[:128], dtype=torch.float32)[:, None] / 16, torch.tensor(data.target[:128])


def train(network: Layer, x: Tensor, y: Tensor, steps: int, own_autograd: bool = False) -> list[float]:
    """The loss at each of `steps` steps on one batch."""
    loss_function, optimizer, losses = SoftmaxCrossEntropy(), Adam(network.parameters(), 0.003), []
    for _ in range(steps):
        loss = loss_function(network(Variable(x, requires_grad=False) if own_autograd else x), y)
        if own_autograd:
            loss.backward()
        else:
            network.backward(loss_function.backward())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.data.item())
    return losses


def kinds(network: Layer) -> list[type]:
    return [type(layer) for layer in network.modules()]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_ten_scores_a_digit_and_learns_by_its_own_backward(name, digits):
    (build, size), (x, y) = NETWORKS[name], digits
    network, x = build(), enlarge(x, size // 8)
    assert network(x).shape == (128, 10)
    losses = train(network, x, y, 25)
    assert sum(losses[-3:]) / 3 < 0.8 * losses[0], losses


@pytest.mark.parametrize("name", ["LeNet", "ResNet"])
def test_a_network_learns_the_same_on_our_own_autograd(name, digits):
    (build, size), (x, y) = NETWORKS[name], digits
    x = enlarge(x[:16], size // 8).double()
    by_hand = train(build().to(torch.float64), x, y[:16], 4)
    by_graph = train(build().to(torch.float64), x, y[:16], 4, own_autograd=True)
    assert by_hand == pytest.approx(by_graph, rel=1e-9)


def test_lenet_has_as_many_parameters_as_lecun_s():
    assert count(lenet(28)) == count(lenet(28, activation=Sigmoid)) == 61706
    sizes = [tuple(p.shape) for p in lenet(28).parameters() if p.ndim > 1]
    assert sizes == [(6, 1, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]


def test_lenet_squashes_and_averages_and_alexnet_rectifies_takes_maxima_and_drops():
    assert {Tanh, AvgPool2d} <= set(kinds(lenet())) and ReLU not in kinds(lenet())
    assert {ReLU, MaxPool2d, Dropout} <= set(kinds(alexnet()))
    assert kinds(alexnet()).count(Conv2d) == 5 and kinds(alexnet()).count(Linear) == 3


def test_vgg_knows_3x3_only_and_grows_wider_after_each_pool():
    convolutions = [layer for layer in vgg().modules() if isinstance(layer, Conv2d)]
    assert {layer.weight.shape[2:] for layer in convolutions} == {(3, 3)}
    assert [layer.weight.shape[0] for layer in convolutions] == [16, 32, 32, 64, 64]
    assert kinds(vgg()).count(MaxPool2d) == 3


def test_two_3x3_see_as_much_as_one_5x5_with_fewer_weights():
    assert stacked([3, 3]) == (5, 18) and stacked([5]) == (5, 25)
    assert stacked([3, 3, 3], 64) == (7, 27 * 64 * 64) and stacked([7], 64) == (7, 49 * 64 * 64)
    two = Sequential(Conv2d(8, 8, 3, bias=False), Conv2d(8, 8, 3, bias=False))
    assert count(two) == stacked([3, 3], 8)[1]
    assert two(torch.rand(1, 8, 5, 5)).shape == (1, 8, 1, 1)  # 5x5 pixels, one answer


def test_an_inception_block_joins_four_views_of_the_same_image():
    block, x = inception(6, 4), torch.rand(2, 6, 5, 7)
    assert block(x).shape == (2, 20, 5, 7)
    views = [branch(x) for branch in block.branches]
    assert [view.shape[1] for view in views] == [4, 8, 4, 4]
    assert torch.equal(block(x), torch.cat(views, 1))


def test_a_1x1_before_a_5x5_makes_it_cheap():
    direct = Conv2d(64, 32, 5)
    through = Sequential(Conv2d(64, 8, 1), Conv2d(8, 32, 5))
    assert count(direct) == 51232 and count(through) == 6952


def test_googlenet_ends_in_a_global_average_and_one_linear_layer():
    assert kinds(googlenet()).count(Linear) == 1 and GlobalAvgPool in kinds(googlenet())


def test_a_residual_block_whose_body_is_silent_passes_its_input_on():
    block, x = Residual(4, 4), torch.rand(2, 4, 3, 3)
    block.body.layers[-1].weight.zero_()
    assert torch.equal(block(x), x)
    gradient = torch.rand(2, 4, 3, 3)
    torch.testing.assert_close(block.backward(gradient), gradient)  # the short way loses nothing


def test_the_shortcut_is_a_1x1_convolution_only_where_the_shape_changes():
    assert Residual(4, 4).shortcut.layers == []
    for block, shape in [(Residual(4, 6), (2, 6, 5, 5)), (Residual(4, 4, stride=2), (2, 4, 3, 3))]:
        assert block.shortcut.layers[0].weight.shape[2:] == (1, 1)
        assert block(torch.rand(2, 4, 5, 5)).shape == shape


def test_through_twelve_silent_layers_the_gradient_comes_back_whole_with_shortcuts_and_not_at_all_without():
    blocks, x, gradient = [Residual(4, 4) for _ in range(12)], torch.rand(2, 4, 6, 6), torch.rand(2, 4, 6, 6)
    for block in blocks:
        block.body.layers[-1].weight.zero_()
    deep, plain = Sequential(*blocks), Sequential(*(block.body for block in blocks))
    deep(x)
    torch.testing.assert_close(deep.backward(gradient), gradient)
    plain(x)
    assert plain.backward(gradient).abs().max() == 0


def test_resnet_halves_the_image_and_widens_from_stage_to_stage():
    network = resnet(widths=(16, 32, 64), blocks=2)
    assert kinds(network).count(Residual) == 6 and BatchNorm in kinds(network)
    shapes = [tuple(feature_maps(network, torch.rand(1, 1, 8, 8), depth).shape[1:]) for depth in range(3, 10)]
    assert shapes == [(16, 8, 8), (16, 8, 8), (16, 8, 8), (32, 4, 4), (32, 4, 4), (64, 2, 2), (64, 2, 2)]


def test_a_fully_convolutional_network_takes_any_size_and_can_answer_for_every_place():
    network = fully_convolutional()
    assert Linear not in kinds(network)
    for h, w in [(8, 8), (5, 31), (64, 40)]:
        assert network(torch.rand(2, 1, h, w)).shape == (2, 10)
    places = feature_maps(network, torch.rand(2, 1, 9, 16), len(network.layers) - 1)
    assert places.shape == (2, 10, 5, 8)
    with pytest.raises(ValueError, match=r"Linear expects \(n, 64\), got \(2, 128\)"):
        mlp(64, 10)(torch.rand(2, 1, 8, 16))


def test_a_network_that_learned_from_small_images_shows_in_a_larger_one_what_stands_where():
    x = torch.zeros(64, 1, 8, 8)
    for image, (top, left) in zip(x, torch.randint(0, 6, (64, 2), generator=dice()).tolist(), strict=True):
        image[0, top : top + 3, left] = 1  # a bar that stands
    y = torch.arange(64) % 2
    x[y == 1] = x[y == 1].mT  # and one that lies
    network = fully_convolutional(classes=2, width=4, generator=dice())
    train(network, x, y, 100)
    both = torch.zeros(1, 1, 8, 24)  # one stands on the left, one lies on the right
    both[0, 0, 2:5, 4] = both[0, 0, 3, 18:21] = 1
    stands, lies = feature_maps(network, both, len(network.layers) - 1)[0]
    strongest = [score.amax(0).argmax().item() for score in (stands - lies, lies - stands)]
    assert strongest[0] in (1, 2, 3) and strongest[1] in (8, 9, 10)  # columns of the map, half as many as of the image


def test_first_filters_and_feature_maps_are_what_the_first_layers_hold_and_see():
    network, x = lenet(16), torch.rand(3, 1, 16, 16)
    assert first_filters(network) is network.layers[0].weight
    assert torch.equal(feature_maps(network, x, 2), network.layers[0](x).tanh())
    assert first_filters(Sequential(Residual(3, 4))).shape == (4, 3, 3, 3)


def test_looking_at_feature_maps_changes_nothing():
    network, x = resnet(), torch.rand(4, 1, 8, 8)
    before = network.layers[1].running_mean.clone()
    feature_maps(network, x, 5)
    assert torch.equal(network.layers[1].running_mean, before) and network.training
    assert all(layer.training for layer in network.modules())


def test_what_is_not_there_cannot_be_shown():
    with pytest.raises(ValueError, match="no Conv2d, so it has no filters to show"):
        first_filters(mlp(4, 2))
    for depth in (0, 4):
        with pytest.raises(ValueError, match=f"depth {depth}: this network has layers 1 to 3"):
            feature_maps(Sequential(ReLU(), ReLU(), ReLU()), torch.rand(1, 1, 4, 4), depth)


def test_an_image_too_small_is_refused_with_the_numbers():
    with pytest.raises(ValueError, match="a window of 5 pixels does not fit on 4 with padding 0; use a larger image"):
        lenet(8)
    with pytest.raises(ValueError, match=r"mlp\(64,\): expected the number of inputs"):
        mlp(64)


def test_enlarge_makes_squares_of_pixels():
    assert enlarge(torch.tensor([[[[1, 2], [3, 4]]]]), 2)[0, 0].tolist() == [[1, 1, 2, 2]] * 2 + [[3, 3, 4, 4]] * 2


def test_concat_gives_every_branch_its_own_gradient_and_adds_what_comes_back():
    double = Concat(Sequential(), Sequential())
    assert double(torch.ones(1, 2, 1, 1)).shape == (1, 4, 1, 1)
    gradient = torch.tensor([1.0, 2, 30, 40]).reshape(1, 4, 1, 1)
    assert double.backward(gradient).flatten().tolist() == [31, 42]


def test_lenet_by_hand_takes_the_same_steps_as_lenet_in_pytorch(digits):
    x, y = enlarge(digits[0][:32], 2).double(), digits[1][:32]
    ours = lenet(16, generator=dice()).to(torch.float64)
    theirs = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(64, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    ).double()  # fmt: skip
    for copy, parameter in zip(theirs.parameters(), ours.parameters(), strict=True):
        copy.data = parameter.clone()
    loss, optimizer = SoftmaxCrossEntropy(), SGD(ours.parameters(), 0.1, momentum=0.9)
    judge = torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9)
    for _ in range(20):
        loss(ours(x), y)
        ours.backward(loss.backward())
        optimizer.step()
        optimizer.zero_grad()
        nn.functional.cross_entropy(theirs(x), y).backward()
        judge.step()
        judge.zero_grad()
    for copy, parameter in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(parameter, copy.detach(), rtol=1e-9, atol=1e-12)
