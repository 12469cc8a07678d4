"""Affine maps predict like their classifiers; fits in blocks agree with scikit-learn."""

import warnings
from functools import partial

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.special import expit
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from pudistill.exceptions import InputError
from pudistill.learners.linear import (
    affine_map,
    fit_in_blocks,
    learns_in_blocks,
    linear_proba,
    scores,
)
from pudistill.learners.logistic_part import Block
from pudistill.learners.scoring import take
from pudistill.learners.soft_targets import weighted_copies
from pudistill.learners.tasks import Training, train

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)) * [1e-3, 1, 1e3, 0] + [0, -5, 1e6, 2]
Y = (X[:, 1] + RNG.normal(size=60) > -5).astype(int)
SCALERS = [
    (),
    (StandardScaler(),),
    (StandardScaler(with_mean=False),),
    (StandardScaler(with_std=False),),
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scaler", SCALERS, ids=str)
def test_scores_are_those_of_the_learners(scaler, dtype):
    samples = X.astype(dtype) if scaler else X[:, :2].astype(dtype)
    learners = [
        make_pipeline(*scaler, LogisticRegression(C=C, max_iter=1000)).fit(samples, Y)
        for C in (0.1, 10)
    ]
    expected = [learner.predict_proba(samples)[:, 1] for learner in learners]
    maps = [affine_map(learner) for learner in learners]
    tolerance = 1e-5 if dtype == np.float64 else 1e-3
    np.testing.assert_allclose(expit(scores(maps, samples)), expected, atol=tolerance)
    if not any(step.with_mean for step in scaler):
        sparse = expit(scores(maps, csr_array(samples)))
        np.testing.assert_allclose(sparse, expected, atol=tolerance)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_probabilities_are_those_of_the_learner(n_classes):
    labels = soft(n_classes).argmax(axis=1)
    learner = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, labels)
    np.testing.assert_allclose(linear_proba(learner, X), learner.predict_proba(X), atol=1e-5)


def test_only_finite_arrays_are_predicted_without_the_learner():
    learner = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    gap = X.copy()
    gap[3, 1] = np.nan
    assert linear_proba(learner, gap) is None  # the learner itself says what is wrong
    assert linear_proba(learner, X[:, :3]) is None
    assert linear_proba(learner, X.tolist()) is None
    assert linear_proba(RidgeClassifier().fit(X, Y), X) is None


def test_other_learners_have_no_affine_map():
    others = [
        RidgeClassifier().fit(X, Y),
        make_pipeline(MinMaxScaler(), LogisticRegression()).fit(X, Y),
    ]
    assert [affine_map(learner) for learner in others] == [None] * 2


def soft(n_classes):
    """Return targets with 80 % on the class that a feature decides."""
    bins = np.quantile(X[:, 1], np.arange(1, n_classes) / n_classes)
    return 0.8 * np.eye(n_classes)[np.digitize(X[:, 1], bins)] + 0.2 / n_classes


def in_parts(samples):
    parts = [slice(0, 25), slice(25, 26), slice(26, 60)]
    return [Block(partial(samples.__getitem__, part), part) for part in parts]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scaler", SCALERS[1:3], ids=str)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_fit_in_blocks_agrees_with_scikit_learn_on_copies(n_classes, scaler, weighted, dtype):
    samples, targets = (X - [0, 0, 1e6, 0]).astype(dtype), soft(n_classes)
    weight = RNG.uniform(0.5, 2, size=60) if weighted else None
    learner = make_pipeline(*scaler, LogisticRegression(C=0.5, max_iter=5000, tol=1e-8))
    found = fit_in_blocks(clone(learner), in_parts(samples), targets, weight)
    rows, labels, weights = weighted_copies(targets, weight)
    expected = clone(learner)
    expected.fit(samples[rows], labels, logisticregression__sample_weight=weights)
    tolerance = 1e-5 if dtype == np.float64 else 5e-3
    np.testing.assert_allclose(
        found.predict_proba(samples), expected.predict_proba(samples), atol=tolerance
    )
    assert found[-1].coef_.dtype == dtype
    assert found[-1].coef_.shape == expected[-1].coef_.shape
    assert found[-1].n_features_in_ == expected[-1].n_features_in_ == 4


@pytest.mark.parametrize("scaler", SCALERS[1:3], ids=str)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_fit_ends_in_the_same_minimum_wherever_it_starts(n_classes, scaler):
    learner = make_pipeline(*scaler, LogisticRegression(tol=1e-6))
    samples, targets = X - [0, 0, 1e6, 0], soft(n_classes)
    start = fit_in_blocks(clone(learner), in_parts(samples), targets[::-1])
    cold = fit_in_blocks(clone(learner), in_parts(samples), targets)
    warm = fit_in_blocks(clone(learner), in_parts(samples), targets, start=start)
    np.testing.assert_allclose(warm[-1].coef_, cold[-1].coef_, atol=1e-3)
    again = fit_in_blocks(clone(learner), in_parts(samples), targets, start=cold)
    assert again[-1].n_iter_[0] <= 1


