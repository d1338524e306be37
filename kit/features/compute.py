"""Images through a body once: features (n, f), as prediction sees the images, from the cache where they are known.

features = compute_features(body, paths, hashes, rules, device)      # float32 (n, f), in the order of `paths`

Always in fp32 and in evaluation mode, so that a head on these features answers exactly as the whole network does.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from kit.console import progress, say
from kit.data.images import prepare_image
from kit.errors import ImageError
from kit.features.store import Store
from kit.files import sha256
from kit.machine import core_count, exact_convolutions, heap_kept

VERSION = 1
BATCH = 32


def compute_features(
    body: nn.Module,
    paths: Sequence[str],
    hashes: Sequence[str],
    rules: Mapping[str, Any],
    device: torch.device,
    *,
    create: bool = True,
) -> np.ndarray:
    """Features (n, f), float32, of the images at `paths`, each prepared as `rules` (a bundle's `image`) say.

    body: images (n, 3, size, size) to features (n, f). hashes: the SHA-256 of each file when it was looked at; where a
    file has another one now, or is gone, `ImageError` names it, also where its features are known. create: whether the
    cache begins to keep features of a body of which it has none yet; those of a tuned body are not worth keeping.
    """
    store = Store(_key(body, rules))
    store = store if create or store.folder.is_dir() else None
    known = store.read() if store else {}
    new = [number for number, name in enumerate(hashes) if name not in known]
    with ThreadPoolExecutor(core_count()) as pool:
        for number, checked in enumerate(pool.map(_check_unchanged, paths, hashes)):
            if checked:
                raise ImageError(
                    f"{paths[number]} {checked}", fix="run it again, so that all images are looked at anew"
                )
    fresh = _computed(body, [paths[number] for number in new], rules, device)
    computed = {hashes[number]: row for number, row in zip(new, fresh, strict=True)}
    _keep(store, computed)
    known |= computed
    return np.stack([known[name] for name in hashes])


def _keep(store: Store | None, computed: Mapping[str, np.ndarray]) -> None:
    """Write to the cache; where the disk refuses, training goes on with what is in memory."""
    try:
        if store:
            store.add(computed)
    except OSError as error:
        say(f"note: the cache {store.folder.parent} cannot be written ({error.strerror}); features are kept in memory")


def _check_unchanged(path: str, expected: str) -> str | None:
    """What happened to a file since it was looked at, in words; None where it is the same."""
    try:
        found = sha256(Path(path))
    except OSError as error:
        return f"cannot be read any more ({error.strerror})"
    return None if found == expected else "is not the file that was looked at (another SHA-256)"


def _computed(body: nn.Module, paths: Sequence[str], rules: Mapping[str, Any], device: torch.device) -> np.ndarray:
    """The features of images, decoded by one thread a core while the batch before is computed."""
    mean, std = (torch.tensor(rules[name], device=device).reshape(1, 3, 1, 1) for name in ("mean", "std"))
    layout = torch.contiguous_format if device.type == "mps" else torch.channels_last
    training, body = body.training, body.to(device, memory_format=layout).eval()
    parts = []
    with heap_kept(), exact_convolutions(), torch.inference_mode():
        for batch in progress(_batches(paths, rules), "features", total=-(-len(paths) // BATCH)):
            x = (torch.from_numpy(batch).to(device).permute(0, 3, 1, 2).float() / 255 - mean) / std
            parts.append(body(x).float().cpu().numpy())
    body.to(memory_format=torch.contiguous_format).train(training)
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def _batches(paths: Sequence[str], rules: Mapping[str, Any]) -> Iterator[np.ndarray]:
    """uint8 (n, size, size, 3), a batch at a time; the next one is decoded while this one is computed."""
    chunks = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    with ThreadPoolExecutor(core_count()) as pool:
        ahead = pool.map(lambda path: prepare_image(path, rules), chunks[0] if chunks else [])
        for after in [*chunks[1:], []] if chunks else []:
            ready, ahead = ahead, pool.map(lambda path: prepare_image(path, rules), after)
            yield np.stack(list(ready))


def _key(body: nn.Module, rules: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that decides the features beside the image."""
    image = {name: rules[name] for name in ("size", "resize", "at_least", "mean", "std")}
    versions = [VERSION, torch.__version__, Image.__version__]
    return {"weights": fingerprint(body), "image": image, "versions": versions}


def fingerprint(module: nn.Module) -> str:
    """One SHA-256 over the structure of a module and all its tensors, names and bytes."""
    digest = hashlib.sha256(repr(module).encode())
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
