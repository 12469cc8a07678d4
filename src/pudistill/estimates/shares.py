"""Shares, such as that of wrong labels, from verified samples and predictions for all others.

Verified samples are a random sample, so a share among them is right on average, whatever the
predictions. Predictions narrow the interval: where they are high for the verified samples by
chance, the share is corrected downwards. This is prediction-powered inference.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import beta

# Confidence of all intervals.
LEVEL = 0.95


# Outcomes of either kind below which predictions are not trusted to narrow an interval: from fewer,
# no correlation can be told.
FEWEST_OUTCOMES = 5


# The correlation of predictions and outcomes is lowered by this many of its standard errors, as
# chance makes it too high as often as too low. In simulations of 20 to 200 verified samples, shares
# of 2 to 50 %, calibrated and biased predictions, intervals held in at least 93 % of 2,000 draws.
CAUTION = 0.5


class Share(NamedTuple):
    """An estimated share.

    Attributes
    ----------
    value : float in [0, 1]
        The estimate; NaN if nothing is known.
    interval : tuple of two float
        Its interval, of 95 % unless another level was asked for.
    middle : tuple of two float
        Its 50 % interval.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.estimates.shares import rectified_share
    >>> share = rectified_share(np.arange(100) < 20, np.full(100, np.nan), 10**6)
    >>> share.value, [round(end, 2) for end in share.interval]
    (0.2, [0.13, 0.29])
    """

    value: float
    interval: tuple[float, float]
    middle: tuple[float, float] = (0.0, 1.0)


UNKNOWN = Share(np.nan, (0.0, 1.0))


def exact_interval(share: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Compute the Clopper-Pearson interval of a share.

    It is exact for an integer `n`; for a fractional `n`, an effective sample size, it is an
    approximation. The normal approximation would be too narrow near 0 and 1.

    Parameters
    ----------
    share : float in [0, 1]
        The share that was measured.
    n : float
        Number of samples that it was measured on, above 0.
    level : float in (0, 1), default=0.95
        Confidence.

    Returns
    -------
    low, high : float in [0, 1]
        The ends of the interval.

    Examples
    --------
    >>> from pudistill.estimates.shares import exact_interval
    >>> [round(end, 3) for end in exact_interval(0.9, 100)]
    [0.824, 0.951]
    """
    right, wrong, tail = share * n, (1 - share) * n, (1 - level) / 2
    low = beta.ppf(tail, right, wrong + 1) if right > 0 else 0.0
    high = beta.ppf(1 - tail, right + 1, wrong) if wrong > 0 else 1.0
    return float(low), float(high)


def two_sided_interval(
    share: float, sizes: Sequence[float], level: float = LEVEL
) -> tuple[float, float]:
    """Compute an interval as `exact_interval` does, with a size of its own for each end.

    Parameters
    ----------
    share : float in [0, 1]
        The share that was measured.
    sizes : sequence of two float
        Number of samples for the lower and for the upper end, see `worth_of_weighted`.
    level : float in (0, 1), default=0.95
        Confidence.

    Returns
    -------
    low, high : float in [0, 1]
        The ends of the interval.

    Examples
    --------
    >>> from pudistill.estimates.shares import two_sided_interval
    >>> [round(end, 3) for end in two_sided_interval(0.9, (100, 50))]
    [0.824, 0.967]
    """
    low, high = (exact_interval(share, size, level) for size in sizes)
    return low[0], high[1]


