from .compute import compute_features, fingerprint
from .store import Store

__all__ = [
    "Store",
    "compute_features",
    "fingerprint",
]
