"""Rows about the filter and about whole runs."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common.problems import (
    PROBLEMS,
    Group,
    Noise,
    draw_trusted,
    fashion_mnist,
    small_cnn,
)
from benchmarks.speed.measurement import PEAK, Figures, Goal, alternate, medians, row

FASHION_PICTURES = next(problem for problem in PROBLEMS if problem.name == "fashion-mnist networks")


@row(
    "filter on 50,000 x 256 features, C = 10, N = 20, K = 5, 10 % trusted",
    {"paper, s": Goal(at_most=20)},
)
def filter_features(data: Path) -> Figures:
    from sklearn.linear_model import LogisticRegression

    from pudistill import TieredPUFilter

    with np.load(data / "cifar10-features" / "features.npz") as file:
        X, y = file["X"].astype(np.float32), file["y"].astype(int)
    trusted = draw_trusted(y, 0.1, np.random.default_rng(0))

    def run(n_jobs: int | None, **params: Any) -> None:
        member = LogisticRegression(C=1, max_iter=1000)
        settings = {"max_iter": 5, "tol": None, "n_jobs": n_jobs, "random_state": 0}
        TieredPUFilter(member, **settings, **params).fit(X, y, trusted)

    rules = {"threshold": "auto", "min_votes": "auto"}
    seconds = alternate(
        2,
        paper=lambda: run(-1),
        paper_one_process=lambda: run(None),
        default=lambda: run(-1, **rules),
    )
    return medians(seconds)


@row("digits demo, whole", {"seconds": Goal(at_most=5)})
def digits_demo(_: Path) -> Figures:
    seconds = []
    for _trial in range(3):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            pudistill("demo", "--output", str(Path(folder, "run")))
            seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds)}


def pudistill(*arguments: str) -> str:
    command = [sys.executable, "-m", "pudistill", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class StageTimes:
    """A progress display that shows nothing and records the seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def task(self, name: str, *_: object) -> Iterator[Callable[..., None]]:
        """Time a stage."""
        start = time.perf_counter()
        yield lambda *_, **__: None
        self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - start


def run_pictures(group: Group, noise: Noise, learner: Any, **params: Any) -> Figures:
    """Run all steps except the comparison; return time, accuracy, and quality of the clean set."""
    from pudistill import PUDistillClassifier
    from pudistill.utils.progress import display

    noisy = group.corrupt(noise)
    trusted_only = group.learner_on(group.y, group.trusted)["test_accuracy"]
    settings = {"compare": False, "n_jobs": -1, "random_state": 0} | params
    stages = StageTimes()
    start = time.perf_counter()
    with display(stages):
        classifier = PUDistillClassifier(learner, **settings)
        classifier.fit(group.X, noisy.y, group.trusted)
    seconds = time.perf_counter() - start
    accuracy = group.scored(classifier.predict(group.X_test))["test_accuracy"]
    return {
        "minutes": seconds / 60,
        "points above trusted only": 100 * (accuracy - trusted_only),
        "test accuracy": accuracy,
        **found_by(classifier.filter_, group),
        **{f"{name}, s": value for name, value in stages.seconds.items()},
    }


def found_by(pu_filter: Any, group: Group) -> Figures:
    """Return size and precision of a clean set, without its trusted samples."""
    found = (pu_filter.clean_labels_ >= 0) & ~group.trusted
    right = pu_filter.clean_labels_[found] == group.y[found]
    return {"found": int(found.sum()), "precision": float(right.mean()) if len(right) else None}


@row(
    "Fashion-MNIST, 60,000 pictures, 2 % trusted, asymmetric 40 %: everything but the comparison",
    {"minutes": Goal(at_most=30), PEAK: Goal(at_most=3072), "points above trusted only": Goal(3)},
    "long",
)
def fashion_mnist_run(data: Path) -> Figures:
    problem = replace(FASHION_PICTURES, load=partial(fashion_mnist, 60_000))
    group = Group(problem, 0, data, Path())
    return run_pictures(group, Noise("asymmetric", 0.4), small_cnn())


@row("filter of 20,000 pictures, 2 % trusted: members that share a trunk, and others", kind="long")
def shared_trunk(data: Path) -> Figures:
    from pudistill import TieredPUFilter

    group = Group(FASHION_PICTURES, 0, data, Path())
    figures: Figures = {}
    for name, share_trunk in (("shared", True), ("of their own", False)):
        start = time.perf_counter()
        pu_filter = TieredPUFilter(
            small_cnn(),
            threshold="auto",
            min_votes="auto",
            share_trunk=share_trunk,
            n_jobs=-1,
            random_state=0,
        ).fit(group.X, group.y, group.trusted)
        figures[f"{name}, s"] = time.perf_counter() - start
        for figure, value in found_by(pu_filter, group).items():
            figures[f"{name}, {figure}"] = value
    return figures


@row("filter that stops when its clean sets stop growing, and all ten iterations", kind="long")
def early_stop(data: Path) -> Figures:
    figures: Figures = {}
    noises = [Noise("symmetric", 0.6), Noise("symmetric", 0.9), Noise("asymmetric", 0.6)]
    for name in ("breast_cancer", "digits", "fashion-mnist table"):
        problem = next(problem for problem in PROBLEMS if problem.name == name)
        found = []
        for seed in range(2):
            group = Group(problem, seed, data, Path())
            for way, params in (("stops", {}), ("all", {"tol": None})):
                classifier = group.with_teachers(**params)
                accuracies = []
                for noise in noises:
                    student = group.with_teachers(**params)
                    student.fit_student(group.X, group.corrupt(noise).y, group.trusted)
                    accuracies.append(group.scored(student.predict(group.X_test)))
                found.append(
                    {
                        "way": way,
                        "s": float(classifier.filter_.history_["seconds"].sum()),
                        "iterations": float(classifier.filter_.n_iter_.mean()),
                        "accuracy": np.mean([scores["test_accuracy"] for scores in accuracies]),
                        **found_by(classifier.filter_, group),
                    }
                )
        means = pd.DataFrame(found).groupby("way").mean()
        for way, row_of_way in means.iterrows():
            figures |= {f"{name}, {way}, {what}": value for what, value in row_of_way.items()}
    return figures


@row("20,000 pictures, 2 % trusted, symmetric 60 %: a run of either recipe", kind="long")
def recipes_of_a_run(data: Path) -> Figures:
    group = Group(FASHION_PICTURES, 0, data, Path())
    figures: Figures = {}
    for recipe in ("fast", "paper"):
        found = run_pictures(group, Noise("symmetric", 0.6), small_cnn(recipe=recipe))
        figures |= {f"{recipe}, {name}": value for name, value in found.items()}
    return figures
