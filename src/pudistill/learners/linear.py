"""Logistic regressions on scaled features: they learn block by block, and score many at once.

scikit-learn fits them on all samples at once, each as often as it may be of another class, and
scaled. For many samples that is more than fits into memory; here a block of samples is held.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import issparse
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from pudistill.exceptions import InputError

# What is asked of a logistic regression that is fitted here; scikit-learn fits all others.
PLAIN = {"solver": "lbfgs", "fit_intercept": True, "class_weight": None, "warm_start": False}


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
    parts = _scaler_and_regression(learner)
    if parts is None or len(parts[1].classes_) != 2:
        return None
    scaler, last = parts
    weights, intercept = last.coef_[0].astype(np.float64), float(last.intercept_[0])
    if scaler is None:
        return AffineMap(weights, intercept)
    if scaler.scale_ is not None:
        weights = weights / scaler.scale_
    if scaler.with_mean:
        intercept -= float(weights @ scaler.mean_)
    return AffineMap(weights, intercept)


def _scaler_and_regression(
    learner: Any,
) -> tuple[StandardScaler | None, LogisticRegression] | None:
    """Take a logistic regression, as it is or behind a scaler, apart; None: something else."""
    steps = [step for _, step in learner.steps] if isinstance(learner, Pipeline) else [learner]
    *before, last = steps
    if type(last) is not LogisticRegression or len(before) > 1:
        return None
    if not before:
        return None, last
    return (before[0], last) if type(before[0]) is StandardScaler else None


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


Blocks = Callable[[], Iterator[tuple[np.ndarray, slice]]]
"""Yields the samples of each block, and where they are among all."""


def learns_in_blocks(learner: Any, X: Any) -> bool:
    """Whether `fit_in_blocks` can fit a learner.

    Parameters
    ----------
    learner : estimator
        Any, not fitted yet.
    X : samples of shape (n, ...)
        What it will learn from.

    Returns
    -------
    can : bool
        For logistic regression with L2 penalty, behind a scaler or not, and numbers in one array.
    """
    parts = _scaler_and_regression(learner)
    if parts is None:
        return False
    last = parts[1]
    params = last.get_params()
    if not PLAIN.items() <= params.items() or params.get("l1_ratio") or not np.isfinite(last.C):
        return False
    if params.get("penalty", "l2") not in ("l2", "deprecated"):
        return False
    if params.get("multi_class", "auto") not in ("auto", "multinomial", "deprecated"):
        return False
    return isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind == "f"


def fit_in_blocks(
    learner: Any, blocks: Blocks, targets: np.ndarray, sample_weight: np.ndarray | None = None
) -> Any:
    """Fit a logistic regression to soft targets, holding one block of samples at a time.

    It minimises what scikit-learn does, `C Σᵢ wᵢ Σ꜀ tᵢ꜀ (-log pᵢ꜀) + ‖W‖² / 2`, by the same
    method (L-BFGS) to the same tolerance. A scaler in front learns each sample once; of weighted
    copies it would learn those more often that may be of several classes.

    Parameters
    ----------
    learner : estimator
        One that `learns_in_blocks`; it is fitted in place.
    blocks : callable
        Yields ``(block, where)`` for all samples, whenever it is called: an array of shape
        (n, n_features), and the slice of `targets` that belongs to it.
    targets : ndarray of shape (n_samples, n_classes)
        Rows that sum to 1.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights, of the logistic regression only, as scikit-learn's pipelines pass them.

    Returns
    -------
    learner : estimator
        As scikit-learn would have fitted it: a class that no target gives anything is left out.

    Raises
    ------
    InputError
        If a sample has NaN or infinity, or there is one class only.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from pudistill.learners.linear import fit_in_blocks
    >>> X, y = load_iris(return_X_y=True)
    >>> parts = [slice(0, 100), slice(100, 150)]
    >>> blocks = lambda: ((X[part], part) for part in parts)
    >>> learner = fit_in_blocks(LogisticRegression(max_iter=500), blocks, np.eye(3)[y])
    >>> expected = LogisticRegression(max_iter=500).fit(X, y)
    >>> bool(np.allclose(learner.predict_proba(X), expected.predict_proba(X), atol=0.01))
    True
    """
    if isinstance(learner, Pipeline):
        if len(learner) > 1:
            for block, _ in blocks():
                learner[0].partial_fit(block)
            blocks = _scaled(learner[0], blocks)
        fit_in_blocks(learner[-1], blocks, targets, sample_weight)
        return learner
    first, _ = next(blocks())
    shares = targets.sum(axis=0) if sample_weight is None else sample_weight @ targets
    learner.classes_ = np.flatnonzero(shares > 0)
    learner.n_features_in_ = first.shape[1]
    if len(learner.classes_) < 2:
        raise InputError("All samples to learn from are of one class: give some of another, too.")
    if len(learner.classes_) < targets.shape[1]:
        targets = targets[:, learner.classes_]
    loss = _Loss(learner.C, blocks, targets, sample_weight)
    start = np.zeros((loss.n_scores, first.shape[1] + 1))
    with np.errstate(invalid="ignore"):
        can_be_learned = np.isfinite(loss(start)[1]).all()
    if not can_be_learned:
        raise InputError(
            "Logistic regression cannot learn from NaN or infinity: put an imputer in front of it, "
            "or leave out samples that have some."
        )
    found = minimize(
        lambda flat: loss(flat.reshape(start.shape)),
        start.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": learner.max_iter, "maxls": 50, "gtol": learner.tol, "ftol": FLAT},
    )
    if found.status != 0:
        warnings.warn(
            f"Logistic regression has not settled after {found.nit} steps: scale the features, or "
            "allow it more by max_iter.",
            ConvergenceWarning,
            stacklevel=2,
        )
    weights = found.x.reshape(start.shape).astype(first.dtype)
    learner.coef_, learner.intercept_ = weights[:, :-1], weights[:, -1]
    learner.n_iter_ = np.array([found.nit], dtype=np.int32)
    return learner


# As scikit-learn: only a step that changes nothing ends the search before `tol` does.
FLAT = 64 * np.finfo(float).eps


def _scaled(scaler: StandardScaler, blocks: Blocks) -> Blocks:
    """Scale blocks, as ``scaler.transform`` does with ten times the effort for small ones."""

    def scaled() -> Iterator[tuple[np.ndarray, slice]]:
        for block, where in blocks():
            if scaler.with_mean:
                block = block - scaler.mean_.astype(block.dtype)
            if scaler.with_std:
                block = block / scaler.scale_.astype(block.dtype)
            yield block, where

    return scaled


class _Loss:
    """The mean loss of a logistic regression, and its gradient.

    Parameters
    ----------
    C : float
        Inverse strength of the penalty.
    blocks, targets, sample_weight :
        As of `fit_in_blocks`.
    """

    def __init__(
        self, C: float, blocks: Blocks, targets: np.ndarray, sample_weight: np.ndarray | None
    ) -> None:
        self.blocks, self.targets, self.sample_weight = blocks, targets, sample_weight
        self.total = float(len(targets) if sample_weight is None else sample_weight.sum())
        self.penalty = 1 / (C * self.total)
        # Of two classes the first one's score is 0, so that there is one row of weights.
        self.n_scores = 1 if targets.shape[1] == 2 else targets.shape[1]

    def __call__(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Compute both at `weights` of shape (n_scores, n_features + 1), the intercept last."""
        coef = weights[:, :-1]
        loss = self.penalty / 2 * float((coef**2).sum())
        gradient = np.zeros_like(weights)
        gradient[:, :-1] = self.penalty * coef
        for block, where in self.blocks():
            on_block, slope = self._of_block(block, where, weights.astype(block.dtype))
            loss += on_block / self.total
            gradient[:, :-1] += slope @ block / self.total
            gradient[:, -1] += slope.sum(axis=1, dtype=float) / self.total
        return loss, gradient.ravel()

    def _of_block(
        self, block: np.ndarray, where: slice, weights: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """Return the summed loss, and what it is by each score, of shape (n_scores, n).

        A row a class: numpy is slow along short rows.
        """
        scores = weights[:, :-1] @ block.T + weights[:, -1:]
        if self.n_scores < self.targets.shape[1]:
            scores = np.vstack([np.zeros_like(scores), scores])
        targets = self.targets[where].T.astype(scores.dtype, order="C")
        scores -= scores.max(axis=0)
        slope = np.exp(scores)
        normaliser = slope.sum(axis=0)
        losses = np.log(normaliser) - (targets * scores).sum(axis=0)
        slope /= normaliser
        slope -= targets
        if self.sample_weight is not None:
            weight = self.sample_weight[where].astype(scores.dtype)
            losses, slope = losses * weight, slope * weight
        return float(losses.sum(dtype=float)), slope[-self.n_scores :]
