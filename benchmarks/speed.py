"""How fast everything is, beside its goals.

    python benchmarks/speed.py --data ../shared/data        # make bench
    python benchmarks/speed.py --kinds short long           # make bench-full
    python benchmarks/speed.py --kinds gpu                  # benchmarks/gpu.sh
    python benchmarks/speed.py --rows help_text             # one row; the others' results stay

Each row runs in a process of its own, whose memory is watched. The results are committed; the table
is made from them.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd

from cells import RESULTS
from facts import commit, described, installed, markdown
from pudistill.atomic import write_atomic
from pudistill.workflow import machine
from speed_rows import PEAK, PICTURES, ROWS, Goal


def measured(name: str, options: Any) -> dict[str, Any] | None:
    """Run a row in a process of its own; None if it fails."""
    command = [sys.executable, __file__, "--data", str(options.data), "--child", name]
    if options.pictures:
        command += ["--pictures", str(options.pictures)]
    of_commit = commit()
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    peaks = [0.0]
    Thread(target=watch_memory, args=(process, peaks), daemon=True).start()
    try:
        output, _ = process.communicate()
    finally:  # also where this command is interrupted
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        return None
    return {
        "row": name,
        "seconds": time.perf_counter() - start,
        "commit": of_commit,
        "command": shlex.join(["python", "benchmarks/speed.py", *sys.argv[1:]]),
        **machine(),
        "versions": installed(),
        "figures": json.loads(output.splitlines()[-1]) | {PEAK: round(max(peaks))},
    }


def watch_memory(process: subprocess.Popen, peaks: list[float]) -> None:
    """Note how many MiB the processes of a row have in all, shared pages counted once."""
    while process.poll() is None:
        total = 0
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if os.getsid(int(folder.name)) == process.pid:
                    lines = (folder / "smaps_rollup").read_text().splitlines()
                    total += next(int(line.split()[1]) for line in lines if line[:4] == "Pss:")
            except (OSError, StopIteration):  # it has just ended
                continue
        peaks.append(total / 1024)
        time.sleep(0.5)


def summarise(results: dict[str, dict], output: Path) -> None:
    """Write results and table."""
    rows = [results[name] for name in ROWS if name in results]
    write_atomic(output, json.dumps({"rows": rows}, indent=1).encode() + b"\n")
    table = pd.DataFrame([told for name in ROWS for told in lines(name, results.get(name))])
    parts = ["# Speed\n"]
    for _, some in groupby(rows, key=lambda row: (row["device"], row["cores"])):
        of_place = list(some)
        run = of_place[0] | {
            "command": "benchmarks/speed.py",
            "commits": sorted({row["commit"] for row in of_place}),
            "wall_minutes": round(sum(row["seconds"] for row in of_place) / 60),
        }
        parts.append(described(run))
    parts.append(markdown(table))
    write_atomic(output.with_suffix(".md"), "\n".join(parts).encode())


def lines(name: str, result: dict | None) -> list[dict[str, str]]:
    """Put a row into words, a line for every goal."""
    row = ROWS[name]
    figures = dict(result["figures"]) if result else {}
    told = [
        {
            "what": row.what,
            "figure": figure,
            "measured": told_value(figures.pop(figure, None), goal),
            "goal": str(goal),
            "more": "",
        }
        for figure, goal in row.goals.items()
    ] or [{"what": row.what, "figure": "", "measured": "", "goal": "", "more": ""}]
    told[0]["more"] = "; ".join(f"{key} {shown(figure)}" for key, figure in figures.items())
    return told


def told_value(value: float | None, goal: Goal) -> str:
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
    data = Path(os.environ.get("PUDISTILL_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data, help="or the variable PUDISTILL_DATA")
    parser.add_argument("--rows", nargs="+", choices=ROWS)
    parser.add_argument("--kinds", nargs="+", choices=["short", "long", "gpu"], default=["short"])
    parser.add_argument("--pictures", type=int, help="fewer, to try GPU rows out on a CPU")
    parser.add_argument("--missing", action="store_true", help="only rows that have no result")
    parser.add_argument("--output", type=Path, default=RESULTS / "speed.json")
    parser.add_argument("--summary", action="store_true", help="from the results that there are")
    parser.add_argument("--child", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    PICTURES["limit"] = options.pictures
    if options.child:
        print(json.dumps(ROWS[options.child].measure(options.data)))
        return
    results = {}
    if options.output.exists():
        rows = json.loads(options.output.read_bytes())["rows"]
        results = {result["row"]: result for result in rows}
    chosen = options.rows or [name for name, row in ROWS.items() if row.kind in options.kinds]
    if options.missing:
        chosen = [name for name in chosen if name not in results]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the row's process ends too
    failed = []
    for name in [] if options.summary else chosen:
        print(f"{name} ...", file=sys.stderr, flush=True)
        if (result := measured(name, options)) is None:
            failed.append(name)
            continue
        results[name] = result
        summarise(results, options.output)  # after each: the next one may be interrupted
    summarise(results, options.output)
    print(options.output.with_suffix(".md").read_text())
    if failed:
        raise SystemExit(f"Failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
