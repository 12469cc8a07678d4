"""Parts of both ways to train a student: its calibration, its `T`, and posterior labels."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pudistill.distillation.noise_model import NoiseModel
from pudistill.distillation.source_model import SourceModel, fit_source_model, without_copies
from pudistill.distillation.transition import (
    Originals,
    combine,
    fit_group_matrices,
    fit_transition_matrix,
)
from pudistill.distillation.views import View
from pudistill.exceptions import InputError
from pudistill.labels.checks import MISSING, Labels
from pudistill.labels.pseudo_labels import bayes_rule, one_hot
from pudistill.labels.sources import Sources
from pudistill.learners.calibration import (
    Temperature,
    log_likelihood,
    mixture_weights,
    scaled_to_kish_size,
)
from pudistill.learners.linear import MANY_CLASSES
from pudistill.utils.arrays import rowwise, take_rows

# Parts with a transition matrix of their own where the user names no noise groups.
N_PARTS = 3


@dataclass(frozen=True)
class StudentCalibration:
    """The student's calibration, and its weight in the mixture with the first guess.

    Attributes
    ----------
    temperature : Temperature
        Calibrates the student.
    weight : float in [0, 1]
        The student's weight; the first guess has the weight ``1 - weight``.
    """

    temperature: Temperature = field(default_factory=Temperature)
    weight: float = 1.0

    @classmethod
    def fit(
        cls,
        student: np.ndarray,
        guess: np.ndarray,
        truth: np.ndarray,
        weight: np.ndarray | None = None,
    ) -> "StudentCalibration":
        """Fit on predictions for held-out samples; those of the first guess are calibrated."""
        temperature = Temperature.fit(student, truth, weight)
        weights = mixture_weights([guess, temperature.apply(student)], truth, weight=weight)
        return cls(temperature, weights[1])

    def mix(self, student: np.ndarray, guess: np.ndarray) -> np.ndarray:
        """Calibrate a student's predictions and mix them with the first guess."""
        return rowwise(
            lambda p, q: self.weight * self.temperature.apply(p) + (1 - self.weight) * q,
            student,
            guess,
        )


class StudentFit(NamedTuple):
    """A trained student, and the labels and quantities that it was trained with.

    Attributes
    ----------
    student : fitted estimator
        The student.
    probas : list of ndarray of shape (n_samples, n_classes)
        For each view, calibrated predictions, mixed with the first guess, of students that have not
        seen the sample's own label.
    targets : ndarray of shape (n_samples, n_classes)
        Posterior labels: ``probas[0]`` combined with the given and verified labels.
    noise : list of NoiseModel
        That of each view; `targets` were computed with the first.
    calibration : StudentCalibration
        Calibration of the student, and its weight beside the first guess.
    n_rounds : int
        Number of rounds.
    held_out : ndarray of shape (n_held_out, n_classes)
        Predictions of the students for the samples that their views hold out, not calibrated.
    """

    student: Any
    probas: list[np.ndarray]
    targets: np.ndarray
    noise: list[NoiseModel]
    calibration: StudentCalibration
    n_rounds: int
    held_out: np.ndarray

    @property
    def calibrated_held_out(self) -> np.ndarray:
        """The same predictions, calibrated."""
        return self.calibration.temperature.apply(self.held_out)


