"""Probabilities of classifiers that have only a ``decision_function``."""

from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline

from pudistill.exceptions import InputError
from pudistill.learners.capabilities import needs_calibration, resamples

CALIBRATION_FOLDS = 3


def with_probabilities(learner: Any, rows: np.ndarray, labels: np.ndarray, seed: int) -> Any:
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
        return learner.set_params(**{name: with_probabilities(final, rows, labels, seed)})
    samples = np.unique(rows)
    folds = calibration_folds(learner, labels[samples], seed)
    # All copies of a sample are in one fold: no learner is calibrated on samples that it has seen.
    held_out = np.empty(rows.max() + 1, dtype=int)
    for fold, (_, test) in enumerate(folds.split(samples, labels[samples])):
        held_out[samples[test]] = fold
    splits = [
        (np.flatnonzero(held_out[rows] != fold), np.flatnonzero(held_out[rows] == fold))
        for fold in range(folds.n_splits)
    ]
    return CalibratedClassifierCV(learner, cv=splits, ensemble=False)


def calibration_folds(learner: Any, labels: np.ndarray, seed: int) -> StratifiedKFold:
    """Return the folds for the held-out decisions that a learner is calibrated on.

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
    return StratifiedKFold(min(CALIBRATION_FOLDS, fewest), shuffle=True, random_state=seed)
