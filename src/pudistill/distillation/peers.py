"""Candidates that do without our first guess: pruned labels, and Gold Loss Correction.

With few trusted samples the first guess can be weak, and the student with it. What a model of the
given labels says of each sample does not depend on it.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import numpy as np
from joblib import delayed

from pudistill.distillation.few_trusted import given_label_proba, measured_matrix
from pudistill.distillation.first_result import on_first_result
from pudistill.distillation.noise_free_models import NoiseFreeModels
from pudistill.distillation.noise_model import NoiseModel
from pudistill.distillation.problem import Problem
from pudistill.distillation.rounds import learn_in_rounds
from pudistill.distillation.self_training import train_on_labels
from pudistill.distillation.student import StudentFit, TransitionEstimator
from pudistill.distillation.views import View
from pudistill.labels.checks import MISSING
from pudistill.learners.capabilities import continues_training
from pudistill.learners.networks.recipes import learning_rate_scale, scaled_learning_rate
from pudistill.learners.parallel import in_order
from pudistill.utils.progress import Advance, ignore

# Factor of the learning rate when a network of the given labels learns the trusted samples alone.
FINE_TUNING = 0.1


@dataclass(frozen=True)
class Peers:
    """The trained peers of the student.

    Attributes
    ----------
    held_out : dict of str to ndarray of shape (n_held_out, n_classes)
        Predictions of "pruned_labels" and "gold_loss_correction"; not calibrated.
    pruned : View
        All labels except those that are doubted.
    gold : StudentFit
        The student that Gold Loss Correction trained.
    """

    held_out: dict[str, np.ndarray]
    pruned: View
    gold: StudentFit


def train_peers(
    problem: Problem, views: list[View], models: list[NoiseFreeModels], advance: Advance = ignore
) -> Peers:
    """Train both peers for each view; for the parameters see `learn_by_gold_matrix`."""
    said = predict_given_labels(problem, views)
    pruned = list(map(pruned_view, views, said))
    gold = learn_by_gold_matrix(problem, views, models, said)
    held_out = {
        "pruned_labels": held_out_by_labels(problem, pruned, advance)["given_labels"],
        "gold_loss_correction": gold.held_out,
    }
    return Peers(held_out, pruned[0], gold)


def held_out_by_labels(
    problem: Problem, views: list[View], advance: Advance = ignore
) -> dict[str, np.ndarray]:
    """Predict held-out samples by models of the labels that each view shows.

    `advance` is called for each view that holds samples out.

    Returns
    -------
    held_out : dict of str to ndarray of shape (n_held_out, n_classes)
        Predictions of "given_labels" and, for networks, "fine_tuned"; not calibrated.
    """
    names = ["given_labels", *["fine_tuned"] * continues_training(problem.student)]
    parts = {name: [np.zeros((0, problem.n_classes))] for name in names}
    for view, model in zip(views[1:], _models_of_labels(problem, views), strict=True):
        parts["given_labels"].append(problem.predict_proba(model, view.held_out))
        if "fine_tuned" in parts:
            model = fine_tuned(problem, view, model)
            parts["fine_tuned"].append(problem.predict_proba(model, view.held_out))
        advance(1)
    return {name: np.concatenate(of_views) for name, of_views in parts.items()}


def _models_of_labels(problem: Problem, views: list[View]) -> Iterator[Any]:
    """Train on the labels of each view that holds samples out.

    One network suffices for several views: it learns the given labels of the samples that no view
    holds out, and no verified label of the others.
    """
    if continues_training(problem.student) and len(views) > 2 and views[0].groups is None:
        held_out = np.concatenate([view.held_out for view in views])
        alone = views[0].holding_out(held_out, None)
        if alone.has_several_labels:
            return repeat(model_of_labels(problem, alone), len(views) - 1)
    tasks = (delayed(model_of_labels)(problem, view) for view in views[1:])
    return in_order(tasks, problem.n_tasks)


def model_of_labels(problem: Problem, view: View) -> Any:
    """Train on the labels as they are: verified where trusted, else given."""
    labels = np.where(view.verified == MISSING, view.given, view.verified)
    return _train(problem, view, problem.student, labels)


def fine_tuned(problem: Problem, view: View, network: Any) -> Any:
    """Train a network of the given labels further, on the trusted samples alone."""
    with scaled_learning_rate(FINE_TUNING * learning_rate_scale()):
        return _train(problem, view, copy.deepcopy(network), view.verified, continued=True)


def _train(problem: Problem, view: View, learner: Any, labels: np.ndarray, **options: Any) -> Any:
    return train_on_labels(
        learner,
        problem.X,
        labels,
        problem.n_classes,
        problem.seed,
        groups=view.groups,
        sample_weight=problem.labels.sample_weight,
        **options,
    )


def predict_given_labels(problem: Problem, views: list[View]) -> list[np.ndarray]:
    """Predict the given label of each sample by models that no label of the sample has taught.

    All views share the predictions, because no verified label is read; except with groups, where
    each view hides the given labels of other samples.
    """
    if views[0].groups is None:
        return [given_label_proba(problem, views[0])] * len(views)
    return [given_label_proba(problem, view) for view in views]


def predict_by_pruned_labels(problem: Problem, views: list[View]) -> list[np.ndarray]:
    """Predict each sample, for each view, by models of the given labels that are not doubted.

    No label of the sample has taught them, and no verified label.
    """
    said = predict_given_labels(problem, views)
    if views[0].groups is None:
        return [given_label_proba(problem, pruned_view(views[0], said[0]))] * len(views)
    return [
        given_label_proba(problem, pruned_view(*part)) for part in zip(views, said, strict=True)
    ]


def doubted(said: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Find given labels that are probably wrong, by confident learning.

    Parameters
    ----------
    said : ndarray of shape (n_samples, n_classes)
        Predicted probabilities of the given label.
    given : ndarray of shape (n_samples,), int
        Given labels.

    Returns
    -------
    is_doubted : ndarray of shape (n_samples,), bool
        For each pair of a given and another class, as many labels as samples are confidently of the
        other class: those for which the other class leads most.

    References
    ----------
    C. G. Northcutt, L. Jiang, I. L. Chuang, "Confident Learning: Estimating Uncertainty in Dataset
    Labels", JAIR 70 (2021): prune by noise rate.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.distillation.peers import doubted
    >>> said = np.array([[0.9, 0.1]] * 4 + [[0.2, 0.8]] * 4)
    >>> doubted(said, np.array([0, 0, 0, 1, 1, 1, 1, 1])).tolist()
    [False, False, False, True, False, False, False, False]
    """
    n_classes, rows = said.shape[1], np.arange(len(given))
    sizes = np.bincount(given, minlength=n_classes)
    # 1. A sample is confidently of the likeliest class whose samples are as sure on average.
    sureness = np.bincount(given, said[rows, given], n_classes) / np.maximum(sizes, 1)
    sure = np.where((said >= sureness) & (sizes > 0), said, -1.0)
    is_sure, likeliest = sure.max(axis=1) >= 0, sure.argmax(axis=1)
    # 2. Count these samples by given and confident class, and scale to all samples.
    joint = np.zeros((n_classes, n_classes))
    np.add.at(joint, (given[is_sure], likeliest[is_sure]), 1)
    joint *= (sizes / np.maximum(joint.sum(axis=1), 1))[:, None]
    # 3. Doubt as many labels of each pair of classes.
    is_doubted = np.zeros(len(given), dtype=bool)
    for code, other in np.argwhere(joint.round() > 0):
        if code != other:
            of_class = np.flatnonzero(given == code)
            lead = said[of_class, other] - said[of_class, code]
            order = np.argsort(-lead, kind="stable")
            is_doubted[of_class[order[: int(joint[code, other].round())]]] = True
    return is_doubted


