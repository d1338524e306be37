"""What the network alone computes, without loader and augmentation: images/s of a training step, way by way.

python tests/bench/steps.py --arch resnet18                     # 224 pixels, batches of 64, on a CPU
python tests/bench/steps.py --compiled                          # torch.compile too, which takes a minute

All ways take their turn in each round. The ratios say what each is worth: memory that is kept (`kit.machine`), bf16,
channels last. The last line is the ratio of all together to plain fp32, all awake.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated

import torch
import typer
from torchvision import models

from kit.cli.script import script
from kit.machine import keep_freed_memory


def main(
    arch: str = "resnet18",
    size: int = 224,
    batch: int = 64,
    rounds: int = 5,
    compiled: Annotated[bool, typer.Option("--compiled")] = False,
):
    """Print a table: images/s with the body frozen and with all awake, and the ratio to the first line."""
    ways = {
        "fp32": step_of(arch, size, batch, torch.contiguous_format, half=False),
        "fp32, channels last": step_of(arch, size, batch, torch.channels_last, half=False),
        "bf16, channels last": step_of(arch, size, batch, torch.channels_last, half=True),
    }
    if compiled:
        ways["bf16, channels last, compiled"] = step_of(arch, size, batch, torch.channels_last, True, torch.compile)
    ways |= {f"{name}, memory kept": step for name, step in ways.items()}
    print("| way | frozen, images/s | awake, images/s | awake / first line |\n|---|---|---|---|")
    frozen, awake = (rates(ways, batch, rounds, awake) for awake in (False, True))
    plain = awake["fp32"]
    for name in ways:
        ratio = statistics.median(one / other for one, other in zip(awake[name], plain, strict=True))
        print(
            f"| {name} | {statistics.median(frozen[name]):.1f} | {statistics.median(awake[name]):.1f} | {ratio:.2f} |"
        )
    print(f"{ratio:.1f}x")


def step_of(
    arch: str, size: int, batch: int, layout: torch.memory_format, half: bool, how: Callable = lambda forward: forward
) -> Callable[[bool], None]:
    """A function that takes a step: forward and backward of a network of its own, with the body frozen or awake."""
    network = getattr(models, arch)().to(memory_format=layout)
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=layout)
    forward = how(network.forward)
    norms = {
        id(one) for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d) for one in layer.parameters()
    }

    def step(awake: bool) -> None:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(awake or id(parameter) in norms or name.startswith("fc"))
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = forward(images).float().sum()
        network.zero_grad()
        loss.backward()

    return step


def rates(ways: dict[str, Callable], batch: int, rounds: int, awake: bool) -> dict[str, list[float]]:
    """Images/s of each way in each round, after one step to warm up."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, step in ways.items():
            with keep_freed_memory() if name.endswith("memory kept") else nullcontext():
                step(awake)
                begun = time.perf_counter()
                step(awake)
                if number:
                    found[name].append(batch / (time.perf_counter() - begun))
    return found


if __name__ == "__main__":
    script(main)
