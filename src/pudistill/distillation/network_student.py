"""A network as the student, trained on the likelihood of the given labels."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from pudistill.distillation.first_result import announce_first_result
from pudistill.distillation.noise_model import NoiseModel
from pudistill.distillation.problem import Problem
from pudistill.distillation.student import (
    StudentCalibration,
    StudentFit,
    TransitionEstimator,
    posterior_labels,
)
from pudistill.distillation.views import (
    View,
    deal,
    held_out_proba,
    held_out_truth,
    held_out_weight,
)
from pudistill.labels.checks import MISSING
from pudistill.learners.capabilities import continues_training
from pudistill.learners.tasks import Training, train, train_all
from pudistill.utils.arrays import rowwise, take_rows
from pudistill.utils.progress import stage


def learn_by_likelihood(
    problem: Problem,
    views: list[View],
    guesses: list[np.ndarray],
    transition: TransitionEstimator,
    trained: list[Any],
) -> StudentFit:
    """Train a network on the likelihood of the given labels, without rounds.

    Parameters
    ----------
    problem : Problem
        The data and settings.
    views : list of View
        First that of all verified samples, then those that hold samples out.
    guesses : list of ndarray of shape (n_samples, n_classes)
        The first guess of each view.
    transition : TransitionEstimator
        Estimates the transition matrix of each view.
    trained : list of fitted network or None
        ``trained[i]`` is the network from whose weights the training of ``views[i]`` continues, or
        None to start from new weights. It has read no given label, and nothing that its view holds
        out.

    Returns
    -------
    fit : StudentFit
        The network, and its predictions of all samples in each view.
    """
    whole, truth = views[0], held_out_truth(views, problem.n_classes)
    # 1. Estimate the transition matrix of each view under the first guess.
    noise = transition.estimate_all(views, guesses)
    # 2. Predict all samples by networks that have not read their given labels. The network of a
    # view that holds samples out is used only for samples whose labels it has not read.
    networks = []
    if problem.earlier is None:
        networks = _networks_to_predict(problem, views, noise, trained)
    with stage("student", len(networks) + 1) as advance:
        predictions = []
        for network in train_all((task for _, task in networks), problem.n_jobs):
            predictions.append(problem.predict_proba(network))
            advance(1)
        if problem.earlier is not None:
            raw = problem.earlier.predictions(guesses)
        else:
            raw = _predictions_of_views(views, [view for view, _ in networks], predictions)
        # 3. Calibrate on held-out samples, and mix with the first guess.
        held_out = held_out_proba(raw, views)
        calibration = StudentCalibration()
        if len(truth):
            weight = held_out_weight(problem.labels.drawn_weight(), views)
            guess = held_out_proba(guesses, views)
            calibration = StudentCalibration.fit(held_out, guess, truth, weight)
        probas = [calibration.mix(p, q) for p, q in zip(raw, guesses, strict=True)]
        announce_first_result(problem, views, transition, probas)
        # 4. Train the final network with the transition matrix under these predictions.
        noise = transition.estimate_all(views, probas, noise)
        start = trained[0]
        if problem.earlier is not None and continues_training(problem.earlier.model):
            start = problem.earlier.model
        student = train(_training(problem, whole, noise[0], "noise_aware", start))
        advance(1)
    return StudentFit(
        student=student,
        probas=probas,
        targets=posterior_labels(probas[0], noise[0], whole),
        noise=noise,
        calibration=calibration,
        n_rounds=1,
        held_out=held_out,
    )


def _networks_to_predict(
    problem: Problem, views: list[View], noise: list[NoiseModel], trained: list[Any]
) -> list[tuple[View, Training]]:
    """Return, for each network that predicts, the labels it reads and its training.

    First come the networks that each hide the given labels of one part of the samples. With at most
    one view that holds samples out, the parts are two halves, and the network of that view follows.
    With several, each view's own network hides the part dealt to it.
    """
    whole, others = views[0], list(zip(views[1:], noise[1:], trained[1:], strict=True))
    if len(views) > 2:
        networks = [
            (whole.holding_out(view.unlearned, None), T, "noise_aware", start)
            for view, T, start in others
        ]
    else:
        half = deal(whole, 2, problem.seed)
        hidden = [np.flatnonzero((half == n) & (whole.verified == MISSING)) for n in range(2)]
        networks = [
            (whole.holding_out(rows, None), noise[0], "cross_fit", trained[0]) for rows in hidden
        ]
        networks += [(view, T, "noise_aware", start) for view, T, start in others]
    return [(network[0], _training(problem, *network)) for network in networks]


def _predictions_of_views(
    views: list[View], read: list[View], predictions: list[np.ndarray]
) -> list[np.ndarray]:
    """Return for each view the predictions of all samples.

    In the view of all verified samples, each is predicted by the network that hid its given label.
    """
    n_parts = len(views) - 1 if len(views) > 2 else 2
    part = np.zeros(len(views[0].given), dtype=int)
    for number, view in enumerate(read[:n_parts]):
        part[view.held_out] = number
    blind = rowwise(lambda n, *p: np.stack(p)[n, np.arange(len(n))], part, *predictions[:n_parts])
    return [blind, *predictions[len(predictions) - len(views) + 1 :]]


def _training(
    problem: Problem, view: View, noise: NoiseModel, role: str, start: Any = None
) -> Training:
    """Describe the training of a network, which goes on from the weights of `start`, if any."""
    weights = problem.labels.sample_weight
    task = likelihood_training(problem.student, problem.X, view, noise, problem.seed, weights)
    if start is None:
        return replace(task, role=role)
    role = "continued_cross_fit" if role == "cross_fit" else "continued"
    return replace(task, role=role, estimator=copy.deepcopy(start), continued=True)


def likelihood_training(
    estimator: Any,
    X: Any,
    view: View,
    noise: NoiseModel,
    seed: int,
    sample_weight: np.ndarray | None = None,
) -> Training:
    """Describe the training of a network on the likelihood of each label given the true class.

    Parameters
    ----------
    estimator : classifier
        A network, like `TorchClassifier`.
    X : samples of shape (n_samples, ...)
        Samples.
    view : View
        Their labels. The likelihood is the same for all classes where the view holds a sample out;
        with groups, nothing is learned from the groups of such samples.
    noise : NoiseModel
        How given labels come from true classes.
    seed : int
        Decides the training.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights of the samples.

    Returns
    -------
    training : Training
        The task for `train`.
    """
    known = noise.likelihood(view.given, view.verified)
    known[view.held_out] = 1.0
    rows = None
    if view.unseen is not None:
        rows = np.setdiff1d(np.arange(len(known)), view.unseen)
        known = take_rows(known, rows)
        sample_weight = None if sample_weight is None else sample_weight[rows]
    return Training(
        estimator,
        X,
        known,
        role="noise_aware",
        seed=seed,
        sample_weight=sample_weight,
        rows=rows,
        params={"loss": "likelihood", "mixup": 0.0},
    )


def train_semi_supervised(
    trusted_only: Any,
    X: Any,
    view: View,
    n_classes: int,
    seed: int,
    sample_weight: np.ndarray | None = None,
) -> Any:
    """Train a network on the trusted pictures of a view, and on all others without a label.

    Parameters
    ----------
    trusted_only : fitted estimator
        A network of the trusted pictures, from whose weights the training goes on.
    X, seed, sample_weight
        As for `likelihood_training`.
    view : View
        The verified labels; it shows no given label.
    n_classes : int
        Number of classes.

    Returns
    -------
    network : fitted estimator
        The network.
    """
    noise = NoiseModel(np.eye(n_classes))  # of no given label
    network = copy.deepcopy(trusted_only)
    task = likelihood_training(network, X, view, noise, seed, sample_weight)
    return train(replace(task, role="semi_supervised", continued=True))
