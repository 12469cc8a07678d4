"""Predictions of samples by learners that have not seen their labels, calibrated."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.preprocessing import StandardScaler

from pudistill.labels.model_selection import deal_folds
from pudistill.learners.capabilities import check_gives_scores
from pudistill.learners.probabilities import calibration_folds
from pudistill.learners.scoring import predict_proba, take
from pudistill.learners.soft_targets import weighted_copies
from pudistill.learners.tasks import Training, train_all, unfitted_learner
from pudistill.utils import arrays


@dataclass(frozen=True)
class SharedSigmoid:
    """A binary classifier whose decisions a sigmoid turns into probabilities."""

    member: Any
    sigmoid: LogisticRegression

    @property
    def classes_(self) -> np.ndarray:
        """Classes of the member."""
        return self.member.classes_

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict probabilities of shape (n_samples, 2)."""
        return self.sigmoid.predict_proba(self.member.decision_function(X)[:, None])


def calibrate_together(members: list, tasks: Iterable[Training]) -> list:
    """Give members that have only a ``decision_function`` one sigmoid (Platt, 1999).

    It is fitted on held-out decisions of copies trained on a few of the members' own training
    sets: much cheaper than calibrating each member, and with more samples to fit it on.

    Parameters
    ----------
    members : list of fitted estimators
        Binary classifiers, trained alike.
    tasks : iterable of Training
        Trainings of some of them.

    Returns
    -------
    members : list of fitted estimators
        With ``predict_proba``.
    """
    if hasattr(members[0], "predict_proba"):
        return members
    check_gives_scores(members[0], "decision_function")
    decisions, labels = [], []
    for task in tasks:
        y = task.targets.argmax(axis=1)
        folds = calibration_folds(members[0], y, task.seed)
        decisions.append(
            cross_val_predict(
                unfitted_learner(task), task.samples, y, cv=folds, method="decision_function"
            )
        )
        labels.append(y)
    y = np.concatenate(labels)
    # Platt's targets: as if one more sample of each kind had been seen.
    counts = np.bincount(y)
    positive = np.where(y == 1, (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2))
    rows, codes, weights = weighted_copies(np.column_stack([1 - positive, positive]))
    decision = np.concatenate(decisions)[:, None]
    sigmoid = LogisticRegression(C=np.inf).fit(decision[rows], codes, sample_weight=weights)
    return [SharedSigmoid(member, sigmoid) for member in members]


def cross_fit_proba(
    estimator: Any,
    X: Any,
    targets: np.ndarray,
    *,
    n_folds: int,
    n_jobs: int | None = None,
    seed: int,
) -> np.ndarray:
    """Predict each sample by a learner that has not seen its target.

    Parameters
    ----------
    estimator : classifier
        A template. A learner with only a ``decision_function`` is calibrated once, on the held-out
        decisions for all samples, instead of once per fold.
    X : array-like, sparse matrix or data frame of shape (n_samples, ...)
        Samples.
    targets : ndarray of shape (n_samples, n_classes)
        Rows that sum to 1.
    n_folds : int
        Number of folds, which have equal shares of each class.
    n_jobs : int, default=None
        Learners trained at the same time.
    seed : int
        Decides the folds and the training.

    Returns
    -------
    proba : ndarray of shape (n_samples, n_classes)
        Probabilities. A sample of a class with two samples at most is in no fold, as training
        cannot do without it: its probabilities are the same for all classes.
    """
    # 1. Train a learner without each fold, and let it score the samples of the fold.
    n_classes = targets.shape[1]
    folds = deal_folds(targets.argmax(axis=1), n_folds, seed)
    fold_rows = [np.flatnonzero(folds == fold) for fold in range(folds.max(initial=-1) + 1)]
    tasks = (
        Training(estimator, X, arrays.take_rows(targets, seen), rows=seen, role="member", seed=seed)
        for seen in (np.flatnonzero(folds != fold) for fold in range(len(fold_rows)))
    )
    proba = arrays.empty(targets.shape)
    proba[:] = 1 / n_classes
    decision = None
    for learner, held_out in zip(train_all(tasks, n_jobs), fold_rows, strict=True):
        if hasattr(learner, "predict_proba"):
            proba[held_out] = predict_proba(learner, X, n_classes, held_out)
        else:
            check_gives_scores(learner, "decision_function")
            decision = np.zeros(targets.shape) if decision is None else decision
            decision[held_out] = _decisions(learner, X, held_out, n_classes)
    # 2. Calibrate decisions, those of all folds together.
    if decision is not None:
        in_a_fold = folds != -1
        proba[in_a_fold] = _fit_sigmoid(decision[in_a_fold], targets[in_a_fold])
    return proba


def _decisions(learner: Any, X: Any, rows: np.ndarray, n_classes: int) -> np.ndarray:
    """Score classes; one that the learner never saw scores as low as the lowest."""
    found = learner.decision_function(take(X, rows))
    if found.ndim == 1:  # of two classes, the score of the second
        found = np.column_stack([-found, found])
    scores = np.full((len(rows), n_classes), found.min())
    scores[:, learner.classes_] = found
    return scores


def _fit_sigmoid(decision: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Turn held-out decisions into probabilities by a multinomial sigmoid."""
    rows, labels, weights = weighted_copies(targets)
    scores = StandardScaler().fit_transform(decision)
    sigmoid = LogisticRegression(max_iter=300).fit(scores[rows], labels, sample_weight=weights)
    proba = np.zeros_like(targets)
    proba[:, sigmoid.classes_] = sigmoid.predict_proba(scores)
    return proba
