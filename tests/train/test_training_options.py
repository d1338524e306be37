"""What a recipe can ask of training: each option is really on, repeats in every bit, and leaves validation plain."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from conftest import draw_shape
from fastai.vision.all import Callback, CrossEntropyLossFlat, MSELossFlat

from kit import data, evaluate, model, train
from kit.data.datablock import balanced
from kit.errors import RecipeError
from kit.tasks.training import training_of

OPTIONS = [
    {"mixup": 0.4},
    {"cutmix": 1.0},
    {"label_smoothing": 0.1},
    {"class_weights": "balanced"},
    {"sampler": "balanced"},
    {"accumulate": 2},
    {"clip": 0.01},
    {"patience": 1, "epochs": 3},
    {"rate": "auto"},
    {"mixup": 0.4, "label_smoothing": 0.1, "class_weights": "balanced", "accumulate": 2, "clip": 1.0, "patience": 2},
]


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """16 circles and 4 squares to train on, 4 and 4 to validate."""
    folder = tmp_path_factory.mktemp("uneven")
    for side, counts in (("train", {"circle": 16, "square": 4}), ("valid", {"circle": 4, "square": 4})):
        for shape, count in counts.items():
            (folder / side / shape).mkdir(parents=True)
            for number in range(count):
                draw_shape(shape, number + 100 * (side == "valid")).save(folder / side / shape / f"{number}.png")
    return folder


@pytest.fixture
def recipe(light):
    return light


def learner(folder, recipe, **options):
    train.seed_everything(recipe.seed)
    return model.learner(data.blocks(recipe).dataloaders(data.table(folder)), recipe, **options)


def trained(folder, recipe, **options):
    learn = learner(folder, recipe)
    return learn, train.fine_tune(learn, recipe, **options)


def same(first, second) -> bool:
    states = first.model.state_dict(), second.model.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.fixture(scope="module")
def plain(uneven, light):
    """The network that no option made."""
    return trained(uneven, light)[0]


@pytest.mark.parametrize("changes", OPTIONS, ids=str)
def test_every_option_is_really_on_repeats_in_every_bit_and_leaves_validation_plain(uneven, recipe, changes, plain):
    first, told = trained(uneven, replace(recipe, **changes))
    second, again = trained(uneven, replace(recipe, **changes))
    assert same(first, second)
    assert told.steps == again.steps
    assert not same(first, plain)
    loss = evaluate.evaluate(first).predictions["loss"].mean()
    kept = told.best_epoch - 1 if "patience" in changes else -1
    assert told.rows[kept]["valid_loss"] == pytest.approx(loss, rel=1e-4)
    assert isinstance(first.loss_func, CrossEntropyLossFlat)
    assert first.loss_func.func.weight is None
    assert first.validate()[0] == pytest.approx(loss, rel=1e-4)


def test_rare_classes_weigh_more_so_that_all_classes_weigh_the_same():
    labels, class_weights = ["cat"] * 30 + ["dog"] * 10, training_of("classification").class_weights
    weights = dict(zip(["cat", "dog"], class_weights(labels, ["cat", "dog"]), strict=True))
    assert weights == {"cat": pytest.approx(2 / 3), "dog": 2}
    assert sum(weights[label] for label in labels) == pytest.approx(40)
    assert class_weights(labels, ["cat", "dog", "fox"])[2] < 20


def test_the_training_loss_is_the_recipes_and_its_weights_are_the_classes(uneven, recipe):
    class Look(Callback):
        seen = ()

        def after_loss(self):
            Look.seen += ((self.training, self.learn.loss_func.func.weight),)

    trained(uneven, replace(recipe, class_weights="balanced"), cbs=[Look()])
    assert all(weight.tolist() == pytest.approx([20 / 32, 20 / 8]) for training, weight in Look.seen if training)
    assert [weight for training, weight in Look.seen if not training] == [None] * 4


def test_smoothing_and_weights_are_refused_for_another_loss_than_cross_entropy(uneven, recipe):
    recipe = replace(recipe, label_smoothing=0.1)
    learn = learner(uneven, recipe, loss_func=MSELossFlat())
    with pytest.raises(RecipeError, match="change cross entropy, and the loss is FlattenedLoss of MSELoss"):
        train.fine_tune(learn, recipe)


def test_the_balanced_sampler_draws_every_class_as_often(uneven, recipe):
    dls = data.blocks(replace(recipe, sampler="balanced")).dataloaders(data.table(uneven))
    train.seed_everything(0)
    labels = dls.train_ds.items["label"].to_numpy()
    drawn = pd.Series([labels[index] for _ in range(50) for index in dls.train.get_idxs()])
    assert drawn.value_counts(normalize=True)["square"] == pytest.approx(0.5, abs=0.05)
    assert dls.valid.get_idxs() == list(range(8))
    assert dls.train.new(shuffle=False).get_idxs() == list(range(20))
    assert len(dls.test_dl(["nowhere.png"])) == 1
    assert balanced(["a", "a", "b"]) == [0.5, 0.5, 1]


class Steps(Callback):
    """Counts the optimiser's steps, and notes the gradients' norm at each."""

    order = 30

    def before_fit(self):
        self.norms = getattr(self, "norms", [])
        self.leftover = getattr(self, "leftover", [])
        self.leftover.append(any(p.grad is not None and bool(p.grad.any()) for p in self.model.parameters()))

    def before_step(self):
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.norms.append(float(torch.nn.utils.get_total_norm(gradients)))


def test_accumulation_takes_a_step_of_several_batches_and_nothing_leaks_into_the_next_phase(uneven, recipe):
    steps = Steps()
    _, history = trained(uneven, replace(recipe, accumulate=2), cbs=[steps])
    assert len(history.steps) == 2 * 5
    assert len(steps.norms) == 2 * 2
    assert steps.leftover == [False, False]


def test_accumulating_more_batches_than_an_epoch_has_is_refused(uneven, recipe):
    with pytest.raises(RecipeError, match="accumulate=6 gathers more batches than the 5 of an epoch"):
        trained(uneven, replace(recipe, accumulate=6))


def test_clipping_shortens_a_steps_gradient(uneven, recipe):
    free, clipped = Steps(), Steps()
    trained(uneven, recipe, cbs=[free])
    trained(uneven, replace(recipe, clip=0.01), cbs=[clipped])
    assert min(free.norms) > 0.01
    assert max(clipped.norms) == pytest.approx(0.01, rel=1e-3)


class Scripted(Callback):
    """Validation losses as told, and the weights that each epoch ended with."""

    order = 20

    def __init__(self, losses):
        super().__init__()
        self.told, self.ends, self.count = losses, [], 0

    def after_loss(self):
        if not self.training:
            self.learn.loss = torch.tensor(self.told[self.count])

    def after_epoch(self):
        self.count += 1
        self.ends.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})


@pytest.mark.parametrize(
    ("losses", "epochs", "best"),
    [
        ([3.0, 2.0, 1.0, 1.5, 1.6, 0.1, 0.1], 5, 3),
        ([0.5, 2.0, 1.0, 1.5, 1.6, 0.1, 0.1], 5, 1),
        ([3.0, 2.0, 1.9, 1.8, 1.7, 1.6, 1.65], 7, 6),
    ],
)
def test_early_stopping_ends_the_phase_and_keeps_the_best_weights_of_the_run(
    uneven, recipe, capsys, losses, epochs, best
):
    scripted = Scripted(losses)
    learn, history = trained(uneven, replace(recipe, epochs=6, patience=2), cbs=[scripted])
    assert len(history.rows) == epochs
    assert history.best_epoch == best
    state = learn.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in scripted.ends[best - 1].items())
    said = capsys.readouterr()
    assert said.out == ""
    assert ("the validation loss was not lower for 2 epochs" in said.err) == (epochs == 5)
