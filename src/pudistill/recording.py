"""Warnings, taken down while they are given, so that they can be told again."""

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from pudistill.exceptions import DamagedWarning, RecoveredWarning, TrustedWarning

OWN_CATEGORIES = {one.__name__: one for one in (DamagedWarning, RecoveredWarning, TrustedWarning)}


class Told(NamedTuple):
    """A warning as it can be stored."""

    category: str
    message: str


@contextmanager
def listening(hear: Callable[[Told], None]) -> Iterator[None]:
    """Call `hear` for each warning that is given inside the ``with`` block, and shown as ever.

    In threads nothing is heard: how warnings are shown is one thing for the whole process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with warnings.catch_warnings():
        show = warnings.showwarning

        def heard(message: Warning | str, category: type[Warning], *where: object) -> None:
            hear(Told(category.__name__, str(message)))
            show(message, category, *where)  # type: ignore[arg-type]

        warnings.showwarning = heard  # type: ignore[assignment]
        yield


def tell_again(told: Iterable[Told]) -> None:
    """Give warnings of ours again that were given in another process."""
    for one in told:
        warnings.warn(one.message, OWN_CATEGORIES[one.category], stacklevel=2)
