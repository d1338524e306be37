"""Figures as people read them."""

import pytest

from kit.tasks.text import percent


@pytest.mark.parametrize(
    "value, text",
    [
        (0.5, "50.0 %"),
        (1.0, "100.0 %"),
        (0.9999, "over 99.9 %"),
        (0.0, "0.0 %"),
        (0.0001, "under 0.1 %"),
        (0.0278, "2.8 %"),
    ],
)
def test_what_is_not_quite_all_or_nothing_is_not_shown_as_that(value, text):
    assert percent(value) == text


@pytest.mark.parametrize("value, text", [(0.996, "over 99 %"), (0.004, "under 1 %"), (0.874, "87 %"), (1.0, "100 %")])
def test_without_digits_too(value, text):
    assert percent(value, 0) == text
