"""LeNet by hand against PyTorch's: forward, loss and backward of the same batch, as ratios of one run. Run by hand.

PYTHONPATH=. python tests/bench/lenet_by_hand.py [--batch 64] [--rounds 40]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kit.mechanism.autograd import Variable
from kit.mechanism.layers import Sequential, SoftmaxCrossEntropy, Tanh
from kit.mechanism.networks import lenet


def pytorch_lenet(ours: Sequential) -> nn.Sequential:
    """LeNet-5 in torch.nn, with our weights."""
    network = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip
    for theirs, mine in zip(network.parameters(), ours.parameters(), strict=True):
        theirs.data = mine.clone()
    return network


def ways(batch: int) -> dict[str, Callable[[], Tensor]]:
    """Three ways to one step's gradients; each returns the first filter's, so that they can be compared."""
    ours = lenet(28, activation=Tanh)
    theirs, loss = pytorch_lenet(ours), SoftmaxCrossEntropy()
    x, y = torch.rand(batch, 1, 28, 28), torch.randint(0, 10, (batch,))

    def in_pytorch() -> Tensor:
        theirs.zero_grad()
        nn.functional.cross_entropy(theirs(x), y).backward()
        return theirs[0].weight.grad

    def by_hand() -> Tensor:
        forget(ours)
        loss(ours(x), y)
        ours.backward(loss.backward())
        return ours.parameters()[0].grad

    def own_autograd() -> Tensor:
        forget(ours)
        loss(ours(Variable(x, requires_grad=False)), y).backward()
        return ours.parameters()[0].grad

    return {"PyTorch": in_pytorch, "by hand": by_hand, "own autograd": own_autograd}


def forget(network: Sequential) -> None:
    for parameter in network.parameters():
        parameter.grad = None


def measure(functions: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """Median seconds of each; they take turns, so that whatever else the machine does meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 3):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            if turn >= 3:  # the first rounds warm up
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="LeNet by hand against PyTorch's")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    functions = ways(arguments.batch)
    expected = functions["PyTorch"]()
    for name, function in functions.items():
        torch.testing.assert_close(function(), expected, rtol=1e-3, atol=1e-6, msg=f"{name} has another gradient")
    seconds = measure(functions, arguments.rounds)
    how = f"{torch.get_num_threads()} threads, {arguments.rounds} rounds"
    print(f"LeNet-5, {arguments.batch} images of 28x28, forward and backward, {how}")
    for name, median in seconds.items():
        print(f"{name:<13} {1000 * median:6.2f} ms   {median / seconds['PyTorch']:.2f} times PyTorch's time")


if __name__ == "__main__":
    main()
