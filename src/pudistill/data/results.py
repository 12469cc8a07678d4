"""Corrected labels go back to where the data come from: a `datasets.Dataset` with all columns."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from pudistill.data.columns import like_known, row_numbers
from pudistill.data.frames import name_of
from pudistill.data.image_folder import find_pictures
from pudistill.data.loading import load_dataset
from pudistill.data.options import ReadOptions
from pudistill.data.readers import find_format
from pudistill.data.table_files import ArrowTable, Table, as_table_error
from pudistill.data.table_sources import open_table, training_split
from pudistill.data.tables import identify, text_columns
from pudistill.data.writing import batches_of
from pudistill.exceptions import InputError

if TYPE_CHECKING:
    import datasets

_PICTURES = {
    "id": pa.string(),
    "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    "label": pa.string(),
}
_FEATURES = {name: {"dtype": "string", "_type": "Value"} for name in _PICTURES}
# By this `datasets` knows that a column holds pictures.
_AS_PICTURES = {
    "huggingface": json.dumps({"info": {"features": _FEATURES | {"image": {"_type": "Image"}}}})
}
LABEL, CHANGED, CONFIDENCE = "corrected_label", "label_changed", "label_confidence"


class Source(NamedTuple):
    """The data of a run.

    Attributes
    ----------
    data : str
        The file, the folder or the name of the data.
    options : ReadOptions
        How they were read.
    has_own_labels : bool
        Whether the given labels are those of the data; in experiments noise was added.
    """

    data: str
    options: ReadOptions
    has_own_labels: bool


def with_corrected_labels(
    labels: pd.DataFrame, data: Any = None, source: Source | None = None
) -> "datasets.Dataset":
    """Return all columns and rows of the original data, with the corrected labels.

    Parameters
    ----------
    labels : DataFrame of shape (n_samples, ...)
        The label table. With a column ``id``, rows are found by their ids; otherwise the data have
        the same rows in the same order.
    data : str, path or table in memory, default=None
        The original data. ``None``: those of `source`.
    source : Source, default=None
        The data of the run, if the labels are those of a run.

    Returns
    -------
    dataset : datasets.Dataset
        With the columns ``corrected_label``, ``label_changed`` and ``label_confidence``; they are
        missing for rows that took no part, such as those held out for testing.

    Raises
    ------
    InputError
        If the data are not there, or not those of the label table.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            "to_datasets needs the package datasets: pip install 'pudistill[datasets]'."
        ) from error
    if data is None and source is None:
        raise InputError("Pass the data that were fitted: to_datasets(data).")
    options = ReadOptions() if source is None else source.options
    # 1. Read the data, and find the row of the label table for each of their rows.
    data = source.data if data is None and source is not None else training_split(data)
    where = Path(data if isinstance(data, str | os.PathLike) else name_of(data))
    table = _open(data, options)
    original = data if isinstance(data, datasets.Dataset) else _read(where, table, options)
    if source is None:
        rows = _rows_in_order(where, labels, len(original))
    else:
        ids, given = identify(where, table, options)
        if ids is None:
            ids = row_numbers(len(original))
            given = given if source.has_own_labels else None
            if given is not None:  # a column with gaps can have the class 1 as 1.0
                has_label = given != None  # noqa: E711
                given[has_label] = like_known(given[has_label], {*labels["given"].dropna()})
        else:
            given = None
        rows = _rows_by_id(where, labels, ids, given)
    # 2. Make datasets of the new columns.
    taken = {LABEL, CHANGED, CONFIDENCE}.intersection(original.column_names)
    if taken:
        raise InputError(f"{where} has a column {min(taken)!r} already: rename or remove it.")
    found = np.flatnonzero(rows >= 0)
    columns = {LABEL: "label", CHANGED: "changed", CONFIDENCE: "confidence"}
    values = {}
    for name, column in columns.items():
        entries: list[Any] = [None] * len(rows)
        for row, value in zip(found, labels[column].to_numpy()[rows[found]].tolist(), strict=True):
            entries[row] = value
        values[name] = entries
    added = datasets.Dataset.from_dict(values)
    names = _class_label(original.features, values[LABEL])
    if names is not None:
        added = added.cast_column(LABEL, names)
    # 3. Put both side by side.
    return datasets.concatenate_datasets([original, added], axis=1)


