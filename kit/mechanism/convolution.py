"""Convolution: one small filter looks at every window of an image, so that a thing is found wherever it stands.

`im2col` lays every window out as a column of a matrix, and convolution becomes one matrix product; `col2im` is its way
back, and adds up where windows overlap. Pooling takes the largest or the mean of each window. Images are (n, channels,
height, width). Source: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition",
1998; im2col: Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing",
2006.

    python -m kit.mechanism.convolution
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kit.mechanism.autograd import Variable, accumulate, like
from kit.mechanism.initializers import he
from kit.mechanism.layers import Array, Layer


def output_size(size: int, kernel: int, stride: int = 1, padding: int = 0) -> int:
    """How many windows fit on a side of `size` pixels: (size + 2 padding - kernel) / stride + 1, rounded down.

    Pixels left over at the far edge are in no window, as in PyTorch. Raises `ValueError` where not one window fits.
    """
    if kernel < 1 or stride < 1 or padding < 0:
        given = f"kernel {kernel}, stride {stride}, padding {padding}"
        raise ValueError(f"{given}: expected kernel and stride of at least 1 and padding of at least 0")
    if kernel > size + 2 * padding:
        problem = f"a window of {kernel} pixels does not fit on {size} with padding {padding}"
        raise ValueError(f"{problem}; use a larger image, a smaller kernel, more padding or fewer pooling layers")
    return (size + 2 * padding - kernel) // stride + 1


def im2col(x: Array, kernel: int, stride: int = 1, padding: int = 0, fill: float = 0.0) -> Array:
    """Every window as a column: (n, channels, h, w) -> (n, channels * kernel * kernel, places).

    places = output_size(h, ...) * output_size(w, ...), row by row. Around the image stand `padding` pixels of `fill`.
    In our own graph im2col is one operation, whose rule is `col2im`.
    """
    if isinstance(x, Variable):
        columns = im2col(x.data, kernel, stride, padding, fill)
        return Variable(columns, [(x, lambda g: col2im(g, x.shape, kernel, stride, padding))])
    if x.ndim != 4 or x.numel() == 0:
        raise ValueError(f"expected images of shape (n, channels, height, width), none of them 0, got {tuple(x.shape)}")
    n, channels, h, w = x.shape
    places = output_size(h, kernel, stride, padding) * output_size(w, kernel, stride, padding)
    if padding:
        padded = x.new_full((n, channels, h + 2 * padding, w + 2 * padding), fill)
        padded[:, :, padding : padding + h, padding : padding + w] = x
        x = padded
    windows = x.unfold(2, kernel, stride).unfold(3, kernel, stride)  # (n, channels, rows, across, kernel, kernel)
    return windows.permute(0, 1, 4, 5, 2, 3).reshape(n, channels * kernel * kernel, places)


def col2im(columns: Tensor, shape: Sequence[int], kernel: int, stride: int = 1, padding: int = 0) -> Tensor:
    """The way back: every number to the pixel that it came from, the sum where windows overlap.

    columns: (n, channels * kernel * kernel, places); shape: (n, channels, h, w), which is also the result's. It goes
    place by place of the filter, because all windows' numbers for one such place lie on a grid of different pixels.
    """
    n, channels, h, w = shape
    rows, across = (output_size(size, kernel, stride, padding) for size in (h, w))
    columns = columns.reshape(n, channels, kernel, kernel, rows, across)
    image = columns.new_zeros(n, channels, h + 2 * padding, w + 2 * padding)
    for i in range(kernel):
        for j in range(kernel):
            image[:, :, i : i + stride * rows : stride, j : j + stride * across : stride] += columns[:, :, i, j]
    return image[:, :, padding : padding + h, padding : padding + w]


class Conv2d(Layer):
    """y[o] = the sum over channels and window of weight[o] * x, plus bias[o], at every place.

    x (n, inputs, h, w), weight (outputs, inputs, kernel, kernel), bias (outputs,), y (n, outputs, rows, columns). Every
    output channel has a filter for every input channel and one bias. With kernel 1 it is a Linear layer at every pixel,
    which changes the number of channels and nothing else.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        generator: torch.Generator | None = None,
    ):
        output_size(kernel, kernel, stride, padding)  # refuses numbers that can never work
        self.weight = he((outputs, inputs, kernel, kernel), generator=generator)
        self.bias = torch.zeros(outputs) if bias else None
        self.names = ("weight", "bias") if bias else ("weight",)
        self.window = (kernel, stride, padding)

    def forward(self, x: Array) -> Array:
        """(n, inputs, h, w) -> (n, outputs, rows, columns)."""
        outputs, inputs, *_ = self.weight.shape
        if len(x.shape) != 4 or x.shape[1] != inputs:
            raise ValueError(f"Conv2d expects images of shape (n, {inputs}, height, width), got {tuple(x.shape)}")
        self.shape, self.columns = x.shape, im2col(x, *self.window)
        y = like(x, self.weight).reshape(outputs, -1) @ self.columns
        if self.bias is not None:
            y = y + like(x, self.bias).reshape(-1, 1)
        return y.reshape(len(y.data), outputs, *(output_size(size, *self.window) for size in x.shape[2:]))

    def backward(self, grad: Tensor) -> Tensor:
        """dL/dW = g columns^T and dL/db = sum of g, over images and places; dL/dx = col2im(W^T g)."""
        grad = grad.reshape(*grad.shape[:2], -1)
        accumulate(self.weight, (grad @ self.columns.mT).sum(0).reshape(self.weight.shape))
        if self.bias is not None:
            accumulate(self.bias, grad.sum((0, 2)))
        return col2im(self.weight.flatten(1).T @ grad, self.shape, *self.window)


