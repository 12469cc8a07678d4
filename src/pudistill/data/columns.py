"""Columns of labels, ids and trust: functions that several readers share."""

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pudistill.exceptions import InputError

# What spreadsheets and people write into a column that marks verified samples. A blank is no mark.
_MARKS = dict.fromkeys(
    ("true", "t", "yes", "y", "1", "1.0", "x", "✓", "✔", "☑", "ja", "j", "oui", "si", "sí", "on"),
    True,
) | dict.fromkeys(
    ("false", "f", "no", "n", "0", "0.0", "", "none", "nan", "nein", "non", "☐", "off"), False
)
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # of texts that a spreadsheet would run
_ID = "string[pyarrow]"
_WHOLE = re.compile(r"(-?[0-9]+)(\.0*)?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_PLAIN_ZEROS = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0*")


def object_array(values: Iterable[Any]) -> np.ndarray:
    """Return values of any kind as a one-dimensional object array."""
    values = list(values)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def no_labels(n_samples: int) -> np.ndarray:
    """Return a column of missing labels."""
    return np.full(n_samples, None, dtype=object)


def row_numbers(n_samples: int) -> Any:
    """Return the positions of samples as ids, for data without ids."""
    return as_ids(pa.array(np.arange(n_samples)).cast(pa.string()))


def as_ids(ids: Any) -> Any:
    """Return ids as a pandas array of Arrow's strings; as they are if Arrow cannot hold one."""
    try:
        return pd.array(ids, dtype=_ID)
    except UnicodeEncodeError:  # of texts that no file can hold
        return object_array(ids)
    except (TypeError, ValueError):
        return ids


def count_distinct(ids: Any) -> int:
    """Count different ids."""
    return pc.count_distinct(pa.array(ids)).as_py()


def rows_with(ids: Any, wanted: Sequence[str]) -> np.ndarray:
    """Return the rows whose ids are among those wanted."""
    # Arrow refuses lone surrogates, which no id has.
    wanted = [name for name in wanted if not (isinstance(name, str) and _SURROGATE.search(name))]
    return np.flatnonzero(pd.Series(ids, copy=False).isin(wanted))


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return class names sorted: by value if all are whole numbers, otherwise as text."""
    names = list(names)
    if all(re.fullmatch(r"[+-]?[0-9]{1,18}", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def whole_number(path: Path, part: str, value: float | None) -> str | None:
    """Return the class name of a whole number stored as float, as in a column with gaps."""
    if value is None or value != value:
        return None
    if not float(value).is_integer():
        raise InputError(
            f"{path}: {part!r} holds {value}, which is not a class: give names or whole numbers."
        )
    return str(int(value))


def without_decimals(columns: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Write whole numbers as such where text has them as 1.0, as pandas writes those with gaps.

    Parameters
    ----------
    columns : sequence of ndarray of object
        Columns of names that belong together, such as given and verified labels.

    Returns
    -------
    columns : list of ndarray of object
        The same names, if any of them is not a whole number; else without decimals.
    """
    names = {name for column in columns for name in column} - {None}
    if not all(_WHOLE.fullmatch(name) for name in names):
        return list(columns)
    plain = {name: _without_zeros(name) for name in names} | {None: None}
    return [object_array(plain[name] for name in column) for column in columns]


def like_known(names: Iterable[str], known: Collection[str]) -> list[str]:
    """Return names, a whole number as it is written among the known names: "1.0" becomes "1"."""
    written = {_without_zeros(name): name for name in known}
    return [name if name in known else written.get(_without_zeros(name), name) for name in names]


def _without_zeros(name: str) -> str:
    number = _PLAIN_ZEROS.fullmatch(name)
    return name if number is None else "0" if number[1] == "-0" else number[1]


def is_whole(name: str) -> bool:
    """Return whether a name is a whole number."""
    return name.removeprefix("-").isdecimal()


def read_mark(value: Any) -> bool | None:
    """Return whether an entry of a column of marks says "verified"; None if it is no mark.

    Examples
    --------
    >>> from pudistill.data.columns import read_mark
    >>> [read_mark(value) for value in ("x", "", True, 0, "maybe")]
    [True, False, True, False, None]
    """
    return _MARKS.get(str(value).strip().lower())


def complete_trust(
    path: Path, y: np.ndarray, trusted: np.ndarray | None, verified: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Derive the mask of trusted samples from verified labels, or verified labels from the mask.

    Parameters
    ----------
    path : Path
        The data, for the message.
    y : ndarray of object, shape (n_samples,)
        Given labels.
    trusted : ndarray of bool, shape (n_samples,), or None
        The mask, if the data contain a mask.
    verified : ndarray of object, shape (n_samples,), or None
        Verified labels, None for samples that are not trusted, if the data contain them.

    Returns
    -------
    trusted, verified, marked : ndarrays of shape (n_samples,)
        As the attributes of `TrustedDataset`.

    Raises
    ------
    InputError
        If the mask and the verified labels disagree.
    """
    if verified is None:
        mask = np.zeros(len(y), dtype=bool) if trusted is None else trusted
        return mask, np.where(mask, y, no_labels(len(y))), mask
    known = np.array([label is not None for label in verified], dtype=bool)
    if trusted is not None and not np.array_equal(known, trusted):
        raise InputError(
            f"{path}: the trusted samples are not the samples with a verified label: make the two "
            "agree, or leave the mask out."
        )
    return known, verified, np.zeros(len(y), dtype=bool)


def without_apostrophes(names: Iterable[str], of_data: Iterable[str]) -> np.ndarray:
    """Take back the apostrophes that `to_csv` writes before names that look like formulas.

    Names that the data have stay as they are.

    Examples
    --------
    >>> from pudistill.data.columns import without_apostrophes
    >>> without_apostrophes(["'=a", "'-b", "c"], ["=a", "'-b", "c"]).tolist()
    ['=a', "'-b", 'c']
    """
    found = np.array([*names], dtype=object)
    marked = [n for n, name in enumerate(found) if name[:1] == "'" and name[1:2] in FORMULA_STARTS]
    if marked:
        known = {*of_data}
        for n in marked:
            found[n] = found[n] if found[n] in known else found[n][1:]
    return found
