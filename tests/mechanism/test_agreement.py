"""The gradient of every layer and network, computed in four ways in float64.

1. numerically, by central differences;
2. by hand, with the `backward` of each layer;
3. by our autograd: the same forward on `Variable`s;
4. by torch.autograd: the same forward on tensors that require a gradient.

A fifth is independent of our code: torch.nn's layers with the same weights, whose outputs must agree too. Errors are
below 1e-6 against the numerical gradient and below 1e-10 among the others; a failure prints all of them.

    python -m pytest tests/mechanism/test_agreement.py
    PYTHONPATH=. python tests/mechanism/test_agreement.py     (the table of what was reached)
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from kit.mechanism.autograd import Variable
from kit.mechanism.convolution import AvgPool2d, Conv2d, ConvTranspose2d, GlobalAvgPool, MaxPool2d
from kit.mechanism.layers import (
    BatchNorm,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MeanSquaredError,
    ReLU,
    Sequential,
    Sigmoid,
    SoftmaxCrossEntropy,
    Tanh,
)
from kit.mechanism.networks import (
    Concat,
    Residual,
    alexnet,
    fully_convolutional,
    googlenet,
    inception,
    lenet,
    mlp,
    resnet,
    vgg,
)
from kit.mechanism.segmentation import FCN, PixelCrossEntropy

STEP, CLOSE_TO_NUMERICAL, CLOSE = 1e-6, 1e-6, 1e-10
Gradients = list[Tensor]


class Loss(Layer):
    """A loss as the last layer, so that it is tested like the others: (n, classes) -> a scalar."""

    def __init__(self, loss, target: Tensor, judge: Callable):
        self.loss, self.target, self.judge = loss, target, judge

    def forward(self, x):
        return self.loss(x, self.target)

    def backward(self, grad: Tensor) -> Tensor:
        return grad * self.loss.backward()


class Case(NamedTuple):
    """What is tested, the shape of its input, and how many elements of each are tried numerically (None: all)."""

    build: Callable[[], Layer]
    shape: tuple[int, ...]
    tried: int | None = None


LABELS = torch.tensor([1, 0, 3])
PIXELS = torch.tensor([[[0, 1, 2], [3, 3, 3]], [[1, 1, 0], [2, 0, 1]]])
SOFT = torch.tensor([[0.1, 0.2, 0.3, 0.4], [1, 0, 0, 0], [0.5, 0.5, 0, 0]], dtype=torch.float64)

LAYERS = {
    "Linear": Case(lambda: Linear(5, 4), (3, 5)),
    "ReLU": Case(lambda: ReLU(), (3, 4)),
    "Sigmoid": Case(lambda: Sigmoid(), (3, 4)),
    "Tanh": Case(lambda: Tanh(), (3, 4)),
    "Flatten": Case(lambda: Flatten(), (3, 2, 2, 2)),
    "Dropout, training": Case(lambda: Dropout(0.4), (6, 5)),
    "Dropout, predicting": Case(lambda: Dropout(0.4).eval(), (6, 5)),
    "BatchNorm of features": Case(lambda: BatchNorm(3), (6, 3)),
    "BatchNorm of images": Case(lambda: BatchNorm(3), (2, 3, 3, 2)),
    "BatchNorm, predicting": Case(lambda: BatchNorm(3).eval(), (2, 3, 3, 2)),
    "Conv2d 3x3": Case(lambda: Conv2d(3, 4, 3), (2, 3, 5, 6)),
    "Conv2d 3x3, stride 2, padding 1": Case(lambda: Conv2d(2, 3, 3, 2, 1), (2, 2, 6, 5)),
    "Conv2d 5x5, padding 2": Case(lambda: Conv2d(1, 2, 5, 1, 2), (2, 1, 4, 4)),
    "Conv2d 1x1, no bias": Case(lambda: Conv2d(3, 2, 1, bias=False), (2, 3, 4, 4)),
    "Conv2d 2x2, stride 3": Case(lambda: Conv2d(2, 2, 2, 3), (1, 2, 7, 6)),
    "ConvTranspose2d 3x3": Case(lambda: ConvTranspose2d(2, 3, 3), (2, 2, 3, 4)),
    "ConvTranspose2d 4x4, stride 2, padding 1": Case(lambda: ConvTranspose2d(3, 2, 4, 2, 1), (2, 3, 3, 2)),
    "ConvTranspose2d 2x2, stride 3": Case(lambda: ConvTranspose2d(1, 2, 2, 3), (2, 1, 2, 3)),
    "MaxPool2d 2": Case(lambda: MaxPool2d(2), (2, 2, 4, 5)),
    "MaxPool2d 3, stride 2": Case(lambda: MaxPool2d(3, 2), (2, 2, 7, 6)),
    "MaxPool2d 3, stride 1, padding 1": Case(lambda: MaxPool2d(3, 1, 1), (2, 2, 4, 4)),
    "AvgPool2d 2": Case(lambda: AvgPool2d(2), (2, 2, 4, 5)),
    "AvgPool2d 3, stride 2, padding 1": Case(lambda: AvgPool2d(3, 2, 1), (2, 2, 6, 5)),
    "GlobalAvgPool": Case(lambda: GlobalAvgPool(), (2, 3, 3, 4)),
    "Sequential": Case(lambda: Sequential(Linear(4, 5), Tanh(), Linear(5, 2)), (3, 4)),
    "Concat": Case(lambda: Concat(Conv2d(2, 3, 1), Conv2d(2, 1, 3, 1, 1)), (2, 2, 4, 4)),
    "Residual": Case(lambda: Residual(2, 2), (2, 2, 4, 4)),
    "Residual, smaller and wider": Case(lambda: Residual(2, 3, 2), (2, 2, 5, 4)),
    "Inception": Case(lambda: inception(3, 2), (2, 3, 4, 4)),
    "SoftmaxCrossEntropy": Case(lambda: Loss(SoftmaxCrossEntropy(), LABELS, nn.functional.cross_entropy), (3, 4)),
    "SoftmaxCrossEntropy, soft labels": Case(
        lambda: Loss(SoftmaxCrossEntropy(), SOFT, nn.functional.cross_entropy), (3, 4)
    ),
    "PixelCrossEntropy": Case(lambda: Loss(PixelCrossEntropy(), PIXELS, nn.functional.cross_entropy), (2, 4, 2, 3)),
    "MeanSquaredError": Case(lambda: Loss(MeanSquaredError(), SOFT, nn.functional.mse_loss), (3, 4)),
}

NETWORKS = {
    "MLP": Case(lambda: mlp(16, 8, 6, 4), (3, 1, 4, 4), 20),
    "MLP and its loss": Case(
        lambda: Sequential(mlp(9, 8, 4), Loss(SoftmaxCrossEntropy(), LABELS, nn.functional.cross_entropy)),
        (3, 1, 3, 3),
        20,
    ),
    "LeNet": Case(lambda: lenet(16), (2, 1, 16, 16), 20),
    "LeNet, sigmoid": Case(lambda: lenet(12, activation=Sigmoid), (2, 1, 12, 12), 20),
    "AlexNet": Case(lambda: alexnet(16, width=3), (2, 1, 16, 16), 20),
    "VGG": Case(lambda: vgg(8, 2, 4, ((1, 3), (2, 4))), (2, 2, 8, 8), 20),
    "GoogLeNet": Case(lambda: googlenet(1, 4, 2), (2, 1, 8, 8), 20),
    "ResNet": Case(lambda: resnet(1, 4, (3, 4, 5), 2), (3, 1, 8, 8), 20),
    "fully convolutional": Case(lambda: fully_convolutional(2, 4, 3), (2, 2, 7, 10), 20),
    "FCN": Case(lambda: FCN(4, 3), (2, 3, 8, 12), 20),
    "FCN, no skip": Case(lambda: FCN(4, 3, skip=False), (2, 3, 8, 8), 20),
}


class Trial:
    """One layer with its input, and every way to compute the gradients of sum(output * weights): of x, then parameters.

    Every forward pass starts from the same seed, so that dropout drops the same units each time.
    """

    def __init__(self, case: Case, seed: int = 1):
        torch.manual_seed(seed)
        self.layer = case.build().to(torch.float64)
        self.x = apart(case.shape)
        for parameter in self.layer.parameters():  # a bias of 0 would put empty windows at the kink of ReLU
            parameter += 0.1 * torch.randn(parameter.shape, dtype=torch.float64)
        for layer in self.layer.modules():
            if isinstance(layer, BatchNorm):
                layer.running_mean, layer.running_var = layer.running_mean + 0.3, layer.running_var * 1.7
        self.seed, self.tried = seed, case.tried
        self.output = self.forward(self.x)
        self.weights = torch.randn(self.output.shape, dtype=torch.float64)

    @property
    def tensors(self) -> Gradients:
        return [self.x, *self.layer.parameters()]

    def forward(self, x, layer=None):
        torch.manual_seed(self.seed)
        return (layer or self.layer)(x)

    def loss(self, output):
        return (output * self.weights).sum()

    def places(self) -> list[Tensor]:
        """Which elements of each tensor, flattened, are tried numerically."""
        orders = [torch.randperm(tensor.numel()) for tensor in self.tensors]
        return [order[: self.tried] for order in orders]

    def numerical(self, places: list[Tensor]) -> Gradients:
        return [
            torch.stack([self.slope(tensor.view(-1), i) for i in chosen.tolist()])
            for tensor, chosen in zip(self.tensors, places, strict=True)
        ]

    def slope(self, flat: Tensor, i: int) -> Tensor:
        value, moved = flat[i].item(), []
        for step in (STEP, -STEP):
            flat[i] = value + step
            moved.append(self.loss(self.forward(self.x)))
        flat[i] = value
        return (moved[0] - moved[1]) / (2 * STEP)

    def by_hand(self) -> Gradients:
        self.forget()
        self.forward(self.x)
        return [self.layer.backward(self.weights), *(p.grad for p in self.layer.parameters())]

    def own_autograd(self) -> Gradients:
        self.forget()
        self.loss(self.forward(Variable(self.x))).backward()
        return [tensor.grad for tensor in self.tensors]

    def torch_autograd(self, layer=None) -> Gradients:
        self.forget()
        for tensor in self.tensors:
            tensor.requires_grad_(True)
        try:
            learned = list(layer.parameters()) if layer else self.layer.parameters()
            return list(torch.autograd.grad(self.loss(self.forward(self.x, layer)), [self.x, *learned]))
        finally:
            for tensor in self.tensors:
                tensor.requires_grad_(False)

    def forget(self) -> None:
        for tensor in self.tensors:
            tensor.grad = None


def apart(shape: tuple[int, ...]) -> Tensor:
    """Numbers from -2 to 2 in a random order, none close to another or to 0, where max and ReLU have kinks."""
    count = torch.Size(shape).numel()
    order = torch.randperm(count, dtype=torch.float64)
    return (4 * (order + 0.25) / count - 2).reshape(shape)


class JudgedResidual(nn.Module):
    def __init__(self, layer: Residual):
        super().__init__()
        self.body, self.shortcut = judge(layer.body), judge(layer.shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.body(x) + self.shortcut(x))


class JudgedConcat(nn.Module):
    def __init__(self, layer: Concat):
        super().__init__()
        self.branches = nn.ModuleList(judge(branch) for branch in layer.branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class JudgedFCN(nn.Module):
    def __init__(self, layer: FCN):
        super().__init__()
        for name in ("half", "quarter", "double", "skip", "whole"):  # in the order of the parameters
            part = getattr(layer, name)
            setattr(self, f"{name}_", judge(part) if part else None)

    def forward(self, x: Tensor) -> Tensor:
        features = self.half_(x)
        scores = self.double_(self.quarter_(features))
        return self.whole_(scores if self.skip_ is None else scores + self.skip_(features))


class Called(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def batch_norm(layer: BatchNorm) -> nn.Module:
    norm = (nn.BatchNorm1d if len(layer.dims) == 1 else nn.BatchNorm2d)(len(layer.weight))
    norm.running_mean, norm.running_var = layer.running_mean.clone(), layer.running_var.clone()
    return norm.train(layer.training)


def judge(layer: Layer) -> nn.Module:
    """The same in torch.nn, with the same weights. Only the random mask of dropout is taken from ours."""
    bare = {
        Sequential: lambda: nn.Sequential(*(judge(child) for child in layer.layers)),
        Linear: lambda: nn.Linear(layer.weight.shape[1], layer.weight.shape[0]),
        Conv2d: lambda: nn.Conv2d(
            layer.weight.shape[1], layer.weight.shape[0], *layer.window, bias=layer.bias is not None
        ),
        ConvTranspose2d: lambda: nn.ConvTranspose2d(*layer.weight.shape[:2], *layer.window),
        BatchNorm: lambda: batch_norm(layer),
        ReLU: nn.ReLU,
        Sigmoid: nn.Sigmoid,
        Tanh: nn.Tanh,
        Flatten: nn.Flatten,
        MaxPool2d: lambda: nn.MaxPool2d(*layer.window),
        AvgPool2d: lambda: nn.AvgPool2d(*layer.window),
        GlobalAvgPool: lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        Dropout: lambda: Called(lambda x: x * layer.mask),
        Residual: lambda: JudgedResidual(layer),
        Concat: lambda: JudgedConcat(layer),
        FCN: lambda: JudgedFCN(layer),
        Loss: lambda: Called(lambda x: layer.judge(x, layer.target)),
    }
    module = bare[type(layer)]().double()
    for name in layer.parameter_names:
        getattr(module, name).data = getattr(layer, name).detach().clone()
    return module


class Agreement(NamedTuple):
    """The largest relative error of the three against the numerical one, among each other, and of torch.nn's."""

    numerical: float
    others: float
    judge: float
    output: float