def rectified_share(
    outcomes: np.ndarray,
    controls: np.ndarray,
    n_rest: float,
    *,
    among: np.ndarray | None = None,
    among_controls: np.ndarray | None = None,
    worth: float = 1.0,
    weight: np.ndarray | None = None,
    level: float = LEVEL,
) -> Share:
    """Estimate a share among the samples that are not verified.

    Parameters
    ----------
    outcomes : ndarray of shape (n_verified,), bool
        Whether each verified sample counts.
    controls : ndarray of shape (n_verified,)
        For each verified sample, the predicted probability that it counts, less the mean of the
        predictions for all samples that are not verified; by a model that has not seen whether it
        counts, and that made those predictions, too. NaN where there is no such prediction.
    n_rest : float
        Number of samples that are not verified and, with `among`, in the class.
    among : ndarray of shape (n_verified,), bool, default=None
        The samples whose share is estimated, such as those of a class; all by default. Samples
        count only if they are among these.
    among_controls : ndarray of shape (n_verified,), default=None
        The same as `controls`, for being among them; by default there are no such predictions.
    worth : float, default=1.0
        Number of independent samples that each verified sample is worth; less than 1 where samples
        of a group are alike.
    weight : ndarray of shape (n_verified,), default=None
        How many samples each verified sample stands for, up to a factor, see `Draws.for_means`;
        None: all for as many.
    level : float in (0, 1), default=0.95
        Confidence of the interval.

    Returns
    -------
    share : Share
        The estimate. Its interval includes the chance by which the samples that are not verified
        differ from all; it is wide if they are few.

    References
    ----------
    A. N. Angelopoulos, J. C. Duchi, T. Zrnic, "PPI++: Efficient Prediction-Powered Inference"
    (2023). The interval is Clopper's and Pearson's, for the number of samples that would have the
    same variance without predictions.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.estimates.shares import rectified_share
    >>> wrong = np.arange(100) < 20
    >>> value, interval, _ = rectified_share(wrong, np.full(100, np.nan), 10**6)
    >>> value, [round(end, 2) for end in interval]
    (0.2, [0.13, 0.29])
    >>> found = wrong ^ (np.arange(100) % 10 == 0)  # a model errs in a tenth of the samples,
    >>> value, interval, _ = rectified_share(wrong, found - 0.22, 10**6)  # and finds 22 % elsewhere
    >>> round(value, 2), [round(end, 2) for end in interval]
    (0.18, [0.12, 0.24])
    """
    if among is None:
        among, among_controls = np.ones(len(outcomes), dtype=bool), np.zeros(len(outcomes))
    elif among_controls is None:
        among_controls = np.full(len(outcomes), np.nan)
    n, n_all = int(among.sum()), len(outcomes)
    if n == 0 or n_rest <= 0:
        return UNKNOWN
    if weight is not None:
        controls_of = controls, among_controls
        return _weighted_share(outcomes, controls_of, n_rest, among, worth, weight, level)
    share = float(outcomes[among].mean())
    spread, explained = 1 / (worth * n) + 1 / n_rest, 0.0
    # What is left of each sample once the share is known, and the same predicted.
    residual, control = among * (outcomes - share), controls - share * among_controls
    predicted = np.isfinite(control)
    residual, control = residual[predicted], control[predicted]
    counted = outcomes[among & predicted]
    n_rarer = min(int(counted.sum()), int((~counted).sum()))
    correlation = _cautious_correlation(residual, control, n_rarer)
    if correlation > 0:
        # The multiple of the control that leaves the least variance. It is smaller, and explains
        # less, if only some of the verified samples have a control.
        kept = (1 / n_all + n / n_all / n_rest) / (1 / len(control) + n / n_all / n_rest)
        factor = correlation * residual.std() / control.std() * kept
        share = float(np.clip(share - factor * control.mean() * n_all / n, 0, 1))
        explained = correlation**2 * kept
    size = 1 / (spread * (1 - explained))
    interval = possible_interval(exact_interval(share, size, level), n_rest)
    return Share(share, interval, exact_interval(share, size, 0.5))


def _weighted_share(
    outcomes: np.ndarray,
    controls_of: tuple[np.ndarray, np.ndarray],
    n_rest: float,
    among: np.ndarray,
    worth: float,
    weight: np.ndarray,
    level: float,
) -> Share:
    """Estimate a share as `rectified_share` does, from samples that stand for different numbers."""
    total = weight[among].sum()
    if total <= 0:
        return UNKNOWN
    share = float(np.clip((weight * outcomes)[among].sum() / total, 0, 1))
    residual, control = among * (outcomes - share), controls_of[0] - share * controls_of[1]
    predicted = np.isfinite(control)
    of_predicted, residual, control = weight[predicted], residual[predicted], control[predicted]
    explained = np.zeros(2)
    if of_predicted.sum() > 0:
        mean = float(of_predicted @ control / of_predicted.sum())
        counted, is_among = outcomes[predicted], among[predicted]
        n_rarer = min(
            kish_size(of_predicted[outcome & is_among]) for outcome in (counted, ~counted)
        )
        a, b = of_predicted * residual, of_predicted * (control - mean)
        correlation = _cautious_correlation(a, b, n_rarer)
        if correlation > 0:
            # Without a control for all of them, less is explained: see `rectified_share`.
            n, n_all = kish_size(weight[among]), kish_size(weight)
            n_predicted, part = kish_size(of_predicted), n / n_all
            kept = (1 / n_all + part / n_rest) / (1 / n_predicted + part / n_rest)
            factor = correlation * a.std() / b.std() * kept
            of_all = weight.sum() / total
            # What was not seen could be of the largest weight, and predicted to be the opposite.
            largest = np.abs(weight).max()
            unseen = [
                (largest * (0 - share), largest * (control.max() - mean)),
                (largest * (1 - share), largest * (control.min() - mean)),
            ]
            explained = kept * np.array(
                [
                    max(np.corrcoef(np.append(a, x), np.append(b, z))[0, 1], 0.0) ** 2
                    for x, z in unseen
                ]
            )
            share = float(np.clip(share - factor * mean * of_all, 0, 1))
    sizes = [
        1 / ((1 / (worth * size) + 1 / n_rest) * (1 - of_end))
        for size, of_end in zip(
            worth_of_weighted(outcomes[among], weight[among]), explained, strict=True
        )
    ]
    return Share(
        share,
        possible_interval(two_sided_interval(share, sizes, level), n_rest),
        two_sided_interval(share, sizes, 0.5),
    )


