"""The label table: the given and the corrected label of every sample, and its source."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pudistill.exceptions import TrustedWarning, warn_user
from pudistill.labels.checks import MISSING, Labels
from pudistill.utils.shown import first_few, shown


class Outliers(NamedTuple):
    """How unlike the trusted samples all samples are, see `learners.outliers.find_outliers`.

    Attributes
    ----------
    score : ndarray of shape (n_samples,)
        1 - p, where p is the share of held-out trusted samples that are at least as far from the
        other trusted samples as this sample is: 0.99 means farther than 99 % of them. Beyond all of
        them, p is extrapolated. NaN if it is unknown.
    is_outlier : ndarray of shape (n_samples,), bool
        Whether a sample that is not trusted is an outlier, probably of no class: a tenth of all
        outliers, at most, is expected to be of some class.
    in_a_class : ndarray of shape (n_samples,)
        Probability that a sample is of any class at all: for outliers, the expected share of
        samples of some class among all that are at least as unlike; 1 for all others.
    """

    score: np.ndarray
    is_outlier: np.ndarray
    in_a_class: np.ndarray

    @classmethod
    def unknown(cls, n_samples: int) -> "Outliers":
        """Return the result where samples cannot be compared: no score, no outlier."""
        nothing = np.zeros(n_samples, dtype=bool)
        return cls(np.full(n_samples, np.nan), nothing, np.ones(n_samples))


def paper_label_table(
    labels: Labels,
    clean_labels: np.ndarray,
    votes: np.ndarray,
    teacher_proba: np.ndarray,
    min_confidence: float,
    outliers: Outliers,
) -> pd.DataFrame:
    """Return the label table of the paper's method.

    A sample of the clean set gets the filter's label. A sample of which the teachers are sure gets
    their label (paper, equation 6). All others keep the given label.

    Parameters
    ----------
    labels : Labels
        Given and verified labels.
    clean_labels : ndarray of shape (n_samples,), int
        Classes of the augmented clean set, -1 elsewhere.
    votes : ndarray of shape (n_samples, n_classes), int
        Members' votes; -1 where voting stopped early.
    teacher_proba : ndarray of shape (n_noisy, n_classes)
        The teachers' average prediction for the samples that are not trusted.
    min_confidence : float
        Smallest probability at which the teachers count as sure, `η`.
    outliers : Outliers
        How unlike the trusted samples all samples are.

    Returns
    -------
    table : DataFrame
        Columns ``given``, ``trusted``, ``label``, ``changed``, ``source``, ``confidence``,
        ``votes``, ``outlier_score``, ``outlier``; see `PUDistillClassifier`.
    """
    n_samples, n_classes = votes.shape
    proba = np.zeros((n_samples, n_classes))
    proba[~labels.trusted] = teacher_proba
    prediction = proba.argmax(axis=1)
    sure = ~labels.trusted & ((proba.max(axis=1) >= min_confidence) | (labels.given == MISSING))

    by_filter = ~labels.trusted & (clean_labels != MISSING)
    source = np.select(
        [labels.trusted, by_filter, sure], ["trusted", "filter", "teacher"], default="given"
    )
    label = np.select(
        [labels.trusted, by_filter, sure],
        [labels.verified, clean_labels, prediction],
        default=labels.given,
    )
    return _table(labels, label, source, proba, votes, outliers)


def label_table(
    labels: Labels,
    targets: np.ndarray,
    votes: np.ndarray,
    outliers: Outliers,
) -> pd.DataFrame:
    """Return the label table of the default method: the most likely posterior label per sample.

    Parameters
    ----------
    labels : Labels
        Given and verified labels.
    targets : ndarray of shape (n_samples, n_classes)
        Posterior labels.
    votes : ndarray of shape (n_samples, n_classes), int
        Members' votes; -1 where voting stopped early.
    outliers : Outliers
        How unlike the trusted samples all samples are.

    Returns
    -------
    table : DataFrame
        As from `paper_label_table`; the source of changed labels is "student".
    """
    label = targets.argmax(axis=1)
    source = np.select(
        [labels.trusted, label == labels.given], ["trusted", "given"], default="student"
    )
    return _table(labels, label, source, targets, votes, outliers)


def model_label_table(labels: Labels, proba: np.ndarray, outliers: Outliers) -> pd.DataFrame:
    """Return the label table of any classifier: its predictions, and the verified labels.

    Parameters
    ----------
    labels : Labels
        Given and verified labels.
    proba : ndarray of shape (n_samples, n_classes)
        The classifier's predictions.
    outliers : Outliers
        How unlike the trusted samples all samples are.

    Returns
    -------
    table : DataFrame
        As from `paper_label_table`; the source of changed labels is "model", and votes are missing.
    """
    label = np.where(labels.trusted, labels.verified, proba.argmax(axis=1))
    source = np.select(
        [labels.trusted, label == labels.given], ["trusted", "given"], default="model"
    )
    return _table(labels, label, source, proba, np.full(proba.shape, -1), outliers)


def with_no_class(table: pd.DataFrame, labels: Labels, name: Any) -> pd.DataFrame:
    """Add the samples that were verified to be of no class to the label table of all others.

    Parameters
    ----------
    table : DataFrame
        The label table of the other samples, in their order.
    labels : Labels
        Labels of all samples.
    name : str or int
        The label of samples of no class.

    Returns
    -------
    table : DataFrame
        A row for each sample. The label of samples of no class is `name`, their source "trusted",
        their confidence 1, and their ``outlier_score`` 1.
    """
    rows = np.flatnonzero(labels.no_class)
    if not len(rows):
        return table
    given = labels.given[rows]
    added = pd.DataFrame(
        {
            "given": _names(labels.classes, given),
            "trusted": True,
            "label": np.full(len(rows), name, dtype=object),
            "changed": given != MISSING,
            "source": "trusted",
            "confidence": 1.0,
            "votes": pd.array([pd.NA] * len(rows), dtype="Int16"),
            "outlier_score": 1.0,
            "outlier": True,
        }
    )
    order = np.argsort(np.r_[np.flatnonzero(~labels.no_class), rows])
    table = pd.concat([table.astype({"given": object, "label": object}), added]).iloc[order]
    return table.reset_index(drop=True)


def _table(
    labels: Labels,
    label: np.ndarray,
    source: np.ndarray,
    proba: np.ndarray,
    votes: np.ndarray,
    outliers: Outliers,
) -> pd.DataFrame:
    rows = np.arange(len(label))
    own_votes = pd.array(votes[rows, label], dtype="Int16")
    own_votes[votes[rows, label] < 0] = pd.NA
    _warn_of_lost_classes(labels, label)
    return pd.DataFrame(
        {
            "given": _names(labels.classes, labels.given),
            "trusted": labels.trusted,
            "label": labels.classes[label],
            "changed": (label != labels.given) & (labels.given != MISSING),
            "source": source,
            "confidence": np.where(labels.trusted, 1.0, proba[rows, label] * outliers.in_a_class),
            "votes": own_votes,
            "outlier_score": outliers.score,
            "outlier": outliers.is_outlier,
        }
    )


def _warn_of_lost_classes(labels: Labels, label: np.ndarray) -> None:
    """Warn of classes that noisy samples had as given labels but no longer have."""
    noisy, n_classes = ~labels.trusted, labels.n_classes
    given = labels.given[noisy]
    before = np.bincount(given[given != MISSING], minlength=n_classes)
    lost = np.flatnonzero((before > 0) & (np.bincount(label[noisy], minlength=n_classes) == 0))
    if len(lost):
        names = first_few(f"{shown(labels.classes[c])} ({before[c]:,})" for c in lost)
        warn_user(
            f"After correction, only trusted samples have the label {names}: check whether the "
            "trusted samples of that class are like the others.",
            TrustedWarning,
        )


def _names(classes: np.ndarray, codes: np.ndarray) -> np.ndarray:
    if (codes != MISSING).all():
        return classes[codes]
    return np.array([*classes.tolist(), None], dtype=object)[codes]
