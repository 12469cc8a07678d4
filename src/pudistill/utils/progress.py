"""The progress of long work, for a display or a callback that the caller installs.

Long loops announce themselves with :func:`stage`. Nothing is shown until a caller, normally the
command line, installs a display with :func:`display`. A caller that measures networks after each
epoch, as an experiment does, installs a callback with :func:`epoch_callback`.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from pudistill.utils.context import installed

log = logging.getLogger(__name__)
Advance = Callable[..., None]


class Display(Protocol):
    """An object that can show one bar per stage.

    If it has a method ``expect(text, seconds)``, with the parameters of :func:`expect`, fits
    estimate their time for it.
    """

    def task(self, name: str, total: int, place: str) -> AbstractContextManager[Advance]:
        """Show a bar for `total` steps, and yield `advance`; `place` is "2 of 4" or empty."""
        ...


# Takes the number of finished epochs, from 1, and the networks that were trained.
EpochCallback = Callable[[int, Sequence[Any]], None]

# Takes the role of a network whose training has ended, and the mean loss of each epoch.
TrainingLog = Callable[[str, Sequence[float]], None]

# Context variables, because every function between the caller and a deep loop would have to pass
# both on, and scikit-learn's `fit(X, y)`, which is among them, has no parameter for them.
_display: ContextVar[Display | None] = ContextVar("pudistill_display", default=None)
_enclosing: ContextVar[Advance | None] = ContextVar("pudistill_enclosing_stage", default=None)
_planned: ContextVar[Sequence[str]] = ContextVar("pudistill_planned_stages", default=())
_epoch_callback: ContextVar[EpochCallback | None] = ContextVar(
    "pudistill_epoch_callback", default=None
)
_training_log: ContextVar[TrainingLog | None] = ContextVar("pudistill_training_log", default=None)


def ignore(steps: int = 1, detail: str = "", *, to: int | None = None) -> None:
    """Advance no bar: there is no display."""


@contextmanager
def stage(name: str, total: int, *, share: float = 0.0) -> Iterator[Advance]:
    """Announce `total` steps of work. A stage inside another one has no bar of its own.

    Parameters
    ----------
    name : str
        Name of the work, for example ``"filter"``.
    total : int
        Number of steps.
    share : float, default=0
        Number of steps of an enclosing stage that all its steps together stand for.

    Yields
    ------
    advance : callable
        ``advance(steps=1, detail="", *, to=None)``, to be called as the work goes on; `to` is the
        number of all finished steps, for work that continues where it was interrupted.

    Examples
    --------
    >>> from pudistill.utils.progress import stage
    >>> with stage("teachers", total=5) as advance:
    ...     for n in range(5):
    ...         advance(1, detail=f"teacher {n + 1}")
    """
    current, start = _display.get(), time.perf_counter()
    log.info("begins", extra={"stage": name, "steps": total})
    enclosing = _enclosing.get()
    if current is None:
        yield ignore
    elif enclosing is not None:
        yield _part_of(enclosing, share / max(total, 1)) if share else ignore
    else:
        planned = _planned.get()
        place = f"{planned.index(name) + 1} of {len(planned)}" if name in planned else ""
        with current.task(name, total, place) as advance, installed(_enclosing, advance):
            yield advance
    seconds = round(time.perf_counter() - start, 3)
    log.info("ends", extra={"stage": name, "seconds": seconds})


def _part_of(enclosing: Advance, scale: float) -> Advance:
    """Return an `advance` that moves the enclosing stage by `scale` for each step."""
    done = 0.0

    def advance(steps: float = 1, detail: str = "", *, to: float | None = None) -> None:
        nonlocal done
        before, done = done, done + steps if to is None else to
        enclosing((done - before) * scale, detail)

    return advance


@contextmanager
def display(shown: Display | None) -> Iterator[None]:
    """Show the stages of everything that runs inside the ``with`` block on `shown`, if any."""
    with installed(_display, shown):
        yield


def has_display() -> bool:
    """Return whether there is a display."""
    return _display.get() is not None


def wants_estimate() -> bool:
    """Return whether there is a display that shows how long a fit will take."""
    return hasattr(_display.get(), "expect")


def expect(text: str, seconds: Mapping[str, float]) -> None:
    """Tell the display what the user should read before long work, and how long stages will take.

    Parameters
    ----------
    text : str
        One or two sentences; empty: there is nothing to read.
    seconds : mapping of str to float
        Seconds of each stage by its name, in order; names that are no stages are other work.
    """
    log.info("expected", extra={"seconds_of_stages": {k: round(s, 1) for k, s in seconds.items()}})
    if wants_estimate():
        _display.get().expect(text, seconds)  # type: ignore[union-attr]


@contextmanager
def planned(names: Sequence[str]) -> Iterator[None]:
    """Tell the display which stages the ``with`` block will have, in order."""
    log.info("planned", extra={"stages": list(names)})
    with installed(_planned, names):
        yield


@contextmanager
def epoch_callback(callback: EpochCallback) -> Iterator[None]:
    """Call `callback` after each epoch of any network trained in the block, except members."""
    with installed(_epoch_callback, callback):
        yield


def has_epoch_callback() -> bool:
    """Return whether an epoch callback is installed."""
    return _epoch_callback.get() is not None


def epoch_ended(epoch: int, networks: Sequence[Any]) -> None:
    """Call the epoch callback, if one is installed."""
    if (callback := _epoch_callback.get()) is not None:
        callback(epoch, networks)


@contextmanager
def tracking_trainings(log_training: TrainingLog) -> Iterator[None]:
    """Call `log_training` after each training of a network in the block, except members.

    Trainings in workers, and finished ones that are read from a cache, count, too.
    """
    with installed(_training_log, log_training):
        yield


def training_ended(role: str, learner: Any) -> None:
    """Log the losses of a learner, if it is a network and a training log is installed."""
    log_training, losses = _training_log.get(), getattr(learner, "loss_curve_", None)
    if log_training is not None and losses and role != "member":
        log_training(role, losses)
