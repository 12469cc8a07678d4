"""`TrustedDataset`, the form of all data in this package, and its validation."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from pudistill.data.annotations import Annotations
from pudistill.data.columns import as_ids, count_distinct, is_whole, rows_with, sort_names
from pudistill.data.draws import Draws
from pudistill.data.names import NO_CLASS_LABEL
from pudistill.data.spelling import describe_look_alikes
from pudistill.exceptions import DataWarning, InputError, TrustedWarning, warn_user
from pudistill.utils.shown import first_few, listed

_ROWS_CHECKED_AT_ONCE = 65_536


@dataclass(frozen=True, eq=False, repr=False)
class TrustedDataset:
    """Samples with given labels, some of which a person has verified.

    Parameters
    ----------
    X : ndarray, DataFrame or LazyPictures
        Numeric features, float32 or float64 of shape (n_samples, n_features); or a data frame of
        that shape, indexed by the ids, if there are words, dates or missing values among them, see
        `read_features`; or pictures, uint8 of shape (n_samples, height, width) when grey and
        (n_samples, height, width, 3) in RGB; or texts, str in an object array of shape
        (n_samples,).
    y : ndarray of object, shape (n_samples,)
        Given labels as class names (str); None where a label is missing.
    trusted : ndarray of bool, shape (n_samples,)
        Whether a sample was verified.
    verified : ndarray of object, shape (n_samples,)
        Verified labels (str) where `trusted`, None elsewhere.
    ids : array of str, shape (n_samples,)
        A unique name for each sample; kept as a pandas array of Arrow's strings, which takes a
        third of the memory of Python's.
    true_labels : ndarray of object, shape (n_samples,), optional
        True labels, known in experiments only, and used only to measure results.
    feature_names : tuple of str, optional
        Names of the columns of a two-dimensional `X`.
    name : str
        Name of the data set.
    skipped : tuple of (id, reason)
        Pictures that were left out because they could not be read.
    marked : ndarray of bool, shape (n_samples,), optional
        Trusted samples whose given label was marked as right. Their label before verification is
        unknown, so they say nothing about the noise; other trusted samples do.
    pictures : ndarray of uint8, optional
        The pictures, for display, if `X` holds features of pictures.
    groups : ndarray of object, shape (n_samples,), optional
        Names (str) of groups, such as patients, whose samples are alike; None for a sample of no
        group.
    noise_groups : ndarray of object, shape (n_samples,), optional
        Names (str) of groups whose given labels can have noise of their own, such as annotators.
    no_class_label : str, optional
        The verified label of samples that are of no class; it is not one of `classes`.
    annotations : Annotations, optional
        Labels (str) of several sources, of which `y` is the majority vote.
    draws : Draws, optional
        How trusted samples were drawn; by default all of them uniformly.

    Examples
    --------
    >>> from pudistill.data.loading import load_dataset
    >>> iris = load_dataset("iris")
    >>> len(iris), iris.classes
    (150, ('setosa', 'versicolor', 'virginica'))
    >>> iris.with_trusted(["0", "77"], ["setosa", "virginica"]).trusted.sum()
    np.int64(2)
    """

    X: Any
    y: np.ndarray
    trusted: np.ndarray
    verified: np.ndarray
    ids: Any
    true_labels: np.ndarray | None = None
    feature_names: tuple[str, ...] | None = None
    name: str = ""
    skipped: tuple[tuple[str, str], ...] = ()
    marked: np.ndarray | None = None
    pictures: np.ndarray | None = None
    groups: np.ndarray | None = None
    noise_groups: np.ndarray | None = None
    no_class_label: str | None = NO_CLASS_LABEL
    annotations: Annotations | None = None
    draws: Draws | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", as_ids(self.ids))

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        kind = "columns" if self.is_frame else "features"
        kind = "texts" if self.is_text else "pictures" if self.is_pictures else kind
        shape = "".join(f"{size} x " for size in self.X.shape[1:]).removesuffix("x ")
        return (
            f"<TrustedDataset {self.name!r}: {len(self)} samples ({shape}{kind}), "
            f"{len(self.classes)} classes, {int(self.trusted.sum())} trusted>"
        )

    @property
    def is_pictures(self) -> bool:
        """Whether `X` holds pictures."""
        return self.X.ndim > 2

    @property
    def example_id(self) -> str:
        """How ids look, in brackets, for messages; empty without samples."""
        return f" (ids look like {self.ids[0]!r})" if len(self) else ""

    @property
    def is_text(self) -> bool:
        """Whether `X` holds texts."""
        return self.X.ndim == 1

    @property
    def is_frame(self) -> bool:
        """Whether `X` is a data frame, with words, dates or missing values."""
        return isinstance(self.X, pd.DataFrame)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Sorted names of all given and verified labels; whole numbers sort by value."""
        return sort_names({*self.y, *self.verified} - {None, self.no_class_label})

    def take(self, indices: ArrayLike) -> "TrustedDataset":
        """Return the samples at `indices` (positions or a boolean mask), in that order."""
        indices = np.asarray(indices)
        if indices.size == 0:
            indices = indices.astype(np.intp)
        return replace(
            self,
            X=self.X.iloc[indices] if self.is_frame else self.X[indices],
            y=self.y[indices],
            trusted=self.trusted[indices],
            verified=self.verified[indices],
            ids=self.ids[indices],
            true_labels=None if self.true_labels is None else self.true_labels[indices],
            marked=None if self.marked is None else self.marked[indices],
            pictures=None if self.pictures is None else self.pictures[indices],
            groups=None if self.groups is None else self.groups[indices],
            noise_groups=None if self.noise_groups is None else self.noise_groups[indices],
            annotations=None if self.annotations is None else self.annotations.take(indices),
            draws=None if self.draws is None else self.draws.take(indices),
        )

    def with_features(self, X: np.ndarray) -> "TrustedDataset":
        """Replace the samples by features; pictures are kept for display."""
        pictures = self.X if self.is_pictures else self.pictures
        return replace(self, X=X, feature_names=None, pictures=pictures)

    def without_minus_one(self) -> "TrustedDataset":
        """Read -1 as a missing label if the others are whole numbers or names, and none is trusted.

        Among names a warning says so.
        """
        known = {*self.y, *self.verified} - {None, self.no_class_label}
        codes = known & {"-1", "-1.0"}
        are_whole = [is_whole(name) for name in known - codes]
        if not codes or codes & {*self.verified} or (any(are_whole) and not all(are_whole)):
            return self
        y = self.y.copy()
        missing = np.isin(y, [*codes])
        y[missing] = None
        if not all(are_whole):
            warn_user(
                f"{self.name}: the label -1 of {missing.sum():,} samples stands beside names and "
                "is read as a missing label: if it is a class, give it a name.",
                DataWarning,
            )
        return replace(self, y=y)

    def for_fit(self) -> tuple[np.ndarray | Annotations, np.ndarray | None]:
        """Return `y` and `trusted` as ``PUDistillClassifier.fit`` takes them.

        Returns
        -------
        y : ndarray of object, shape (n_samples,), or Annotations
            Given labels, or those of several sources; None for marked samples if other samples have
            verified labels, because marked samples would count as samples without noise.
        trusted : ndarray of shape (n_samples,) or None
            Verified labels, or a mask if all trusted samples are marked; None if nothing is
            verified, with several sources.

        Examples
        --------
        >>> from pudistill.data.loading import load_dataset
        >>> y, trusted = load_dataset("iris").with_trusted(["0", "77"]).for_fit()
        >>> trusted.dtype, trusted.sum()
        (dtype('bool'), np.int64(2))
        """
        if self.annotations is not None and not self.trusted.any():
            return self.annotations, None
        given = self.y if self.annotations is None else self.annotations
        if self.marked is None:
            return given, self.verified
        if (self.marked | ~self.trusted).all():
            return given, self.trusted
        if self.annotations is not None:
            return self.annotations.only(~self.marked[self.annotations.rows]), self.verified
        y = self.y.copy()
        y[self.marked] = None
        return y, self.verified

    def holdout(
        self, fraction: float, random_state: int | np.random.RandomState | None = None
    ) -> "tuple[TrustedDataset, TrustedDataset]":
        """Split off a test set with reliable labels.

        Parameters
        ----------
        fraction : float in (0, 1)
            The share of each class that is held out: of its trusted samples if there are any, since
            test labels must be right; otherwise of its labelled samples. With `groups`, whole
            groups are held out, and their other samples are in neither part.
        random_state : int, RandomState or None
            Decides which samples are drawn.

        Returns
        -------
        train, test : TrustedDataset
            Both have at least one sample of each class (a trusted one, if there are any). If there
            are trusted samples, `test.y` holds verified labels.

        Raises
        ------
        InputError
            If `fraction` is out of range or a class has a single sample, or group, to draw from.

        Examples
        --------
        >>> from pudistill.data.loading import load_dataset
        >>> train, test = load_dataset("iris").holdout(0.2, random_state=0)
        >>> len(train), len(test)
        (120, 30)
        """
        if not 0 < fraction < 1:
            raise InputError(f"The test fraction must lie between 0 and 1, not {fraction}.")
        any_trusted = bool(self.trusted.any())
        labels = self.verified if any_trusted else self.y
        kind = "trusted" if any_trusted else "labelled"
        # A sample without a group is a group of its own.
        own = range(len(self)) if self.groups is None else self.groups
        groups = [row if group is None else group for row, group in enumerate(own)]
        rows_of: dict[str, list[int]] = {}
        for row, label in enumerate(labels):
            if label not in (None, self.no_class_label):
                rows_of.setdefault(label, []).append(row)
        singletons = sort_names(
            label for label, rows in rows_of.items() if len({groups[row] for row in rows}) < 2
        )
        if singletons:
            apart = "" if self.groups is None else " in different groups"
            raise InputError(
                f"Holding out a test set needs two {kind} samples of each class{apart}, one to "
                f"train and one to test, but there is only one of class {listed(singletons)}: "
                "verify more samples or give separate test data."
            )
        held = _draw_groups(rows_of, groups, fraction, check_random_state(random_state))
        held_out = np.array([group in held for group in groups])
        test = self.take(held_out & np.array([label is not None for label in labels]))
        if any_trusted:
            test = replace(test, y=test.verified.copy())
        return self.take(~held_out), test

    def with_trusted(
        self,
        ids: Iterable[str],
        labels: Iterable[str | None] | None = None,
        weights: Iterable[float] | None = None,
    ) -> "TrustedDataset":
        """Mark more samples as trusted.

        Parameters
        ----------
        ids : iterable of str
            The samples that were verified. Ids of skipped pictures are ignored.
        labels : iterable of str, optional
            Their verified labels; `y` keeps the given labels. By default the labels that the
            samples have are taken as verified.
        weights : iterable of float, optional
            The weight of each draw, in the order of drawing, see `Draws`; NaN is 1. Samples that
            were trusted before count as drawn first.

        Returns
        -------
        TrustedDataset

        Raises
        ------
        InputError
            If an id is unknown or repeated, a label is missing, it contradicts a label that was
            verified before, or a weight is below 0.
        """
        ids = list(ids)
        rows = self._rows_of(ids)
        as_given = labels is None
        if labels is None:
            known = np.where(self.trusted, self.verified, self.y)
            labels = [None if row is None else known[row] for row in rows]
        else:
            labels = list(labels)
            if len(labels) != len(ids):
                raise InputError(
                    f"There are {len(ids)} trusted ids but {len(labels)} verified labels: give "
                    "one label for each."
                )
        _check_unique(ids, labels)
        trusted, verified = self.trusted.copy(), self.verified.copy()
        marked = np.zeros(len(self), dtype=bool) if self.marked is None else self.marked.copy()
        for name, row, label in zip(ids, rows, labels, strict=True):
            if row is None:
                continue
            if label is None:
                raise _trusted_without_label(name)
            if verified[row] not in (None, label):
                raise InputError(
                    f"Trusted sample {name!r} is labelled {verified[row]!r} in the data but "
                    f"{label!r} among the trusted labels: keep the right one."
                )
            trusted[row], verified[row], marked[row] = True, label, as_given
        unseen = sort_names({*verified} - {*self.y, None, self.no_class_label})
        if unseen:
            first = self.ids[np.flatnonzero(verified == unseen[0])[0]]
            warn_user(
                f"The verified label {listed(unseen)} occurs nowhere among the given labels (see "
                f"sample {first!r}): check its spelling, unless it is a class that they lack.",
                TrustedWarning,
            )
        dataset = replace(self, trusted=trusted, verified=verified, marked=marked)
        return dataset if weights is None else dataset._with_weights(rows, np.array([*weights]))

    def _with_weights(self, rows: list[int | None], weights: np.ndarray) -> "TrustedDataset":
        """Record the weights of draws, in their order; None is the row of a skipped picture."""
        weight = np.where(self.trusted, 1.0, np.nan)
        order = np.where(self.trusted, 0, -1)
        if self.draws is not None:
            known = ~np.isnan(self.draws.weight)
            weight[known], order[known] = self.draws.weight[known], self.draws.order[known]
        kept = np.array([row is not None for row in rows], dtype=bool)
        at = np.array([row for row in rows if row is not None], dtype=int)
        weight[at] = np.where(np.isnan(weights), 1.0, weights)[kept]
        order[at] = order.max(initial=0) + 1 + np.arange(len(at))
        return replace(self, draws=Draws.of(weight, order, self.ids))

    def require_trusted(self, *, every_class: bool = True) -> None:
        """Raise `InputError` unless there is a trusted sample, by default of every given class."""
        if not self.trusted.any():
            raise InputError(
                f"{self.name}: there is no trusted sample at all: verify a few samples of each "
                "class and name them in a trusted column or file; `pudistill start` helps with it."
            )
        missing = sort_names({*self.y} - {*self.verified, None, self.no_class_label})
        if missing and every_class:
            counts = Counter(label for label in (*self.y, *self.verified) if label is not None)
            look_alikes = describe_look_alikes(counts)
            raise InputError(
                f"{self.name}: there is no trusted sample of class {listed(missing)}: verify "
                "some samples of it, merge it into another class, or drop it"
                f"{'' if look_alikes is None else f'; {look_alikes}'}."
            )

    def _rows_of(self, ids: Sequence[str]) -> list[int | None]:
        """Return the row of each id; None for a skipped picture."""
        row_of: dict[str, int | None] = {name: None for name, _ in self.skipped}
        rows = rows_with(self.ids, ids)
        row_of |= zip(self.ids[rows], rows.tolist(), strict=True)
        unknown = [name for name in ids if name not in row_of]
        if unknown:
            raise InputError(
                f"{len(unknown)} of {len(ids)} trusted ids do not exist in "
                f"{self.name}{self.example_id}, "
                f"the first is {unknown[0]!r}: correct or remove them."
            )
        return [row_of[name] for name in ids]


