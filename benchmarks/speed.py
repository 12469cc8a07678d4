"""How fast everything is, beside its goals.

    python benchmarks/speed.py --data ../shared/data        # make bench
    python benchmarks/speed.py --long --data ../shared/data # make bench-full
    python benchmarks/speed.py --rows help_text             # one row; the others' results stay

Each row runs in a process of its own, which also tells its peak of memory. The results are
committed; the table is made from them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

from cells import RESULTS
from facts import commit, described, installed, machine, markdown
from pudistill.atomic import write_atomic
from speed_rows import ROWS


def measured(name: str, data: Path) -> dict[str, Any]:
    """Run a row in a process of its own."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--data", str(data), "--child", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{name} failed.")
    return {"row": name, "seconds": seconds, "commit": commit()} | json.loads(
        done.stdout.splitlines()[-1]
    )


def child(name: str, data: Path) -> None:
    from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

    figures = ROWS[name].measure(data)
    peak = max(getrusage(who).ru_maxrss for who in (RUSAGE_SELF, RUSAGE_CHILDREN))
    print(json.dumps({"peak of a process, MiB": round(peak / 1024), "figures": figures}))


def summarise(results: dict[str, dict], output: Path) -> None:
    """Write results and table."""
    run = {
        "command": "python benchmarks/speed.py --data ../shared/data",
        **machine(),
        "commits": sorted({result["commit"] for result in results.values()}),
        "wall_minutes": round(sum(result["seconds"] for result in results.values()) / 60),
        "versions": installed(),
    }
    rows = [results[name] for name in ROWS if name in results]
    text = json.dumps({"run": run, "rows": rows}, indent=1)
    write_atomic(output, text.encode() + b"\n")
    table = pd.DataFrame([line(name, results.get(name)) for name in ROWS])
    parts = ["# Speed\n", described(run), markdown(table)]
    write_atomic(output.with_suffix(".md"), "\n".join(parts).encode())
    print(markdown(table))


def line(name: str, result: dict | None) -> dict[str, str]:
    """Put a row into words."""
    row = ROWS[name]
    if result is None:
        return {"row": row.what, "measured": "not measured", "goal": row.goal(), "more": ""}
    figures = dict(result["figures"])
    value = figures.pop("value")
    figures["peak of a process, MiB"] = result["peak of a process, MiB"]
    reached = row.at_least is None or value >= row.at_least
    reached &= row.at_most is None or value <= row.at_most
    return {
        "row": row.what,
        "measured": f"{value:.3g} {row.unit}".strip() + ("" if reached else " (missed)"),
        "goal": row.goal(),
        "more": "; ".join(f"{key} {shown(figure)}" for key, figure in figures.items()),
    }


def shown(figure: Any) -> str:
    if isinstance(figure, list | tuple):
        return ", ".join(map(shown, figure))
    return f"{figure:.3g}" if isinstance(figure, float) and figure < 1000 else f"{figure}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = Path(os.environ.get("PUDISTILL_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data, help="or the variable PUDISTILL_DATA")
    parser.add_argument("--rows", nargs="+", choices=ROWS)
    parser.add_argument("--long", action="store_true", help="the rows that take long as well")
    parser.add_argument("--output", type=Path, default=RESULTS / "speed.json")
    parser.add_argument("--summary", action="store_true", help="from the results that there are")
    parser.add_argument("--child", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.data)
        return
    results = {}
    if options.output.exists():
        rows = json.loads(options.output.read_bytes())["rows"]
        results = {result["row"]: result for result in rows}
    chosen = options.rows or [name for name, row in ROWS.items() if options.long or not row.long]
    for name in [] if options.summary else chosen:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results[name] = measured(name, options.data)
    summarise(results, options.output)


if __name__ == "__main__":
    main()