def pruned_view(view: View, said: np.ndarray) -> View:
    """Return the view without the given labels that `doubted` finds."""
    given, rows = view.given.copy(), view.labelled
    given[rows[doubted(said[rows], given[rows])]] = MISSING
    return replace(view, given=given)


@dataclass(frozen=True)
class MeasuredMatrices(TransitionEstimator):
    """A transition matrix for each view, which the rounds do not change."""

    matrices: Sequence[np.ndarray] = ()

    def estimate_all(self, *_: Any) -> list[NoiseModel]:
        """Return the matrices."""
        return list(map(NoiseModel, self.matrices))


def learn_by_gold_matrix(
    problem: Problem, views: list[View], models: list[NoiseFreeModels], said: list[np.ndarray]
) -> StudentFit:
    """Train a student with the transition matrix that the trusted samples of each view show.

    Parameters
    ----------
    problem : Problem
        Samples, labels and learner.
    views : list of View
        All labels; then the same labels with some trusted samples held out.
    models : list of NoiseFreeModels
        Models of each view; the rounds start from that of the trusted samples.
    said : list of ndarray of shape (n_samples, n_classes)
        For each view, as from `predict_given_labels`.

    Returns
    -------
    student_fit : StudentFit
        The student, and its predictions for held-out samples.

    References
    ----------
    D. Hendrycks, M. Mazeika, D. Wilson, K. Gimpel, "Using Trusted Data to Train Deep Networks on
    Labels Corrupted by Severe Noise", NeurIPS 2018.
    """
    guesses = [problem.predict_proba(trained.by_name["trusted_only"][0]) for trained in models]
    transition = MeasuredMatrices(matrices=list(map(measured_matrix, said, views)))
    with on_first_result(lambda _: None, after=np.inf):  # the student has announced one
        return learn_in_rounds(replace(problem, tunes_student=False), views, guesses, transition)
