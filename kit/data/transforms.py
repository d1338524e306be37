"""The item transforms of kit's DataBlock: open an image and make it square.

DataBlock(..., item_tfms=Square(224, "crop"))
"""

from pathlib import Path

from fastai.vision.all import PILImage, Resize, Transform

from kit.data.augment import TRAIN, VALID
from kit.data.images import open_image, square


class OpenImage(Transform):
    """Opens a path as an upright RGB `PILImage` by `open_image`. at_least: size in pixels that is needed."""

    def __init__(self, at_least: int):
        super().__init__()
        self.at_least = at_least

    def encodes(self, path: str | Path) -> PILImage:
        """Open `path`; an opened image is returned as it is."""
        return PILImage(open_image(path, self.at_least))


class Square(Transform):
    """Makes images square: training images by fastai's `Resize`, at `presize` pixels with a random crop; others by
    `square`, at `size` pixels, as for prediction."""

    order = 1

    def __init__(self, size: int, how: str, presize: int | None = None):
        super().__init__()
        self.size, self.how, self.presize = size, how, presize
        self.resize = Resize(presize or size, method=how, pad_mode="zeros")

    def __call__(self, item, split_idx=None, **kwargs):
        """Resize an item; it is a training image unless `split_idx` is 1."""
        if split_idx == VALID:
            return super().__call__(item, split_idx=split_idx, **kwargs)
        return self.resize(item, split_idx=TRAIN, **kwargs)

    def encodes(self, image: PILImage) -> PILImage:
        """Resize an image that is not for training."""
        return PILImage(square(image, self.size, self.how))

    def __repr__(self) -> str:
        return f"Square({self.size}, {self.how!r}; training: {self.resize})"
