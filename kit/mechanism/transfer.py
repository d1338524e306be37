"""Transfer learning by hand: `fine_tune`, every step of it visible.

A network that has learned one thing is taught another. Its body (the convolutions, which know edges, textures and
parts) is kept, its head (which knew the old classes) is cut off and a new one put on. First the new head alone learns
while the body is frozen, lest a head that knows nothing spoil it; then everything learns, the lower the slower.

Here the hand-made pieces are swapped for PyTorch's: the network is made of `torch.nn` modules and the gradient is
autograd's. What the training does with them stays by hand, and is fastai's `fine_tune` in every bit
(`tests/mechanism/test_same_as_fastai.py`).

    python -m kit.mechanism.transfer
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from kit.mechanism.loop import Callback, Learner, Scheduled
from kit.mechanism.optimizers import Optimizer, momentum_of
from kit.mechanism.schedules import one_cycle

Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def cut(network: nn.Module) -> nn.Sequential:
    """The body of a torchvision ResNet: all but its last two parts, the pooling and the classifier."""
    parts = list(network.children())
    if len(parts) < 3 or not isinstance(parts[-1], nn.Linear):
        last = type(parts[-1]).__name__ if parts else "nothing"
        raise ValueError(f"cut expects a ResNet that ends in pooling and Linear, this network ends in {last}")
    return nn.Sequential(*parts[:-2])


class ConcatPool(nn.Module):
    """(n, c, h, w) -> (n, 2c, 1, 1): the maximum and the mean of every channel, whatever the image size."""

    def __init__(self):
        super().__init__()
        self.ap, self.mp = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """The maximum first."""
        return torch.cat([self.mp(x), self.ap(x)], 1)


def new_head(channels: int, classes: int) -> nn.Sequential:
    """(n, channels, h, w) -> (n, classes): pooling, then two linear layers with norm and dropout before each.

    Weights are drawn as He proposed (`initializers.he`), after PyTorch has drawn its own, and the norms begin with a
    shift of 0.001: from the same seed this is fastai's head in every bit.
    """
    head = nn.Sequential(
        *(ConcatPool(), nn.Flatten()),
        *(nn.BatchNorm1d(2 * channels), nn.Dropout(0.25), nn.Linear(2 * channels, 512, bias=False), nn.ReLU()),
        *(nn.BatchNorm1d(512), nn.Dropout(0.5), nn.Linear(512, classes, bias=False)),
    )
    for module in head:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, Norm):
            nn.init.constant_(module.bias, 1e-3)
    return head


def norms_and_biases(module: nn.Module) -> Iterator[Tensor]:
    """Parameters that weight decay leaves alone: there is no reason why a shift or a scale should be near 0."""
    if isinstance(module, Norm):
        yield from module.parameters()
        return
    if isinstance(getattr(module, "bias", None), Tensor):
        yield module.bias
    for child in module.children():
        yield from norms_and_biases(child)


def groups_by_depth(depths: Sequence[nn.Module], weight_decay: float = 0.01) -> list[dict]:
    """Two parameter groups for each part of a network, lowest part first: what decays, and what does not."""
    groups = []
    for depth, part in enumerate(depths):
        spared = set(norms_and_biases(part))
        decayed = [p for p in part.parameters() if p not in spared]
        groups += [{"params": decayed, "weight_decay": weight_decay, "depth": depth}]
        groups += [{"params": [p for p in part.parameters() if p in spared], "weight_decay": 0.0, "depth": depth}]
    return groups


def freeze_to(depth: int, parts: Sequence[nn.Module], optimizer: Optimizer) -> None:
    """Only the parts from `depth` on learn, and the batch norms of all: their statistics move with the new images
    anyway, and scale and shift move along. The optimiser forgets what it knew of the gradients before."""
    for number, part in enumerate(parts):
        part.requires_grad_(number >= depth)
        for module in part.modules():
            if isinstance(module, Norm):
                module.requires_grad_(True)
    optimizer.state.clear()


def rates_by_depth(lowest: float, highest: float, depths: int) -> list[float]:
    """From `lowest` for the first part to `highest` for the last, by equal factors."""
    if depths == 1:
        return [highest]
    factor = (highest / lowest) ** (1 / (depths - 1))
    return [lowest * factor**depth for depth in range(depths)]


def fit_one_cycle(
    learner: Learner,
    epochs: int,
    rates: Sequence[float],
    share: float = 0.25,
    div: float = 25.0,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train with one cycle of rate and momentum; rates: the highest rate of each depth."""
    cycles = [one_cycle(rates[group["depth"]], share, div) for group in learner.optimizer.param_groups]
    has_momentum = momentum_of(learner.optimizer.param_groups[0]) > 0
    schedule = Scheduled([rate for rate, _ in cycles], cycles[0][1] if has_momentum else None)
    learner.fit(epochs, [schedule, *callbacks])


