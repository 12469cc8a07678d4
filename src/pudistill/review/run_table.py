"""The label table of a run as columns in memory, of which a page finds samples quickly."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pudistill.exceptions import InputError
from pudistill.labels.table import SOURCES
from pudistill.review.filters import Filter
from pudistill.runs.folder import Run
from pudistill.utils.shown import shown

NONE = -1  # code of a missing label


@dataclass(frozen=True, eq=False)
class RunTable:
    """The label table of a run.

    Attributes
    ----------
    ids : pyarrow.Array of str, shape (n_samples,)
    classes : tuple of str
        Names of the classes, as the report shows them.
    names : tuple of str
        Names of all labels; `given` and `label` are positions in it, -1 without a label.
    given, label : ndarray of shape (n_samples,), int32
    source : ndarray of shape (n_samples,), int8
        Positions in `SOURCES`.
    trusted : ndarray of shape (n_samples,), bool
    confidence : ndarray of shape (n_samples,), float32
        NaN where it is unknown.
    """

    ids: Any
    classes: tuple[str, ...]
    names: tuple[str, ...]
    given: np.ndarray
    label: np.ndarray
    source: np.ndarray
    trusted: np.ndarray
    confidence: np.ndarray

    @classmethod
    def read(cls, run: Run) -> "RunTable":
        """Read the label table of a finished run."""
        table = run.read_in_parts("labels", pa.Table.from_batches)
        try:
            given, label = (pc.cast(table[name], pa.string()) for name in ("given", "label"))
            known = pc.unique(pa.chunked_array([*given.chunks, *label.chunks], pa.string()))
            names = pa.array(sorted(name for name in known.to_pylist() if name is not None))
            return cls(
                ids=pc.cast(table["id"], pa.string()).combine_chunks(),
                classes=tuple(map(str, run.read_json("metrics.json")["classes"])),
                names=tuple(names.to_pylist()),
                given=_codes(given, names),
                label=_codes(label, names),
                source=_codes(pc.cast(table["source"], pa.string()), pa.array(SOURCES), np.int8),
                trusted=table["trusted"].to_numpy().astype(bool),
                confidence=table["confidence"].to_numpy().astype(np.float32),
            )
        except (KeyError, TypeError, pa.ArrowException) as error:
            raise InputError(
                f"{run.path / 'labels.parquet'} is not a label table ({error}): restore a copy of "
                "it."
            ) from error

    def __len__(self) -> int:
        return len(self.given)

    def id_of(self, row: int) -> str:
        """Return the id of a sample."""
        return self.ids[int(row)].as_py()

    def given_of(self, row: int) -> str | None:
        """Return the given label of a sample."""
        return _name(self.names, self.given[row])

    def label_of(self, row: int) -> str | None:
        """Return the corrected label of a sample."""
        return _name(self.names, self.label[row])

    def rows_of(self, ids: Iterable[str], where: Path) -> np.ndarray:
        """Return the row of each id; raise `InputError` naming one that the run lacks."""
        wanted = pa.array(list(ids), pa.string())
        # A table of the few ids is built, and not one of all samples.
        place = pc.index_in(self.ids, value_set=wanted).to_numpy(zero_copy_only=False)
        found = np.flatnonzero(~np.isnan(place))
        rows = np.full(len(wanted), NONE)
        rows[place[found].astype(int)] = found
        for n in np.flatnonzero(rows == NONE):
            first = pc.index(wanted, wanted[int(n)]).as_py()  # ids can repeat
            rows[n] = rows[first]
            if rows[n] == NONE:
                raise InputError(
                    f"{where} names the sample {shown(wanted[int(n)].as_py())}, which the run does "
                    f"not have (its ids look like {self.id_of(0)!r}): give a table of this run."
                )
        return rows

    def select(self, wanted: Filter, texts: Any = None) -> np.ndarray:
        """Return the rows of the samples that a filter leaves, in their order.

        Parameters
        ----------
        wanted : Filter
            The filter.
        texts : pyarrow.Array of str, optional
            The texts of the samples, which are searched beside the ids.
        """
        keep = np.ones(len(self), dtype=bool)
        for codes, name in ((self.given, wanted.given), (self.label, wanted.label)):
            if name is not None:
                keep &= codes == (self.names.index(name) if name in self.names else len(self.names))
        if wanted.source is not None:
            known = wanted.source in SOURCES
            keep &= self.source == (SOURCES.index(wanted.source) if known else NONE)
        if wanted.changed is not None:
            keep &= ((self.given != self.label) & (self.given != NONE)) == wanted.changed
        if (wanted.low, wanted.high) != (0.0, 1.0):
            with np.errstate(invalid="ignore"):
                keep &= (self.confidence >= wanted.low) & (self.confidence <= wanted.high)
        if wanted.search:
            found = _contains(self.ids, wanted.search)
            keep &= found if texts is None else found | _contains(texts, wanted.search)
        return np.flatnonzero(keep)

    def pairs(self) -> list[tuple[str, str, int]]:
        """Return given and corrected label of the changes, with their number, most first."""
        is_changed = (self.given != self.label) & (self.given != NONE) & ~self.trusted
        n = len(self.names)
        codes, counts = np.unique(
            self.given[is_changed].astype(np.int64) * n + self.label[is_changed], return_counts=True
        )
        order = np.argsort(-counts, kind="stable")
        return [
            (self.names[code // n], self.names[code % n], int(count))
            for code, count in zip(codes[order].tolist(), counts[order], strict=True)
        ]


def _codes(column: Any, names: Any, dtype: type = np.int32) -> np.ndarray:
    codes = pc.fill_null(pc.index_in(column, value_set=names), NONE)
    return codes.to_numpy().astype(dtype)


def _name(names: tuple[str, ...], code: int) -> str | None:
    return None if code == NONE else names[code]


def _contains(texts: Any, part: str) -> np.ndarray:
    found = pc.fill_null(pc.match_substring(texts, part, ignore_case=True), False)
    return found.to_numpy(zero_copy_only=False)