def relative_error(a: Tensor, b: Tensor, scale: Tensor) -> float:
    """The largest difference, as a share of the largest gradient of the tensor."""
    return ((a - b).abs().max() / scale.abs().max().clamp(min=1e-30)).item()


def agreement(trial: Trial) -> Agreement:
    """Compute the gradient in all ways; raise AssertionError with all values where two disagree."""
    module = judge(trial.layer)
    places = trial.places()
    ways = {"by hand": trial.by_hand(), "own autograd": trial.own_autograd(), "torch.autograd": trial.torch_autograd()}
    ways["torch.nn"] = trial.torch_autograd(module)
    numerical = trial.numerical(places)
    worst = dict.fromkeys(("numerical", *ways), 0.0)
    for i, chosen in enumerate(places):
        scale = ways["torch.autograd"][i]
        picked = {"numerical": numerical[i]} | {way: found[i].reshape(-1)[chosen] for way, found in ways.items()}
        errors = {way: relative_error(found[i], scale, scale) for way, found in ways.items()}
        errors["numerical"] = max(relative_error(picked[way], numerical[i], scale) for way in ways)
        assert all(error < (CLOSE_TO_NUMERICAL if way == "numerical" else CLOSE) for way, error in errors.items()), (
            table(i, trial.tensors[i], chosen, picked, errors)
        )
        worst = {way: max(worst[way], error) for way, error in errors.items()}
    expected = trial.forward(trial.x, module)
    output = relative_error(trial.forward(trial.x), expected, expected)
    assert output < CLOSE, f"output {trial.output}, torch.nn's {expected}"
    return Agreement(worst["numerical"], max(worst["by hand"], worst["own autograd"]), worst["torch.nn"], output)