class Pool2d(Layer):
    """One number for each window of each channel; nothing is learned. Windows stand side by side unless `stride` says.

    Raises `ValueError` where a window could hold nothing but padding.
    """

    fill = 0.0

    def __init__(self, kernel: int, stride: int | None = None, padding: int = 0):
        self.window = (kernel, kernel if stride is None else stride, padding)
        if 2 * padding > kernel:
            raise ValueError(f"padding {padding} is over half of the window of {kernel}: a window could miss the image")

    def windows(self, x: Array) -> Array:
        """(n, channels, h, w) -> (n, channels, kernel * kernel, places)."""
        columns = im2col(x, *self.window, self.fill)
        self.shape = x.shape
        return columns.reshape(x.shape[0], x.shape[1], self.window[0] ** 2, -1)

    def image(self, values: Array) -> Array:
        """One value a window, as images again: (n, channels, ..., places) -> (n, channels, rows, columns)."""
        return values.reshape(*self.shape[:2], *(output_size(size, *self.window) for size in self.shape[2:]))

    def spread(self, windows: Tensor) -> Tensor:
        """Gradients of windows' elements (n, channels, kernel * kernel, places) -> of pixels (n, channels, h, w)."""
        return col2im(windows, self.shape, *self.window)


class MaxPool2d(Pool2d):
    """The largest of each window: whether a thing is there, not exactly where. Padding is below every number."""

    fill = float("-inf")

    def forward(self, x: Array) -> Array:
        """(n, channels, h, w) -> (n, channels, rows, columns)."""
        self.elements = self.windows(x)
        self.top = self.elements.amax(2, keepdim=True)
        return self.image(self.top)

    def backward(self, grad: Tensor) -> Tensor:
        """The gradient goes to the largest; equal ones share it."""
        chosen = (self.elements == self.top).to(grad.dtype)
        return self.spread(grad.reshape(self.top.shape) * chosen / chosen.sum(2, keepdim=True))


class AvgPool2d(Pool2d):
    """The mean of each window; padding counts as zeros."""

    def forward(self, x: Array) -> Array:
        """(n, channels, h, w) -> (n, channels, rows, columns)."""
        return self.image(self.windows(x).mean(2))

    def backward(self, grad: Tensor) -> Tensor:
        """Every element of a window gets the same share."""
        elements = self.window[0] ** 2
        share = grad.reshape(*grad.shape[:2], 1, -1) / elements
        return self.spread(share.expand(-1, -1, elements, -1))


class GlobalAvgPool(Layer):
    """The mean of each whole channel: (n, channels, h, w) -> (n, channels), whatever the image's size.

    Source: Lin, Chen and Yan, "Network in network", 2014.
    """

    def forward(self, x: Array) -> Array:
        """(n, channels, h, w) -> (n, channels)."""
        if len(x.shape) != 4:
            raise ValueError(f"GlobalAvgPool expects images (n, channels, height, width), got {tuple(x.shape)}")
        self.shape = x.shape
        return x.mean((2, 3))

    def backward(self, grad: Tensor) -> Tensor:
        """Every pixel gets the same share: g / (h w)."""
        _, _, h, w = self.shape
        return (grad / (h * w))[:, :, None, None].expand(self.shape)


def main() -> None:
    """A filter that finds the left edge of a square; sizes; and a 1x1 convolution that is a Linear layer."""
    image = torch.zeros(1, 1, 6, 6)
    image[:, :, 1:5, 2:5] = 1
    edge = Conv2d(1, 1, 3, padding=1)
    edge.weight = torch.tensor([[-1.0, 1.0, 0.0]] * 3).reshape(1, 1, 3, 3)
    print("a square, and where its left (+) and right (-) edges are:")
    for row, found in zip(image[0, 0].tolist(), edge(image)[0, 0].tolist(), strict=True):
        numbers = [f"{value:+.0f}" if value else " ." for value in found]
        print("  ", *(" #"[int(value)] for value in row), "   ", *numbers)
    for kernel, stride, padding in [(3, 1, 0), (3, 1, 1), (3, 2, 1), (2, 2, 0), (1, 1, 0)]:
        size = output_size(28, kernel, stride, padding)
        print(f"28 pixels, kernel {kernel}, stride {stride}, padding {padding} -> {size}")
    x, mix = torch.rand(1, 3, 4, 4), Conv2d(3, 2, 1)
    pixels = x.permute(0, 2, 3, 1).reshape(16, 3) @ mix.weight.reshape(2, 3).T
    print("1x1 convolution = Linear at every pixel:", mix(x).permute(0, 2, 3, 1).reshape(16, 2).allclose(pixels))


if __name__ == "__main__":
    main()
