"""The linear head: scikit-learn's solution, with a strength that was chosen inside the training images."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from kit.tasks.solvers import NEVER, Discriminant
from kit.train.linear import MOST_FITTED, STRENGTHS, USUAL, _standardised, cross_predict, fit_head

DICE = np.random.default_rng(1)


def points(count: int, size: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (count, size) around a centre for each class, on different scales, and their labels."""
    labels = np.arange(count) % classes
    centres = DICE.normal(size=(classes, size))
    scales = DICE.uniform(0.1, 10, size)
    return ((centres[labels] + 2 * DICE.normal(size=(count, size))) * scales + 5).astype(np.float32), labels


@pytest.mark.parametrize(("count", "size"), [(40, 100), (100, 20)])
@pytest.mark.parametrize("classes", [2, 4])
def test_it_is_the_solution_on_standardised_features(count, size, classes):
    features, labels = points(count, size, classes)
    head = fit_head(features, labels, np.arange(count) % 5, "classification")
    standard = StandardScaler().fit_transform(features.astype(np.float64))
    expected = LogisticRegression(C=head.strength, max_iter=5000, tol=1e-8).fit(standard, labels)
    logits = features @ head.weight.T + head.bias
    shares = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(shares / shares.sum(1, keepdims=True), expected.predict_proba(standard), atol=0.01)


def test_the_strength_is_that_of_the_lowest_cross_validated_loss_and_what_is_held_out_was_not_seen():
    features, labels = points(60, 30, 3)
    folds = np.arange(60) % 5
    head = fit_head(features, labels, folds, "classification")
    assert list(head.losses) == list(STRENGTHS)
    assert head.losses[head.strength] == min(head.losses.values())
    assert np.isfinite(head.held_out).all()
    noise = DICE.permutation(labels)
    told = fit_head(features, noise, folds, "classification")
    wrong = (told.held_out.argmax(1) != noise).mean()
    assert wrong > 0.4  # labels at random cannot be known: chance is two thirds


def test_the_only_image_of_a_class_trains_and_is_not_cross_validated():
    features, labels = points(21, 5, 2)
    labels[20] = 2
    folds = np.where(labels == 2, -1, np.arange(21) % 5)
    head = fit_head(features, labels, folds, "classification")
    assert np.isnan(head.held_out[20]).all()
    assert np.isfinite(head.held_out[:20]).all()
    assert head.weight.shape == (3, 5)


def test_with_too_few_images_to_choose_it_takes_the_usual_strength():
    features, labels = points(2, 5, 2)
    head = fit_head(features, labels, np.array([-1, -1]), "classification")
    assert head.strength == USUAL in STRENGTHS
    assert fit_head(features, labels, np.array([-1, -1]), "classification", strengths=[0.3]).strength == 0.3
    assert (features @ head.weight.T + head.bias).argmax(1).tolist() == [0, 1]


def test_a_constant_feature_changes_no_answer_and_features_are_standardised_in_float64():
    features, labels = points(40, 6, 2)
    folds = np.arange(40) % 5
    wider = np.column_stack([features, np.full(40, 7, np.float32)])
    without, with_it = (fit_head(one, labels, folds, "classification") for one in (features, wider))
    np.testing.assert_allclose(with_it.weight[:, :6], without.weight, rtol=1e-3, atol=1e-6)
    assert not with_it.weight[:, 6].any()
    standard, mean, spread = _standardised(wider + np.float32(1000))
    np.testing.assert_allclose(standard.mean(0), 0, atol=1e-10)
    np.testing.assert_allclose(standard.std(0), [1] * 6 + [0], atol=1e-10)
    np.testing.assert_allclose(standard * spread + mean, wider + np.float32(1000), rtol=1e-12)


def test_of_too_many_images_some_are_cross_validated_evenly_taken(monkeypatch):
    monkeypatch.setattr("kit.train.linear.MAX_CV_IMAGES", 13)
    features, labels = points(61, 5, 2)
    head = fit_head(features, labels, np.arange(61) % 3, "classification")
    assert np.flatnonzero(np.isfinite(head.held_out[:, 0])).tolist() == list(range(0, 61, 5))


