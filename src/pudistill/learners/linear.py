"""Logistic regression on scaled features: fitted block by block, predicted by many models at once.

scikit-learn fits it to scaled copies of all samples, one copy for each class that a sample can
belong to. If there are many samples, the copies do not fit into memory; here only one block of
samples is in memory.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse
from scipy.special import expit, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.extmath import randomized_svd

from pudistill.exceptions import InputError, warn_user
from pudistill.learners.lbfgs import minimise
from pudistill.learners.logistic_part import UNCHANGED, Block, Centring, parts_of
from pudistill.learners.parts import Each, dealt

# Parameters that a logistic regression must have to be fitted here; others go to scikit-learn.
PARAMETERS_FOR_BLOCKS = {
    "solver": "lbfgs",
    "fit_intercept": True,
    "class_weight": None,
    "warm_start": False,
}


class AffineMap(NamedTuple):
    """The scores of a linear classifier as ``x @ weights.T + intercept``.

    With two classes there is one score, that of the second; the score of the first is 0.
    """

    weights: np.ndarray  # (n_scores, n_features) float64
    intercept: np.ndarray  # (n_scores,) float64
    mean: np.ndarray | None = None  # (n_features,) what the scaler subtracts; None: nothing


def affine_map(learner: Any) -> AffineMap | None:
    """Return a logistic regression, with or without a scaler, as one affine map.

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
    >>> weights, intercept, mean = affine_map(learner)
    >>> bool(np.allclose((X @ weights.T + intercept)[:, 0], learner.decision_function(X)))
    True
    """
    if hasattr(learner, "affine"):  # it is one already
        return learner.affine
    parts = scaler_and_last(learner)
    if parts is None:
        return None
    scaler, last = parts
    weights, intercept = last.coef_.astype(np.float64), last.intercept_.astype(np.float64)
    if scaler is None:
        return AffineMap(weights, intercept)
    if scaler.scale_ is not None:
        weights = weights / scaler.scale_
    if not scaler.with_mean:
        return AffineMap(weights, intercept)
    return AffineMap(weights, intercept - weights @ scaler.mean_, scaler.mean_)


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


# Scores of which parts of at most this size cancel each other are right to four digits in single
# precision. Features further from 0 are measured from their mean, which takes as long again.
LARGEST_CANCELLED = 1e3


def scores(maps: Sequence[AffineMap], block: Any) -> np.ndarray:
    """Score samples by several logistic regressions at once.

    Parameters
    ----------
    maps : sequence of AffineMap
        One for each model.
    block : array or sparse matrix of shape (n_samples, n_features)
        Samples.

    Returns
    -------
    scores : ndarray of shape (total n_scores, n_samples)
        The scores of all models, one model after the other. Those of models with a scaler are
        computed in single precision.
    """
    weights = np.concatenate([found.weights for found in maps])
    intercept = np.concatenate([found.intercept for found in maps])
    mean = maps[0].mean
    if mean is not None and not issparse(block):
        if (np.abs(weights) @ np.abs(mean)).max() > LARGEST_CANCELLED:
            intercept = intercept + weights @ mean
            block = np.subtract(block, mean, dtype=np.result_type(block, np.float32))
        block = block.astype(np.float32, copy=False)
        weights, intercept = weights.astype(np.float32), intercept.astype(np.float32)
    return np.asarray(block @ weights.T).T + intercept[:, None]


def linear_proba(learner: Any, block: Any) -> np.ndarray | None:
    """Predict probabilities of shape (n_samples, n_classes) like a logistic regression itself.

    A learner's own ``predict_proba`` checks and scales the samples first, which takes longer.

    Returns
    -------
    proba : ndarray or None
        None for any other learner or samples, and for samples that are not finite.
    """
    found = affine_map(learner) if isinstance(block, np.ndarray) or issparse(block) else None
    if found is None or block.shape[1:] != found.weights.shape[1:]:
        return None
    of_block = scores([found], block)
    if not np.isfinite(of_block).all():
        return None
    if len(of_block) == 1:
        second = expit(of_block[0])
        return np.column_stack([1 - second, second])
    return softmax(of_block, axis=0).T


# Classes from which on arrays with an entry per sample and class cost more than the samples do.
MANY_CLASSES = 129


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
    params = vars(last)
    if (
        not PARAMETERS_FOR_BLOCKS.items() <= params.items()
        or params.get("l1_ratio")
        or not np.isfinite(last.C)
    ):
        return False
    if params.get("penalty", "l2") not in ("l2", "deprecated"):
        return False
    if issparse(X):
        return parts[0] is None and X.format == "csr" and X.dtype.kind == "f"
    return isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind == "f"


def fit_in_blocks(
    learner: Any,
    blocks: Sequence[Block],
    targets: np.ndarray,
    sample_weight: np.ndarray | None = None,
    start: Any = None,
    rough: float = 1.0,
) -> Any:
    """Fit a logistic regression to soft targets, with one block of samples in memory at a time.

    It minimises scikit-learn's objective, `C Σᵢ wᵢ Σ꜀ tᵢ꜀ (-log pᵢ꜀) + ‖W‖² / 2`, to the same
    tolerance, by the same method (L-BFGS) with a preconditioner. A scaler in front learns each
    sample once; from weighted copies it would learn a sample once for each of its possible classes.

    Parameters
    ----------
    learner : estimator
        A learner for which `learns_in_blocks` is true; it stays as it is.
    blocks : sequence of Block
        All samples, in order. Sums over them are computed part by part: of a large fit in threads
        or on the nodes of a cluster, see `dealt`, with the same result.
    targets : ndarray of shape (n_samples, n_classes)
        Rows that sum to 1.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights, for the logistic regression but not the scaler, as in scikit-learn's pipelines.
    start : fitted estimator, default=None
        Such a learner, fitted to other targets of about the same samples, whose weights the search
        starts from; None: zero weights. There is one minimum, so it changes the time and not the
        result, beyond the tolerance.
    rough : float, default=1.0
        The search ends at this multiple of the learner's tolerance.

    Returns
    -------
    learner : estimator
        A fitted copy. As in scikit-learn, a class that is 0 in all targets is left out.

    Raises
    ------
    InputError
        If a feature is NaN or infinite, or there is only one class.

    Examples
    --------
    >>> from functools import partial
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from pudistill.learners.linear import fit_in_blocks
    >>> from pudistill.learners.logistic_part import Block
    >>> X, y = load_iris(return_X_y=True)
    >>> parts = [slice(0, 100), slice(100, 150)]
    >>> blocks = [Block(partial(X.__getitem__, part), part) for part in parts]
    >>> learner = fit_in_blocks(LogisticRegression(max_iter=500), blocks, np.eye(3)[y])
    >>> expected = LogisticRegression(max_iter=500).fit(X, y)
    >>> bool(np.allclose(learner.predict_proba(X), expected.predict_proba(X), atol=0.01))
    True
    """
    learner = _unfitted_copy(learner)
    steps = scaler_and_last(learner)
    assert steps is not None  # as the caller has checked
    scaler, last = steps
    # Leave out classes to which no sample can belong.
    shares = targets.sum(axis=0) if sample_weight is None else sample_weight @ targets
    last.classes_ = np.flatnonzero(shares > 0)
    if len(last.classes_) < 2:
        raise InputError("All samples to learn from are of one class: add some of another class.")
    if len(last.classes_) < targets.shape[1]:
        targets = targets[:, last.classes_]
    first = blocks[0].load()
    n_features = first.shape[1]
    n_entries = first.nnz if issparse(first) else len(targets) * n_features
    parts = parts_of(
        blocks, targets, sample_weight, 0 if issparse(first) else first.itemsize * n_entries
    )
    first = first[:1].copy()  # the type of the samples, and where sums are measured from
    with dealt(parts, n_entries * len(last.classes_)) as each:
        last.n_features_in_ = n_features
        if scaler is not None:
            _fit_scaler(scaler, first[0], each)
        centring = _centring(scaler)

        def of_centred(name: str, *args: Any) -> Iterator[Any]:
            return each(name, centring, *args)

        dtype = centring.apply(first).dtype
        # Minimise the loss.
        weight = float(len(targets) if sample_weight is None else sample_weight.sum())
        loss = _Loss(last.C, of_centred, targets.shape[1], weight, _scaling(scaler, centring))
        if not loss.is_finite:
            raise InputError(
                "Logistic regression cannot learn from NaN or infinity: put an imputer in front of "
                "it, or leave out the samples that have them."
            )
        weights = _start(start, scaler, last.classes_, dtype)
        if weights is None:
            weights = np.zeros((loss.n_scores, n_features + 1), dtype=dtype)
        found = minimise(
            loss,
            weights,
            precondition=_preconditioner(loss, len(targets), n_entries),
            tolerance=rough * last.tol,
            max_iter=last.max_iter,
            precision=PRECISION,
        )
    if not found.has_converged:
        warn_user(
            f"Logistic regression has not converged after {found.n_iter} steps: scale the "
            "features, or raise max_iter.",
            ConvergenceWarning,
        )
    weights = found.weights.astype(first.dtype)
    last.coef_, last.intercept_ = weights[:, :-1], weights[:, -1]
    last.n_iter_ = np.array([found.n_iter], dtype=np.int32)
    return learner


def _unfitted_copy(learner: Any) -> Any:
    """Copy a logistic regression, with or without a scaler: `clone` takes as long as a fit."""
    if isinstance(learner, Pipeline):
        found = copy.copy(learner)
        found.steps = [(name, _unfitted_copy(step)) for name, step in learner.steps]
        return found
    found = copy.copy(learner)
    for name in [name for name in vars(found) if name.endswith("_")]:
        delattr(found, name)
    return found


# Rounding error of the loss, in units of a sample's loss.
PRECISION = 1e-7


# Samples are measured from their mean before they are multiplied if, in some feature, it is further
# from 0 than this many standard deviations. Otherwise the weights are scaled in place of the
# samples, and single precision loses less than a digit.
FAR_FROM_ZERO = 3.0


def _fit_scaler(scaler: StandardScaler, origin: np.ndarray, each: Each) -> None:
    """Fit a scaler; its own ``partial_fit`` takes as long as several steps of the search."""
    with np.errstate(invalid="ignore", over="ignore"):
        total, squares, n = (sum(sums) for sums in zip(*each("moments", origin), strict=True))
        scaler.mean_ = origin + total / n
        scaler.var_ = np.maximum(squares / n - (total / n) ** 2, 0)
        spread = np.sqrt(scaler.var_)
    scaler.scale_ = np.where(spread == 0, 1.0, spread) if scaler.with_std else None
    scaler.n_samples_seen_, scaler.n_features_in_ = n, len(origin)


def _is_far(scaler: StandardScaler) -> bool:
    """Whether a feature is far from 0."""
    spread = np.sqrt(scaler.var_)
    return bool((np.abs(scaler.mean_) > FAR_FROM_ZERO * np.where(spread == 0, 1.0, spread)).any())


def _centring(scaler: StandardScaler | None) -> Centring:
    """Return what samples need before products: single precision, around a mean far from 0."""
    if scaler is None or not scaler.with_mean:
        return UNCHANGED
    return Centring(scaler.mean_ if _is_far(scaler) else None, np.dtype(np.float32))


class _Scaling(NamedTuple):
    """What centred samples lack to be what a scaler makes of them."""

    mean: np.ndarray | float  # (n_features,) to be subtracted
    scale: np.ndarray | float  # (n_features,) to be divided by

    def of_weights(self, weights: np.ndarray) -> np.ndarray:
        """Return the weights, the intercept last, that give the same scores for the samples."""
        coef = (weights[:, :-1] / self.scale).astype(weights.dtype)
        intercept = weights[:, -1] - (coef * self.mean).sum(axis=1)
        return np.column_stack([coef, intercept.astype(weights.dtype)])

    def of_sums(self, sums: np.ndarray) -> np.ndarray:
        """Return sums of scaled samples, and of their number, from the same sums of samples."""
        features = (sums[:, :-1] - sums[:, -1:] * self.mean) / self.scale
        return np.column_stack([features, sums[:, -1]])


def _scaling(scaler: StandardScaler | None, centring: Centring) -> _Scaling:
    """Return what a scaler does beyond centring."""
    if scaler is None:
        return _Scaling(0.0, 1.0)
    is_left = scaler.with_mean and centring.mean is None
    return _Scaling(
        scaler.mean_ if is_left else 0.0, 1.0 if scaler.scale_ is None else scaler.scale_
    )


def _start(
    learner: Any, scaler: StandardScaler | None, classes: np.ndarray, dtype: Any
) -> np.ndarray | None:
    """Return the weights of a fitted learner for samples that `scaler` scales."""
    if learner is None:
        return None
    found = affine_map(learner)
    if found is None or not np.array_equal(learner.classes_, classes):
        return None
    coef, intercept, _ = found
    if scaler is not None and scaler.with_mean:
        intercept = intercept + coef @ scaler.mean_
    if scaler is not None and scaler.scale_ is not None:
        coef = coef * scaler.scale_
    return np.column_stack([coef, intercept]).astype(dtype)


class _Loss:
    """Mean loss of a logistic regression, and its gradient.

    The loss of a sample is `log Σ꜀ exp(s꜀) - Σ꜀ t꜀ s꜀` at scores `s = W x + b`. The second part is
    linear in the weights, so the targets are read only once.

    Parameters
    ----------
    C : float
        Inverse strength of the penalty.
    each : callable
        Calls a method of each `LogisticPart` of the centred samples.
    n_classes : int
        Number of classes.
    total : float
        Sum of the samples' weights.
    scaling : _Scaling
        How the centred samples are scaled.
    """

    def __init__(
        self, C: float, each: Each, n_classes: int, total: float, scaling: _Scaling
    ) -> None:
        self.each, self.n_classes, self.total, self.scaling = each, n_classes, total, scaling
        self.penalty = 1 / (C * self.total)
        # With two classes the score of the first is 0, so there is only one row of weights.
        self.n_scores = 1 if n_classes == 2 else n_classes
        # Sum of target times sample, with a 1 behind the features, for each class with a score.
        with np.errstate(invalid="ignore"):
            self.of_targets = scaling.of_sums(
                np.sum(list(each("of_targets", self.n_scores)), axis=0)
            )
        self.is_finite = bool(np.isfinite(self.of_targets).all())

    def __call__(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Return loss and gradient at `weights`, (n_scores, n_features + 1), the intercept last."""
        value, sums = 0.0, np.zeros(weights.shape)
        for value_of_part, sums_of_part in self.each("loss", self.scaling.of_weights(weights)):
            value += value_of_part
            sums += sums_of_part
        gradient = self.scaling.of_sums(sums) - self.of_targets
        value = (value - float(np.vdot(weights, self.of_targets))) / self.total
        gradient = (gradient / self.total).astype(weights.dtype)
        coef = weights[:, :-1]
        gradient[:, :-1] += weights.dtype.type(self.penalty) * coef
        return value + self.penalty / 2 * float(np.vdot(coef, coef)), gradient


