"""Transfer learning: fastai's `fine_tune` written out, with frozen layers and a learning rate for each depth.

A network trained on one task is used for another. Its body (the convolutions) is kept; its head, the classifier of the
old classes, is replaced. First only the new head is trained while the body is frozen, because the large gradients from
a random head would damage the body. Then all layers are trained, with a lower learning rate for the lower layers.

From here on, hand-made pieces are swapped for PyTorch's: the network consists of `torch.nn` modules and autograd
computes the gradients. The training is still written out, and equal to fastai's bit for bit
(`tests/mechanism/test_same_as_fastai.py`). Run `python -m kit.mechanism.transfer` to watch each step.
"""

from collections.abc import Callable, Iterator, Sequence
from random import Random

import torch
from torch import Tensor, nn

from kit.mechanism.batches import DataLoader, Dataset
from kit.mechanism.loop import Callback, Learner, ParamScheduler
from kit.mechanism.optimizers import AdamW, Optimizer, get_momentum
from kit.mechanism.schedules import one_cycle

Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.LayerNorm


def create_body(network: nn.Module) -> nn.Sequential:
    """Return a torchvision ResNet without its last two parts, the pooling and the classifier."""
    parts = list(network.children())
    if len(parts) < 3 or not isinstance(parts[-1], nn.Linear):
        last = type(parts[-1]).__name__ if parts else "nothing"
        raise ValueError(f"expected a ResNet that ends in pooling and Linear, this network ends in {last}")
    return nn.Sequential(*parts[:-2])


class ConcatPool(nn.Module):
    """Maximum and mean of every channel: (n, c, h, w) -> (n, 2c, 1, 1), for any image size."""

    def __init__(self):
        super().__init__()
        self.ap, self.mp = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.mp(x), self.ap(x)], 1)


def create_head(channels: int, classes: int) -> nn.Sequential:
    """Return fastai's head, (n, channels, h, w) -> (n, classes): pooling, then twice batch norm, dropout and Linear.

    He initialisation after PyTorch's own, and batch norm biases of 0.001: equal to fastai's head for the same seed.
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
    """Yield the parameters without weight decay: those of batch and layer norms, and all biases."""
    if isinstance(module, Norm):
        yield from module.parameters()
        return
    if isinstance(getattr(module, "bias", None), Tensor):
        yield module.bias
    for child in module.children():
        yield from norms_and_biases(child)


def param_groups(parts: Sequence[nn.Module], weight_decay: float = 0.01) -> list[dict]:
    """Return two parameter groups for each part of a network, lowest part first: with and without weight decay."""
    groups = []
    for depth, part in enumerate(parts):
        no_decay = set(norms_and_biases(part))
        decay = [p for p in part.parameters() if p not in no_decay]
        groups += [{"params": decay, "weight_decay": weight_decay, "depth": depth}]
        groups += [{"params": [p for p in part.parameters() if p in no_decay], "weight_decay": 0.0, "depth": depth}]
    return groups


def freeze_to(depth: int, parts: Sequence[nn.Module], optimizer: Optimizer) -> None:
    """Freeze all parts below `depth`, except their norms, and reset the state of the optimizer.

    Batch norms stay trainable because their running statistics follow the new images in any case.
    """
    for number, part in enumerate(parts):
        part.requires_grad_(number >= depth)
        for module in part.modules():
            if isinstance(module, Norm):
                module.requires_grad_(True)
        for p in part.parameters():
            if not p.requires_grad:
                p.grad = None  # of an earlier training; weight decay would go on with a gradient of 0
    optimizer.state.clear()


def discriminative_lrs(lowest: float, highest: float, parts: int) -> list[float]:
    """Return one learning rate for each part, from `lowest` to `highest`, each a constant factor above the last.

    Source: Howard and Ruder, Universal language model fine-tuning for text classification, 2018.
    """
    if parts == 1:
        return [highest]
    factor = (highest / lowest) ** (1 / (parts - 1))
    return [lowest * factor**depth for depth in range(parts)]


def fit_one_cycle(
    learner: Learner,
    epochs: int,
    lr_max: Sequence[float],
    pct_start: float = 0.25,
    div: float = 25.0,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train with one cycle of learning rate and momentum; lr_max: the maximum for each part of the network."""
    cycles = [one_cycle(lr_max[group["depth"]], pct_start, div) for group in learner.optimizer.param_groups]
    has_momentum = get_momentum(learner.optimizer.param_groups[0]) > 0
    schedule = ParamScheduler([lr for lr, _ in cycles], cycles[0][1] if has_momentum else None)
    learner.fit(epochs, [schedule, *callbacks])


