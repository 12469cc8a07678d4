"""Models of the samples that have a label, and of their own confident predictions."""

from typing import Any

import numpy as np
from sklearn.utils.validation import _num_samples

from pudistill.labels.checks import MISSING
from pudistill.labels.pseudo_labels import one_hot
from pudistill.learners.cross_fitting import MANY_SAMPLES
from pudistill.learners.scoring import predict_proba
from pudistill.learners.tasks import Training, train
from pudistill.utils.time_limit import is_time_up

# Self-training uses predictions of at least this probability as labels, and trains at most this
# many models: the defaults of scikit-learn's SelfTrainingClassifier.
CONFIDENT, SELF_TRAININGS = 0.75, 10


# With many samples, self-training ends when a model labels less than this share of them.
FEW_NEW_LABELS = 0.03


def train_on_labels(
    estimator: Any,
    X: Any,
    labels: np.ndarray,
    n_classes: int,
    seed: int,
    groups: np.ndarray | None = None,
    sample_weight: np.ndarray | None = None,
    start: Any = None,
    role: str = "reference",
    *,
    continued: bool = False,
) -> Any:
    """Train a learner on the samples that have a label; -1 means that a sample has no label.

    For `start`, `role` and `continued`, see `Training`.
    """
    rows = np.flatnonzero(labels != MISSING)
    targets = one_hot(labels[rows], n_classes)
    subset = None if len(rows) == _num_samples(X) else rows
    groups = None if groups is None else groups[rows]
    weights = None if sample_weight is None else sample_weight[rows]
    return train(
        Training(
            estimator,
            X,
            targets,
            rows=subset,
            role=role,
            seed=seed,
            groups=groups,
            sample_weight=weights,
            start=start,
            continued=continued,
        )
    )


def self_train(
    estimator: Any,
    X: Any,
    labels: np.ndarray,
    n_classes: int,
    *,
    first: Any = None,
    seed: int,
    groups: np.ndarray | None = None,
    unseen: np.ndarray | None = None,
    sample_weight: np.ndarray | None = None,
    part: tuple[int, int] = (0, 1),
) -> tuple[Any, bool]:
    """Train on labels, then on confident predictions too, until few new ones are confident.

    scikit-learn's ``SelfTrainingClassifier`` does the same, but takes no data frames and no
    classifiers without ``predict_proba``.

    Parameters
    ----------
    estimator : classifier
        The learner.
    X : samples of shape (n_samples, ...)
        Samples.
    labels : ndarray of shape (n_samples,), int
        First labels; -1 where a sample has no label.
    n_classes : int
        Number of classes.
    first : fitted estimator, default=None
        A model already trained on `labels`; None: train it.
    seed : int
        Decides the training.
    groups : ndarray of shape (n_samples,), int, default=None
        Codes of groups.
    unseen : ndarray, int, default=None
        Rows that are never learned from.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights of the samples.
    part : tuple of two int
        Number of this training, from 0, and number of trainings that share a time limit.

    Returns
    -------
    model : fitted estimator
        The last model.
    cut_short : bool
        Whether a time limit ended the training.
    """
    labels, model = labels.copy(), first
    may_learn = np.ones(len(labels), dtype=bool)
    if unseen is not None:
        may_learn[unseen] = False
    smallest = FEW_NEW_LABELS * len(labels) if len(labels) >= MANY_SAMPLES else 1
    for n in range(SELF_TRAININGS):
        if n > 0 and is_time_up("noise-free models", 0.0, *part):
            return model, True
        if n > 0 or model is None:
            model = train_on_labels(
                estimator, X, labels, n_classes, seed, groups, sample_weight, start=model
            )
        rest = np.flatnonzero((labels == MISSING) & may_learn)
        proba = predict_proba(model, X, n_classes, rest)
        sure = proba.max(axis=1, initial=0) >= CONFIDENT
        if sure.sum() < smallest:
            break
        labels[rest[sure]] = proba.argmax(axis=1)[sure]
    return model, False
