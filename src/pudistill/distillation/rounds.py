"""A student trained in rounds of posterior labels and cross-fitted predictions."""

from typing import NamedTuple

import numpy as np
from joblib import delayed

from pudistill.distillation.problem import Problem
from pudistill.distillation.student import (
    StudentCalibration,
    StudentFit,
    TransitionEstimator,
    posterior_labels,
)
from pudistill.distillation.views import View, held_out_proba, held_out_truth
from pudistill.labels.checks import MISSING
from pudistill.labels.pseudo_labels import one_hot
from pudistill.learners.calibration import Temperature, log_likelihood
from pudistill.learners.cross_fitting import cross_fit_proba
from pudistill.learners.parallel import rows_in_order
from pudistill.learners.tasks import Training, train_all
from pudistill.utils.arrays import rowwise, take_rows
from pudistill.utils.progress import stage

MAX_ROUNDS = 6


# Rounds end when the posteriors of noisy samples move by less than this, in total variation.
SETTLED = 0.01


# A class whose posterior is below this share of the likeliest class's is left out: it would cost a
# weighted copy of the sample in every fit, and says next to nothing.
NEGLIGIBLE = 0.1


# Largest number of samples for each number of folds in cross-fitting: the fewer samples there are,
# the more a model misses those that are left out.
FOLDS_BY_SIZE = ((5_000, 5), (20_000, 3), (np.inf, 2))


# Folds in views that hold samples out: these only judge the method.
HELD_OUT_FOLDS = 2


class Round(NamedTuple):
    """Results of one round of `learn_in_rounds`.

    Attributes
    ----------
    targets : list of ndarray of shape (n_samples, n_classes), float32
        Posterior labels that its students were trained on, for each view.
    proba : ndarray of shape (n_samples, n_classes)
        Predictions of its students, mixed with the first guess.
    calibration : StudentCalibration
        Calibration of its students.
    held_out : ndarray of shape (n_held_out, n_classes)
        Calibrated predictions of its students alone for the held-out samples.
    """

    targets: list[np.ndarray]
    proba: np.ndarray
    calibration: StudentCalibration
    held_out: np.ndarray


def learn_in_rounds(
    problem: Problem,
    views: list[View],
    guesses: list[np.ndarray],
    transition: TransitionEstimator,
) -> StudentFit:
    """Train a student by expectation-maximisation, with any learner.

    All views go through the rounds together. Their held-out samples calibrate each round's
    predictions, and decide which round's posterior labels the final students are trained on.
    """
    whole, truth = views[0], held_out_truth(views, problem.n_classes)
    # 1. Rounds of posterior labels and cross-fitted predictions.
    rounds, T = _run_rounds(problem, views, guesses, transition)
    # 2. Take the last round that is as good as the best one.
    n_rounds = best_round([done.held_out for done in rounds], truth)
    best = rounds[n_rounds - 1]
    T = transition.estimate(whole, best.proba, T)
    # 3. Train a student of each view on all that round's labels, not cross-fitted.
    tasks = (
        _student_training(problem, view, rowwise(lambda block: block.astype(float), targets))
        for view, targets in zip(views, best.targets, strict=True)
    )
    students = list(train_all(tasks, problem.n_jobs))
    # 4. Calibrate again: a learner may give other probabilities than its cross-fitted copies.
    parts = [best.held_out[:0]]
    for student, view in zip(students[1:], views[1:], strict=True):
        parts.append(problem.predict_proba(student, view.held_out))
    held_out, calibration = np.concatenate(parts), best.calibration
    if len(truth):
        calibration = StudentCalibration.fit(held_out, held_out_proba(guesses, views), truth)
    return StudentFit(
        student=students[0],
        proba=best.proba,
        targets=posterior_labels(best.proba, T, whole),
        transition_matrix=T,
        calibration=calibration,
        n_rounds=n_rounds,
        held_out=calibration.temperature.apply(held_out),
    )


