"""Decoded images in the memory of a GPU, which crops batches from them: nothing is copied to it during training.

resident = resident_on(torch.device("cuda"), images)        # None on a CPU, and where they would take too much memory
"""

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from torch import Tensor

from kit.data.decode import DecodedImages

MOST_MEMORY = 0.25  # of the free memory of the GPU, for the images of one loader


class ResidentImages:
    """The pixels of decoded images on a device, and for each image its height, width and first pixel."""

    def __init__(self, images: DecodedImages, device: torch.device):
        # Copied in parts: a memory-mapped file need not fit into the machine's memory at once.
        self.pixels = torch.empty((len(images.pixels) // 3, 3), dtype=torch.uint8, device=device)
        flat, step = self.pixels.view(-1), 1 << 28
        for start in range(0, len(images.pixels), step):
            part = np.array(images.pixels[start : start + step])
            flat[start : start + len(part)] = torch.from_numpy(part).to(device)
        self.sizes, self.starts = images.sizes, images.starts // 3

    def part(self, numbers: Sequence[int]) -> "ResidentImages":
        """The images at these indices; no pixel is copied."""
        other = copy(self)
        other.sizes, other.starts = self.sizes[numbers], self.starts[numbers]
        return other

    def crops(self, numbers: Sequence[int], size: int, generator: np.random.Generator) -> Tensor:
        """uint8 (n, size, size, 3): the images of `crop_or_pad`, cropped at the same random positions."""
        spare = self.sizes[numbers] - size  # (n, 2): by how many pixels height and width are larger
        drawn = [[int(generator.integers(abs(int(one)) + 1)) for one in pair] for pair in spare]
        shifts = np.where(spare > 0, drawn, np.negative(drawn))  # from a pixel of the crop to one of the image
        facts = np.concatenate([shifts, self.sizes[numbers], self.starts[numbers, None]], axis=1)
        top, left, height, width, start = torch.from_numpy(facts).to(self.pixels.device).T[..., None]
        along = torch.arange(size, device=self.pixels.device)
        rows, columns = along + top, along + left  # (n, size) each
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
        places = (start + rows * width)[:, :, None] + columns[:, None]
        if (spare >= 0).all():
            return self.pixels[places]
        return self.pixels[torch.where(inside, places, 0)] * inside[..., None]


def resident_on(device: torch.device | None, images: DecodedImages) -> ResidentImages | None:
    """The images in the memory of a GPU; None on other devices, and where they would take over a quarter of its free
    memory."""
    if device is None or torch.device(device).type != "cuda":
        return None
    room = MOST_MEMORY * torch.cuda.mem_get_info(device)[0]
    return ResidentImages(images, torch.device(device)) if images.pixels.nbytes <= room else None
