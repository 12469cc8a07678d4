"""Check that memory, open files and processes do not grow over long runs.

python -m benchmarks.scale.endurance --output benchmarks/results/endurance.json
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor

from benchmarks.common.facts import facts
from pudistill import TieredPUFilter, TorchClassifier
from pudistill.data.loading import load_dataset
from pudistill.experiments.curve import accuracy_curve
from pudistill.experiments.curve_settings import CurveSettings
from pudistill.learners.cache import StageCache
from pudistill.runs.inputs import with_noise
from pudistill.utils.files import write_atomic
from pudistill.utils.progress import display

MIB = 2**20


class Watcher:
    """A progress display that records the memory of all processes after each step of a stage."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.memory: list[float] = []

    @contextmanager
    def task(self, name: str, total: int, place: str):  # noqa: ARG002
        """Record the memory, and show nothing."""

        def advance(*_: object, **__: object) -> None:
            if name == self.stage:
                self.memory.append(sum(process.memory_info().rss for process in family()) / MIB)

        yield advance


def family() -> list[psutil.Process]:
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def held() -> dict[str, int]:
    return {"files": len(os.listdir("/proc/self/fd")), "processes": len(family())}  # noqa: PTH208


def measure(stage: str, work: Callable[[], object]) -> dict:
    """Do the work; compare memory in the second quarter of its steps with the last quarter."""
    Parallel(2)(delayed(abs)(n) for n in range(2))  # starts helpers that stay until the end
    get_reusable_executor().shutdown(wait=True)
    before = held()
    watcher = Watcher(stage)
    with display(watcher):
        work()
    get_reusable_executor().shutdown(wait=True)
    quarters = np.array_split(np.array(watcher.memory), 4)
    second, last = (float(np.median(quarters[n])) for n in (1, 3))
    return {
        "steps": len(watcher.memory),
        "second_quarter_mib": round(second, 1),
        "last_quarter_mib": round(last, 1),
        "ratio": round(last / second, 4),
        "before": before,
        "after": held(),
    }


def members(learner: object, n_jobs: int) -> Callable[[], object]:
    """Return a fit of the filter: ten classes of 20 members, 200 in an iteration."""
    digits = with_noise(load_dataset("digits"), "symmetric", 0.5, 0.1, 0)
    X = digits.X
    if isinstance(learner, TorchClassifier) and learner.module == "small_cnn":
        X = (X * 15).astype(np.uint8).reshape(-1, 8, 8)
    pu_filter = TieredPUFilter(
        learner, n_members=20, max_iter=2, tol=None, n_jobs=n_jobs, random_state=0
    )
    return lambda: pu_filter.fit(X, digits.y, digits.verified)


def cells() -> object:
    """Run a sweep of 60 cells."""
    train, test = load_dataset("wine").holdout(0.3, random_state=0)
    settings = CurveSettings.read(
        {
            "data": "wine",
            "test_fraction": 0.3,
            "noises": ["symmetric", "asymmetric"],
            "levels": [0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
            "methods": ["given_labels", "gold_loss_correction", "paper", "pudistill", "mixup"],
            "n_jobs": 1,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        return accuracy_curve(train, test, settings, stages=StageCache(Path(folder) / "units"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    network = TorchClassifier("small_cnn", epochs=2)
    results = {
        "small_cnn, one by one": measure("filter", members(network, 1)),
        "small_cnn, two workers": measure("filter", members(network, 2)),
        "logistic regression, one by one": measure("filter", members(None, 1)),
        "cells of a sweep": measure("curve", cells),
    }
    for name, result in results.items():
        print(name, result)
    write_atomic(args.output, json.dumps({**facts(), "results": results}, indent=1).encode())


if __name__ == "__main__":
    main()
