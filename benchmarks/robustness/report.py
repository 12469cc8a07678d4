"""Tables and a figure of the finished cells, with each goal beside the measured value.

A *margin* is a difference of test accuracies, paired over seeds. Within its tolerance, half a point
or one standard error over seeds (whichever is larger), it counts as zero.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from benchmarks.common.cells import read_cells
from benchmarks.common.facts import described, markdown, run_facts, teacher_seconds, write_results
from benchmarks.common.problems import KNOWN
from pudistill.utils.files import write_atomic

OURS, GLC = "pudistill", "gold_loss_correction"
BASELINES = ("given_labels", "trusted_only")
OTHER_PEERS = ("self_training", "cleanlab", "consistency", "paper_per_level", "paper_fixed")
PEERS = (*BASELINES, GLC, *OTHER_PEERS)
METHODS = (*PEERS, OURS, KNOWN, "true_matrix", "true_labels")
CELL = ["problem", "kind", "level"]
EXTREMES = ("none", "all wrong", "all random")
CLASS_DEPENDENT = ("symmetric", "asymmetric")

TOLERANCE = 0.005
CEILING_SHARE, TRUSTED_SHARE, GAP_SHARE = 0.92, 0.88, 0.5
GOAL_BASELINES = "max(trusted_only, given_labels)"
GOAL_PEER = "best peer"
GOAL_CEILING = "ceiling or gap"


# Margins


def margin(difference: pd.Series) -> dict[str, float]:
    """Return the mean of a paired difference over seeds, and its tolerance."""
    difference = difference.dropna()
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return {"margin": float(difference.mean()), "tolerance": max(TOLERANCE, float(error))}


def smallest_margin(cell: pd.DataFrame, others: Iterable[str]) -> dict[str, Any]:
    """Return the smallest margin of pudistill against any of the others."""
    margins = [
        {"against": name} | margin(cell[OURS] - cell[name])
        for name in others
        if name in cell and (cell[OURS] - cell[name]).notna().any()
    ]
    return min(margins, key=lambda found: found["margin"], default={})


def accuracies(rows: pd.DataFrame) -> pd.DataFrame:
    """Return test accuracies by cell and seed, a column per method.

    Methods that read no noisy label have the same accuracy at every noise.
    """
    free = rows["kind"] == "any"
    by_noise = rows[~free].pivot(index=[*CELL, "seed"], columns="method", values="test_accuracy")
    any_noise = rows[free].pivot(
        index=["problem", "seed"], columns="method", values="test_accuracy"
    )
    table = by_noise.join(any_noise, on=["problem", "seed"]).astype(float)
    return table[[name for name in METHODS if name in table]]


def margins(table: pd.DataFrame) -> pd.DataFrame:
    """Return the margin of every goal in every cell that has a result of pudistill."""
    found = []
    for where, cell in table.groupby(CELL, sort=False):
        if OURS not in cell or cell[OURS].isna().all():
            continue
        goals = {"no noise: given_labels": smallest_margin(cell, ["given_labels"])}
        if where[1] in ("all wrong", "all random"):
            goals = {f"{where[1]}: trusted_only": smallest_margin(cell, ["trusted_only"])}
        elif where[1] != "none":
            goals = {
                GOAL_BASELINES: smallest_margin(cell, BASELINES),
                GLC: smallest_margin(cell, [GLC]),
                GOAL_PEER: smallest_margin(cell, PEERS),
                GOAL_CEILING: ceiling_margin(cell),
            }
        found += [
            dict(zip(CELL, where, strict=True)) | {"goal": goal} | values
            for goal, values in goals.items()
            if values
        ]
    return pd.DataFrame(found, columns=[*CELL, "goal", "against", "margin", "tolerance"])


def ceiling_margin(cell: pd.DataFrame) -> dict[str, Any]:
    """Return the margin against 92 % of the ceiling, the accuracy with true labels.

    Where training on trusted samples alone is far below the ceiling, return the margin against
    half of the gap between Gold Loss Correction and the true transition matrix.
    """
    trusted, ceiling = shared(cell, "trusted_only", "true_labels")
    if trusted.empty:
        return {}
    if trusted.mean() >= TRUSTED_SHARE * ceiling.mean():
        share = cell.loc[ceiling.index, OURS].mean() / ceiling.mean()
        return {"against": f"{CEILING_SHARE:.0%} of ceiling ({share:.1%})"} | margin(
            cell[OURS] - CEILING_SHARE * ceiling
        )
    low, high = shared(cell, GLC, "true_matrix")
    if low.empty:
        return {}
    gain, gap = (cell.loc[low.index, OURS] - low).mean(), (high - low).mean()
    closed = f"{gain / gap:.0%} closed" if gap > TOLERANCE else "there is none"
    target = low + GAP_SHARE * (high - low) if gap > 0 else low
    return {"against": f"half of gap {100 * gap:+.1f} ({closed})"} | margin(cell[OURS] - target)


def shared(cell: pd.DataFrame, *methods: str) -> tuple[pd.Series, ...]:
    """Return accuracies of methods on the seeds that they and pudistill have in common."""
    found = cell.reindex(columns=[OURS, *methods]).dropna()
    return tuple(found[name] for name in methods)


# Goals


def goals(rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return each goal, the measured margin, and the number of cells that reach it."""
    lines = []
    for goal, cells in margins(table).groupby("goal", sort=False):
        above, within = cells["margin"] > 0, cells["margin"] >= -cells["tolerance"]
        worst = cells.loc[cells["margin"].idxmin()]
        lines.append(
            {
                "goal": f"pudistill − {goal}",
                "cells": len(cells),
                "above": f"{above.sum()} ({above.mean():.0%})",
                "not below": f"{within.sum()} ({within.mean():.0%})",
                "measured": f"mean {100 * cells['margin'].mean():+.1f} points, least "
                f"{100 * worst['margin']:+.1f} ({cell_name(worst)}; against {worst['against']})",
            }
        )
    runs = with_errors(rows)
    dependent = runs["kind"].isin(CLASS_DEPENDENT)
    known = runs["method"] == KNOWN
    for name, chosen in (
        ("class-dependent noise", ~known & dependent),
        ("instance-dependent noise (no goal)", ~known & (runs["kind"] == "instance")),
        ("all noise, originals known", known & ~runs["kind"].isin(EXTREMES)),
    ):
        errors = runs.loc[chosen, "error"]
        if errors.empty:
            continue
        lines.append(
            {
                "goal": f"noise rate: mean absolute error ≤ 0.03, {name}",
                "cells": runs[chosen].groupby(CELL).ngroups,
                "measured": f"{errors.mean():.3f}, largest {errors.max():.3f}",
            }
        )
    flips = runs.loc[~known, "flips_found"].dropna()
    if len(flips):
        lines.append(
            {
                "goal": "largest off-diagonal entry of every asymmetric class",
                "cells": runs[~known & runs["flips_found"].notna()].groupby(CELL).ngroups,
                "measured": f"right for {flips.mean():.1%} of the classes, for all classes in "
                f"{(flips == 1).mean():.0%} of the runs",
            }
        )
    for name, chosen in (("", ~known), (", originals known", known)):
        part = runs[chosen & runs["interval"].notna()]
        if part.empty:
            continue
        lines.append(
            {
                "goal": f"test accuracy inside the 95 % interval{name}",
                "cells": part.groupby(CELL).ngroups,
                "measured": f"in {part['inside'].mean():.0%} of the runs; in "
                f"{part['inside_of_both'].mean():.0%} if the test sample's own error is added",
            }
        )
    return pd.DataFrame(lines).fillna("")


