"""Tensors: what each axis means for five kinds of data, and broadcasting written out by hand.

The first axis counts the samples; the other axes describe one sample. A mini-batch is a slice of the first axis.
The numbers are rounded after every operation, so a GPU, which adds in another order and may round inputs of matrix
products to fewer bits (TF32, bfloat16), gives slightly different results; both are simulated here on a CPU.
Run `python -m kit.mechanism.tensors` to see shapes and rounding errors.
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


def sum_in_lanes(x: Tensor, lanes: int) -> Tensor:
    """Sum a vector (n,) as `lanes` threads do, a power of two: each adds every lanes-th number, then pairs are added.

    lanes=1 adds the numbers one after the other. Addition of rounded numbers is not associative: (a + b) + c is not
    always a + (b + c), so each number of lanes may give other last bits. More lanes have a smaller error, because each
    partial sum is shorter (N. Higham, The accuracy of floating point summation, 1993).
    """
    if lanes < 1 or lanes & (lanes - 1):
        raise ValueError(f"lanes is {lanes}: expected a power of two")
    total = x.new_zeros(lanes)
    for row in torch.cat([x, x.new_zeros(-len(x) % lanes)]).reshape(-1, lanes):
        total = total + row
    while len(total) > 1:
        half = len(total) // 2
        total = total[:half] + total[half:]
    return total[0]


def round_mantissa(x: Tensor, bits: int) -> Tensor:
    """Round float32 numbers to `bits` bits after the binary point (of 23), to nearest, ties to even; any shape.

    10 bits are TF32, to which tensor cores round the inputs of a matrix product, 7 are bfloat16; the exponent, and so
    the range, is that of float32. float16 also has 10 bits, but a small range.
    """
    if x.dtype != torch.float32 or not 0 < bits < 23:
        raise ValueError(f"x is {x.dtype} and bits {bits}: expected float32, and 1 to 22 bits")
    drop = 23 - bits
    pattern = x.view(torch.int32)
    last_kept = (pattern >> drop) & 1
    return ((pattern + (1 << (drop - 1)) - 1 + last_kept) & -(1 << drop)).view(torch.float32)


def rounding_errors() -> tuple[dict[str, float], dict[str, float]]:
    """Return the relative errors, against float64, of a sum in several orders, and of a matrix product in four formats.

    The sum is of 100,000 numbers between 0 and 1. The product is (256, 512) @ (512, 256) of normal numbers; products
    are added up in float32, and the error is the norm of the difference divided by the norm.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(100_000, generator=generator)
    exact = x.double().sum().item()
    sums = {f"lanes {lanes}": sum_in_lanes(x, lanes) for lanes in (1, 32, 1024)} | {"torch.sum": x.sum()}
    a, b = torch.randn(256, 512, generator=generator), torch.randn(512, 256, generator=generator)
    true = a.double() @ b.double()
    formats = {
        "float32": lambda values: values,
        "TF32": lambda values: round_mantissa(values, 10),
        "float16": lambda values: values.half().float(),
        "bfloat16": lambda values: values.bfloat16().float(),
    }
    products = {name: (cast(a) @ cast(b) - true).norm() / true.norm() for name, cast in formats.items()}
    errors = {name: abs(total.item() / exact - 1) for name, total in sums.items()}
    return errors, {name: error.item() for name, error in products.items()}


def main() -> None:
    """Print the axes of five kinds of data, shapes of mini-batches, three examples of broadcasting, rounding errors."""
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
    sums, products = rounding_errors()
    print("relative error of a sum of 100,000 numbers:", *(f"{name} {error:.0e};" for name, error in sums.items()))
    print("relative error of a matrix product:", *(f"{name} {error:.0e};" for name, error in products.items()))


if __name__ == "__main__":
    main()
