"""Out-of-distribution detection: whether an image is like the training images, by the features of the network.

detector = fit(train_features, train_labels, valid_features); detector.flags(features)      # True: not like them

The score is the Mahalanobis distance to the nearest class mean in a randomly projected space. Features are first scaled
to length 1: other things often give small features, which would otherwise lie between those of the training images.
Fitting and scoring need NumPy alone, but for fewer than 19 validation images.

The validation images alone set the threshold, because training images lie nearer to the class means, above all where
all layers were trained. The projection is random: principal axes fit few images so closely that new images lie further
out. Measured with EfficientNet-Lite0's ImageNet weights, average-pooled (1,280 features), and Oxford Pets photos, means
of 10 seeds: share of training photos (296) and new photos (74) that are flagged, and AUROC of held-out photos against
other things. By chance, the share of new photos varies by 3 %:

| labels       | training | new   | CIFAR-10 vehicles | drawings | noise |
|--------------|----------|-------|-------------------|----------|-------|
| cat or dog   | 1.3 %    | 4.6 % | 1.000             | 0.992    | 1.000 |
| 37 breeds    | 0.0 %    | 3.6 % | 1.000             | 0.995    | 1.000 |

The constants were chosen among some 50 variants on these images, so the AUROC is optimistic.

The bundled weights of resnet18, trained on 32-pixel photos, detect far less. Trained by kit at 128 pixels, cat or dog,
512 average-pooled features, seeds 42, 1 and 7, mean and range of AUROC (tests/bench/ood_images.py computes them again):

| method          | CIFAR-10 vehicles   | drawn digits        | noise               |
|-----------------|---------------------|---------------------|---------------------|
| mahalanobis     | 0.928 (0.895-0.951) | 0.443 (0.369-0.531) | 0.866 (0.771-1.000) |
| max probability | 0.713 (0.666-0.785) | 0.797 (0.725-0.879) | 0.155 (0.113-0.219) |

At the threshold it flags 38 % of the vehicles and 0.2 % of the digits: an image that is not flagged may still be unlike
the training images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import ceil

import numpy as np

from kit.errors import BundleError
from kit.manifest import GET_ANOTHER

KNOWN_SHARE = 0.95
FEWEST_TRAIN, FEWEST_VALID = 10, 5
MOST_NUMBERS = 262_144
ROUNDNESS = 20
LEAST_SPREAD = 0.05
ROUNDING = 1e-6
TINY = 1e-12


@dataclass(frozen=True)
class OODDetector:
    """A fitted detector, all float32: mean (f,), projection (f, d), points (m, d), nearest (1,), threshold (1,).

    The score of an image is the distance of its projected features to the `nearest`-th nearest of the points. An image
    whose score is above the threshold is flagged.
    """

    mean: np.ndarray
    projection: np.ndarray
    points: np.ndarray
    nearest: np.ndarray
    threshold: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Features (n, f) -> distances (n,), float64; the larger, the less like the training images.

        The score of features that are not finite is not finite. Raises `ValueError` for features of another shape.
        """
        features = np.asarray(features)
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise ValueError(f"features of shape {features.shape}; expected (n, {len(self.mean)})")
        projected = (_directions(features) - self.mean) @ self.projection.astype(np.float64)
        return np.sort(_distances(projected, self.points), axis=1)[:, int(self.nearest[0]) - 1]

    def flags(self, features: np.ndarray) -> np.ndarray:
        """Features (n, f) -> bool (n,): True where the score is above the threshold or not finite."""
        return ~(self.scores(features) <= self.threshold[0])

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields by name, for a safetensors file of at most about 1 MB."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "OODDetector":
        """The inverse of `arrays`. Raises `BundleError` for a field that is missing, unknown or not valid."""
        names = [field.name for field in fields(cls)]
        for name in {*names, *arrays}:
            if name not in names or name not in arrays:
                _refuse(name, "is not known" if name in arrays else "is missing")
        _check_arrays(arrays)
        return cls(**{name: arrays[name] for name in names})


def fit(train_features: np.ndarray, train_labels: np.ndarray, valid_features: np.ndarray) -> OODDetector | None:
    """Fit a detector; None where there are too few images (see `too_few`).

    train_features: (n, f), of the training images without augmentation; train_labels: (n,), of any type;
    valid_features: (m, f), which set the threshold: about 5 % of images like them are flagged.
    Raises `ValueError` for shapes that do not fit, or features that are not finite.
    """
    train, valid, labels = np.asarray(train_features), np.asarray(valid_features), np.asarray(train_labels)
    _check_features(train, labels, valid)
    if too_few(len(train), len(valid)):
        return None
    # In C order: safetensors writes the memory as it lies, and would read another matrix back.
    fitted = [np.asarray(part, np.float32, order="C") for part in _class_means(_directions(train), labels)]
    scores = OODDetector(*fitted, threshold=np.zeros(1, np.float32)).scores(valid)
    # The next float32 above: rounded down, the threshold would flag the image that sets it.
    threshold = np.nextafter(np.array([_threshold(scores)], np.float32), np.float32(np.inf))
    return OODDetector(*fitted, threshold=threshold)


def too_few(train: int, valid: int) -> str | None:
    """Why so few training or validation images are not enough to fit a detector; None where they are enough."""
    for count, least, what in ((train, FEWEST_TRAIN, "training"), (valid, FEWEST_VALID, "validation")):
        if count < least:
            return f"{count} {what} images are too few to know what is unlike them; it takes {least}"
    return None


