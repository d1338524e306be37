"""Linear probe: features are computed once, a head on them is a logistic regression, and fine-tuning can spoil them.

A frozen body gives every image the same features in every epoch, so they are computed once. A linear head on them has
a convex loss: gradient descent reaches its only minimum in a fraction of a second, without a learning rate to choose.
Training all layers afterwards can do better, or worse. From a random head at a high rate, the first gradients are
large and wrong, and pull the features towards whatever tells the few training images apart; batch norms in training
mode replace the statistics of many images by those of a few. From the probe's head, at a low rate and with batch norms
in evaluation mode, the features hardly move. `three_ways` measures it.

Sources: G. Alain and Y. Bengio, Understanding intermediate layers using linear classifier probes, 2016; A. Kumar et
al., Fine-tuning can distort pretrained features and underperform out-of-distribution, ICLR 2022; Y. Nesterov, 1983.
Layers and their gradients are swapped for PyTorch's; the logistic regression is made by hand.

    python -m kit.mechanism.linear_probe
"""

import argparse
import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kit.mechanism.batches import DataLoader, Dataset
from kit.mechanism.loop import by_autograd, train_epoch
from kit.mechanism.losses import one_hot
from kit.mechanism.optimizers import SGD
from kit.mechanism.tensors import append_ones
from kit.mechanism.transfer import Norm


