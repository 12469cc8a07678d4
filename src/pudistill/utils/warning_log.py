"""Records warnings while they are issued, so that another process can issue them again."""

import re
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from pudistill.exceptions import (
    DamagedWarning,
    DataNotice,
    DataWarning,
    RecoveredWarning,
    TimeLimitWarning,
    TrustedWarning,
    warn_user,
)

OWN_CATEGORIES = {
    category.__name__: category
    for category in (
        DamagedWarning,
        DataNotice,
        DataWarning,
        RecoveredWarning,
        TimeLimitWarning,
        TrustedWarning,
    )
}


class RecordedWarning(NamedTuple):
    """A warning as it can be stored."""

    category: str
    message: str


@contextmanager
def record_warnings(record: Callable[[RecordedWarning], None]) -> Iterator[None]:
    """Call `record` for each warning inside the ``with`` block; the warning is still shown.

    Nothing is recorded in threads: the function that shows warnings belongs to the whole process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with warnings.catch_warnings():
        show = warnings.showwarning

        def record_and_show(
            message: Warning | str, category: type[Warning], *where: object
        ) -> None:
            record(RecordedWarning(category.__name__, str(message)))
            show(message, category, *where)  # type: ignore[arg-type]

        warnings.showwarning = record_and_show  # type: ignore[assignment]
        yield


@contextmanager
def each_once() -> Iterator[None]:
    """Show a warning once inside the ``with`` block, however often it comes.

    A learner is fitted hundreds of times, and each fit can issue the same warning. Warnings of
    other packages that differ in numbers only are the same. In threads nothing changes, as for
    `record_warnings`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with warnings.catch_warnings():
        show, shown = warnings.showwarning, set()

        def show_once(message: Warning | str, category: type[Warning], *where: object) -> None:
            is_own = category in OWN_CATEGORIES.values()
            key = (category, str(message) if is_own else re.sub(r"\d+", "", str(message)))
            if key not in shown:
                shown.add(key)
                show(message, category, *where)  # type: ignore[arg-type]

        warnings.showwarning = show_once  # type: ignore[assignment]
        yield


def repeat_warnings(recorded: Iterable[RecordedWarning]) -> None:
    """Issue again the package's own warnings that another process has recorded."""
    for warning in recorded:
        warn_user(warning.message, OWN_CATEGORIES[warning.category])
