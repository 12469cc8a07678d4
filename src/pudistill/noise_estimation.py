"""How noisy the given labels are: the transition matrix, with intervals.

The estimate maximises the likelihood of the given labels under *calibrated* predictions of the true
ones. Unlike counting in the augmented clean set it needs no sample whose class is certain, so that
it is not misled by a clean set that holds the easy samples and fills unevenly by class. Where
trusted samples still have the label that they were once given, these count too: they are unbiased
under any noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import gammaln
from scipy.stats import binom

from pudistill.calibration import Temperature
from pudistill.rowwise import BLOCK_SIZE, rowwise, take_rows
from pudistill.validation import MISSING

# One sample's worth of doubt, spread evenly: no label is ever impossible.
SMOOTHING = 1.0
# How many samples' worth a class's row may lean on the other rows.
STRENGTHS = np.geomspace(0.1, 1e4, 21)
# What calibration may be off by (two standard deviations), whatever the number of samples: without
# it a million noisy labels would silence the few trusted ones that are certain, and be sure of a
# rate that is wrong.
SYSTEMATIC_ERROR = 0.02
N_BOOTSTRAP = 200
# Rows that a bootstrap draws; the spread is scaled to all of them.
BOOTSTRAP_ROWS = 4000
BOOTSTRAP_STEPS = 15
MIN_CLASS_SIZE = 10
# All originals right, and this improbable where so much less than the other estimate is wrong: they
# were overwritten.
IMPLAUSIBLE, DOUBT = 1e-3, 0.05
QUANTILES = (0.025, 0.975)


@dataclass(frozen=True)
class NoiseEstimate:
    """An estimate of the noise in the given labels of the samples that are not trusted.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        Class labels, the order of all that follows.
    transition_matrix : ndarray of shape (n_classes, n_classes)
        `T[c, j] = P(given = j | true = c)`; rows sum to 1.
    transition_interval : ndarray of shape (2, n_classes, n_classes)
        Lower and upper ends of its 95 % intervals.
    rate : float in [0, 1]
        Share of wrong labels; NaN where there are none to be wrong.
    rate_interval : tuple of two floats
        Its 95 % interval.
    class_rate : ndarray of shape (n_classes,)
        Share of each true class whose label is wrong.
    class_rate_interval : ndarray of shape (n_classes, 2)
        Their 95 % intervals.
    class_prior : ndarray of shape (n_classes,)
        How frequent each true class is.
    sources : dict of str to float
        What the estimate rests on, as shares: "trusted originals" and "model of the given labels".
    warnings : list of str
        What a reader must know before believing it.
    """

    classes: np.ndarray
    transition_matrix: np.ndarray
    transition_interval: np.ndarray
    rate: float
    rate_interval: tuple[float, float]
    class_rate: np.ndarray
    class_rate_interval: np.ndarray
    class_prior: np.ndarray
    sources: dict[str, float]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON can hold it, without the class labels."""
        values = {name: value for name, value in vars(self).items() if name != "classes"}
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in values.items()
        }


class Originals(NamedTuple):
    """What trusted samples are, and what they were called before somebody verified them."""

    verified: np.ndarray
    given: np.ndarray


