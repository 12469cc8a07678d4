"""Measure how often every interval and certificate that pudistill states holds the truth.

    python -m benchmarks.robustness.coverage --data ../shared/data --draws 200
    python -m benchmarks.robustness.coverage --only labelme hausa --draws 50 --jobs 1

Every draw has its own verified samples and noise; those of bundled tables, and of problems that are
made, are splits or data of their own. Verified samples are there as a mask, and with what they were
called before. An interrupted command continues where it stopped. See also
`benchmarks.robustness.simulation`, for thousands of draws without classifiers.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom
from sklearn.metrics import confusion_matrix

from benchmarks.common.cells import Cell, Method, compute_and_summarise, options_parser, read_cells
from benchmarks.common.facts import described, markdown, run_facts, write_results
from benchmarks.common.problems import KNOWN, PROBLEMS, REAL, Group, Noise, Problem
from benchmarks.common.real_noise import REAL_PROBLEMS
from benchmarks.common.small import HARD_PROBLEMS
from benchmarks.robustness import systems
from benchmarks.robustness.report import bounds, with_errors
from pudistill.estimates.shares import exact_interval
from pudistill.exceptions import InputError
from pudistill.labels.checks import MISSING
from pudistill.labels.corruption import CorruptedLabels
from pudistill.utils.files import write_atomic

# Problems of `benchmarks.robustness` with class-dependent noise, and the most draws of those whose
# fits take long.
TABLES = ("breast_cancer", "fashion-mnist table", "cifar10-features, 2 % trusted")
MOST_DRAWS = {"fashion-mnist table": 100, "cifar10-features, 2 % trusted": 4}
TABLE_NOISES = (Noise("symmetric", 0.5), Noise("asymmetric", 0.5))
FIRST_SEED = 100
MAX_ERRORS = (0.01, 0.02, 0.05, 0.1)
# Share of the draws in which 95 % intervals shall hold.
GOAL = 0.93
ROUNDING = 1e-9
COMMAND = "python -m benchmarks.robustness.coverage --data ../shared/data"


# A draw


def stated(group: Group, noisy: CorruptedLabels, classifier: Any) -> dict[str, Any]:
    """Compare what a classifier states with the truth of the samples that nobody verified.

    Returns
    -------
    result : dict
        ``noise_rate``, the truth; ``counted_interval``, from counting wrong originals alone;
        ``class_rates`` and ``entries``, how many intervals hold; ``labels_right``, the truth for
        ``labels_interval``; ``certified``, by `max_error`, how many labels are certified, and how
        many of these are wrong; none where certificates are refused.
    """
    noise, table = classifier.noise_, classifier.label_table_
    rest, given = ~table["trusted"].to_numpy(dtype=bool), noisy.would_be
    rows, counted = rest & (given != MISSING), group.trusted & (given != MISSING)
    # Rows of classes without such a sample have no truth.
    joint = confusion_matrix(group.y[rows], given[rows], labels=np.arange(group.n_classes))
    has_rows = joint.sum(axis=1) > 0
    T = joint[has_rows] / joint[has_rows].sum(axis=1, keepdims=True)
    expected, right = classifier.label_accuracy_, table["label"].to_numpy() == group.y
    return {
        "noise_rate": float(np.mean(given[rows] != group.y[rows])),
        "counted_interval": exact_interval(
            float(np.mean(given[counted] != group.y[counted])), counted.sum()
        ),
        "class_rates": holding(
            1 - T[np.arange(len(T)), np.flatnonzero(has_rows)],
            *noise.class_rate_interval[has_rows].T,
        ),
        "entries": holding(T, *noise.transition_interval[:, has_rows]),
        "labels_right": float(right[rest].mean()),
        "labels_expected": None if expected is None else float(expected.value),
        "labels_interval": None if expected is None else [float(end) for end in expected.interval],
        "certified": {
            f"{max_error:g}": certified(group.y, rest, classifier, max_error)
            for max_error in MAX_ERRORS
        },
    }


def holding(truth: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, Any]:
    """Count the intervals that hold the truth."""
    holds = (low - ROUNDING <= truth) & (truth <= high + ROUNDING)
    return {"held": int(holds.sum()), "of": holds.size, "width": float(np.mean(high - low))}


def certified(
    y: np.ndarray, rest: np.ndarray, classifier: Any, max_error: float
) -> list[int] | None:
    """Return how many labels of the `rest` are certified, and how many of these are wrong."""
    try:
        certificate = classifier.certify(max_error=max_error)
    except InputError:
        return None
    accepted = rest & certificate.accepted
    return [int(accepted.sum()), int((certificate.labels[accepted] != y[accepted]).sum())]


def as_mask(group: Group, noise: Noise, noisy: CorruptedLabels) -> dict[str, Any]:
    return drawn(group, noise, noisy, *systems.as_mask(group, noisy))


def originals_known(group: Group, noise: Noise, noisy: CorruptedLabels) -> dict[str, Any]:
    return drawn(group, noise, noisy, *systems.with_originals(group, noisy))


def drawn(
    group: Group, noise: Noise, noisy: CorruptedLabels, y: np.ndarray, trusted: np.ndarray
) -> dict[str, Any]:
    classifier = group.ours()
    result = systems.our_result(group, noise, classifier, y, trusted)
    return result | stated(group, noisy, classifier)


METHODS = {
    "pudistill": Method(as_mask, needs=Group.ours),
    KNOWN: Method(originals_known, needs=Group.ours),
}


def draws(n: int) -> Iterator[tuple[Problem, list[Cell]]]:
    """Yield the cells of each draw, the first draw of all problems first."""
    tables = [problem for problem in PROBLEMS if problem.name in TABLES]
    for draw in range(n):
        for problem in (*HARD_PROBLEMS, *REAL_PROBLEMS, *tables):
            if draw < MOST_DRAWS.get(problem.name, n):
                yield (
                    problem,
                    [
                        Cell(problem.name, FIRST_SEED + draw, noise, method)
                        for noise in noises(problem)
                        for method in METHODS
                    ],
                )


def noises(problem: Problem) -> tuple[Noise, ...]:
    """Return the noises whose intervals are judged."""
    if problem in REAL_PROBLEMS:
        return (REAL,)
    if problem.name in TABLES:
        return TABLE_NOISES
    grid = [Noise(kind, level) for kind in problem.kinds for level in problem.levels]
    return (*problem.extremes, *grid)


# Tables


def held(rows: pd.DataFrame) -> pd.DataFrame:
    """Return by problem, noise and method how often intervals hold, and how wide they are."""
    runs = with_errors(rows)
    low, high = bounds(runs["counted_interval"])
    runs["counted_width"] = high - low
    low, high = bounds(runs["labels_interval"])
    right = runs["labels_right"].astype(float)
    runs["labels_inside"] = right.between(low - ROUNDING, high + ROUNDING).where(low.notna())
    runs["labels_width"] = high - low
    runs["off"] = runs["expected_accuracy"] - runs["test_accuracy"]
    runs["labels_off"] = runs["labels_expected"].astype(float) - right
    for name in ("class_rates", "entries"):
        found = pd.DataFrame(runs[name].tolist(), index=runs.index)
        runs[f"{name}_inside"], runs[f"{name}_width"] = found["held"] / found["of"], found["width"]
    table = runs.groupby(["problem", "kind", "level", "method"], as_index=False).agg(
        draws=("seed", "size"),
        **{
            name: (name, "mean")
            for name in (
                *("rate_inside", "rate_width", "counted_width", "preliminary_inside"),
                *("class_rates_inside", "class_rates_width", "entries_inside", "entries_width"),
                *("inside", "inside_of_both", "width", "off"),
                *("labels_inside", "labels_width", "labels_off"),
            )
        },
    )
    table["of_counting"] = table["rate_width"] / table["counted_width"]
    return table


def violations(rows: pd.DataFrame) -> pd.DataFrame:
    """Return how often more certified labels are wrong than promised."""
    lines = []
    by = ["problem", "kind", "level", "method"]
    for where, part in rows.groupby(by, sort=False):
        for max_error in MAX_ERRORS:
            found = part["certified"].map(lambda known, key=f"{max_error:g}": known[key]).dropna()
            n_accepted, n_wrong = found.str[0].astype(int), found.str[1].astype(int)
            lines.append(
                dict(zip(by, where, strict=True))
                | {
                    "max_error": max_error,
                    "draws": len(found),
                    "refused": len(part) - len(found),
                    "violations": int((n_wrong > max_error * n_accepted).sum()),
                    "empty": int((n_accepted == 0).sum()),
                    "accepted": n_accepted.mean(),
                }
            )
    table = pd.DataFrame(lines)
    table["too many"] = binom.sf(table["violations"] - 1, table["draws"], 0.05) < 0.05
    return table


def goals(table: pd.DataFrame, broken: pd.DataFrame) -> pd.DataFrame:
    """Return for each kind of interval in how many rows it holds too rarely."""
    lines = []
    for column, what in (
        ("rate_inside", "share of wrong labels"),
        ("class_rates_inside", "its share in each class"),
        ("entries_inside", "entries of the transition matrix"),
        ("inside_of_both", "expected accuracy, with the test sample's own error"),
        ("labels_inside", "expected accuracy of the corrected labels"),
    ):
        known = table[table[column].notna()]
        low = known[known[column] < GOAL]
        lines.append(
            {
                "what": f"{what}: held in at least {GOAL:.0%} of the draws",
                "rows": len(known),
                "reached": len(known) - len(low),
                "below": "; ".join(
                    f"{row_name(row)} {row[column]:.0%}" for _, row in low.iterrows()
                ),
            }
        )
    low = broken[broken["too many"]]
    lines.append(
        {
            "what": "certificates: violations not significantly above 5 %",
            "rows": len(broken),
            "reached": len(broken) - len(low),
            "below": "; ".join(
                f"{row_name(row)}, {row['max_error']:.0%}: {row['violations']} of {row['draws']}"
                for _, row in low.iterrows()
            ),
        }
    )
    return pd.DataFrame(lines)


def row_name(row: pd.Series) -> str:
    """Name a problem, its noise, and how samples are verified."""
    verified = "originals" if row["method"] == KNOWN else "mask"
    noise = "" if row["kind"] == REAL.kind else f", {noise_name(row)}"
    return f"{row['problem']}{noise}, {verified}"


def noise_name(row: pd.Series) -> str:
    """Name a noise."""
    return f"{row['kind']} {row['level']:.0%}" if row["level"] else row["kind"]


def interval_table(table: pd.DataFrame) -> pd.DataFrame:
    """Write the shares of intervals that hold, and their widths in points."""

    def with_width(name: str) -> pd.Series:
        inside, width = table[f"{name}_inside"].astype(float), 100 * table[f"{name}_width"]
        return inside.map("{:.0%}".format) + width.map(", {:.1f}".format)

    off = 100 * table[["off", "labels_off"]]
    return pd.DataFrame(
        {
            "problem": table.apply(row_name, axis=1),
            "draws": table["draws"],
            "share of wrong labels: held, width": with_width("rate"),
            "width / counting's": table["of_counting"].map("{:.2f}".format),
            "held after the first round": table["preliminary_inside"]
            .astype(float)
            .map("{:.0%}".format),
            "classes": with_width("class_rates"),
            "matrix": with_width("entries"),
            "test accuracy: held": table["inside"].astype(float).map("{:.0%}".format),
            "with the test sample's own error": table["inside_of_both"].map("{:.0%}".format),
            "width": (100 * table["width"]).map("{:.1f}".format),
            "expected − true": off["off"].map("{:+.1f}".format),
            "corrected labels: held, width": with_width("labels"),
            "expected − true ": off["labels_off"].map("{:+.1f}".format),
        }
    )


def certificate_table(broken: pd.DataFrame) -> pd.DataFrame:
    """Write violations and accepted labels, a column for each `max_error`."""
    cells = [
        f"{row.violations} of {row.draws}, {row.accepted:.0f} ({row.empty} empty)"
        if row.draws
        else "refused"
        for row in broken.itertuples()
    ]
    shown = pd.DataFrame(
        {
            "problem": broken.apply(row_name, axis=1),
            "max_error": broken["max_error"].map("{:.0%}".format),
            "cell": cells,
        }
    )
    wide = shown.pivot(index="problem", columns="max_error", values="cell")
    return wide[[f"{max_error:.0%}" for max_error in MAX_ERRORS]].reset_index()


def summarise(folder: Path, output: Path) -> None:
    """Write rows and tables."""
    rows = read_cells(folder)
    run = run_facts(folder, rows, COMMAND)
    write_results(rows, run, output)
    table, broken = held(rows), violations(rows)
    text = "\n".join(
        [
            "# Coverage of intervals and certificates\n",
            described(run),
            "The truth is that of the samples that nobody verified; that of the expected accuracy "
            "is measured on test samples. *Mask*: what verified samples were called before is "
            "lost; *originals*: it is known. Widths are in points; *counting's* is that of Clopper "
            "and Pearson's interval of wrong labels among the verified samples.\n",
            "## Goals\n",
            markdown(goals(table, broken)),
            "## 95 % intervals\n",
            markdown(interval_table(table)),
            "## Certificates with 95 % confidence\n",
            "How often more than `max_error` of the certified labels are wrong, and the mean "
            "number of certified labels that nobody verified.\n",
            markdown(certificate_table(broken)),
        ]
    )
    write_atomic(output.with_suffix(".md"), text.encode())
    print(text)


def main() -> None:
    parser = options_parser(__doc__, "coverage.json", ())
    parser.add_argument("--draws", type=int, default=200, help="of each problem")
    options = parser.parse_args()
    work = [
        (problem, cells)
        for problem, cells in draws(options.draws)
        if problem.name.startswith(tuple(options.only))
        and (not options.seeds or cells[0].seed in options.seeds)
    ]
    compute_and_summarise(work, METHODS, summarise, options)


if __name__ == "__main__":
    main()
