"""Test-time augmentation: fastai's own, beside the plain result, with nothing left of it."""

import torch
from fastai.vision.all import LabelSmoothingCrossEntropyFlat

from kit import data, evaluate, model, train


def test_it_is_fastais_tta_and_leaves_the_learner_and_the_random_numbers_as_they_were(shapes, tiny):
    train.seed_everything(tiny.seed)
    learn = model.learner(data.blocks(tiny).dataloaders(data.table(shapes)), tiny)
    plain = evaluate.evaluate(learn)
    own = learn.loss_func = LabelSmoothingCrossEntropyFlat()
    torch.manual_seed(5)
    ours = evaluate.evaluate_views(learn, plain, 3)
    first = torch.rand(1)
    torch.manual_seed(5)
    assert torch.rand(1) == first
    assert learn.loss_func is own
    torch.manual_seed(5)
    with learn.no_bar(), learn.no_logging():
        theirs, _ = learn.tta(n=3)
    assert (ours.probabilities == theirs.numpy()).all()
    assert ours.predictions["path"].tolist() == plain.predictions["path"].tolist()
    assert ours.predictions["label"].tolist() == plain.predictions["label"].tolist()
    assert not (ours.probabilities == plain.probabilities).all()
    assert evaluate.evaluate(learn).predictions.equals(plain.predictions)


def test_no_views_are_no_second_result():
    assert evaluate.evaluate_views(None, None, 0) is None
