"""The label table: the given and the corrected label of every sample, and its source."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pudistill.exceptions import TrustedWarning, warn_user
from pudistill.labels.checks import MISSING, Labels
from pudistill.utils.arrays import rowwise
from pudistill.utils.shown import first_few, shown

ROUNDING = 1e-12  # of probabilities


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
        outliers, at most, is expected to be of some class, if the tail of the distances is as
        assumed.
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


SOURCES = ("given", "trusted", "filter", "teacher", "student", "model")
"""What can decide a label."""
FLAGS, SCORES = ("trusted", "changed", "outlier"), ("confidence", "given_quality", "outlier_score")
GIVEN, TRUSTED, FILTER, TEACHER, STUDENT, MODEL = range(len(SOURCES))


@dataclass(frozen=True, repr=False)
class LabelTable:
    """The label table as arrays, from which a data frame of all or of some rows is made.

    Attributes
    ----------
    names : ndarray
        Names of the labels; those of the classes come first.
    given, label : ndarray of shape (n_samples,), int
        Positions in `names`; -1 without a given label.
    trusted, changed, outlier : ndarray of shape (n_samples,), bool
        As the columns of the data frame, see `PUDistillClassifier`.
    source : ndarray of shape (n_samples,), int
        Positions in `SOURCES`.
    confidence, given_quality, outlier_score : ndarray of shape (n_samples,)
        As the columns of the data frame.
    votes : ndarray of shape (n_samples,), int
        Members' votes for the label; -1 if voting stopped early.
    ids : array of str, shape (n_samples,), optional
        Ids of the samples, the first column.
    index : Index of length n_samples, optional
        The index of the data frame; by default row numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill import correct_labels
    >>> y, rng = np.arange(1000) % 2, np.random.default_rng(0)
    >>> given = np.where(rng.random(1000) < 0.2, 1 - y, y)  # a fifth are wrong
    >>> verified = np.where(rng.random(1000) < 0.2, y, np.nan)
    >>> proba = np.where(y[:, None] == [0, 1], 0.9, 0.1)  # predictions of some model
    >>> table = correct_labels(given, proba, verified).label_arrays
    >>> len(table), list(table.frame(slice(3))["label"])
    (1000, [0, 1, 0])
    """

    names: np.ndarray
    given: np.ndarray
    trusted: np.ndarray
    label: np.ndarray
    changed: np.ndarray
    source: np.ndarray
    confidence: np.ndarray
    given_quality: np.ndarray
    votes: np.ndarray
    outlier_score: np.ndarray
    outlier: np.ndarray
    ids: Any = None
    index: pd.Index | None = None

    def __repr__(self) -> str:
        n_changed, n_trusted = int(self.changed.sum()), int(self.trusted.sum())
        return f"Labels of {len(self):,} samples: {n_trusted:,} trusted, {n_changed:,} changed"

    def __len__(self) -> int:
        return len(self.label)

    def frame(self, rows: slice = slice(None)) -> pd.DataFrame:
        """Return some rows as a data frame; its types are those of the frame of all rows."""
        votes = self.votes[rows]
        index = pd.RangeIndex(len(self)) if self.index is None else self.index
        columns: dict[str, Any] = {} if self.ids is None else {"id": np.asarray(self.ids[rows])}
        columns |= {
            "given": self._given_names.take(self.given[rows]),
            "trusted": self.trusted[rows],
            "label": self._label_names.take(self.label[rows]),
            "changed": self.changed[rows],
            "source": pd.Series(SOURCES).array.take(self.source[rows]),
            "confidence": self.confidence[rows],
            "given_quality": self.given_quality[rows],
            "votes": pd.arrays.IntegerArray(votes, votes < 0),
            "outlier_score": self.outlier_score[rows],
            "outlier": self.outlier[rows],
        }
        return pd.DataFrame(columns, index[rows])

    @classmethod
    def of_frame(
        cls,
        table: pd.DataFrame,
        classes: np.ndarray,
        names: np.ndarray | None = None,
        no_class_label: Any = None,
    ) -> "LabelTable":
        """Return the arrays of a data frame whose labels are texts.

        Parameters
        ----------
        table : DataFrame
            The frame, with a column ``id``.
        classes : ndarray
            Class labels, of any type.
        names : ndarray of str, default=None
            Names of the labels, in order; by default those of `classes`, then all others.
        no_class_label : str or int, default=None
            The label of samples of no class, of the type that it gets.
        """
        typed = {str(label): label for label in classes.tolist()}
        found = pd.unique(pd.concat([table["label"], table["given"]]).dropna().astype(object))
        texts = list(dict.fromkeys([*(typed if names is None else names), *map(str, found)]))
        typed = {str(no_class_label): no_class_label} | typed
        labels = [typed.get(text, text) for text in texts]
        is_of_classes = len(labels) == len(classes)
        arrays = {name: table[name].to_numpy() for name in FLAGS + SCORES if name in table}
        nothing = np.full(len(table), np.nan)
        return cls(
            names=np.array(labels, dtype=classes.dtype if is_of_classes else object),
            given=pd.Categorical(table["given"], categories=texts).codes.astype(np.int32),
            label=pd.Categorical(table["label"], categories=texts).codes.astype(np.int32),
            source=pd.Categorical(table["source"], categories=SOURCES).codes,
            votes=table["votes"].fillna(-1).to_numpy(dtype=np.int16),
            ids=table["id"].to_numpy(),
            **dict.fromkeys(SCORES, nothing) | {"outlier": np.isinf(nothing)} | arrays,
        )

    def label_names(self) -> np.ndarray:
        """Return the names of all labels."""
        return self.names[self.label]

    def given_names(self) -> np.ndarray:
        """Return the names of all given labels, None where there is none."""
        return _or_none(self.names)[self.given]

    def with_given(self, rows: np.ndarray, names: np.ndarray) -> "LabelTable":
        """Return the table with other names of given labels in some rows, a mask."""
        known = dict.fromkeys([*self.names.tolist(), *names[rows].tolist()])
        known.pop(None, None)
        codes = {name: code for code, name in enumerate(known)} | {None: MISSING}
        given = self.given.copy()
        given[rows] = [codes[name] for name in names[rows].tolist()]
        return replace(self, names=np.array([*known], dtype=object), given=given)

    def with_no_class(self, labels: Labels, name: Any) -> "LabelTable":
        """Add the samples that were verified to be of no class to the table of all others.

        Parameters
        ----------
        labels : Labels
            Labels of all samples; those in this table are the others, in their order.
        name : str or int
            The label of samples of no class.

        Returns
        -------
        table : LabelTable
            A row for each sample. The label of samples of no class is `name`, their source
            "trusted", their confidence 1, and their ``outlier_score`` 1.
        """
        if not labels.no_class.any():
            return self
        added = {
            "given": labels.given[labels.no_class],
            "trusted": True,
            "label": len(self.names),
            "changed": labels.given[labels.no_class] != MISSING,
            "source": TRUSTED,
            "confidence": 1.0,
            "given_quality": np.where(labels.given[labels.no_class] == MISSING, np.nan, 0.0),
            "votes": -1,
            "outlier_score": 1.0,
            "outlier": True,
        }
        columns: dict[str, Any] = {}
        for column, values in added.items():
            known = getattr(self, column)
            columns[column] = np.empty(len(labels.given), known.dtype)
            columns[column][~labels.no_class] = known
            columns[column][labels.no_class] = values
        return LabelTable(np.array([*self.names.tolist(), name], dtype=object), **columns)

    @cached_property
    def _given_names(self) -> Any:
        """Names as a column of pandas, at whose end the code -1 finds a missing value."""
        has_all = (self.given != MISSING).all()
        return pd.Series(self.names if has_all else _or_none(self.names)).array

    @cached_property
    def _label_names(self) -> Any:
        return pd.Series(self.names).array


def _or_none(names: np.ndarray) -> np.ndarray:
    """Append None, which the code -1 then stands for."""
    return np.array([*names.tolist(), None], dtype=object)


def paper_label_table(
    labels: Labels,
    clean_labels: np.ndarray,
    votes: np.ndarray,
    teacher_proba: np.ndarray,
    min_confidence: float,
    outliers: Outliers,
) -> LabelTable:
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
    table : LabelTable
        The table.
    """
    n_samples, n_classes = votes.shape
    proba = np.zeros((n_samples, n_classes))
    proba[~labels.trusted] = teacher_proba
    prediction = proba.argmax(axis=1)
    sure = ~labels.trusted & ((proba.max(axis=1) >= min_confidence) | (labels.given == MISSING))

    by_filter = ~labels.trusted & (clean_labels != MISSING)
    source = np.select([labels.trusted, by_filter, sure], [TRUSTED, FILTER, TEACHER], default=GIVEN)
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
    *,
    is_known: bool = True,
    of_changes: int = STUDENT,
) -> LabelTable:
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
    is_known : bool, default=True
        Whether anything is known about the given labels; otherwise their confidence is NaN.
    of_changes : int, default=STUDENT
        Source of changed labels, a position in `SOURCES`.

    Returns
    -------
    table : LabelTable
        The table.
    """
    label = rowwise(_likeliest_or_given, targets, labels.given)
    source = _source(labels, label, of_changes)
    return _table(labels, label, source, targets, votes, outliers, is_known)


def model_label_table(labels: Labels, proba: np.ndarray, outliers: Outliers) -> LabelTable:
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
    table : LabelTable
        The table; the source of changed labels is "model", and votes are missing.
    """
    label = np.where(labels.trusted, labels.verified, proba.argmax(axis=1))
    votes = np.broadcast_to(np.int16(-1), proba.shape)
    return _table(labels, label, _source(labels, label, MODEL), proba, votes, outliers)


