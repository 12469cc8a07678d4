"""Logistic regressions fitted together agree with those that scikit-learn fits one by one."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from pudistill.learners.linear import affine_map
from pudistill.learners.small_linear import fit_together, fits_together

RNG = np.random.default_rng(0)
SIZES = [2, 4, 4, 30]
SAMPLES = [RNG.normal(size=(n, 8)) * [1, 10, 0.1, 1, 1, 1, 1, 0] + 3 for n in SIZES]
LABELS = [np.arange(n) % 2 for n in SIZES]
WEIGHTS = [None, np.array([1, 0.5, 1, 0.5]), None, RNG.random(30) + 0.1]
SCALERS = [(), (StandardScaler(),), (StandardScaler(with_mean=False),)]


@pytest.mark.parametrize("C", [0.01, 1, 100])
@pytest.mark.parametrize("scaler", SCALERS, ids=str)
def test_fits_agree_with_scikit_learn(scaler, C):
    template = make_pipeline(*scaler, LogisticRegression(C=C, tol=1e-8, max_iter=5000))
    assert all(fits_together(template, samples) for samples in SAMPLES)
    fitted = fit_together(template, SAMPLES, LABELS, WEIGHTS)
    new = RNG.normal(size=(20, 8)) + 3
    for learner, samples, labels, weights in zip(fitted, SAMPLES, LABELS, WEIGHTS, strict=True):
        expected = template.fit(samples, labels, logisticregression__sample_weight=weights)
        np.testing.assert_allclose(
            learner.predict_proba(new), expected.predict_proba(new), atol=2e-3
        )
        assert affine_map(learner) is learner.affine


def test_a_fit_that_does_not_converge_is_left_to_scikit_learn():
    samples = [SAMPLES[1], np.full((4, 8), np.nan)]
    fitted = fit_together(LogisticRegression(), samples, [LABELS[1]] * 2, [None, None])
    assert fitted[0] is not None
    assert fitted[1] is None


def test_other_learners_and_many_samples_are_not_fitted_together():
    assert not fits_together(DecisionTreeClassifier(), SAMPLES[0])
    assert not fits_together(LogisticRegression(), RNG.normal(size=(200, 3)))
