"""Values as the user wrote them, for messages."""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

LONGEST_SHOWN = 60  # characters of a text in a message
MOST_LISTED = 10


def shown(value: Any) -> str:
    """Write a class label or another value as the user wrote it, without the types of numpy.

    Text is in quotes, and its control characters are escaped: they never reach a terminal.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.utils.shown import shown
    >>> shown(np.str_("cat")), shown(np.float64(1)), shown(np.datetime64("2024-05-01"))
    ("'cat'", '1', '2024-05-01')
    """
    if isinstance(value, np.datetime64 | np.timedelta64 | datetime.date):
        return str(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str) and len(value) > LONGEST_SHOWN:
        value = f"{value[: LONGEST_SHOWN // 2]}…{value[-LONGEST_SHOWN // 2 :]}"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))})"
    return repr(value)


def listed(values: Iterable[Any]) -> str:
    """List values as `shown` writes them, the first ten if there are more.

    Examples
    --------
    >>> from pudistill.utils.shown import listed
    >>> listed(["cat", "dog"]), listed(range(12))
    ("'cat', 'dog'", '0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more')
    """
    return first_few(map(shown, values))


def first_few(parts: Iterable[str], separator: str = ", ") -> str:
    """Join parts of a message, the first ten if there are more.

    Examples
    --------
    >>> from pudistill.utils.shown import first_few
    >>> first_few(map(str, range(11)), "; ")
    '0; 1; 2; 3; 4; 5; 6; 7; 8; 9; and 1 more'
    """
    parts = list(parts)
    n_more = len(parts) - MOST_LISTED
    more = f"{separator.strip(' ,')} and {n_more:,} more" if n_more > 0 else ""
    return separator.join(parts[:MOST_LISTED]) + more


def name_columns(names: Sequence[str]) -> str:
    """Return the names of some columns, after the word."""
    return f"column{'s' if len(names) > 1 else ''} {listed(names)}"


def by_reason(reasons: Mapping[str, str]) -> str:
    """List columns with the reason for which they are left out, grouped by reason.

    Examples
    --------
    >>> from pudistill.utils.shown import by_reason
    >>> by_reason({"a": "no values", "b": "a copy of the labels", "c": "no values"})
    "columns 'a', 'c' (no values); column 'b' (a copy of the labels)"
    """
    names_by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names_by_reason.setdefault(reason, []).append(name)
    return "; ".join(
        f"{name_columns(names)} ({reason})" for reason, names in names_by_reason.items()
    )