@torch.no_grad()
def compute_features(body: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """What the body makes of each image in evaluation mode: (n, f), float32. Every module gets its mode back."""
    modes = {module: module.training for module in body.modules()}
    body.eval()
    try:
        return torch.cat([body(batch).flatten(1).float() for batch in images.split(batch_size)])
    finally:
        for module, training in modes.items():
            module.training = training


def logistic_gradient(weight: Tensor, x: Tensor, target: Tensor, l2: float) -> Tensor:
    """The gradient of cross entropy + l2 / 2 * the sum of squared weights: (softmax - one-hot)^T x / n + l2 * weight.

    x: (n, f + 1), the last feature being 1, so that the last column of `weight` (classes, f + 1) is the bias, which
    is not penalised. target: one-hot, (n, classes).
    """
    excess = (x @ weight.T).softmax(1) - target
    gradient = excess.T @ x / len(x)
    gradient[:, :-1] += l2 * weight[:, :-1]
    return gradient


def safe_rate(x: Tensor, l2: float) -> float:
    """The rate at which gradient descent never climbs: 1 / L, L being the most that the gradient can change per length.

    The curvature of cross entropy in the logits is at most 1/2 (D. Böhning, 1992), hence in the weights at most half
    the largest eigenvalue of x^T x / n. The penalty adds l2.
    """
    largest = torch.linalg.matrix_norm(x, 2) ** 2 / len(x)
    return 1 / (largest.item() / 2 + l2)


def descend(x: Tensor, target: Tensor, l2: float, accelerate: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
    """Full-batch gradient descent from 0, without end: the weight and its gradient, before each step.

    accelerate: Nesterov's momentum, which grows with the steps and starts again from 0 whenever it points uphill
    (O'Donoghue and Candès, 2015). A narrow valley takes plain descent about kappa steps, kappa being its length
    divided by its width, squared; accelerated, about sqrt(kappa).
    """
    rate, weight, age = safe_rate(x, l2), x.new_zeros(target.shape[1], x.shape[1]), 0
    last = weight
    while True:
        gradient = logistic_gradient(weight, x, target, l2)
        yield weight, gradient
        landed = weight - rate * gradient
        uphill = (gradient * (landed - last)).sum() > 0
        age = 0 if uphill or not accelerate else age + 1
        weight, last = landed + age / (age + 3) * (landed - last), landed


def logistic_regression(
    x: Tensor, labels: Tensor, classes: int, l2: float = 1e-2, tolerance: float = 1e-6, steps: int = 20_000
) -> tuple[Tensor, Tensor]:
    """Weight (classes, f) and bias (classes,) at the minimum of mean cross entropy + l2 / 2 * sum of squared weights.

    Until no element of the gradient is above `tolerance`, in float64. scikit-learn multiplies the same loss by C * n:
    its C is 1 / (l2 * n) for three classes or more.
    """
    if not l2 > 0:
        raise ValueError(
            f"l2 is {l2}: it must be above 0; classes that a plane can separate have no minimum without it"
        )
    path = descend(append_ones(x.double()), one_hot(labels, classes).double(), l2)
    for _, (weight, gradient) in zip(range(steps), path, strict=False):
        if gradient.abs().max() <= tolerance:
            return weight[:, :-1].float(), weight[:, -1].float()
    raise ValueError(f"the gradient is still {gradient.abs().max():.1e} after {steps} steps; standardise x or raise l2")


def linear_probe(features: Tensor, labels: Tensor, classes: int, l2: float = 1e-2) -> nn.Linear:
    """The head that a logistic regression on standardised features gives, as a Linear for the features as they are.

    weight @ (x - mean) / std + bias is (weight / std) @ x + (bias - (weight / std) @ mean): nothing is left to do at
    prediction. Standardised, all features are penalised alike. A constant feature gets weight 0.
    """
    mean, std = features.mean(0), features.std(0, correction=0)
    std = torch.where(std > 1e-6, std, 1.0)
    weight, bias = logistic_regression((features - mean) / std, labels, classes, l2)
    head = nn.Linear(features.shape[1], classes)
    with torch.no_grad():
        head.weight.copy_(weight / std)
        head.bias.copy_(bias - head.weight @ mean)
    return head


def feature_drift(before: Tensor, after: Tensor) -> float:
    """How far the features of the same images have moved, as a share of their own length: 0 is not at all."""
    return ((after - before).norm() / before.norm()).item()


@dataclass(frozen=True)
class World:
    """Objects (k, pixels) that are photographed in front of backgrounds (m, pixels), with noise."""

    objects: Tensor
    backgrounds: Tensor
    noise: float = 0.8

    def photograph(self, objects: Tensor, backgrounds: Tensor) -> Tensor:
        """One image (pixels,) for each pair of numbers."""
        seen = self.objects[objects] + self.backgrounds[backgrounds]
        return seen + self.noise * torch.randn_like(seen)

    def anywhere(self, objects: Tensor) -> Tensor:
        """One image of each object in front of a background drawn at random."""
        return self.photograph(objects, torch.randint(len(self.backgrounds), objects.shape))


def train(network: nn.Module, data: Dataset, epochs: int, rate: float, batch_size: int, norms: bool = True) -> None:
    """SGD with momentum on all layers; norms: whether batch norms use and collect the statistics of each batch."""
    batches = DataLoader(data, batch_size, shuffle=True, drop_last=True, rng=random.Random(0))
    optimizer = SGD(network.parameters(), lr=rate, momentum=0.9)
    network.train()
    for module in network.modules():
        if isinstance(module, Norm):
            module.train(norms)
    for _ in range(epochs):
        train_epoch(network, batches, nn.CrossEntropyLoss(), optimizer, by_autograd)


KNOWN, NEW, PIXELS, FEATURES = 32, 5, 64, 64


def pretrain(world: World) -> nn.Sequential:
    """A body that has learned to tell `KNOWN` objects apart in front of any background."""
    sizes = ((PIXELS, 128), (128, FEATURES))
    layers = [[nn.Linear(i, o, bias=False), nn.BatchNorm1d(o), nn.ReLU()] for i, o in sizes]
    body = nn.Sequential(*layers[0], *layers[1])
    labels = torch.arange(3200) % KNOWN
    network = nn.Sequential(body, nn.Linear(FEATURES, KNOWN))
    train(network, Dataset(world.anywhere(labels), labels), epochs=4, rate=0.05, batch_size=64)
    return body


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers from this seed and one thread, restored on exit: for layers this small two threads only wait."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@dataclass(frozen=True)
class Outcome:
    """What one way of training gave.

    same: the share of wrong answers on new images in front of the backgrounds of training. error: in front of any
    background. features: those of the images in front of any, and drift: how far they moved.
    """

    same: float
    error: float
    drift: float
    features: Tensor


def judge(body: nn.Module, head: nn.Linear, before: Tensor, same: Tensor, test: Dataset) -> Outcome:
    """Errors and drift; before: the features of the test images before any training."""
    features, usual = compute_features(body, test.x), compute_features(body, same)
    with torch.no_grad():
        wrong = [(head(x).argmax(1) != test.y).float().mean().item() for x in (usual, features)]
    return Outcome(*wrong, feature_drift(before, features), features)


def three_ways(seed: int = 0, images: int = 8) -> tuple[Tensor, dict[str, Outcome]]:
    """The test labels, and the outcomes of "probe", "careless" and "careful" on five objects that are new to the body.

    Each new object has `images` training images, all in front of one background of its own. In the test it stands in
    front of any. The pretrained features ignore backgrounds. A network that comes to tell the objects apart by their
    backgrounds does well while they stay the same, as in a validation split, and fails the test.
    """
    with seeded(seed):
        world = World(torch.randn(KNOWN + NEW, PIXELS), 1.2 * torch.randn(8, PIXELS))
        body = pretrain(world)
        labels, asked = torch.arange(NEW * images) % NEW, torch.arange(500) % NEW
        data = Dataset(world.photograph(KNOWN + labels, labels), labels)
        same, test = world.photograph(KNOWN + asked, asked), Dataset(world.anywhere(KNOWN + asked), asked)
        before = compute_features(body, test.x)
        head = linear_probe(compute_features(body, data.x), labels, NEW)
        careless = nn.Sequential(copy.deepcopy(body), nn.Linear(FEATURES, NEW))
        train(careless, data, epochs=20, rate=0.1, batch_size=8)
        careful = nn.Sequential(copy.deepcopy(body), copy.deepcopy(head))
        train(careful, data, epochs=20, rate=1e-3, batch_size=8, norms=False)
        ways = {"probe": (body, head), "careless": careless, "careful": careful}
        return asked, {name: judge(*parts, before, same, test) for name, parts in ways.items()}


def main() -> None:
    """What the probe costs, then the three ways over three seeds; --out draws the features of the first."""
    parser = argparse.ArgumentParser(description="a linear probe, and careless and careful fine-tuning after it")
    parser.add_argument("--out", type=Path, help="a folder for the picture")
    out = parser.parse_args().out
    x, labels = torch.randn(60, 20, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    for accelerate, name in ((False, "plain"), (True, "accelerated")):
        path = descend(append_ones(x.double()), one_hot(labels, 3).double(), 1e-3, accelerate)
        with seeded(0):
            steps = next(step for step, (_, gradient) in enumerate(path) if gradient.abs().max() <= 1e-6)
        print(f"logistic regression, {name:<12} {steps:>5} steps to a gradient of 1e-6")
    results = {seed: three_ways(seed) for seed in range(3)}
    for seed, (_, ways) in results.items():
        for name, outcome in ways.items():
            errors = f"error {outcome.same:.3f} before the same backgrounds, {outcome.error:.3f} before any"
            print(f"seed {seed}, {name:<9} {errors}; drift {outcome.drift:.3f}")
    if out:
        from kit.mechanism.plots import draw_distortion

        labels, ways = results[0]
        named = {"probe": "before", "careless": "after careless training", "careful": "after careful training"}
        titles = {f"{named[key]}\nerror {way.error:.1%}, drift {way.drift:.2f}": way for key, way in ways.items()}
        figure = draw_distortion({title: way.features for title, way in titles.items()}, labels)
        figure.savefig(out / "linear_probe.png", dpi=120)
        print(out / "linear_probe.png")


if __name__ == "__main__":
    main()
