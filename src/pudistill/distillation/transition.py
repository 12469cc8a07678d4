"""The transition matrix: maximum likelihood, shrinkage, and original labels of trusted samples."""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import gammaln
from scipy.stats import binom

from pudistill.exceptions import InputError
from pudistill.labels.checks import MISSING
from pudistill.labels.pseudo_labels import PROBA_FLOOR, bayes_rule
from pudistill.utils.arrays import BLOCK_SIZE, take_rows

# Weight of a uniform prior, in samples, so that no label is ever impossible.
SMOOTHING = 1.0


# Weights, in samples, that the common distribution of all rows can have as a prior for a row.
STRENGTHS = np.geomspace(0.1, 1e4, 21)


# Entries of the matrix, in whole rows, from which the strength is found.
ENTRIES_FOR_STRENGTH = 2**14


# Standard error of a row that remains after calibration, for any number of samples. Without it, a
# million noisy labels would outweigh the few originals.
SYSTEMATIC_ERROR = 0.02


# If all given labels of trusted samples are right, they count as overwritten if this would happen
# with a probability below IMPLAUSIBLE, at a noise rate that is lower than the estimate by DOUBT.
IMPLAUSIBLE, DOUBT = 1e-3, 0.05


# Steps of expectation-maximisation from the common matrix to those of noise groups.
GROUP_STEPS = 5


class Originals(NamedTuple):
    """Verified labels of trusted samples, and the given labels that they had before, as codes."""

    verified: np.ndarray
    given: np.ndarray
    rows: np.ndarray  # of these samples
    groups: np.ndarray | None = None  # groups of these samples
    weight: np.ndarray | None = None  # how many others each stands for; None: all for as many

    def counted(self, n_classes: int, groups: np.ndarray | None = None) -> np.ndarray:
        """Count pairs of verified and given label: (n_classes, n_classes).

        With `groups`, counts are (n_groups, n_classes, n_classes). Of samples that stand for
        different numbers, each class counts as many as would tell as much if all were alike.
        """
        weight = 1 if self.weight is None else self.scaled_weight(n_classes)
        if groups is None:
            counts = np.zeros((n_classes, n_classes))
            np.add.at(counts, (self.verified, self.given), weight)
        else:
            counts = np.zeros((int(groups.max(initial=-1)) + 1, n_classes, n_classes))
            np.add.at(counts, (groups, self.verified, self.given), weight)
        return counts

    def scaled_weight(self, n_classes: int) -> np.ndarray:
        """Return positive weights whose sum is, in each class, the number that tells as much."""
        weight = np.ones(len(self.rows)) if self.weight is None else np.maximum(self.weight, 0)
        total = np.bincount(self.verified, weight, n_classes)
        squares = np.bincount(self.verified, weight**2, n_classes)
        return weight * (total / np.maximum(squares, 1e-12))[self.verified]

    def without(self, hidden: np.ndarray) -> "Originals":
        """Return those that are not in some rows."""
        return self._kept(~np.isin(self.rows, hidden))

    def within(self, rows: np.ndarray) -> "Originals":
        """Return those that are in some rows."""
        return self._kept(np.isin(self.rows, rows))

    def _kept(self, kept: np.ndarray) -> "Originals":
        groups = None if self.groups is None else self.groups[kept]
        weight = None if self.weight is None else self.weight[kept]
        return Originals(self.verified[kept], self.given[kept], self.rows[kept], groups, weight)


def fit_group_matrices(
    T: np.ndarray,
    proba: np.ndarray,
    given: np.ndarray,
    groups: np.ndarray,
    n_groups: int,
    originals: Originals | None = None,
) -> np.ndarray:
    """Fit a transition matrix for each noise group, which leans on that of all samples.

    The counts of each group, expected under the predictions and seen among the originals, are
    shrunk towards `T`, with the strength that makes all counts likeliest. So groups without
    differences, and groups of a few samples, keep `T`.

    Parameters
    ----------
    T : ndarray of shape (n_classes, n_classes)
        The transition matrix of all samples together.
    proba : ndarray of shape (n_samples, n_classes)
        Calibrated predictions of the true classes.
    given : ndarray of shape (n_samples,), int
        Given labels, none missing.
    groups : ndarray of shape (n_samples,), int
        Their noise groups, from 0.
    n_groups : int
        Number of groups.
    originals : Originals, default=None
        Verified samples with the labels that they were given, and their noise groups as `groups`.

    Returns
    -------
    by_group : ndarray of shape (n_groups, n_classes, n_classes)
        `by_group[g, c, j] = P(given = j | true = c, group = g)`.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.distillation.transition import fit_group_matrices
    >>> classes = np.tile([0, 1], 500)
    >>> given = np.where(np.arange(1000) < 500, classes, 1 - classes)  # the second half is wrong
    >>> groups, T = np.repeat([0, 1], 500), np.full((2, 2), 0.5)
    >>> fit_group_matrices(T, np.eye(2)[classes], given, groups, 2).round(1).tolist()
    [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]
    """
    n_classes = len(T)
    shape = (n_groups, n_classes, n_classes)
    cells, n_cells = groups * n_classes + given, n_groups * n_classes
    seen = np.zeros(shape)
    if originals is not None and originals.groups is not None:
        counted = originals.counted(n_classes, originals.groups)
        seen[: len(counted)] = counted
    by_group = np.broadcast_to(T, shape)
    common = np.tile(T, (n_groups, 1))
    for _ in range(GROUP_STEPS):
        counts = np.zeros(shape)
        for start in range(0, len(given), BLOCK_SIZE):
            part = slice(start, start + BLOCK_SIZE)
            posterior = bayes_rule(proba[part], by_group[groups[part], :, given[part]])
            for c in range(n_classes):
                found = np.bincount(cells[part], posterior[:, c], n_cells)
                counts[:, c] += found.reshape(n_groups, n_classes)
        by_group = shrink((counts + seen).reshape(-1, n_classes), common).reshape(shape)
    return by_group


