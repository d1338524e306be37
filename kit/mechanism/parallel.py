"""Data parallel training: every worker takes a part of the batch, and the mean of their gradients is the batch's own.

A loss that is a mean over examples has a gradient that is a mean over examples, so it does not matter who computes
which. Workers with the same weights that take the same averaged step keep the same weights, and nothing but gradients
is ever sent. Batch norm is the exception: it looks at its own part of the batch only. Workers are simulated here, one
after the other; PyTorch's `DistributedDataParallel` does the same with processes (the test compares the two).

    python -m kit.mechanism.parallel
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kit.mechanism.layers import BatchNorm, Layer, Linear, ReLU, Sequential, SoftmaxCrossEntropy
from kit.mechanism.optimizers import Optimizer

Shard = tuple[Tensor, Tensor]
Gradients = list[Tensor]


def shards(x: Tensor, y: Tensor, workers: int) -> list[Shard]:
    """Cut a batch x (n, ...), y (n,) into a part for each worker; where n does not divide, the first get one more."""
    if not 1 <= workers <= len(x):
        raise ValueError(
            f"a batch of {len(x)} for {workers} workers: each needs at least one example; take a larger batch"
        )
    return list(zip(x.tensor_split(workers), y.tensor_split(workers), strict=True))


def gradients(network: Layer, loss: Callable, x: Tensor, y: Tensor) -> Gradients:
    """The gradient of the mean loss over this batch, a tensor a parameter: predict, compare, go back."""
    for p in network.parameters():
        p.grad = None
    loss(network(x), y)
    network.backward(loss.backward())
    return [p.grad for p in network.parameters()]


def all_reduce_mean(parts: Sequence[Gradients], sizes: Sequence[int] | None = None) -> Gradients:
    """The mean of all workers' gradients, which every worker then holds.

    parts: a list of gradients a worker, of the same shapes. sizes: how many examples each had; a mean of means is the
    mean of all only where the parts are equal, otherwise each counts by its size. `DistributedDataParallel` does not
    weigh: it is told that the parts are equal.
    """
    sizes = [1] * len(parts) if sizes is None else sizes
    shapes = [[tuple(g.shape) for g in part] for part in parts]
    if not parts or any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"gradients of shapes {shapes}: every worker must send the same; build all from one network")
    if len(sizes) != len(parts) or min(sizes) < 1:
        raise ValueError(f"sizes {list(sizes)} for {len(parts)} workers: expected a count of at least 1 for each")
    weighted = ([g * size for g in part] for part, size in zip(parts, sizes, strict=True))
    return [sum(same) / sum(sizes) for same in zip(*weighted, strict=True)]


def ring_all_reduce(vectors: Sequence[Tensor]) -> tuple[list[Tensor], int]:
    """The sum of the workers' vectors (n,), as a ring computes it: each worker talks to its right neighbour alone.

    Every vector is cut into as many chunks as there are workers. In the first round trip each chunk travels on and
    grows by what every worker adds; in the second the finished chunks travel on and are copied. However many workers,
    each sends 2 (workers - 1) chunks, about twice its vector: returned beside the sums, counted in numbers sent by all.
    Source: P. Patarasu and X. Yuan, Bandwidth optimal all-reduce algorithms, 2009.
    """
    shapes = [tuple(vector.shape) for vector in vectors]
    if len(set(shapes)) != 1 or len(shapes[0]) != 1:
        raise ValueError(
            f"vectors of shapes {shapes}: every worker must send one of the same length; flatten and join them"
        )
    workers = len(vectors)
    chunks, sent = [list(vector.clone().tensor_split(workers)) for vector in vectors], 0
    for step in range(2 * (workers - 1)):
        travelling = [(worker, (worker - step) % workers) for worker in range(workers)]
        letters = [chunks[worker][chunk].clone() for worker, chunk in travelling]
        for (worker, chunk), letter in zip(travelling, letters, strict=True):
            here = chunks[(worker + 1) % workers]
            here[chunk] = here[chunk] + letter if step < workers - 1 else letter
            sent += letter.numel()
    return [torch.cat(chunk) for chunk in chunks], sent


def replicas(network: Layer, workers: int) -> list[Layer]:
    """A copy of the network a worker: the same weights, at places of their own."""
    return [copy.deepcopy(network) for _ in range(workers)]


def step(
    networks: Sequence[Layer], optimizers: Sequence[Optimizer], loss: Callable, batch: Shard, weigh: bool = True
) -> None:
    """One step of data parallel training: shards out, gradients in, their mean back, and every worker steps alike."""
    parts = shards(*batch, workers=len(networks))
    found = [gradients(network, loss, x, y) for network, (x, y) in zip(networks, parts, strict=True)]
    mean = all_reduce_mean(found, [len(x) for x, _ in parts] if weigh else None)
    for network, optimizer in zip(networks, optimizers, strict=True):
        for p, g in zip(network.parameters(), mean, strict=True):
            p.grad = g.clone()
        optimizer.step()


def relative_distance(a: Gradients, b: Gradients) -> float:
    """|a - b| / |b| over all elements of two lists of gradients: 0 where they are the same, 1 for a = 0."""
    a, b = (torch.cat([g.flatten() for g in part]) for part in (a, b))
    return float((a - b).norm() / b.norm())


def distance_from_big_batch(network: Layer, loss: Callable, x: Tensor, y: Tensor, workers: int) -> float:
    """How far the workers' weighted mean gradient is from the gradient of the whole batch, relative to the latter.

    Rounding alone (1e-16 in float64) for layers that treat each example by itself. Not so for `BatchNorm` in training:
    each worker subtracts the mean and divides by the spread of its own part. In eval mode it is rounding again.
    """
    parts = shards(x, y, workers)
    found = [gradients(network, loss, *part) for part in parts]
    return relative_distance(all_reduce_mean(found, [len(x) for x, _ in parts]), gradients(network, loss, x, y))


def main() -> None:
    """The distance to the big batch's gradient, with and without batch norm, for more and more workers."""
    dice = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 20, generator=dice).double(), torch.randint(5, (64,), generator=dice)
    first, last = Linear(20, 32, dice), Linear(32, 5, dice)
    plain = Sequential(first, ReLU(), last).to(torch.float64)
    norm = Sequential(first, BatchNorm(32), ReLU(), last).to(torch.float64)
    print("|mean of the workers' gradients - gradient of the batch of 64| / |gradient of the batch|")
    print("workers                    ", *(f"{workers:>8}" for workers in (2, 3, 4, 8, 16, 32)))
    for name, network in (("without batch norm", plain), ("batch norm, training", norm), ("batch norm, eval", norm)):
        network.train(name != "batch norm, eval")
        distances = [distance_from_big_batch(network, SoftmaxCrossEntropy(), x, y, w) for w in (2, 3, 4, 8, 16, 32)]
        print(f"{name:27}", *(f"{distance:8.0e}" for distance in distances))
    vectors = [torch.randn(1000, generator=dice) for _ in range(4)]
    print(f"a ring of 4 sums vectors of 1000 numbers; each worker sends {ring_all_reduce(vectors)[1] // 4}")


if __name__ == "__main__":
    main()
