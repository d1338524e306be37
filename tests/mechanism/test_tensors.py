"""Tensors: the names of the axes, and broadcasting by hand compared with torch's."""

from itertools import product

import pytest
import torch

from kit.mechanism.tensors import (
    AXES,
    add,
    append_ones,
    broadcast,
    broadcast_shapes,
    named_shape,
    round_mantissa,
    rounding_errors,
    sum_in_lanes,
)

SHAPES = [(), (1,), (3,), (4,), (1, 3), (4, 1), (4, 3), (2, 1, 3), (2, 4, 1), (0, 3), (1, 1, 1, 1)]


@pytest.mark.parametrize(
    ("kind", "shape", "names"),
    [
        ("tabular", (64, 5), {"n": 64, "features": 5}),
        ("text", (64, 20, 300), {"n": 64, "words": 20, "features": 300}),
        ("grey", (64, 28, 30), {"n": 64, "h": 28, "w": 30}),
        ("colour", (64, 3, 28, 30), {"n": 64, "channels": 3, "h": 28, "w": 30}),
        ("video", (8, 16, 3, 28, 30), {"n": 8, "frames": 16, "channels": 3, "h": 28, "w": 30}),
    ],
)
def test_each_kind_of_data_has_its_axes_and_the_first_counts_the_samples(kind, shape, names):
    assert named_shape(torch.zeros(shape), kind) == names
    assert AXES[kind][0] == "n"


def test_a_wrong_number_of_axes_is_refused_by_name():
    with pytest.raises(ValueError, match=r"colour data has the axes \(n, channels, h, w\), got shape \(28, 28, 3\)"):
        named_shape(torch.zeros(28, 28, 3), "colour")


def test_channels_in_the_last_axis_are_refused():
    with pytest.raises(ValueError, match=r"\(8, 28, 28, 3\) has its channels last.*use permute\(0, 3, 1, 2\)"):
        named_shape(torch.zeros(8, 28, 28, 3), "colour")
    assert named_shape(torch.zeros(8, 28, 28, 3).permute(0, 3, 1, 2), "colour")["channels"] == 3
    for channels in (1, 3, 4):
        with pytest.raises(ValueError, match="has its channels last"):
            named_shape(torch.zeros(8, 28, 28, channels), "colour")
        assert named_shape(torch.zeros(8, channels, 28, 3), "colour")["channels"] == channels
    assert named_shape(torch.zeros(8, 2, 28, 28), "colour")["channels"] == 2


def test_an_unknown_kind_is_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match='kind is "sound": expected one of tabular, text, grey, colour, video'):
        named_shape(torch.zeros(3), "sound")


def test_broadcasting_by_hand_accepts_refuses_and_computes_what_torch_does():
    for a, b in product(SHAPES, SHAPES):
        try:
            judge = tuple(torch.broadcast_shapes(a, b))
        except RuntimeError:
            with pytest.raises(ValueError):
                broadcast_shapes(a, b)
        else:
            assert broadcast_shapes(a, b) == judge
            x, y = torch.rand(a), torch.rand(b)
            assert torch.equal(add(x, y), x + y)


def test_shapes_that_cannot_be_joined_are_both_named():
    with pytest.raises(ValueError, match=r"shapes \(5, 3\) and \(5,\) cannot be broadcast: 3 meets 5; .* or a 1"):
        add(torch.zeros(5, 3), torch.zeros(5))


def test_broadcast_is_torchs_expand_and_copies_nothing():
    x = torch.rand(4, 1)
    expanded = broadcast(x, (2, 4, 3))
    assert torch.equal(expanded, x.expand(2, 4, 3))
    assert expanded.stride() == (0, 1, 0)
    assert expanded.data_ptr() == x.data_ptr()


def test_broadcast_works_on_a_slice_of_a_larger_tensor():
    x = torch.arange(12.0).reshape(3, 4)[1:, 2:3]
    assert torch.equal(broadcast(x, (2, 5)), x.expand(2, 5))


def test_only_an_axis_of_size_one_can_grow():
    with pytest.raises(ValueError, match=r"shape \(4, 3\) cannot expand to \(1, 3\)"):
        broadcast(torch.zeros(4, 3), (1, 3))
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(4,\) cannot be broadcast"):
        broadcast(torch.zeros(3), (4,))


def test_a_bias_is_the_weight_of_a_constant_input_of_one():
    x, weight, bias = torch.rand(5, 3), torch.rand(3, 2), torch.rand(1, 2)
    torch.testing.assert_close(append_ones(x) @ torch.cat([weight, bias]), x @ weight + bias)


def test_ones_are_added_to_a_table_only():
    for dtype in (torch.float16, torch.float64):
        assert append_ones(torch.zeros(2, 3, dtype=dtype)).dtype == dtype
    with pytest.raises(ValueError, match=r"x has shape \(3,\): expected \(n, features\)"):
        append_ones(torch.zeros(3))


def test_one_lane_adds_the_numbers_in_their_order_and_two_lanes_every_second_one():
    x = torch.rand(1001, generator=torch.Generator().manual_seed(0))
    one = torch.zeros(())
    for value in x:
        one = one + value
    assert torch.equal(sum_in_lanes(x, 1), one)
    assert torch.equal(sum_in_lanes(x, 2), sum_in_lanes(x[::2], 1) + sum_in_lanes(x[1::2], 1))
    halves = [sum_in_lanes(x[start::4], 1) for start in range(4)]
    assert torch.equal(sum_in_lanes(x, 4), (halves[0] + halves[2]) + (halves[1] + halves[3]))
    assert sum_in_lanes(torch.ones(5), 8).item() == 5


def test_another_order_gives_other_bits_and_more_lanes_a_smaller_error():
    sums, products = rounding_errors()
    assert sums["lanes 1"] > 5 * sums["lanes 32"] > 0
    assert list(products) == ["float32", "TF32", "float16", "bfloat16"]
    assert products["float32"] < 1e-6 < 1e-4 < products["TF32"] < 1e-3 < products["bfloat16"] < 1e-2
    assert products["float16"] == pytest.approx(products["TF32"], rel=0.01)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
def test_rounding_the_mantissa_is_that_of_bfloat16_and_float16(scale):
    x = scale * torch.randn(4000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(round_mantissa(x, 7), x.bfloat16().float())
    normal = x[(x.abs() > 6.2e-5) & (x.abs() < 65000)]
    assert torch.equal(round_mantissa(normal, 10), normal.half().float())


def test_ties_are_rounded_to_even_and_infinity_stays():
    x = torch.tensor([1 + 2**-11, 1 + 3 * 2**-11, -1 - 2**-11, float("inf"), 0.0, 1e38])
    rounded = round_mantissa(x, 10).tolist()
    assert rounded[:5] == [1, 1 + 2**-9, -1, float("inf"), 0]
    assert rounded[5] == pytest.approx(1e38, rel=2**-11)


def test_lanes_and_bits_that_cannot_be_are_refused():
    for lanes in (0, 3):
        with pytest.raises(ValueError, match=f"lanes is {lanes}: expected a power of two"):
            sum_in_lanes(torch.ones(4), lanes)
    for x, bits in ((torch.ones(2).double(), 10), (torch.ones(2), 0), (torch.ones(2), 23)):
        with pytest.raises(ValueError, match=rf"x is {x.dtype} and bits {bits}: expected float32, and 1 to 22 bits"):
            round_mantissa(x, bits)
