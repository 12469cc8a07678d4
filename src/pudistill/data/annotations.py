"""Several labels a sample: what each of several sources, such as people or rules, says of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from pudistill.data.frames import as_frame
from pudistill.exceptions import InputError
from pudistill.utils.arrays import compute_in_blocks, rowwise
from pudistill.utils.shown import first_few, listed, shown

# From here on, not every whole number is a float.
LARGEST_INTEGER = 2**53

# Labels that mean that a source is silent, beside missing values.
_SILENT = (-1, "-1", "-1.0", "")


@dataclass(frozen=True, eq=False, repr=False)
class Annotations:
    """Labels that several sources gave, each to some of the samples.

    An alternative to an array of shape (n_samples, n_sources) as `y` of
    `PUDistillClassifier.fit`, which takes no memory where a source is silent.

    Parameters
    ----------
    n_samples : int
        Number of samples.
    names : sequence of n_sources str
        Names of the sources.
    rows, source : ndarray of shape (n_annotations,), int
        Sample and source of each annotation, from 0.
    label : array-like of shape (n_annotations,)
        The label that the source gave: text or whole number. Missing values, empty texts and -1
        are left out.

    Examples
    --------
    >>> import pandas as pd
    >>> from pudistill import Annotations
    >>> table = pd.DataFrame({"id": ["a", "a", "b"], "source": ["Ann", "Bob", "Ann"],
    ...                       "label": ["cat", "dog", "dog"]})
    >>> Annotations.from_table(table, ids=["a", "b", "c"])
    <Annotations: 3 labels of 3 samples by 2 sources>
    """

    n_samples: int
    names: Sequence[str]
    rows: np.ndarray
    source: np.ndarray
    label: np.ndarray

    def __post_init__(self) -> None:
        parts = {name: np.asarray(getattr(self, name)) for name in ("rows", "source", "label")}
        n = len(parts["label"])
        for name, size in (("rows", self.n_samples), ("source", len(self.names))):
            values = parts[name]
            if len(values) != n or (n and not 0 <= values.min() <= values.max() < size):
                raise InputError(
                    f"{name} must hold a whole number from 0 to {size - 1} for each of the {n:,} "
                    "labels."
                )
        is_said = _says_something(parts["label"])
        for name, values in parts.items():
            object.__setattr__(self, name, values if is_said.all() else values[is_said])

    def __repr__(self) -> str:
        return (
            f"<Annotations: {len(self.rows):,} labels of {self.n_samples:,} samples by "
            f"{len(self.names):,} sources>"
        )

    def __len__(self) -> int:
        return self.n_samples

    @classmethod
    def from_table(
        cls,
        table: Any,
        ids: Any,
        *,
        id_column: str = "id",
        source_column: str = "source",
        label_column: str = "label",
    ) -> "Annotations":
        """Read a long table, with a row for each annotation.

        Parameters
        ----------
        table : DataFrame
            A row for each label; those without one, or with -1, are left out.
        ids : array-like of shape (n_samples,)
            A unique name for each sample, in the order of the samples.
        id_column, source_column, label_column : str
            Columns of the sample, the source and the label.

        Returns
        -------
        annotations : Annotations
            The annotations.

        Raises
        ------
        InputError
            If a column is missing, a sample is unknown, or a row names no source.
        """
        table = as_frame(table)
        if missing := [c for c in (id_column, source_column, label_column) if c not in table]:
            raise InputError(
                f"The annotations have no column {listed(missing)}: they need a row for each label "
                f"that a source gave, with the columns {id_column}, {source_column} and "
                f"{label_column}."
            )
        table = table[_says_something(table[label_column].to_numpy())]
        ids = pd.Index(ids)
        if not ids.is_unique:
            twice = ids[ids.duplicated()][0]
            raise InputError(f"The id {shown(twice)} occurs twice: give each sample its own.")
        rows = ids.get_indexer(pd.Index(table[id_column]))
        if (rows < 0).any():
            unknown = [repr(name) for name in table[id_column][rows < 0].unique().tolist()]
            raise InputError(
                f"The annotations name samples that are not in the data: {first_few(unknown)} (ids "
                f"of the data look like {ids[:1].tolist()[0]!r}): correct their ids, or remove "
                "these rows."
            )
        if (is_nameless := table[source_column].isna().to_numpy()).any():
            sample = table[id_column].to_numpy()[is_nameless][0]
            raise InputError(f"An annotation of sample {shown(sample)} names no source: add it.")
        source, names = pd.factorize(table[source_column].map(str), sort=True)
        return cls(len(ids), names.tolist(), rows, source, table[label_column].to_numpy())

    @classmethod
    def from_columns(cls, columns: Any) -> "Annotations":
        """Read an array or a data frame with a column for each source, missing where it is silent.

        Parameters
        ----------
        columns : array-like or DataFrame of shape (n_samples, n_sources)
            NaN, None, NA, an empty text and -1 mean that a source is silent.

        Returns
        -------
        annotations : Annotations
            The annotations, by sample.
        """
        frame = as_frame(columns)
        names = list(map(str, getattr(frame, "columns", range(np.shape(frame)[1]))))
        values = frame.to_numpy(object) if isinstance(frame, pd.DataFrame) else np.asarray(frame)
        if values.dtype.kind == "f" and np.isinf(values).any():
            row, column = np.argwhere(np.isinf(values))[0]
            raise InputError(f"Source {shown(names[column])} says infinity in row {row}.")
        rows, source = np.nonzero(_says_something(values.ravel()).reshape(values.shape))
        return cls(len(values), names, rows, source, values[rows, source])

    def take(self, rows: np.ndarray) -> "Annotations":
        """Return the annotations of the samples at `rows`, a mask or positions."""
        kept = np.arange(self.n_samples)[rows]
        number = np.full(self.n_samples, -1)
        number[kept] = np.arange(len(kept))
        moved = number[self.rows]
        of_kept = moved != -1
        return replace(
            self,
            n_samples=len(kept),
            rows=moved[of_kept],
            source=self.source[of_kept],
            label=self.label[of_kept],
        )

    def only(self, kept: np.ndarray) -> "Annotations":
        """Return some of the annotations, a mask or positions of them."""
        return replace(self, rows=self.rows[kept], source=self.source[kept], label=self.label[kept])

    def consistent(self) -> tuple[np.ndarray, np.ndarray]:
        """Find annotations that repeat or contradict others of the same source and sample.

        Returns
        -------
        once : ndarray of shape (n_annotations,), bool
            The first of equal ones, and none that contradict each other.
        is_torn : ndarray of shape (n_annotations,), bool
            Those that contradict each other.
        """
        keys = self.rows.astype(np.int64) * len(self.names) + self.source
        if (np.diff(keys) > 0).all():  # as those of columns
            return np.ones(len(keys), dtype=bool), np.zeros(len(keys), dtype=bool)
        table = pd.DataFrame({"key": keys, "label": self.codes()[0]})
        n_labels = table.groupby("key")["label"].transform("nunique")
        is_torn = (n_labels > 1).to_numpy()
        return ~table.duplicated().to_numpy() & ~is_torn, is_torn

    def codes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels as codes, and the label of each code; whole numbers are integers."""
        codes, names = pd.factorize(_plain(self.label))
        return codes, np.asarray(names)

    def one_hot(self, codes: np.ndarray, n_classes: int) -> csr_array:
        """Return a sparse matrix of shape (n_samples, n_sources * n_classes), float32.

        1 in column ``s * n_classes + j`` where source `s` says class `j`.
        """
        cells = self.source * n_classes + codes
        shape = (self.n_samples, len(self.names) * n_classes)
        return csr_array((np.ones(len(cells), dtype=np.float32), (self.rows, cells)), shape=shape)

    def vote(self) -> np.ndarray:
        """Return the label of each sample that most sources gave, see `majority_vote`.

        Returns
        -------
        vote : ndarray of object, shape (n_samples,)
            None where all sources are silent.
        """
        once = self.only(self.consistent()[0])
        codes, names = once.codes()
        if len(names) == 0:
            return np.full(self.n_samples, None, dtype=object)
        vote = majority_vote(once.one_hot(codes, len(names)), len(names))
        return np.array([*names.tolist(), None], dtype=object)[vote]


