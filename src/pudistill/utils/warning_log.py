"""Warnings, recorded while they are issued, so that another process can issue them again."""

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from pudistill.exceptions import DamagedWarning, RecoveredWarning, TrustedWarning, warn_user

OWN_CATEGORIES = {
    category.__name__: category for category in (DamagedWarning, RecoveredWarning, TrustedWarning)
}


class RecordedWarning(NamedTuple):
    """A warning as it can be stored."""

    category: str
    message: str


@contextmanager
def record_warnings(record: Callable[[RecordedWarning], None]) -> Iterator[None]:
    """Call `record` for each warning inside the ``with`` block; it is shown as always.

    In threads nothing is recorded: how warnings are shown is a setting of the whole process.
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


def repeat_warnings(recorded: Iterable[RecordedWarning]) -> None:
    """Issue the package's own warnings again that another process has recorded."""
    for warning in recorded:
        warn_user(warning.message, OWN_CATEGORIES[warning.category])