def table(i: int, tensor: Tensor, places: Tensor, picked: dict[str, Tensor], errors: dict[str, float]) -> str:
    """The gradients of all ways at the element where they differ most, and the error of each."""
    values = torch.stack(list(picked.values()))
    worst = int((values.amax(0) - values.amin(0)).argmax())
    name = "x" if i == 0 else f"parameter {i - 1}"
    rows = [f"{way:>15} {value[worst]:+.15e}  largest error {errors[way]:.1e}" for way, value in picked.items()]
    where = f"element {places[worst].item()} of the flattened tensor:"
    return "\n".join([f"gradients of {name}, shape {tuple(tensor.shape)}, {where}", *rows])


@pytest.mark.parametrize("name", LAYERS)
def test_four_ways_to_the_gradient_of_a_layer_agree(name):
    agreement(Trial(LAYERS[name]))


@pytest.mark.parametrize("name", NETWORKS)
def test_four_ways_to_the_gradient_of_a_network_agree(name):
    agreement(Trial(NETWORKS[name]))


def test_every_parameter_of_every_network_gets_a_gradient_that_is_not_zero():
    for case in NETWORKS.values():
        assert all(gradient.abs().max() > 1e-6 for gradient in Trial(case).by_hand())


class WrongTanh(Tanh):
    """Its backward forgets that y is squared."""

    def backward(self, grad: Tensor) -> Tensor:
        return grad * (1 - self.y)


def test_a_wrong_backward_is_caught_and_all_gradients_are_printed(monkeypatch):
    monkeypatch.setitem(globals(), "judge", lambda layer: nn.Tanh())
    with pytest.raises(AssertionError) as caught:
        agreement(Trial(Case(lambda: WrongTanh(), (3, 4))))
    text = str(caught.value)
    assert "gradients of x, shape (3, 4), element" in text
    for way in ("numerical", "by hand", "own autograd", "torch.autograd", "torch.nn"):
        assert f"{way} +" in text or f"{way} -" in text


if __name__ == "__main__":
    print(f"{'largest relative error':<34} numerical  3 others  torch.nn   outputs")
    for name, case in (LAYERS | NETWORKS).items():
        reached = agreement(Trial(case))
        print(f"{name:<34} " + "   ".join(f"{error:.1e}" for error in reached))