def fine_tune(
    learner: Learner,
    parts: Sequence[nn.Module],
    epochs: int,
    rate: float = 2e-3,
    freeze_epochs: int = 1,
    lr_mult: float = 100,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Teach a pretrained network something new; parts: the network from the lowest part to the head.

    The head alone, rising almost to the end of the cycle; then all parts at half the rate, the lowest `lr_mult` times
    slower. lr_mult, and the rest, as in fastai's `Learner.fine_tune`.
    """
    depths = len(parts)
    freeze_to(depths - 1, parts, learner.optimizer)
    fit_one_cycle(learner, freeze_epochs, [rate / 10] * (depths - 1) + [rate], share=0.99, callbacks=callbacks)
    freeze_to(0, parts, learner.optimizer)
    rates = rates_by_depth(rate / 2 / lr_mult, rate / 2, depths)
    fit_one_cycle(learner, epochs, rates, share=0.3, div=5.0, callbacks=callbacks)


class Watch(Callback):
    """Prints every step: the rates and the momentum, and how far each part of the network moves."""

    def __init__(self, parts: Sequence[nn.Module]):
        self.parts, self.step = parts, 0
        print("step  rates from body to head        momentum  moved from body to head        loss")

    def before_batch(self, learner: Learner) -> None:
        """Where each part stands."""
        self.before = self.positions()

    def after_step(self, learner: Learner) -> None:
        """Where it has got to."""
        groups = learner.optimizer.param_groups
        rates = "  ".join(f"{group['lr']:.2e}" for group in groups[::2])
        moved = "  ".join(f"{(q - p).norm():.2e}" for p, q in zip(self.before, self.positions(), strict=True))
        print(f"{self.step:>4}  {rates:<30}  {momentum_of(groups[0]):.4f}  {moved:<30}  {learner.loss:.3f}")
        self.step += 1

    def positions(self) -> list[Tensor]:
        """The convolution or linear weights of each part, as one long vector."""
        weights = [[p.detach().flatten() for p in part.parameters() if p.ndim > 1] for part in self.parts]
        return [torch.cat(part) for part in weights]


def main() -> None:
    """Six steps with a frozen body and twelve with all of it: what moves, how far, at which rate."""
    from sklearn.datasets import load_digits

    from kit.mechanism.batches import DataLoader, Dataset
    from kit.mechanism.optimizers import AdamW

    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    train, valid = Dataset(images[:192], labels[:192]), Dataset(images[1000:], labels[1000:])
    sizes = ((1, 16), (16, 32))
    parts = [nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU()) for i, o in sizes]
    parts.append(nn.Sequential(ConcatPool(), nn.Flatten(), nn.Linear(64, 10)))
    batches = DataLoader(train, 32, shuffle=True), DataLoader(valid, 400)
    optimizer = AdamW(groups_by_depth(parts), lr=1e-3)
    learner = Learner(nn.Sequential(*parts), *batches, nn.CrossEntropyLoss(), optimizer)
    fine_tune(learner, parts, epochs=2, rate=2e-2, lr_mult=10, callbacks=[Watch(parts)])


if __name__ == "__main__":
    main()
