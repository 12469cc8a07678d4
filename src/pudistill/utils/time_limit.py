"""A time limit for a fit: when its stages have to end, and which of them were cut short."""

import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from pudistill.exceptions import InputError
from pudistill.utils.context import installed

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LIMIT_EXPECTED = "seconds, a text such as 90s, 10m or 1h30m, or none"
_AMOUNT = r"\d+(?:\.\d+)?"
_TEXT = re.compile(rf"(?:{_AMOUNT}\s*[{''.join(UNITS)}]\s*)+")


def seconds_of(limit: Any) -> float | None:
    """Read a time limit.

    Parameters
    ----------
    limit : float, str or None
        Seconds, or a text such as "90s", "10m" or "1h 30m"; None or "none": no limit.

    Returns
    -------
    seconds : float or None
        The limit in seconds; None if there is none.

    Examples
    --------
    >>> from pudistill.utils.time_limit import seconds_of
    >>> seconds_of("1h 30m"), seconds_of("90"), seconds_of(20)
    (5400.0, 90.0, 20.0)
    """
    text = str(limit).strip().lower()
    if limit is None or text == "none":
        return None
    seconds = math.nan
    if _TEXT.fullmatch(text):
        parts = re.findall(rf"({_AMOUNT})\s*(\w)", text)
        seconds = sum(float(amount) * UNITS[unit] for amount, unit in parts)
    elif (isinstance(limit, Real) and not isinstance(limit, bool)) or re.fullmatch(_AMOUNT, text):
        seconds = float(limit)
    if not 0 < seconds < math.inf:
        raise InputError(f"time_limit cannot be {limit!r}: it should be {LIMIT_EXPECTED}.")
    return seconds


def checked_limit(limit: Any) -> Any:
    """Return a time limit as it was written; None if there is none."""
    return None if seconds_of(limit) is None else limit


def duration(*seconds: float) -> tuple[str, ...]:
    """Say durations in one unit; only the last one names it.

    Examples
    --------
    >>> from pudistill.utils.time_limit import duration
    >>> duration(12, 31), duration(125, 290), duration(50, 100), duration(45)
    (('10', '30 seconds'), ('2', '5 minutes'), ('50', '100 seconds'), ('45 seconds',))
    """
    longest = max(seconds)
    size, unit = (3600, "hour") if longest >= 7200 else (60, "minute")
    if longest < 120:
        size, unit = 1, "second"
    values = [max(1, round(value / size)) for value in seconds]
    if unit == "second":
        values = [value if value < 10 else 5 * round(value / 5) for value in values]
    *first, last = values
    return *(str(value) for value in first), f"{last} {unit}{'s' * (last != 1)}"


@dataclass
class TimeLimit:
    """When the stages of a fit have to end.

    Attributes
    ----------
    begin : float
        When the current stage began, in seconds of `time.time`: the clock that all machines of a
        cluster share.
    ends : dict of str to float
        By the name of a stage, when it has to end.
    workers : int
        Number of parts of a stage that are computed at the same time.
    cut_short : dict of str to None
        What was cut short, in the order in which it happened.
    """

    begin: float
    ends: Mapping[str, float]
    workers: int = 1
    cut_short: dict[str, None] = field(default_factory=dict)


# A context variable, because functions that are cached under their arguments read it: a limit must
# not become part of the key.
_limit: ContextVar[TimeLimit | None] = ContextVar("pudistill_time_limit", default=None)


@contextmanager
def limited_by(limit: TimeLimit | None) -> Iterator[None]:
    """Let the stages inside the ``with`` block end in time."""
    with installed(_limit, limit):
        yield


def current_limit() -> TimeLimit | None:
    """Return the limit of the enclosing `limited_by`, or None."""
    return _limit.get()


def stage_begins() -> None:
    """Let the parts of the next stage share the time from now on."""
    if (limit := _limit.get()) is not None:
        limit.begin = time.time()


def is_time_up(stage: str, last: float = 0.0, part: int = 0, n_parts: int = 1) -> bool:
    """Whether a stage has no time for one more step.

    Parameters
    ----------
    stage : str
        Name of the stage.
    last : float, default=0
        Seconds that the last step took; the next one probably takes as long.
    part, n_parts : int
        Number of this part of the stage, from 0, and number of parts: each has its share of the
        time.

    Returns
    -------
    is_up : bool
        Whether the stage should end now; never without a limit.
    """
    limit = _limit.get()
    if limit is None or stage not in limit.ends:
        return False
    share = min(1.0, (part + min(limit.workers, n_parts)) / n_parts)
    end = limit.begin + share * (limit.ends[stage] - limit.begin)
    return time.time() + last > end


def note_cut(what: str) -> None:
    """Record that a part of the fit was cut short."""
    if (limit := _limit.get()) is not None:
        limit.cut_short[what] = None
