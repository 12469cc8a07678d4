"""Estimate of the noise in the given labels: the transition matrix, with intervals.

The estimate maximises the likelihood of the given labels under *calibrated* predictions of the true
labels. Counting wrong labels in the augmented clean set would be biased, because that set holds the
easy samples, and more of some classes than of others. Given labels of trusted samples count too, if
they have not been overwritten: they are unbiased under any noise.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t

from pudistill.distillation.clusters import (
    GroupSampler,
    design_effect,
    draw_rows,
    small_sample_factor,
    standard_error,
)
from pudistill.distillation.problem import Problem
from pudistill.distillation.transition import (
    SYSTEMATIC_ERROR,
    Originals,
    combine,
    fit_transition_matrix,
)
from pudistill.distillation.views import View, held_out_groups
from pudistill.learners.calibration import Temperature
from pudistill.learners.parts import shared_map
from pudistill.utils.arrays import rowwise, take_rows
from pudistill.utils.shown import shown

NOISE_BOOTSTRAPS = 200
# Entries of all draws together, from which on there are fewer draws, and the least number of draws.
ENTRIES_OF_DRAWS, FEWEST_DRAWS = 2**22, 10
# Largest number of rows in a bootstrap sample; the spread is scaled to the number of all rows.
BOOTSTRAP_ROWS = 4000
BOOTSTRAP_STEPS = 15  # of expectation-maximisation
MIN_CLASS_SIZE = 10  # noisy samples of a class, below which its estimate has a warning
QUANTILES = (0.025, 0.975)  # ends of the intervals


@dataclass(frozen=True)
class NoiseEstimate:
    """An estimate of the noise in the given labels of the samples that are not trusted.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        Class labels; rows and columns below are in this order.
    transition_matrix : ndarray of shape (n_classes, n_classes)
        `T[c, j] = P(given = j | true = c)`; rows sum to 1.
    transition_interval : ndarray of shape (2, n_classes, n_classes)
        Lower and upper ends of its 95 % intervals.
    rate : float in [0, 1]
        Share of wrong labels; NaN if there are no labels to estimate it from.
    rate_interval : tuple of two floats
        Its 95 % interval.
    class_rate : ndarray of shape (n_classes,)
        Share of wrong labels among the samples of each true class.
    class_rate_interval : ndarray of shape (n_classes, 2)
        Their 95 % intervals.
    class_prior : ndarray of shape (n_classes,)
        Share of the samples in each true class.
    sources : dict of str to float
        Weights of the two sources, "trusted originals" and "model of the given labels".
    warnings : list of str
        Reasons to doubt the estimate.
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
        """Return the estimate as a dictionary for JSON, without the class labels."""
        values = {name: value for name, value in vars(self).items() if name != "classes"}
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in values.items()
        }


def systematic_error(draws: np.ndarray, T: np.ndarray, originals: Originals | None) -> float:
    """Return the systematic error of the transition matrix estimated from the noisy samples.

    Parameters
    ----------
    draws : ndarray of shape (n_draws, n_classes, n_classes)
        Bootstrap draws of the estimate.
    T : ndarray of shape (n_classes, n_classes)
        The estimate.
    originals : Originals or None
        Known pairs of true and given label.

    Returns
    -------
    error : float
        Two standard deviations of a rate: `SYSTEMATIC_ERROR`, or more if the estimate differs from
        the originals by more than two standard errors of the difference.
    """
    if originals is None:
        return SYSTEMATIC_ERROR
    n = len(originals.given)
    shares = np.bincount(originals.verified, minlength=len(T)) / n
    right = np.diag(T)
    is_right = originals.given == originals.verified
    difference = is_right.mean() - right @ shares
    variance = (right * (1 - right)) @ shares / n
    if originals.groups is not None:  # at least that of independent samples
        error = standard_error(is_right - right[originals.verified], originals.groups)
        variance = max(variance, float(error) ** 2)
    variance += (np.diagonal(draws, axis1=1, axis2=2) @ shares).var()
    return float(max(SYSTEMATIC_ERROR, 2 * np.sqrt(max(difference**2 - 4 * variance, 0))))