def fit_transition_matrix(
    proba: np.ndarray,
    given: np.ndarray,
    *,
    start: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    max_iter: int = 300,
    tol: float = 1e-4,
) -> np.ndarray:
    r"""Maximise the likelihood of the given labels over all transition matrices.

    :math:`\sum_i \log \sum_c p(c \mid x_i) \, T_{c, \tilde y_i}` is concave in `T`; expectation-
    maximisation climbs it.

    Parameters
    ----------
    proba : ndarray of shape (n_samples, n_classes)
        Calibrated predictions of the true classes.
    given : ndarray of shape (n_samples,), int
        Given labels, none missing.
    start : ndarray of shape (n_classes, n_classes), default=None
        Where to start; by default at a matrix without any information.
    weights : ndarray of shape (n_samples,), default=None
        Weights of the samples.
    max_iter, tol : int, float
        When to stop: after so many steps, or when no entry changes by more than `tol`.

    Returns
    -------
    transition_matrix : ndarray of shape (n_classes, n_classes)
        `T[c, j] = P(given = j | true = c)`.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.noise_estimation import fit_transition_matrix
    >>> proba = np.repeat(np.eye(2), 500, axis=0)  # all is known: then it counts
    >>> given = np.tile([0, 0, 1, 1, 1], 200)
    >>> fit_transition_matrix(proba, given).round(1).tolist()
    [[0.4, 0.6], [0.4, 0.6]]
    """
    n_classes = proba.shape[1]
    T = np.full((n_classes, n_classes), 1 / n_classes) if start is None else start
    order = np.argsort(given, kind="stable")
    ends = np.searchsorted(given[order], np.arange(n_classes + 1))
    proba = weighted = take_rows(proba, order)
    if weights is not None:
        weighted = rowwise(lambda p, w: p * w[:, None], proba, weights[order])
    parts = [[side[ends[j] : ends[j + 1]] for side in (proba, weighted)] for j in range(n_classes)]
    for _ in range(max_iter):
        previous = T
        counts = np.empty_like(T)
        for j, (p, w) in enumerate(parts):
            evidence = p @ T[:, j] + 1e-300
            counts[:, j] = T[:, j] * (w.T @ (1 / evidence))
        T = smoothed(counts)
        if np.abs(T - previous).max() < tol:
            break
    return T


def smoothed(counts: np.ndarray) -> np.ndarray:
    """Turn counts into a transition matrix, rows leaning on each other as far as they are alike.

    Wrong labels of a class lean towards those of all classes, and its rate of right ones towards
    the mean rate; how far is what makes the counts likeliest (empirical Bayes, with Dirichlet
    priors). So evenly spread noise is estimated from all rows together, and a flip that is a
    class's own is left alone.

    Parameters
    ----------
    counts : ndarray of shape (n_classes, n_classes)
        Samples of each true class by given label; not whole numbers where classes are uncertain.

    Returns
    -------
    transition_matrix : ndarray of shape (n_classes, n_classes)
        Rows that sum to 1, no entry of which is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.noise_estimation import smoothed
    >>> smoothed(np.array([[70, 17, 13], [15, 68, 17], [13, 15, 72]])).round(2).tolist()
    [[0.7, 0.16, 0.15], [0.15, 0.7, 0.16], [0.14, 0.16, 0.7]]
    """
    n_classes = len(counts)
    counts = counts + SMOOTHING / n_classes**2
    right = np.diag(counts)
    wrong = counts - np.diag(right)
    n_wrong = wrong.sum(axis=1)
    pairs = np.column_stack([right, n_wrong])
    rates = _lean(pairs, np.tile(pairs.sum(axis=0), (n_classes, 1)))[:, 0]
    if n_classes == 2:
        kinds = 1 - np.eye(2)
    else:
        popular = (1 - np.eye(n_classes)) * wrong.sum(axis=0)
        kinds = _lean(wrong, popular)
    return np.diag(rates) + (1 - rates)[:, None] * kinds


def _lean(counts: np.ndarray, popular: np.ndarray) -> np.ndarray:
    """Mix rows of counts with what is popular, as strongly as is likeliest; zeros stay zeros."""
    base = popular / popular.sum(axis=1, keepdims=True)
    n = counts.sum(axis=1)
    strengths = STRENGTHS[:, None]
    evidence = (gammaln(strengths) - gammaln(strengths + n)).sum(axis=1)
    # All strengths at once: a bootstrap asks thousands of times, mostly of a few classes.
    shares, counted = base[base > 0], counts[base > 0]
    for start in range(0, len(shares), BLOCK_SIZE):
        some = slice(start, start + BLOCK_SIZE)
        prior = strengths * shares[some]
        evidence += (gammaln(prior + counted[some]) - gammaln(prior)).sum(axis=1)
    strength = STRENGTHS[evidence.argmax()]
    return (counts + strength * base) / (n + strength)[:, None]


