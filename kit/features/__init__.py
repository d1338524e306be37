"""What a pretrained body makes of images: computed once for each image, and kept in kit's cache."""

from kit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Store": "kit.features.store",
        "compute_features": "kit.features.compute",
        "fingerprint": "kit.features.compute",
    },
)
