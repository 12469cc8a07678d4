"""Columns of a table as names (labels, ids, groups), marks of verified samples, or features."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pudistill.data.columns import as_ids, object_array, read_mark, whole_number, without_decimals
from pudistill.data.frames import is_list, value_type
from pudistill.data.number_words import number_in, number_styles
from pudistill.data.table_files import as_table_error
from pudistill.exceptions import InputError

_A_SECOND = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([ T].*)?")


def read_names(path: Path, schema: pa.Schema, name: str, column: pa.ChunkedArray) -> np.ndarray:
    """Return labels, ids or groups as an object array of str, None where missing."""
    kind, values = _python_values(path, name, column)
    classes = class_names(schema, name)
    if pa.types.is_integer(kind) and classes is not None:
        return object_array(_class_name(path, name, value, classes) for value in values)
    if pa.types.is_floating(kind):
        return object_array(whole_number(path, name, value) for value in values)
    return object_array(None if value in (None, "") else str(value) for value in values)


def _python_values(path: Path, name: str, column: pa.ChunkedArray) -> tuple[pa.DataType, list]:
    """Return the type and the values of a column of names or numbers; dates become text."""
    if not is_name(column.type):
        raise InputError(
            f"{path}: column {name!r} is of type {column.type}: give names (text) or whole numbers."
        )
    with as_table_error(path):  # damaged text raises here, when it becomes Python strings
        column = _plain_values(column)
        if pa.types.is_temporal(column.type):
            column = column.cast(pa.string())
        return column.type, column.to_pylist()


def read_labels(path: Path, schema: pa.Schema, name: str, column: pa.ChunkedArray) -> np.ndarray:
    """Read names as `read_names` does; equal names are one object, to save memory."""
    if not is_name(column.type) or pa.types.is_null(column.type):
        return read_names(path, schema, name, column)
    with as_table_error(path):
        encoded = column.dictionary_encode().unify_dictionaries()
        codes = [pc.fill_null(chunk.indices.cast(pa.int64()), -1) for chunk in encoded.chunks]
        distinct = encoded.chunk(0).dictionary if encoded.chunks else pa.array([], pa.string())
    names = [*read_names(path, schema, name, pa.chunked_array([distinct])), None]
    return object_array(names)[np.concatenate([np.zeros(0, np.int64), *codes])]


def read_ids(path: Path, schema: pa.Schema, name: str, column: pa.ChunkedArray) -> Any:
    """Return ids as an array of str; every row must have one."""
    ids = column
    with as_table_error(path):
        column.validate(full=True)  # damaged text raises here
        if not is_words(column.type) or pc.any(pc.match_substring_regex(column, r"\.0*$")).as_py():
            (names,) = without_decimals([read_names(path, schema, name, column)])
            ids = pa.chunked_array([pa.array(names, pa.string())])
        is_missing = pc.fill_null(pc.equal(ids, ""), True).to_numpy()
    if is_missing.any():
        raise InputError(
            f"{path}: row {is_missing.argmax()} (counted from 0) has no id in column {name!r}: "
            "give every row an id."
        )
    return as_ids(ids)


def read_marks(path: Path, name: str, column: pa.ChunkedArray, ids: np.ndarray) -> np.ndarray:
    """Return the mask of the samples that a column marks as verified; a blank marks nothing."""
    _, values = _python_values(path, name, column)
    marks = [read_mark(value) for value in values]
    if None in marks:
        row = marks.index(None)
        raise InputError(
            f"{path}: column {name!r} holds {values[row]!r} in the row with id {ids[row]!r}: mark "
            "verified samples with true, 1, yes or x, and others with false, 0, no or a blank; "
            "call a column of verified labels 'verified_label', and leave --trusted-column out."
        )
    return np.array(marks, dtype=bool)


def is_words(kind: pa.DataType) -> bool:
    """Return whether values of this type are text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()


def is_name(kind: pa.DataType) -> bool:
    """Return whether a column of this type can hold labels, ids or groups."""
    kind = value_type(kind)
    is_number = _is_numeric(kind) and not pa.types.is_decimal(kind)
    return is_number or is_words(kind) or _is_time(kind)


