"""Linear probe: logistic regression on features computed once, and how fine-tuning can distort these features.

A frozen body gives the same features in every epoch, so they are computed once. The loss of a linear head on them is
convex, and gradient descent with a step size computed from the data finds its minimum in a fraction of a second.
Training all layers afterwards can be better or worse. From a random head with a high learning rate, the first gradients
are large and wrong and distort the features; batch norms in training mode replace the statistics of many images by
those of a few. From the probe's head, with a low learning rate and batch norms in evaluation mode, the features hardly
change. `compare_fine_tuning` measures this. Here `torch.nn` and autograd replace our own layers (hand-made pieces are
swapped for the library's); the logistic regression is written by hand. Run `python -m kit.mechanism.linear_probe`.

Sources: G. Alain and Y. Bengio, Understanding intermediate layers using linear classifier probes, 2016; A. Kumar et
al., Fine-tuning can distort pretrained features and underperform out-of-distribution, ICLR 2022.
"""

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kit.mechanism.activations import identity, sigmoid, softmax
from kit.mechanism.batches import DataLoader, Dataset
from kit.mechanism.loop import backward_by_autograd, train_epoch
from kit.mechanism.losses import one_hot
from kit.mechanism.optimizers import SGD
from kit.mechanism.tensors import append_ones
from kit.mechanism.transfer import Norm


