"""Measure memory and time on data that do not fit into memory, and fit a cost per row.

    python -m benchmarks.scale pictures --rows 10000 100000 --data ../shared/data
    python -m benchmarks.scale table --rows 100000 1000000
    python -m benchmarks.scale filter --rows 10000 100000
    python -m benchmarks.scale model           # fits the cost model to stored results

`pictures` runs ``pudistill fit`` on generated JPEGs in parquet shards, which stay on disk, with the
features of a tiny network of random weights; all other settings have their defaults. `table` does
the same on a parquet file of ids and labels, with 64 float16 features in a mapped file. `filter`
runs the filter alone on such features (C = 14, D = 384, N = 10, K = 3). Each size is measured in a
process of its own and stored at once. Sizes that have a result are left out, so an interrupted
command can be repeated.
"""

import argparse
import json
import resource
import sys
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.facts import RESULTS, add_data_option, facts
from benchmarks.common.memory import Memory, run_watched
from benchmarks.scale.generated import write_features, write_model, write_pictures, write_table
from pudistill.utils.files import write_atomic

# The goal of the filter is about 10^6 samples with N = 10 and K = 3.
N_MEMBERS, N_ITERATIONS = 10, 3
MEMORY = ("peak_mib", "peak_without_files_mib")


def fit_pictures(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run `pudistill fit` on pictures that stay on disk."""
    return fit(folder, options, folder / "data", folder / "model")


def fit_table(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run `pudistill fit` on a table of labels, with features in a mapped file."""
    return fit(folder, options, folder / "labels.parquet", folder / "X.npy")


def fit(folder: Path, options: argparse.Namespace, data: Path, features: Path) -> dict[str, Any]:
    """Run `pudistill fit`; return its seconds, and when its stages ended."""
    from pudistill.runs.fit import fit_run
    from pudistill.runs.settings import Settings

    settings = {"data": str(data), "features": str(features)}
    settings |= {"lazy": True, "seed": 0, "n_jobs": options.jobs, **json.loads(options.settings)}
    run = fit_run(Settings.read(settings), folder / f"run-{time.time():.0f}")
    lines = (run.path / "log.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    stages = [record for record in records if record.keys() >= {"seconds", "stage"}]
    table = run.read_table("labels")
    used = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "cpu_seconds": round(sum(each.ru_utime + each.ru_stime for each in used), 1),
        "seconds": run.read_json("metrics.json")["seconds"],
        "stages": {record["stage"]: record["seconds"] for record in stages},
        "ended": {
            record["stage"]: datetime.fromisoformat(record["time"]).timestamp() for record in stages
        },
        "label_table_bytes_a_row": round(table.memory_usage(deep=True).sum() / len(table)),
    }


def fit_filter(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run the filter alone on features in a mapped file."""
    from pudistill import TieredPUFilter

    X = np.load(folder / "X.npy", mmap_mode="r")
    with np.load(folder / "labels.npz") as file:
        true, trusted = file["true"], file["trusted"]
    start = time.perf_counter()
    pu_filter = TieredPUFilter(
        n_members=N_MEMBERS, max_iter=N_ITERATIONS, tol=None, n_jobs=options.jobs, random_state=0
    ).fit(X, true, trusted)
    seconds = time.perf_counter() - start
    found = (pu_filter.clean_labels_ >= 0) & ~trusted
    right = pu_filter.clean_labels_[found] == true[found]
    return {
        "seconds": {"filter": round(seconds, 2)},
        "n_found": int(found.sum()),
        "precision": round(float(right.mean()), 4) if found.any() else None,
    }


WORK = {"pictures": fit_pictures, "table": fit_table, "filter": fit_filter}


def measured(kind: str, n_rows: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one size in a process of its own."""
    folder = options.scratch / f"{kind}-{n_rows}"
    if kind == "pictures":
        write_pictures(folder / "data", n_rows, options.data)
        write_model(folder / "model")
    elif kind == "table" and not (folder / "labels.parquet").exists():
        write_table(folder, n_rows)
    elif not (folder / "labels.npz").exists():
        write_features(folder, n_rows)
    command = [sys.executable, "-m", "benchmarks.scale", kind, "--child", str(folder)]
    command += ["--jobs", str(options.jobs), "--settings", options.settings]
    start = time.perf_counter()
    output, memory = run_watched(command)
    if output is None:
        raise SystemExit(f"{kind} of {n_rows:,} rows failed")
    measurement = {
        "rows": n_rows,
        "wall_seconds": round(time.perf_counter() - start, 1),
        "peak_mib": int(max(sample.mib for sample in memory)),
        "peak_without_files_mib": int(max(sample.mib_without_files for sample in memory)),
    }
    result = json.loads(output.splitlines()[-1])
    if ended := result.pop("ended", None):
        result["mib_in_stage"] = mib_by_stage(memory, ended)
    return measurement | result


def mib_by_stage(memory: list[Memory], ended: dict[str, float]) -> dict[str, int]:
    """Return the peak of memory without files in each stage, which ends at the time in `ended`."""
    peaks, since = {}, 0.0
    for stage, until in {**ended, "the rest": np.inf}.items():
        there = [sample.mib_without_files for sample in memory if since < sample.time <= until]
        peaks[stage], since = int(max(there, default=0)), until
    return peaks


def cost_model(sizes: list[dict[str, Any]]) -> dict[str, Any]:
    """Fit a straight line through each figure: a fixed part, and a part per million rows."""
    rows = np.array([size["rows"] for size in sizes]) / 1e6
    figures = {
        "wall_seconds": [size["wall_seconds"] for size in sizes],
        **{name: [size[name] for size in sizes] for name in MEMORY},
    }
    stages = set.intersection(*(set(size["seconds"]) for size in sizes))
    for stage in sorted(stages):
        figures[f"seconds of {stage}"] = [size["seconds"][stage] for size in sizes]
    model = {}
    for name, values in figures.items():
        slope, fixed = np.polyfit(rows, values, 1)
        model[name] = {"fixed": round(fixed, 2), "a_million_rows": round(slope, 2)}
    ratios = {
        f"{more['rows']:,} against {fewer['rows']:,}": memory_ratios(fewer, more)
        for fewer, more in pairwise(sorted(sizes, key=_rows))
    }
    return {"lines": model, "memory": ratios}


def memory_ratios(fewer: dict[str, Any], more: dict[str, Any]) -> dict[str, float]:
    """Return the ratio of the memory of two sizes, in all and without the label table."""
    ratios = {name: more[name] / fewer[name] for name in MEMORY}
    if "label_table_bytes_a_row" in more:
        tables = [size["rows"] * size["label_table_bytes_a_row"] / 2**20 for size in (fewer, more)]
        rest = [
            size["peak_without_files_mib"] - table
            for size, table in zip((fewer, more), tables, strict=True)
        ]
        ratios["without_files_and_label_table"] = rest[1] / rest[0]
    return {name: round(ratio, 2) for name, ratio in ratios.items()}


def _rows(size: dict[str, Any]) -> int:
    return size["rows"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=[*WORK, "model"])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    add_data_option(parser)
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/pudistill-scale"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--settings", default="{}", help="further settings of `pudistill fit`, as JSON"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "scale.json")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(WORK[options.kind](options.child, options)))
        return
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    if options.kind in WORK:
        about = facts()
        for n_rows in options.rows:
            known = results.setdefault(options.kind, [])
            if n_rows in map(_rows, known):
                continue
            known.append(measured(options.kind, n_rows, options) | about)
            known.sort(key=_rows)
            write_atomic(options.output, json.dumps(results, indent=1).encode())
            print(json.dumps(known[-1], indent=1))
    models = {kind: cost_model(results[kind]) for kind in WORK if len(results.get(kind, [])) > 1}
    write_atomic(options.output, json.dumps(results | {"model": models}, indent=1).encode())
    print(json.dumps(models, indent=1))


if __name__ == "__main__":
    main()
