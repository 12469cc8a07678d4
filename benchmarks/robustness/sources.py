"""Compare pudistill with other methods on labels of several sources: crowds and rules.

    python -m benchmarks.robustness.sources --data ../shared/data
    python -m benchmarks.robustness.sources --only labelme --seeds 0 1 --jobs 1

3 and 10 % of the samples are verified, drawn at random. All methods have the same sources, the same
verified labels and the same logistic regression. With 10 %, pudistill is also given one source
more: copies of the most active one, near copies, or an adversary. An interrupted command continues
where it stopped.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common.cells import Cell, Method, compute_and_summarise, options_parser, read_cells
from benchmarks.common.facts import described, markdown, run_facts, write_results
from benchmarks.common.paired import mean_and_error
from benchmarks.common.problems import REAL, Group, Noise, Problem
from benchmarks.common.real_noise import REAL_PROBLEMS
from benchmarks.robustness.labels import truth_of
from pudistill import simulate_sources
from pudistill.labels.annotations import check_annotations
from pudistill.labels.checks import MISSING
from pudistill.labels.corruption import CorruptedLabels
from pudistill.methods.registry import METHODS as SYSTEMS
from pudistill.methods.registry import load_class
from pudistill.utils.files import write_atomic

OURS, ON_MAJORITY = "pudistill", "pudistill on the majority vote"
PEERS = [ON_MAJORITY, *(name for name, system in SYSTEMS.items() if system.aggregates_sources)]
COPIES, NEAR_COPIES, ADVERSARY = "five copies", "five near copies", "an adversary"
N_COPIES, CHANGED = 5, 0.05
MOST_VERIFIED = "10 % verified"
COMMAND = "python -m benchmarks.robustness.sources --data ../shared/data"
# Labels right that shall be reached with 10 % verified.
WANTED = {"labelme": 0.884, "sentiment": 0.91, "youtube": 0.928}
MEASURES = {"right": "labels right", "test_accuracy": "test accuracy"}


# Methods


def pudistill(group: Group, *_: Any, more: Callable | None = None) -> dict[str, Any]:
    """Fit on all sources, and those that `more` makes of the group."""
    sources = group.sources if more is None else np.column_stack([group.sources, more(group)])
    return our_result(group, sources)


def on_majority_vote(group: Group, *_: Any) -> dict[str, Any]:
    given = check_annotations(group.sources).given
    return our_result(group, np.where(given == MISSING, np.nan, given))


def our_result(group: Group, y: np.ndarray) -> dict[str, Any]:
    classifier = group.ours().fit_student(group.X, y, verified(group))
    table = classifier.label_table_
    return group.scored(classifier.predict(group.X_test)) | judged(
        group, table["label"].to_numpy(), table["confidence"].to_numpy(dtype=float)
    )


def aggregated(group: Group, _: Noise, __: CorruptedLabels, *, name: str) -> dict[str, Any]:
    """Fit a method; where all sources are silent, its classifier gives the label."""
    method = load_class(name)(group.learner, random_state=group.seed)
    method.fit(group.X, group.sources, verified(group))
    proba = method.label_proba_.copy()
    silent = np.isnan(proba[:, 0])
    if silent.any():
        proba[silent] = method.predict_proba(group.X[silent])
    labels = method.classes_[proba.argmax(axis=1)]
    return group.scored(method.predict(group.X_test)) | judged(group, labels, proba.max(axis=1))


def verified(group: Group) -> np.ndarray:
    return np.where(group.trusted, group.y, np.nan)


def judged(group: Group, labels: np.ndarray, confidence: np.ndarray) -> dict[str, Any]:
    """Judge the labels of all samples that nobody verified."""
    rows = ~group.trusted
    right = labels[rows] == group.y[rows]
    return {"right": float(right.mean()), "confidence": truth_of(confidence[rows], right)}


# Further sources


def most_active(group: Group) -> np.ndarray:
    return group.sources[:, (group.sources != MISSING).sum(axis=0).argmax()]


def copies(group: Group) -> np.ndarray:
    return np.column_stack([most_active(group)] * N_COPIES)


def near_copies(group: Group) -> np.ndarray:
    """Return copies, each of which has other labels, drawn at random, on a few samples."""
    rng = np.random.default_rng([group.seed, 1])
    found = copies(group)
    change = (rng.random(found.shape) < CHANGED) & (found != MISSING)
    step = rng.integers(1, group.n_classes, found.shape)
    return np.where(change, (found + step) % group.n_classes, found)


def adversary(group: Group) -> np.ndarray:
    """Return a source that always speaks, and names the next class nine times in ten."""
    sources = simulate_sources(group.y, 2, level=0, adversarial=1, random_state=group.seed)
    return sources["source_2"].to_numpy(dtype=int)


CHANGES = {COPIES: copies, NEAR_COPIES: near_copies, ADVERSARY: adversary}
METHODS = {
    **{name: Method(partial(aggregated, name=name)) for name in PEERS if name in SYSTEMS},
    OURS: Method(pudistill, needs=Group.ours),
    ON_MAJORITY: Method(on_majority_vote, needs=Group.ours),
    **{
        f"{OURS}, {name}": Method(partial(pudistill, more=more), needs=Group.ours)
        for name, more in CHANGES.items()
    },
}
PROBLEMS = [
    problem
    for problem in REAL_PROBLEMS
    if problem.name.startswith(("labelme", "sentiment", "youtube"))
]


def cells_of(problem: Problem, seed: int, names: Sequence[str]) -> Iterator[Cell]:
    """Yield the cells of a problem and seed."""
    for name in names:
        if problem.name.endswith(MOST_VERIFIED) or name in (OURS, *PEERS):
            yield Cell(problem.name, seed, REAL, name)


# Tables


def goals(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each goal, and what was measured."""
    ours = rows[rows["method"] == OURS].groupby("problem", sort=False)
    right = ours["right"].mean()
    gap = ours["confidence"].agg(lambda part: np.mean([found["gap"] for found in part]))
    lines = []
    for problem in right.index[right.index.str.endswith(MOST_VERIFIED)]:
        if (wanted := WANTED.get(problem.split(",")[0])) is not None:
            lines.append((f"{problem}: labels right ≥ {wanted:.1%}", f"{right[problem]:.1%}"))
        stated = f"{100 * gap[problem]:+.1f} points"
        lines.append((f"{problem}: confidence at most 2 points from the share right", stated))
    for measure, title in MEASURES.items():
        for problem, part in rows.groupby("problem", sort=False):
            if OURS not in part["method"].values:
                continue
            close = [
                f"{other} ({100 * lead:+.1f} ± {100 * error:.1f})"
                for other in PEERS
                for lead, error in leads(part, measure, other)
                if not lead > 2 * error
            ]
            goal = f"{problem}: {title} above all others by two standard errors"
            lines.append((goal, ", ".join(close) or "yes"))
    for line in effects(rows).to_dict("records"):
        wanted = "raises" if line["further sources"] == ADVERSARY else "changes by at most 0.3"
        what = f"{line['problem']}: {line['further sources']}, labels right: {wanted}"
        lines += [(what, change)] if (change := line[MEASURES["right"]]) else []
    return pd.DataFrame(lines, columns=["goal", "measured (for comparisons: where not)"])