def _likeliest_or_given(proba: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return the likeliest class of each sample, the given one if no other is likelier."""
    is_as_likely = proba[np.arange(len(given)), given] >= proba.max(axis=1) - ROUNDING
    return np.where((given != MISSING) & is_as_likely, given, proba.argmax(axis=1))


def _source(labels: Labels, label: np.ndarray, of_changes: int) -> np.ndarray:
    """Return the source of labels that are verified, as given, or changed."""
    is_given = [labels.trusted, label == labels.given]
    return np.select(is_given, [TRUSTED, GIVEN], default=of_changes)


def _table(
    labels: Labels,
    label: np.ndarray,
    source: np.ndarray,
    proba: np.ndarray,
    votes: np.ndarray,
    outliers: Outliers,
    is_known: bool = True,
) -> LabelTable:
    _warn_of_lost_classes(labels, label)

    def of_code(values: np.ndarray, code: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, code[:, None], axis=1)[:, 0]

    confidence = of_code(proba, label) * outliers.in_a_class
    confidence[labels.trusted] = 1.0
    given_quality = of_code(proba, np.maximum(labels.given, 0)) * outliers.in_a_class
    given_quality[labels.trusted] = (labels.given == labels.verified)[labels.trusted]
    given_quality[labels.given == MISSING] = np.nan
    if not is_known:
        confidence[source == GIVEN] = given_quality[source == GIVEN] = np.nan
    codes = np.int16 if labels.n_classes < np.iinfo(np.int16).max else np.int32
    return LabelTable(
        names=labels.classes,
        given=labels.given.astype(codes),
        trusted=labels.trusted,
        label=label.astype(codes),
        changed=(label != labels.given) & (labels.given != MISSING),
        source=source.astype(np.int8),
        confidence=confidence,
        given_quality=given_quality,
        votes=of_code(votes, label).astype(np.int16),
        outlier_score=outliers.score,
        outlier=outliers.is_outlier,
    )


def _warn_of_lost_classes(labels: Labels, label: np.ndarray) -> None:
    """Warn of classes that noisy samples had as given labels but no longer have."""
    noisy, n_classes = ~labels.trusted, labels.n_classes
    given = labels.given[noisy]
    before = np.bincount(given[given != MISSING], minlength=n_classes)
    lost = np.flatnonzero((before > 0) & (np.bincount(label[noisy], minlength=n_classes) == 0))
    if not labels.trusted.any():
        return
    is_verified = np.isin(lost, labels.verified[labels.trusted])
    for classes, has_label, hint in (
        (
            lost[is_verified],
            "only trusted samples have",
            "check whether the trusted samples of that class are like the others",
        ),
        (lost[~is_verified], "no sample has", "verify some samples of that class"),
    ):
        if len(classes):
            names = first_few(f"{shown(labels.classes[c])} ({before[c]:,})" for c in classes)
            warn_user(f"After correction, {has_label} the label {names}: {hint}.", TrustedWarning)