def _draw_groups(
    rows_of: dict[str, list[int]],
    groups: Sequence[Hashable],
    fraction: float,
    rng: np.random.RandomState,
) -> set[Hashable]:
    """Draw the groups of a test set: a share of each class, and something of it is left."""
    sizes: dict[Hashable, Counter[str]] = {}
    for label, rows in rows_of.items():
        for row in rows:
            sizes.setdefault(groups[row], Counter())[label] += 1
    held: set[Hashable] = set()
    n_held: Counter[str] = Counter()
    for label in sort_names(rows_of):
        n_rows = len(rows_of[label])
        n_test = min(max(round(fraction * n_rows), 1), n_rows - 1)
        for row in rng.permutation(rows_of[label]):
            if n_held[label] >= n_test:
                break
            size = sizes[groups[row]]
            leaves = all(n_held[other] + n < len(rows_of[other]) for other, n in size.items())
            if leaves and groups[row] not in held:
                held.add(groups[row])
                n_held += size
    untested = sort_names(label for label in rows_of if not n_held[label])
    if untested:
        raise InputError(
            f"No groups can be held out so that class {listed(untested)} is both trained and "
            "tested: verify more samples of it, or give separate test data."
        )
    return held


def validate(
    dataset: TrustedDataset,
    labels_required: bool = True,
    source: str = "",
    samples_required: bool = True,
) -> TrustedDataset:
    """Return `dataset` if nothing is wrong with it.

    Parameters
    ----------
    dataset : TrustedDataset
        The data set.
    labels_required : bool
        Whether there must be given labels of at least two classes, as for fitting.
    source : str
        Source of the data, for messages; by default the name of the data set.
    samples_required : bool
        Whether there must be features if there are no pictures or texts.

    Raises
    ------
    InputError
        If anything is wrong; the message names the sample, class, column or value.
    """
    source = source or dataset.name
    n_samples = len(dataset)
    if n_samples == 0:
        left_out = f" ({len(dataset.skipped)} were skipped)" if dataset.skipped else ""
        raise InputError(f"{source}: there are no samples{left_out}: give data with samples.")
    parts = {
        "X": dataset.X,
        "y": dataset.y,
        "trusted": dataset.trusted,
        "verified": dataset.verified,
        "true_labels": dataset.true_labels,
        "groups": dataset.groups,
        "noise_groups": dataset.noise_groups,
    }
    for part, values in parts.items():
        if values is not None and len(values) != n_samples:
            raise InputError(
                f"{source}: there are {n_samples} samples but {len(values)} entries in {part}: "
                "give one entry for each sample."
            )
    if (missing := pd.isna(dataset.ids)).any():
        row = int(np.argmax(missing))
        raise InputError(
            f"{source}: sample {row} (counted from 0) has no id: give each sample its own."
        )
    if isinstance(dataset.ids, np.ndarray):  # Arrow cannot hold one of them
        _validate_text(dataset.ids, "ids", source)
    for part in ("y", "verified", "true_labels", "groups", "noise_groups"):
        _validate_text(getattr(dataset, part), part, source)
    if count_distinct(dataset.ids) < n_samples:
        sample, count = Counter(dataset.ids).most_common(1)[0]
        raise InputError(f"{source}: id {sample!r} occurs {count} times: give each sample its own.")
    for sample, label in zip(
        dataset.ids[dataset.trusted], dataset.verified[dataset.trusted], strict=True
    ):
        if label is None:
            raise _trusted_without_label(sample)
    if labels_required:
        _validate_labels(dataset, source)
    if dataset.is_text:
        _validate_text(dataset.X, "texts", source)
        if not any(dataset.X):
            raise InputError(f"{source}: all texts are empty: name another column.")
    elif not dataset.is_pictures and samples_required:
        _validate_features(dataset, source)
    return dataset


