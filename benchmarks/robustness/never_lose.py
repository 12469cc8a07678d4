"""Count how often pudistill is worse than training on the trusted samples or the given labels.

    python -m benchmarks.robustness.never_lose

Small problems, where a wrong choice is easy: 5 and 15 % trusted, symmetric noise of 40 %. An
interrupted command continues where it stopped.
"""

from pathlib import Path

import pandas as pd

from benchmarks.common.cells import compute_and_summarise, options_parser, read_cells
from benchmarks.common.facts import described, markdown, run_facts, write_results
from benchmarks.common.paired import chance, unpacked
from benchmarks.common.problems import KNOWN
from benchmarks.common.small import LOSABLE_PROBLEMS
from benchmarks.robustness.systems import METHODS, cells_of
from pudistill.utils.files import write_atomic

OURS, BASELINES = ("pudistill", KNOWN), ("trusted_only", "given_labels")
# Accuracy by which a run may be below the better baseline.
ALLOWED = 0.02
# A larger difference on the test samples arises by chance in a larger share of test sets.
LEVEL = 0.05


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """Return how far each run of pudistill is above the better baseline.

    Returns
    -------
    runs : DataFrame
        ``lead``, whether it ``loses`` more than is allowed, and the ``chance`` that a model as
        good as the baseline would be as far below it on such test samples.
    """
    found = []
    for (problem, seed), part in rows.groupby(["problem", "seed"], sort=False):
        of_method = part.set_index("method")
        if not {*BASELINES} <= {*of_method.index}:
            continue
        better = of_method.loc[[*BASELINES], "test_accuracy"].astype(float).idxmax()
        right = {name: unpacked(of_method.loc[name]) for name in of_method.index}
        found += [
            {
                "problem": problem,
                "seed": seed,
                "method": name,
                "better baseline": better,
                "shipped": of_method.loc[name, "shipped"],
                "lead": (lead := right[name].mean() - right[better].mean()),
                "loses": lead < -ALLOWED,
                "chance": chance(right[name], right[better]),
            }
            for name in OURS
            if name in right
        ]
    columns = ["problem", "seed", "method", "better baseline", "shipped", "lead", "loses", "chance"]
    return pd.DataFrame(found, columns=columns)


def counts(runs: pd.DataFrame) -> pd.DataFrame:
    """Count the runs that lose, by problem and method, and all."""

    def line(problem: str, method: str, part: pd.DataFrame) -> dict[str, object]:
        lost = part[part["loses"]]
        return {
            "problem": problem,
            "method": method,
            "runs": len(part),
            f"more than {100 * ALLOWED:.0f} points below": len(lost),
            "of these beyond chance": int((lost["chance"] < LEVEL).sum()),
            "mean lead, points": f"{100 * part['lead'].mean():+.1f}",
        }

    lines = [
        line(problem, method, part)
        for (problem, method), part in runs.groupby(["problem", "method"], sort=False)
    ]
    return pd.DataFrame([*lines, line("all", "", runs)])


def losing(runs: pd.DataFrame) -> pd.DataFrame:
    """List the runs that lose, the largest losses first."""
    lost = runs[runs["loses"]].sort_values("lead").drop(columns="loses")
    lost["lead"] = (100 * lost["lead"]).map("{:+.1f}".format)
    lost["chance"] = lost["chance"].map("{:.3f}".format)
    return lost.rename(columns={"lead": "lead, points"})


def summarise(folder: Path, output: Path) -> None:
    """Write rows and tables."""
    rows = read_cells(folder)
    run = run_facts(folder, rows, "python -m benchmarks.robustness.never_lose")
    write_results(rows, run, output)
    runs = compared(rows)
    text = "\n".join(
        [
            "# Below the better of trusted samples and given labels\n",
            described(run),
            "`pudistill` has the trusted samples as a mask; `" + KNOWN + "` also has what they "
            "were called before. *Chance*: how often a model as good as the baseline would be as "
            f"far below it on such test samples (McNemar's exact test); below {LEVEL} the loss is "
            "beyond chance.\n",
            markdown(counts(runs)),
            "## Runs that lose\n",
            markdown(losing(runs)),
        ]
    )
    write_atomic(output.with_suffix(".md"), text.encode())
    print(text)


def main() -> None:
    options = options_parser(__doc__, "never_lose.json", range(30)).parse_args()
    work = [
        (problem, list(cells_of(problem, seed)))
        for seed in options.seeds
        for problem in LOSABLE_PROBLEMS
        if problem.name.startswith(tuple(options.only))
    ]
    compute_and_summarise(work, METHODS, summarise, options)


if __name__ == "__main__":
    main()
