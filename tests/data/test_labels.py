"""How a file says its label."""

from pathlib import Path

import pytest

from kit.data.labels import is_cat, label_rule, pattern
from kit.errors import DataError


def test_a_capital_first_letter_means_cat():
    assert is_cat("images/Birman_12.jpg")
    assert not is_cat(Path("Images/beagle_12.jpg"))


@pytest.mark.parametrize("label", ["is_cat", is_cat])
def test_cat_or_dog_are_called_by_their_names(label):
    rule = label_rule(label)
    assert [rule(Path(name)) for name in ("Birman_1.jpg", "beagle_1.jpg")] == ["cat", "dog"]


def test_the_folder_is_the_label_by_default():
    assert label_rule("folder")(Path("data/rose/1.jpg")) == "rose"


def test_a_pattern_takes_its_group_from_the_name_or_with_a_slash_from_the_path():
    assert label_rule(r"^(.*)_\d+")(Path("great_dane_7.jpg")) == "great_dane"
    assert pattern(r"/(\w+)/\w+\.jpg$")("a/b/c.jpg") == "b"


@pytest.mark.parametrize(
    ("expression", "problem"),
    [(r"^.*_\d+", "has 0 groups; exactly one"), (r"(a)(b)", "has 2 groups"), (r"(a", "unterminated subpattern")],
)
def test_a_pattern_must_have_one_group(expression, problem):
    with pytest.raises(DataError, match=problem):
        label_rule(expression)


def test_a_name_that_the_pattern_misses_is_an_error():
    with pytest.raises(DataError, match="photo.jpg does not match"):
        label_rule(r"^(.*)_\d+")(Path("photo.jpg"))


def test_any_function_may_label_and_a_name_may_stand_for_it():
    assert label_rule(lambda path: len(path.name))(Path("ab.jpg")) == "6"
    assert label_rule("kit.data.labels:is_cat")(Path("Cat.jpg")) == "True"
    with pytest.raises(DataError, match="'kit.nothing:here' cannot be imported"):
        label_rule("kit.nothing:here")


def test_no_label_is_no_label():
    with pytest.raises(DataError, match="the label function gave None for x.jpg"):
        label_rule(lambda path: None)(Path("x.jpg"))
