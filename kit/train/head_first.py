"""The head learns first on features that the body computes once, and only then do all layers train.

train_head(learn, 10, 2e-3, precision, cbs=[history])

A frozen epoch of fastai's sends all images through the body and, for its batch norms, a gradient back. Here each image
goes through once, forwards, and an epoch of the head alone costs next to nothing. The body stays as it was: a head that
knows nothing yet has no say in it. The features are kept in memory, 4 bytes a number.
Source: Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy

import numpy as np
import torch
from fastai.vision.all import Callback, DataLoader, DataLoaders, Learner
from torch import Tensor, nn

from kit.model.heads import parts_of
from kit.train.history import HEAD, quiet
from kit.train.precision import DTYPES, Precision


class Kept(DataLoader):
    """Batches of features (n, f) and targets (n, ...) that lie in two tensors.

    weights: how often each is drawn, in proportion, with replacement; by default each once.
    """

    def __init__(
        self, features: Tensor, targets: Tensor, bs: int, shuffle: bool, weights: Sequence[float] | None = None
    ):
        bs = min(bs, len(features))
        # As fastai trains: without a smaller last batch, of which batch norm would know little.
        super().__init__(range(len(features)), bs=bs, shuffle=shuffle, drop_last=shuffle)
        self.features, self.targets, self.weights = features, targets, weights

    def get_idxs(self) -> list[int]:
        """The numbers of an epoch in their order."""
        if self.weights is None:
            return super().get_idxs()
        return np.random.choice(self.n, self.n, p=self.weights).tolist()

    def create_batch(self, numbers: list[int]) -> tuple[Tensor, Tensor]:
        """Those of these numbers."""
        return self.features[numbers], self.targets[numbers]


def train_head(
    learn: Learner, epochs: int, rate: float, precision: Precision, cbs: list[Callback], accumulate: int = 1
) -> None:
    """One cycle of `epochs` over the features of all training images, each augmented once; only the head changes.

    rate: the highest. accumulate: batches that make one, as they make one step. Of callbacks, `cbs` alone: those of a
    training look at images. The validation loss is that of features too, which `precision` computed.
    """
    learn.model.eval()
    train, bs = learn.dls.train, learn.dls.train.bs
    kept = features_of(learn, train.new(shuffle=False, drop_last=False), precision)
    drawn = Kept(*kept, bs * accumulate, shuffle=True, weights=getattr(train, "wgts", None))
    valid = Kept(*features_of(learn, learn.dls.valid, precision), bs, shuffle=False)
    same = {name: getattr(learn, name) for name in ("loss_func", "opt_func", "wd", "wd_bn_bias", "moms")}
    loaders, layers = DataLoaders(drawn, valid, device=learn.dls.device), nn.Sequential(*parts_of(learn.model[1])[1])
    head = Learner(loaders, layers, metrics=deepcopy(learn.metrics), **same)
    head.phase_name = HEAD
    with quiet(head):
        head.fit_one_cycle(epochs, rate, cbs=cbs)


def features_of(learn: Learner, loader: DataLoader, precision: Precision) -> tuple[Tensor, Tensor]:
    """What the head is given of the loader's images, float32 (n, f), and their targets, on the learner's device."""
    device, (pooling, _) = torch.device(learn.dls.device), parts_of(learn.model[1])
    body = nn.Sequential(learn.model[0], *pooling)
    layout = torch.channels_last if precision.channels_last else torch.contiguous_format
    features, targets = [], []
    with torch.no_grad():
        for x, y in loader:
            # Around the body alone: a batch's augmentation is computed in fp32, as ever.
            with torch.autocast(device.type, DTYPES[precision.name]) if precision.name in DTYPES else nullcontext():
                features.append(body(x.as_subclass(Tensor).contiguous(memory_format=layout)).float())
            targets.append(y.as_subclass(Tensor))
    return torch.cat(features), torch.cat(targets)
