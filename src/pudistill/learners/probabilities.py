"""Probabilities of classifiers that have only a ``decision_function``."""

from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline

from pudistill.exceptions import InputError
from pudistill.labels.checks import MISSING
from pudistill.labels.model_selection import deal_folds
from pudistill.learners.capabilities import needs_calibration, resamples

CALIBRATION_FOLDS = 3


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
    of_samples = None if groups is None else groups[samples]
    folds = calibration_folds(learner, labels[samples], seed, of_samples)
    # All copies of a sample are in one fold: no learner is calibrated on samples that it has seen.
    held_out = np.empty(rows.max() + 1, dtype=int)
    held_out[samples] = folds
    splits = [
        (np.flatnonzero(held_out[rows] != fold), np.flatnonzero(held_out[rows] == fold))
        for fold in range(folds.max() + 1)
    ]
    return CalibratedClassifierCV(learner, cv=splits, ensemble=False)


def calibration_folds(
    learner: Any, labels: np.ndarray, seed: int, groups: np.ndarray | None = None
) -> np.ndarray:
    """Return the fold of each sample, for the held-out decisions that a learner is calibrated on.

    Samples whose group no fold can do without, see `deal_folds`, are dealt one by one.

    Raises
    ------
    InputError
        If a class has only one sample.
    """
    counts = np.bincount(labels)
    fewest = counts[counts > 0].min()
    if fewest < 2:
        raise InputError(
            f"{type(learner).__name__} gives no probabilities, and a class has only one sample, "
            "too few to calibrate on: verify one more of it, or use a learner with predict_proba."
        )
    splits = StratifiedKFold(min(CALIBRATION_FOLDS, fewest), shuffle=True, random_state=seed)
    folds = np.empty(len(labels), dtype=int)
    for fold, (_, test) in enumerate(splits.split(labels, labels)):
        folds[test] = fold
    if groups is None:
        return folds
    grouped = deal_folds(labels, splits.n_splits, seed, groups)
    grouped = np.where(grouped == MISSING, folds, grouped)
    outside = [labels[grouped != fold] for fold in range(grouped.max() + 1)]
    # A learner must see all classes, even if groups are then split.
    return grouped if all(set(labels) == set(seen) for seen in outside) else folds
