"""The head learns first on features that the body computes once, and only then do all layers train.

train_head(learn, 10, 2e-3, precision, cbs=[history])

A frozen epoch of fastai's sends all images through the body and, for its batch norms, a gradient back. Here each image
goes through once, forwards, and an epoch of the head alone costs next to nothing. The body stays as it was: a head that
knows nothing yet has no say in it. The features are kept in memory, 4 bytes a number.
Source: Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022.
"""

from contextlib import nullcontext
from copy import deepcopy

import torch
from fastai.vision.all import Callback, DataLoader, DataLoaders, Learner
from torch import Tensor, nn

from kit.model.heads import classifier_of
from kit.train.history import HEAD
from kit.train.precision import DTYPES, Precision


class Kept(DataLoader):
    """Batches of features (n, f) and targets (n, ...) that lie in two tensors."""

    def __init__(self, features: Tensor, targets: Tensor, bs: int, shuffle: bool):
        last = shuffle and len(features) >= bs  # batch norm has no use for a batch of one
        super().__init__(range(len(features)), bs=min(bs, len(features)), shuffle=shuffle, drop_last=last)
        self.features, self.targets = features, targets

    def create_batch(self, numbers: list[int]) -> tuple[Tensor, Tensor]:
        """Those of these numbers."""
        return self.features[numbers], self.targets[numbers]


def train_head(learn: Learner, epochs: int, rate: float, precision: Precision, cbs: list[Callback]) -> None:
    """One cycle of `epochs` over the features of the training images, each augmented once; only the head changes.

    rate: the highest. Of callbacks, `cbs` alone: those of a training look at images. The validation loss is measured on
    features too, which `precision` computed.
    """
    learn.model.eval()
    bs, images = learn.dls.train.bs, learn.dls.train.new(drop_last=False)
    train = Kept(*features_of(learn, images, precision), bs, shuffle=True)
    valid = Kept(*features_of(learn, learn.dls.valid, precision), bs, shuffle=False)
    same = {name: getattr(learn, name) for name in ("loss_func", "opt_func", "wd", "wd_bn_bias", "moms")}
    layers = nn.Sequential(*classifier_of(learn.model))
    head = Learner(DataLoaders(train, valid, device=learn.dls.device), layers, metrics=deepcopy(learn.metrics), **same)
    head.phase_name = HEAD
    with head.no_bar(), head.no_logging():
        head.fit_one_cycle(epochs, rate, cbs=cbs)


def features_of(learn: Learner, loader: DataLoader, precision: Precision) -> tuple[Tensor, Tensor]:
    """What the head is given of the loader's images, float32 (n, f), and their targets, on the learner's device."""
    network, device = learn.model, torch.device(learn.dls.device)
    body = nn.Sequential(network[0], *list(network[1])[: -len(classifier_of(network))])
    layout = torch.channels_last if precision.channels_last else torch.contiguous_format
    mixed = torch.autocast(device.type, DTYPES[precision.name]) if precision.name in DTYPES else nullcontext()
    features, targets = [], []
    with torch.no_grad(), mixed:
        for x, y in loader:
            features.append(body(x.as_subclass(Tensor).contiguous(memory_format=layout)).float())
            targets.append(y.as_subclass(Tensor))
    return torch.cat(features), torch.cat(targets)
