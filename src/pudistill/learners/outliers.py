"""How unlike the trusted samples of every class a sample is, and which samples are of no class.

The score ranks a sample among held-out trusted samples. Samples are declared outliers by the rule
of Benjamini and Hochberg (1995), at an expected share of 10 % ordinary samples among them. Where
p-values below 1 / (n + 1) are needed, the tail of the distances is extrapolated (`_p_values`), and
this share rests on that model. Without it, see S. Bates, E. Candès, L. Lei, Y. Romano, M. Sesia,
"Testing for Outliers with Conformal p-values", Annals of Statistics 51 (2023).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy.linalg import solve_triangular
from scipy.sparse import issparse
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import _num_samples

from pudistill.labels.checks import MISSING
from pudistill.labels.samples import is_pictures
from pudistill.labels.table import Outliers
from pudistill.learners.parts import n_threads, shared_map
from pudistill.learners.scoring import take
from pudistill.utils.arrays import compute_in_blocks

# Expected share of ordinary samples among the outliers, and largest p-value of an outlier.
FALSE_DISCOVERIES, LARGEST_P = 0.1, 0.01
FOLDS = 5  # of the trusted samples, to score each without itself
MAX_REFERENCES = 1_000  # trusted samples that others are compared with
POINTS_AT_ONCE = 2_048  # samples that are compared with them at once, by each thread: 16 MB
MAX_CORRELATED = 1_024  # features; the correlations of more are not estimated
SPARSE_COMPONENTS = 100  # of sparse samples, by singular values
SPARSE_ROWS = 20_000  # from which they are computed
# Trusted samples from which on the tail of their distances is extrapolated, and the tail itself.
ENOUGH_FOR_TAIL, TAIL_SHARE, SMALLEST_TAIL = 10, 0.1, 3
SMALLEST_EXCESS = 0.01  # mean of the tail, as a logarithm of a distance
WEIGHT_OF_FEATURES = 3.0  # beside the distances, where samples of no class are known

Represent = Callable[[Any, np.ndarray], np.ndarray]  # of samples at given rows: (n_rows, n_numbers)
Space = Callable[[np.ndarray], np.ndarray]  # scales and decorrelates samples
Unlikeness = Callable[[np.ndarray], np.ndarray]


def find_outliers(
    X: Any,
    verified: np.ndarray,
    model: Any,
    *,
    held_out: list[np.ndarray] | None = None,
    no_class: Any = None,
    seed: int,
) -> Outliers:
    """Score all samples and find the outliers among those that are not trusted.

    A sample's distance is that to the nearest trusted sample, after features have been scaled and
    decorrelated by the trusted samples. Where samples are known that are of no class, a logistic
    regression on this distance, on that to the nearest of these samples, and on the features takes
    its place.

    Parameters
    ----------
    X : samples of shape (n_samples, ...)
        Samples.
    verified : ndarray of shape (n_samples,), int
        Codes of the trusted samples, -1 elsewhere.
    model : fitted estimator
        If it is a pipeline, its steps before the last compute the features of samples. If samples
        are pictures, it is a network that computes them, and has not learned from `held_out`.
    held_out : list of ndarray of int, default=None
        Rows of trusted samples that are held out together; by default folds of the trusted samples
        (of at most 1,000, drawn at random), except for pictures.
    no_class : samples of shape (n_no_class, ...), default=None
        Further samples, which are known to be of no class.
    seed : int
        Decides the folds.

    Returns
    -------
    outliers : Outliers
        Scores and outliers. They are unknown for pictures without `held_out`, and for samples
        without numeric features.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.learners.outliers import find_outliers
    >>> rng = np.random.default_rng(0)
    >>> X = np.r_[rng.normal(size=(200, 3)), rng.normal(size=(20, 3)) + 30]
    >>> verified = np.r_[np.arange(100) % 2, np.full(120, -1)]
    >>> is_outlier = find_outliers(X, verified, None, seed=0).is_outlier
    >>> bool(is_outlier[:200].mean() < 0.05), bool(is_outlier[200:].all())
    (True, True)
    """
    # 1. Represent samples by numbers; choose the trusted samples to compare with.
    n_samples, rng = _num_samples(X), np.random.default_rng(seed)
    trusted = rng.permutation(np.flatnonzero(verified != MISSING))[:MAX_REFERENCES]
    is_table = isinstance(X, np.ndarray) and not is_pictures(X)
    represent = None
    if not is_pictures(X) or held_out is not None:
        represent = _representation(model, X, is_pictures(X), seed)
    if represent is None or len(trusted) < 2:
        return Outliers.unknown(n_samples)
    if held_out is None:
        held_out = [trusted[fold::FOLDS] for fold in range(min(FOLDS, len(trusted)))]
    others = None if no_class is None else represent(no_class, np.arange(_num_samples(no_class)))
    n_held_out, n_classes = max(map(len, held_out)), len(np.unique(verified[trusted]))
    # The same for all folds and for all trusted samples, or their distances would have two scales.
    within_classes = len(trusted) - n_held_out >= 2 * n_classes

    def learn(without: np.ndarray) -> Unlikeness:
        rows = np.setdiff1d(trusted, without)
        space = _space(represent(X, rows), verified[rows], within_classes)
        return _unlikeness(space, represent(X, rows), others)

    # 2. Measure each trusted sample without itself, and all samples.
    models = list((shared_map if is_table else map)(learn, held_out))
    parts = [model(represent(X, rows)) for model, rows in zip(models, held_out, strict=True)]
    known = np.concatenate(parts)
    final = models[0] if len(held_out) == 1 else learn(np.arange(0))
    found = compute_in_blocks(
        lambda block: final(represent(X, np.arange(block.start, block.stop))),
        n_samples,
        n_threads() if is_table else 1,
    )
    found[np.concatenate(held_out)] = known
    # 3. Rank all samples among the held-out trusted samples; choose the outliers.
    p = _p_values(known, found)
    adjusted = np.ones(n_samples)
    adjusted[verified == MISSING] = _adjusted(p[verified == MISSING])
    is_outlier = (adjusted <= FALSE_DISCOVERIES) & (p <= LARGEST_P)
    return Outliers(1 - p, is_outlier, np.where(is_outlier, adjusted, 1.0))


def _representation(model: Any, X: Any, by_network: bool, seed: int) -> Represent | None:
    """Return a function that represents samples as numbers; None if they have none."""
    fronts = []
    while isinstance(model, Pipeline) and hasattr(front := model[:-1], "transform"):
        fronts.append(front)
        model = model.steps[-1][1]

    def represent(samples: Any, rows: np.ndarray) -> Any:
        block = take(samples, rows)
        for front in fronts:
            block = front.transform(block)
        if by_network:
            block = model.embed(block)
        return block.select_dtypes("number") if isinstance(block, pd.DataFrame) else block

    first = represent(X, np.arange(1))
    if issparse(first) and first.shape[1] > SPARSE_COMPONENTS:
        n_samples = _num_samples(X)
        rows = np.unique(np.linspace(0, n_samples - 1, min(n_samples, SPARSE_ROWS)).astype(int))
        reduction = TruncatedSVD(SPARSE_COMPONENTS, random_state=seed).fit(represent(X, rows))
        return lambda samples, rows: reduction.transform(represent(samples, rows))
    if issparse(first):
        return lambda samples, rows: represent(samples, rows).toarray()
    if np.ndim(first) != 2 or np.size(first) == 0:
        return None
    return lambda samples, rows: np.asarray(represent(samples, rows), dtype=float)


def _unlikeness(space: Space, trusted: np.ndarray, no_class: np.ndarray | None) -> Unlikeness:
    """Learn how unlike the trusted samples any sample is, as a logarithm."""
    inside = space(trusted)
    if no_class is None:
        return lambda samples: np.log(_nearest(space(samples), inside))
    outside = space(no_class)

    def features(points: np.ndarray, to_inside: np.ndarray, to_outside: np.ndarray) -> np.ndarray:
        near = np.log(to_inside)
        scaled = points * (WEIGHT_OF_FEATURES / np.sqrt(points.shape[1]))
        return np.column_stack([near, near - np.log(to_outside), scaled])

    alone = len(outside) == 1  # then it is as far from its like as from the trusted samples
    known = np.concatenate(
        [
            features(inside, _nearest(inside, inside, own=True), _nearest(inside, outside)),
            features(
                outside,
                _nearest(outside, inside),
                _nearest(outside, inside if alone else outside, own=not alone),
            ),
        ]
    )
    is_outside = np.repeat([0, 1], [len(inside), len(outside)])
    # Distances have one scale; points keep theirs, in which all features together count as one.
    centre, scale = known.mean(axis=0), np.ones(known.shape[1])
    scale[:2] = np.maximum(known[:, :2].std(axis=0), SMALLEST_EXCESS)
    judge = LogisticRegression(max_iter=300).fit((known - centre) / scale, is_outside)

    def unlikeness(samples: np.ndarray) -> np.ndarray:
        points = space(samples)
        found = features(points, _nearest(points, inside), _nearest(points, outside))
        return judge.decision_function((found - centre) / scale)

    return unlikeness


def _space(trusted: np.ndarray, codes: np.ndarray, within_classes: bool) -> Space:
    """Scale and decorrelate features by trusted samples, with shrinkage for few of them.

    Correlations are those within classes, or of all samples together if classes have few samples.
    """
    n, n_features = trusted.shape
    with np.errstate(all="ignore"):
        centre = np.nan_to_num(np.nanmean(trusted, axis=0))
        variance = np.nan_to_num(np.nanvar(trusted, axis=0))
    scale = np.sqrt((n * variance + 2 * variance.mean()) / (n + 2))
    scale[scale == 0] = 1.0

    def scaled(samples: np.ndarray) -> np.ndarray:
        # A missing value becomes the mean. Around it, single precision is enough.
        return np.nan_to_num((samples - centre) / scale).astype(np.float32)

    if n_features > MAX_CORRELATED:
        return scaled
    points = scaled(trusted).astype(float)
    sizes = np.bincount(codes)
    if within_classes:
        sums = np.zeros((len(sizes), n_features))
        np.add.at(sums, codes, points)
        points = points - (sums / np.maximum(sizes, 1)[:, None])[codes]
        points *= np.sqrt(n / (n - (sizes > 0).sum()))  # each class has a mean of its own
    covariance = ledoit_wolf(points, assume_centered=True)[0]
    covariance[np.diag_indices(n_features)] += 1e-6
    root = np.linalg.cholesky(covariance)
    inverse = solve_triangular(root, np.eye(n_features), lower=True).astype(np.float32)
    return lambda samples: scaled(samples) @ inverse.T


def _nearest(points: np.ndarray, references: np.ndarray, *, own: bool = False) -> np.ndarray:
    """Return each point's distance to the nearest reference; `own`: except itself."""
    # Without the square of the point, which is the same for all references. Single precision is
    # enough unless a point is nearly a reference.
    factors, lengths = -2 * references.T, np.einsum("ij,ij->i", references, references)
    nearest = np.einsum("ij,ij->i", points, points).astype(float)
    for start in range(0, len(points), POINTS_AT_ONCE):
        part = slice(start, start + POINTS_AT_ONCE)
        squared = points[part] @ factors
        squared += lengths
        if own and len(points) > 1:
            rows = np.arange(len(squared))
            squared[rows, start + rows] = np.inf
        nearest[part] += squared.min(axis=1)
    return np.sqrt(np.maximum(nearest, 1e-12))


def _p_values(known: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the p-value of each measure in `found` among `known` ones; extrapolate the tail.

    The tail of the logarithms of distances is taken to be exponential, as that of heavy-tailed
    distances is. Its rate is uncertain, which makes the extrapolation a Pareto distribution.
    """
    n = len(known)
    known = np.sort(known)
    p = (1 + n - np.searchsorted(known, found, side="left")) / (n + 1)
    if n < ENOUGH_FOR_TAIL:
        return p
    n_tail = max(SMALLEST_TAIL, int(TAIL_SHARE * n))
    start = known[-n_tail - 1]
    total = max((known[-n_tail:] - start).sum(), n_tail * SMALLEST_EXCESS)
    beyond = np.maximum(found - start, 0)
    tail = (n_tail + 1) / (n + 1) * (1 + beyond / total) ** -n_tail
    return np.where(found > start, tail, p)


def _adjusted(p: np.ndarray) -> np.ndarray:
    """Adjust p-values by Benjamini and Hochberg: the expected share of false discoveries."""
    order = np.argsort(p)[::-1]
    ranks = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.minimum.accumulate(p[order] * len(p) / ranks))
    return adjusted
