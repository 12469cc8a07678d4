"""Near copies: samples that are far closer to a few other samples than to all the rest."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, issparse

# Among samples drawn independently from a distribution with a smooth density in m dimensions, the
# probability that the (k + 1)-th nearest sample is more than GAP times as far as the k-th is
# GAP ** -(m k). So at most 1/5 + 1/25 + ... = 1/4 of the samples have such a gap among their
# nearest samples even in one dimension, and far fewer in several. Among rows of one patient, nearly
# all have one: behind the other rows of the patient. `MANY` lies between.
GAP, MANY = 5.0, 0.5
# Only gaps behind the first of so many nearest samples, and of so large a share of all samples,
# count: larger sets are clusters, such as the classes.
MAX_SET, MAX_SHARE = 32, 0.05
# Trusted samples that are compared, at least and at most, and multiplications that this may take.
FEWEST, MOST = 20, 64
MAX_MULTIPLICATIONS = 5e8


def share_of_near_copies(X: Any, trusted: np.ndarray, distinct: np.ndarray) -> float:
    """Measure which share of the trusted samples are near copies of other samples.

    No label is read.

    Parameters
    ----------
    X : {ndarray, sparse matrix, data frame} of shape (n_samples, n_features)
        Samples.
    trusted : ndarray of shape (n_samples,), bool
        The trusted samples.
    distinct : ndarray, int
        The first of each set of equal rows. Others are left out: exact copies are known, and equal
        rows of a coarse table are no copies.

    Returns
    -------
    share : float in [0, 1]
        The share; 0 if there are too few samples to tell, or for pictures, texts and tables that
        are not all numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.labels.near_copies import share_of_near_copies
    >>> rng, all_rows = np.random.default_rng(0), np.arange(300)
    >>> patients = rng.normal(size=(100, 10))
    >>> rows = np.repeat(patients, 3, axis=0) + 0.01 * rng.normal(size=(300, 10))
    >>> share_of_near_copies(rows, all_rows % 5 == 0, all_rows)
    1.0
    """
    if isinstance(X, pd.DataFrame):
        numeric = [pd.api.types.is_numeric_dtype(dtype) for dtype in X.dtypes]
        X = X.to_numpy(dtype=float, na_value=np.nan) if all(numeric) else None
    if not issparse(X) and not (
        isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind in "fiu"
    ):
        return 0.0
    rng = np.random.default_rng(0)
    width = X.nnz / X.shape[0] if issparse(X) else X.shape[1]
    n_rows = int(MAX_MULTIPLICATIONS / (MOST * max(width, 1)))
    others = np.sort(rng.permutation(distinct)[:n_rows])
    n_nearest = min(MAX_SET, int(MAX_SHARE * len(others)))
    queries = rng.permutation(np.flatnonzero(trusted))[:MOST]
    if len(queries) < FEWEST or n_nearest == 0:
        return 0.0
    distances = _distances(X, queries, others)
    # The nearest of the others can be the sample itself, or its equal.
    nearest = np.sort(np.partition(distances, n_nearest + 1, axis=1)[:, : n_nearest + 2], axis=1)
    is_itself = nearest[:, :1] <= 1e-6 * np.median(distances)
    nearest = np.where(is_itself, nearest[:, 1:], nearest[:, :-1])
    has_gap = (nearest[:, 1:] > GAP * nearest[:, :-1]).any(axis=1)
    return float(has_gap.mean())


def _distances(X: Any, queries: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute the Euclidean distances of rows, with dense columns on one scale."""
    if issparse(X):
        rows = csr_array(X).astype(float)
        a, b = rows[queries], rows[others]
        inner = (a @ b.T).toarray()
        a_norm, b_norm = (np.asarray(part.multiply(part).sum(axis=1)).ravel() for part in (a, b))
    else:
        a, b = X[queries].astype(float), X[others].astype(float)
        centre, scale = _centre_and_scale(b)
        a, b = np.nan_to_num((a - centre) / scale), np.nan_to_num((b - centre) / scale)
        inner, a_norm, b_norm = a @ b.T, (a * a).sum(axis=1), (b * b).sum(axis=1)
    return np.sqrt(np.maximum(a_norm[:, None] + b_norm - 2 * inner, 0))


def _centre_and_scale(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the scale of each column: standard deviation, or range of two values.

    The standard deviation of a rare category would put its samples far away from all others.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # columns without any value
        low, high = np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)
        centre, spread = np.nanmean(rows, axis=0), np.nanstd(rows, axis=0)
    is_binary = ((rows == low) | (rows == high) | np.isnan(rows)).all(axis=0)
    scale = np.where(is_binary, high - low, spread)
    return centre, np.where(scale > 0, scale, 1.0)
