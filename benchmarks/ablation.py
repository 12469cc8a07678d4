"""What each part of the default method adds, as the paper's tables IV and VI do for its own.

    python benchmarks/ablation.py --data ../shared/data

Digits and Fashion-MNIST as a table, as in robustness.py, two seeds; mean test accuracy in %.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
from joblib import Parallel, delayed

from pudistill import noise_aware
from pudistill.classifier import PUDistillClassifier
from pudistill.noise_estimation import fit_transition_matrix
from robustness import PROBLEMS, RESULTS, Group, Noise

GRID = [Noise(kind, level) for kind in ("symmetric", "asymmetric") for level in (0.3, 0.6, 0.9)]
GRID += [Noise("instance", level) for level in (0.3, 0.6, 0.9)]
Variant = Callable[[Group, PUDistillClassifier], Any]


@contextmanager
def guess_of(classifier: PUDistillClassifier, teacher_share: float | None) -> Iterator[None]:
    """Let the first guess come from the teachers alone, the trusted samples alone, or both."""
    ready = classifier._ready
    if teacher_share is not None:
        blend = replace(ready.blend, weight=teacher_share)
        classifier._ready = replace(ready, blend=blend)
    yield
    classifier._ready = ready


def once() -> Any:
    return patch.object(noise_aware, "MAX_ROUNDS", 1)


def student_alone() -> Any:
    return patch.object(noise_aware, "STUDENT_ALONE", 0.0)


def calibration_off() -> Any:
    identity = noise_aware.Temperature()
    return patch.object(noise_aware.Temperature, "fit", lambda *_: identity)


# Name: teachers' share of the guess (None: as found), and what is switched off.
VARIANTS: dict[str, tuple[float | None, list[Callable[[], Any]]]] = {
    "one round, guess from the trusted samples": (0.0, [once, student_alone]),
    "one round, guess from the teachers": (1.0, [once, student_alone]),
    "one round, blended guess": (None, [once, student_alone]),
    "rounds, guess from the trusted samples": (0.0, [student_alone]),
    "rounds, guess from the teachers": (1.0, [student_alone]),
    "rounds, blended guess": (None, [student_alone]),
    "rounds, blended guess, mixture (default)": (None, []),
    "default without calibration": (None, [calibration_off]),
}


def group_rows(problem: Any, seed: int, data: Path) -> list[dict]:
    group = Group(problem, seed, data, RESULTS / "ablation.units")
    adaptive = group.ours()
    faithful = PUDistillClassifier(
        group.learner, threshold=0.9, min_votes=0.95, random_state=seed
    ).fit_teachers(group.X, group.y, group.trusted)
    alone = PUDistillClassifier(group.learner, compare=False, random_state=seed)
    alone.fit_teachers(group.X, group.y, group.trusted)
    rows = []
    for noise in GRID:
        given = group.corrupt(noise).y

        def record(variant: str, classifier: PUDistillClassifier) -> None:
            classifier.fit_student(group.X, given, group.trusted)  # noqa: B023
            accuracy = group.scored(classifier.predict(group.X_test))["test_accuracy"]
            row = {"problem": problem.name, "seed": seed, "variant": variant}
            rows.append(row | noise._asdict() | {"accuracy": accuracy})  # noqa: B023

        for name, (share, switched) in VARIANTS.items():
            classifier = copy(adaptive)
            first, second = [*(switch() for switch in switched), nullcontext(), nullcontext()][:2]
            with guess_of(classifier, share), first, second:
                record(name, classifier)
        record("default with the faithful filter (α = 0.9, θ = 19)", faithful)
        record("default without held-out samples", alone)
        noisy = ~group.trusted
        guess = adaptive._ready.blend.guess(adaptive._ready.guides[0])
        T = fit_transition_matrix(guess[noisy], given[noisy])
        record("default, T of the first guess", copy(adaptive).set_params(transition_matrix=T))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", default="", help="beginning of a problem's name")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--output", type=Path, default=RESULTS / "ablation.json")
    options = parser.parse_args()
    names = [n for n in ("digits", "fashion-mnist table") if n.startswith(options.only)]
    problems = [problem for problem in PROBLEMS if problem.name in names]
    start = time.perf_counter()
    groups = Parallel(n_jobs=2)(
        delayed(group_rows)(problem, seed, options.data)
        for problem in problems
        for seed in options.seeds
    )
    rows = [row for group in groups for row in group]
    seconds = round(time.perf_counter() - start)
    options.output.write_text(json.dumps({"rows": rows, "seconds": seconds}, indent=1) + "\n")
    table = pd.DataFrame(rows).assign(accuracy=lambda rows: 100 * rows["accuracy"])
    shown = table.pivot_table(
        index="variant", columns=["problem", "kind", "level"], values="accuracy", sort=False
    )
    shown["mean"] = shown.mean(axis=1)
    print(shown.round(1).to_string())


if __name__ == "__main__":
    main()
