"""Tensors: what each axis means for five kinds of data, and broadcasting written out by hand.

The first axis counts the samples; the other axes describe one sample. A mini-batch is a slice of the first axis.
Run `python -m kit.mechanism.tensors` to see the shapes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

AXES = {
    "tabular": ("n", "features"),
    "text": ("n", "words", "features"),
    "grey": ("n", "h", "w"),
    "colour": ("n", "channels", "h", "w"),
    "video": ("n", "frames", "channels", "h", "w"),
}


def named_shape(x: Tensor, kind: str) -> dict[str, int]:
    """Return the shape of `x` with a name for each axis: {"n": 64, "channels": 3, "h": 28, "w": 28} for "colour".

    Raises `ValueError` for an unknown kind, a wrong number of axes, and colour images with the channels last.
    """
    if kind not in AXES:
        raise ValueError(f'kind is "{kind}": expected one of {", ".join(AXES)}')
    axes, shape = AXES[kind], tuple(x.shape)
    if len(shape) != len(axes):
        raise ValueError(f"{kind} data has the axes ({', '.join(axes)}), got shape {shape}")
    if kind == "colour" and shape[1] not in (1, 3, 4) and shape[3] in (1, 3, 4):
        raise ValueError(f"shape {shape} has its channels last: expected (n, channels, h, w); use permute(0, 3, 1, 2)")
    return dict(zip(axes, shape, strict=True))


def broadcast_shapes(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """Return the common shape of two shapes, by the same rule as `torch.broadcast_shapes`.

    Align the shapes at the right; a missing axis counts as 1; an axis of size 1 is expanded to the other size.
    Raises `ValueError` where two sizes differ and neither is 1.

        (64, 28, 28) and     (28,)  ->  (64, 28, 28)
        (64,  1, 28) and   (5,  1)  ->  (64,  5, 28)
    """
    ndim, sizes = max(len(a), len(b)), []
    for left, right in zip(_pad_with_ones(a, ndim), _pad_with_ones(b, ndim), strict=True):
        if left != right and 1 not in (left, right):
            raise ValueError(
                f"shapes {tuple(a)} and {tuple(b)} cannot be broadcast: {left} meets {right}; "
                "expected equal sizes, counted from the right, or a 1"
            )
        sizes.append(right if left == 1 else left)
    return tuple(sizes)


def broadcast(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Expand `x` to `shape` without copying, as `Tensor.expand` does.

    An expanded axis has stride 0: moving along it stays at the same place in memory.
    Raises `ValueError` where an axis other than one of size 1 would have to grow.
    """
    if broadcast_shapes(x.shape, shape) != tuple(shape):
        raise ValueError(f"shape {tuple(x.shape)} cannot expand to {tuple(shape)}: only an axis of size 1 can grow")
    sizes, strides = _pad_with_ones(x.shape, len(shape)), _pad_with_ones(x.stride(), len(shape))
    strides = [stride if size == wanted else 0 for size, stride, wanted in zip(sizes, strides, shape, strict=True)]
    return x.as_strided(tuple(shape), strides)


def _pad_with_ones(numbers: Sequence[int], length: int) -> list[int]:
    return [1] * (length - len(numbers)) + list(numbers)


def add(a: Tensor, b: Tensor) -> Tensor:
    """Return a + b for tensors of different shapes: expand both to their common shape, then add the elements."""
    shape = broadcast_shapes(a.shape, b.shape)
    return broadcast(a, shape) + broadcast(b, shape)


def append_ones(x: Tensor) -> Tensor:
    """Append a feature that is 1 in every row: (n, features) -> (n, features + 1).

    The bias becomes the weight of this constant feature: x @ w + b equals append_ones(x) @ [w, b].
    """
    if x.ndim != 2:
        raise ValueError(f"x has shape {tuple(x.shape)}: expected (n, features)")
    return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)


def main() -> None:
    """Print the axes of five kinds of data, the shapes of mini-batches, and three examples of broadcasting."""
    for kind, axes in AXES.items():
        print(f"{kind:8} ({', '.join(axes)})")
    images = torch.zeros(100, 3, 28, 28)
    print("100 colour images:", named_shape(images, "colour"))
    print("mini-batches of 32 out of 100 images:", [tuple(batch.shape) for batch in images.split(32)])
    column, row = torch.arange(3)[:, None], torch.arange(4) * 10
    print(f"{tuple(column.shape)} + {tuple(row.shape)} -> {tuple(add(column, row).shape)}:", add(column, row).tolist())
    x, weight, bias = torch.rand(5, 3), torch.rand(3), torch.rand(1)
    same = torch.allclose(x @ weight + bias, append_ones(x) @ torch.cat([weight, bias]))
    print("the bias is the weight of a constant feature 1:", same)
    try:
        add(torch.zeros(5, 3), torch.zeros(5))
    except ValueError as error:
        print("ValueError:", error)


if __name__ == "__main__":
    main()