def _says_something(labels: np.ndarray) -> np.ndarray:
    """Return which labels are no missing value and nothing that means silence."""
    if labels.dtype.kind in "if":
        return ~(np.isnan(labels) | (labels == -1))
    values = pd.Series(labels, dtype=object)
    return (values.notna() & ~values.isin(_SILENT)).to_numpy()


def majority_vote(said: csr_array, n_classes: int) -> np.ndarray:
    """Return the label that most sources gave to each sample.

    Parameters
    ----------
    said : csr_array of shape (n_samples, n_sources * n_classes)
        As in `Sources`.
    n_classes : int
        Number of classes.

    Returns
    -------
    vote : ndarray of shape (n_samples,), int
        The label; -1 where all sources are silent. Of labels with as many votes, that of the
        sources which agree more often with others.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import csr_array
    >>> from pudistill.data.annotations import majority_vote
    >>> said = csr_array(np.array([[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]))
    >>> majority_vote(said, n_classes=2).tolist()
    [0, 1, -1]
    """
    # 1. How often each source agrees with the sample's other labels.
    n_agreed, n_others = count_agreements(said, add_up_votes(said, n_classes))
    agreement = (n_agreed + 0.5) / (n_others + 1)
    # 2. It adds less than half a vote in all, and so decides between equal numbers of votes only.
    n_votes = np.diff(said.indptr)
    added = agreement[said.indices // n_classes] / (2 * np.repeat(n_votes, n_votes) + 1)
    weights = csr_array((1 + added, said.indices, said.indptr), shape=said.shape)
    vote = rowwise(lambda block: block.argmax(axis=1), add_up_votes(weights, n_classes))
    return np.where(n_votes > 0, vote, -1)


def add_up_votes(said: csr_array, n_classes: int) -> np.ndarray:
    """Add up what all sources say of each sample, by class.

    Parameters
    ----------
    said : csr_array of shape (n_samples, n_sources * n_classes)
        As in `Sources`, or weights of these labels.
    n_classes : int
        Number of classes.

    Returns
    -------
    votes : ndarray of shape (n_samples, n_classes)
        The sums.
    """

    def of_block(part: slice) -> np.ndarray:
        ends = said.indptr[part.start : part.stop + 1]
        entries = slice(ends[0], ends[-1])
        parts = (said.data[entries], said.indices[entries] % n_classes, ends - ends[0])
        return csr_array(parts, shape=(len(ends) - 1, n_classes)).toarray().astype(float)

    return compute_in_blocks(of_block, said.shape[0])


def count_agreements(said: csr_array, votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count how often the other labels of its samples are those of a source.

    Parameters
    ----------
    said : csr_array of shape (n_samples, n_sources * n_classes)
        As in `Sources`.
    votes : ndarray of shape (n_samples, n_classes)
        As from `add_up_votes`.

    Returns
    -------
    n_agreed, n_others : ndarray of shape (n_sources,)
        Other labels that are those of the source, and all other labels.
    """
    n_classes, n_votes = votes.shape[1], np.diff(said.indptr)
    source_of, row_of = said.indices // n_classes, np.repeat(np.arange(len(votes)), n_votes)
    counted = votes[row_of, said.indices % n_classes] - 1, n_votes[row_of] - 1
    n_agreed, n_others = (np.bincount(source_of, n, said.shape[1] // n_classes) for n in counted)
    return n_agreed, n_others


def _plain(label: np.ndarray) -> np.ndarray:
    """Return labels in which whole numbers are integers, as they are not beside NaN."""
    kinds = {type(value) for value in label.tolist()} if label.dtype == object else set()
    if label.dtype.kind == "f" or (float in kinds and kinds <= {int, float}):
        numbers = label.astype(float)
        are_whole = (numbers == numbers.round()) & (np.abs(numbers) < LARGEST_INTEGER)
        return numbers.astype(int) if are_whole.all() else numbers
    return label
