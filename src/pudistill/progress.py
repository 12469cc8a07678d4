"""Progress of long work, shown where somebody is watching and silent everywhere else.

Long loops announce themselves with :func:`stage`. Nothing is shown until a caller, normally the
command line, installs a display with :func:`display`. Whoever wants to see what networks know after
each epoch, as an experiment does, installs :func:`watching`.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from pudistill.context import installed

log = logging.getLogger(__name__)
Advance = Callable[..., None]


class Display(Protocol):
    """Anything that can show one bar per stage."""

    def task(self, name: str, total: int) -> AbstractContextManager[Advance]:
        """Show a bar for `total` steps; for the result see `stage`."""
        ...


_display: ContextVar[Display | None] = ContextVar("pudistill_display", default=None)


Watch = Callable[[int, Sequence[Any]], None]
"""Takes the number of epochs that networks have been trained for, from 1, and the networks."""

_watch: ContextVar[Watch | None] = ContextVar("pudistill_watch", default=None)


def ignore(steps: int = 1, detail: str = "", *, to: int | None = None) -> None:
    """Advance nothing: nobody is watching."""


@contextmanager
def stage(name: str, total: int) -> Iterator[Advance]:
    """Announce `total` steps of work.

    Parameters
    ----------
    name : str
        What is being done, for example ``"filter"``.
    total : int
        How many steps it takes.

    Yields
    ------
    advance : callable
        ``advance(steps=1, detail="", *, to=None)``, to be called as the work goes on; `to` says
        how many steps are done in all, where some were spared.

    Examples
    --------
    >>> from pudistill.progress import stage
    >>> with stage("teachers", total=5) as advance:
    ...     for n in range(5):
    ...         advance(1, detail=f"teacher {n + 1}")
    """
    current, start = _display.get(), time.perf_counter()
    log.info("begins", extra={"stage": name, "steps": total})
    if current is None:
        yield ignore
    else:
        with current.task(name, total) as advance:
            yield advance
    seconds = round(time.perf_counter() - start, 3)
    log.info("ends", extra={"stage": name, "seconds": seconds})


@contextmanager
def display(shown: Display) -> Iterator[None]:
    """Show the stages of everything that runs inside the ``with`` block on `shown`."""
    with installed(_display, shown):
        yield


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Call `watch` after each epoch of all networks, but members, that train in this block."""
    with installed(_watch, watch):
        yield


def is_watched() -> bool:
    """Whether somebody wants to see networks after each epoch."""
    return _watch.get() is not None


def epoch_ended(epoch: int, networks: Sequence[Any]) -> None:
    """Tell whoever is watching that networks have been trained for another epoch."""
    if (watch := _watch.get()) is not None:
        watch(epoch, networks)
