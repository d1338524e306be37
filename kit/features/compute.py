"""Features (n, f) of images, prepared as for prediction; read from the cache where they were computed before.

features = compute_features(body, paths, hashes, rules, device)      # float32 (n, f), in the order of `paths`

The body runs in evaluation mode and by default in fp32, so that a head on the features gives the network's outputs.
"""

import hashlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import nn

from kit import processes
from kit.console import progress
from kit.data.decode import map_ahead
from kit.data.images import prepare_image
from kit.data.scan import CHANGED, SCAN_AGAIN, changes
from kit.errors import ImageError
from kit.features.store import Store
from kit.machine import fp32_convolutions, keep_freed_memory

VERSION = 2
BATCH = 32


class Pixels(Protocol):
    """Decoded images by index."""

    def __getitem__(self, number: int) -> np.ndarray: ...


def compute_features(
    body: nn.Module,
    paths: Sequence[str],
    hashes: Sequence[str],
    rules: Mapping[str, Any],
    device: torch.device,
    *,
    create: bool = True,
    precision: str = "fp32",
    pixels: Pixels | None = None,
) -> np.ndarray:
    """Features (n, f), float32, of the images at `paths`, prepared by `rules` (`image` of a bundle's config).

    body: images (n, 3, size, size) to features (n, f). hashes: the SHA-256 of each file when it was scanned.
    create: store new features in the cache, and check all files first: `ImageError` names one that has another SHA-256
    now, or is missing though its features are not known. Without `create`, for a fine-tuned body, only files that are
    opened are checked.
    Of several processes each computes a part of what the first one's cache lacks; all get all features.
    precision: "bf16" is faster on some processors; such features are never stored. pixels: decoded images by index,
    uint8 (size, size, 3), used instead of the files.
    """
    store = store_of(body, rules) if precision == "fp32" else None
    store = store if store and (create or store.exists()) else None
    known = store.read() if store and processes.rank() == 0 else {}

    def unknown() -> list[int]:
        new = [number for number, name in enumerate(hashes) if name not in known]
        opened = range(len(paths)) if create else new if pixels is None else ()
        _check_unchanged([paths[number] for number in opened], [hashes[number] for number in opened], known)
        return new

    new = processes.first(unknown)
    prepare = pixels.__getitem__ if pixels is not None else lambda number: prepare_image(paths[number], rules)
    parts = processes.gathered(_computed(body, new[processes.share(len(new))], prepare, rules, device, precision))
    fresh = (row for part in parts for row in part)
    computed = {hashes[number]: row for number, row in zip(new, fresh, strict=True)}

    def known_and_computed() -> np.ndarray:
        if store:
            store.add(computed)
        both = known | computed
        return np.stack([both[name] for name in hashes])

    return processes.first(known_and_computed)


def _check_unchanged(paths: Sequence[str], hashes: Sequence[str], known: Container[str]) -> None:
    """Raise `ImageError` for the first file that has another SHA-256, or is gone and has no known features."""
    of = dict(zip(paths, hashes, strict=True))
    for path, change in changes(paths, hashes).items():
        if change == CHANGED or of[path] not in known:
            raise ImageError(f"{path} {change}", fix=SCAN_AGAIN)


def _computed(
    body: nn.Module,
    numbers: Sequence[int],
    prepare: Callable[[int], np.ndarray],
    rules: Mapping[str, Any],
    device: torch.device,
    precision: str,
) -> np.ndarray:
    """Features of the images at these indices; the next batch is prepared while the body computes this one."""
    mean, std = (torch.tensor(rules[name], device=device).reshape(1, 3, 1, 1) for name in ("mean", "std"))
    layout = torch.contiguous_format if device.type == "mps" else torch.channels_last
    training, body = body.training, body.to(device, memory_format=layout).eval()
    quick = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    parts = []
    with keep_freed_memory(), fp32_convolutions(), torch.inference_mode(), quick:
        for batch in progress(_batches(numbers, prepare), "features", total=-(-len(numbers) // BATCH)):
            x = (torch.from_numpy(batch).to(device).permute(0, 3, 1, 2).float() / 255 - mean) / std
            parts.append(body(x).float().cpu().numpy())
    body.to(memory_format=torch.contiguous_format).train(training)
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def _batches(numbers: Sequence[int], prepare: Callable[[int], np.ndarray]) -> Iterator[np.ndarray]:
    """Batches uint8 (n, size, size, 3); threads prepare the next one in the meantime."""
    images = map_ahead(prepare, numbers)
    while batch := list(islice(images, BATCH)):
        yield np.stack(batch)


def store_of(body: nn.Module, rules: Mapping[str, Any]) -> Store:
    """The store of a body's features; its key has everything that determines them apart from the image."""
    versions = [VERSION, torch.__version__, Image.__version__]
    return Store({"weights": fingerprint(body), "image": dict(rules), "versions": versions})


def fingerprint(module: nn.Module) -> str:
    """A SHA-256 of the structure of a module and of the names and bytes of all its tensors."""
    digest = hashlib.sha256(repr(module).encode())
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
