"""Compare what one can do with wrong labels, on eight data sets, for docs/results/case_study.md.

    python -m benchmarks.robustness.case_study --data ../shared/data

Doing nothing, verified samples alone, cleanlab, Gold Loss Correction and pudistill: test accuracy,
labels that are right, and processor time. All have the same features, the same logistic regression
and the same verified samples, drawn at random. An interrupted command continues where it stopped.
"""

from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from benchmarks.common.cells import Cell, compute_and_summarise, options_parser, read_cells
from benchmarks.common.facts import described, markdown, run_facts, write_results
from benchmarks.common.paired import mean_and_error
from benchmarks.common.problems import (
    ANY,
    KNOWN,
    REAL,
    Problem,
    Split,
    cifar10_features,
    in_codes,
    logistic_regression,
    on_features,
)
from benchmarks.common.real_noise import REAL_PROBLEMS, from_table, real
from benchmarks.robustness.real_noise import METHODS, OURS
from pudistill import corrupt_labels
from pudistill.labels.corruption import CIFAR10_CLASSES, CIFAR10_MAP
from pudistill.utils.files import write_atomic

SYSTEMS = {
    "given_labels": "do nothing",
    "trusted_only": "verified samples alone",
    "cleanlab": "cleanlab",
    "cleanlab_trusted_kept": "cleanlab, verified samples kept",
    "gold_loss_correction": "Gold Loss Correction",
    "pudistill": "pudistill, originals unknown",
    KNOWN: "pudistill, originals known",
    "true_labels": "all labels right",
}
CEILING = "true_labels"
COMMAND = "python -m benchmarks.robustness.case_study --data ../shared/data"


def noisy_cifar10(kind: str, level: float, data: Path, seed: int) -> Split:
    """Read features of CIFAR-10, and make wrong labels."""
    split = cifar10_features(data, seed)
    class_map = in_codes(CIFAR10_MAP, CIFAR10_CLASSES) if kind == "asymmetric" else None
    given = corrupt_labels(split.y, kind, level, class_map=class_map, random_state=seed).y
    return split._replace(given=given)


PROBLEMS = (
    *(problem for problem in REAL_PROBLEMS if problem.trusted == 0.1),
    real(
        "credit, 3 % verified",
        partial(from_table, "credit"),
        trusted=100 / 3524,
        learner=logistic_regression,
    ),
    real("texts, 10 % verified", partial(from_table, "texts"), trusted=0.1),
    *(
        real(
            f"CIFAR-10, {kind} {100 * level:.0f} %, 2 % verified",
            partial(noisy_cifar10, kind, level),
            trusted=0.02,
            learner=on_features,
        )
        for kind, level in (("symmetric", 0.5), ("asymmetric", 0.5))
    ),
)


def accuracy_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean test accuracies in %, a row per data set."""
    means = rows.pivot_table(index="problem", columns="method", values="test_accuracy", sort=False)
    shown = (100 * means.reindex(columns=list(SYSTEMS))).map("{:.1f}".format)
    shown.insert(0, "seeds", rows.groupby("problem", sort=False)["seed"].nunique())
    return shown.rename(columns=SYSTEMS).reset_index()


def label_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return shares of right labels in %, of samples that nobody verified."""
    known = rows[rows["right_after"].notna()]
    after = known.pivot_table(index="problem", columns="method", values="right_after", sort=False)
    after.insert(0, "before", known.groupby("problem", sort=False)["right_before"].mean())
    return (100 * after).map("{:.1f}".format).rename(columns=SYSTEMS).reset_index()


def cost_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean processor seconds, with those of the teachers that two rows share."""
    ours = rows["method"].isin(OURS)
    teachers = rows["teacher_cpu_seconds"].map(lambda of: of["default"], na_action="ignore")
    rows = rows.assign(cost=rows["cpu_seconds"] + teachers.where(ours, 0))
    means = rows.pivot_table(index="problem", columns="method", values="cost", sort=False)
    shown = means.reindex(columns=list(SYSTEMS)).map("{:.1f}".format)
    return shown.rename(columns=SYSTEMS).reset_index()


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Draw each system's points below the ceiling, with standard errors, a panel per data set."""
    table = rows.pivot(index=["problem", "seed"], columns="method", values="test_accuracy")
    problems = list(rows["problem"].unique())
    figure, panels = plt.subplots(
        2, (len(problems) + 1) // 2, figsize=(11, 5.4), sharey=True, layout="constrained"
    )
    systems = [name for name in SYSTEMS if name != CEILING]
    for problem, panel in zip(problems, panels.flat, strict=False):
        part = table.loc[problem]
        for place, name in enumerate(systems):
            below, error = mean_and_error((part[name] - part[CEILING]).dropna())
            colour = "#0b6e4f" if name in OURS else "#777777"
            panel.errorbar(100 * below, place, xerr=100 * error, fmt="o", color=colour)
        panel.axvline(0, color="#bbbbbb", linewidth=1)
        panel.set_title(problem.replace(", ", "\n", 1), fontsize=9)
        panel.set_yticks(range(len(systems)), [SYSTEMS[name] for name in systems], fontsize=8)
        panel.tick_params(axis="x", labelsize=8)
    panels.flat[0].invert_yaxis()
    figure.supxlabel("test accuracy beside training with all labels right, in points", fontsize=9)
    with plt.rc_context({"svg.hashsalt": "case_study"}):
        figure.savefig(path, metadata={"Date": None})


def summarise(folder: Path, output: Path) -> None:
    """Write rows, tables and figure."""
    rows = read_cells(folder)
    order = {problem.name: place for place, problem in enumerate(PROBLEMS)}
    rows = rows.sort_values("problem", key=lambda names: names.map(order), kind="stable")
    run = run_facts(folder, rows, COMMAND)
    write_results(rows, run, output)
    text = "\n".join(
        [
            "# Case study\n",
            described(run),
            "## Test accuracy, %\n",
            markdown(accuracy_table(rows)),
            "## Labels right, %, of samples that nobody verified\n",
            markdown(label_table(rows)),
            "## Processor seconds\n",
            markdown(cost_table(rows)),
        ]
    )
    write_atomic(output.with_suffix(".md"), text.encode())
    draw(rows, output.with_suffix(".svg"))
    print(text)


def cells_of(problem: Problem, seed: int) -> list[Cell]:
    """Return the cells of a problem and seed, those that read no given label first."""
    of_noise: list[tuple[Any, str]] = [
        (REAL if METHODS[name].reads_noise else ANY, name) for name in SYSTEMS
    ]
    return [Cell(problem.name, seed, *of) for of in sorted(of_noise, key=lambda of: of[0] == REAL)]


def main() -> None:
    options = options_parser(__doc__, "case_study.json", range(5)).parse_args()
    work = [
        (problem, cells_of(problem, seed))
        for seed in options.seeds
        for problem in PROBLEMS
        if problem.name.startswith(tuple(options.only))
    ]
    compute_and_summarise(work, METHODS, summarise, options)


if __name__ == "__main__":
    main()
