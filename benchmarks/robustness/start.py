"""Begin with no verified label, as `pudistill start` does, and answer with the truth.

    python -m benchmarks.robustness.start

The digits of the demo, half of which have the label of the next digit. The demo has 69 verified
labels, drawn at random from each class; the review asks for as many, in three queues.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common.facts import RESULTS, facts, markdown, write_results
from pudistill import corrupt_labels, load
from pudistill.data.loading import load_dataset
from pudistill.review.decisions import Decision, Decisions
from pudistill.review.start import Review
from pudistill.runs.fit import fit_run
from pudistill.runs.settings import DEMO, Settings

BUDGET, N_QUEUES, SEEDS = 23, 3, range(3)


def measured(seed: int, folder: Path) -> list[dict]:
    """Return a row for each fit of a review, and one for the demo."""
    demo = fit_run(Settings(**DEMO, noise="asymmetric", level=0.5, seed=seed), folder / "demo")
    metrics = demo.read_json("metrics.json")
    right = metrics["label_accuracy"]["corrected"]
    accuracy = metrics["test_accuracy"]["pudistill"]
    rows = [{"seed": seed, "method": "demo", "verified": metrics["n_trusted"]}]
    rows[0] |= {"labels right": right, "test accuracy": accuracy}
    train, test = load_dataset("digits").holdout(0.25, seed)
    names = np.array(train.classes, dtype=object)
    truth = pd.Categorical(train.y, categories=names).codes.astype(int)
    given = names[corrupt_labels(truth, "asymmetric", 0.5, random_state=seed).y]
    table = pd.DataFrame(train.X).add_prefix("pixel_")
    table.insert(0, "id", [f"digit-{name}" for name in train.ids])
    table["label"] = given
    table.to_csv(folder / "digits.csv", index=False)
    answers = dict(zip(table["id"], train.y, strict=True))
    review = Review(
        Settings(data=str(folder / "digits.csv"), seed=seed), folder / "review", budget=BUDGET
    )
    for number in range(1, N_QUEUES + 1):
        decisions = Decisions(review.run.path)
        for asked in review.queue.itertuples():
            answer = answers[asked.id]
            decisions.append(Decision(asked.id, "label", answer, asked.weight, asked.part))
        if not review.learn():
            continue
        labels = review.run.read_table("labels")
        rest = labels[~labels["trusted"]]
        predicted = load(review.run.path).predict(test.X)
        row = {"seed": seed, "method": "start", "verified": BUDGET * number}
        row["labels right"] = float((rest["label"] == rest["id"].map(answers)).mean())
        rows.append(row | {"test accuracy": float((predicted == test.y).mean())})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=RESULTS / "start.json")
    options = parser.parse_args()
    rows = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            rows += measured(seed, Path(folder))
    table = pd.DataFrame(rows)
    write_results(table, facts(), options.output)
    print(markdown(table.groupby(["method", "verified"], as_index=False).mean(numeric_only=True)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
