"""Values as the user wrote them, for messages."""

import datetime
from collections.abc import Iterable
from typing import Any

import numpy as np

LONGEST_SHOWN = 60  # characters of a text in a message


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


def listed(values: Iterable[Any], *, at_most: int = 5) -> str:
    """List values as `shown` writes them, the first few if there are many.

    Examples
    --------
    >>> from pudistill.utils.shown import listed
    >>> listed(["cat", "dog"]), listed(range(7))
    ("'cat', 'dog'", '0, 1, 2, 3, 4 and 2 more')
    """
    values = list(values)
    more = f" and {len(values) - at_most} more" if len(values) > at_most else ""
    return ", ".join(map(shown, values[:at_most])) + more
