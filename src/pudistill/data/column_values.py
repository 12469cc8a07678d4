"""Columns of a data frame as numbers, dates, vectors, categories and texts."""

from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from pudistill.data.number_words import number_in
from pudistill.exceptions import InputError
from pudistill.utils.shown import shown

LARGEST = 1e100  # of a number: the square of a larger one may overflow
_SECONDS_OF_A_DAY = 86_400
_BOOLEANS = {"true": 1, "false": 0}


def is_real(kind: Any) -> bool:
    """Return whether a dtype is one of real numbers, which includes bool and nullable types."""
    return types.is_numeric_dtype(kind) and not types.is_complex_dtype(kind)


def as_numbers(name: str, column: pd.Series, style: str = "plain") -> np.ndarray:
    """Convert a column to float64, NaN where a value is missing.

    Parameters
    ----------
    name : str
        Its name, for messages.
    column : Series of shape (n_samples,)
        Numbers, booleans, durations, or any of them written as text.
    style : str, default="plain"
        How texts write numbers, see `number_styles`.

    Returns
    -------
    numbers : ndarray of shape (n_samples,), float64
        Durations in days.

    Raises
    ------
    InputError
        If an entry is no number, or too large to compute with; the message names its row.
    """
    if types.is_timedelta64_dtype(column.dtype):
        column = column.dt.total_seconds() / _SECONDS_OF_A_DAY
    if is_real(column.dtype):
        numbers = pd.Series(column.to_numpy(dtype=float, na_value=np.nan), index=column.index)
    else:
        values = [_number(value, style) for value in column.astype(object).where(column.notna())]
        # Not dates and lists, which pandas would make numbers.
        possible = [v if isinstance(v, str | Real | Decimal) else None for v in values]
        converted = pd.to_numeric(pd.Series(possible, column.index, object), errors="coerce")
        numbers = converted.astype(float)
        wrong = column[numbers.isna() & pd.Series(values, column.index, object).notna()]
        if len(wrong):
            raise InputError(
                f"Column {name!r} holds {shown(wrong.iloc[0])} in row {first_row(wrong)}, but the "
                "model learned numbers from it: correct the value, or leave it blank if it is "
                "unknown."
            )
    large = numbers[numbers.abs() > LARGEST]
    if len(large):
        value = "infinity" if np.isinf(large.iloc[0]) else f"{large.iloc[0]:g}, which is too large,"
        raise InputError(
            f"Column {name!r} holds {value} in row {first_row(large)}: correct the value, or "
            "leave it blank if it is unknown."
        )
    return numbers.to_numpy()


def _number(value: Any, style: str) -> Any:
    """Return the number that a text or a boolean stands for; anything else as it is."""
    if isinstance(value, str | bool | np.bool_):
        text = str(value)
        return _BOOLEANS.get(text.strip().lower(), number_in(text, style))
    return value


def as_dates(name: str, column: pd.Series) -> pd.Series:
    """Convert a column to times in UTC; an `InputError` names the first entry that is no date."""
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    values = column.astype(object).where(column.notna(), None)
    dates = parsed_dates(values.where(values.map(lambda value: not isinstance(value, Real)), None))
    wrong = values[dates.isna() & column.notna()]
    if len(wrong):
        raise InputError(
            f"Column {name!r} holds {shown(wrong.iloc[0])} in row {first_row(wrong)}, but the "
            "model learned dates from it: write dates as 2026-01-31, or leave unknown ones blank."
        )
    return dates


def parsed_dates(column: pd.Series) -> pd.Series:
    """Return the times in UTC that ISO dates stand for, NaT for anything else."""
    return pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")


def date_numbers(name: str, dates: pd.Series) -> dict[str, np.ndarray]:
    """Return a date as days since 1970, and its place in the year, the week and the day."""
    days = (dates - pd.Timestamp("1970-01-01", tz="UTC")) / pd.Timedelta(days=1)
    turns = {
        "year": dates.dt.day_of_year / 365.25,
        "week": dates.dt.day_of_week / 7,
        "day": days % 1,
    }
    parts = {f"{name} in days": days.to_numpy(dtype=float)}
    for period, turn in turns.items():
        angle = 2 * np.pi * turn.to_numpy(dtype=float)
        parts[f"{name} in {period} (sin)"] = np.sin(angle)
        parts[f"{name} in {period} (cos)"] = np.cos(angle)
    return parts


def as_vectors(column: pd.Series) -> np.ndarray | None:
    """Return vectors of the same length as rows of an array, None if they are anything else."""
    try:
        vectors = np.asarray(column.tolist(), dtype=float)
    except (TypeError, ValueError):
        return None
    is_matrix = vectors.ndim == 2 and vectors.shape[1] > 0
    return vectors if is_matrix and np.isfinite(vectors).all() else None


def as_text(value: Any) -> str:
    """Return a value as text that can be stored: half of a sign, as damaged JSON has, becomes ?."""
    return str(value).encode("utf-8", "replace").decode()


def as_category(value: Any) -> str:
    """Return the name of a category, the same however a library stores it: 1, 1.0, True, "true".

    Examples
    --------
    >>> from pudistill.data.column_values import as_category
    >>> [as_category(value) for value in (1, 1.0, " 1 ", True, "TRUE", "True story")]
    ['1', '1', '1', 'true', 'true', 'True story']
    """
    if isinstance(value, float | np.floating) and value.is_integer():
        value = int(value)
    name = as_text(value).strip()
    return name.lower() if name in ("True", "False", "TRUE", "FALSE") else name


def as_texts(X: Any) -> pd.Series:
    """Return texts as a Series of dtype object, in which a missing text is empty.

    Raises
    ------
    InputError
        If a sample is no text.
    """
    texts = pd.Series(X if isinstance(X, pd.Series) else list(X), dtype=object)
    strange = texts[texts.notna() & ~texts.map(lambda text: isinstance(text, str))]
    if len(strange):
        raise InputError(
            f"Sample {first_row(strange)} is {shown(strange.iloc[0])}, not a text: give texts only."
        )
    return texts.where(texts.notna(), "")


def first_row(rows: pd.Series) -> str:
    """Name the first of some rows by its index, in quotes if it is a name."""
    return shown(rows.index[0])