def estimate_noise(
    classes: np.ndarray,
    proba: np.ndarray,
    given: np.ndarray,
    originals: Originals | None,
    temperature: Temperature,
    *,
    groups: np.ndarray | None = None,
    notes: Sequence[str] = (),
    seed: int,
) -> NoiseEstimate:
    """Estimate the noise, with 95 % intervals.

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
        Calibration of `proba`; its standard error widens the intervals.
    groups : ndarray of shape (n_noisy,), int, default=None
        Groups of the noisy samples, which bootstraps draw as a whole.
    notes : sequence of str
        Warnings to put before those of the estimate.
    seed : int
        Decides the bootstrap.

    Returns
    -------
    estimate : NoiseEstimate
        The estimate.
    """
    rng, n, n_classes = np.random.default_rng(seed), len(given), len(classes)
    # 1. Estimate from the noisy samples, and its bootstrap.
    model_T = fit_transition_matrix(proba, given)
    draws = _bootstrap(model_T, proba, given, temperature, groups, rng)
    spread = draws.std(axis=0) if n else np.ones_like(model_T)
    # 2. Widen the bootstrap by the error that calibration leaves.
    systematic = systematic_error(draws, model_T, originals)
    draws = _with_systematic_error(draws, model_T, systematic, rng)
    # 3. Combine with the originals, of which each draw takes a new bootstrap sample.
    T, share = combine(model_T, spread, originals, systematic)
    draws = np.array(
        [combine(draw, spread, _resampled(originals, rng), systematic)[0] for draw in draws]
    )
    if groups is not None:
        draws = _widened(draws, T, share, groups, originals)
    # 4. Rates of wrong labels: of each class, and of all samples by the shares of the classes.
    posterior = rowwise(lambda p, codes: _class_posterior(T, p, codes), proba, given)
    prior = posterior.mean(axis=0) if n else np.full(n_classes, 1 / n_classes)
    class_rate, class_rate_draws = 1 - np.diagonal(T), 1 - np.diagonal(draws, axis1=1, axis2=2)
    rate = float(class_rate @ prior)
    low, high = _ends(class_rate_draws @ prior)
    if n == 0 and originals is None:
        rate, low, high = np.nan, 0.0, 1.0
    return NoiseEstimate(
        classes=classes,
        transition_matrix=T,
        transition_interval=_ends(draws),
        rate=rate,
        rate_interval=(float(np.fmin(low, rate)), float(np.fmax(high, rate))),
        class_rate=class_rate,
        class_rate_interval=_ends(class_rate_draws).T,
        class_prior=prior,
        sources={"trusted originals": share, "model of the given labels": 1 - share},
        warnings=[*notes, *_thin_classes(classes, prior * n)],
    )


def noise_of_views(
    problem: Problem,
    views: list[View],
    proba: np.ndarray,
    temperature: Temperature,
    originals: Originals | None,
    *,
    is_outlier: np.ndarray | None = None,
    notes: Sequence[str] = (),
) -> NoiseEstimate:
    """Estimate the noise in the given labels of a problem.

    Parameters
    ----------
    problem : Problem
        Samples and labels.
    views : list of View
        The whole view, then those that hold samples out, on which `temperature` was fitted.
    proba : ndarray of shape (n_samples, n_classes)
        Calibrated predictions.
    temperature, originals, notes
        As for `estimate_noise`.
    is_outlier : ndarray of shape (n_samples,), bool, default=None
        Samples that may be of no class, whose labels do not count.

    Returns
    -------
    estimate : NoiseEstimate
        The estimate.
    """
    whole, groups = views[0], problem.labels.groups
    rows = whole.labelled if is_outlier is None else whole.labelled[~is_outlier[whole.labelled]]
    of_held_out = held_out_groups(views)
    if of_held_out is not None:
        temperature = temperature.less_certain(design_effect(of_held_out))
    return estimate_noise(
        problem.labels.classes,
        take_rows(proba, rows),
        whole.given[rows],
        originals,
        temperature,
        groups=None if groups is None else groups[rows],
        notes=notes,
        seed=problem.seed,
    )


