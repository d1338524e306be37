"""Networks: the main idea of each, and that each learns digits. Gradients: test_agreement.py."""

import copy

import pytest
import torch
from torch import Tensor, nn

from kit.mechanism.autograd import Variable
from kit.mechanism.batches import load_digits
from kit.mechanism.convolution import AvgPool2d, Conv2d, GlobalAvgPool, MaxPool2d, Pool2d
from kit.mechanism.layers import BatchNorm, Dropout, Layer, Linear, ReLU, Sequential, Sigmoid, SoftmaxCrossEntropy, Tanh
from kit.mechanism.networks import (
    Concat,
    Residual,
    alexnet,
    count_parameters,
    feature_maps,
    fully_convolutional,
    googlenet,
    inception,
    lenet,
    mlp,
    receptive_field,
    resnet,
    train_on_digits,
    vgg,
)
from kit.mechanism.optimizers import SGD, Adam


def enlarge(x: Tensor, factor: int) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=factor)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


NETWORKS = {
    "MLP": (lambda: mlp(64, 32, 10), 8),
    "LeNet": (lambda: lenet(16), 16),
    "AlexNet": (lambda: alexnet(16), 16),
    "VGG": (lambda: vgg(8), 8),
    "GoogLeNet": (lambda: googlenet(), 8),
    "ResNet": (lambda: resnet(), 8),
    "fully convolutional": (lambda: fully_convolutional(), 8),
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
def test_every_network_learns_digits_by_its_own_backward(name, digits):
    (build, size), (x, y) = NETWORKS[name], digits
    network, x = build(), enlarge(x, size // 8)
    assert network(x).shape == (128, 10)
    losses = train(network, x, y, 25)
    assert sum(losses[-3:]) / 3 < 0.8 * losses[0], losses


@pytest.mark.parametrize("name", ["LeNet", "ResNet"])
def test_a_network_learns_the_same_on_our_own_autograd(name, digits):
    (build, size), (x, y) = NETWORKS[name], digits
    x = enlarge(x[:16], size // 8).double()
    start = build().to(torch.float64)
    by_hand = train(copy.deepcopy(start), x, y[:16], 4)
    by_graph = train(start, x, y[:16], 4, own_autograd=True)
    assert by_hand == pytest.approx(by_graph, rel=1e-9)


STRUCTURE = {
    mlp(64, 32, 10): "flat linear:32 relu linear:10",
    lenet(): "conv5/1p2:6 tanh avg2/2p0 conv5/1p0:16 tanh avg2/2p0 flat linear:120 tanh linear:84 tanh linear:10",
    alexnet(): "conv3/1p1:16 relu max3/2p0 conv3/1p1:32 relu max3/2p0 conv3/1p1:48 relu conv3/1p1:48 relu conv3/1p1:32 "
    "relu max3/2p0 flat dropout:0.5 linear:64 relu dropout:0.5 linear:64 relu linear:10",
    vgg(): "conv3/1p1:16 relu max2/2p0 conv3/1p1:32 relu conv3/1p1:32 relu max2/2p0 conv3/1p1:64 relu conv3/1p1:64 "
    "relu max2/2p0 flat linear:64 relu dropout:0.5 linear:10",
    googlenet(): "conv3/1p1:16 relu (conv1/1p0:8 relu | conv1/1p0:8 relu conv3/1p1:16 relu | conv1/1p0:8 relu "
    "conv5/1p2:8 relu | max3/1p1 conv1/1p0:8 relu) max2/2p0 (conv1/1p0:16 relu | conv1/1p0:16 relu conv3/1p1:32 relu | "
    "conv1/1p0:16 relu conv5/1p2:16 relu | max3/1p1 conv1/1p0:16 relu) avg dropout:0.4 linear:10",
    resnet(): "conv3/1p1:16- bn relu [conv3/1p1:16- bn relu conv3/1p1:16- bn + x] relu [conv3/2p1:32- bn relu "
    "conv3/1p1:32- bn + conv1/2p0:32- bn] relu [conv3/2p1:64- bn relu conv3/1p1:64- bn + conv1/2p0:64- bn] relu avg "
    "linear:10",
    fully_convolutional(): "conv3/1p1:16 relu conv3/2p1:32 relu conv3/1p1:32 relu conv1/1p0:10 avg",
}
"""What each network consists of: conv kernel/stride p padding : channels, - without bias; (a | b) branches; [a + b]."""


def structure(layer: Layer) -> str:
    kind = type(layer).__name__
    match layer:
        case Sequential():
            return " ".join(filter(None, map(structure, layer.layers)))
        case Concat():
            return "(" + " | ".join(map(structure, layer.branches)) + ")"
        case Residual():
            return f"[{structure(layer.body)} + {structure(layer.shortcut) or 'x'}] {structure(layer.relu)}"
        case Conv2d():
            kernel_size, stride, padding = layer.window
            return f"conv{kernel_size}/{stride}p{padding}:{len(layer.weight)}{'-' if layer.bias is None else ''}"
        case Pool2d():
            return f"{kind[:3].lower()}{layer.window[0]}/{layer.window[1]}p{layer.window[2]}"
        case Linear():
            return f"linear:{len(layer.weight)}"
        case Dropout():
            return f"dropout:{layer.p}"
    return {"BatchNorm": "bn", "ReLU": "relu", "Tanh": "tanh", "GlobalAvgPool": "avg", "Flatten": "flat"}[kind]


@pytest.mark.parametrize("network", STRUCTURE, ids=[text[:20] for text in STRUCTURE.values()])
def test_a_network_consists_of_these_layers(network):
    assert structure(network) == STRUCTURE[network]


def test_lenet_has_as_many_parameters_as_lecun_s():
    assert count_parameters(lenet(28)) == count_parameters(lenet(28, activation=Sigmoid)) == 61706
    sizes = [tuple(p.shape) for p in lenet(28).parameters() if p.ndim > 1]
    assert sizes == [(6, 1, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]


def test_lenet_has_tanh_and_average_pools_and_alexnet_relu_max_pools_and_dropout():
    assert {Tanh, AvgPool2d} <= set(kinds(lenet())) and ReLU not in kinds(lenet())
    assert {ReLU, MaxPool2d, Dropout} <= set(kinds(alexnet()))
    assert kinds(alexnet()).count(Conv2d) == 5 and kinds(alexnet()).count(Linear) == 3


def test_vgg_has_3x3_filters_only_and_more_channels_after_each_pool():
    convolutions = [layer for layer in vgg().modules() if isinstance(layer, Conv2d)]
    assert {layer.weight.shape[2:] for layer in convolutions} == {(3, 3)}
    assert [layer.weight.shape[0] for layer in convolutions] == [16, 32, 32, 64, 64]
    assert kinds(vgg()).count(MaxPool2d) == 3


def test_two_3x3_have_the_receptive_field_of_one_5x5_with_fewer_weights():
    assert receptive_field([3, 3]) == (5, 18) and receptive_field([5]) == (5, 25)
    assert receptive_field([3, 3, 3], 64) == (7, 27 * 64 * 64) and receptive_field([7], 64) == (7, 49 * 64 * 64)
    two = Sequential(Conv2d(8, 8, 3, bias=False), Conv2d(8, 8, 3, bias=False))
    assert count_parameters(two) == receptive_field([3, 3], 8)[1]
    assert two(torch.rand(1, 8, 5, 5)).shape == (1, 8, 1, 1)  # 5x5 pixels, one answer


def test_an_inception_block_concatenates_four_branches():
    block, x = inception(6, 4), torch.rand(2, 6, 5, 7)
    assert block(x).shape == (2, 20, 5, 7)
    views = [branch(x) for branch in block.branches]
    assert [view.shape[1] for view in views] == [4, 8, 4, 4]
    assert torch.equal(block(x), torch.cat(views, 1))


def test_a_1x1_before_a_5x5_reduces_the_parameters():
    direct = Conv2d(64, 32, 5)
    through = Sequential(Conv2d(64, 8, 1), Conv2d(8, 32, 5))
    assert count_parameters(direct) == 51232 and count_parameters(through) == 6952


def test_googlenet_ends_in_a_global_average_and_one_linear_layer():
    assert kinds(googlenet()).count(Linear) == 1 and GlobalAvgPool in kinds(googlenet())


def test_a_residual_block_whose_body_outputs_zero_is_the_identity():
    block, x = Residual(4, 4), torch.rand(2, 4, 3, 3)
    block.body.layers[-1].weight.zero_()
    assert torch.equal(block(x), x)
    gradient = torch.rand(2, 4, 3, 3)
    torch.testing.assert_close(block.backward(gradient), gradient)  # through the shortcut


def test_the_shortcut_is_a_1x1_convolution_only_where_the_shape_changes():
    assert Residual(4, 4).shortcut.layers == []
    for block, shape in [(Residual(4, 6), (2, 6, 5, 5)), (Residual(4, 4, stride=2), (2, 4, 3, 3))]:
        assert block.shortcut.layers[0].weight.shape[2:] == (1, 1)
        assert block(torch.rand(2, 4, 5, 5)).shape == shape


def test_shortcuts_carry_the_gradient_through_twelve_blocks_that_output_zero():
    blocks, x, gradient = [Residual(4, 4) for _ in range(12)], torch.rand(2, 4, 6, 6), torch.rand(2, 4, 6, 6)
    for block in blocks:
        block.body.layers[-1].weight.zero_()
    deep, plain = Sequential(*blocks), Sequential(*(block.body for block in blocks))
    deep(x)
    torch.testing.assert_close(deep.backward(gradient), gradient)
    plain(x)
    assert plain.backward(gradient).abs().max() == 0


def test_each_stage_of_resnet_halves_the_image_and_has_more_channels():
    network = resnet(widths=(16, 32, 64), blocks=2)
    assert kinds(network).count(Residual) == 6 and BatchNorm in kinds(network)
    shapes = [tuple(feature_maps(network, torch.rand(1, 1, 8, 8), depth).shape[1:]) for depth in range(3, 10)]
    assert shapes == [(16, 8, 8), (16, 8, 8), (16, 8, 8), (32, 4, 4), (32, 4, 4), (64, 2, 2), (64, 2, 2)]


def test_a_fully_convolutional_network_takes_any_size_and_can_classify_every_position():
    network = fully_convolutional()
    assert Linear not in kinds(network)
    for h, w in [(8, 8), (5, 31), (64, 40)]:
        assert network(torch.rand(2, 1, h, w)).shape == (2, 10)
    places = feature_maps(network, torch.rand(2, 1, 9, 16), len(network.layers) - 1)
    assert places.shape == (2, 10, 5, 8)
    with pytest.raises(ValueError, match=r"Linear expects \(n, 64\), got \(2, 128\)"):
        mlp(64, 10)(torch.rand(2, 1, 8, 16))


def test_a_network_trained_on_small_images_locates_objects_in_a_larger_one():
    x = torch.zeros(64, 1, 8, 8)
    for image, (top, left) in zip(x, torch.randint(0, 6, (64, 2)).tolist(), strict=True):
        image[0, top : top + 3, left] = 1  # a bar that stands
    y = torch.arange(64) % 2
    x[y == 1] = x[y == 1].mT  # and one that lies
    network = fully_convolutional(classes=2, width=4)
    train(network, x, y, 100)
    both = torch.zeros(1, 1, 8, 24)  # one stands on the left, one lies on the right
    both[0, 0, 2:5, 4] = both[0, 0, 3, 18:21] = 1
    stands, lies = feature_maps(network, both, len(network.layers) - 1)[0]
    strongest = [score.amax(0).argmax().item() for score in (stands - lies, lies - stands)]
    assert strongest[0] in (1, 2, 3) and strongest[1] in (8, 9, 10)  # columns of the map, half as many as of the image


def test_the_accuracy_on_the_digits_is_that_of_the_trained_network_on_the_images_that_are_returned():
    network, digits = mlp(16 * 16, 16, 10), load_digits()
    images, accuracy = train_on_digits(network, scale=2)
    labels = {image.numpy().tobytes(): label for image, label in zip(digits.x, digits.y, strict=True)}
    true = torch.stack([labels[image.contiguous().numpy().tobytes()] for image in images[:, :, ::2, ::2]])
    assert torch.equal(images, enlarge(images[:, :, ::2, ::2], 2))
    assert len(images) == len(digits) // 5
    right = network.eval()(images).argmax(1) == true
    assert 0.7 < accuracy == pytest.approx(right.double().mean().item())


def test_feature_maps_are_the_outputs_of_the_first_layers():
    network, x = lenet(16), torch.rand(3, 1, 16, 16)
    assert torch.equal(feature_maps(network, x, 2), network.layers[0](x).tanh())


def test_feature_maps_does_not_change_the_network():
    network, x = resnet(), torch.rand(4, 1, 8, 8)
    before = network.layers[1].running_mean.clone()
    feature_maps(network, x, 5)
    assert torch.equal(network.layers[1].running_mean, before) and network.training
    assert all(layer.training for layer in network.modules())


def test_an_image_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="a window of 5 pixels does not fit on 4 with padding 0; use a larger image"):
        lenet(8)
    with pytest.raises(ValueError, match=r"mlp\(64,\): expected the number of inputs"):
        mlp(64)


def test_concat_splits_the_gradient_and_adds_the_input_gradients():
    double = Concat(Sequential(), Sequential())
    assert double(torch.ones(1, 2, 1, 1)).shape == (1, 4, 1, 1)
    gradient = torch.tensor([1.0, 2, 30, 40]).reshape(1, 4, 1, 1)
    assert double.backward(gradient).flatten().tolist() == [31, 42]


def test_lenet_by_hand_takes_the_same_steps_as_lenet_in_pytorch(digits):
    x, y = enlarge(digits[0][:32], 2).double(), digits[1][:32]
    ours = lenet(16).to(torch.float64)
    theirs = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(64, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    ).double()  # fmt: skip
    for theirs_, parameter in zip(theirs.parameters(), ours.parameters(), strict=True):
        theirs_.data = parameter.clone()
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
    for theirs_, parameter in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(parameter, theirs_.detach(), rtol=1e-9, atol=1e-12)
