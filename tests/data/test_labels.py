"""How a file says its label."""

from pathlib import Path

import pytest

from kit.data.labels import is_cat, label_rule, parent_folder, pattern
from kit.errors import DataError
from kit.recipe import label_name


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
    [
        (r"^.*_\d+", "has 0 groups; exactly one was expected"),
        (r"(a)(b)", "has 2 groups"),
        (r"(a", r"label pattern '\(a': .*unterminated"),
    ],
)
def test_a_pattern_must_have_one_group(expression, problem):
    with pytest.raises(DataError, match=problem):
        label_rule(expression)


def test_a_name_that_the_pattern_misses_is_an_error():
    with pytest.raises(DataError, match="photo.jpg does not match"):
        label_rule(r"^(.*)_\d+")(Path("photo.jpg"))


def test_any_function_may_label_and_a_name_may_stand_for_it():
    assert label_rule(lambda path: len(path.name))(Path("ab.jpg")) == "6"
    assert label_rule("posixpath:basename")(Path("a/b.jpg")) == "b.jpg"


def test_a_rule_means_the_same_when_it_is_read_back_by_its_name():
    for rule in (is_cat, pattern(r"^(.)")):
        assert label_rule(label_name(rule))(Path("Cat.jpg")) == label_rule(rule)(Path("Cat.jpg"))


@pytest.mark.parametrize("name", ["kit.nothing:here", "__main__:train.<locals>.<lambda>"])
def test_a_function_that_cannot_be_had_again_is_named(name):
    with pytest.raises(DataError, match=f"{name}' cannot be imported") as caught:
        label_rule(name)
    assert "give another --label" in caught.value.fix


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        (lambda path: None, "the label rule gave None for x.jpg"),
        (r"^(\d*)x", "the label rule gave '' for x.jpg"),
        (r"^(\d+)?x", "the label rule gave None for x.jpg"),
        (
            lambda path: path.name.split("_")[1],
            "the label function failed on x.jpg .IndexError: list index out of range",
        ),
    ],
)
def test_no_label_is_no_label(rule, problem):
    with pytest.raises(DataError, match=problem):
        label_rule(rule)(Path("x.jpg"))


def test_fastais_labellers_are_label_functions():
    from fastai.vision.all import RegexLabeller, parent_label

    assert label_rule(RegexLabeller(r"/([^/]+)_\d+.jpg$"))(Path("a/beagle_1.jpg")) == "beagle"
    assert label_rule(parent_label)(Path("rose/1.jpg")) == "rose"
    assert label_rule(parent_folder) is label_rule("folder")
