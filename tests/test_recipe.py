"""The recipe: checked when made, explained field by field, the same in Python, JSON and on the command line."""

import pickle
from dataclasses import fields, replace
from functools import partial

import pytest
from conftest import write_shapes

from kit import Recipe
from kit.cli.options import explanations
from kit.data.labels import Pattern, is_cat
from kit.errors import RecipeError


def test_every_field_has_a_line_of_explanation():
    assert set(explanations()) == {field.name for field in fields(Recipe)}
    assert all(text.endswith(".") for text in explanations().values())


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("epochs", 0, "epochs=0 is not a whole number from 1 to 100000"),
        ("epochs", 1.5, "epochs=1.5 is not a whole number"),
        ("epochs", True, "epochs=True is not a whole number"),
        ("rate", -1, "rate=-1 is not a number from 1e-12 to 100"),
        ("rate", float("nan"), "rate=nan is not a number"),
        ("batch", 1, "batch=1 is not a whole number from 2"),
        ("valid", 1.0, "valid=1.0 is not a number from 0.01 to 0.9"),
        ("resize", "cropp", "resize='cropp' is not known. Did you mean \"crop\"?"),
        ("split", "sorted", "split='sorted' is not known."),
        ("presize", 100, "presize=100 is less than size=224"),
        ("rate", "fast", "rate='fast' is not a number from 1e-12 to 100, or auto"),
        ("epochs", "auto", "epochs='auto' is not a whole number"),
        ("epochs", None, "epochs=None is not a whole number"),
        ("label_smoothing", 1.0, "label_smoothing=1.0 is not a number from 0 to 0.9"),
        ("patience", 0, "patience=0 is not a whole number from 1"),
        ("class_weights", "balance", "class_weights='balance' is not known. Did you mean \"balanced\"?"),
        ("log", "tensorbord", "log='tensorbord' is not known. Did you mean \"tensorboard\"?"),
    ],
)
def test_a_value_that_no_run_can_follow_is_refused_with_its_bounds(field, value, text):
    with pytest.raises(RecipeError) as caught:
        Recipe(**{field: value})
    assert text in str(caught.value)
    assert "Fix:" in str(caught.value)


def test_images_have_the_size_that_suits_the_weights_unless_another_is_given():
    assert Recipe().input_size == 224
    own = replace(Recipe(), weights="bundled")  # trained on small photos
    assert own.input_size == own.read_size == 128
    assert replace(own, size=64).input_size == 64
    assert replace(own, presize=200).read_size == 200
    with pytest.raises(RecipeError, match="presize=100 is less than size=128"):
        replace(own, presize=100)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"mixup": 0.4, "cutmix": 1.0}, "mixup=0.4 and cutmix=1 would both blend every batch"),
        ({"class_weights": "balanced", "sampler": "balanced"}, "would correct the same imbalance twice"),
        (
            {"layers": "head", "mixup": 0.4},
            "mixup=0.4 has no effect with layers='head', which is trained from features",
        ),
        ({"layers": "head", "rate": 1e-3}, "rate=0.001 has no effect with layers='head'"),
        ({"tta": 4, "augment": False}, "tta=4 needs augmented views, and augment=False makes none"),
    ],
)
def test_what_makes_no_sense_together_is_refused(fields, text):
    with pytest.raises(RecipeError, match=text):
        Recipe(**fields)


@pytest.mark.parametrize("rate", [None, 0.01, "auto"])
def test_a_recipe_goes_through_json_unchanged(rate):
    recipe = Recipe(arch="resnet34", label="is_cat", presize=460, rate=rate, mixup=0.4, clip=1.0, patience=3)
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_a_label_function_is_written_down_by_its_module_and_name():
    assert Recipe(label=write_shapes).to_json()["label"] == "conftest:write_shapes"
    assert Recipe(label=partial(write_shapes)).to_json()["label"] == "functools:partial"
    assert Recipe(label=is_cat).to_json()["label"] == "is_cat"
    assert Recipe(label=Pattern("^(a)")).to_json()["label"] == "^(a)"


def test_an_unknown_field_is_refused_by_name():
    with pytest.raises(RecipeError, match="unknown field 'epoch'. Did you mean \"epochs\""):
        Recipe.from_json({"epoch": 1})


def test_a_recipe_is_frozen_and_varied_by_replace():
    recipe = Recipe()
    with pytest.raises(AttributeError):
        recipe.epochs = 5
    assert replace(recipe, epochs=5).epochs == 5


def test_an_error_arrives_from_another_process_as_itself():
    error = pickle.loads(pickle.dumps(RecipeError("what is wrong", fix="what to do")))
    assert isinstance(error, RecipeError)
    assert (error.problem, error.fix) == ("what is wrong", "what to do")
