"""Logistic regressions on scaled features, which are affine maps, score a block all at once."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler


class AffineMap(NamedTuple):
    """What a binary classifier's decision is: ``x @ weights + intercept``."""

    weights: np.ndarray  # (n_features,) float64
    intercept: float


def affine_map(learner: Any) -> AffineMap | None:
    """Write a logistic regression of two classes, as it is or behind a scaler, as one affine map.

    Parameters
    ----------
    learner : fitted estimator
        Any.

    Returns
    -------
    map : AffineMap or None
        None where the learner is something else.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from pudistill.learners.linear import affine_map
    >>> X = np.arange(4.0)[:, None]
    >>> learner = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, X[:, 0] > 1)
    >>> weights, intercept = affine_map(learner)
    >>> bool(np.allclose(X @ weights + intercept, learner.decision_function(X)))
    True
    """
    steps = [step for _, step in learner.steps] if isinstance(learner, Pipeline) else [learner]
    *before, last = steps
    if type(last) is not LogisticRegression or len(last.classes_) != 2:
        return None
    weights, intercept = last.coef_[0].astype(np.float64), float(last.intercept_[0])
    if not before:
        return AffineMap(weights, intercept)
    if len(before) > 1 or type(before[0]) is not StandardScaler:
        return None
    scaler = before[0]
    if scaler.scale_ is not None:
        weights = weights / scaler.scale_
    if scaler.with_mean:
        intercept -= float(weights @ scaler.mean_)
    return AffineMap(weights, intercept)


def probabilities(maps: Sequence[AffineMap], block: Any) -> np.ndarray:
    """Score samples by several logistic regressions at once.

    Parameters
    ----------
    maps : sequence of AffineMap
        The decisions of each.
    block : array or sparse matrix of shape (n_samples, n_features)
        Samples. They are taken as float64: without a scaler in front, the products of features
        far from zero would cancel in fewer digits.

    Returns
    -------
    probabilities : ndarray of shape (len(maps), n_samples)
        Of the second class.
    """
    weights = np.column_stack([one.weights for one in maps])
    block = block if issparse(block) else np.asarray(block, dtype=np.float64)
    return expit((block @ weights + [one.intercept for one in maps]).T)
