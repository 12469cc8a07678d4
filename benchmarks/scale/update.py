"""Measure an update after 50 more verified samples beside a fit from scratch.

    python -m benchmarks.scale.update --data ../shared/data

Both start with the same verified samples, drawn at random, and learn the same 50 more. All settings
have their defaults; one process trains. As other programs may run, times are those of the
processor. The goal is an update in at most a quarter of the time of the fit. An interrupted command
continues where it stopped.
"""

import argparse
import copy
import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from joblib import parallel_config
from sklearn.datasets import load_digits

from benchmarks.common.facts import RESULTS, add_data_option, facts
from benchmarks.common.problems import Split, cyclic_map, draw_at_random, held_out
from benchmarks.common.real_noise import from_arrays, from_table
from pudistill import PUDistillClassifier, corrupt_labels
from pudistill.labels.checks import MISSING
from pudistill.utils.files import write_atomic

N_MORE, N_SEEDS = 50, 3


def digits(data: Path, seed: int) -> Split:
    """Read digits; half of the given labels are the next digit."""
    split = held_out(load_digits, data, seed)
    noisy = corrupt_labels(
        split.y, "asymmetric", 0.5, class_map=cyclic_map(range(10)), random_state=seed
    )
    return split._replace(given=noisy.y)


# The data, and the share that is verified at the start.
PROBLEMS: dict[str, tuple[Callable[[Path, int], Split], float]] = {
    "labelme": (partial(from_arrays, "labelme"), 0.1),
    "digits": (digits, 0.05),
    "credit": (partial(from_table, "credit"), 0.03),
    "texts": (partial(from_table, "texts"), 0.1),
}


def measure(load: Callable[[Path, int], Split], share: float, data: Path, seed: int) -> dict:
    """Fit, verify more samples, and learn them in both ways."""
    split, rng = load(data, seed), np.random.default_rng(seed)
    drawn = draw_at_random(split.y, share, rng)
    more = drawn.copy()
    more[rng.choice(np.flatnonzero(~drawn), N_MORE, replace=False)] = True
    given = np.where(split.given == MISSING, np.nan, split.given)
    classifier = PUDistillClassifier(n_jobs=1, random_state=seed)

    def fit(found: PUDistillClassifier, trusted: np.ndarray) -> dict[str, Any]:
        begin, wall = time.process_time(), time.perf_counter()
        found.fit(split.X, given, np.where(trusted, split.y, np.nan))
        accuracy = found.label_accuracy_
        right = float((found.label_table_["label"].to_numpy() == split.y)[~trusted].mean())
        return {
            "seconds": round(time.process_time() - begin, 2),
            "wall_seconds": round(time.perf_counter() - wall, 2),
            "labels_right": round(right, 4),
            "test_accuracy": round(float((found.predict(split.X_test) == split.y_test).mean()), 4),
            "interval_holds": bool(accuracy.interval[0] <= right <= accuracy.interval[1]),
        }

    results = {"before": fit(classifier, drawn)}
    anew = copy.deepcopy(classifier)
    classifier.set_params(warm_start=True)
    results["update"] = fit(classifier, more)
    results["anew"] = fit(anew, more)
    return {"n": len(split.y), "n_verified": int(drawn.sum()), "seed": seed, **results}


def summary(repeats: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians over the seeds."""

    def median(fit: str, figure: str) -> float:
        return float(np.median([each[fit][figure] for each in repeats]))

    ratios = [each["update"]["seconds"] / each["anew"]["seconds"] for each in repeats]
    return {
        "seeds": len(repeats),
        "share_of_time": round(float(np.median(ratios)), 3),
        "seconds": {fit: median(fit, "seconds") for fit in ("update", "anew")},
        "labels_right": {
            fit: round(median(fit, "labels_right"), 4) for fit in ("before", "update", "anew")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--only", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, default=N_SEEDS)
    parser.add_argument("--output", type=Path, default=RESULTS / "update.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)  # of few verified samples
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    for seed in range(options.seeds):
        for name in options.only:
            repeats = results.setdefault(name, {"repeats": []})["repeats"]
            if any(each["seed"] == seed for each in repeats):
                continue
            with parallel_config("sequential"):
                repeats.append(measure(*PROBLEMS[name], options.data, seed) | facts())
            results[name] = {"medians": summary(repeats), "repeats": repeats}
            write_atomic(options.output, json.dumps(results, indent=1).encode())
            print(name, json.dumps(results[name]["medians"]), flush=True)


if __name__ == "__main__":
    main()
