"""Nearest neighbours beside scikit-learn's, and the map of images."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from kit.features import embedding, neighbours
from kit.features.embedding import positions
from kit.features.neighbours import nearest

FEATURES = np.random.default_rng(0).normal(size=(41, 6)).astype(np.float32)


def scikit_learns(among, count, features=None):
    """Rows and cosines; without `features`, a row is not its own neighbour."""
    distances, rows = NearestNeighbors(metric="cosine").fit(among).kneighbors(features, count)
    return rows, 1 - distances


@pytest.mark.parametrize("pairs", [8_000_000, 200, 1])  # in one block, in blocks of four rows, of one
@pytest.mark.parametrize("count", [1, 5, 40])
def test_neighbours_and_cosines_are_scikit_learns_in_blocks_of_any_size(pairs, count, monkeypatch):
    monkeypatch.setattr(neighbours, "PAIRS_AT_ONCE", pairs)
    for found, expected in (
        (nearest(FEATURES, count), scikit_learns(FEATURES, count)),
        (nearest(FEATURES[:7], count, among=FEATURES), scikit_learns(FEATURES, count, FEATURES[:7])),
    ):
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_allclose(found[1], expected[1], atol=1e-6)
        assert (found[0].dtype, found[1].dtype) == (np.int64, np.float32)


def test_features_of_zero_have_a_cosine_of_zero_and_without_features_there_are_no_neighbours():
    assert nearest(np.eye(3, 4) * [[1], [1], [0]], 2)[1].tolist() == [[0, 0]] * 3
    assert nearest(np.ones((1, 4)), 0)[0].shape == (1, 0)
    assert nearest(np.ones((0, 4)), 0)[1].shape == (0, 0)


def groups(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (count, 60) of three groups that have nothing in common, and the group of each."""
    of = np.arange(count) % 3
    return (4 * np.eye(3, 60)[of] + 0.1 * np.random.default_rng(0).normal(size=(count, 60))).astype(np.float32), of


def test_on_the_map_similar_images_lie_together_and_it_fills_the_square_and_repeats():
    features, of = groups(30)
    found = positions(features)
    assert found.dtype == np.float32
    assert (found.min(0).tolist(), found.max(0).tolist()) == ([0, 0], [1, 1])
    rows = nearest(features, 5)[0]
    assert (of[rows] == of[:, None]).all()
    apart = np.linalg.norm(found[:, None] - found, axis=2)
    assert (of[np.argsort(apart, axis=1)[:, :6]] == of[:, None]).all()
    np.testing.assert_array_equal(positions(features), found)


def test_the_docstring_names_the_numbers_of_components_and_of_images_placed():
    assert f"PCA to {embedding.AXES} components" in positions.__doc__
    assert f"Of more than {embedding.LANDMARKS:,} images t-SNE places {embedding.LANDMARKS:,};" in positions.__doc__


def test_an_image_that_is_not_placed_itself_is_put_between_those_nearest_to_it(monkeypatch):
    monkeypatch.setattr(embedding, "LANDMARKS", 24)
    features, of = groups(33)
    chosen = np.random.default_rng(0).permutation(33)[:24]
    found = positions(features)
    others = np.setdiff1d(np.arange(33), chosen)
    for row in others:
        group = found[chosen[of[chosen] == of[row]]]
        assert (group.min(0) <= found[row]).all() and (found[row] <= group.max(0)).all()
    monkeypatch.setattr(embedding, "NEIGHBOURS", 1)
    features[others] = features[chosen[: len(others)]]
    found = positions(features)
    np.testing.assert_allclose(found[others], found[chosen[: len(others)]], atol=1e-6)


@pytest.mark.parametrize(("count", "across"), [(1, [0.1]), (2, [0.1, 0.9]), (3, [0.1, 0.5, 0.9])])
def test_fewer_than_four_images_lie_in_a_row(count, across):
    np.testing.assert_allclose(positions(np.ones((count, 5), np.float32)), [[x, 0.5] for x in across], rtol=1e-6)
    four = positions(groups(4)[0])
    assert (four.min(0).tolist(), four.max(0).tolist()) == ([0, 0], [1, 1])
