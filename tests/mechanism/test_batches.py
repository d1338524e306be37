"""Datasets and mini-batches: every example once an epoch, in a new order, and bad data refused."""

import random

import fastai.data.load as fastai
import pytest
import torch
from sklearn import datasets

from kit.mechanism.batches import DataLoader, Dataset, load_digits


def numbered(n):
    return Dataset(torch.arange(float(n)), torch.arange(n))


def test_an_epoch_has_every_example_once():
    batches = DataLoader(numbered(10), 4, shuffle=True, rng=random.Random(0))
    seen = torch.cat([y for _, y in batches])
    assert sorted(seen.tolist()) == list(range(10))


def test_iterations_an_epoch_are_examples_over_batch_size():
    assert [len(x) for x, _ in DataLoader(numbered(10), 4)] == [4, 4, 2]
    assert [len(x) for x, _ in DataLoader(numbered(10), 4, drop_last=True)] == [4, 4]
    assert (len(DataLoader(numbered(10), 4)), len(DataLoader(numbered(10), 4, drop_last=True))) == (3, 2)


def test_without_shuffling_the_order_is_that_of_the_data_and_all_examples_may_be_one_batch():
    assert [x.tolist() for x, _ in DataLoader(numbered(5), 2)] == [[0, 1], [2, 3], [4]]
    assert [x.tolist() for x, _ in DataLoader(numbered(4), 4, drop_last=True)] == [[0, 1, 2, 3]]
    assert len(DataLoader(numbered(4), 1)) == 4


def test_the_digits_are_scikit_learns_from_0_to_1():
    digits, theirs = load_digits(), datasets.load_digits()
    assert digits.x.shape == (1797, 1, 8, 8) and digits.x.dtype == torch.float32
    assert (digits.x.min(), digits.x.max()) == (0, 1)
    assert digits.y.tolist() == theirs.target.tolist()


def test_every_epoch_has_its_own_order_and_a_seed_repeats_them_all():
    first, second = (DataLoader(numbered(50), 50, shuffle=True, rng=random.Random(3)) for _ in range(2))
    orders = [[next(iter(loader))[1].tolist() for _ in range(3)] for loader in (first, second)]
    assert orders[0] == orders[1]
    assert orders[0][0] != orders[0][1] != orders[0][2]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("drop_last", [False, True])
def test_the_batches_of_every_epoch_are_fastais_from_the_same_generator(drop_last, seed):
    theirs = fastai.DataLoader(list(range(50)), bs=7, shuffle=True, drop_last=drop_last, num_workers=0)
    theirs.rng = random.Random(seed)
    ours = DataLoader(numbered(50), 7, shuffle=True, drop_last=drop_last, rng=random.Random(seed))
    for _ in range(5):
        assert [y.tolist() for _, y in ours] == [batch.tolist() for batch in theirs]


def test_targets_stay_with_their_examples():
    for x, y in DataLoader(numbered(20), 3, shuffle=True):
        assert torch.equal(x.long(), y)


def test_larger_batches_represent_the_data_better():
    """The spread of the batch means falls with the square root of the batch size: a tenth for 100 times as many."""
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    spread = {}
    for size in (10, 1000):
        loader = DataLoader(Dataset(values, values), size, shuffle=True, rng=random.Random(0))
        spread[size] = torch.stack([x.mean() for x, _ in loader]).std().item()
    assert spread[10] / spread[1000] == pytest.approx(10, rel=0.5)


def test_a_split_has_every_example_once():
    train, valid = numbered(100).split(0.2, torch.Generator().manual_seed(0))
    assert (len(train), len(valid)) == (80, 20)
    again, _ = numbered(100).split(0.2, torch.Generator().manual_seed(0))
    assert torch.equal(train.y, again.y) and train.y.tolist() != sorted(train.y.tolist())
    assert [len(part) for part in numbered(4).split(0.25)] == [3, 1]
    assert [len(part) for part in numbered(4).split(0.75)] == [1, 3]
    assert sorted([*train.y.tolist(), *valid.y.tolist()]) == list(range(100))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dataset(torch.zeros(3), torch.zeros(2)), "3 examples and 2 targets; every example needs one target"),
        (lambda: Dataset(torch.zeros(0), torch.zeros(0)), "the dataset is empty; it needs at least one example"),
        (
            lambda: Dataset(torch.tensor([[0.0, 1.0], [0.0, float("nan")]]), torch.zeros(2)),
            r"example 1 has a value that is NaN or infinite; remove or correct it",
        ),
        (lambda: DataLoader(numbered(4), 0), "batch size 0: expected at least 1"),
        (
            lambda: DataLoader(numbered(4), 5, drop_last=True),
            "batch size 5 with drop_last leaves no batch of 4 examples",
        ),
        (lambda: numbered(4).split(0.1), "valid_pct 0.1 of 4 examples leaves one part empty"),
        (lambda: numbered(4).split(1.0), "valid_pct 1.0 of 4 examples leaves one part empty"),
    ],
)
def test_bad_data_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