def weighted_mean(values: np.ndarray, weight: np.ndarray | None) -> float:
    """Return the mean of values of shape (n_samples,) that stand for different numbers.

    If no value stands for anything, all count the same.
    """
    if weight is None:
        return float(values.mean())
    total = float(weight.sum())
    return float(weight @ values) / total if total > 0 else float(values.mean())


def mean_interval(
    outcomes: np.ndarray,
    weight: np.ndarray | None,
    n_rest: float,
    level: float = LEVEL,
    worth: float = 1.0,
) -> tuple[float, float]:
    """Compute a Clopper-Pearson-type interval of a share.

    The share is that among samples other than those it was measured on.

    Parameters
    ----------
    outcomes : ndarray of shape (n_samples,), bool
        Whether each sample counts.
    weight : ndarray of shape (n_samples,) or None
        How many samples each stands for, up to a factor; None: all for as many.
    n_rest : float
        Number of the others, above 0; it can be infinite.
    level : float in (0, 1), default=0.95
        Confidence.
    worth : float, default=1.0
        Number of independent samples that each sample is worth.

    Returns
    -------
    low, high : float in [0, 1]
        The ends of the interval.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.estimates.shares import mean_interval
    >>> wrong, weight = np.arange(100) < 10, np.repeat([0.5, 1.5], 50)
    >>> [round(end, 3) for end in mean_interval(wrong, weight, np.inf)]
    [0.023, 0.103]
    """
    share = weighted_mean(outcomes, weight)
    n = len(outcomes)
    sizes = (n, n) if weight is None else worth_of_weighted(outcomes, weight)
    share = float(np.clip(share, 0, 1))
    effective = [1 / (1 / (worth * size) + 1 / n_rest) for size in sizes]
    return two_sided_interval(share, effective, level)


def kish_size(weight: np.ndarray) -> float:
    """Return the number of samples of equal weight whose mean varies as much (Kish 1965).

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.estimates.shares import kish_size
    >>> kish_size(np.array([1.0, 1.0, 2.0, 0.0]))
    2.6666666666666665
    """
    squares = float((weight**2).sum())
    return float(weight.sum()) ** 2 / squares if squares > 0 else 0.0


def worth_of_weighted(outcomes: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return the numbers of samples of equal weight that tell as much about a share.

    Two numbers, for the lower and for the upper end of an interval. What was not seen could have
    the largest weight: so the variance is that with one further sample of this weight, which does
    not count for the lower end, and counts for the upper one. For equal weights, both numbers are
    that of the samples.
    """
    n, largest = len(weight), float(np.abs(weight).max())
    weights = np.append(weight, largest)
    sizes = []
    for outcome in (0.0, 1.0):
        values = np.append(outcomes, outcome).astype(float)
        total = weights.sum()
        share = float(np.clip(weights @ values / total, 0, 1)) if total > 0 else 0.0
        variance = float((weights**2 * (values - share) ** 2).sum())
        size = share * (1 - share) * total**2 / variance if variance > 0 else n + 1
        sizes.append(size * n / (n + 1))
    low, high = sizes
    return max(low, 1e-3), max(high, 1e-3)


def possible_interval(interval: tuple[float, float], n: float) -> tuple[float, float]:
    """Widen an interval to multiples of 1 / n: the share of few samples can only be one of these.

    Examples
    --------
    >>> from pudistill.estimates.shares import possible_interval
    >>> possible_interval((0.01, 0.58), 5), possible_interval((0.02, 0.99), 1)
    ((0.0, 0.6), (0.0, 1.0))
    """
    n = min(n, 1e12)  # it can be infinite
    return float(np.floor(interval[0] * n) / n), float(min(np.ceil(interval[1] * n) / n, 1.0))


def _cautious_correlation(outcomes: np.ndarray, controls: np.ndarray, n_rarer: float) -> float:
    """Return a low estimate of the correlation; 0 if there is none, or it cannot be told."""
    if n_rarer < FEWEST_OUTCOMES or controls.std() < 1e-9:
        return 0.0
    found = float(np.corrcoef(outcomes, controls)[0, 1])
    # Fisher's transformation makes the error about the same for all correlations.
    transformed = np.arctanh(np.clip(found, -0.999, 0.999)) - CAUTION / np.sqrt(n_rarer - 3)
    return max(float(np.tanh(transformed)), 0.0)