def fit_transition_matrix(
    proba: np.ndarray,
    given: np.ndarray,
    *,
    start: np.ndarray | None = None,
    max_iter: int = 300,
    tol: float = 1e-4,
) -> np.ndarray:
    r"""Fit the transition matrix by maximum likelihood of the given labels.

    :math:`\sum_i \log \sum_c p(c \mid x_i) \, T_{c, \tilde y_i}` is concave in `T`; expectation-
    maximisation maximises it.

    Parameters
    ----------
    proba : ndarray of shape (n_samples, n_classes)
        Calibrated predictions of the true classes.
    given : ndarray of shape (n_samples,), int
        Given labels, none missing.
    start : ndarray of shape (n_classes, n_classes), default=None
        First matrix; uniform rows by default.
    max_iter, tol : int, float
        Stop after `max_iter` steps, or when no entry changes by more than `tol`.

    Returns
    -------
    transition_matrix : ndarray of shape (n_classes, n_classes)
        `T[c, j] = P(given = j | true = c)`.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.distillation.transition import fit_transition_matrix
    >>> proba = np.repeat(np.eye(2), 500, axis=0)  # the classes are certain: T is a count
    >>> given = np.tile([0, 0, 1, 1, 1], 200)
    >>> fit_transition_matrix(proba, given).round(1).tolist()
    [[0.4, 0.6], [0.4, 0.6]]
    """
    n_classes = proba.shape[1]
    T = np.full((n_classes, n_classes), 1 / n_classes) if start is None else start
    order = np.argsort(given, kind="stable")
    ends = np.searchsorted(given[order], np.arange(n_classes + 1))
    proba = take_rows(proba, order)
    parts = [proba[ends[j] : ends[j + 1]] for j in range(n_classes)]
    for _ in range(max_iter):
        previous = T
        counts = np.empty_like(T)
        for j, p in enumerate(parts):
            evidence = p @ T[:, j] + 1e-300
            counts[:, j] = T[:, j] * (p.T @ (1 / evidence))
        T = smoothed(counts)
        if np.abs(T - previous).max() < tol:
            break
    return T


def smoothed(counts: np.ndarray) -> np.ndarray:
    """Turn counts into a transition matrix whose rows are shrunk towards each other.

    The wrong labels of a class are shrunk towards those of all classes, and its rate of right
    labels towards the mean rate, with the strength that makes the counts likeliest (empirical Bayes
    with Dirichlet priors). So symmetric noise is estimated from all rows together, and a flip that
    only one class has is not shrunk.

    Parameters
    ----------
    counts : ndarray of shape (n_classes, n_classes)
        Samples of each true class by given label; fractions where classes are uncertain.

    Returns
    -------
    transition_matrix : ndarray of shape (n_classes, n_classes)
        Rows that sum to 1; no entry is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.distillation.transition import smoothed
    >>> smoothed(np.array([[70, 17, 13], [15, 68, 17], [13, 15, 72]])).round(2).tolist()
    [[0.7, 0.16, 0.15], [0.15, 0.7, 0.16], [0.14, 0.16, 0.7]]
    """
    n_classes = len(counts)
    counts = counts + SMOOTHING / n_classes**2
    right = np.diag(counts)
    wrong = counts - np.diag(right)
    # 1. Shrink each class's rate of right labels towards the mean rate.
    pairs = np.column_stack([right, wrong.sum(axis=1)])
    rates = shrink(pairs, np.tile(pairs.sum(axis=0), (n_classes, 1)))[:, 0]
    # 2. Shrink each class's distribution of wrong labels towards that of all classes.
    others = 1 - np.eye(n_classes)
    kinds = others if n_classes == 2 else shrink(wrong, others * wrong.sum(axis=0))
    return np.diag(rates) + (1 - rates)[:, None] * kinds