def fine_tune(
    learner: Learner,
    parts: Sequence[nn.Module],
    epochs: int,
    base_lr: float = 2e-3,
    freeze_epochs: int = 1,
    lr_mult: float = 100,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Fine-tune a pretrained network as fastai's `Learner.fine_tune` does; parts: from the lowest to the head.

    First `freeze_epochs` of the head alone at base_lr; then `epochs` of all parts, from base_lr / 2 / lr_mult for the
    lowest part to base_lr / 2 for the head.
    """
    freeze_to(len(parts) - 1, parts, learner.optimizer)
    lrs = [base_lr / 10] * (len(parts) - 1) + [base_lr]
    fit_one_cycle(learner, freeze_epochs, lrs, pct_start=0.99, callbacks=callbacks)
    freeze_to(0, parts, learner.optimizer)
    lrs = discriminative_lrs(base_lr / 2 / lr_mult, base_lr / 2, len(parts))
    fit_one_cycle(learner, epochs, lrs, pct_start=0.3, div=5.0, callbacks=callbacks)


class PrintSteps(Callback):
    """Print learning rates, momentum, and the norm of the update of each part's weights, for every tenth step."""

    def __init__(self, parts: Sequence[nn.Module]):
        self.parts, self.step = parts, 0
        print("step  lr from body to head  momentum  update from body to head  loss")

    def before_batch(self, learner: Learner) -> None:
        self.before = self.weights()

    def after_step(self, learner: Learner) -> None:
        groups = learner.optimizer.param_groups
        lrs = "  ".join(f"{group['lr']:.2e}" for group in groups[::2])
        updates = "  ".join(f"{(q - p).norm():.2e}" for p, q in zip(self.before, self.weights(), strict=True))
        if self.step % 10 == 0:
            print(f"{self.step:>4}  {lrs:<20}  {get_momentum(groups[0]):.4f}    {updates:<24}  {learner.loss:.3f}")
        self.step += 1

    def weights(self) -> list[Tensor]:
        """Return the weights of the convolutions and Linear layers of each part as one vector."""
        parts = [[p.detach().flatten() for p in part.parameters() if p.ndim > 1] for part in self.parts]
        return [torch.cat(part) for part in parts]


def scatter(images: Tensor, size: int = 16) -> Tensor:
    """Put images (n, 1, 8, 8) at random places of larger ones (n, 1, size, size); half of them negative, with noise."""
    larger = torch.zeros(len(images), 1, size, size)
    for image, place, (top, left) in zip(
        images, larger, torch.randint(size - 7, (len(images), 2)).tolist(), strict=True
    ):
        place[:, top : top + 8, left : left + 8] = image
    sign = 2 * torch.randint(2, (len(images), 1, 1, 1)) - 1
    return sign * larger + 0.3 * torch.randn_like(larger)


def network_parts(body: nn.Module | None, classes: int) -> list[nn.Module]:
    """Return the two parts of a small network: a body, by default a new one, and a new head."""
    sizes = ((1, 16), (16, 32), (32, 32))
    layers = [[nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()] for i, o in sizes]
    body = body or nn.Sequential(*layers[0], *layers[1], nn.MaxPool2d(2), *layers[2], nn.MaxPool2d(2))
    return [body, nn.Sequential(ConcatPool(), nn.Flatten(), nn.Linear(64, classes))]


def compare_starts(digits: Dataset, seed: int, watch: Callable = lambda parts: []) -> dict[str, float]:
    """Learn the digits 5 to 9 from 50 images, from a body that learned 0 to 4 and from a random one.

    digits: images (n, 1, 8, 8) and labels 0 to 9. Returns the accuracy on 300 others. A random body is trained at one
    rate in all layers, which is better for it than `fine_tune`. watch: parts -> callbacks for the fine-tuning.
    """

    def data(chosen: Tensor, count: int) -> tuple[Dataset, Dataset]:
        order = chosen.nonzero()[:, 0][torch.randperm(int(chosen.sum()))]
        return tuple(Dataset(scatter(digits.x[o]), digits.y[o] % 5) for o in (order[:-300][:count], order[-300:]))

    def learner(parts: list[nn.Module], train: Dataset, valid: Dataset, batch_size: int) -> Learner:
        batches = DataLoader(train, batch_size, shuffle=True, rng=Random(seed)), DataLoader(valid, 300)
        return Learner(nn.Sequential(*parts), *batches, nn.CrossEntropyLoss(), AdamW(param_groups(parts), lr=1e-3))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        old, new = data(digits.y < 5, 600), data(digits.y >= 5, 50)
        parts = network_parts(None, 5)
        fit_one_cycle(learner(parts, *old, 32), 8, [1e-2, 1e-2])
        parts = network_parts(parts[0], 5)
        pretrained = learner(parts, *new, 10)
        fine_tune(pretrained, parts, 15, 2e-2, freeze_epochs=5, lr_mult=2, callbacks=watch(parts))
        random = learner(network_parts(None, 5), *new, 10)
        fit_one_cycle(random, 20, [1e-2, 1e-2])
    return {"after 0 to 4": pretrained.rows[-1]["accuracy"], "random start": random.rows[-1]["accuracy"]}


def main() -> None:
    """Print steps of one fine-tuning; then, for three seeds, the accuracy with and without pretraining."""
    from kit.mechanism.batches import load_digits

    digits = load_digits()
    rows = [
        compare_starts(digits, seed, lambda parts, seed=seed: [] if seed else [PrintSteps(parts)]) for seed in range(3)
    ]
    print("accuracy on the digits 5 to 9, learned from 50 images, for three seeds")
    for name in rows[0]:
        print(f"{name:12}", *(f"{row[name]:7.1%}" for row in rows))


if __name__ == "__main__":
    main()
