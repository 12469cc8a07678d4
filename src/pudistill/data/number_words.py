"""Numbers in columns of text: beside signs for a missing value, or with a decimal comma.

Readers of files and the encoder of tables in memory share these rules. A column is described by its
`Counts`: how often each text occurs, without white space around it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pudistill.exceptions import InputError
from pudistill.utils.shown import first_few

Counts = Mapping[str, int]
_PATTERNS = {
    "plain": re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"),
    "decimal comma": re.compile(r"[+-]?([0-9]+|[0-9]{1,3}(\.[0-9]{3})+)(,[0-9]+)?"),
    "thousands": re.compile(r"[+-]?([0-9]+|[0-9]{1,3}(,[0-9]{3})+)(\.[0-9]+)?"),
}
_UNCLEAR = "unclear"
# What people write into a column of numbers where a value is missing.
_NO_VALUE = {"", "?", "-", "--", ".", "*", "na", "n/a", "nan", "null", "none", "missing", "unknown"}
# A column with a larger share of numbers, and more numbers, than this holds numbers, not words.
_MOSTLY, _FEW_VALUES = 0.9, 20


def number_styles(
    where: Any, columns: Mapping[str, Counts], row_of: Callable[[str, str], str]
) -> dict[str, str]:
    """Return how each column of numbers writes them: "plain", "decimal comma" or "thousands".

    Parameters
    ----------
    where : object
        Name of the table, for messages.
    columns : mapping of str to Counts
        The columns of text, by name.
    row_of : callable
        Returns what messages call the row of a column that holds a text, given both.

    Returns
    -------
    styles : dict of str to str
        Columns of words are not among them.

    Raises
    ------
    InputError
        If columns hold almost only numbers and also words, or numbers whose comma can have two
        meanings; the message names all of them.

    Examples
    --------
    >>> from pudistill.data.number_words import number_styles
    >>> columns = {"price": {"1,5": 3, "?": 1}, "size": {"S": 2, "M": 2}}
    >>> number_styles("prices.csv", columns, row_of=lambda name, text: "row 0")
    {'price': 'decimal comma'}
    """
    known = {name: _without_signs(counts) for name, counts in columns.items()}
    styles = {name: style for name in known if (style := _style(known[name])) is not None}
    unclear = [name for name, style in styles.items() if style == _UNCLEAR]
    clear = set(styles.values()) & {"decimal comma", "thousands"}
    if unclear and len(clear) != 1:
        examples = (next(text for text in known[name] if "," in text) for name in unclear)
        shown = first_few(f"{n!r} ({text!r})" for n, text in zip(unclear, examples, strict=True))
        raise InputError(
            f"{where}: it is not clear whether commas are decimal points in column {shown}: write "
            "decimals with a point, and no sign between thousands."
        )
    words = {
        name: word
        for name, counts in known.items()
        if name not in styles and (word := _word_among_numbers(counts)) is not None
    }
    if words:
        found = (f"column {name!r} holds {w!r} in {row_of(name, w)}" for name, w in words.items())
        raise InputError(
            f"{where}: there are words among numbers, {first_few(found)}: correct them, leave them "
            "empty, or drop the column."
        )
    return styles | (dict.fromkeys(unclear, *clear) if unclear else {})


def number_in(text: str, style: str) -> float | str:
    """Return the number that a text stands for, NaN for a missing value, or a word as it is.

    Examples
    --------
    >>> from pudistill.data.number_words import number_in
    >>> [number_in(text, "decimal comma") for text in ("1.234,5", " ? ", "many")]
    [1234.5, nan, 'many']
    """
    stripped = text.strip()
    if stripped.lower() in _NO_VALUE:
        return np.nan
    if _PATTERNS[style].fullmatch(stripped) is None:
        return text
    if style == "decimal comma":
        stripped = stripped.replace(".", "").replace(",", ".")
    return float(stripped.replace(",", ""))


def _without_signs(counts: Counts) -> Counts:
    return {text: n for text, n in counts.items() if text.lower() not in _NO_VALUE}


def _style(counts: Counts) -> str | None:
    """Return how a column writes its numbers; None if it holds words, or nothing."""
    has_comma = any("," in text for text in counts)
    possible = [
        style
        for style, pattern in _PATTERNS.items()
        if (style != "plain") == has_comma and all(map(pattern.fullmatch, counts))
    ]
    if not counts or not possible:
        return None
    return possible[0] if len(possible) == 1 else _UNCLEAR


def _word_among_numbers(counts: Counts) -> str | None:
    """Return a word of a column that holds almost only numbers; None if there is none."""
    words = [text for text in counts if _PATTERNS["plain"].fullmatch(text) is None]
    n_words, n_numbers = sum(counts[word] for word in words), len(counts) - len(words)
    is_number = n_words <= (1 - _MOSTLY) * sum(counts.values()) and n_numbers > _FEW_VALUES
    return words[0] if words and is_number else None