def _validate_text(values: np.ndarray | None, part: str, source: str) -> None:
    """Raise an error if a text has a lone surrogate, which no file can hold."""
    for text in {*(() if values is None else values)} - {None}:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"{source}: {text!r} among the {part} is not valid text: correct it."
            ) from None


def _validate_labels(dataset: TrustedDataset, source: str) -> None:
    if all(label is None for label in dataset.y):
        raise InputError(
            f"{source}: all labels are empty: give the labels that the samples have, right "
            "or wrong."
        )
    if len(dataset.classes) < 2:
        raise InputError(
            f"{source}: there is only one class, {dataset.classes[0]!r}: a classifier needs "
            "at least two."
        )


def _validate_features(dataset: TrustedDataset, source: str) -> None:
    if dataset.X.shape[1] == 0 or (dataset.is_frame and dataset.X.isna().all(axis=None)):
        raise InputError(
            f"{source}: there is no feature, picture or text: give columns of numbers or words, or "
            "name the column of the pictures with --image-column or of the texts with "
            "--text-column."
        )
    names = dataset.feature_names or range(dataset.X.shape[1])
    found: dict[Any, Any] = {}  # the first wrong value of each column
    for start in range(0, len(dataset), _ROWS_CHECKED_AT_ONCE):
        wrong = _not_finite(dataset.X[start : start + _ROWS_CHECKED_AT_ONCE])
        for column in np.flatnonzero(wrong.any(axis=0)):
            found.setdefault(int(column), start + int(wrong[:, column].argmax()))
    if found:
        values = dataset.X.iloc if dataset.is_frame else dataset.X
        entries = (
            f"row with id {dataset.ids[row]!r}, column {names[column]!r} holds "
            f"{values[row, column]}"
            for column, row in sorted(found.items())
        )
        raise InputError(
            f"{source}: {first_few(entries, '; ')}: fill in missing values, or drop the rows or "
            "the columns."
        )


