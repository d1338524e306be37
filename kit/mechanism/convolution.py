"""Convolution and pooling: the same small filter, or the same maximum or mean, for every window of an image.

`im2col` copies each window into a column of a matrix, so that a convolution becomes one matrix product; `col2im` is its
transpose. Images are (n, channels, height, width). Run `python -m kit.mechanism.convolution` for an edge filter.
Sources: LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998; im2col:
Chellapilla, Puri and Simard, High performance convolutional neural networks for document processing, 2006.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kit.mechanism.autograd import Variable, accumulate_grad, as_leaf
from kit.mechanism.initializers import he
from kit.mechanism.layers import Array, Layer


def output_size(size: int, kernel_size: int, stride: int = 1, padding: int = 0) -> int:
    """Return the number of windows along one side: (size + 2 padding - kernel_size) / stride + 1, rounded down.

    As in PyTorch, pixels left over at the end are in no window. Raises `ValueError` if no window fits.
    """
    if kernel_size < 1 or stride < 1 or padding < 0:
        given = f"kernel_size {kernel_size}, stride {stride}, padding {padding}"
        raise ValueError(f"{given}: expected kernel_size and stride of at least 1 and padding of at least 0")
    if kernel_size > size + 2 * padding:
        problem = f"a window of {kernel_size} pixels does not fit on {size} with padding {padding}"
        raise ValueError(f"{problem}; use a larger image, a smaller kernel_size, more padding or fewer pooling layers")
    return (size + 2 * padding - kernel_size) // stride + 1


def im2col(x: Array, kernel_size: int, stride: int = 1, padding: int = 0, fill: float = 0.0) -> Array:
    """Copy every window into a column: (n, channels, h, w) -> (n, channels * kernel_size^2, windows).

    windows = output_size(h, ...) * output_size(w, ...), row by row; padding pixels have the value `fill`.
    For a `Variable` this is one operation of the graph, and its gradient is `col2im`.
    """
    if isinstance(x, Variable):
        columns = im2col(x.data, kernel_size, stride, padding, fill)
        return Variable(columns, [(x, lambda g: col2im(g, x.shape, kernel_size, stride, padding))])
    if x.ndim != 4 or x.numel() == 0:
        raise ValueError(f"expected images of shape (n, channels, height, width), none of them 0, got {tuple(x.shape)}")
    n, channels, h, w = x.shape
    count = output_size(h, kernel_size, stride, padding) * output_size(w, kernel_size, stride, padding)
    if padding:
        padded = x.new_full((n, channels, h + 2 * padding, w + 2 * padding), fill)
        padded[:, :, padding : padding + h, padding : padding + w] = x
        x = padded
    windows = x.unfold(2, kernel_size, stride).unfold(3, kernel_size, stride)  # (n, channels, rows, columns, k, k)
    return windows.permute(0, 1, 4, 5, 2, 3).reshape(n, channels * kernel_size**2, count)


def col2im(columns: Array, shape: Sequence[int], kernel_size: int, stride: int = 1, padding: int = 0) -> Array:
    """Add every number back to the pixel that `im2col` copied it from; overlapping windows add up.

    columns: (n, channels * kernel_size^2, windows); shape: that of the images (n, channels, h, w) and of the result.
    For one position (i, j) in the window, the pixels of all windows are different, so they can be added at once.
    For a `Variable` this is one operation of the graph, and its gradient is `im2col`.
    """
    if isinstance(columns, Variable):
        image = col2im(columns.data, shape, kernel_size, stride, padding)
        return Variable(image, [(columns, lambda g: im2col(g, kernel_size, stride, padding))])
    n, channels, h, w = shape
    rows, across = (output_size(size, kernel_size, stride, padding) for size in (h, w))
    columns = columns.reshape(n, channels, kernel_size, kernel_size, rows, across)
    image = columns.new_zeros(n, channels, h + 2 * padding, w + 2 * padding)
    for i in range(kernel_size):
        for j in range(kernel_size):
            image[:, :, i : i + stride * rows : stride, j : j + stride * across : stride] += columns[:, :, i, j]
    return image[:, :, padding : padding + h, padding : padding + w]


class Conv2d(Layer):
    """Convolution: (n, in_channels, h, w) -> (n, out_channels, rows, columns).

    y[o] at each window is the sum over channels and pixels of weight[o] * x, plus bias[o]. weight: (out_channels,
    in_channels, kernel_size, kernel_size), bias: (out_channels,). With kernel_size 1 it is a Linear layer applied to
    the channels of every pixel, which changes the number of channels only.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ):
        output_size(kernel_size, kernel_size, stride, padding)  # raises for invalid values
        self.weight = he((out_channels, in_channels, kernel_size, kernel_size))
        self.bias = torch.zeros(out_channels) if bias else None
        self.parameter_names = ("weight", "bias") if bias else ("weight",)
        self.window = (kernel_size, stride, padding)

    def forward(self, x: Array) -> Array:
        out_channels, in_channels, *_ = self.weight.shape
        if len(x.shape) != 4 or x.shape[1] != in_channels:
            raise ValueError(f"Conv2d expects images of shape (n, {in_channels}, height, width), got {tuple(x.shape)}")
        self.shape, self.columns = x.shape, im2col(x, *self.window)
        y = as_leaf(self.weight, x).reshape(out_channels, -1) @ self.columns
        if self.bias is not None:
            y = y + as_leaf(self.bias, x).reshape(-1, 1)
        return y.reshape(x.shape[0], out_channels, *(output_size(size, *self.window) for size in x.shape[2:]))

    def backward(self, grad: Tensor) -> Tensor:
        """dL/dW = g columns^T and dL/db = sum of g, over images and windows; dL/dx = col2im(W^T g)."""
        grad = grad.reshape(*grad.shape[:2], -1)
        accumulate_grad(self.weight, (grad @ self.columns.mT).sum(0).reshape(self.weight.shape))
        if self.bias is not None:
            accumulate_grad(self.bias, grad.sum((0, 2)))
        return col2im(self.weight.flatten(1).T @ grad, self.shape, *self.window)