@torch.no_grad()
def compute_features(body: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Return the features (n, f) of images (n, ...) in evaluation mode, float32; restores the mode of every module."""
    modes = {module: module.training for module in body.modules()}
    body.eval()
    try:
        return torch.cat([body(batch).flatten(1).float() for batch in images.split(batch_size)])
    finally:
        for module, training in modes.items():
            module.training = training


CURVATURE = {softmax: 1 / 2, sigmoid: 1 / 4, identity: 1.0}


def logistic_gradient(weight: Tensor, x: Tensor, target: Tensor, l2: float, activation: Callable = softmax) -> Tensor:
    """Gradient of the mean cross entropy + l2 / 2 * sum of squared weights: (softmax - target)^T x / n + l2 weight.

    x: (n, f + 1), whose last feature is 1, so the last column of weight (classes, f + 1) is the bias, which is not
    penalised. target: one-hot (n, classes). With `sigmoid` it is the gradient of a logistic regression for each class,
    with `identity` that of half the squared error: always (prediction - target)^T x / n.
    """
    error = activation(x @ weight.T) - target
    gradient = error.T @ x / len(x)
    gradient[:, :-1] += l2 * weight[:, :-1]
    return gradient


def step_size(x: Tensor, l2: float, activation: Callable = softmax) -> float:
    """Return the learning rate 1 / L with which gradient descent always decreases the loss; L bounds the curvature.

    The curvature of cross entropy with respect to the logits is at most 1/2 (D. Böhning, 1992), so with respect to the
    weights at most half the largest eigenvalue of x^T x / n; with sigmoids it is at most 1/4, for half the squared
    error 1. The penalty adds l2.
    """
    largest = torch.linalg.matrix_norm(x, 2) ** 2 / len(x)
    return 1 / (largest.item() * CURVATURE[activation] + l2)


def descend(
    x: Tensor, target: Tensor, l2: float, accelerate: bool = True, activation: Callable = softmax
) -> Iterator[tuple[Tensor, Tensor]]:
    """Full-batch gradient descent from 0, without end: yield the weight and its gradient before each step.

    activation: as in `logistic_gradient`.

    accelerate: Nesterov's momentum (1983), which grows with the number of steps and restarts from 0 whenever the last
    step went uphill (O'Donoghue and Candès, 2015). With condition number k (largest / smallest curvature), plain
    gradient descent takes about k steps, accelerated about sqrt(k).
    """
    lr, weight, age = step_size(x, l2, activation), x.new_zeros(target.shape[1], x.shape[1]), 0
    last = weight
    while True:
        gradient = logistic_gradient(weight, x, target, l2, activation)
        yield weight, gradient
        new = weight - lr * gradient
        uphill = (gradient * (new - last)).sum() > 0
        age = 0 if uphill or not accelerate else age + 1
        weight, last = new + age / (age + 3) * (new - last), new


def logistic_regression(
    x: Tensor, labels: Tensor, classes: int, l2: float = 1e-2, tolerance: float = 1e-6, steps: int = 20_000
) -> tuple[Tensor, Tensor]:
    """Return weight (classes, f) and bias (classes,) that minimise mean cross entropy + l2 / 2 * sum of weight^2.

    x: (n, f), labels: (n,). Computes in float64 until no element of the gradient is above `tolerance`; raises
    `ValueError` if `steps` are not enough. scikit-learn's C is 1 / (l2 * n) for three or more classes.
    """
    if not l2 > 0:
        raise ValueError(f"l2 is {l2}: it must be above 0; without it, separable classes have no minimum")
    path = descend(append_ones(x.double()), one_hot(labels, classes).double(), l2)
    for _, (weight, gradient) in zip(range(steps), path, strict=False):
        if gradient.abs().max() <= tolerance:
            return weight[:, :-1].float(), weight[:, -1].float()
    raise ValueError(f"the gradient is still {gradient.abs().max():.1e} after {steps} steps; standardise x or raise l2")


def linear_probe(features: Tensor, labels: Tensor, classes: int, l2: float = 1e-2) -> nn.Linear:
    """Fit a logistic regression on standardised features (n, f); return a Linear layer for the unscaled features.

    weight @ (x - mean) / std + bias = (weight / std) @ x + (bias - (weight / std) @ mean). On standardised features
    the penalty treats all features alike. A constant feature gets weight 0.
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
    """Return |after - before| / |before| for the features (n, f) of the same images: 0 if training changed nothing."""
    return ((after - before).norm() / before.norm()).item()


@dataclass(frozen=True)
class SyntheticImages:
    """Images that are the sum of an object (k, pixels), a background (m, pixels) and noise."""

    objects: Tensor
    backgrounds: Tensor
    noise: float = 0.8

    def sample(self, objects: Tensor, backgrounds: Tensor) -> Tensor:
        """Return one image for each pair of indices: (n, pixels)."""
        images = self.objects[objects] + self.backgrounds[backgrounds]
        return images + self.noise * torch.randn_like(images)

    def sample_any_background(self, objects: Tensor) -> Tensor:
        """Return one image of each object with a random background."""
        return self.sample(objects, torch.randint(len(self.backgrounds), objects.shape))


def train(network: nn.Module, data: Dataset, epochs: int, lr: float, batch_size: int, train_norms: bool = True) -> None:
    """Train all layers with SGD and momentum 0.9; train_norms: whether batch norms are in training mode."""
    batches = DataLoader(data, batch_size, shuffle=True, drop_last=True, rng=random.Random(0))
    optimizer = SGD(network.parameters(), lr=lr, momentum=0.9)
    network.train()
    for module in network.modules():
        if isinstance(module, Norm):
            module.train(train_norms)
    for _ in range(epochs):
        train_epoch(network, batches, nn.CrossEntropyLoss(), optimizer, backward_by_autograd)


PRETRAINED_CLASSES, NEW_CLASSES, PIXELS, FEATURES = 32, 5, 64, 64


def pretrain(images: SyntheticImages) -> nn.Sequential:
    """Return a body (pixels -> features) trained to classify the first objects with any background."""
    sizes = ((PIXELS, 128), (128, FEATURES))
    layers = [[nn.Linear(i, o, bias=False), nn.BatchNorm1d(o), nn.ReLU()] for i, o in sizes]
    body = nn.Sequential(*layers[0], *layers[1])
    labels = torch.arange(3200) % PRETRAINED_CLASSES
    network = nn.Sequential(body, nn.Linear(FEATURES, PRETRAINED_CLASSES))
    train(network, Dataset(images.sample_any_background(labels), labels), epochs=4, lr=0.05, batch_size=64)
    return body


@dataclass(frozen=True)
class Result:
    """Error rates on new images with the training backgrounds and with any background; features (n, f) of the latter.

    drift: how far these features are from those of the pretrained body (see `feature_drift`).
    """

    same_background_error: float
    error: float
    drift: float
    features: Tensor


def compare_fine_tuning(seed: int = 0, images: int = 8) -> tuple[Tensor, dict[str, Result]]:
    """Compare a linear probe, careless and careful fine-tuning on five new objects; return test labels and results.

    Each new object has `images` training images, all with the same background; in the test, any background. The
    pretrained features ignore the background. A network that learns to classify by the background has a low error on
    images with the training backgrounds (such as a validation split) and a high error in the test.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        world = SyntheticImages(torch.randn(PRETRAINED_CLASSES + NEW_CLASSES, PIXELS), 1.2 * torch.randn(8, PIXELS))
        body = pretrain(world)
        labels, test_labels = torch.arange(NEW_CLASSES * images) % NEW_CLASSES, torch.arange(500) % NEW_CLASSES
        data = Dataset(world.sample(PRETRAINED_CLASSES + labels, labels), labels)
        same = world.sample(PRETRAINED_CLASSES + test_labels, test_labels)
        test = world.sample_any_background(PRETRAINED_CLASSES + test_labels)
        before = compute_features(body, test)
        head = linear_probe(compute_features(body, data.x), labels, NEW_CLASSES)
        careless = nn.Sequential(copy.deepcopy(body), nn.Linear(FEATURES, NEW_CLASSES))
        train(careless, data, epochs=20, lr=0.1, batch_size=8)
        careful = nn.Sequential(copy.deepcopy(body), copy.deepcopy(head))
        train(careful, data, epochs=20, lr=1e-3, batch_size=8, train_norms=False)
    networks = {"linear probe": (body, head), "careless fine-tuning": careless, "careful fine-tuning": careful}
    results = {}
    for name, (body_after, head_after) in networks.items():
        after = compute_features(body_after, test)
        errors = [
            (head_after(features).argmax(1) != test_labels).float().mean().item()
            for features in (compute_features(body_after, same), after)
        ]
        results[name] = Result(*errors, feature_drift(before, after), after)
    return test_labels, results


def main() -> None:
    """Print the number of steps of plain and accelerated gradient descent, and the comparison for three seeds."""
    x, labels = torch.randn(60, 20, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    for accelerate, name in ((False, "plain"), (True, "accelerated")):
        path = descend(append_ones(x.double()), one_hot(labels, 3).double(), 1e-3, accelerate)
        steps = next(step for step, (_, gradient) in enumerate(path) if gradient.abs().max() <= 1e-6)
        print(f"logistic regression, {name} gradient descent: {steps} steps to a gradient of 1e-6")
    for seed in range(3):
        for name, result in compare_fine_tuning(seed)[1].items():
            errors = f"error {result.same_background_error:.3f} (same backgrounds), {result.error:.3f} (any)"
            print(f"seed {seed}, {name:<20} {errors}; drift {result.drift:.3f}")


if __name__ == "__main__":
    main()
