"""Several labels a sample: what each of several sources, such as people or rules, says of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from pudistill.data.frames import as_frame
from pudistill.data.names import NO_CLASS_LABEL
from pudistill.exceptions import DataWarning, InputError, warn_user
from pudistill.labels.alignment import aligned
from pudistill.labels.checks import MISSING, Labels, check_labels
from pudistill.labels.sources import Sources
from pudistill.utils.shown import first_few, listed, shown


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
        The label that the source gave: text or whole number.

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
            Annotations; those without a label are left out.
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
        table = table[table[label_column].notna()]
        rows = pd.Index(ids).get_indexer(pd.Index(table[id_column]))
        if (rows < 0).any():
            unknown = table[id_column][rows < 0].unique().tolist()
            raise InputError(
                f"The annotations name samples that are not in the data: {first_few(unknown)}: "
                "correct their ids, or remove these rows."
            )
        source, names = pd.factorize(table[source_column], sort=True)
        if (source < 0).any():
            sample = table[id_column].to_numpy()[source < 0][0]
            raise InputError(f"An annotation of sample {shown(sample)} names no source: add it.")
        return cls(len(ids), list(map(str, names)), rows, source, table[label_column].to_numpy())

    @classmethod
    def from_columns(cls, columns: Any) -> "Annotations":
        """Read an array or a data frame with a column for each source, missing where it is silent.

        Parameters
        ----------
        columns : array-like or DataFrame of shape (n_samples, n_sources)
            NaN, None and NA mean that a source is silent, and so does -1 among whole numbers.

        Returns
        -------
        annotations : Annotations
            The annotations, by sample.
        """
        frame = as_frame(columns)
        names = list(map(str, getattr(frame, "columns", range(np.shape(frame)[1]))))
        values = frame.to_numpy(object) if isinstance(frame, pd.DataFrame) else np.asarray(frame)
        is_said = ~np.asarray(pd.isna(values))
        if values.dtype.kind in "if":
            is_said &= values != MISSING
        rows, source = np.nonzero(is_said)
        return cls(len(values), names, rows, source, values[rows, source])

    def take(self, rows: np.ndarray) -> "Annotations":
        """Return the annotations of the samples at `rows`, a mask or positions."""
        kept = np.arange(self.n_samples)[rows]
        number = np.full(self.n_samples, MISSING)
        number[kept] = np.arange(len(kept))
        moved = number[self.rows]
        of_kept = moved != MISSING
        return replace(
            self,
            n_samples=len(kept),
            rows=moved[of_kept],
            source=self.source[of_kept],
            label=self.label[of_kept],
        )


def has_several_sources(y: Any) -> bool:
    """Return whether given labels are those of several sources, a column for each."""
    if isinstance(y, Annotations):
        return True
    if isinstance(y, list | tuple):
        shapes = {np.shape(row) for row in y}
        return len(shapes) == 1 and len(shape := shapes.pop()) == 1 and shape[0] > 1
    shape = getattr(y, "shape", ())
    return len(shape) == 2 and shape[1] > 1


def check_annotations(
    y: Any,
    trusted: Any = None,
    *,
    index: pd.Index | None = None,
    no_class_label: Any = NO_CLASS_LABEL,
) -> Labels:
    """Convert labels of several sources, and trusted samples, to codes.

    Parameters
    ----------
    y : Annotations, or array-like or DataFrame of shape (n_samples, n_sources)
        Labels of several sources. A source that contradicts itself on a sample counts as silent
        there, with a warning.
    trusted, index, no_class_label
        As for `check_labels`. A mask can only mark samples whose sources agree. ``None``: nothing
        is verified.

    Returns
    -------
    labels : Labels
        The labels; `given` is the majority vote of the sources, see `majority_vote`.

    Raises
    ------
    InputError
        If a source gives a label that is no class: neither verified nor the majority's for any
        sample; or as for `check_labels`.
    """
    if not isinstance(y, Annotations):
        y = aligned("y", as_frame(y), index, np.shape(y)[0] if index is None else len(index))
        y = Annotations.from_columns(y)
    y = _checked(y, no_class_label)
    codes, names = pd.factorize(_plain(y.label), sort=False)
    n_labels = len(names)
    said = _one_hot(y, codes, n_labels)
    vote = majority_vote(said, len(y.names), n_labels)
    given = np.full(y.n_samples, None, dtype=object)
    given[vote != MISSING] = names[vote[vote != MISSING]]
    if trusted is None:
        labels = check_labels(given, vote != MISSING, for_fit=False, no_class_label=no_class_label)
        nothing = np.zeros(y.n_samples, dtype=bool)
        unknown = np.full(y.n_samples, MISSING)
        labels = replace(labels, trusted=nothing, verified=unknown, from_mask=False)
    else:
        labels = check_labels(given, trusted, index=index, no_class_label=no_class_label)
        if labels.from_mask:
            _check_agreement(y, codes, labels.trusted, index)
    known = {name: code for code, name in enumerate(labels.classes.tolist())}
    code_of = np.array([known.get(name, MISSING) for name in names.tolist()])
    if (unknown := code_of[codes] == MISSING).any():
        n = np.flatnonzero(unknown)[0]
        row = y.rows[n] if index is None else index[y.rows[n]]
        raise InputError(
            f"Source {shown(y.names[y.source[n]])} says {shown(y.label[n])} of sample {row}, which "
            "is no class: no sample was verified to be of it, and for none it has the majority. "
            "Correct the label, verify a sample of it, or remove it."
        )
    said = _one_hot(y, code_of[codes], labels.n_classes)
    return replace(labels, sources=Sources(np.array(y.names, dtype=object), said))


def majority_vote(said: csr_array, n_sources: int, n_classes: int) -> np.ndarray:
    """Return the label that most sources gave to each sample.

    Parameters
    ----------
    said : csr_array of shape (n_samples, n_sources * n_classes)
        As in `Sources`.
    n_sources, n_classes : int
        Number of sources and of classes.

    Returns
    -------
    vote : ndarray of shape (n_samples,), int
        The label; -1 where all sources are silent. Of labels with as many votes, that of the
        sources which agree more often with others.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import csr_array
    >>> from pudistill.labels.annotations import majority_vote
    >>> said = csr_array(np.array([[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]))
    >>> majority_vote(said, n_sources=2, n_classes=2).tolist()
    [0, 1, -1]
    """
    to_class = _one_hot_table(n_sources, n_classes)
    source_of = said.indices // n_classes
    row_of = np.repeat(np.arange(said.shape[0]), np.diff(said.indptr))
    votes = (said @ to_class).tocsr()
    n_votes = np.diff(said.indptr)
    # Share of the sample's other votes that agree with each annotation.
    same = np.asarray(votes[row_of, said.indices % n_classes]).ravel()
    others = n_votes[row_of] - 1
    agreed = np.bincount(source_of, np.where(others > 0, same - 1, 0), n_sources)
    agreement = (agreed + 0.5) / (np.bincount(source_of, others, n_sources) + 1)
    # Less than half a vote in all: it decides between equal numbers of votes only.
    share = csr_array(
        (1 + agreement[source_of] / (2 * n_votes[row_of] + 1), said.indices, said.indptr),
        shape=said.shape,
    )
    weighted = (share @ to_class).tocsr()
    vote = np.full(said.shape[0], MISSING)
    has_vote = n_votes > 0
    vote[has_vote] = np.asarray(weighted.argmax(axis=1)).ravel()[has_vote]
    return vote


def _one_hot_table(n_sources: int, n_classes: int) -> csr_array:
    """Return the matrix that adds up the votes of all sources by class."""
    columns = np.arange(n_sources * n_classes)
    shape = (n_sources * n_classes, n_classes)
    return csr_array((np.ones(len(columns)), (columns, columns % n_classes)), shape=shape)


def _one_hot(y: Annotations, codes: np.ndarray, n_classes: int) -> csr_array:
    cells = y.source * n_classes + codes
    shape = (y.n_samples, len(y.names) * n_classes)
    return csr_array((np.ones(len(cells), dtype=np.float32), (y.rows, cells)), shape=shape)


def _plain(label: np.ndarray) -> np.ndarray:
    """Return labels in which whole numbers are integers, as they are not beside NaN."""
    kinds = {type(value) for value in label.tolist()} if label.dtype == object else set()
    if label.dtype.kind == "f" or (float in kinds and kinds <= {int, float}):
        numbers = label.astype(float)
        return numbers.astype(int) if (numbers == numbers.round()).all() else numbers
    return label


def _checked(y: Annotations, no_class_label: Any) -> Annotations:
    """Leave out annotations that say nothing, and sources that are silent or said no class."""
    kept = np.ones(len(y.rows), dtype=bool)
    if no_class_label is not None:
        kept &= np.array([label != no_class_label for label in y.label.tolist()], dtype=bool)
    # Of a source that says the same twice, once is enough; what contradicts itself says nothing.
    codes, _ = pd.factorize(_plain(y.label))
    table = pd.DataFrame({"row": y.rows, "source": y.source, "label": codes})[kept]
    table = table.drop_duplicates()
    is_torn = table.duplicated(["row", "source"], keep=False)
    if is_torn.any():
        first = table[is_torn].iloc[0]
        n = table[is_torn].groupby(["row", "source"]).ngroups
        warn_user(
            f"Sources contradict themselves on {n:,} samples, such as source "
            f"{shown(y.names[first['source']])} on row {first['row']}: they count as silent there.",
            DataWarning,
        )
    positions = table.index[~is_torn]
    y = replace(y, rows=y.rows[positions], source=y.source[positions], label=y.label[positions])
    speaks = np.bincount(y.source, minlength=len(y.names)) > 0
    if not speaks.any():
        raise InputError("No source says anything of any sample: there are no given labels.")
    if not speaks.all():
        silent = [name for name, spoke in zip(y.names, speaks, strict=True) if not spoke]
        warn_user(f"These sources never speak and are left out: {listed(silent)}.", DataWarning)
        names = [name for name, spoke in zip(y.names, speaks, strict=True) if spoke]
        y = replace(y, names=names, source=(np.cumsum(speaks) - 1)[y.source])
    return y


def _check_agreement(
    y: Annotations, codes: np.ndarray, trusted: np.ndarray, index: pd.Index | None
) -> None:
    """Raise an `InputError` if a sample is marked as right whose sources disagree."""
    is_marked = trusted[y.rows]
    said = pd.DataFrame({"row": y.rows[is_marked], "code": codes[is_marked]}).drop_duplicates()
    disagree = said["row"][said.duplicated("row")]
    if len(disagree):
        row = disagree.iloc[0]
        raise InputError(
            f"Sample {row if index is None else index[row]} is marked as right, but its sources "
            "disagree: pass the verified labels as `trusted` in place of marks."
        )