class ConvTranspose2d(Layer):
    """Transposed convolution: (n, in_channels, h, w) -> (n, out_channels, rows, columns), larger where stride > 1.

    rows = (h - 1) stride - 2 padding + kernel_size, and columns from w. Every pixel adds weight * x to a window of the
    output, and overlapping windows add up. So forward is the backward pass of a `Conv2d` with this weight, and backward
    is its forward pass. weight: (in_channels, out_channels, kernel_size, kernel_size), bias: (out_channels,).
    Source: Long, Shelhamer and Darrell, Fully convolutional networks for semantic segmentation, 2015.
    """

    parameter_names = ("weight", "bias")

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        output_size(kernel_size, kernel_size, stride, padding)  # raises for invalid values
        self.weight = he((in_channels, out_channels, kernel_size, kernel_size))
        self.bias = torch.zeros(out_channels)
        self.window = (kernel_size, stride, padding)

    def forward(self, x: Array) -> Array:
        in_channels, out_channels, kernel_size, _ = self.weight.shape
        if len(x.shape) != 4 or x.shape[1] != in_channels:
            expected = f"images of shape (n, {in_channels}, height, width)"
            raise ValueError(f"ConvTranspose2d expects {expected}, got {tuple(x.shape)}")
        _, stride, padding = self.window
        self.shape, self.x = x.shape, x.reshape(*x.shape[:2], -1)
        size = [(size - 1) * stride - 2 * padding + kernel_size for size in x.shape[2:]]
        columns = as_leaf(self.weight, x).reshape(in_channels, -1).T @ self.x
        y = col2im(columns, (x.shape[0], out_channels, *size), *self.window)
        return y + as_leaf(self.bias, x).reshape(-1, 1, 1)

    def backward(self, grad: Tensor) -> Tensor:
        """dL/dW = x columns^T and dL/db = sum of g, over images and pixels; dL/dx = W columns, columns = im2col(g)."""
        columns = im2col(grad, *self.window)
        accumulate_grad(self.weight, (self.x @ columns.mT).sum(0).reshape(self.weight.shape))
        accumulate_grad(self.bias, grad.sum((0, 2, 3)))
        return (self.weight.flatten(1) @ columns).reshape(self.shape)