def _open(data: Any, options: ReadOptions) -> Table:
    """Open the data as a table, whatever they are."""
    if not isinstance(data, str | os.PathLike):
        return open_table(data)
    path = Path(data)
    found = find_format(path) if path.exists() else None
    if found is not None and found.has_columns:
        return open_table(path, options.encoding)
    if found is not None and found.module == "image_folder":
        found_pictures = find_pictures(path, options)
        columns = {
            "id": found_pictures.ids,
            "image": [
                {"bytes": None, "path": str(file.absolute())} for file in found_pictures.files
            ],
            "label": found_pictures.labels,
        }
        return ArrowTable(pa.table(columns, pa.schema(_PICTURES, _AS_PICTURES)), path)
    if found is None and path.is_absolute():
        raise InputError(f"{path} is not there any more: pass the data, to_datasets(data).")
    dataset = load_dataset(data, labels_required=False, skip_bad=options.skip_bad)
    return ArrowTable(pa.Table.from_batches(batches_of(dataset, path)), path)


def _read(where: Path, table: Table, options: ReadOptions) -> "datasets.Dataset":
    """Read all columns of a table."""
    import datasets
    from datasets.table import InMemoryTable

    with as_table_error(where):
        columns = table.read(table.schema.names, text_columns(where, table, options))
        for n, field in enumerate(columns.schema):
            if pa.types.is_dictionary(field.type):  # which datasets do not know
                columns = columns.set_column(n, field.name, columns[n].cast(field.type.value_type))
    try:
        return datasets.Dataset(InMemoryTable(columns))
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InputError(
            f"{where}: datasets cannot hold these columns ({error}): drop the column that "
            "the error names."
        ) from error


def _rows_in_order(where: Path, labels: pd.DataFrame, n_rows: int) -> np.ndarray:
    """Return the row in the label table for each row of the data, which is the same."""
    if n_rows != len(labels):
        raise InputError(
            f"{where}: there are {n_rows} rows, but {len(labels)} samples were fitted: pass the "
            "data that were fitted, with all rows in the same order."
        )
    return np.arange(n_rows)


def _rows_by_id(
    where: Path, labels: pd.DataFrame, ids: np.ndarray, given: np.ndarray | None
) -> np.ndarray:
    """Return the row in the label table for each row of the data; -1 for rows without a result.

    If the ids are row numbers, the given labels show whether the rows are those of the run.
    """
    row_of = {name: row for row, name in enumerate(labels["id"])}
    missing = row_of.keys() - {*ids}
    if missing:
        raise InputError(
            f"{where}: {len(missing)} of {len(labels)} samples of the run are not there, such as "
            f"{min(missing)!r}: pass the data that were fitted."
        )
    rows = np.array([row_of.get(name, -1) for name in ids], dtype=np.intp)
    for name, row, label in zip(ids, rows, () if given is None else given, strict=False):
        fitted = None if row < 0 else labels["given"].iloc[row]
        if None not in (fitted, label) and fitted != label:
            raise InputError(
                f"{where}: row {name} has the label {label!r}, but {fitted!r} when it was fitted: "
                "pass the data that were fitted, with all rows in the same order."
            )
    return rows


def _class_label(features: Mapping[str, Any], labels: list[Any]) -> Any:
    """Return the type of the column of labels, if there is one ClassLabel and it has all labels."""
    found = [kind for kind in features.values() if type(kind).__name__ == "ClassLabel"]
    if len(found) != 1:
        return None
    known = {*labels} - {None}
    codes = range(len(found[0].names))
    is_known = known <= {*found[0].names} or known <= {*codes}
    return found[0] if is_known else None
