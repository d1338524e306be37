"""Knowing what it does not know: whether an image is like the training images, judged by the network's features.

unknown = fit(train_features, train_labels, valid_features); unknown.flags(features)      # True: not like them

Two methods, one scoring rule, the distance to the nearest points in a projected space: `mahalanobis`, to the nearest
class mean, and `neighbours`, to the fifth nearest training image. Features are first scaled to length 1: unknown things
excite a network weakly, and would otherwise lie amid the known ones. Fitting and scoring need numpy alone.

The projection is random, and the validation images alone set the threshold: training images lie nearer, above all where
all layers were trained on them. Principal axes, used before, fit few images so closely that these lay further out than
new ones. Flagged, and AUROC of held-out photos against other things, before -> now: EfficientNet-Lite0's ImageNet
weights as they are, average-pooled (1,280 features), Oxford Pets photos, means of 10 seeds. Training and AUROC: 296
photos, 74 set the threshold; new: 74 photos seen by neither, 222 and 74 for the rest. By chance, new varies by 3 %:

| method      | labels       | training         | new            | CIFAR-10 vehicles | drawings       | noise          |
|-------------|--------------|------------------|----------------|-------------------|----------------|----------------|
| mahalanobis | cat or dog   | 45.3 % -> 1.3 %  | 3.8 % -> 4.6 % | 0.957 -> 1.000    | 0.688 -> 0.992 | 0.445 -> 1.000 |
| mahalanobis | 37 breeds    | 16.0 % -> 0.0 %  | 3.0 % -> 3.6 % | 0.998 -> 1.000    | 0.977 -> 0.995 | 0.981 -> 1.000 |
| neighbours  | any          | 29.2 % -> 2.6 %  | 3.4 % -> 3.2 % | 0.964 -> 0.998    | 0.931 -> 0.976 | 0.989 -> 1.000 |

Maximum and average pooling together (2,560 features), cat or dog: training 26.1 -> 2.0 %, new 4.6 -> 2.8 %, vehicles
0.575 -> 1.000. Of 8 photos of a breed, each draws its class mean near: hence the 0 %. The constants were chosen among
some 50 variants on these very sets, so AUROC flatters.

The bundled weights of resnet18, of 32-pixel photos, tell far less. Trained by kit at 128 pixels, cat or dog, 512
average-pooled features, seeds 42, 1 and 7, mean and range (tests/bench/unknown_images.py remakes these AUROC):

| method          | CIFAR-10 vehicles   | drawn digits        | noise               |
|-----------------|---------------------|---------------------|---------------------|
| mahalanobis     | 0.928 (0.895-0.951) | 0.443 (0.369-0.531) | 0.866 (0.771-1.000) |
| neighbours      | 0.941 (0.840-0.993) | 0.539 (0.469-0.594) | 0.938 (0.871-1.000) |
| max probability | 0.713 (0.666-0.785) | 0.797 (0.725-0.879) | 0.155 (0.113-0.219) |

Energy orders the images of two opposite logits just as max probability does. Seed 42 trained all layers, the others the
head alone. Principal axes were slightly better here: 0.932, 0.459, 0.900. At the threshold mahalanobis flags 38 %
of the vehicles, 0.2 % of the digits, 0.9 % of the training photos, and 1.4 and 3.6 % of the validation photos made soft
at 48 and 32 pixels: an image that is not flagged is not therefore known.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import ceil
from statistics import NormalDist

import numpy as np

from kit.errors import BundleError
from kit.manifest import GET_ANOTHER

KNOWN_SHARE = 0.95
FEWEST_TRAIN, FEWEST_VALID = 10, 5
MOST_NUMBERS = 262_144
ROUNDNESS = 20
LEAST_SPREAD = 0.05
NEAREST = 5
ROUNDING = 1e-6
TINY = 1e-12


@dataclass(frozen=True)
class OODDetector:
    """What was fitted, float32: mean (f,), projection (f, d), points (m, d), nearest (1,), threshold (1,).

    An image's score is the distance of its projected features to the `nearest`-th nearest of the points; above the
    threshold it is flagged as not like the training images.
    """

    mean: np.ndarray
    projection: np.ndarray
    points: np.ndarray
    nearest: np.ndarray
    threshold: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Features (n, f) -> distances (n,), float64; the larger, the less like the training images.

        Raises `ValueError` for features of another shape; where they are not finite, nor is the score.
        """
        features = np.asarray(features)
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise ValueError(f"features of shape {features.shape}; expected (n, {len(self.mean)})")
        projected = (_directions(features) - self.mean) @ self.projection.astype(np.float64)
        return np.sort(_distances(projected, self.points), axis=1)[:, int(self.nearest[0]) - 1]

    def flags(self, features: np.ndarray) -> np.ndarray:
        """Features (n, f) -> whether each image is unlike the training images, bool (n,); so is what is not finite."""
        return ~(self.scores(features) <= self.threshold[0])

    def arrays(self) -> dict[str, np.ndarray]:
        """All that scoring needs, by field, as float32: for a safetensors file of at most about 1 MB."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "OODDetector":
        """What `arrays` gave. Raises `BundleError` that names the field that is missing or not as it should be."""
        names = [field.name for field in fields(cls)]
        for name in {*names, *arrays}:
            if name not in names or name not in arrays:
                _refuse(name, "is not known" if name in arrays else "is missing")
        _check_arrays(arrays)
        return cls(**{name: arrays[name] for name in names})


def fit(
    train_features: np.ndarray, train_labels: np.ndarray, valid_features: np.ndarray, method: str = "mahalanobis"
) -> OODDetector | None:
    """Learn what the training images look like to the network; None where `too_few` says why not.

    train_features: (n, f), of the training images as they are, not augmented; train_labels: (n,), any kind;
    valid_features: (m, f), which set the threshold: about 5 % of images like them are flagged.
    method: mahalanobis or neighbours. Raises `ValueError` for shapes that do not fit, or features that are not finite.
    """
    train, valid, labels = np.asarray(train_features), np.asarray(valid_features), np.asarray(train_labels)
    _check_features(train, labels, valid)
    if method not in METHODS:
        raise ValueError(f"method={method!r}; expected one of: {', '.join(METHODS)}")
    if too_few(len(train), len(valid)):
        return None
    # In C order: safetensors writes the memory as it lies, and would read another matrix back.
    learned = [np.asarray(part, np.float32, order="C") for part in METHODS[method](_directions(train), labels)]
    scores = OODDetector(*learned, threshold=np.zeros(1, np.float32)).scores(valid)
    # The next number up: rounded down, the threshold would flag the very image that sets it.
    threshold = np.nextafter(np.array([_threshold(scores)], np.float32), np.float32(np.inf))
    return OODDetector(*learned, threshold=threshold)


def too_few(train: int, valid: int) -> str | None:
    """Why so many training and validation images cannot tell what is unknown, in words; None where they can."""
    for count, least, what in ((train, FEWEST_TRAIN, "training"), (valid, FEWEST_VALID, "validation")):
        if count < least:
            return f"{count} {what} images are too few to know what is unlike them; it takes {least}"
    return None


def _class_means(directions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Mean, projection, points and nearest of the Mahalanobis distance to the nearest class mean.

    Source: Lee, Lee, Lee, Shin, A simple unified framework for detecting out-of-distribution samples, NeurIPS 2018.
    Every feature is divided by its own spread, the covariance within the classes is drawn towards a sphere, and the
    result is projected at random, which preserves distances.
    """
    mean, spread = directions.mean(0), directions.std(0)
    spread = np.maximum(spread, LEAST_SPREAD * spread.mean() + ROUNDING)
    standard = (directions - mean) / spread
    kinds, which = np.unique(labels, return_inverse=True)
    means = np.stack([standard[which == kind].mean(0) for kind in range(len(kinds))])
    axes = _random_axes(len(mean), MOST_NUMBERS // (len(mean) + len(means)))
    whitening = _whitened(axes, standard - means[which])
    return mean, whitening / spread[:, None], means @ whitening, np.ones(1)


def _training_images(directions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Mean, projection, points and nearest of the distance to the fifth nearest training image.

    Source: Sun, Ming, Zhu, Li, Out-of-distribution detection with deep nearest neighbors, ICML 2022. Projected at
    random, and of many images an even sample, so that it stays small.
    """
    mean = directions.mean(0)
    axes = _random_axes(len(mean), MOST_NUMBERS // 2 // len(mean))
    most = MOST_NUMBERS // 2 // axes.shape[1]
    rows = np.unique(np.linspace(0, len(directions) - 1, min(most, len(directions))).astype(int))
    return mean, axes, (directions[rows] - mean) @ axes, np.array([min(NEAREST, len(rows))])


METHODS = {"mahalanobis": _class_means, "neighbours": _training_images}


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
    """The inverse root (f, f) of the residuals' covariance, drawn towards a sphere, times the axes (f, d).

    The sphere has the same mean variance. The more features there are for each image, the larger its share: the
    covariance of few images describes them better than it describes new ones.
    """
    count, features = residuals.shape
    _, roots, vectors = np.linalg.svd(residuals, full_matrices=False)
    variances = roots**2 / count
    share = ROUNDNESS * features / (ROUNDNESS * features + count)
    sphere = share * (variances.sum() / features + ROUNDING)
    # Off the residuals' span only the sphere is left, so that no (f, f) matrix is needed.
    along = np.sqrt(sphere / ((1 - share) * variances + sphere)) - 1
    return (axes + vectors.T @ (along[:, None] * (vectors @ axes))) / np.sqrt(sphere)


def _distances(rows: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Euclidean distances (n, m) of rows (n, d) to points (m, d)."""
    points = points.astype(np.float64)
    squares = (rows**2).sum(1)[:, None] + (points**2).sum(1) - 2 * rows @ points.T
    return np.sqrt(np.maximum(squares, 0))


def _threshold(scores: np.ndarray) -> float:
    """The score that an image like the validation images exceeds with a probability of at most 5 %.

    From 19 images on, the ceil(0.95 (n + 1))-th smallest, which promises just that (Vovk, Gammerman, Shafer,
    Algorithmic learning in a random world, 2005). For fewer there is none: the upper end of Student's prediction
    interval of the logarithms, and at least the largest score.
    """
    scores = np.maximum(scores, ROUNDING)
    rank = ceil(KNOWN_SHARE * (len(scores) + 1))
    if rank <= len(scores):
        return float(np.sort(scores)[rank - 1])
    logs = np.log(scores)
    width = _student(len(scores) - 1) * logs.std(ddof=1) * np.sqrt(1 + 1 / len(scores))
    return float(max(scores.max(), np.exp(logs.mean() + width)))


def _student(freedom: int) -> float:
    """The 95 % quantile of Student's t, by Fisher's expansion: within 1 % from 4 degrees of freedom on."""
    z = NormalDist().inv_cdf(KNOWN_SHARE)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


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
    raise BundleError(f"what tells unknown images: field {field} {what}", fix=GET_ANOTHER)