def test_what_one_fold_holds_out_is_predicted_from_the_others():
    features, labels = points(60, 5, 3)
    folds, trusted = np.arange(60) % 4 - 1, np.arange(60) % 7 != 0
    single = fit_head(features, labels, np.where(folds == 2, 0, -1), "classification", strengths=[0.1])
    assert list(single.losses) == [0.1]
    standard = StandardScaler().fit_transform(features.astype(np.float64))
    for outputs, among in (
        (cross_predict(features, labels, folds, "classification", trusted, strength=0.1), trusted),
        (cross_predict(features, labels, folds, "classification", strength=0.1), np.ones(60, bool)),
        (single.held_out, np.ones(60, bool)),
    ):
        held = folds == 2
        expected = LogisticRegression(C=0.1, max_iter=5000, tol=1e-8).fit(
            standard[~held & among], labels[~held & among]
        )
        shares = np.exp(outputs[held] - outputs[held].max(1, keepdims=True))
        found = shares / shares.sum(1, keepdims=True)
        np.testing.assert_allclose(found, expected.predict_proba(standard[held]), atol=0.01)
        assert np.isnan(outputs[folds == -1]).all()


def test_balanced_a_rare_class_is_said_more_often():
    features, labels = points(200, 3, 2)
    keep = (labels == 0) | (np.arange(200) < 30)
    features, labels, folds = features[keep], labels[keep], np.arange(keep.sum()) % 5
    often = [
        ((features @ head.weight.T + head.bias).argmax(1) == 1).sum()
        for head in (fit_head(features, labels, folds, "classification", balanced) for balanced in (False, True))
    ]
    assert often[1] > often[0]


def test_of_several_classes_each_is_its_own_regression_and_one_that_all_have_is_a_constant():
    features, labels = points(80, 20, 4)
    targets = np.stack([labels < 2, labels % 2 == 0, np.ones(80)], 1).astype(np.int64)
    head = fit_head(features, targets, np.arange(80) % 5, "multilabel")
    assert head.weight.shape == (3, 20)
    assert not head.weight[2].any() and head.bias[2] == NEVER
    standard = StandardScaler().fit_transform(features.astype(np.float64))
    expected = (
        LogisticRegression(C=head.strength, max_iter=5000).fit(standard, targets[:, 0]).decision_function(standard)
    )
    np.testing.assert_allclose((features @ head.weight.T + head.bias)[:, 0], expected, atol=0.02)


def test_numbers_are_a_ridge_regression():
    features, _ = points(50, 80, 2)
    numbers = features[:, :2] @ np.array([[1.0, 2.0], [0.5, -1.0]]) + DICE.normal(size=(50, 2))
    head = fit_head(features, numbers, np.arange(50) % 5, "regression")
    standard = StandardScaler().fit_transform(features.astype(np.float64))
    expected = Ridge(alpha=1 / head.strength).fit(standard, numbers).predict(standard)
    np.testing.assert_allclose(features @ head.weight.T + head.bias, expected, atol=1e-3)


@pytest.mark.parametrize("strength", [0.01, 0.1])
def test_the_discriminant_is_that_of_scikit_learn_and_an_absent_class_is_never_predicted(strength):
    features, labels = points(90, 20, 3)
    labels[labels == 2] = 3
    chosen = np.arange(80)
    weight, bias = Discriminant(labels, False).fit(features, chosen, strength)
    expected = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=1 / (1 + 10 * strength))
    expected.fit(features[chosen], labels[chosen])
    logits, there = features @ weight.T + bias, [0, 1, 3]
    difference = logits[:, there] - expected.decision_function(features)
    np.testing.assert_allclose(difference - difference.mean(1, keepdims=True), 0, atol=1e-3)
    assert set(logits.argmax(1)) <= set(there)


def test_many_images_are_cross_predicted_as_well_as_few():
    assert f"Of more than {MOST_FITTED:,} images" in cross_predict.__doc__
    features, labels = points(MOST_FITTED + 400, 8, 4)
    folds = np.arange(len(labels)) % 5
    wrong = []
    for which in (slice(0, MOST_FITTED), slice(None)):
        outputs = cross_predict(features[which], labels[which], folds[which], "classification")
        wrong.append((outputs.argmax(1) != labels[which]).mean())
    assert abs(wrong[0] - wrong[1]) < 0.02
