"""Teachers and student as in the paper: lines 11, 12 and 14 of Algorithm 1 (section III-B)."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from pudistill.distillation.problem import Problem
from pudistill.labels.checks import MISSING, Labels, check_labels, check_same_labels
from pudistill.labels.pseudo_labels import LABEL_TYPES, one_hot
from pudistill.labels.table import LabelTable, paper_label_table
from pudistill.learners.capabilities import continues_training
from pudistill.learners.outliers import find_outliers
from pudistill.learners.scoring import predict_proba
from pudistill.learners.tasks import Training, train, train_all
from pudistill.pu_filter.estimator import TieredPUFilter
from pudistill.utils.arrays import rowwise
from pudistill.utils.progress import stage

N_TEACHERS_UNBALANCED = 5
# `P` is balanced if its largest class is at most this many times as large as its smallest class.
# Balanced subsets would then be nearly all of `P`, and five teachers nearly the same.
BALANCE_TOLERANCE = 1.1


def train_teachers(
    estimator: Any,
    X: Any,
    clean_labels: np.ndarray,
    n_classes: int,
    *,
    n_teachers: int | str = "auto",
    balance: bool = True,
    sample_weight: np.ndarray | None = None,
    n_jobs: int | None = None,
    seed: int,
    groups: np.ndarray | None = None,
    role: str = "teacher",
) -> list:
    """Train teachers on balanced bootstrap subsets of the augmented clean set (lines 11-12).

    Parameters
    ----------
    estimator : classifier
        Template of the teachers. A network draws a new subset in every epoch, unless its
        ``balanced_bootstrap`` is set; any other classifier is trained on a subset drawn once.
    X : array-like, sparse matrix or data frame of shape (n_samples, ...)
        Samples.
    clean_labels : ndarray of shape (n_samples,), int
        Classes of the samples in `P`, -1 elsewhere.
    n_classes : int
        Number of classes.
    n_teachers : int or "auto", default="auto"
        `N_t`. "auto": one, trained on all of `P`, if `P` is balanced (see `BALANCE_TOLERANCE`);
        else five.
    balance : bool, default=True
        Whether to train on balanced subsets if `P` is not balanced; else on all of `P`.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights.
    n_jobs : int, default=None
        Number of teachers trained at the same time.
    seed : int
        Decides the subsets and the training.
    groups : ndarray of shape (n_samples,), int, default=None
        Codes of groups, see `Training`.
    role : str, default="teacher"
        Recipe of a network's training.

    Returns
    -------
    teachers : list of fitted estimators
        The teachers.
    """
    clean = np.flatnonzero(clean_labels >= 0)
    sizes = np.bincount(clean_labels[clean], minlength=n_classes)
    balanced = not balance or sizes.max() <= BALANCE_TOLERANCE * sizes.min()
    if n_teachers == "auto":
        n_teachers = 1 if balanced else N_TEACHERS_UNBALANCED

    def subset(rng: np.random.Generator) -> np.ndarray:
        if balanced or continues_training(estimator):
            return clean
        per_class = (clean[clean_labels[clean] == c] for c in range(n_classes))
        drawn = [rng.choice(rows, sizes.min(), replace=False) for rows in per_class]
        return np.sort(np.concatenate(drawn))

    def tasks() -> Iterator[Training]:
        for n in range(int(n_teachers)):
            rng = np.random.default_rng([seed, n])
            rows = subset(rng)
            yield Training(
                estimator,
                X,
                one_hot(clean_labels[rows], n_classes),
                rows=rows,
                role=role,
                seed=int(rng.integers(2**31)),
                sample_weight=None if sample_weight is None else sample_weight[rows],
                params={"balanced_bootstrap": not balanced},
                groups=None if groups is None else groups[rows],
            )

    teachers = []
    with stage("teachers", int(n_teachers)) as advance:
        for teacher in train_all(tasks(), n_jobs):
            teachers.append(teacher)
            advance(1, detail=f"teacher {len(teachers)} of {n_teachers}")
    return teachers


def paper_teachers(
    problem: Problem, clean_labels: np.ndarray, n_teachers: int | str
) -> tuple[list, np.ndarray]:
    """Train teachers on balanced subsets of the clean set, by the learner of a problem.

    Returns
    -------
    teachers : list of fitted estimators
        The teachers.
    proba : ndarray of shape (n_noisy, n_classes)
        Their average prediction for the samples that are not trusted.
    """
    X, labels = problem.X, problem.labels
    teachers = train_teachers(
        problem.student,
        X,
        clean_labels,
        labels.n_classes,
        n_teachers=n_teachers,
        sample_weight=labels.sample_weight,
        n_jobs=problem.n_jobs,
        seed=problem.seed,
        groups=labels.groups,
    )
    return teachers, average_proba(teachers, X, labels.n_classes, np.flatnonzero(~labels.trusted))


def average_proba(
    teachers: list, X: Any, n_classes: int, rows: np.ndarray | None = None
) -> np.ndarray:
    """Average the teachers' predictions for `rows` of `X`, all by default.

    Returns
    -------
    proba : ndarray of shape (n_rows, n_classes)
        `f_t` of equation 4.
    """
    predicted = [predict_proba(teacher, X, n_classes, rows) for teacher in teachers]
    return rowwise(lambda *blocks: np.mean(blocks, axis=0), *predicted)


def train_student(
    estimator: Any,
    X: Any,
    targets: np.ndarray,
    *,
    seed: int,
    groups: np.ndarray | None = None,
    sample_weight: np.ndarray | None = None,
) -> Any:
    """Train the student on all samples with their pseudo-labels (line 14).

    Parameters
    ----------
    estimator : classifier
        Template of the student, which is trained from scratch.
    X : array-like, sparse matrix or data frame of shape (n_samples, ...)
        Samples of `D`.
    targets : ndarray of shape (n_samples, n_classes)
        Verified labels of trusted samples, pseudo-labels of all others.
    seed : int
        Decides the training.
    groups : ndarray of shape (n_samples,), int, default=None
        Codes of groups, see `Training`.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights.

    Returns
    -------
    student : fitted estimator
        The student.
    """
    task = Training(
        estimator,
        X,
        targets,
        role="student",
        seed=seed,
        groups=groups,
        sample_weight=sample_weight,
    )
    if continues_training(estimator):  # a network shows its epochs as progress
        return train(task)
    with stage("student", 1) as advance:
        student = train(task)
        advance(1)
    return student


def blended_labels(
    labels: Labels,
    clean_labels: np.ndarray,
    teacher_proba: np.ndarray,
    *,
    label_type: str,
    min_confidence: float,
    blend: float,
) -> np.ndarray:
    """Blend given labels and the teachers' predictions (line 13, equations 4 to 6).

    Parameters
    ----------
    labels : Labels
        Given and verified labels.
    clean_labels : ndarray of shape (n_samples,), int
        Labels that the filter found; -1 where it found none.
    teacher_proba : ndarray of shape (n_noisy, n_classes)
        The teachers' average prediction for the samples that are not trusted.
    label_type, min_confidence, blend
        As for `PUDistillClassifier`.

    Returns
    -------
    targets : ndarray of shape (n_samples, n_classes)
        Verified labels of trusted samples, pseudo-labels of all others.
    """
    # `y` of equation 4: the label of the filter if it found one, else the given label.
    corrected = np.where(clean_labels == MISSING, labels.given, clean_labels)
    blended = partial(LABEL_TYPES[label_type], min_confidence=min_confidence, blend=blend)
    noisy = ~labels.trusted
    targets = one_hot(labels.verified, labels.n_classes)
    targets[noisy] = rowwise(blended, teacher_proba, corrected[noisy])
    return targets


def paper_student(
    problem: Problem,
    targets: np.ndarray,
    found: TieredPUFilter,
    teacher_proba: np.ndarray,
    min_confidence: float,
    no_class: Any,
) -> tuple[Any, LabelTable]:
    """Train the student on its targets (lines 14-15); return it and the label table."""
    labels, seed = problem.labels, problem.seed
    weighted = {"groups": labels.groups, "sample_weight": labels.sample_weight}
    student = train_student(problem.student, problem.X, targets, seed=seed, **weighted)
    outliers = find_outliers(problem.X, labels.verified, student, no_class=no_class, seed=seed)
    table = paper_label_table(
        labels, found.clean_labels_, found.votes_, teacher_proba, min_confidence, outliers
    )
    return student, table


class MakesPseudoLabels:
    """Line 13 of Algorithm 1 for a classifier with fitted teachers."""

    filter_: Any
    teacher_proba_: np.ndarray
    _fitted_labels: Labels

    def pseudo_labels(self: Any, y: Any, trusted: Any = None) -> np.ndarray:
        """Run line 13 of Algorithm 1: compute the paper's pseudo-labels for given labels.

        Parameters
        ----------
        y, trusted : array-like of shape (n_samples,)
            As in `fit_student`.

        Returns
        -------
        targets : ndarray of shape (n_samples, n_classes)
            Verified labels of trusted samples, pseudo-labels of all others, without samples that
            were verified to be of no class.
        """
        check_is_fitted(self, "teachers_")
        labels = check_labels(y, trusted, no_class_label=self.no_class_label)
        copied = self._fitted_labels.copied
        if copied is not None and len(copied) == len(labels.given):
            verified = np.where(copied, self._fitted_labels.verified, labels.verified)
            labels = replace(labels, trusted=labels.trusted | copied, verified=verified)
        check_same_labels(labels, replace(self._fitted_labels, groups=None, picked=None))
        return self._pseudo_labels(labels.take(~labels.no_class))

    def _pseudo_labels(self: Any, labels: Labels) -> np.ndarray:
        """Blend given labels and the teachers' predictions (line 13)."""
        return blended_labels(
            labels,
            self.filter_.clean_labels_,
            self.teacher_proba_,
            label_type=self.label_type,
            min_confidence=self.min_confidence,
            blend=self.blend,
        )
