"""Probabilities of classifiers that have only a ``decision_function``."""

from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline

from pudistill.exceptions import InputError
from pudistill.labels.checks import MISSING, Labels
from pudistill.labels.model_selection import deal_folds
from pudistill.learners.capabilities import needs_calibration, resamples
from pudistill.utils.shown import shown

CALIBRATION_FOLDS = 3


def check_can_be_calibrated(learner: Any, labels: Labels) -> None:
    """Refuse a class with one trusted sample if a learner's scores must be calibrated."""
    sizes = np.bincount(labels.verified[labels.trusted], minlength=labels.n_classes)
    if sizes.any() and sizes.min() < 2 and needs_calibration(learner):
        raise InputError(
            f"Class {shown(labels.classes[sizes.argmin()])} has one trusted sample, too few to "
            f"turn the scores of {type(learner).__name__} into probabilities: verify one more, or "
            "use a learner with predict_proba."
        )


def with_probabilities(
    learner: Any,
    rows: np.ndarray,
    labels: np.ndarray,
    seed: int,
    groups: np.ndarray | None = None,
) -> Any:
    """Calibrate a classifier that has only a ``decision_function`` by cross-validation.

    Parameters
    ----------
    learner : estimator
        Any classifier, not fitted.
    rows : ndarray of shape (n_copies,), int
        For each row of the learner's training set, the sample that it is a copy of.
    labels : ndarray of shape (n_samples,), int
        The most probable class of each sample.
    seed : int
        Decides the folds.
    groups : ndarray of shape (n_samples,), int, default=None
        Codes of groups, which no fold splits.

    Returns
    -------
    learner : estimator
        `learner`, or its last step, wrapped to have ``predict_proba`` if it has none.
    """
    if not needs_calibration(learner):
        return learner
    # The pipeline itself stays: it can be of any subclass. One that resamples is calibrated as a
    # whole, because the samples that its last step learns from are not those of the folds.
    if isinstance(learner, Pipeline) and not resamples(learner):
        name, final = learner.steps[-1]
        final = with_probabilities(final, rows, labels, seed, groups)
        return learner.set_params(**{name: final})
    samples = np.unique(rows)
    positions = np.empty(rows.max() + 1, dtype=int)
    positions[samples] = np.arange(len(samples))
    # All copies of a sample are in one fold: no learner is calibrated on samples that it has seen.
    of_samples = None if groups is None else groups[samples]
    splits = [
        tuple(np.flatnonzero(np.isin(positions[rows], part)) for part in parts)
        for parts in calibration_folds(labels[samples], seed, of_samples)
    ]
    return CalibratedClassifierCV(learner, cv=splits, ensemble=False)


def calibration_folds(
    labels: np.ndarray, seed: int, groups: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return training and test samples of the folds that a learner is calibrated on.

    Samples whose group no fold can do without, see `deal_folds`, are dealt one by one.

    The only sample of a class is in the training samples of all folds, because a learner scores
    the classes that it has seen; in its test fold it counts as if it had been held out.
    """
    counts = np.bincount(labels)
    if counts.max() < 2:
        return [(np.arange(len(labels)), np.arange(len(labels)))]
    alone, others = counts[labels] == 1, np.flatnonzero(counts[labels] > 1)
    n_folds = min(CALIBRATION_FOLDS, counts[counts > 1].min())
    splits = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    folds = np.full(len(labels), MISSING)
    for fold, (_, test) in enumerate(splits.split(others, labels[others])):
        folds[others[test]] = fold
    if groups is not None:
        grouped = deal_folds(labels, n_folds, seed, groups)
        grouped = np.where(alone | (grouped == MISSING), folds, grouped)
        outside = [labels[grouped != fold] for fold in range(grouped.max() + 1)]
        # A learner must see all classes, even if groups are then split.
        if all(set(labels) == set(seen) for seen in outside):
            folds = grouped
    return [
        (np.flatnonzero(folds != n), np.flatnonzero((folds == n) | (alone & (n == 0))))
        for n in range(folds.max() + 1)
    ]
