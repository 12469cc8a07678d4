"""Files of trusted samples: their ids and, if they have them, their verified labels."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from pudistill.data.columns import like_known, row_numbers, without_apostrophes, without_decimals
from pudistill.data.dataset import TrustedDataset
from pudistill.data.frames import name_of
from pudistill.data.options import ReadOptions
from pudistill.data.table_columns import read_ids, read_names
from pudistill.data.table_files import Table, as_table_error
from pudistill.data.table_sources import accepts, open_table
from pudistill.data.tables import (
    ID_COLUMNS,
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    TEXT_COLUMNS,
    VERIFIED_LABEL,
)
from pudistill.data.tool_exports import is_tool_export, read_tool_export
from pudistill.exceptions import DataNotice, DataWarning, InputError, warn_user
from pudistill.utils.shown import listed

# Columns of a trusted table that say how a sample was drawn, and when and by whom it was verified.
WEIGHT, ABOUT_REVIEW = "weight", ("when", "who")


def with_shared_columns(data: Any, trusted: Path, options: ReadOptions) -> ReadOptions:
    """Return the options with the columns of ids and labels that a trusted file shows.

    If exactly two columns of the trusted file are columns of the data, too, the one whose values
    differ in all rows names the samples, and the other one holds their labels. If there is
    one such column, it names the samples. Columns that have the usual names, or that the options
    name, are not looked for.

    Parameters
    ----------
    data : str, path or table in memory
        The data; anything but a table is left alone.
    trusted : Path
        The trusted file.
    options : ReadOptions
        The options for reading the data.

    Returns
    -------
    options : ReadOptions
        The same options, possibly with `id_column` and `label_column`.
    """
    is_file = isinstance(data, str | os.PathLike)
    where = Path(data if is_file else name_of(data))
    if is_file and not (where.exists() and accepts(where)):
        return options
    if not (trusted.is_file() and accepts(trusted)) or is_tool_export(trusted, options.encoding):
        return options
    opened = (where if is_file else data, trusted)
    tables = (open_table(source, options.encoding) for source in opened)
    sources = list(zip((where, trusted), tables, strict=True))
    names, trusted_names = (table.schema.names for _, table in sources)
    samples = {*TEXT_COLUMNS, *IMAGE_COLUMNS, options.text_column, options.image_column}
    shared = [
        name
        for name in trusted_names
        if name in names and name not in samples and name not in ID_COLUMNS[1:]
    ]
    usual_id, usual_label = _named(names, *ID_COLUMNS), _named(names, *LABEL_COLUMNS)
    known_id, known_label = options.id_column or usual_id, options.label_column or usual_label
    unknown = [name for name in shared if name not in (known_id, known_label)]
    if not unknown or len(shared) > 2:
        return options
    found = {}
    if known_id not in shared:
        unique = [name for name in unknown if all(_is_unique(*source, name) for source in sources)]
        if len(unique) != 1 or options.id_column is not None:
            return options
        found["id_column"] = unique[0]
        unknown.remove(unique[0])
    if known_label is None and unknown:
        found["label_column"] = unknown[0]
    if found:
        meaning = {"id_column": "names the samples", "label_column": "holds their labels"}
        said = " and ".join(f"column {name!r} {meaning[role]}" for role, name in found.items())
        flags = " ".join(f"--{role.replace('_', '-')} {name}" for role, name in found.items())
        warn_user(f"{where}: {said}, as in {trusted}; {flags} says the same.", DataNotice)
    return options.model_copy(update=found)


def _is_unique(path: Path, table: Table, name: str) -> bool:
    with as_table_error(path):
        values = table.read([name], as_text=[name])[name]
        return values.null_count == 0 and len(values.unique()) == len(values)


def read_trusted(
    path: Path, dataset: TrustedDataset, options: ReadOptions
) -> tuple[list[str], list[str] | None, list[float] | None]:
    """Read the ids of trusted samples, and their verified labels and weights if the file has them.

    Parameters
    ----------
    path : Path
        A table, or what Label Studio, Argilla or FiftyOne export, see `read_tool_export`. The
        table's columns of ids and labels have the names that they have in the data, or else
        ``id`` and ``label``; or it is recognised by its values. The columns ``weight`` (of the
        draw, see `Draws`; rows are in the order of drawing), ``when`` and ``who`` are no labels,
        unless the data have a column of the same name.
    dataset : TrustedDataset
        The data, without these trusted samples.
    options : ReadOptions
        The options with which the data were read.

    Returns
    -------
    ids : list of str
    labels : list of str, or None without such a column
        Verified labels, whole numbers as the data write them.
    weights : list of float, or None without such a column
        Weights of the draws; NaN where there is none.

    Raises
    ------
    InputError
        If the file cannot be read, or has no such columns; the message names the file.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file of trusted samples: correct its name.")
    if not accepts(path):
        raise InputError(f"{path}: give trusted samples as .csv, .tsv, .jsonl or .parquet.")
    table: Table | None = read_tool_export(path, dataset.ids, options.encoding)
    if table is None:
        table = open_table(path, options.encoding)
    names = table.schema.names
    id_column = _named(names, options.id_column, *ID_COLUMNS) or _matching(
        path, table, names, () if _are_row_numbers(dataset) else dataset.ids
    )
    if id_column is None:
        raise InputError(
            f"{path}: there is no column {options.id_column or 'id'!r} among {listed(names)}: put "
            f"the ids of the trusted samples there{dataset.example_id}."
        )
    of_data = {*(dataset.feature_names or ()), options.label_column}
    if WEIGHT in names and WEIGHT in of_data:
        warn_user(
            f"{path}: the column {WEIGHT!r} is taken as that of the data. If it holds the weights "
            f"of draws, as `pudistill next` writes them, rename the column {WEIGHT!r} of the data.",
            DataWarning,
        )
    of_draws = {WEIGHT, *ABOUT_REVIEW} - of_data
    others = [name for name in names if name != id_column and name not in of_draws]
    label_column = _named(
        others, VERIFIED_LABEL, options.label_column, *LABEL_COLUMNS
    ) or _matching(path, table, others[:1] if len(others) == 1 else [], dataset.classes)
    if label_column is None and others:
        raise InputError(
            f"{path}: there is no column {options.label_column or 'label'!r} among "
            f"{listed(names)}: call the verified labels so, or keep the column {id_column!r} alone "
            "if the given labels are right."
        )
    wanted = [name for name in (id_column, label_column) if name is not None]
    with as_table_error(path):
        columns = table.read(wanted, as_text=wanted)
    ids = read_ids(path, table.schema, id_column, columns[id_column])
    ids = without_apostrophes(ids, dataset.ids)
    weights = _read_weights(path, table, ids) if WEIGHT in of_draws.intersection(names) else None
    if label_column is None:
        return list(ids), None, weights
    (labels,) = without_decimals(
        [read_names(path, table.schema, label_column, columns[label_column])]
    )
    if None in labels:
        raise InputError(
            f"{path}: trusted id {ids[list(labels).index(None)]!r} has no label: give it or remove "
            "the row."
        )
    known = {*dataset.y, *dataset.verified} - {None}
    return list(ids), like_known(without_apostrophes(labels, known), known), weights