# Rank of the preconditioner, and the number of samples that it is computed from.
RANK, PRECONDITIONER_SAMPLES = 32, 1024


# Entries of samples times classes from which on a preconditioner costs less than it saves.
WORTH_PRECONDITIONING = 2**21


def _preconditioner(
    loss: _Loss, n_samples: int, n_entries: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a map that multiplies by the inverse of the curvature, approximately.

    If all classes were equally likely, the curvature would be `p (1 - p) XᵀX / n` plus the penalty.
    Its largest directions are those of some samples; all other directions are treated alike.

    References
    ----------
    Z. Frangella, J. A. Tropp, M. Udell, "Randomized Nyström preconditioning", SIAM Journal on
    Matrix Analysis and Applications 44 (2023).
    """
    if n_entries * loss.n_scores < WORTH_PRECONDITIONING or loss.of_targets.shape[1] <= RANK + 1:
        return lambda gradient: gradient
    step = -(-n_samples // PRECONDITIONER_SAMPLES)
    parts = list(loss.each("sample", step))
    sample = parts[0]
    if not issparse(sample):
        mean, scale = loss.scaling
        sample = ((np.concatenate(parts) - mean) / scale).astype(sample.dtype)
    _, lengths, directions = randomized_svd(sample, RANK, n_iter=1, random_state=0)
    variance = (loss.n_classes - 1) / loss.n_classes**2
    curvature = variance * lengths**2 / sample.shape[0] + loss.penalty
    rest = curvature[-1]
    gain = (1 / curvature - 1 / rest).astype(directions.dtype)

    def precondition(gradient: np.ndarray) -> np.ndarray:
        product = gradient / gradient.dtype.type(rest)
        product[:, :-1] += ((gradient[:, :-1] @ directions.T) * gain) @ directions
        product[:, -1] = gradient[:, -1] / variance
        return product

    return precondition