def _not_finite(X: np.ndarray | pd.DataFrame) -> np.ndarray:
    """Return which values are infinite or, in an array, missing."""
    if not isinstance(X, pd.DataFrame):
        return ~np.isfinite(X)
    return np.column_stack(
        [np.isinf(X[name]) if X[name].dtype.kind == "f" else np.zeros(len(X), bool) for name in X]
    )


def _check_unique(ids: Sequence[str], labels: Sequence[str | None]) -> None:
    counts = Counter(ids)
    repeated = [name for name, count in counts.items() if count > 1]
    if not repeated:
        return
    labels_of: dict[str, set[str | None]] = {name: set() for name in repeated}
    for name, label in zip(ids, labels, strict=True):
        if name in labels_of:
            labels_of[name].add(label)
    found = {name: ", ".join(sorted(map(repr, labels_of[name]))) for name in repeated}
    contradictory = [name for name in repeated if len(labels_of[name]) > 1]
    if len(contradictory) == 1:
        name = contradictory[0]
        raise InputError(
            f"Trusted id {name!r} occurs {counts[name]} times with contradictory labels "
            f"({found[name]}): keep the right one."
        )
    if contradictory:
        shown = first_few(f"{name!r} ({found[name]})" for name in contradictory)
        raise InputError(
            f"{len(contradictory)} trusted ids occur with contradictory labels: {shown}: keep the "
            "right label of each."
        )
    raise InputError(
        f"Trusted id {repeated[0]!r} occurs {counts[repeated[0]]} times ({len(repeated)} ids occur "
        "more than once): name each sample once."
    )


def _trusted_without_label(name: str) -> InputError:
    return InputError(
        f"Trusted sample {name!r} has no label: give its verified label or do not trust it."
    )