def _read_weights(path: Path, table: Table, ids: np.ndarray) -> list[float]:
    """Read the weights of draws; NaN where there is none."""
    with as_table_error(path):
        texts = table.read([WEIGHT], as_text=[WEIGHT])[WEIGHT].to_pylist()
    weights = []
    for name, text in zip(ids, texts, strict=True):
        try:
            weight = float(text) if text else np.nan
        except ValueError:
            weight = -1.0  # which is refused below
        if not (np.isnan(weight) if not text else 0 <= weight < np.inf):
            raise InputError(
                f"{path}: the weight of trusted id {name!r} is {text!r}: write a number, 0 for "
                "a sample picked by hand, or nothing for one drawn at random."
            )
        weights.append(weight)
    return weights


def _named(names: list[str], *wanted: str | None) -> str | None:
    """Return the first wanted name that exists."""
    return next((name for name in wanted if name in names), None)


def _matching(path: Path, table: Table, names: list[str], known: Iterable[str]) -> str | None:
    """Return the only column whose values are all known; None if there is no such column."""
    known = set(known)
    with as_table_error(path):
        columns = table.read(names, as_text=names)
    found = []
    for name in names:
        with suppress(InputError):  # it holds neither ids nor labels
            if known.issuperset(read_names(path, table.schema, name, columns[name])):
                found.append(name)
    return found[0] if len(found) == 1 else None


def _are_row_numbers(dataset: TrustedDataset) -> bool:
    """Return whether samples have no ids of their own: then values say little about a column."""
    return np.array_equal(dataset.ids, row_numbers(len(dataset)))
