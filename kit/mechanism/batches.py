"""Batches: a dataset is shuffled, cut into mini-batches, and gone through once an epoch.

Words that are easily mixed up: the *batch size* is how many examples make one step; an *iteration* is one such step;
an *epoch* is all iterations that go once through the data. A batch stands for the whole because it is drawn from it at
random: the expected value of its gradient is the gradient of all data, and its spread falls with the square root of
its size.

    python -m kit.mechanism.batches
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """Examples x (n, ...) and their targets y (n, ...): `dataset[i]` is a pair, `len(dataset)` is n."""

    x: Tensor
    y: Tensor

    def __post_init__(self):
        if len(self.x) != len(self.y):
            raise ValueError(f"{len(self.x)} examples and {len(self.y)} targets; every example needs one target")
        if len(self.x) == 0:
            raise ValueError("the dataset is empty; it needs at least one example")
        if self.x.is_floating_point() and not self.x.isfinite().all():
            row = (~self.x.isfinite()).reshape(len(self.x), -1).any(1).nonzero()[0].item()
            raise ValueError(
                f"example {row} holds a value that is not finite (NaN or infinity); leave it out or mend it"
            )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int | Sequence[int]) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]

    def split(self, share: float, generator: torch.Generator | None = None) -> tuple["Dataset", "Dataset"]:
        """Two parts at random, the second with `share` of the examples: one to learn from, one to be judged by."""
        order = torch.randperm(len(self), generator=generator)
        held_out = int(len(self) * share)
        if not 0 < held_out < len(self):
            raise ValueError(f"share {share} of {len(self)} examples leaves one part empty")
        return Dataset(*self[order[held_out:]]), Dataset(*self[order[:held_out]])


class DataLoader:
    """Mini-batches of a dataset: iterate once for an epoch.

    Every epoch draws a new seed from the last epoch's random numbers, then a new order: the rule of fastai's loader,
    so that from the same `rng` both give the same batches.
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
            raise ValueError(f"batch size {batch_size}: a batch has at least one example")
        if drop_last and batch_size > len(dataset):
            problem = f"batch size {batch_size} with drop_last leaves no batch of {len(dataset)} examples"
            raise ValueError(f"{problem}; take a batch size of at most {len(dataset)}")
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.rng = rng or random.Random()

    def __len__(self) -> int:
        """How many iterations an epoch has."""
        batches = len(self.dataset) / self.batch_size
        return math.floor(batches) if self.drop_last else math.ceil(batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.order()
        for batch in range(len(self)):
            yield self.dataset[order[batch * self.batch_size : (batch + 1) * self.batch_size]]

    def order(self) -> list[int]:
        """The next epoch's order of the examples."""
        self.rng = random.Random(self.rng.randint(0, 2**32 - 1))
        order = list(range(len(self.dataset)))
        return self.rng.sample(order, len(order)) if self.shuffle else order


def main() -> None:
    """Ten examples in batches of four, for two epochs; and how well a batch's mean stands for the whole."""
    dataset = Dataset(torch.arange(10.0), torch.arange(10))
    batches = DataLoader(dataset, 4, shuffle=True, rng=random.Random(1))
    for epoch in range(2):
        for iteration, (x, _) in enumerate(batches):
            print(f"epoch {epoch}, iteration {iteration}: {x.long().tolist()}")
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(1))
    whole = Dataset(values, values)
    for size in (10, 100, 1000):
        means = torch.stack([x.mean() for x, _ in DataLoader(whole, size, shuffle=True, rng=random.Random(1))])
        print(f"batches of {size:>4}: their means are {(means - values.mean()).std():.4f} away from that of all")


if __name__ == "__main__":
    main()
