"""Rows of the speed table: a function that measures figures, and goals for some of them.

The calls that a row compares alternate, so that other work on the computer slows all of them down
alike. Figures are medians; ratios are medians of paired ratios.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

Figures = dict[str, Any]
N_CLASSES = 10
PEAK = "peak of memory, MiB"  # measured for every row
PICTURES: dict[str, Any] = {"limit": None}  # for GPU rows; a small limit tries them on a CPU


class Goal(NamedTuple):
    """A bound on a figure."""

    at_least: float | None = None
    at_most: float | None = None

    def reached(self, value: float) -> bool:
        """Whether a figure is within the bound."""
        over = self.at_most is not None and value > self.at_most
        return not over and (self.at_least is None or value >= self.at_least)

    def __str__(self) -> str:
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


class Row(NamedTuple):
    """A measurement and its goals."""

    measure: Callable[[Path], Figures]  # given the folder with the data
    what: str
    goals: dict[str, Goal]  # by the names of figures
    kind: str  # "short", "long" or "gpu"


def row(
    what: str, goals: dict[str, Goal] | None = None, kind: str = "short"
) -> Callable[[Callable[[Path], Figures]], Row]:
    """Turn a function into a row of the table, under the function's name."""
    return lambda measure: Row(measure, what, goals or {}, kind)


def alternate(
    n_trials: int, *, warm_up: bool = True, **calls: Callable[[], Any]
) -> dict[str, list[float]]:
    """Time calls in turn, in seconds; a first round fills the caches and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for trial in range(n_trials + warm_up):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if trial >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], slow: str, fast: str) -> float:
    """Return how many times as fast `fast` is as `slow`, the median over pairs."""
    pairs = zip(seconds[slow], seconds[fast], strict=True)
    return statistics.median(slower / faster for slower, faster in pairs)


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {f"{name}, s": statistics.median(times) for name, times in seconds.items()}
