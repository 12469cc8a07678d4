"""Measure how fast everything is, and write a table with the goals.

    python -m benchmarks.speed --data ../shared/data        # make bench
    python -m benchmarks.speed --kinds short long           # make bench-full
    python -m benchmarks.speed --kinds gpu                  # benchmarks/speed/gpu.sh
    python -m benchmarks.speed --rows help_text             # one row; other results stay

Each row is measured in a process of its own, whose memory is recorded. The results are committed;
the table is made from them.
"""

import argparse
import json
import signal
import sys
import time
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.common.facts import RESULTS, add_data_option, described, facts, markdown
from benchmarks.common.memory import run_watched
from benchmarks.speed.measurement import PEAK, PICTURES, Goal
from benchmarks.speed.rows import ROWS
from pudistill.runs.environment import machine
from pudistill.utils.files import write_atomic


def measured(name: str, options: Any) -> dict[str, Any] | None:
    """Measure a row in a process of its own; return None if it fails."""
    command = [sys.executable, "-m", "benchmarks.speed", "--data", str(options.data)]
    command += ["--child", name]
    if options.pictures:
        command += ["--pictures", str(options.pictures)]
    about = facts()
    start = time.perf_counter()
    output, memory = run_watched(command)
    if output is None:
        return None
    found = json.loads(output.splitlines()[-1])
    found["figures"][PEAK] = round(max(sample.mib for sample in memory))
    return {"row": name, "seconds": time.perf_counter() - start, **about, **found}


def summarise(results: dict[str, dict], output: Path) -> None:
    """Write results and table."""
    rows = [results[name] for name in ROWS if name in results]
    write_atomic(output, json.dumps({"rows": rows}, indent=1).encode() + b"\n")
    table = pd.DataFrame([line for name in ROWS for line in lines(name, results.get(name))])
    parts = ["# Speed\n"]
    for _, group in groupby(rows, key=lambda row: (row["device"], row["cores"])):
        on_machine = list(group)
        run = on_machine[0] | {
            "command": "python -m benchmarks.speed",
            "commits": sorted({row["commit"] for row in on_machine}),
            "wall_minutes": round(sum(row["seconds"] for row in on_machine) / 60),
        }
        parts.append(described(run))
    parts.append(markdown(table))
    write_atomic(output.with_suffix(".md"), "\n".join(parts).encode())


def lines(name: str, result: dict | None) -> list[dict[str, str]]:
    """Format a row, one line for each goal."""
    row = ROWS[name]
    figures = dict(result["figures"]) if result else {}
    formatted = [
        {
            "what": row.what,
            "figure": figure,
            "measured": value_with_goal(figures.pop(figure, None), goal),
            "goal": str(goal),
            "more": "",
        }
        for figure, goal in row.goals.items()
    ] or [{"what": row.what, "figure": "", "measured": "", "goal": "", "more": ""}]
    formatted[0]["more"] = "; ".join(f"{key} {shown(figure)}" for key, figure in figures.items())
    return formatted


def value_with_goal(value: float | None, goal: Goal) -> str:
    if value is None:
        return "not measured"
    return f"{value:.3g}" + ("" if goal.reached(value) else " (missed)")


def shown(figure: Any) -> str:
    if isinstance(figure, list | tuple):
        return ", ".join(map(shown, figure))
    if isinstance(figure, str):
        return figure
    return f"{figure:.3g}" if abs(figure) < 1000 else f"{figure:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--rows", nargs="+", choices=ROWS)
    parser.add_argument("--kinds", nargs="+", choices=["short", "long", "gpu"], default=["short"])
    parser.add_argument("--pictures", type=int, help="use fewer pictures, to try GPU rows on a CPU")
    parser.add_argument("--missing", action="store_true", help="measure only rows without a result")
    parser.add_argument("--output", type=Path, default=RESULTS / "speed.json")
    parser.add_argument(
        "--summary", action="store_true", help="write the table again, without measuring"
    )
    parser.add_argument("--child", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    PICTURES["limit"] = options.pictures
    if options.child:
        figures = ROWS[options.child].measure(options.data)
        # Only a process that has imported PyTorch knows its GPU.
        print(json.dumps({**machine(), "figures": figures}))
        return
    results = {}
    if options.output.exists():
        rows = json.loads(options.output.read_bytes())["rows"]
        results = {result["row"]: result for result in rows}
    chosen = options.rows or [name for name, row in ROWS.items() if row.kind in options.kinds]
    if options.missing:
        chosen = [name for name in chosen if name not in results]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the process of the row, too
    failed = []
    for name in [] if options.summary else chosen:
        print(f"{name} ...", file=sys.stderr, flush=True)
        if (result := measured(name, options)) is None:
            failed.append(name)
            continue
        results[name] = result
        summarise(results, options.output)  # after each row: the next one may be interrupted
    summarise(results, options.output)
    print(options.output.with_suffix(".md").read_text())
    if failed:
        raise SystemExit(f"Failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