def _bootstrap(
    T: np.ndarray,
    proba: np.ndarray,
    given: np.ndarray,
    temperature: Temperature,
    groups: np.ndarray | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """Fit `T` to bootstrap samples with varying calibration: (n_draws, n_classes, n_classes).

    Without samples, the only draw is `T` itself.
    """
    n, size = len(given), float(min(len(given), BOOTSTRAP_ROWS))
    sampler = None if groups is None or n == 0 else GroupSampler(groups)
    n_drawn = int(size)
    if sampler is not None:
        n_drawn = math.ceil(len(sampler.sizes) * size / n)
        size = n_drawn * n / len(sampler.sizes)  # on average
    n_draws = max(min(NOISE_BOOTSTRAPS, ENTRIES_OF_DRAWS // T.size), FEWEST_DRAWS)

    def drawn() -> Iterator[tuple[np.ndarray, Temperature]]:
        for _ in range(n_draws if n else 0):
            rows = rng.integers(n, size=n_drawn) if sampler is None else sampler.draw(rng, n_drawn)
            yield rows, temperature.residual(rng)

    def fitted(draw: tuple[np.ndarray, Temperature]) -> np.ndarray:
        rows, residual = draw
        p = residual.apply(proba[rows])
        return fit_transition_matrix(p, given[rows], start=T, max_iter=BOOTSTRAP_STEPS, tol=1e-3)

    draws = list(shared_map(fitted, drawn()))
    samples = np.array(draws) if draws else T[None]
    centre = samples.mean(axis=0)
    # Draws of fewer rows scatter more. They are centred on the estimate itself.
    return T + (samples - centre) * np.sqrt(size / max(n, 1))


def _ends(draws: np.ndarray) -> np.ndarray:
    """Return lower and upper ends of 95 % intervals: quantiles, or two standard deviations.

    The quantiles of the few draws that there are with many classes would be too narrow.
    """
    if len(draws) == 1 or len(draws) >= NOISE_BOOTSTRAPS:
        return np.quantile(draws, QUANTILES, axis=0)
    centre, spread = draws.mean(axis=0), draws.std(axis=0, ddof=1)
    half = t.ppf(QUANTILES[1], len(draws) - 1) * spread
    return np.clip([centre - half, centre + half], 0.0, 1.0)


def _with_systematic_error(
    samples: np.ndarray, T: np.ndarray, systematic: float, rng: np.random.Generator
) -> np.ndarray:
    """Add a random systematic error to draws of a matrix; rows sum to 1."""
    diagonal = np.eye(len(T), dtype=bool)
    error = rng.normal(0, systematic / 2, samples.shape)
    # Predictions are overconfident for all classes alike: errors of the rates do not cancel out.
    error = np.where(diagonal, error[:, :1, :1], error)
    moved = np.clip(samples + error * 2 * np.sqrt(T * (1 - T)), 1e-12, 1)
    right = np.where(diagonal, moved, 0)
    wrong = moved - right
    rate = 1 - right.sum(axis=2, keepdims=True)
    return right + rate * wrong / wrong.sum(axis=2, keepdims=True)


def _class_posterior(T: np.ndarray, proba: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Compute the probabilities of the true classes given predictions and given labels."""
    joint = proba * T[:, given].T
    return joint / (joint.sum(axis=1, keepdims=True) + 1e-300)


def _resampled(originals: Originals | None, rng: np.random.Generator) -> Originals | None:
    """Draw a bootstrap sample of the originals."""
    if originals is None:
        return None
    rows = draw_rows(len(originals.given), originals.groups, rng)
    return Originals(originals.verified[rows], originals.given[rows])


def _widened(
    draws: np.ndarray,
    T: np.ndarray,
    share: float,
    groups: np.ndarray,
    originals: Originals | None,
) -> np.ndarray:
    """Widen draws of a matrix for few groups in its sources, of which `share` are originals."""
    factor = (1 - share) * small_sample_factor(len(np.unique(groups)))
    if originals is not None and originals.groups is not None:
        factor += share * small_sample_factor(len(np.unique(originals.groups)))
    return np.clip(T + factor * (draws - T), 0, 1)


def _thin_classes(classes: np.ndarray, sizes: np.ndarray) -> list[str]:
    """Return a warning for each class with too few noisy samples."""
    return [
        f"Only about {size:.0f} of the samples that are not trusted seem to be of class "
        f"{shown(name)}: too few to estimate how noisy its labels are."
        for name, size in zip(classes, sizes, strict=True)
        if size < MIN_CLASS_SIZE
    ]