def test_a_start_with_other_classes_is_ignored():
    start = LogisticRegression().fit(X[:, :2], Y)
    fitted = [
        fit_in_blocks(LogisticRegression(), in_parts(X[:, :2]), soft(3), start=other)
        for other in (None, start)
    ]
    np.testing.assert_array_equal(fitted[0].coef_, fitted[1].coef_)


@pytest.mark.parametrize("kind", [np.asarray, csr_array])
def test_a_preconditioner_saves_steps_and_changes_no_result(monkeypatch, kind):
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(400, 60)) @ (rng.normal(size=(60, 60)) / np.arange(1, 61)[:, None])
    targets = np.eye(3)[np.digitize(samples[:, 0] + samples[:, 1], [-1, 1])]
    learner, fitted = LogisticRegression(max_iter=5000, tol=1e-5), []
    for worth in (0, np.inf):
        monkeypatch.setattr("pudistill.learners.linear.WORTH_PRECONDITIONING", worth)
        blocks = [Block(lambda: kind(samples), slice(0, 400))]
        fitted.append(fit_in_blocks(clone(learner), blocks, targets))
    assert fitted[0].n_iter_[0] < 0.7 * fitted[1].n_iter_[0]
    np.testing.assert_allclose(
        fitted[0].predict_proba(samples), fitted[1].predict_proba(samples), atol=2e-3
    )


def test_a_class_without_samples_is_left_out():
    targets = np.insert(soft(3), 1, 0.0, axis=1)
    found = fit_in_blocks(LogisticRegression(), in_parts(X[:, :2]), targets)
    assert found.classes_.tolist() == [0, 2, 3]


def test_a_class_whose_samples_weigh_nothing_is_left_out():
    targets, weight = soft(3).round(), np.ones(60)
    weight[targets[:, 1] == 1] = 0
    found = fit_in_blocks(LogisticRegression(), in_parts(X[:, :2]), targets, weight)
    assert found.classes_.tolist() == [0, 2]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_an_error(value):
    samples = X[:, :2].copy()
    samples[30, 1] = value
    for learner in (LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression())):
        with pytest.raises(ValueError, match=r"NaN or infinity|contains infinity"):
            fit_in_blocks(learner, in_parts(samples), soft(3))


def test_one_class_alone_is_an_error():
    with pytest.raises(InputError, match="of one class"):
        fit_in_blocks(LogisticRegression(), in_parts(X), np.eye(2)[np.zeros(60, int)])


def test_a_fit_that_has_not_converged_warns():
    blocks, targets = in_parts(X[:, :2]), soft(3)
    with pytest.warns(ConvergenceWarning, match="not converged after 2 steps"):
        fit_in_blocks(LogisticRegression(max_iter=2), blocks, targets)


OTHERS = [
    LogisticRegression(solver="newton-cg"),
    LogisticRegression(class_weight="balanced"),
    LogisticRegression(C=np.inf),
    LogisticRegression(l1_ratio=0.5),
    make_pipeline(MinMaxScaler(), LogisticRegression()),
    RidgeClassifier(),
]


@pytest.mark.parametrize("learner", OTHERS, ids=repr)
def test_other_settings_are_left_to_scikit_learn(learner):
    assert not learns_in_blocks(learner, X)


def test_only_arrays_of_numbers_are_learned_in_blocks():
    learner = make_pipeline(StandardScaler(), LogisticRegression())
    assert learns_in_blocks(learner, X)
    assert not learns_in_blocks(learner, csr_array(X))
    assert not learns_in_blocks(learner, X.astype(int))


def test_many_samples_are_learned_in_blocks_and_never_copied(monkeypatch):
    monkeypatch.setattr("pudistill.learners.logistic_part.KEPT_BYTES", 0)
    monkeypatch.setattr("pudistill.learners.tasks.BLOCK_BYTES", 7 * 4 * 4)
    taken = []
    monkeypatch.setattr(
        "pudistill.learners.tasks.take", lambda X, rows: taken.append(rows) or take(X, rows)
    )
    learner = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    samples, targets, rows = X.astype(np.float32), soft(3), np.arange(59, 2, -1)
    task = Training(learner, samples, targets[rows], role="student", seed=0, rows=rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = train(task)
    assert taken
    assert max(map(len, taken)) == 7
    again, labels, weights = weighted_copies(targets[rows])
    expected = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    expected.fit(samples[rows][again], labels, logisticregression__sample_weight=weights)
    np.testing.assert_allclose(
        found.predict_proba(samples), expected.predict_proba(samples), atol=0.02
    )
