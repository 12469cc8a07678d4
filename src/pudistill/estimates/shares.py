"""Shares, such as that of wrong labels, from verified samples and predictions for all others.

Verified samples are a random sample, so a share among them is right on average, whatever the
predictions. Predictions narrow the interval: where they are high for the verified samples by
chance, the share is corrected downwards. This is prediction-powered inference.
"""

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
        Its 95 % interval.
    middle : tuple of two float
        Its 50 % interval.
    """

    value: float
    interval: tuple[float, float]
    middle: tuple[float, float] = (0.0, 1.0)


UNKNOWN = Share(np.nan, (0.0, 1.0))


def exact_interval(share: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Compute the exact (Clopper-Pearson) interval of a share measured on `n` samples.

    Other intervals are too narrow near 0 and 1.

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


def rectified_share(
    outcomes: np.ndarray,
    controls: np.ndarray,
    n_rest: float,
    *,
    among: np.ndarray | None = None,
    among_controls: np.ndarray | None = None,
    worth: float = 1.0,
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
        The same as `controls`, for being among them.
    worth : float, default=1.0
        Number of independent samples that each verified sample is worth; less than 1 where samples
        of a group are alike.

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
    if among is None or among_controls is None:
        among, among_controls = np.ones(len(outcomes), dtype=bool), np.zeros(len(outcomes))
    n, n_all = int(among.sum()), len(outcomes)
    if n == 0 or n_rest <= 0:
        return UNKNOWN
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
    interval = _possible(exact_interval(share, size), n_rest)
    return Share(share, interval, exact_interval(share, size, 0.5))


def _possible(interval: tuple[float, float], n: float) -> tuple[float, float]:
    """Widen an interval to multiples of 1 / n: the share of few samples can only be one of these.

    Examples
    --------
    >>> from pudistill.estimates.shares import _possible
    >>> _possible((0.01, 0.58), 5), _possible((0.02, 0.99), 1)
    ((0.0, 0.6), (0.0, 1.0))
    """
    n = min(n, 1e12)  # it can be infinite
    return float(np.floor(interval[0] * n) / n), float(min(np.ceil(interval[1] * n) / n, 1.0))


def _cautious_correlation(outcomes: np.ndarray, controls: np.ndarray, n_rarer: int) -> float:
    """Return a low estimate of the correlation; 0 if there is none, or it cannot be told."""
    if n_rarer < FEWEST_OUTCOMES or controls.std() < 1e-9:
        return 0.0
    found = float(np.corrcoef(outcomes, controls)[0, 1])
    # Fisher's transformation makes the error about the same for all correlations.
    transformed = np.arctanh(np.clip(found, -0.999, 0.999)) - CAUTION / np.sqrt(n_rarer - 3)
    return max(float(np.tanh(transformed)), 0.0)
