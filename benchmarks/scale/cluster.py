"""Compare Ray with loky on the same cores of one machine.

    python -m benchmarks.scale.cluster --data ../shared/data

Ray must be installed (``pip install 'pudistill[ray]'``). Each round fits the filter on
CIFAR-10 features once with each of them, in alternating order. The time to start Ray is measured
separately. Both must give the same labels.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from joblib import parallel_config
from joblib.parallel import get_active_backend
from sklearn.base import clone

from benchmarks.common.facts import RESULTS, add_data_option, facts
from pudistill import TieredPUFilter
from pudistill.labels.corruption import corrupt_labels
from pudistill.utils.cluster import running_on
from pudistill.utils.files import write_atomic

GOAL = 1.2  # Ray's time divided by loky's, at most


def problem(data: Path, n_samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return samples, labels (half of them wrong), and a mask of trusted samples (a tenth)."""
    with np.load(data / "cifar10-features" / "features.npz") as file:
        X, right = file["X"][:n_samples].astype(np.float32), file["y"][:n_samples]
    trusted = np.arange(len(X)) % 10 == 0
    y = corrupt_labels(right, "symmetric", 0.5, trusted=trusted, random_state=0).y
    return X, y, trusted


def timed(pu_filter: TieredPUFilter, samples: tuple) -> tuple[float, np.ndarray]:
    """Fit a copy; return the seconds and the clean labels."""
    start = time.perf_counter()
    fitted = clone(pu_filter).fit(*samples)
    return time.perf_counter() - start, fitted.clean_labels_


def measure(samples: tuple, n_members: int, n_rounds: int) -> dict[str, Any]:
    """Fit the filter with loky and with Ray in turn."""
    n_jobs = os.cpu_count()
    pu_filter = TieredPUFilter(
        n_members=n_members, max_iter=5, tol=None, n_jobs=n_jobs, random_state=0
    )
    seconds: dict[str, list[float]] = {"loky": [], "ray": []}
    start = time.perf_counter()
    with running_on("local-ray"):
        started = time.perf_counter() - start
        backends = {"loky": "loky", "ray": get_active_backend()[0]}
        for n in range(-1, n_rounds):  # the first one starts the workers
            labels = {}
            for name in sorted(backends, reverse=n % 2 == 1):
                with parallel_config(backends[name], n_jobs=n_jobs):
                    taken, labels[name] = timed(pu_filter, samples)
                if n >= 0:
                    seconds[name].append(taken)
            np.testing.assert_array_equal(labels["loky"], labels["ray"])
    ratios = np.array(seconds["ray"]) / seconds["loky"]
    return {
        "n_samples": len(samples[0]),
        "n_members": n_members,
        "n_jobs": n_jobs,
        "seconds": {name: np.round(taken, 3).tolist() for name, taken in seconds.items()},
        "median_seconds": {name: float(np.median(taken)) for name, taken in seconds.items()},
        "ratios": np.round(ratios, 3).tolist(),
        "median_ratio": float(np.median(ratios)),
        "goal": GOAL,
        "seconds_to_start_ray": started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS / "cluster.json")
    options = parser.parse_args()
    about = facts()
    samples = problem(options.data, options.samples)
    result = about | measure(samples, options.members, options.rounds)
    write_atomic(options.output, json.dumps(result, indent=1).encode() + b"\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
