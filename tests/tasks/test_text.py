"""Figures as people read them."""

import pytest

from kit.tasks.text import listed, one_in, percent


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


@pytest.mark.parametrize(
    "rate, text, limit",
    [
        (0.0054, "about 1 in 190", "about 1 in 180"),
        (0.0493, "about 1 in 20", "about 1 in 20"),
        (0.068, "about 1 in 15", "about 1 in 14"),
        (0.29, "about 1 in 3", "about 1 in 3"),
        (0.31, "about 3 in 10", "about 4 in 10"),
        (0.97, "about 9 in 10", "about 10 in 10"),
        (0.000012, "about 1 in 83,000", "about 1 in 83,000"),
    ],
)
def test_a_rate_in_words_and_as_a_limit_never_less_than_it_is(rate, text, limit):
    assert (one_in(rate), one_in(rate, at_most=True)) == (text, limit)


def test_names_in_a_sentence_are_few_and_short():
    assert [listed("abcdef"[:count]) for count in (1, 2, 4, 5)] == [
        "a",
        "a and b",
        "a, b, c and d",
        "a, b, c and 2 more",
    ]
    assert listed(["x" * 40, "dog"]) == f"{'x' * 29}… and dog"
