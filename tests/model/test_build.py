"""The learner: a plain fastai Learner: the recipe's network, the weights' own normalisation, fastai's options."""

from dataclasses import replace

import pytest
import torch
from fastai.vision.all import SGD, Learner, Normalize, accuracy

from kit import data, model
from kit.errors import DataError


@pytest.fixture
def resnet(tiny):
    return replace(tiny, arch="resnet18")


@pytest.fixture
def dls(shapes, tiny):
    return data.blocks(tiny).dataloaders(data.table(shapes))


def test_it_is_a_fastai_learner_over_body_and_head_with_three_groups(dls, resnet):
    learn = model.learner(dls, resnet)
    assert isinstance(learn, Learner)
    assert learn.model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    learn.create_opt()
    assert len(learn.opt.param_lists) == 3


def test_the_normalisation_of_the_weights_joins_the_batch_transforms_once(dls, resnet):
    learn = model.learner(dls, replace(resnet, weights="bundled"))
    model.learner(dls, replace(resnet, weights="bundled"))
    (normalize,) = [t for t in dls.train.after_batch.fs if isinstance(t, Normalize)]
    assert normalize.mean.flatten().tolist() == pytest.approx(learn.spec.weights.mean)
    assert dls.valid.one_batch()[0].mean().abs() < 2


def test_fastais_own_arguments_pass_through(dls, tiny):
    def splitter(module):
        return [list(module.parameters())]

    learn = model.learner(dls, tiny, opt_func=SGD, splitter=splitter, metrics=[accuracy], wd=0.3, moms=(0.9, 0.8, 0.9))
    learn.create_opt()
    assert learn.metrics[0].func is accuracy
    assert len(learn.opt.param_lists) == 1
    assert learn.wd == 0.3
    assert learn.moms == (0.9, 0.8, 0.9)


def test_fewer_images_than_a_batch_is_an_error_that_says_which_batch_fits(shapes, tiny):
    dls = data.blocks(replace(tiny, batch=64)).dataloaders(data.table(shapes))
    with pytest.raises(DataError, match="18 training images do not fill one batch of 64") as caught:
        model.learner(dls, replace(tiny, batch=64))
    assert "--batch 4" in caught.value.fix


def test_the_normalisation_lies_on_the_device_of_the_loaders(dls, tiny, monkeypatch):
    """On a machine with a GPU, fastai would put it there, whatever the loaders' device."""
    monkeypatch.setattr("fastai.torch_core.default_device", lambda *_: torch.device("meta"))
    model.learner(dls, tiny)
    (normalize,) = [t for t in dls.train.after_batch.fs if isinstance(t, Normalize)]
    assert normalize.mean.device == torch.device("cpu")
