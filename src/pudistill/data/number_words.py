"""Numbers in columns of text: beside signs for a missing value, or with a decimal comma."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pudistill.exceptions import InputError

_PLAIN = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?([0-9]+|[0-9]{1,3}(\.[0-9]{3})+)(,[0-9]+)?")
_THOUSANDS = re.compile(r"[+-]?([0-9]+|[0-9]{1,3}(,[0-9]{3})+)(\.[0-9]+)?")
# What people write into a column of numbers where a value is missing.
_NO_VALUE = {"", "?", "-", "--", ".", "*", "na", "n/a", "nan", "null", "none", "missing", "unknown"}
# A column with a larger share of numbers, and more numbers, than this holds numbers, not words.
_MOSTLY, _FEW_VALUES = 0.95, 20


def numbers_in(
    path: Path, columns: dict[str, pa.ChunkedArray], ids: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the columns of text that hold numbers, with NaN where a value is missing.

    Columns that hold nothing but plain numbers are not among them: who stores numbers as text means
    words, such as postal codes.

    Parameters
    ----------
    path : Path
        The table, for messages.
    columns : dict of str to pyarrow.ChunkedArray of str
        The columns of text, by name.
    ids : ndarray of object, shape (n_samples,)
        Ids of the samples, for messages.

    Returns
    -------
    numbers : dict of str to ndarray of float64, shape (n_samples,)

    Raises
    ------
    InputError
        If columns hold almost only numbers and also words, or numbers whose comma can have two
        meanings; the message names all of them.
    """
    counts = {name: _counts(column) for name, column in columns.items()}
    styles = {name: style for name in columns if (style := _style(counts[name])) is not None}
    unclear = [name for name, style in styles.items() if style == "unclear"]
    clear = set(styles.values()) & {"decimal comma", "thousands"}
    if unclear and len(clear) != 1:
        examples = [next(text for text in counts[name] if "," in text) for name in unclear]
        shown = ", ".join(f"{n!r} ({text!r})" for n, text in zip(unclear, examples, strict=True))
        raise InputError(
            f"{path}: it is not clear whether commas are decimal points in column {shown}: write "
            "decimals with a point, and no sign between thousands."
        )
    styles |= dict.fromkeys(unclear, *clear)
    _refuse_words(
        path, {name: counts[name] for name in columns if name not in styles}, columns, ids
    )
    return {name: _parsed(columns[name], style) for name, style in styles.items()}


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each text occurs, without signs for a missing value."""
    trimmed = pc.utf8_trim_whitespace(column.drop_null()).value_counts().to_pylist()
    counts = {entry["values"]: entry["counts"] for entry in trimmed}
    is_gap = [text for text in counts if text.lower() in _NO_VALUE]
    return {text: n for text, n in counts.items() if text not in is_gap} | dict.fromkeys(is_gap, 0)


def _style(counts: dict[str, int]) -> str | None:
    """Return how a column writes its numbers; None if it holds words."""
    texts = [text for text, n in counts.items() if n]
    if not texts:
        return None
    if any("," in text for text in texts):
        decimal, thousands = (
            all(map(pattern.fullmatch, texts)) for pattern in (_DECIMAL_COMMA, _THOUSANDS)
        )
        if decimal and thousands:
            return "unclear"
        return "decimal comma" if decimal else "thousands" if thousands else None
    has_gap_signs = any(not n and text for text, n in counts.items())
    return "plain" if has_gap_signs and all(map(_PLAIN.fullmatch, texts)) else None


def _parsed(column: pa.ChunkedArray, style: str) -> np.ndarray:
    def parse(text: str | None) -> float:
        text = "" if text is None else text.strip()
        if text.lower() in _NO_VALUE:
            return np.nan
        if style == "decimal comma":
            return float(text.replace(".", "").replace(",", "."))
        return float(text.replace(",", ""))

    return np.array([parse(text) for text in column.to_pylist()])


def _refuse_words(
    path: Path,
    counts: dict[str, dict[str, int]],
    columns: dict[str, pa.ChunkedArray],
    ids: np.ndarray,
) -> None:
    """Raise an error if columns hold almost only numbers, and also words."""
    problems = []
    for name, texts in counts.items():
        words = [text for text, n in texts.items() if n and _PLAIN.fullmatch(text) is None]
        n_words, n_numbers = sum(texts[word] for word in words), len(texts) - len(words)
        is_number = n_words <= (1 - _MOSTLY) * sum(texts.values())
        if words and is_number and n_numbers > _FEW_VALUES:
            trimmed = pc.utf8_trim_whitespace(columns[name])
            row = pc.index(trimmed, pa.scalar(words[0], trimmed.type)).as_py()
            problems.append(f"column {name!r} holds {words[0]!r} in the row with id {ids[row]!r}")
    if problems:
        raise InputError(
            f"{path}: there are words among numbers, {', '.join(problems)}: correct them, leave "
            "them empty, or drop the column."
        )
