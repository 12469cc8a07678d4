"""Training of the student by likelihood or in rounds; the original labels of trusted samples."""

from typing import Any

import numpy as np

from pudistill.distillation.network_student import learn_by_likelihood
from pudistill.distillation.noise_model import NoiseModel
from pudistill.distillation.predictions import Predictions
from pudistill.distillation.problem import Problem
from pudistill.distillation.rounds import learn_in_rounds, student_steps
from pudistill.distillation.student import StudentFit, TransitionEstimator
from pudistill.distillation.transition import Originals, fit_transition_matrix, known_originals
from pudistill.distillation.views import View
from pudistill.labels.checks import Labels
from pudistill.learners.capabilities import continues_training
from pudistill.utils.arrays import take_rows
from pudistill.utils.progress import stage


def learn(
    problem: Problem,
    views: list[View],
    guesses: list[np.ndarray],
    *,
    transition_matrix: np.ndarray | None = None,
    originals: Originals | None = None,
    trained: list[Any] | None = None,
) -> StudentFit:
    """Train a student on all samples, with their given and verified labels.

    Parameters
    ----------
    problem : Problem
        Samples and learner.
    views : list of View
        All labels; then the same labels with some trusted samples held out. On these samples,
        students trained in the same way are calibrated and compared.
    guesses : list of ndarray of shape (n_samples, n_classes)
        The first guess for each view: calibrated predictions that have read no noisy label.
    transition_matrix : ndarray of shape (n_classes, n_classes), default=None
        `T`, if it is known; estimated by default.
    originals : Originals, default=None
        Labels that trusted samples had before they were verified.
    trained : list of fitted estimator or None, default=None
        For each view, a network from which the trainings of networks go on; see
        `learn_by_likelihood`.

    Returns
    -------
    student_fit : StudentFit
        The student trained on all labels.
    """
    transition = TransitionEstimator.of(problem.labels, originals, transition_matrix)
    if continues_training(problem.student):
        trained = [None] * len(views) if trained is None else trained
        return learn_by_likelihood(problem, views, guesses, transition, trained)
    with stage("student", student_steps(problem)) as advance:
        return learn_in_rounds(problem, views, guesses, transition, advance)


def find_originals(
    labels: Labels, view: View, guess: np.ndarray
) -> tuple[Originals | None, str | None]:
    """Call `known_originals` with the noise rate that the first guess implies."""
    rows, weight = np.flatnonzero(labels.drawn), labels.drawn_weight()
    given, rate = view.given[view.labelled], 0.0
    if len(given):
        T = fit_transition_matrix(take_rows(guess, view.labelled), given)
        joint = Predictions(view, guess, NoiseModel(T)).joint(view.labelled, given)
        rate = float(1 - np.trace(joint))
    return known_originals(
        labels.verified[rows],
        labels.given[rows],
        rows,
        rate,
        from_mask=labels.from_mask,
        groups=None if labels.groups is None else labels.groups[rows],
        weight=None if weight is None else weight[rows],
    )