def known_originals(
    verified: np.ndarray, given: np.ndarray, rate: float, *, from_mask: bool
) -> tuple[Originals | None, str | None]:
    """Find out whether trusted samples still have the labels that they were given.

    Parameters
    ----------
    verified, given : ndarray of shape (n_trusted,), int
        Codes of the trusted samples.
    rate : float
        Share of wrong labels according to the noisy samples.
    from_mask : bool
        Whether they were said to be right as given: then nobody knows what they were called before.

    Returns
    -------
    originals : Originals or None
        None if there are none.
    warning : str or None
        What to tell the user.
    """
    has_label = given != MISSING
    if from_mask or not has_label.any():
        return None, None
    originals = Originals(verified[has_label], given[has_label])
    n_wrong = int((originals.verified != originals.given).sum())
    n = len(originals.verified)
    if n_wrong == 0 and binom.cdf(0, n, max(0.0, rate - DOUBT)) < IMPLAUSIBLE:
        return None, (
            f"The given labels of all {n} trusted samples are right, which cannot be where about "
            f"{rate:.0%} of the others are wrong: they seem to have been overwritten when they "
            "were verified, so they were not counted as a sample of the noise."
        )
    return originals, None


def systematic_error(draws: np.ndarray, T: np.ndarray, originals: Originals | None) -> float:
    """Tell what the estimate from the noisy samples may be off by, beyond its sampling error.

    Parameters
    ----------
    draws : ndarray of shape (n_draws, n_classes, n_classes)
        Its bootstrap.
    T : ndarray of shape (n_classes, n_classes)
        The estimate.
    originals : Originals or None
        Certain pairs of true and given label.

    Returns
    -------
    error : float
        Two standard deviations of a rate: what is usual, or more where it differs from the
        originals by more than two standard errors of the difference.
    """
    if originals is None:
        return SYSTEMATIC_ERROR
    n = len(originals.given)
    shares = np.bincount(originals.verified, minlength=len(T)) / n
    right = np.diag(T)
    difference = (originals.given == originals.verified).mean() - right @ shares
    variance = (right * (1 - right)) @ shares / n
    variance += (np.diagonal(draws, axis1=1, axis2=2) @ shares).var()
    return float(max(SYSTEMATIC_ERROR, 2 * np.sqrt(max(difference**2 - 4 * variance, 0))))


def combine(
    T: np.ndarray,
    spread: np.ndarray,
    originals: Originals | None,
    systematic: float = SYSTEMATIC_ERROR,
) -> tuple[np.ndarray, float]:
    """Weigh the two sources by how many samples each is worth.

    Parameters
    ----------
    T : ndarray of shape (n_classes, n_classes)
        Estimate from the noisy samples.
    spread : ndarray of shape (n_classes, n_classes)
        Its standard error.
    originals : Originals or None
        Certain pairs of true and given label.
    systematic : float, default=SYSTEMATIC_ERROR
        What it may be off by besides, see `systematic_error`.

    Returns
    -------
    T : ndarray of shape (n_classes, n_classes)
        The combination, row by row.
    share : float in [0, 1]
        The originals' share in it.
    """
    if originals is None:
        return T, 0.0
    n_classes = len(T)
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, (originals.verified, originals.given), 1)
    n = counts.sum(axis=1)
    # A multinomial's variance is T (1 - T) / n: as many certain samples would say as much.
    variance = (T * (1 - T)).sum(axis=1)
    worth = variance / ((spread**2).sum(axis=1) + systematic**2)
    worth = np.maximum(worth, 1.0)
    return (counts + worth[:, None] * T) / (n + worth)[:, None], float((n / (n + worth)).mean())


