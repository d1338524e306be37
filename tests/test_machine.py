"""How many cores there are; freed memory stays with the process meanwhile, and goes back afterwards."""

import platform

import numpy as np
import pytest
from conftest import resident

from kit.machine import fp32_convolutions, keep_freed_memory

PIECE = 200_000_000


def held_after_a_large_array() -> int:
    before = resident()
    np.ones(PIECE, np.uint8)
    return resident() - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone gives pieces back one by one")
def test_a_large_piece_is_kept_meanwhile_and_given_back_after():
    before = resident()
    with keep_freed_memory():
        assert held_after_a_large_array() > PIECE / 2
    assert resident() - before < PIECE / 2


def test_what_happens_meanwhile_comes_through_and_the_memory_goes_back_all_the_same():
    before = resident()
    with pytest.raises(RuntimeError, match="on purpose"), keep_freed_memory():
        held_after_a_large_array()
        raise RuntimeError("on purpose")
    assert resident() - before < PIECE / 2


def test_convolutions_are_in_fp32_also_where_the_user_has_set_torchs_newer_names():
    import torch

    conv, usual = torch.backends.cudnn.conv, torch.backends.cudnn.conv.fp32_precision
    for own in (usual, "ieee"):  # with "ieee", torch refuses to read `allow_tf32`
        conv.fp32_precision = own
        try:
            with fp32_convolutions():
                assert conv.fp32_precision != "tf32"
            assert conv.fp32_precision == own
        finally:
            conv.fp32_precision = usual
    assert torch.backends.cudnn.allow_tf32