def shrink(counts: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Mix rows of counts with a common distribution, with the likeliest strength; zeros stay 0.

    Both are of shape (n_rows, n_labels); rows of the result sum to 1.
    """
    base = common / common.sum(axis=1, keepdims=True)
    n = counts.sum(axis=1)
    strengths = STRENGTHS[:, None]
    # With many classes some rows suffice to find the strength, which is common to all.
    some = slice(None, None, -(-counts.size // ENTRIES_FOR_STRENGTH))
    evidence = (gammaln(strengths) - gammaln(strengths + n[some])).sum(axis=1)
    # All strengths at once, which is faster: a bootstrap calls this thousands of times.
    shares, counted = base[some][base[some] > 0], counts[some][base[some] > 0]
    for start in range(0, len(shares), BLOCK_SIZE):
        block = slice(start, start + BLOCK_SIZE)
        prior = strengths * shares[block]
        evidence += (gammaln(prior + counted[block]) - gammaln(prior)).sum(axis=1)
    strength = STRENGTHS[evidence.argmax()]
    return (counts + strength * base) / (n + strength)[:, None]


def known_originals(
    verified: np.ndarray,
    given: np.ndarray,
    rows: np.ndarray,
    rate: float,
    *,
    from_mask: bool,
    groups: np.ndarray | None = None,
    weight: np.ndarray | None = None,
) -> tuple[Originals | None, str | None]:
    """Return the labels that trusted samples had before, unless they have been overwritten.

    Parameters
    ----------
    verified, given : ndarray of shape (n_trusted,), int
        Codes of the trusted samples.
    rows : ndarray of shape (n_trusted,), int
        Their rows.
    rate : float
        Estimated share of wrong labels among the noisy samples.
    from_mask : bool
        Whether trusted samples were marked by a mask: then their earlier labels are unknown.
    groups : ndarray of shape (n_trusted,), int, default=None
        Groups of the trusted samples.
    weight : ndarray of shape (n_trusted,), default=None
        How many other samples each stands for; None: all for as many.

    Returns
    -------
    originals : Originals or None
        None if they are unknown.
    warning : str or None
        Message for the user, if they have been overwritten.
    """
    has_label = given != MISSING
    if from_mask or not has_label.any():
        return None, None
    groups = None if groups is None else groups[has_label]
    weight = None if weight is None else weight[has_label]
    originals = Originals(verified[has_label], given[has_label], rows[has_label], groups, weight)
    n_wrong = int((originals.verified != originals.given).sum())
    n = len(originals.verified)
    if n_wrong == 0 and binom.cdf(0, n, max(0.0, rate - DOUBT)) < IMPLAUSIBLE:
        return None, (
            f"The given labels of all {n} trusted samples are right, which is implausible if about "
            f"{rate:.0%} of the others are wrong: they seem to have been overwritten when they "
            "were verified, so they were not used to estimate the noise."
        )
    return originals, None


def combine(
    T: np.ndarray,
    spread: np.ndarray,
    originals: Originals | None,
) -> np.ndarray:
    """Combine an estimate from the noisy samples with the originals.

    The originals are weighted by their number, the estimate by the number of originals that would
    have the same error.

    Parameters
    ----------
    T : ndarray of shape (n_classes, n_classes)
        Estimate from the noisy samples.
    spread : ndarray of shape (n_classes, n_classes)
        Its standard error.
    originals : Originals or None
        Known pairs of true and given label.

    Returns
    -------
    T : ndarray of shape (n_classes, n_classes)
        The combination, row by row.
    """
    if originals is None:
        return T
    n_classes = len(T)
    counts = originals.counted(n_classes)
    n = counts.sum(axis=1)
    # The variance of a multinomial is T (1 - T) / n: `worth` is the n that has the same variance.
    variance = (T * (1 - T)).sum(axis=1)
    worth = variance / ((spread**2).sum(axis=1) + SYSTEMATIC_ERROR**2)
    worth = np.maximum(worth, 1.0)
    return (counts + worth[:, None] * T) / (n + worth)[:, None]


def checked_transition_matrix(T: Any, n_classes: int) -> np.ndarray | None:
    """Return the user's transition matrix as an array without zeros; None stays None.

    Raises
    ------
    InputError
        If it is not a matrix of shape (n_classes, n_classes) whose rows are probabilities.
    """
    if T is None:
        return None
    T, shape = np.asarray(T, dtype=float), (n_classes, n_classes)
    if T.shape != shape or not (T >= 0).all() or not np.allclose(T.sum(axis=1), 1):
        raise InputError(
            f"transition_matrix has shape {T.shape}: it must have shape {shape}, no negative "
            "entry, and rows that sum to 1."
        )
    return np.maximum(T, PROBA_FLOOR)
