"""The first guess where trusted samples are very few: it leans on the given labels.

A model of one or two trusted samples a class is weak, and next to nothing can be held out that
would show it. A model of the *given* labels has learned from all other samples, and a few trusted
samples suffice to tell what it calls their classes: each predicts a row of the transition matrix,
as in Gold Loss Correction (Hendrycks et al. 2018).
"""

import numpy as np

from pudistill.distillation.clusters import standard_error
from pudistill.distillation.problem import Problem
from pudistill.distillation.rounds import folds_for
from pudistill.distillation.transition import fit_transition_matrix, smoothed
from pudistill.distillation.views import View
from pudistill.labels.checks import Labels
from pudistill.labels.pseudo_labels import one_hot
from pudistill.learners.calibration import Temperature, log_likelihood
from pudistill.learners.cross_fitting import cross_fit_proba

# Trusted samples a class, on average, below which these are very few, and below which the first
# guess can be weak.
ENOUGH, STRONG = 3, 10

# Samples a class that count as labelled right before any is seen: labels are more often right. The
# second value holds where fewer than so many votes of trusted samples say that they are not: if a
# model of the given labels is right about three of four samples, three votes are 27 times likelier.
BELIEF, FIRM_BELIEF, ENOUGH_VOTES = 0.5, 5.0, 3


def are_very_few(labels: Labels) -> bool:
    """Return whether there are fewer than three trusted samples a class, on average."""
    return int(labels.trusted.sum()) < ENOUGH * labels.n_classes


def are_few(labels: Labels) -> bool:
    """Return whether there are fewer than ten trusted samples a class, on average."""
    return int(labels.trusted.sum()) < STRONG * labels.n_classes


def warning_of_few(labels: Labels) -> str:
    """Return the sentences that tell the user that trusted samples are very few."""
    sizes = np.bincount(labels.verified[labels.trusted], minlength=labels.n_classes)
    missing = int(np.maximum(ENOUGH - sizes, 0).sum())
    return (
        f"Only {sizes.sum()} samples of {labels.n_classes} classes are trusted, too few to learn "
        "from or to measure the accuracy with: the result leans on the given labels. Verify "
        f"{missing} more, so that each class has at least {ENOUGH}."
    )


def lean_on_given_labels(
    problem: Problem, views: list[View], guesses: list[np.ndarray]
) -> list[np.ndarray]:
    """Mix the first guess of each view with what the given labels say of each sample.

    The first guess stays as it is where it explains the given labels as well as the mixture does:
    then it is no weak model, and the given labels could only lead it astray.

    Parameters
    ----------
    problem : Problem
        Samples, labels and learner.
    views : list of View
        All labels; then the same labels with some trusted samples held out.
    guesses : list of ndarray of shape (n_samples, n_classes)
        The first guess for each view.

    Returns
    -------
    guesses : list of ndarray of shape (n_samples, n_classes)
        Mixtures in equal parts, or the first guesses; or, if only a weak guess holds that classes
        are swapped, what the given labels say.
    """
    labelled = views[0].labelled
    if not views[0].has_several_labels:
        return guesses
    said = given_label_proba(problem, views[0])
    corrected = [_corrected(said, view, BELIEF) for view in views]
    # Equal weights: held-out samples are few, and only of the classes with several trusted samples.
    mixed = [(p + q) / 2 for p, q in zip(guesses, corrected, strict=True)]
    given = views[0].given[labelled]
    T, explained = _explained(guesses[0][labelled], given)
    T_of_mixed, explained_by_mixed = _explained(mixed[0][labelled], given)
    chosen = guesses
    if (explained_by_mixed - explained).mean() > 0:
        chosen, T = mixed, T_of_mixed
    # A guess that says little about the given labels can have two classes the wrong way round.
    labels = one_hot(given, problem.n_classes)
    calibrated = Temperature.fit(said[labelled], labels).apply(said[labelled])
    known = log_likelihood(calibrated, labels) - explained
    is_weak = known.mean() > 2 * standard_error(known, None)
    if is_weak and _votes_for_swaps(T, said, views[0]) < ENOUGH_VOTES:
        return [_corrected(said, view, FIRM_BELIEF) for view in views]
    return chosen


def _votes_for_swaps(T: np.ndarray, said: np.ndarray, view: View) -> float:
    """Count the trusted samples that speak for swapped classes, less those that speak against.

    Classes are swapped where a true class has another given label more often than its own. A
    trusted sample speaks for it if its class is the likeliest under `T`, but not as its given label
    would say.

    Returns
    -------
    votes : float
        Infinite if `T` swaps no classes.
    """
    if (T.argmax(axis=1) == np.arange(len(T))).all():
        return np.inf
    codes, said = view.verified[view.trusted], said[view.trusted]
    for_swaps = (said @ np.log(T + 1e-6).T).argmax(axis=1) == codes
    against = said.argmax(axis=1) == codes
    return float(for_swaps.sum() - against.sum())


def _explained(guess: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `T` under a guess of the true classes, and the log-likelihood of each given label."""
    T = fit_transition_matrix(guess, given)
    return T, log_likelihood(guess @ T, one_hot(given, len(T)))


def given_label_proba(problem: Problem, view: View) -> np.ndarray:
    """Predict the given label of each sample, without having seen it or any verified label."""
    return cross_fit_proba(
        problem.student,
        problem.X,
        one_hot(np.maximum(view.given, 0), problem.n_classes),
        n_folds=folds_for(len(view.labelled), problem.n_classes),
        n_jobs=problem.n_jobs,
        seed=problem.seed,
        groups=view.groups,
        unseen=np.setdiff1d(np.arange(len(view.given)), view.labelled),
        sample_weight=problem.labels.sample_weight,
    )


def measured_matrix(said: np.ndarray, view: View, belief: float = BELIEF) -> np.ndarray:
    """Measure `T` by what a model of the given labels calls the trusted samples of each class."""
    counts = belief * np.eye(said.shape[1])
    np.add.at(counts, view.verified[view.trusted], said[view.trusted])
    return smoothed(counts)


def _corrected(said: np.ndarray, view: View, belief: float) -> np.ndarray:
    """Turn probabilities of given labels into those of true classes, by the trusted samples."""
    T = measured_matrix(said, view, belief)
    return said @ (T / T.sum(axis=0)).T