def _class_means(directions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Mean, projection, points and nearest of the Mahalanobis distance to the nearest class mean.

    Source: Lee, Lee, Lee, Shin, A simple unified framework for detecting out-of-distribution samples, NeurIPS 2018.
    Features are divided by their standard deviation, the covariance within the classes is shrunk towards a multiple of
    the identity, and the result is projected at random, which preserves distances.
    """
    mean, spread = directions.mean(0), directions.std(0)
    spread = np.maximum(spread, LEAST_SPREAD * spread.mean() + ROUNDING)
    standard = (directions - mean) / spread
    kinds, which = np.unique(labels, return_inverse=True)
    means = np.stack([standard[which == kind].mean(0) for kind in range(len(kinds))])
    axes = _random_axes(len(mean), MOST_NUMBERS // (len(mean) + len(means)))
    whitening = _whitened(axes, standard - means[which])
    return mean, whitening / spread[:, None], means @ whitening, np.ones(1)


def _directions(features: np.ndarray) -> np.ndarray:
    """Each row scaled to length 1, float64."""
    features = features.astype(np.float64)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), TINY)


def _random_axes(features: int, most: int) -> np.ndarray:
    """Orthogonal axes (f, d), the same for the same f and d, that approximately preserve distances; all, if d = f.

    Cosine waves of random frequencies, with random signs: Ailon, Chazelle, Approximate nearest neighbors and the fast
    Johnson-Lindenstrauss transform, 2006. The axes must not depend on the training images: along principal axes, fewer
    images than features lie further out than new ones do.
    """
    count = max(1, min(features, most))
    if count == features:
        return np.eye(features)
    rng = np.random.default_rng(0)
    signs, waves = rng.choice([-1.0, 1.0], (features, 1)), 1 + rng.permutation(features - 1)[:count]
    return signs * np.cos(np.pi / features * (np.arange(features)[:, None] + 0.5) * waves) * np.sqrt(2 / count)


def _whitened(axes: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """The inverse square root (f, f) of the residuals' covariance, shrunk towards the identity, times the axes (f, d).

    The identity is scaled to the same mean variance. The more features there are for each image, the larger its share:
    the covariance of few images fits them better than it fits new ones.
    """
    count, features = residuals.shape
    if count > features:
        variances, vectors = np.linalg.eigh(residuals.T @ residuals / count)
        variances, vectors = np.maximum(variances, 0.0), vectors.T
    else:
        _, roots, vectors = np.linalg.svd(residuals, full_matrices=False)
        variances = roots**2 / count
    share = ROUNDNESS * features / (ROUNDNESS * features + count)
    isotropic = share * (variances.sum() / features + ROUNDING)
    # Outside the residuals' span only the identity is left, so that no (f, f) matrix is needed.
    along = np.sqrt(isotropic / ((1 - share) * variances + isotropic)) - 1
    return (axes + vectors.T @ (along[:, None] * (vectors @ axes))) / np.sqrt(isotropic)


def _distances(rows: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Euclidean distances (n, m) of rows (n, d) to points (m, d)."""
    points = points.astype(np.float64)
    squares = (rows**2).sum(1)[:, None] + (points**2).sum(1) - 2 * rows @ points.T
    return np.sqrt(np.maximum(squares, 0))


def _threshold(scores: np.ndarray) -> float:
    """The score that an image like the validation images exceeds with a probability of at most 5 %.

    From 19 images on, the ceil(0.95 (n + 1))-th smallest, which guarantees that (Vovk, Gammerman, Shafer,
    Algorithmic learning in a random world, 2005). For fewer images: the upper end of Student's prediction interval of
    the logarithms, and at least the largest score.
    """
    scores = np.maximum(scores, ROUNDING)
    rank = ceil(KNOWN_SHARE * (len(scores) + 1))
    if rank <= len(scores):
        return float(np.sort(scores)[rank - 1])
    from scipy.stats import t as student

    logs = np.log(scores)
    width = student.ppf(KNOWN_SHARE, len(scores) - 1) * logs.std(ddof=1) * np.sqrt(1 + 1 / len(scores))
    return float(max(scores.max(), np.exp(logs.mean() + width)))


def _check_features(train: np.ndarray, labels: np.ndarray, valid: np.ndarray) -> None:
    if train.ndim != 2 or valid.ndim != 2 or train.shape[1] != valid.shape[1] or labels.shape != train.shape[:1]:
        shapes = f"{train.shape}, {labels.shape} and {valid.shape}"
        raise ValueError(f"features, labels and validation features of shapes {shapes}; expected (n, f), (n,), (m, f)")
    if not (np.isfinite(train).all() and np.isfinite(valid).all()):
        raise ValueError("features are not finite: training diverged; train with a lower rate")


def _check_arrays(arrays: Mapping[str, np.ndarray]) -> None:
    projection = arrays["projection"]
    if projection.ndim != 2:
        _refuse("projection", f"has shape {projection.shape}; expected (f, d)")
    points = arrays["points"]
    if points.ndim != 2 or not len(points) or points.shape[1] != projection.shape[1]:
        _refuse("points", f"has shape {points.shape}; expected (m, {projection.shape[1]})")
    for name, shape in (("mean", projection.shape[:1]), ("nearest", (1,)), ("threshold", (1,))):
        if arrays[name].shape != shape:
            _refuse(name, f"has shape {arrays[name].shape}; expected {shape}")
    for name, values in arrays.items():
        if values.dtype != np.float32:
            _refuse(name, f"is {values.dtype}; expected float32")
        if not np.isfinite(values).all():
            _refuse(name, "is not finite")
    nearest = float(arrays["nearest"][0])
    if nearest not in range(1, len(points) + 1):
        _refuse("nearest", f"is {nearest:g}; expected a whole number from 1 to {len(points)}")


def _refuse(field: str, what: str) -> None:
    raise BundleError(f"the out-of-distribution detector: field {field} {what}", fix=GET_ANOTHER)
