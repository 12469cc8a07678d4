"""Statistics of samples in groups: errors within a group can be alike, so groups count as one."""

import numpy as np
from scipy.special import stdtrit


def group_sums(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Add up values of shape (..., n_samples) over each group: (..., n_groups).

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.distillation.clusters import group_sums
    >>> group_sums(np.array([1.0, 2.0, 4.0]), np.array([5, 7, 5])).tolist()
    [5.0, 2.0]
    """
    names, codes = np.unique(groups, return_inverse=True)
    sums = np.zeros((*values.shape[:-1], len(names)))
    np.add.at(sums.T, codes, values.T)
    return sums


def standard_error(values: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Return the standard error of the mean of values of shape (..., n_samples).

    Parameters
    ----------
    values : ndarray of shape (..., n_samples)
        Values.
    groups : ndarray of shape (n_samples,), int, or None
        Groups of samples, which are drawn as a whole; None: samples are drawn one by one.

    Returns
    -------
    error : ndarray of shape (...)
        The standard error; infinite if all samples are in one group.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.distillation.clusters import standard_error
    >>> values = np.array([0.0, 0.0, 1.0, 1.0])
    >>> float(standard_error(values, None)), float(standard_error(values, np.array([0, 0, 1, 1])))
    (0.25, 0.5)
    """
    n = values.shape[-1]
    if groups is None:
        return values.std(axis=-1) / np.sqrt(n)
    sums = group_sums(values - values.mean(axis=-1, keepdims=True), groups)
    n_groups = sums.shape[-1]
    if n_groups == 1:
        return np.full(values.shape[:-1], np.inf)
    return np.sqrt((sums**2).sum(axis=-1) * n_groups / (n_groups - 1)) / n


def design_effect(groups: np.ndarray) -> float:
    """Return how many times fewer samples would tell as much, if all of a group were alike.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.distillation.clusters import design_effect
    >>> design_effect(np.array([0, 0, 0, 1, 1, 1]))
    3.0
    """
    counts = np.unique(groups, return_counts=True)[1]
    return float((counts**2).sum() / len(groups)) if len(groups) else 1.0


def effective_size(hits: np.ndarray, groups: np.ndarray) -> float:
    """Return the number of independent samples that would tell as much about a share.

    Parameters
    ----------
    hits : ndarray of shape (n_samples,), bool
        Whether each sample counts.
    groups : ndarray of shape (n_samples,), int
        Groups of the samples.

    Returns
    -------
    size : float
        At least the size if all samples of a group were alike, at most `n_samples`. Between these,
        it is the size that has the observed variance between groups, reduced for the degrees of
        freedom of this variance, and mixed with the least size: few groups prove little.

    References
    ----------
    E. L. Korn, B. I. Graubard, "Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data", Survey Methodology 24 (1998).

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.distillation.clusters import effective_size
    >>> hits, groups = np.arange(100) % 4 > 0, np.arange(100)
    >>> round(effective_size(np.repeat(hits, 5), np.repeat(groups, 5)))
    100
    """
    n, share, n_groups = len(hits), hits.mean(), len(np.unique(groups))
    smallest = n / design_effect(groups)  # also the number of equal groups that are worth as much
    variance = share * (1 - share)
    error = standard_error(hits.astype(float), groups)
    if n_groups == n or variance == 0 or error == 0 or n_groups == 1:
        return smallest
    freedom = max(smallest - 1, 1)
    adjusted = variance / error**2 * (stdtrit(n - 1, 0.975) / stdtrit(freedom, 0.975)) ** 2
    # In simulations of 4 to 40 groups of equal and unequal sizes, intervals of 95 % held the truth
    # in 89 % without this weight, where groups were alike and of unequal size, and in 93 % with it.
    weight = 1 / np.sqrt(smallest)
    return float(1 / ((1 - weight) / np.clip(adjusted, smallest, n) + weight / smallest))


def sample_worth(hits: np.ndarray, groups: np.ndarray | None) -> float:
    """Return how many independent samples each sample is worth, in (0, 1], see `effective_size`.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.distillation.clusters import sample_worth
    >>> sample_worth(np.array([True, True, False, False]), np.array([0, 0, 1, 1]))
    0.5
    >>> sample_worth(np.array([True, True, False, False]), None)
    1.0
    """
    if groups is None or len(hits) == 0:
        return 1.0
    return effective_size(hits, groups) / len(hits)


def draw_rows(n: int, groups: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Draw a bootstrap sample: rows with replacement or, with groups, whole groups.

    Parameters
    ----------
    n : int
        Number of rows.
    groups : ndarray of shape (n,), int, or None
        Groups.
    rng : Generator
        Source of randomness.

    Returns
    -------
    rows : ndarray, int
        The rows drawn; as many as `n` only without groups.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.distillation.clusters import draw_rows
    >>> rows = draw_rows(4, np.array([0, 0, 0, 1]), np.random.default_rng(0))
    >>> len(set(np.bincount(rows, minlength=4)[:3].tolist()))  # all of a group or none
    1
    """
    if groups is None:
        return rng.integers(n, size=n)
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    drawn = rng.integers(len(sizes), size=len(sizes))
    # The rows of each group follow each other in `order`.
    order, starts = np.argsort(codes, kind="stable"), np.cumsum(sizes) - sizes
    n_rows = sizes[drawn]
    within = np.arange(n_rows.sum()) - np.repeat(np.cumsum(n_rows) - n_rows, n_rows)
    return order[np.repeat(starts[drawn], n_rows) + within]
