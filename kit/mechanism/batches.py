"""Batches: a dataset, shuffled and cut into mini-batches, once for each epoch.

The batch size is the number of examples of one update; an iteration is one update; an epoch is one pass over the data.
The examples of a batch are drawn at random, so the expected value of its gradient is the gradient over all data, and
its standard deviation falls with the square root of the batch size.
Run `python -m kit.mechanism.batches` to see the batches of two epochs.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """Examples x (n, ...) and targets y (n, ...); `dataset[i]` is the pair (x[i], y[i]) and `len(dataset)` is n.

    Raises `ValueError` for different lengths, no examples, or values that are NaN or infinite.
    """

    x: Tensor
    y: Tensor

    def __post_init__(self):
        if len(self.x) != len(self.y):
            raise ValueError(f"{len(self.x)} examples and {len(self.y)} targets; every example needs one target")
        if len(self.x) == 0:
            raise ValueError("the dataset is empty; it needs at least one example")
        if self.x.is_floating_point() and not self.x.isfinite().all():
            row = (~self.x.isfinite()).reshape(len(self.x), -1).any(1).nonzero()[0].item()
            raise ValueError(f"example {row} has a value that is NaN or infinite; remove or correct it")

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int | Sequence[int]) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]

    def split(self, valid_pct: float, generator: torch.Generator | None = None) -> tuple["Dataset", "Dataset"]:
        """Split at random into a training set and a validation set with the fraction `valid_pct` of the examples."""
        order = torch.randperm(len(self), generator=generator)
        count = int(len(self) * valid_pct)
        if not 0 < count < len(self):
            raise ValueError(f"valid_pct {valid_pct} of {len(self)} examples leaves one part empty")
        return Dataset(*self[order[count:]]), Dataset(*self[order[:count]])


def load_digits() -> Dataset:
    """Return scikit-learn's 1,797 handwritten digits: images (n, 1, 8, 8) from 0 to 1, and labels (n,)."""
    from sklearn import datasets

    digits = datasets.load_digits()
    return Dataset(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target))


class DataLoader:
    """Mini-batches (x, y) of a dataset; one iteration over it is one epoch.

    Before each epoch a new random generator is seeded by the current one, and gives the order: the rule of fastai's
    DataLoader, so that both give the same batches from the same `rng`.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        rng: random.Random | None = None,
    ):
        if batch_size < 1:
            raise ValueError(f"batch size {batch_size}: expected at least 1")
        if drop_last and batch_size > len(dataset):
            raise ValueError(f"batch size {batch_size} with drop_last leaves no batch of {len(dataset)} examples")
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.rng = rng or random.Random()

    def __len__(self) -> int:
        batches = len(self.dataset) / self.batch_size
        return math.floor(batches) if self.drop_last else math.ceil(batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.rng = random.Random(self.rng.randint(0, 2**32 - 1))
        order = list(range(len(self.dataset)))
        if self.shuffle:
            order = self.rng.sample(order, len(order))
        for batch in range(len(self)):
            yield self.dataset[order[batch * self.batch_size : (batch + 1) * self.batch_size]]


def main() -> None:
    """Print two epochs of ten examples in batches of four, and how far batch means are from the mean of all data."""
    batches = DataLoader(Dataset(torch.arange(10.0), torch.arange(10)), 4, shuffle=True, rng=random.Random(1))
    for epoch in range(2):
        for iteration, (x, _) in enumerate(batches):
            print(f"epoch {epoch}, iteration {iteration}: {x.long().tolist()}")
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(1))
    for size in (10, 100, 1000):
        means = torch.stack([x.mean() for x, _ in DataLoader(Dataset(values, values), size, shuffle=True)])
        print(f"batch size {size:>4}: standard deviation of the batch means {(means - values.mean()).std():.4f}")


if __name__ == "__main__":
    main()
