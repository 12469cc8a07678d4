"""Rows about how time and memory grow with the size of the problem."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.measurement import N_CLASSES, Figures, Goal, row


def blobs(n: int, n_classes: int = N_CLASSES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return samples of overlapping classes, labels, and a mask: fifty per class are trusted."""
    from sklearn.datasets import make_blobs

    X, y = make_blobs(n, 32, centers=n_classes, cluster_std=6, random_state=0)
    trusted = np.zeros(n, dtype=bool)
    for c in range(n_classes):
        trusted[np.flatnonzero(y == c)[:50]] = True
    return X.astype(np.float32), y, trusted


def run_filter(n: int = 10_000, n_classes: int = N_CLASSES, **params: Any) -> None:
    from sklearn.linear_model import LogisticRegression

    from pudistill import TieredPUFilter

    settings = {"n_members": 10, "max_iter": 3, "tol": None, "threshold": "auto"} | params
    TieredPUFilter(LogisticRegression(), **settings, random_state=0).fit(*blobs(n, n_classes))


def run_all(n: int) -> None:
    from sklearn.linear_model import LogisticRegression

    from pudistill import PUDistillClassifier, corrupt_labels

    X, y, trusted = blobs(n)
    given = corrupt_labels(y, "symmetric", 0.5, trusted=trusted, random_state=0).y
    classifier = PUDistillClassifier(LogisticRegression(), n_members=10, max_iter=3, random_state=0)
    classifier.fit(X, given, trusted)


def growth(run: Callable[[int], None], sizes: Sequence[int]) -> Figures:
    """Run every size in a process of its own; return the exponents of time and memory."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    found = []
    for size in sizes:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=timed, args=(run, size, max(2, sizes[0] // 4), sender))
        process.start()
        sender.close()  # so that `recv` fails if the process dies
        found.append(receiver.recv())
        process.join()
    seconds, added = zip(*found, strict=True)
    return {
        "exponent of time": exponent(sizes, seconds),
        "exponent of the memory added": exponent(sizes, added),
        "sizes": list(sizes),
        "seconds": seconds,
        "MiB added": added,
    }


def timed(run: Callable[[int], None], size: int, small: int, sender: Any) -> None:
    from resource import RUSAGE_SELF, getrusage

    run(small)  # imports and first calls, whose time does not depend on the size
    before = getrusage(RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    run(size)
    seconds = time.perf_counter() - start
    sender.send((seconds, max(1, getrusage(RUSAGE_SELF).ru_maxrss - before) / 1024))


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Return the slope of a line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


LINEAR = {"exponent of time": Goal(at_most=1.05)}


@row("filter, growth with the number of samples", LINEAR, "long")
def growth_of_filter(_: Path) -> Figures:
    return growth(run_filter, (40_000, 80_000, 160_000, 320_000, 640_000))


@row("whole run, growth with the number of samples", LINEAR, "long")
def growth_of_run(_: Path) -> Figures:
    return growth(run_all, (5_000, 10_000, 20_000, 40_000))


@row("filter, growth with N", kind="long")
def growth_with_members(_: Path) -> Figures:
    return growth(lambda size: run_filter(n_members=size), (5, 10, 20, 40))


@row("filter, growth with K", kind="long")
def growth_with_iterations(_: Path) -> Figures:
    return growth(lambda size: run_filter(max_iter=size), (2, 4, 8))


@row("filter, growth with C", kind="long")
def growth_with_classes(_: Path) -> Figures:
    return growth(lambda size: run_filter(n_classes=size), (4, 8, 16, 32))
