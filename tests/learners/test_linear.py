"""Affine maps are the classifiers that they were made of."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from pudistill.learners.linear import affine_map, probabilities

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


def test_other_learners_are_none():
    three = (X[:, 1] > -5.5).astype(int) + (X[:, 1] > -4.5)
    others = [
        RidgeClassifier().fit(X, Y),
        make_pipeline(MinMaxScaler(), LogisticRegression()).fit(X, Y),
        make_pipeline(StandardScaler(), LogisticRegression()).fit(X, three),
    ]
    assert [affine_map(one) for one in others] == [None] * 3