def with_errors(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of pudistill with the errors of their estimates and intervals."""
    noise = ["noise_rate_estimate", "noise_rate", "noise_rate_interval"]
    expected = [*noise, "preliminary_interval", "interval", "flips_found", "n_test"]
    runs = rows[rows["method"].isin([OURS, KNOWN])].reindex(columns=[*rows, *expected])
    runs = runs.loc[:, ~runs.columns.duplicated()].copy()
    runs["error"] = (runs["noise_rate_estimate"] - runs["noise_rate"]).abs()
    low, high = bounds(runs["noise_rate_interval"])
    runs["rate_inside"] = runs["noise_rate"].between(low, high).where(low.notna())
    runs["rate_width"] = high - low
    low, high = bounds(runs["preliminary_interval"])
    runs["preliminary_inside"] = runs["noise_rate"].between(low, high).where(low.notna())
    low, high = bounds(runs["interval"])
    accuracy = runs["test_accuracy"].astype(float)
    runs["inside"] = accuracy.between(low, high).where(low.notna())
    runs["width"] = high - low
    own = 1.96 * np.sqrt(accuracy * (1 - accuracy) / runs["n_test"].astype(float))
    runs["inside_of_both"] = (accuracy - (low + high) / 2).abs() <= np.hypot(own, (high - low) / 2)
    return runs


def bounds(intervals: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Split intervals into lower and upper bounds; missing ones become NaN."""
    low, high = (intervals.astype(object).str[bound].astype(float) for bound in (0, 1))
    return low, high


def estimates(rows: pd.DataFrame) -> pd.DataFrame:
    """Return how good the estimates of noise and accuracy are, by problem and kind of noise."""
    lines = []
    for where, part in with_errors(rows).groupby(["method", "problem", "kind"], sort=False):
        flips = part["flips_found"].dropna()
        lines.append(
            dict(zip(("method", "problem", "noise"), where, strict=True))
            | {
                "runs": len(part),
                "noise rate: mean absolute error": f"{part['error'].mean():.3f}",
                "largest": f"{part['error'].max():.3f}",
                "flips found": f"{flips.mean():.1%}" if len(flips) else "",
                "accuracy inside interval": f"{part['inside'].mean():.0%}",
                "interval's width": f"{100 * part['width'].mean():.1f} points",
            }
        )
    return pd.DataFrame(lines)


def shipped(rows: pd.DataFrame) -> pd.DataFrame:
    """Return which candidates were shipped, and the held-out accuracy of all candidates."""
    ours = rows[rows["method"].isin([OURS, KNOWN])]
    lines = []
    for (problem, method), part in ours.groupby(["problem", "method"], sort=False):
        line = {"problem": problem, "method": method}
        names = part["shipped"].value_counts()
        line["shipped"] = ", ".join(f"{name} {count}" for name, count in names.items())
        means = pd.DataFrame(part["held_out"].dropna().tolist()).mean()
        line["mean accuracy, held-out samples"] = ", ".join(
            f"{name} {100 * value:.1f}" for name, value in means.items()
        )
        lines.append(line)
    return pd.DataFrame(lines)


# Output


def summarise(folder: Path, output: Path) -> None:
    """Write rows, tables and figure, and print the goals."""
    rows = read_cells(folder)
    table = accuracies(rows)
    facts = run_facts(folder, rows, "python -m benchmarks.robustness --data ../shared/data")
    write_results(rows, facts, output)
    summary = markdown_summary(rows, table, facts)
    write_atomic(output.with_suffix(".md"), summary.encode())
    picture(table, output.with_suffix(".svg"))
    print(summary.split("\n## Test accuracy")[0])
    print(f"Tables: {output.with_suffix('.md')}")


def markdown_summary(rows: pd.DataFrame, table: pd.DataFrame, facts: dict) -> str:
    """Return all results as Markdown."""
    parts = [
        "# Robustness\n",
        described(facts),
        "Written by `python -m benchmarks.robustness --summary`. Levels are shares of the whole "
        "data set. *Not below*: the mean difference, paired over seeds, is at least minus half a "
        "point or minus one standard error, whichever is larger. "
        f"Peers: {', '.join(PEERS)}.\n",
        "## Goals\n",
        markdown(goals(rows, table)),
    ]
    below = margins(table)
    if len(below):
        below = below[below["margin"] < -below["tolerance"]].sort_values("margin")
        parts += ["### Cells below a goal\n", markdown(in_points(below))]
    parts += [
        "### What pudistill says about the noise and about itself\n",
        markdown(estimates(rows)),
        "### What is shipped\n",
        markdown(shipped(rows)),
        "## Test accuracy\n",
        "In %, mean ± standard deviation over seeds; the number of seeds is in brackets where "
        "it is smaller than elsewhere in the table.\n",
    ]
    for (problem, kind), part in table.groupby(["problem", "kind"], sort=False):
        parts += [f"### {problem}, {kind}\n", markdown(accuracy_table(part))]
    parts += ["## Seconds a cell\n", markdown(seconds_table(rows))]
    return "\n".join(parts)


def accuracy_table(part: pd.DataFrame) -> pd.DataFrame:
    """Return a table of methods by level."""
    n_seeds = part.groupby("level").size().max()

    def shown(values: pd.Series) -> str:
        values = 100 * values.dropna()
        if values.empty:
            return ""
        spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
        fewer = f" ({len(values)})" if len(values) < n_seeds else ""
        return f"{values.mean():.1f}{spread}{fewer}"

    shown_table = part.groupby("level").agg(shown).T
    shown_table.columns = [f"{level:.0%}" for level in shown_table.columns]
    kept = shown_table[(shown_table != "").any(axis=1)]
    return kept.rename_axis("method").reset_index()


def seconds_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean seconds of a cell, by method and problem."""
    seconds = rows.pivot_table(index="method", columns="problem", values="seconds", sort=False)
    for name, per_group in teacher_seconds(rows).items():
        seconds.loc[f"filter and teachers, {name} (once a seed)"] = per_group.groupby(
            "problem"
        ).mean()
    shown = seconds.map(lambda value: "" if pd.isna(value) else f"{value:.1f}")
    return shown.rename_axis("method").reset_index()


def in_points(cells: pd.DataFrame) -> pd.DataFrame:
    """Format margins as percentage points."""
    return pd.DataFrame(
        {
            "cell": [cell_name(cell) for _, cell in cells.iterrows()],
            "goal": cells["goal"],
            "against": cells["against"],
            "margin": [f"{100 * value:+.1f}" for value in cells["margin"]],
            "tolerance": [f"{100 * value:.1f}" for value in cells["tolerance"]],
        }
    )


def cell_name(cell: Any) -> str:
    return f"{cell['problem']}, {cell['kind']} {cell['level']:.0%}"


def picture(table: pd.DataFrame, path: Path) -> None:
    """Draw accuracy against level: a row of panels per problem, a panel per kind of noise."""
    kinds = ("symmetric", "asymmetric", "instance")
    grid = table[table.index.get_level_values("kind").isin(kinds)]
    if grid.empty:
        return
    problems = list(dict.fromkeys(grid.index.get_level_values("problem")))
    colours = {name: mpl.colormaps["tab20"](2 * n % 20) for n, name in enumerate(PEERS)}
    looks = {name: {"color": colours[name], "linewidth": 1.2} for name in PEERS} | {
        OURS: {"color": "black", "linewidth": 2.6},
        "true_labels": {"color": "black", "linewidth": 1, "linestyle": ":"},
        "true_matrix": {"color": "black", "linewidth": 1, "linestyle": "--"},
    }
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "robustness", "font.size": 9}):
        figure = Figure(figsize=(10, 2.6 * len(problems) + 0.8), layout="constrained")
        panels = figure.subplots(len(problems), len(kinds), squeeze=False, sharey="row")
        lines: dict[str, Any] = {}
        for problem, row in zip(problems, panels, strict=True):
            for kind, axes in zip(kinds, row, strict=True):
                axes.set_title(f"{problem}: {kind}", fontsize=9)
                axes.spines[["top", "right"]].set_visible(False)
                axes.xaxis.set_major_formatter(PercentFormatter(1))
                axes.yaxis.set_major_formatter(PercentFormatter(1))
                here = grid[
                    (grid.index.get_level_values("problem") == problem)
                    & (grid.index.get_level_values("kind") == kind)
                ]
                means = here.groupby("level").mean()
                for name, look in looks.items():
                    if name in means and means[name].notna().any():
                        (lines[name],) = axes.plot(means[name], marker=".", label=name, **look)
        for axes in panels[-1]:
            axes.set_xlabel("noise level")
        figure.legend(handles=lines.values(), loc="outside lower center", ncols=5, frameon=False)
        figure.savefig(path, metadata={"Date": None})
