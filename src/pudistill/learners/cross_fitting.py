"""Calibrated predictions by cross-fitting, and one sigmoid for all members of a filter."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from pudistill.labels.checks import MISSING
from pudistill.labels.model_selection import deal_folds
from pudistill.learners.capabilities import check_gives_scores
from pudistill.learners.linear import scaler_and_last
from pudistill.learners.probabilities import calibration_folds
from pudistill.learners.scoring import predict_proba, take
from pudistill.learners.soft_targets import weighted_copies
from pudistill.learners.tasks import Training, fit_params, train_all, unfitted_learner
from pudistill.utils import arrays

# Gradient tolerance of cross-fits, as a multiple of the learner's own: it costs about 0.001 of
# log-loss, which changes no label, and halves the steps. Students use the learner's own.
ROUGH = 3.0


# Samples from which on time counts more than the last tenths of a point: folds stay the same over
# the rounds, and self-training and rounds end earlier. With fewer samples, predictions gain from
# folds that are dealt anew: they depend less on one division.
MANY_SAMPLES = 4_096


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
    """Give members that have only a ``decision_function`` one common sigmoid (Platt, 1999).

    The sigmoid is fitted on held-out decisions of copies, trained on the training sets of a few
    members, with their weights. This is much cheaper than calibrating each member, and uses more
    samples.

    Parameters
    ----------
    members : list of fitted estimators
        Binary classifiers, trained alike.
    tasks : iterable of Training
        Trainings of some of these members.

    Returns
    -------
    members : list of fitted estimators
        The same members, with ``predict_proba``.
    """
    if hasattr(members[0], "predict_proba"):
        return members
    check_gives_scores(members[0], "decision_function")
    decisions, labels = [], []
    for task in tasks:
        y = task.targets.argmax(axis=1)
        folds = calibration_folds(y, task.seed, task.groups)
        copy = unfitted_learner(task)
        params = fit_params(copy, task.sample_weight)
        # As for every fit of a learner, see `tasks`: routing is for calls of our own ``fit``.
        with config_context(enable_metadata_routing=False):
            found = cross_val_predict(
                copy, task.samples, y, cv=folds, params=params, method="decision_function"
            )
        decisions.append(found)
        labels.append(y)
    y = np.concatenate(labels)
    # Platt's targets: as if one more sample of each class had been seen.
    counts = np.bincount(y)
    positive = np.where(y == 1, (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2))
    rows, codes, weights = weighted_copies(np.column_stack([1 - positive, positive]))
    decision = np.concatenate(decisions)[:, None]
    sigmoid = LogisticRegression(C=np.inf).fit(decision[rows], codes, sample_weight=weights)
    return [SharedSigmoid(member, sigmoid) for member in members]


class CrossFit(NamedTuple):
    """Result of `cross_fit`.

    Attributes
    ----------
    proba : ndarray of shape (n_samples, n_classes)
        Probabilities of each sample by a learner that was not trained on it.
    folds : ndarray of shape (n_samples,), int
        The fold of each sample; -1 for samples that are never left out.
    models : list of fitted estimators or None
        The learner that has not seen each fold, if a later fit can start from it.
    """

    proba: np.ndarray
    folds: np.ndarray
    models: list


def cross_fit_proba(estimator: Any, X: Any, targets: np.ndarray, **options: Any) -> np.ndarray:
    """Return the predictions of `cross_fit`."""
    return cross_fit(estimator, X, targets, **options).proba


def cross_fit(
    estimator: Any,
    X: Any,
    targets: np.ndarray,
    *,
    n_folds: int,
    previous: CrossFit | None = None,
    n_jobs: int | None = None,
    seed: int,
    groups: np.ndarray | None = None,
    unseen: np.ndarray | None = None,
    sample_weight: np.ndarray | None = None,
) -> CrossFit:
    """Predict each sample by a learner that was not trained on it.

    Parameters
    ----------
    estimator : classifier
        Template. A learner with only a ``decision_function`` is calibrated once, on the held-out
        decisions for all samples, instead of once per fold.
    X : array-like, sparse matrix or data frame of shape (n_samples, ...)
        Samples.
    targets : ndarray of shape (n_samples, n_classes)
        Rows that sum to 1.
    n_folds : int
        Number of folds; each has the same share of every class.
    previous : CrossFit, default=None
        A result for earlier targets of the same samples. With many samples its folds are used
        again, instead of dealing new ones. A fit starts from the earlier model of the same fold,
        and never from one of another fold, which has seen the samples that are now predicted.
    n_jobs : int, default=None
        Learners trained at the same time.
    seed : int
        Decides the folds and the training.
    groups : ndarray of shape (n_samples,), int, default=None
        Codes of groups: no learner that predicts a sample was trained on any sample of its group.
    unseen : ndarray, int, default=None
        Rows that no learner is trained on; they are predicted only.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights in the training.

    Returns
    -------
    cross_fit : CrossFit
        Samples that no fold can do without, see `deal_folds`, are never left out: their
        probabilities are the same for all classes.
    """
    # 1. For each fold, train a learner on the other folds and let it score the samples of the fold.
    # Members, as in the filter, come back without calibration.
    n_classes = targets.shape[1]
    labels = targets.argmax(axis=1)
    if unseen is not None:
        labels[unseen] = MISSING
    learned_from = labels != MISSING
    if previous is not None and len(labels) >= MANY_SAMPLES:
        folds = previous.folds
    else:
        folds = deal_folds(labels, n_folds, seed, groups)
        if unseen is not None:
            folds[unseen] = _folds_of_unseen(folds, unseen, learned_from, groups)
    fold_rows = [np.flatnonzero(folds == fold) for fold in range(folds.max(initial=-1) + 1)]
    starts = [None] * len(fold_rows)
    if previous is not None and np.array_equal(folds, previous.folds):
        starts = previous.models
    tasks = (
        Training(
            estimator,
            X,
            arrays.take_rows(targets, seen),
            rows=seen,
            role="member",
            seed=seed,
            sample_weight=None if sample_weight is None else sample_weight[seen],
            start=start,
            rough=ROUGH,
        )
        for start, seen in zip(
            starts,
            (np.flatnonzero((folds != fold) & learned_from) for fold in range(len(fold_rows))),
            strict=True,
        )
    )
    proba = arrays.empty(targets.shape)
    proba[:] = 1 / n_classes
    decision, models = None, []
    for learner, held_out in zip(train_all(tasks, n_jobs), fold_rows, strict=True):
        models.append(None if scaler_and_last(learner) is None else learner)
        if hasattr(learner, "predict_proba"):
            proba[held_out] = predict_proba(learner, X, n_classes, held_out)
        else:
            check_gives_scores(learner, "decision_function")
            decision = np.zeros(targets.shape) if decision is None else decision
            decision[held_out] = _decisions(learner, X, held_out, n_classes)
    # 2. Calibrate the decisions of all folds together.
    if decision is not None:
        in_a_fold = folds != MISSING
        fitted_on = in_a_fold & learned_from
        sigmoid = _fit_sigmoid(decision[fitted_on], targets[fitted_on])
        proba[in_a_fold] = _apply_sigmoid(sigmoid, decision[in_a_fold], n_classes)
    return CrossFit(proba, folds, models)


def _folds_of_unseen(
    folds: np.ndarray, unseen: np.ndarray, learned_from: np.ndarray, groups: np.ndarray | None
) -> np.ndarray:
    """Return a fold for each sample that no learner is trained on: that of its group, or any."""
    found = np.arange(len(unseen)) % (folds.max(initial=MISSING) + 1 or 1)
    if groups is None:
        return found
    fold_of_group = np.full(groups.max() + 1, MISSING)
    fold_of_group[groups[learned_from]] = folds[learned_from]
    has_fold = np.isin(groups[unseen], groups[learned_from])
    return np.where(has_fold, fold_of_group[groups[unseen]], found)


def _decisions(learner: Any, X: Any, rows: np.ndarray, n_classes: int) -> np.ndarray:
    """Score all classes; a class that the learner never saw gets the lowest score."""
    found = learner.decision_function(take(X, rows))
    if found.ndim == 1:  # two classes: the score of the second
        found = np.column_stack([-found, found])
    scores = np.full((len(rows), n_classes), found.min())
    scores[:, learner.classes_] = found
    return scores


def _fit_sigmoid(decision: np.ndarray, targets: np.ndarray) -> Pipeline:
    """Fit a multinomial sigmoid that turns held-out decisions into probabilities."""
    rows, labels, weights = weighted_copies(targets)
    scaler = StandardScaler().fit(decision)
    scores = scaler.transform(decision)
    sigmoid = LogisticRegression(max_iter=300).fit(scores[rows], labels, sample_weight=weights)
    return make_pipeline(scaler, sigmoid)


def _apply_sigmoid(sigmoid: Pipeline, decision: np.ndarray, n_classes: int) -> np.ndarray:
    proba = np.zeros((len(decision), n_classes))
    proba[:, sigmoid.classes_] = sigmoid.predict_proba(decision)
    return proba
