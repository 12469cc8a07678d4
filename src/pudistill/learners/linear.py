"""Logistic regression on scaled features: fitted block by block, predicted by many models at once.

scikit-learn fits it to scaled copies of all samples, one copy for each class that a sample can
belong to. If there are many samples, the copies do not fit into memory; here only one block of
samples is in memory.
"""

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

from pudistill.exceptions import InputError, warn_user

# Parameters that a logistic regression must have to be fitted here; others go to scikit-learn.
PARAMETERS_FOR_BLOCKS = {
    "solver": "lbfgs",
    "fit_intercept": True,
    "class_weight": None,
    "warm_start": False,
}


class AffineMap(NamedTuple):
    """The decision of a binary classifier as ``x @ weights + intercept``."""

    weights: np.ndarray  # (n_features,) float64
    intercept: float


def affine_map(learner: Any) -> AffineMap | None:
    """Return a binary logistic regression, with or without a scaler, as one affine map.

    Parameters
    ----------
    learner : fitted estimator
        Any classifier.

    Returns
    -------
    map : AffineMap or None
        None for any other learner.

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
    if hasattr(learner, "affine"):  # it is one already
        return learner.affine
    parts = scaler_and_last(learner)
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


def scaler_and_last(
    learner: Any,
) -> tuple[StandardScaler | None, LogisticRegression] | None:
    """Return scaler and logistic regression of a learner; None if it is anything else."""
    steps = [step for _, step in learner.steps] if isinstance(learner, Pipeline) else [learner]
    *before, last = steps
    if type(last) is not LogisticRegression or len(before) > 1:
        return None
    if not before:
        return None, last
    return (before[0], last) if type(before[0]) is StandardScaler else None


def probabilities(maps: Sequence[AffineMap], block: Any) -> np.ndarray:
    """Predict samples by several logistic regressions at once.

    Parameters
    ----------
    maps : sequence of AffineMap
        One for each model.
    block : array or sparse matrix of shape (n_samples, n_features)
        Samples. They are converted to float64, because the folded scaler makes large products of
        features far from zero cancel each other.

    Returns
    -------
    probabilities : ndarray of shape (len(maps), n_samples)
        Probabilities of the second class.
    """
    weights = np.column_stack([affine.weights for affine in maps])
    block = block if issparse(block) else np.asarray(block, dtype=np.float64)
    return expit((block @ weights + [affine.intercept for affine in maps]).T)


# Classes from which on arrays with an entry per sample and class cost more than the samples do.
MANY_CLASSES = 129


# Yields the samples of each block, and the slice of all samples that they are.
Blocks = Callable[[], Iterator[tuple[np.ndarray, slice]]]


def learns_in_blocks(learner: Any, X: Any) -> bool:
    """Whether `fit_in_blocks` can fit a learner.

    Parameters
    ----------
    learner : estimator
        Any classifier, not fitted.
    X : samples of shape (n_samples, ...)
        Its training samples.

    Returns
    -------
    can : bool
        True for logistic regression with L2 penalty, with or without a scaler, if the samples are
        an array of floating-point features; without a scaler, they can also be a CSR matrix.
    """
    parts = scaler_and_last(learner)
    if parts is None:
        return False
    last = parts[1]
    params = last.get_params()
    if (
        not PARAMETERS_FOR_BLOCKS.items() <= params.items()
        or params.get("l1_ratio")
        or not np.isfinite(last.C)
    ):
        return False
    if params.get("penalty", "l2") not in ("l2", "deprecated"):
        return False
    if params.get("multi_class", "auto") not in ("auto", "multinomial", "deprecated"):
        return False
    if issparse(X):
        return parts[0] is None and X.format == "csr" and X.dtype.kind == "f"
    return isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind == "f"


def fit_in_blocks(
    learner: Any, blocks: Blocks, targets: np.ndarray, sample_weight: np.ndarray | None = None
) -> Any:
    """Fit a logistic regression to soft targets, with one block of samples in memory at a time.

    It minimises scikit-learn's objective, `C Σᵢ wᵢ Σ꜀ tᵢ꜀ (-log pᵢ꜀) + ‖W‖² / 2`, by the same
    method (L-BFGS) to the same tolerance. A scaler in front learns each sample once; from weighted
    copies it would learn a sample once for each of its possible classes.

    Parameters
    ----------
    learner : estimator
        A learner for which `learns_in_blocks` is true; it is fitted in place.
    blocks : callable
        Each call yields ``(block, rows)`` for all samples: an array of shape (n, n_features), and
        the slice of `targets` that belongs to it.
    targets : ndarray of shape (n_samples, n_classes)
        Rows that sum to 1.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights, for the logistic regression but not the scaler, as in scikit-learn's pipelines.

    Returns
    -------
    learner : estimator
        The same `learner`. As in scikit-learn, a class that is 0 in all targets is left out.

    Raises
    ------
    InputError
        If a feature is NaN or infinite, or there is only one class.

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
    # A pipeline: fit the scaler, then the regression on scaled blocks.
    if isinstance(learner, Pipeline):
        if len(learner) > 1:
            for block, _ in blocks():
                learner[0].partial_fit(block)
            blocks = _scaled(learner[0], blocks)
        fit_in_blocks(learner[-1], blocks, targets, sample_weight)
        return learner
    # Leave out classes to which no sample can belong.
    first, _ = next(blocks())
    shares = targets.sum(axis=0) if sample_weight is None else sample_weight @ targets
    learner.classes_ = np.flatnonzero(shares > 0)
    learner.n_features_in_ = first.shape[1]
    if len(learner.classes_) < 2:
        raise InputError("All samples to learn from are of one class: add some of another class.")
    if len(learner.classes_) < targets.shape[1]:
        targets = targets[:, learner.classes_]
    # Minimise the loss from zero weights.
    loss = _Loss(learner.C, blocks, targets, sample_weight)
    start = np.zeros((loss.n_scores, first.shape[1] + 1))
    with np.errstate(invalid="ignore"):
        is_finite = np.isfinite(loss(start)[1]).all()
    if not is_finite:
        raise InputError(
            "Logistic regression cannot learn from NaN or infinity: put an imputer in front of it, "
            "or leave out the samples that have them."
        )
    found = minimize(
        lambda flat: loss(flat.reshape(start.shape)),
        start.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={
            "maxiter": learner.max_iter,
            "maxls": 50,
            "gtol": learner.tol,
            "ftol": SMALLEST_CHANGE,
        },
    )
    if found.status != 0:
        warn_user(
            f"Logistic regression has not converged after {found.nit} steps: scale the features, "
            "or raise max_iter.",
            ConvergenceWarning,
        )
    weights = found.x.reshape(start.shape).astype(first.dtype)
    learner.coef_, learner.intercept_ = weights[:, :-1], weights[:, -1]
    learner.n_iter_ = np.array([found.nit], dtype=np.int32)
    return learner


