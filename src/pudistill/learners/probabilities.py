"""Probabilities of classifiers that have only a ``decision_function``."""

from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline

from pudistill.learners.capabilities import needs_calibration

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
        `learner`, wrapped to have ``predict_proba`` if it has none.
    """
    if isinstance(learner, Pipeline):
        name, final = learner.steps[-1]
        final = with_probabilities(final, rows, labels, seed)
        return Pipeline([*learner.steps[:-1], (name, final)], memory=learner.memory)
    if not needs_calibration(learner):
        return learner
    samples = np.unique(rows)
    positions = np.empty(rows.max() + 1, dtype=int)
    positions[samples] = np.arange(len(samples))
    # All copies of a sample are in one fold: no learner is calibrated on samples that it has seen.
    splits = [
        tuple(np.flatnonzero(np.isin(positions[rows], part)) for part in parts)
        for parts in calibration_folds(labels[samples], seed)
    ]
    return CalibratedClassifierCV(learner, cv=splits, ensemble=False)


def calibration_folds(labels: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return training and test samples of the folds that a learner is calibrated on.

    The only sample of a class is in the training samples of all folds, because a learner scores
    the classes that it has seen; in its test fold it counts as if it had been held out.
    """
    counts = np.bincount(labels)
    if counts.max() < 2:
        return [(np.arange(len(labels)), np.arange(len(labels)))]
    alone = np.flatnonzero(counts[labels] == 1)
    n_folds = min(CALIBRATION_FOLDS, counts[counts > 1].min())
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    others = np.flatnonzero(counts[labels] > 1)
    return [
        (np.union1d(others[seen], alone), np.union1d(others[held_out], alone[: 0 if n else None]))
        for n, (seen, held_out) in enumerate(folds.split(others, labels[others]))
    ]