def leads(
    part: pd.DataFrame, measure: str, other: str, name: str = OURS
) -> list[tuple[float, float]]:
    """Return the mean lead over another method and its standard error; nothing if unmeasured."""
    of_method = part.pivot(index="seed", columns="method", values=measure)
    if not {name, other} <= {*of_method}:
        return []
    return [mean_and_error((of_method[name] - of_method[other]).dropna())]


def means(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return the mean of a measure in %, a row a problem and a column a method."""
    table = rows.pivot_table(index="problem", columns="method", values=measure, sort=False)
    table = 100 * table.reindex(columns=[OURS, *PEERS]).astype(float)
    return table.map(lambda value: "" if np.isnan(value) else f"{value:.1f}").reset_index()


def differences(rows: pd.DataFrame, measure: str, others: Sequence[str]) -> pd.DataFrame:
    """Return how far pudistill is ahead of others, in points, paired by seed."""
    lines = [
        {"problem": problem} | {other: in_points(leads(part, measure, other)) for other in others}
        for problem, part in rows.groupby("problem", sort=False)
    ]
    return pd.DataFrame(lines, columns=["problem", *others])


def effects(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what further sources change in pudistill's result, in points."""
    lines = [
        {"problem": problem, "further sources": name}
        | {
            title: in_points(leads(part, measure, OURS, f"{OURS}, {name}"))
            for measure, title in MEASURES.items()
        }
        for problem, part in rows.groupby("problem", sort=False)
        if problem.endswith(MOST_VERIFIED)
        for name in CHANGES
    ]
    return pd.DataFrame(lines, columns=["problem", "further sources", *MEASURES.values()])


def in_points(found: list[tuple[float, float]]) -> str:
    """Write a difference and its error in percentage points."""
    return "".join(f"{100 * lead:+.1f} ± {100 * error:.1f}" for lead, error in found)


def gaps(rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean confidence minus the share of right labels, in points."""
    gap = rows["confidence"].map(lambda found: 100 * found["gap"])
    table = rows.assign(gap=gap).pivot_table(
        index="problem", columns="method", values="gap", sort=False
    )
    table = table.reindex(columns=[OURS, *PEERS])
    return table.map(lambda value: "" if np.isnan(value) else f"{value:+.1f}").reset_index()


def summarise(folder: Path, output: Path) -> None:
    """Write rows and tables."""
    rows = read_cells(folder)
    run = run_facts(folder, rows, COMMAND)
    write_results(rows, run, output)
    seeds = sorted({*rows.groupby("problem")["seed"].nunique()})
    text = "\n".join(
        [
            "# Labels of several sources\n",
            described(run),
            f"{' to '.join(map(str, seeds))} seeds, which draw the verified samples. Labels are "
            "judged on all samples that nobody verified; where all sources are silent, a method "
            "that aggregates labels has its classifier's. Errors are standard errors of paired "
            "differences over seeds.\n",
            "## Goals\n",
            markdown(goals(rows)),
            *(
                part
                for measure, title in MEASURES.items()
                for part in (
                    f"## {title.capitalize()}, %\n",
                    markdown(means(rows, measure)),
                    f"{OURS} minus others, points:\n",
                    markdown(differences(rows, measure, PEERS)),
                )
            ),
            "## Mean confidence of the labels minus the share that is right, points\n",
            markdown(gaps(rows)),
            "## Further sources\n",
            f"The most active source copied {N_COPIES} times; {N_COPIES} copies with {CHANGED:.0%} "
            "of the labels changed; a source that names the next class nine times in ten. "
            "Difference to pudistill without them, points:\n",
            markdown(effects(rows)),
        ]
    )
    write_atomic(output.with_suffix(".md"), text.encode())
    print(text)


def main() -> None:
    parser = options_parser(__doc__, "sources.json", range(5))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    work = [
        (problem, list(cells_of(problem, seed, options.methods)))
        for seed in options.seeds
        for problem in PROBLEMS
        if problem.name.startswith(tuple(options.only))
    ]
    compute_and_summarise(work, METHODS, summarise, options)


if __name__ == "__main__":
    main()