def _run_rounds(
    problem: Problem,
    views: list[View],
    guesses: list[np.ndarray],
    transition: TransitionEstimator,
) -> tuple[list[Round], np.ndarray]:
    """Run rounds until the posterior labels settle; return them and the last `T`."""
    whole, truth = views[0], held_out_truth(views, problem.n_classes)
    guess = held_out_proba(guesses, views)
    folds = [folds_for(len(whole.given)), *[HELD_OUT_FOLDS] * (len(views) - 1)]
    T: np.ndarray | None = None
    probas, targets = guesses, [np.zeros(0)] * len(views)
    rounds: list[Round] = []
    with stage("student", MAX_ROUNDS) as advance:
        for n in range(1, MAX_ROUNDS + 1):
            # a. Estimate the transition matrix under the current predictions.
            T = transition.estimate(whole, probas[0], T)
            # b. Combine predictions and given labels, and stop where that changes little.
            previous = targets
            targets = [
                posterior_labels(proba, T, view, _without_negligible)
                for view, proba in zip(views, probas, strict=True)
            ]
            if rounds and _distance(targets[0], previous[0], whole) < SETTLED:
                break
            # c. Train students on these labels; each predicts samples that it was not trained on.
            raw = _cross_fit(problem, targets, folds)
            # d. Calibrate them on held-out samples, or else on all trusted ones.
            if len(truth):
                raw_held_out = held_out_proba(raw, views)
                calibration = StudentCalibration.fit(raw_held_out, guess, truth)
            else:
                known = one_hot(whole.verified[whole.trusted], problem.n_classes)
                calibration = StudentCalibration(Temperature.fit(raw[0][whole.trusted], known))
            # e. Mix them with the first guess: the predictions of the next round.
            probas = [calibration.mix(p, q) for p, q in zip(raw, guesses, strict=True)]
            held_out = calibration.temperature.apply(held_out_proba(raw, views))
            compact = [rowwise(lambda block: block.astype(np.float32), y) for y in targets]
            rounds.append(Round(compact, probas[0], calibration, held_out))
            advance(1, detail=f"round {n}")
        advance(to=MAX_ROUNDS)
    assert T is not None  # there is at least one round
    return rounds, T


def _student_training(problem: Problem, view: View, targets: np.ndarray) -> Training:
    """Describe the training of a view's student, without the samples that it is judged on."""
    rows = None
    if len(view.held_out):
        rows = np.setdiff1d(np.arange(len(targets)), view.held_out)
        targets = take_rows(targets, rows)
    return Training(
        problem.student, problem.X, targets, rows=rows, role="student", seed=problem.seed
    )


def _cross_fit(problem: Problem, targets: list[np.ndarray], folds: list[int]) -> list[np.ndarray]:
    """Cross-fit all views in parallel; a single view's folds in parallel."""
    outer, inner = (1, problem.n_jobs) if len(targets) == 1 else (problem.n_jobs, 1)
    tasks = [
        delayed(cross_fit_proba)(
            problem.student, problem.X, y, n_folds=n_folds, n_jobs=inner, seed=problem.seed
        )
        for y, n_folds in zip(targets, folds, strict=True)
    ]
    return list(rows_in_order(tasks, outer, targets[0].shape))


def folds_for(n_samples: int) -> int:
    """Choose the number of folds for cross-fitted predictions."""
    return next(folds for size, folds in FOLDS_BY_SIZE if n_samples <= size)


def _without_negligible(targets: np.ndarray) -> np.ndarray:
    """Set negligible classes to 0; rows sum to 1 again."""
    relevant = targets >= NEGLIGIBLE * targets.max(axis=1, keepdims=True)
    targets = np.where(relevant, targets, 0.0)
    return targets / targets.sum(axis=1, keepdims=True)


def _distance(targets: np.ndarray, previous: np.ndarray, view: View) -> float:
    """Mean total variation over the samples that are not trusted."""
    rows = view.verified == MISSING
    moved = rowwise(lambda new, old: np.abs(new - old).sum(axis=1), targets, previous)
    return float(moved[rows].mean() / 2) if rows.any() else 0


def best_round(held_out: list[np.ndarray], truth: np.ndarray) -> int:
    """Choose the last round that is as good as the best, within the error of the comparison.

    Where noise depends on more than the class, later rounds may explain wrong labels by wrong
    classes.

    Parameters
    ----------
    held_out : list of ndarray of shape (n_held_out, n_classes)
        Each round's predictions for held-out samples.
    truth : ndarray of shape (n_held_out, n_classes)
        Their verified labels, one-hot.

    Returns
    -------
    n_rounds : int
        From 1. A round is worse than another if its log-likelihood is lower by more than one
        standard error of the difference.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.distillation.rounds import best_round
    >>> truth = np.eye(2)[np.arange(100) % 2]
    >>> best_round([0.8 * truth + 0.1, 0.6 * truth + 0.2], truth)
    1
    """
    if len(truth) == 0:
        return len(held_out)
    scores = np.array([log_likelihood(proba, truth) for proba in held_out])
    loss = scores[scores.mean(axis=1).argmax()] - scores
    as_good = loss.mean(axis=1) <= loss.std(axis=1) / np.sqrt(len(truth))
    return int(np.flatnonzero(as_good)[-1]) + 1