class Pool2d(Layer):
    """Base class of pooling: one number for each window of each channel, without parameters.

    `stride` is `kernel_size` by default. Raises `ValueError` where a window could contain padding only.
    """

    fill = 0.0

    def __init__(self, kernel_size: int, stride: int | None = None, padding: int = 0):
        self.window = (kernel_size, kernel_size if stride is None else stride, padding)
        if 2 * padding > kernel_size:
            raise ValueError(f"padding {padding} is more than half of kernel_size {kernel_size}")

    def windows(self, x: Array) -> Array:
        """(n, channels, h, w) -> (n, channels, kernel_size^2, windows)."""
        columns = im2col(x, *self.window, self.fill)
        self.shape = x.shape
        return columns.reshape(x.shape[0], x.shape[1], self.window[0] ** 2, -1)

    def image(self, values: Array) -> Array:
        """Arrange one value for each window as images: (n, channels, ..., windows) -> (n, channels, rows, columns)."""
        return values.reshape(*self.shape[:2], *(output_size(size, *self.window) for size in self.shape[2:]))


class MaxPool2d(Pool2d):
    """The maximum of each window; padding is minus infinity. A small shift of the image changes the output little."""

    fill = float("-inf")

    def forward(self, x: Array) -> Array:
        self.elements = self.windows(x)
        self.maximum = self.elements.amax(2, keepdim=True)
        return self.image(self.maximum)

    def backward(self, grad: Tensor) -> Tensor:
        """The gradient goes to the maximum of each window, in equal parts where several elements are equal."""
        is_max = (self.elements == self.maximum).to(grad.dtype)
        return col2im(grad.reshape(self.maximum.shape) * is_max / is_max.sum(2, keepdim=True), self.shape, *self.window)


class AvgPool2d(Pool2d):
    """The mean of each window; padding counts as zeros."""

    def forward(self, x: Array) -> Array:
        return self.image(self.windows(x).mean(2))

    def backward(self, grad: Tensor) -> Tensor:
        """Every element of a window gets g / kernel_size^2."""
        size = self.window[0] ** 2
        share = grad.reshape(*grad.shape[:2], 1, -1) / size
        return col2im(share.expand(-1, -1, size, -1), self.shape, *self.window)


class GlobalAvgPool(Layer):
    """The mean of each channel: (n, channels, h, w) -> (n, channels), for any image size.

    Source: Lin, Chen and Yan, Network in network, 2014.
    """

    def forward(self, x: Array) -> Array:
        if len(x.shape) != 4:
            raise ValueError(f"GlobalAvgPool expects images (n, channels, height, width), got {tuple(x.shape)}")
        self.shape = x.shape
        return x.mean((2, 3))

    def backward(self, grad: Tensor) -> Tensor:
        """Every pixel gets g / (h w)."""
        _, _, h, w = self.shape
        return (grad / (h * w))[:, :, None, None].expand(self.shape)


def main() -> None:
    """Print a filter that finds the vertical edges of a square, and output sizes for common settings."""
    image = torch.zeros(1, 1, 6, 6)
    image[:, :, 1:5, 2:5] = 1
    edge = Conv2d(1, 1, 3, padding=1)
    edge.weight = torch.tensor([[-1.0, 1.0, 0.0]] * 3).reshape(1, 1, 3, 3)
    print("a square, and the output of a filter for left (+) and right (-) edges:")
    for row, found in zip(image[0, 0].tolist(), edge(image)[0, 0].tolist(), strict=True):
        print(
            "  ", *(" #"[int(value)] for value in row), "   ", *(f"{value:+.0f}" if value else " ." for value in found)
        )
    for kernel_size, stride, padding in [(3, 1, 0), (3, 1, 1), (3, 2, 1), (2, 2, 0), (1, 1, 0)]:
        size = output_size(28, kernel_size, stride, padding)
        print(f"28 pixels, kernel_size {kernel_size}, stride {stride}, padding {padding} -> {size}")


if __name__ == "__main__":
    main()
