"""Count how often the intervals of sources hold what they promise.

    python -m benchmarks.robustness.source_intervals --data ../shared/data --draws 200

Each draw verifies other samples of a data set with several sources. Predictions are those of a
logistic regression, cross-validated on the majority votes; `correct_labels` does the rest. Results
of a data set are written as soon as all of its draws are done.
"""

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import cross_val_predict

from benchmarks.common.facts import (
    RESULTS,
    add_data_option,
    described,
    facts,
    markdown,
    write_results,
)
from benchmarks.common.problems import Split
from benchmarks.common.real_noise import SHARES, from_arrays, plain
from pudistill import Annotations, correct_labels
from pudistill.utils.files import write_atomic

SETS = ("labelme", "sentiment", "youtube")
# Verified labels of a source from which its interval is counted once more.
SEVERAL = 10


def predictions(split: Split) -> np.ndarray:
    """Predict the true class by cross-validation on the majority votes."""
    vote = Annotations.from_columns(split.sources).vote()
    has_vote = vote != None  # noqa: E711 (of each entry)
    given, learner = vote[has_vote].astype(int), plain(C=0.1)
    proba = np.empty((len(vote), len(np.unique(split.y))))
    proba[has_vote] = cross_val_predict(
        learner, split.X[has_vote], given, method="predict_proba", cv=5
    )
    if not has_vote.all():
        model = learner.fit(split.X[has_vote], given)
        proba[~has_vote] = model.predict_proba(split.X[~has_vote])
    return proba


def holds(interval: Any, truth: float) -> bool:
    return bool(interval[0] - 1e-9 <= truth <= interval[1] + 1e-9)


def draw(split: Split, proba: np.ndarray, share: float, seed: int) -> dict[str, Any] | None:
    """Verify a random part, and compare all intervals with the truth; None without a class."""
    rng, y, sources = np.random.default_rng([seed, 1]), split.y, split.sources
    verified = np.full(len(y), np.nan)
    rows = rng.choice(len(y), round(share * len(y)), replace=False)
    verified[rows] = y[rows]
    if len(np.unique(y[rows])) < len(np.unique(y)):
        return None
    corrected = correct_labels(sources, proba, verified, random_state=seed)
    found, others = corrected.noise.per_source, np.isnan(verified)
    counts = {"of_rate": [], "of_rate_several": [], "of_class": [], "width": []}
    for s, name in enumerate(found.names.astype(int)):
        said, of_source = sources[:, name], others & (sources[:, name] >= 0)
        if not of_source.any():
            continue
        held = holds(found.rate_interval[s], (said != y)[of_source].mean())
        counts["of_rate"].append(held)
        counts["width"].append(float(np.diff(found.rate_interval[s])[0]))
        if found.n_verified[s] >= SEVERAL:
            counts["of_rate_several"].append(held)
        for c in np.unique(y[of_source]):
            in_class = of_source & (y == c)
            if found.n_verified[s]:
                truth = (said != c)[in_class].mean()
                counts["of_class"].append(holds(found.class_rate_interval[s, c], truth))
    table = corrected.label_table
    right = (table["label"].astype(int).to_numpy() == y)[others].mean()
    return counts | {
        "of_labels": [holds(corrected.label_accuracy.interval, right)],
        "gap": [float(table["confidence"].to_numpy(dtype=float)[others].mean() - right)],
    }


def share_of(held: list[bool]) -> str:
    return f"{np.mean(held):.1%} of {len(held):,}" if held else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_data_option(parser)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--output", type=Path, default=RESULTS / "source_intervals.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows, start = [], time.perf_counter()
    for name in SETS:
        split = from_arrays(name, options.data, 0)
        proba = predictions(split)
        for share in SHARES:
            draws = [draw(split, proba, share, seed) for seed in range(options.draws)]
            draws = [found for found in draws if found is not None]
            counts = {key: [value for found in draws for value in found[key]] for key in draws[0]}
            rows.append(
                {
                    "data": f"{name}, {share:.0%} verified",
                    "draws": len(draws),
                    "rate of a source": share_of(counts["of_rate"]),
                    f"of one with {SEVERAL} verified labels": share_of(counts["of_rate_several"]),
                    "mean width": f"{np.mean(counts['width']):.2f}",
                    "rate by class": share_of(counts["of_class"]),
                    "labels right": share_of(counts["of_labels"]),
                    "confidence minus labels right": f"{100 * np.mean(counts['gap']):+.1f} points",
                }
            )
            print(rows[-1], flush=True)
        run = facts() | {"wall_minutes": round((time.perf_counter() - start) / 60)}
        write_results(pd.DataFrame(rows), run, options.output)
    text = "\n".join(
        [
            "# Intervals of sources\n",
            described(run),
            "Share of 95 % intervals that hold the truth. A draw verifies other samples.\n",
            markdown(pd.DataFrame(rows)),
        ]
    )
    write_atomic(options.output.with_suffix(".md"), text.encode())


if __name__ == "__main__":
    main()
