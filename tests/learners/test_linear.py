"""Affine maps predict like their classifiers; fits in blocks agree with scikit-learn."""

import warnings

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from pudistill.exceptions import InputError
from pudistill.learners.linear import affine_map, fit_in_blocks, learns_in_blocks, probabilities
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
def test_probabilities_are_those_of_the_learners(scaler, dtype):
    samples = X.astype(dtype) if scaler else X[:, :2].astype(dtype)
    learners = [
        make_pipeline(*scaler, LogisticRegression(C=C, max_iter=1000)).fit(samples, Y)
        for C in (0.1, 10)
    ]
    expected = [learner.predict_proba(samples)[:, 1] for learner in learners]
    maps = [affine_map(learner) for learner in learners]
    tolerance = 1e-10 if dtype == np.float64 else 1e-3
    np.testing.assert_allclose(probabilities(maps, samples), expected, atol=tolerance)
    if not any(step.with_mean for step in scaler):
        sparse = probabilities(maps, csr_array(samples))
        np.testing.assert_allclose(sparse, expected, atol=tolerance)


def test_other_learners_have_no_affine_map():
    three = (X[:, 1] > -5.5).astype(int) + (X[:, 1] > -4.5)
    others = [
        RidgeClassifier().fit(X, Y),
        make_pipeline(MinMaxScaler(), LogisticRegression()).fit(X, Y),
        make_pipeline(StandardScaler(), LogisticRegression()).fit(X, three),
    ]
    assert [affine_map(learner) for learner in others] == [None] * 3


def soft(n_classes):
    """Return targets with 80 % on the class that a feature decides."""
    bins = np.quantile(X[:, 1], np.arange(1, n_classes) / n_classes)
    return 0.8 * np.eye(n_classes)[np.digitize(X[:, 1], bins)] + 0.2 / n_classes


def in_parts(samples):
    parts = [slice(0, 25), slice(25, 26), slice(26, 60)]
    return lambda: ((samples[part], part) for part in parts)


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
    assert (affine_map(found) is None) == (n_classes == 3)


@pytest.mark.parametrize("weighted", [False, True])
def test_with_many_classes_a_fit_in_blocks_is_the_same(monkeypatch, weighted):
    weights = np.random.default_rng(1).random(60) + 0.5 if weighted else None
    few, many = (make_pipeline(StandardScaler(), LogisticRegression(tol=1e-6)) for _ in range(2))
    fit_in_blocks(few, in_parts(X), soft(3), weights)
    monkeypatch.setattr("pudistill.learners.linear.MANY_CLASSES", 3)
    fit_in_blocks(many, in_parts(X), soft(3), weights)
    np.testing.assert_allclose(many.predict_proba(X), few.predict_proba(X), atol=1e-3)


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
    monkeypatch.setattr("pudistill.learners.tasks.MIN_SAMPLES_FOR_BLOCKS", 50)
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
