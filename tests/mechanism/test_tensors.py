"""Tensors: the names of the axes, and broadcasting by hand compared with torch's."""

from itertools import product

import pytest
import torch

from kit.mechanism.tensors import AXES, add, append_ones, broadcast, broadcast_shapes, named_shape

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
    assert append_ones(torch.zeros(2, 3, dtype=torch.float64)).dtype == torch.float64
    with pytest.raises(ValueError, match=r"x has shape \(3,\): expected \(n, features\)"):
        append_ones(torch.zeros(3))
