"""A user's script as mypy sees it (tests/test_types.py): never run, and an error where a public name loses its type."""

from pathlib import Path
from typing import assert_type

import kit
from kit import bundle, data, evaluate, serve, train
from kit.bundle import Predictor
from kit.intervals import Estimate
from kit.train import History

run = kit.fine_tune("photos", label=kit.is_cat, arch="resnet34", epochs=1)
assert_type(run, kit.Run)
assert_type(run.error_rate, Estimate)
assert_type(run.bundle, Path)
assert_type(kit.is_cat("Persian_001.jpg"), bool)
assert_type(kit.__version__, str)

found = kit.tune("photos", trials=30, minutes=20)
assert_type(found.inner, Estimate)
assert_type(found.run, kit.Run | None)

recipe = kit.Recipe(label="is_cat", epochs=3)
assert_type(recipe.epochs, int)

table = data.table("photos", label=data.pattern(r"^(.*)_\d+\.jpg$"))
loaders = data.blocks(recipe).dataloaders(table)
learn = kit.model.learner(loaders, recipe)
assert_type(train.fine_tune(learn, recipe), History)
result = evaluate.evaluate(learn)
assert_type(result, evaluate.Result)
assert_type(bundle.save(learn, result, "photos-bundle"), Path)

predictor = bundle.load(run.bundle)
assert_type(predictor, Predictor)
assert_type(predictor.predict(["new.jpg"])[0], bundle.Prediction)
serve.page(predictor)

try:
    kit.fine_tune("photos", epochs=0)
except kit.KitError as error:
    assert_type(error.fix, str)