@dataclass(frozen=True)
class TransitionEstimator:
    """Estimator of the transition matrix that students are trained with.

    Attributes
    ----------
    known : ndarray of shape (n_classes, n_classes), default=None
        `T`, if it is known; then it is not estimated.
    originals : Originals, default=None
        Labels that trusted samples had before they were verified, used by the estimate too.
    groups : ndarray of shape (n_samples,), int, default=None
        Noise groups; by default parts of equal size by how sure the predictions are, because labels
        of hard samples are wrong more often.
    sources : Sources, default=None
        What several sources say, without copies. Then the noise of each source is estimated, too.
    weight : ndarray of shape (n_samples,), default=None
        How many others each verified sample stands for; None: all for as many.
    """

    known: np.ndarray | None = None
    originals: Originals | None = None
    groups: np.ndarray | None = None
    sources: Sources | None = None
    weight: np.ndarray | None = None

    @classmethod
    def of(
        cls, labels: Labels, originals: Originals | None, known: np.ndarray | None = None
    ) -> "TransitionEstimator":
        """Return the estimator for labels, their noise groups and their sources."""
        if labels.sources is None:
            return cls(known, originals, labels.noise_groups)
        if known is not None:
            raise InputError(
                "transition_matrix is that of one source of labels, and there are several: leave "
                "it out."
            )
        sources, weight = without_copies(labels.sources), labels.drawn_weight()
        return cls(None, originals, labels.noise_groups, sources, weight)

    def estimate(
        self, view: View, proba: np.ndarray, start: NoiseModel | None = None
    ) -> NoiseModel:
        """Estimate `T` of shape (n_classes, n_classes) under predictions of the true classes."""
        if self.known is not None:
            return NoiseModel(self.known)
        rows = view.labelled
        start_T = None if start is None else start.T
        of_labelled, given = take_rows(proba, rows), view.given[rows]
        T = fit_transition_matrix(of_labelled, given, start=start_T)
        # Roughly the standard error, as if the true classes were known.
        spread = np.sqrt(T * (1 - T) * len(T) / max(len(rows), 1))
        originals = None if self.originals is None else self.originals.without(view.hidden)
        T = combine(T, spread, originals)
        if self.sources is not None and len(rows):
            return NoiseModel(T, by_source=self._of_sources(view, proba, start))
        if len(rows) == 0 or (self.groups is None and len(T) >= MANY_CLASSES):
            return NoiseModel(T)
        groups = _by_sureness(proba, rows) if self.groups is None else self.groups
        if originals is not None:
            originals = originals._replace(groups=groups[originals.rows])
        by_group = fit_group_matrices(
            T, of_labelled, given, groups[rows], groups.max() + 1, originals
        )
        return NoiseModel(T, by_group, groups)

    def _of_sources(
        self, view: View, proba: np.ndarray, start: NoiseModel | None
    ) -> SourceModel | None:
        if self.sources is None:
            return None
        can_count = (view.given != MISSING) | self.sources.all_silent
        counts = (view.verified == MISSING) & can_count
        # With a mask, only samples were verified on which sources agree.
        verified = np.arange(0) if self.originals is None else view.trusted
        codes, weight = view.verified[verified], None
        if self.weight is not None:
            of_rows = np.nan_to_num(self.weight[verified], nan=1.0)  # copies have none
            of_verified = Originals(codes, codes, verified, weight=of_rows)
            weight = of_verified.scaled_weight(self.sources.n_classes)
        return fit_source_model(
            self.sources,
            proba,
            np.flatnonzero(counts),
            (verified, codes),
            None if start is None else start.by_source,
            weight,
        )

    def estimate_all(
        self, views: list[View], probas: list[np.ndarray], starts: list[NoiseModel] | None = None
    ) -> list[NoiseModel]:
        """Estimate the noise of each view, which knows nothing of the samples that it holds out.

        Matrices of noise groups are kept if they make held-out verified labels likelier.
        """
        nothing: list[NoiseModel | None] = [None] * len(views)
        of_views = zip(views, probas, starts or nothing, strict=True)
        found = [self.estimate(view, proba, start) for view, proba, start in of_views]
        if self.sources is not None:
            return found
        common = [NoiseModel(noise.T) for noise in found]
        gain = self._held_out_likelihood(views, probas, found) - self._held_out_likelihood(
            views, probas, common
        )
        return found if gain >= 0 else common

    def _held_out_likelihood(
        self, views: list[View], probas: list[np.ndarray], noise: list[NoiseModel]
    ) -> float:
        """Return the log-likelihood of held-out verified labels; 0 without their given labels."""
        total = 0.0
        if self.originals is None:
            return total
        for view, proba, model in zip(views[1:], probas[1:], noise[1:], strict=True):
            held_out = self.originals.within(view.held_out)
            likelihood = model.likelihood(held_out.given, rows=held_out.rows)
            posterior = bayes_rule(proba[held_out.rows], likelihood)
            truth = one_hot(held_out.verified, posterior.shape[1])
            gain, scale = log_likelihood(posterior, truth), scaled_to_kish_size(held_out.weight)
            total += float(gain.sum() if scale is None else scale @ gain)
        return total


def _by_sureness(proba: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Cut samples into parts by their largest probability, those at `rows` into equal parts."""
    highest = rowwise(lambda block: block.max(axis=1), proba)
    ends = np.quantile(highest[rows], np.arange(1, N_PARTS) / N_PARTS)
    return np.searchsorted(ends, highest)


def posterior_labels(
    proba: np.ndarray,
    noise: NoiseModel,
    view: View,
    postprocess: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> np.ndarray:
    """Combine predictions of shape (n_samples, n_classes) with the labels, by Bayes' rule."""
    return rowwise(
        lambda p, rows: postprocess(
            bayes_rule(p, noise.likelihood(view.given[rows], view.verified[rows], rows))
        ),
        proba,
        np.arange(len(proba)),
    )