# As in scikit-learn: only a step without any change ends the search before `tol` does.
SMALLEST_CHANGE = 64 * np.finfo(float).eps


def _scaled(scaler: StandardScaler, blocks: Blocks) -> Blocks:
    """Scale blocks like ``scaler.transform``, which takes ten times as long for small blocks."""

    def scaled() -> Iterator[tuple[np.ndarray, slice]]:
        for block, rows in blocks():
            if scaler.with_mean:
                block = block - scaler.mean_.astype(block.dtype)
            if scaler.with_std:
                block = block / scaler.scale_.astype(block.dtype)
            yield block, rows

    return scaled


class _Loss:
    """Mean loss of a logistic regression, and its gradient.

    Parameters
    ----------
    C : float
        Inverse strength of the penalty.
    blocks, targets, sample_weight :
        As in `fit_in_blocks`.
    """

    def __init__(
        self, C: float, blocks: Blocks, targets: np.ndarray, sample_weight: np.ndarray | None
    ) -> None:
        self.blocks, self.targets, self.sample_weight = blocks, targets, sample_weight
        self.many_classes = targets.shape[1] >= MANY_CLASSES
        if self.many_classes:
            self.rows, self.classes = np.nonzero(targets)
            self.shares = targets[self.rows, self.classes]
        self.total = float(len(targets) if sample_weight is None else sample_weight.sum())
        self.penalty = 1 / (C * self.total)
        # With two classes the score of the first is 0, so there is only one row of weights.
        self.n_scores = 1 if targets.shape[1] == 2 else targets.shape[1]

    def __call__(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Return loss and gradient at `weights`, (n_scores, n_features + 1), the intercept last."""
        coef = weights[:, :-1]
        loss = self.penalty / 2 * float((coef**2).sum())
        gradient = np.zeros_like(weights)
        gradient[:, :-1] = self.penalty * coef
        for block, rows in self.blocks():
            if self.many_classes:
                block = block.astype(np.float32)
            block_loss, slope = self._block_loss(block, rows, weights.astype(block.dtype))
            loss += block_loss / self.total
            gradient[:, :-1] += slope @ block / self.total
            gradient[:, -1] += slope.sum(axis=1, dtype=float) / self.total
        return loss, gradient.ravel()

    def _block_loss(
        self, block: np.ndarray, rows: slice, weights: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """Return the summed loss, and its gradient by the scores, of shape (n_scores, n).

        Arrays have one row per class: numpy is slow along short rows.
        """
        scores = weights[:, :-1] @ block.T + weights[:, -1:]
        if self.n_scores < self.targets.shape[1]:
            scores = np.vstack([np.zeros_like(scores), scores])
        scores -= scores.max(axis=0)
        if self.many_classes:
            start, end = np.searchsorted(self.rows, [rows.start, rows.stop])
            samples, classes = self.rows[start:end] - rows.start, self.classes[start:end]
            shares = self.shares[start:end]
            losses = -np.bincount(samples, shares * scores[classes, samples], scores.shape[1])
            slope = np.exp(scores, out=scores)
        else:
            targets = self.targets[rows].T.astype(scores.dtype, order="C")
            losses = -(targets * scores).sum(axis=0)
            slope = np.exp(scores)
        normaliser = slope.sum(axis=0)
        losses = np.log(normaliser) + losses
        slope /= normaliser
        if self.many_classes:
            slope[classes, samples] -= shares
        else:
            slope -= targets
        if self.sample_weight is not None:
            weight = self.sample_weight[rows].astype(scores.dtype)
            losses, slope = losses * weight, slope * weight
        return float(losses.sum(dtype=float)), slope[-self.n_scores :]
