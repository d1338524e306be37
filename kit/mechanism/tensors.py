"""Tensors: which axis means what, how a batch is cut out of all samples, and how two shapes that differ are joined.

The first axis counts the samples, always; the others say what a sample is. Broadcasting is done by hand here, and does
what torch does by itself. `python -m kit.mechanism.tensors` shows it.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

AXES = {
    "tabular": ("n", "features"),
    "text": ("n", "words", "features"),
    "grey": ("n", "h", "w"),
    "colour": ("n", "channels", "h", "w"),
    "video": ("n", "frames", "channels", "h", "w"),
}
COLOURS = (1, 3, 4)


def named_shape(x: Tensor, kind: str) -> dict[str, int]:
    """The shape of `x` with a name for each axis: {"n": 64, "channels": 3, "h": 28, "w": 28} for "colour".

    Raises `ValueError` for an unknown kind, a wrong number of axes, and colour pictures with their channels last.
    """
    if kind not in AXES:
        raise ValueError(f'kind is "{kind}": expected one of {", ".join(AXES)}')
    axes, shape = AXES[kind], tuple(x.shape)
    if len(shape) != len(axes):
        raise ValueError(f"{kind} data has the axes ({', '.join(axes)}), got shape {shape}")
    if kind == "colour" and shape[1] not in COLOURS and shape[3] in COLOURS:
        raise ValueError(f"shape {shape} has its channels last: expected (n, channels, h, w); use permute(0, 3, 1, 2)")
    return dict(zip(axes, shape, strict=True))


def mini_batches(x: Tensor, size: int) -> Iterator[Tensor]:
    """Slices (size, ...) of `x` (n, ...) one after the other; the last one holds what is left. Nothing is copied."""
    if size < 1:
        raise ValueError(f"batch size is {size}: expected 1 or more")
    for start in range(0, len(x), size):
        yield x[start : start + size]


def broadcast_shapes(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """The shape that both shapes stretch to.

    The rule: write them one under the other, aligned at the right; a missing axis counts as 1; an axis of size 1
    stretches to the other's size; any other difference is refused with a `ValueError` that names both shapes.

        (64, 28, 28) and     (28,)  ->  (64, 28, 28)
        (64,  1, 28) and   (5,  1)  ->  (64,  5, 28)
    """
    longest = max(len(a), len(b))
    sizes = []
    for left, right in zip(_fill(a, longest), _fill(b, longest), strict=True):
        if left != right and 1 not in (left, right):
            raise ValueError(
                f"shapes {tuple(a)} and {tuple(b)} cannot be joined: {left} meets {right}; "
                "expected equal sizes, counted from the right, or a 1"
            )
        sizes.append(right if left == 1 else left)
    return tuple(sizes)


def broadcast(x: Tensor, shape: Sequence[int]) -> Tensor:
    """`x` stretched to `shape`, without a copy: along a stretched axis the next element is 0 steps away in memory.

    Raises `ValueError` naming both shapes where the stretched x would have another shape than that.
    """
    if broadcast_shapes(x.shape, shape) != tuple(shape):
        raise ValueError(f"shape {tuple(x.shape)} cannot stretch to {tuple(shape)}: only an axis of size 1 can grow")
    sizes, strides = _fill(x.shape, len(shape)), _fill(x.stride(), len(shape))
    steps = [stride if size == wanted else 0 for size, stride, wanted in zip(sizes, strides, shape, strict=True)]
    return x.as_strided(tuple(shape), steps)


def _fill(numbers: Sequence[int], length: int) -> list[int]:
    """The numbers, with as many 1s before them as are missing."""
    return [1] * (length - len(numbers)) + list(numbers)


def add(a: Tensor, b: Tensor) -> Tensor:
    """a + b of different shapes, as torch does it: stretch both, then add element by element."""
    shape = broadcast_shapes(a.shape, b.shape)
    return broadcast(a, shape) + broadcast(b, shape)


def with_ones(x: Tensor) -> Tensor:
    """(n, features) -> (n, features + 1), the last feature being 1 in every row.

    A bias is the weight of this constant input: x @ w + b is with_ones(x) @ [w, b].
    """
    if x.ndim != 2:
        raise ValueError(f"x has shape {tuple(x.shape)}: expected (n, features)")
    return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)


def main() -> None:
    """Print the shapes of five kinds of data and of a mini-batch, broadcasting, and one refusal."""
    for kind, axes in AXES.items():
        print(f"{kind:8} ({', '.join(axes)})")
    pictures = torch.zeros(100, 3, 28, 28)
    print("batches of 32 out of 100 pictures:", [tuple(batch.shape) for batch in mini_batches(pictures, 32)])
    column, row = torch.arange(3)[:, None], torch.arange(4) * 10
    print(f"{tuple(column.shape)} + {tuple(row.shape)} -> {tuple(add(column, row).shape)}:", add(column, row).tolist())
    x, weight, bias = torch.rand(5, 3), torch.rand(3), torch.rand(1)
    same = torch.allclose(x @ weight + bias, with_ones(x) @ torch.cat([weight, bias]))
    print("a bias is the weight of a constant 1:", same)
    try:
        add(torch.zeros(5, 3), torch.zeros(5))
    except ValueError as error:
        print("refused:", error)


if __name__ == "__main__":
    main()
