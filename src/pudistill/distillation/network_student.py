"""A network as the student, trained on the likelihood of the given labels."""

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
from pudistill.learners.tasks import Training, train, train_all
from pudistill.utils.arrays import rowwise, take_rows
from pudistill.utils.progress import stage


def learn_by_likelihood(
    problem: Problem,
    views: list[View],
    guesses: list[np.ndarray],
    transition: TransitionEstimator,
) -> StudentFit:
    """Train a network on the likelihood of the given labels, without rounds."""
    whole, truth = views[0], held_out_truth(views, problem.n_classes)

    def training(view: View, noise: NoiseModel, role: str = "noise_aware") -> Training:
        weights = problem.labels.sample_weight
        task = likelihood_training(problem.student, problem.X, view, noise, problem.seed, weights)
        return replace(task, role=role)

    # 1. Estimate the transition matrix of each view under the first guess.
    noise = transition.estimate_all(views, guesses)
    # 2. Train networks that do not read the given labels of one part of the noisy samples each: two
    # halves, and a network for the view that holds samples out; or, with several such views, the
    # parts that were dealt to them.
    if len(views) > 2:
        hidden = [view.unlearned for view in views[1:]]
        networks = [
            (whole.holding_out(rows, None), T, "noise_aware")
            for rows, T in zip(hidden, noise[1:], strict=True)
        ]
    else:
        half = deal(whole, 2, problem.seed)
        hidden = [np.flatnonzero((half == n) & (whole.verified == MISSING)) for n in range(2)]
        networks = [(whole.holding_out(rows, None), noise[0], "cross_fit") for rows in hidden]
        networks += [(view, T, "noise_aware") for view, T in zip(views[1:], noise[1:], strict=True)]
    part = np.zeros(len(whole.given), dtype=int)
    for number, rows in enumerate(hidden):
        part[rows] = number
    with stage("student", len(networks) + 1) as advance:
        predictions = []
        tasks = (training(*network) for network in networks)
        for network in train_all(tasks, problem.n_jobs):
            predictions.append(problem.predict_proba(network))
            advance(1)
        # 3. Predict each sample by the network that has not read its given label.
        blind = rowwise(
            lambda n, *p: np.stack(p)[n, np.arange(len(n))], part, *predictions[: len(hidden)]
        )
        # 4. Calibrate on held-out samples, and mix with the first guess.
        raw = [blind, *predictions[len(networks) - len(views) + 1 :]]
        held_out = held_out_proba(raw, views)
        calibration = StudentCalibration()
        if len(truth):
            weight = held_out_weight(problem.labels.drawn_weight(), views)
            guess = held_out_proba(guesses, views)
            calibration = StudentCalibration.fit(held_out, guess, truth, weight)
        probas = [calibration.mix(p, q) for p, q in zip(raw, guesses, strict=True)]
        announce_first_result(problem, views, transition, probas)
        # 5. Train the final network with the transition matrix under these predictions.
        noise = transition.estimate_all(views, probas, noise)
        student = train(training(whole, noise[0]))
        advance(1)
    return StudentFit(
        student=student,
        probas=probas,
        targets=posterior_labels(probas[0], noise[0], whole),
        noise=noise,
        calibration=calibration,
        n_rounds=1,
        held_out=calibration.temperature.apply(held_out),
    )


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
    estimator: Any,
    X: Any,
    view: View,
    n_classes: int,
    seed: int,
    sample_weight: np.ndarray | None = None,
) -> Any:
    """Train a network on the trusted pictures of a view, and on all others without a label.

    Parameters
    ----------
    estimator, X, seed, sample_weight
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
    task = likelihood_training(estimator, X, view, noise, seed, sample_weight)
    return train(replace(task, role="semi_supervised"))
