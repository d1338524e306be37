"""What the head is given of validation images, kept while they are evaluated: nobody computes it a second time.

with features_kept(learn, learn.dls.valid) as features: learn.get_preds()        # features[path]: float32 (f,)

`kit.bundle` sets the threshold of unknown images by it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from kit.model.heads import parts_of

MOST = 200


@contextmanager
def features_kept(learn: Any, loader: Any) -> Iterator[dict[str, np.ndarray]]:
    """Meanwhile one pass of `learn` over `loader` leaves the features of `MOST` images at most, evenly taken, by path.

    Nothing is kept of a network that is not of kit's making or was wrapped, or of images that are no rows of a table.
    """
    kept: dict[str, np.ndarray] = {}
    ours = getattr(learn, "origin", None) is not None and isinstance(learn.model, nn.Sequential)
    if not ours or not isinstance(loader.items, pd.DataFrame):
        yield kept
        return
    paths, done = loader.items["path"].tolist(), 0
    wanted = set(evenly(len(paths), MOST).tolist())

    def keep(_: Any, inputs: tuple) -> None:
        nonlocal done
        here = [number for number in range(done, done + len(inputs[0])) if number in wanted]
        rows = inputs[0][[number - done for number in here]].float().cpu().numpy()
        kept.update(zip((paths[number] for number in here), rows, strict=True))
        done += len(inputs[0])

    _, classifier = parts_of(learn.model[1])
    hook = classifier[0].register_forward_pre_hook(keep)
    try:
        yield kept
    finally:
        hook.remove()


def evenly(count: int, most: int) -> np.ndarray:
    """The numbers of at most `most` of `count` rows, from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))
