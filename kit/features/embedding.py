"""A map of images: similar images lie close together.

xy = positions(features)         # float32 (n, 2), from 0 to 1
"""

import numpy as np

from kit.features.neighbours import nearest

AXES, LANDMARKS, NEIGHBOURS = 50, 2_000, 5


def positions(features: np.ndarray) -> np.ndarray:
    """Positions (n, 2), 0 to 1, of images with features (n, f): PCA to 50 components, then t-SNE.

    Of more than 2,000 images t-SNE places 2,000; each other one is put between those of them that are nearest to it.
    """
    from sklearn.decomposition import PCA

    count = len(features)
    if count < 4:
        return np.stack([np.linspace(0.1, 0.9, count), np.full(count, 0.5)], axis=1).astype(np.float32)
    reduced = PCA(min(AXES, *features.shape), random_state=0).fit_transform(features).astype(np.float32)
    chosen = np.random.default_rng(0).permutation(count)[:LANDMARKS]
    placed = _tsne(reduced[chosen])
    found = np.empty((count, 2), np.float32)
    others = np.setdiff1d(np.arange(count), chosen)
    if len(others):
        rows, cosines = nearest(reduced[others], NEIGHBOURS, among=reduced[chosen])
        weights = np.exp(20 * (cosines - cosines[:, :1]))
        found[others] = (placed[rows] * (weights / weights.sum(1, keepdims=True))[..., None]).sum(1)
    found[chosen] = placed
    low, high = found.min(0), found.max(0)
    return (found - low) / np.maximum(high - low, 1e-9)


def _tsne(rows: np.ndarray) -> np.ndarray:
    """L. van der Maaten, G. Hinton, Visualizing Data using t-SNE, JMLR 9 (2008)."""
    from sklearn.manifold import TSNE

    return TSNE(perplexity=min(30.0, (len(rows) - 1) / 3), init="pca", random_state=0).fit_transform(rows)
