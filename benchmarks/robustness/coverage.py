"""Measure how often the 95 % intervals contain the test accuracy and the noise rate.

    python -m benchmarks.robustness.coverage --data ../shared/data

`benchmarks.robustness` has five splits per data set, and all noises of a split share their held-out
samples. Here every run has its own split (for CIFAR-10: its own trusted samples and noise).
"""

import sys
from pathlib import Path

from benchmarks.common.cells import (
    Cell,
    Method,
    cells_folder,
    compute_missing,
    options_parser,
    read_cells,
)
from benchmarks.common.facts import described, markdown, run_facts, write_results
from benchmarks.common.problems import PROBLEMS, Group, Noise
from benchmarks.robustness.report import with_errors
from benchmarks.robustness.systems import pudistill
from pudistill.utils.files import write_atomic

# Number of splits, limited to what takes minutes.
ON = {
    "breast_cancer": 100,
    "digits": 30,
    "fashion-mnist table": 10,
    "cifar10-features, 2 % trusted": 4,
}
FIRST_SEED = 100
NOISES = (Noise("symmetric", 0.5), Noise("asymmetric", 0.5))


def summarise(folder: Path, output: Path) -> None:
    """Write the rows and the table."""
    rows = read_cells(folder)
    run = run_facts(folder, rows, "python -m benchmarks.robustness.coverage --data ../shared/data")
    write_results(rows, run, output)
    runs = with_errors(rows)
    off = 100 * (runs["expected_accuracy"] - runs["test_accuracy"])
    lines = runs.assign(off=off, absolute=off.abs()).groupby(["problem", "kind"], as_index=False)
    table = lines.agg(
        splits=("seed", "size"),
        inside=("inside", "mean"),
        inside_of_both=("inside_of_both", "mean"),
        width=("width", "mean"),
        off=("off", "mean"),
        absolute=("absolute", "mean"),
        rate_inside=("rate_inside", "mean"),
        rate_width=("rate_width", "mean"),
        rate_off=("error", "mean"),
        preliminary_inside=("preliminary_inside", "mean"),
        preliminary_width=("preliminary_width", "mean"),
    )
    for name in ("inside", "inside_of_both", "rate_inside", "preliminary_inside"):
        table[name] = table[name].astype(float).map("{:.0%}".format)
    for name in ("width", "rate_width", "rate_off", "preliminary_width"):
        table[name] = (100 * table[name]).map("{:.1f}".format)
    table["off"], table["absolute"] = (
        table[name].map("{:+.1f}".format) for name in ("off", "absolute")
    )
    table.columns = [
        *("data set", "noise of 50 %", "splits", "test accuracy inside the 95 % interval"),
        *("the same, with the test sample's own error", "its width, points"),
        *("expected − test accuracy, points", "absolute"),
        *("share of wrong labels inside the 95 % interval", "its width, points"),
        "estimate off by, points",
        *("the share inside the interval after the first round", "its width, points"),
    ]
    text = "\n".join(
        [
            "# Intervals of the expected accuracy and of the noise rate\n",
            described(run),
            markdown(table),
        ]
    )
    write_atomic(output.with_suffix(".md"), text.encode())
    print(text)


def main() -> None:
    options = options_parser(__doc__, "coverage.json", range(100)).parse_args()
    folder = cells_folder(options.output)
    work = [
        (problem, [Cell(problem.name, FIRST_SEED + seed, noise, "pudistill") for noise in NOISES])
        for problem in PROBLEMS
        if problem.name in ON and problem.name.startswith(tuple(options.only))
        for seed in options.seeds
        if seed < ON[problem.name]
    ]
    methods = {"pudistill": Method(pudistill, needs=Group.ours)}
    failures = 0 if options.summary else compute_missing(work, methods, folder, options)
    summarise(folder, options.output)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
