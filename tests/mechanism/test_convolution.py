"""Convolution and pooling compared with plain loops and with PyTorch. Gradients: test_agreement.py."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from kit.mechanism.autograd import Variable
from kit.mechanism.convolution import (
    AvgPool2d,
    Conv2d,
    ConvTranspose2d,
    GlobalAvgPool,
    MaxPool2d,
    col2im,
    im2col,
    output_size,
)
from kit.mechanism.layers import Linear

WINDOWS = [(1, 1, 0), (2, 2, 0), (3, 1, 0), (3, 1, 1), (3, 2, 1), (2, 3, 0), (5, 1, 2), (3, 2, 0)]


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("size", [5, 6, 7, 28])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_the_output_size_is_how_many_windows_fit(size, window):
    kernel, stride, padding = window
    starts = range(-padding, size + padding - kernel + 1, stride)
    assert output_size(size, kernel, stride, padding) == len(starts)


def test_the_output_sizes_of_common_settings():
    assert output_size(4, 3) == 2  # a 3x3 filter shrinks a 4x4 image to 2x2
    assert output_size(4, 3, padding=1) == 4  # padding of 1 keeps the size
    assert output_size(7, 3, stride=2) == 3
    assert output_size(28, 5, padding=2) == 28
    assert output_size(8, 3, 2, 1) == 4  # (8 + 2 - 3) / 2 + 1 = 4.5: half a window is none


def test_a_window_that_does_not_fit_is_refused_with_all_numbers():
    with pytest.raises(ValueError, match="a window of 5 pixels does not fit on 2 with padding 1; use a larger image"):
        output_size(2, 5, 1, 1)
    for numbers in [(0, 1, 0), (3, 0, 0), (3, 1, -1)]:
        with pytest.raises(ValueError, match="kernel_size {}, stride {}, padding {}: expected".format(*numbers)):
            output_size(8, *numbers)
    with pytest.raises(ValueError, match="kernel_size 3, stride 0, padding 0: expected"):
        Conv2d(1, 1, 3, stride=0)


def test_im2col_lays_every_window_out_as_a_column():
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert im2col(image, 2)[0].T.tolist() == [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_im2col_and_col2im_are_pytorch_s_unfold_and_fold(window):
    kernel, stride, padding = window
    x = rand(2, 3, 7, 6)
    columns = im2col(x, *window)
    assert torch.equal(columns, F.unfold(x, kernel, padding=padding, stride=stride))
    folded = F.fold(columns, (7, 6), kernel, padding=padding, stride=stride)
    torch.testing.assert_close(col2im(columns, x.shape, *window), folded, rtol=1e-14, atol=1e-14)


def test_col2im_counts_in_how_many_windows_a_pixel_is():
    ones = torch.ones(1, 1, 4, 4)
    counted = col2im(im2col(ones, 3), ones.shape, 3)[0, 0]
    assert counted.tolist() == [[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_col2im_is_the_transpose_of_im2col(window):
    x = rand(2, 2, 7, 8)
    columns = rand(*im2col(x, *window).shape, seed=1)
    there, back = (im2col(x, *window) * columns).sum(), (x * col2im(columns, x.shape, *window)).sum()
    assert there.item() == pytest.approx(back.item(), rel=1e-12)


def test_im2col_of_a_variable_is_one_operation():
    x = Variable(rand(1, 1, 3, 3))
    columns = im2col(x, 2)
    assert [source for source, _ in columns.sources] == [x]
    columns.sum().backward()
    assert x.grad[0, 0].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]


def test_a_convolution_is_six_loops():
    x, layer = rand(2, 3, 5, 6), Conv2d(3, 4, 3, stride=2, padding=1).to(torch.float64)
    layer.bias = rand(4, seed=2)
    y = layer(x)
    padded = torch.zeros(2, 3, 7, 8, dtype=torch.float64)
    padded[:, :, 1:6, 1:7] = x
    for n, o, i, j in itertools.product(*(range(size) for size in y.shape)):
        window = padded[n, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        assert y[n, o, i, j].item() == pytest.approx(((window * layer.weight[o]).sum() + layer.bias[o]).item())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_conv2d_is_pytorch_s(window, bias):
    _, stride, padding = window
    x, layer = rand(2, 3, 9, 7), Conv2d(3, 4, *window, bias=bias).to(torch.float64)
    expected = F.conv2d(x, layer.weight, layer.bias, stride, padding)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
    assert len(layer.parameters()) == 1 + bias


def test_padding_of_half_the_kernel_keeps_the_size():
    for kernel in (1, 3, 5, 7):
        assert Conv2d(1, 1, kernel, padding=kernel // 2)(torch.rand(1, 1, 9, 6)).shape == (1, 1, 9, 6)


def test_a_1x1_convolution_is_a_linear_layer_at_every_pixel():
    mix, linear, x = Conv2d(5, 3, 1), Linear(5, 3), torch.rand(2, 5, 4, 4)
    linear.weight, linear.bias = mix.weight.reshape(3, 5), mix.bias
    pixels = linear(x.permute(0, 2, 3, 1).reshape(-1, 5)).reshape(2, 4, 4, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(mix(x), pixels)


def test_a_filter_finds_its_pattern_at_any_position():
    layer, pattern = Conv2d(1, 1, 3, bias=False), torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]])
    layer.weight = pattern.reshape(1, 1, 3, 3)
    for top, left in [(0, 0), (2, 5), (6, 1)]:
        image = torch.zeros(1, 1, 9, 9)
        image[0, 0, top : top + 3, left : left + 3] = pattern
        assert divmod(layer(image)[0, 0].argmax().item(), 7) == (top, left)


def test_conv2d_says_which_images_it_expects():
    with pytest.raises(ValueError, match=r"Conv2d expects images of shape \(n, 3, height, width\), got \(2, 1, 8, 8\)"):
        Conv2d(3, 4, 3)(torch.ones(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"got \(3, 8, 8\)"):
        Conv2d(3, 4, 3)(torch.ones(3, 8, 8))
    with pytest.raises(ValueError, match=r"none of them 0, got \(0, 3, 8, 8\)"):
        Conv2d(3, 4, 3)(torch.ones(0, 3, 8, 8))


@pytest.mark.parametrize(("kernel_size", "stride", "padding"), [(3, 1, 1), (4, 2, 1), (2, 2, 0), (3, 2, 0)])
def test_a_transposed_convolution_is_pytorchs_and_the_backward_pass_of_a_convolution(kernel_size, stride, padding):
    window = (kernel_size, stride, padding)
    layer, x = ConvTranspose2d(3, 2, *window).to(torch.float64), rand(2, 3, 4, 5)
    layer.bias = rand(2)
    y = layer(x)
    theirs = F.conv_transpose2d(x, layer.weight, layer.bias, stride=stride, padding=padding)
    torch.testing.assert_close(y, theirs, rtol=1e-12, atol=1e-12)
    conv = Conv2d(2, 3, *window, bias=False).to(torch.float64)
    conv.weight = layer.weight
    assert conv(y).shape == x.shape
    torch.testing.assert_close(conv.backward(x), y - layer.bias[:, None, None], rtol=1e-12, atol=1e-12)


def test_col2im_is_an_operation_of_the_graph_whose_gradient_is_im2col():
    columns, weights = Variable(rand(2, 12, 6)), rand(2, 3, 3, 4)
    (col2im(columns, (2, 3, 3, 4), 2) * weights).sum().backward()
    assert torch.equal(columns.grad, im2col(weights, 2))


def test_a_transposed_convolution_says_which_shape_it_expects():
    with pytest.raises(
        ValueError, match=r"ConvTranspose2d expects images of shape \(n, 3, height, width\), got \(2, 2"
    ):
        ConvTranspose2d(3, 2, 4)(torch.ones(2, 2, 4, 4))
    with pytest.raises(ValueError, match=r"got \(1, 3, 4\)"):
        ConvTranspose2d(3, 2, 4)(torch.ones(1, 3, 4))
    with pytest.raises(ValueError, match="expected kernel_size and stride of at least 1"):
        ConvTranspose2d(3, 2, 4, 0)


@pytest.mark.parametrize("window", [(2, 2, 0), (3, 2, 0), (3, 1, 1), (3, 2, 1), (2, 1, 1)], ids=str)
def test_pooling_is_pytorch_s(window):
    x = rand(2, 3, 7, 6)
    torch.testing.assert_close(MaxPool2d(*window)(x), F.max_pool2d(x, *window), rtol=0, atol=0)
    torch.testing.assert_close(AvgPool2d(*window)(x), F.avg_pool2d(x, *window), rtol=1e-13, atol=1e-15)


def test_global_average_pooling_is_one_number_a_channel_for_any_size():
    for shape in [(2, 3, 4, 5), (2, 3, 1, 9)]:
        torch.testing.assert_close(GlobalAvgPool()(rand(*shape)), rand(*shape).mean((2, 3)))
    with pytest.raises(ValueError, match=r"GlobalAvgPool expects images .* got \(2, 3\)"):
        GlobalAvgPool()(torch.ones(2, 3))


def test_pooling_has_nothing_to_learn_and_keeps_the_channels():
    layer = MaxPool2d(2)
    assert layer.parameters() == [] and layer(torch.rand(2, 7, 4, 4)).shape == (2, 7, 2, 2)


def test_max_pooling_ignores_a_small_shift():
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 0, 0] = 1
    assert torch.equal(MaxPool2d(2)(image), MaxPool2d(2)(image.roll((1, 1), (2, 3))))


def test_the_gradient_of_max_pooling_goes_to_the_maximum_in_equal_parts():
    layer = MaxPool2d(2)
    layer(torch.tensor([[[[1.0, 5, 7, 7], [2, 3, 0, 7]]]]))
    back = layer.backward(torch.tensor([[[[6.0, 9.0]]]]))
    assert back.tolist() == [[[[0, 6, 3, 3], [0, 0, 0, 3]]]]


def test_padding_never_wins_a_max_pool_and_never_fills_a_window():
    assert MaxPool2d(3, 1, 1)(torch.full((1, 1, 3, 3), -5.0)).unique().tolist() == [-5]
    with pytest.raises(ValueError, match="padding 2 is more than half of kernel_size 3"):
        MaxPool2d(3, 1, 2)
