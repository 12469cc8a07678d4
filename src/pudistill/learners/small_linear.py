"""Many binary logistic regressions on a few samples each, fitted together.

If few samples are trusted, the filter trains many members on a handful of samples each: hundreds,
and with a thousand classes tens of thousands. One by one, each would take milliseconds.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from pudistill.learners.linear import AffineMap, learns_in_blocks, scaler_and_last, scores

# Samples up to which a fit in the space of the samples is cheaper than one in that of the features.
MOST_SAMPLES = 128
NEWTON_STEPS = 25
TOLERANCE = 1e-6  # of the residual of each sample
SMALLEST_CURVATURE = 1e-9  # keeps the equations of a sample that is certain solvable


class AffineClassifier(NamedTuple):
    """A binary classifier for classes 0 and 1 that is an affine map and a sigmoid."""

    affine: AffineMap

    @property
    def classes_(self) -> np.ndarray:
        """Both classes."""
        return np.arange(2)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict probabilities of shape (n_samples, 2)."""
        positive = expit(scores([self.affine], X)[0])
        return np.column_stack([1 - positive, positive])


def fits_together(learner: Any, X: Any) -> bool:
    """Whether `fit_together` can fit a learner to the samples `X`."""
    is_dense = isinstance(X, np.ndarray) and len(X) <= MOST_SAMPLES
    return is_dense and learns_in_blocks(learner, X)


def fit_together(
    learner: Any,
    samples: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    weights: Sequence[np.ndarray | None],
) -> list[AffineClassifier | None]:
    """Fit copies of a logistic regression, with or without a scaler, to one set of samples each.

    Parameters
    ----------
    learner : estimator
        A learner for which `fits_together` is true.
    samples : sequence of ndarray of shape (n, n_features)
        The samples of each copy.
    labels : sequence of ndarray of shape (n,), int
        Their classes, 0 and 1.
    weights : sequence of ndarray of shape (n,) or None
        Their weights; None if all are 1.

    Returns
    -------
    classifiers : list of AffineClassifier or None
        They predict like those that scikit-learn fits, within its tolerance. None where Newton's
        method has not converged.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from pudistill.learners.small_linear import fit_together
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 1, 0, 1])
    >>> (fitted,) = fit_together(LogisticRegression(), [X], [y], [None])
    >>> expected = LogisticRegression(tol=1e-8).fit(X, y)
    >>> bool(np.allclose(fitted.predict_proba(X), expected.predict_proba(X), atol=1e-5))
    True
    """
    parts = scaler_and_last(learner)
    assert parts is not None  # as the caller has checked
    scaler, last = parts
    by_size = defaultdict(list)
    for position, rows in enumerate(samples):
        by_size[len(rows)].append(position)
    fitted: list[AffineClassifier | None] = [None] * len(samples)
    for size, positions in by_size.items():
        X = np.array([samples[n] for n in positions], dtype=np.float64)
        y = np.array([labels[n] for n in positions], dtype=np.float64)
        ones = np.ones(size)
        weight = np.array([ones if weights[n] is None else weights[n] for n in positions])
        for n, affine in zip(positions, _fit_stack(scaler, last, X, y, weight), strict=True):
            fitted[n] = None if affine is None else AffineClassifier(affine)
    return fitted


def _fit_stack(
    scaler: StandardScaler | None,
    last: LogisticRegression,
    X: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
) -> list[AffineMap | None]:
    """Fit one logistic regression per entry of `X`, (n_fits, n_samples, n_features)."""
    # 1. Scale, as a scaler fitted to the samples of each fit does.
    mean, scale = np.zeros((len(X), X.shape[2])), np.ones((len(X), X.shape[2]))
    if scaler is not None and scaler.with_mean:
        mean = X.mean(axis=1)
    if scaler is not None and scaler.with_std:
        std = X.std(axis=1)
        is_constant = std <= 10 * np.finfo(float).eps * np.abs(X).max(axis=1)
        scale = np.where(is_constant, 1.0, std)
    scaled = (X - mean[:, None]) / scale[:, None]
    # 2. Newton's method. The weights are combinations of the samples, with coefficients that solve
    # `coefficient_i = C w_i (y_i - p_i)` and sum to 0, as the intercept has no penalty.
    n_fits, n = y.shape
    kernel = scaled @ scaled.transpose(0, 2, 1)
    strength = last.C * weight
    decision = np.zeros_like(y)
    system = np.ones((n_fits, n + 1, n + 1))
    system[:, n, n] = 0
    for _ in range(NEWTON_STEPS):
        proba = expit(decision)
        curvature = np.maximum(strength * proba * (1 - proba), SMALLEST_CURVATURE)
        system[:, :n, :n] = kernel
        system[:, range(n), range(n)] += 1 / curvature
        response = np.zeros((n_fits, n + 1, 1))
        response[:, :n, 0] = decision + strength * (y - proba) / curvature
        solution = np.linalg.solve(system, response)[:, :, 0]
        coefficients, intercept = solution[:, :n], solution[:, n]
        decision = (kernel @ coefficients[:, :, None])[:, :, 0] + intercept[:, None]
        residual = np.abs(coefficients - strength * (y - expit(decision))).max(axis=1)
        if (residual < TOLERANCE).all():
            break
    # 3. Fold the scaler into the weights.
    weights = (coefficients[:, None] @ scaled)[:, 0] / scale
    intercept = intercept - (weights * mean).sum(axis=1)
    return [
        AffineMap(weights[i : i + 1], intercept[i : i + 1], mean[i])
        if residual[i] < TOLERANCE
        else None
        for i in range(n_fits)
    ]