def estimate_noise(
    classes: np.ndarray,
    proba: np.ndarray,
    given: np.ndarray,
    originals: Originals | None,
    temperature: Temperature,
    *,
    notes: Sequence[str] = (),
    seed: int,
) -> NoiseEstimate:
    """Estimate the noise and how sure that is.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        Class labels.
    proba : ndarray of shape (n_noisy, n_classes)
        Calibrated predictions for the noisy samples that have a given label.
    given : ndarray of shape (n_noisy,), int
        Their given labels.
    originals : Originals or None
        Trusted samples whose given label is known.
    temperature : Temperature
        What calibrated `proba`; how sure that was enters the intervals.
    notes : sequence of str
        Warnings to begin with.
    seed : int
        Decides the bootstrap.

    Returns
    -------
    estimate : NoiseEstimate
        The estimate.
    """
    rng = np.random.default_rng(seed)
    n_classes = len(classes)
    transition_matrix = fit_transition_matrix(proba, given)
    size = min(len(given), BOOTSTRAP_ROWS)
    draws = []
    for _ in range(N_BOOTSTRAP if len(given) else 0):
        rows = rng.integers(len(given), size=size)
        p = temperature.residual(rng).apply(proba[rows])
        T = fit_transition_matrix(
            p, given[rows], start=transition_matrix, max_iter=BOOTSTRAP_STEPS, tol=1e-3
        )
        draws.append(T)
    samples = np.array(draws) if draws else transition_matrix[None]
    centre = samples.mean(axis=0)
    # Fewer rows than there are scatter more; what is left is moved onto the estimate itself.
    samples = transition_matrix + (samples - centre) * np.sqrt(size / max(len(given), 1))
    spread = samples.std(axis=0) if draws else np.ones_like(transition_matrix)
    systematic = systematic_error(samples, transition_matrix, originals)
    samples = _with_systematic_error(samples, transition_matrix, systematic, rng)

    T, share = combine(transition_matrix, spread, originals, systematic)
    drawn = np.array(
        [combine(one, spread, _resampled(originals, rng), systematic)[0] for one in samples]
    )
    responsibility = rowwise(lambda *of: _responsibility(T, *of), proba, given)
    prior = responsibility.mean(axis=0) if len(given) else np.full(n_classes, 1 / n_classes)
    wrong = 1 - np.diagonal(drawn, axis1=1, axis2=2)
    class_rate = 1 - np.diagonal(T)
    low, high = np.quantile(wrong @ prior, QUANTILES)
    rate = float(class_rate @ prior)
    if len(given) == 0 and originals is None:
        rate, low, high = np.nan, 0.0, 1.0
    return NoiseEstimate(
        classes=classes,
        transition_matrix=T,
        transition_interval=np.quantile(drawn, QUANTILES, axis=0),
        rate=rate,
        rate_interval=(float(np.fmin(low, rate)), float(np.fmax(high, rate))),
        class_rate=class_rate,
        class_rate_interval=np.quantile(wrong, QUANTILES, axis=0).T,
        class_prior=prior,
        sources={"trusted originals": share, "model of the given labels": 1 - share},
        warnings=[*notes, *_thin_classes(classes, prior * len(given))],
    )


def _with_systematic_error(
    samples: np.ndarray, T: np.ndarray, systematic: float, rng: np.random.Generator
) -> np.ndarray:
    """Move draws of a matrix by what calibration may be off by; rows sum to 1."""
    diagonal = np.eye(len(T), dtype=bool)
    error = rng.normal(0, systematic / 2, samples.shape)
    # Predictions that are too sure are so of all classes: errors of their rates do not cancel out.
    error = np.where(diagonal, error[:, :1, :1], error)
    moved = np.clip(samples + error * 2 * np.sqrt(T * (1 - T)), 1e-12, 1)
    right = np.where(diagonal, moved, 0)
    wrong = moved - right
    rate = 1 - right.sum(axis=2, keepdims=True)
    return right + rate * wrong / wrong.sum(axis=2, keepdims=True)


def _responsibility(T: np.ndarray, proba: np.ndarray, given: np.ndarray) -> np.ndarray:
    joint = proba * T[:, given].T
    return joint / (joint.sum(axis=1, keepdims=True) + 1e-300)


def _resampled(originals: Originals | None, rng: np.random.Generator) -> Originals | None:
    if originals is None:
        return None
    rows = rng.integers(len(originals.given), size=len(originals.given))
    return Originals(originals.verified[rows], originals.given[rows])


def _thin_classes(classes: np.ndarray, sizes: np.ndarray) -> list[str]:
    return [
        f"Only about {size:.0f} of the samples that are not trusted seem to be of class {name}: "
        "too few to say how noisy its labels are."
        for name, size in zip(classes.tolist(), sizes, strict=True)
        if size < MIN_CLASS_SIZE
    ]