def is_feature(kind: pa.DataType) -> bool:
    """Return whether a column of this type can be a feature, or several: a list of numbers."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    kind = value_type(kind)
    if is_words(kind) or _is_time(kind):
        return True
    while is_list(kind):
        kind = kind.value_type
        if pa.types.is_decimal(kind) or pa.types.is_null(kind):
            return False
    return _is_numeric(kind)


def _is_time(kind: pa.DataType) -> bool:
    return pa.types.is_temporal(kind) and not pa.types.is_interval(kind)


def read_features(path: Path, columns: pa.Table, ids: np.ndarray) -> np.ndarray | pd.DataFrame:
    """Return features: a matrix if all are numbers without gaps, else a data frame.

    Parameters
    ----------
    path : Path
        The table, for messages.
    columns : pyarrow.Table
        The columns, of types that `is_feature` accepts.
    ids : ndarray of object, shape (n_samples,)
        Ids of the samples, the index of the data frame.

    Returns
    -------
    X : ndarray or DataFrame of shape (n_samples, n_features)
        float32 or float64. In a data frame, numbers are float32 or float64, with NaN where missing;
        complete booleans bool; dates and times datetime64; words str in columns of dtype object,
        with None where missing.
    """
    if all(map(_is_numeric, columns.schema.types)) and not any(map(_has_gaps, columns.columns)):
        kinds = set(columns.schema.types)
        dtype = np.float32 if kinds and kinds <= {pa.float16(), pa.float32()} else np.float64
        X = np.empty((columns.num_rows, columns.num_columns), dtype)
        for index, column in enumerate(columns.columns):
            X[:, index] = _numbers(column, dtype)
        return X
    plain = {name: _plain_values(columns[name]) for name in columns.column_names}
    with as_table_error(path):
        styles = _styles(path, plain, ids)
        values = {
            name: _parsed(column, styles[name]) if name in styles else _values(column)
            for name, column in plain.items()
        }
    index = pd.Index(ids, dtype=object)
    # A Series of its own dtype: pandas would make words another dtype, which has no None.
    return pd.DataFrame({name: pd.Series(v, index, v.dtype) for name, v in values.items()})


def _is_numeric(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    # A column without any value has the type null.
    return pa.types.is_null(kind) or any(test(kind) for test in tests)


def _has_gaps(column: pa.ChunkedArray) -> bool:
    is_float = pa.types.is_floating(column.type)
    return column.null_count > 0 or (is_float and bool(np.isnan(_numbers(column)).any()))


def _numbers(column: pa.ChunkedArray, dtype: type = np.float64) -> np.ndarray:
    return column.cast(pa.from_numpy_dtype(dtype), safe=False).to_numpy()


def _plain_values(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column whose values are stored one by one, not as numbers of a dictionary."""
    kind = value_type(column.type)
    return column.cast(pa.large_string() if kind == pa.string_view() else kind)


def _values(column: pa.ChunkedArray) -> np.ndarray:
    """Return the values of a feature, in the dtype that `read_features` promises."""
    kind = column.type
    if is_words(kind):
        dates = _dates(column)
        return _words(column) if dates is None else dates
    if pa.types.is_boolean(kind) and not column.null_count:
        return column.to_numpy()
    if _is_numeric(kind):
        return _numbers(column, np.float32 if kind in (pa.float16(), pa.float32()) else np.float64)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        is_exact = pa.types.is_date(kind) or kind.unit != "ns"
        return column.cast(pa.timestamp("us"), safe=is_exact).to_numpy()
    # Times of day and durations: seconds.
    size = pa.int32() if kind.bit_width == 32 else pa.int64()
    return _numbers(column.cast(size)) / _A_SECOND[kind.unit]


def _styles(path: Path, columns: dict[str, pa.ChunkedArray], ids: np.ndarray) -> dict[str, str]:
    """Return how each column of text that holds numbers writes them."""

    def row_of(name: str, word: str) -> str:
        trimmed = pc.utf8_trim_whitespace(columns[name])
        row = pc.index(trimmed, pa.scalar(word, trimmed.type)).as_py()
        return f"the row with id {ids[row]!r}"

    counts = {}
    for name, column in columns.items():
        if is_words(column.type):
            entries = pc.utf8_trim_whitespace(column.drop_null()).value_counts().to_pylist()
            counts[name] = {entry["values"]: entry["counts"] for entry in entries}
    return number_styles(path, counts, row_of)


def _parsed(column: pa.ChunkedArray, style: str) -> np.ndarray:
    """Return the numbers in a column of text, with NaN where a value is missing."""
    return np.array([number_in(text or "", style) for text in column.to_pylist()])


def _words(column: pa.ChunkedArray) -> np.ndarray:
    """Return words as an object array in which equal words are one object, to save memory."""
    is_blank = pc.equal(pc.utf8_trim_whitespace(column), "")
    column = pc.if_else(is_blank, pa.scalar(None, column.type), column)
    encoded = column.dictionary_encode().combine_chunks()
    words = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
    return words[pc.fill_null(encoded.indices, len(words) - 1).to_numpy(zero_copy_only=False)]


def _dates(column: pa.ChunkedArray) -> np.ndarray | None:
    """Return text as dates if all values are ISO dates, as JSON has them; None if they are not."""
    known = column.drop_null()
    if len(known) == 0 or _DATE.fullmatch(known[0].as_py()) is None:
        return None
    try:
        return column.cast(pa.timestamp("us")).to_numpy()
    except pa.ArrowInvalid:
        return None


def class_names(schema: pa.Schema, name: str) -> Sequence[str] | None:
    """Return the class names that Hugging Face's `datasets` stores for a column of numbers."""
    try:
        metadata = json.loads((schema.metadata or {})[b"huggingface"])
        feature = metadata["info"]["features"][name]
        return list(map(str, feature["names"])) if feature["_type"] == "ClassLabel" else None
    except (KeyError, TypeError, ValueError):
        return None


def _class_name(path: Path, column: str, number: int | None, names: Sequence[str]) -> str | None:
    if number is None or number == -1:  # Hugging Face's code of an unknown label
        return None
    if not 0 <= number < len(names):
        raise InputError(
            f"{path}: column {column!r} holds {number}, but there are {len(names)} "
            "classes: correct the labels or the stored names of the classes."
        )
    return names[number]
