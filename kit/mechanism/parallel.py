"""Data parallel training: each worker computes the gradient of a part of the batch, and all use the mean gradient.

The loss is a mean over examples, so its gradient is the mean of the gradients of the parts. Workers that start with the
same weights and apply the same mean gradient keep the same weights; only gradients are sent. Batch norm is an
exception: it uses the statistics of its own part. Here the workers are simulated one after the other; PyTorch's
`DistributedDataParallel` uses processes (a test compares the two). Run `python -m kit.mechanism.parallel`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kit.mechanism.gradient import relative_error
from kit.mechanism.layers import BatchNorm, Layer, Linear, ReLU, Sequential, SoftmaxCrossEntropy
from kit.mechanism.optimizers import Optimizer

Batch = tuple[Tensor, Tensor]
Gradients = list[Tensor]


def shards(x: Tensor, y: Tensor, workers: int) -> list[Batch]:
    """Split a batch x (n, ...), y (n,) into one part for each worker; the first parts get one more if needed."""
    if not 1 <= workers <= len(x):
        raise ValueError(f"a batch of {len(x)} for {workers} workers: each needs at least one example")
    return list(zip(x.tensor_split(workers), y.tensor_split(workers), strict=True))


def gradients(network: Layer, loss: Callable, x: Tensor, y: Tensor) -> Gradients:
    """Return the gradient of the mean loss over this batch for each parameter."""
    for p in network.parameters():
        p.grad = None
    loss(network(x), y)
    network.backward(loss.backward())
    return [p.grad for p in network.parameters()]


def all_reduce_mean(parts: Sequence[Gradients], sizes: Sequence[int] | None = None) -> Gradients:
    """Return the mean of the gradients of all workers, weighted by the sizes of their parts.

    parts: for each worker a list of gradients of the same shapes. Without sizes all parts count the same, as in
    `DistributedDataParallel`; this equals the gradient of the whole batch only if the parts have equal sizes.
    """
    sizes = [1] * len(parts) if sizes is None else sizes
    weighted = ([g * size for g in part] for part, size in zip(parts, sizes, strict=True))
    return [sum(same) / sum(sizes) for same in zip(*weighted, strict=True)]


def ring_all_reduce(vectors: Sequence[Tensor]) -> tuple[list[Tensor], int]:
    """Sum the workers' vectors (n,) in a ring, where each worker sends to its right neighbour only.

    Each vector is cut into one chunk for each worker. In the first `workers - 1` steps every chunk is passed on and the
    receiver adds its own; in the last `workers - 1` steps the sums are passed on and copied. Each worker sends about
    twice the size of its vector, for any number of workers, so no worker is a bottleneck. Returns the sum at every
    worker, and how many numbers were sent by all. Source: P. Patarasu and X. Yuan, Bandwidth optimal all-reduce
    algorithms, 2009.
    """
    workers, sent = len(vectors), 0
    chunks = [list(vector.clone().tensor_split(workers)) for vector in vectors]
    for step in range(2 * (workers - 1)):
        messages = [chunks[worker][(worker - step) % workers].clone() for worker in range(workers)]
        for worker, message in enumerate(messages):
            receiver, chunk = chunks[(worker + 1) % workers], (worker - step) % workers
            receiver[chunk] = receiver[chunk] + message if step < workers - 1 else message
            sent += message.numel()
    return [torch.cat(chunk) for chunk in chunks], sent


def step(
    networks: Sequence[Layer], optimizers: Sequence[Optimizer], loss: Callable, batch: Batch, weighted: bool = True
) -> None:
    """Do one step of data parallel training: split the batch, average the gradients, update every worker."""
    parts = shards(*batch, workers=len(networks))
    found = [gradients(network, loss, *part) for network, part in zip(networks, parts, strict=True)]
    mean = all_reduce_mean(found, [len(x) for x, _ in parts] if weighted else None)
    for network, optimizer in zip(networks, optimizers, strict=True):
        for p, g in zip(network.parameters(), mean, strict=True):
            p.grad = g.clone()
        optimizer.step()


def error_against_whole_batch(network: Layer, loss: Callable, x: Tensor, y: Tensor, workers: int) -> float:
    """Return the relative error of the workers' mean gradient against the gradient of the whole batch.

    It is a rounding error (1e-15 in float64), except with BatchNorm in training mode, which normalises each part by
    its own mean and variance.
    """
    parts = shards(x, y, workers)
    mean = all_reduce_mean([gradients(network, loss, *part) for part in parts], [len(x) for x, _ in parts])
    return relative_error(
        *(torch.cat([g.flatten() for g in grads]) for grads in (mean, gradients(network, loss, x, y)))
    )


def main() -> None:
    """Print the error of the mean gradient with and without batch norm, and the traffic of a ring."""
    torch.manual_seed(0)
    x, y = torch.randn(64, 20).double(), torch.randint(5, (64,))
    first, last = Linear(20, 32), Linear(32, 5)
    plain = Sequential(first, ReLU(), last).to(torch.float64)
    norm = Sequential(first, BatchNorm(32), ReLU(), last).to(torch.float64)
    print("relative error of the workers' mean gradient against the gradient of the whole batch of 64")
    print("workers                    ", *(f"{workers:>8}" for workers in (2, 3, 4, 8, 16, 32)))
    for name, network in (("without batch norm", plain), ("batch norm, training", norm), ("batch norm, eval", norm)):
        network.train(name != "batch norm, eval")
        errors = [error_against_whole_batch(network, SoftmaxCrossEntropy(), x, y, w) for w in (2, 3, 4, 8, 16, 32)]
        print(f"{name:27}", *(f"{error:8.0e}" for error in errors))
    _, sent = ring_all_reduce([torch.randn(1000) for _ in range(4)])
    print(f"a ring of 4 workers sums vectors of 1000 numbers; each worker sends {sent // 4}")


if __name__ == "__main__":
    main()
