"""Parts of both ways to train a student: its calibration, its `T`, and posterior labels."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pudistill.distillation.transition import Originals, combine, fit_transition_matrix
from pudistill.distillation.views import View
from pudistill.labels.pseudo_labels import bayes_rule, likelihood
from pudistill.learners.calibration import Temperature, mixture_weights
from pudistill.utils.arrays import rowwise, take_rows


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
    def fit(cls, student: np.ndarray, guess: np.ndarray, truth: np.ndarray) -> "StudentCalibration":
        """Fit on predictions for held-out samples; those of the first guess are calibrated."""
        temperature = Temperature.fit(student, truth)
        weights = mixture_weights([guess, temperature.apply(student)], truth)
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
        Posterior labels: `proba` combined with the given and verified labels.
    transition_matrices : list of ndarray of shape (n_classes, n_classes)
        `T` of each view; `targets` were computed with the first.
    calibration : StudentCalibration
        Calibration of the student, and its weight beside the first guess.
    n_rounds : int
        Number of rounds.
    held_out : ndarray of shape (n_held_out, n_classes)
        Calibrated predictions for the held-out samples of all views.
    """

    student: Any
    probas: list[np.ndarray]
    targets: np.ndarray
    transition_matrices: list[np.ndarray]
    calibration: StudentCalibration
    n_rounds: int
    held_out: np.ndarray


@dataclass(frozen=True)
class TransitionEstimator:
    """Estimator of the transition matrix that students are trained with.

    Attributes
    ----------
    known : ndarray of shape (n_classes, n_classes), default=None
        `T`, if it is known; then it is not estimated.
    originals : Originals, default=None
        Labels that trusted samples had before they were verified, used by the estimate too.
    """

    known: np.ndarray | None = None
    originals: Originals | None = None

    def estimate(
        self, view: View, proba: np.ndarray, start: np.ndarray | None = None
    ) -> np.ndarray:
        """Estimate `T` of shape (n_classes, n_classes) under predictions of the true classes."""
        if self.known is not None:
            return self.known
        rows = view.labelled
        T = fit_transition_matrix(take_rows(proba, rows), view.given[rows], start=start)
        # Roughly the standard error, as if the true classes were known.
        spread = np.sqrt(T * (1 - T) * len(T) / max(len(rows), 1))
        hidden = view.held_out if view.unseen is None else view.unseen
        originals = None if self.originals is None else self.originals.without(hidden)
        return combine(T, spread, originals)

    def estimate_all(
        self, views: list[View], probas: list[np.ndarray], starts: list[np.ndarray] | None = None
    ) -> list[np.ndarray]:
        """Estimate the `T` of each view, which knows nothing of the samples that it holds out."""
        of_views = zip(views, probas, starts or [None] * len(views), strict=True)
        return [self.estimate(view, proba, start) for view, proba, start in of_views]


def posterior_labels(
    proba: np.ndarray,
    T: np.ndarray,
    view: View,
    postprocess: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> np.ndarray:
    """Combine predictions of shape (n_samples, n_classes) with the labels, by Bayes' rule."""
    return rowwise(
        lambda p, given, verified: postprocess(bayes_rule(p, likelihood(T, given, verified))),
        proba,
        view.given,
        view.verified,
    )
