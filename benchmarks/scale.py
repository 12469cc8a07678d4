"""Memory and time of data that do not fit into memory, and what a row costs.

    python benchmarks/scale.py pictures --rows 10000 100000 --data ../shared/data
    python benchmarks/scale.py filter --rows 10000 100000
    python benchmarks/scale.py model           # fits the cost model to what was measured

`pictures` runs ``pudistill fit`` on generated JPEGs in parquet shards, which stay on disk, through
the features of a tiny network of random weights, all else by default; `filter` runs the filter
alone on float16 features in a mapped file (C = 14, N = 10, K = 3). Each size is a process of its
own, whose memory is watched, and whose result is stored at once: sizes that are there already are
left out, so that an interrupted command can be repeated.
"""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib.format import open_memmap

from facts import commit, installed
from pudistill.atomic import write_atomic
from pudistill.workflow import machine

RESULTS = Path(__file__).parent / "results" / "scale.json"
ROWS_IN_A_SHARD, ROWS_IN_A_GROUP = 50_000, 1_000
WRONG, TRUSTED = 0.4, 0.02
# The filter's goal: 10^6 x 384 float16 features, C = 14, N = 10, K = 3.
N_FEATURES, N_CLASSES, N_MEMBERS, N_ITERATIONS = 384, 14, 10, 3
ROWS_AT_ONCE = 65_536
MEMORY = {"peak_mib": "Pss:", "peak_without_files_mib": "Pss_Anon:"}


def real_pictures(data: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Return CIFAR-10's pictures, or scikit-learn's digits where they are not at hand."""
    files = sorted((data / "cifar10").glob("train-*.parquet"))
    if files:
        from pudistill.data import load_dataset

        dataset = load_dataset(files[0].parent)
        return list(dataset.X), np.unique(dataset.y, return_inverse=True)[1]
    from sklearn.datasets import load_digits

    digits = load_digits()
    return list((digits.images * 15).astype(np.uint8)), digits.target


def generated(rng: np.random.Generator, picture: np.ndarray) -> bytes:
    """Make another picture of one: mirrored or not, moved, and a little brighter or darker."""
    from PIL import Image

    moved = np.roll(picture, rng.integers(-3, 4, size=2), axis=(0, 1))
    moved = moved[:, ::-1] if rng.random() < 0.5 else moved
    bright = np.clip(moved * rng.uniform(0.8, 1.2), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(bright)).save(file, "JPEG", quality=85)
    return file.getvalue()


def write_pictures(folder: Path, n_rows: int, data: Path) -> None:
    """Write shards of small JPEGs with wrong labels, of which some are trusted."""
    n_shards = -(-n_rows // ROWS_IN_A_SHARD)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"train-{n:05d}-of-{n_shards:05d}.parquet" for n in range(n_shards)]
    if all(map(Path.exists, paths)):
        return
    pictures, labels = real_pictures(data)
    n_classes = labels.max() + 1
    for shard, path in enumerate(paths):
        if path.exists():
            continue
        rng = np.random.default_rng([n_rows, shard])
        size = min(ROWS_IN_A_SHARD, n_rows - shard * ROWS_IN_A_SHARD)
        chosen = rng.integers(len(pictures), size=size)
        wrong = rng.random(size) < WRONG
        given = np.where(wrong, (labels[chosen] + 1) % n_classes, labels[chosen])
        trusted = rng.random(size) < TRUSTED
        verified = [
            str(label) if one else None for label, one in zip(labels[chosen], trusted, strict=True)
        ]
        images = [{"bytes": generated(rng, pictures[one]), "path": None} for one in chosen]
        table = {
            "image": pa.array(images, kind),
            "label": pa.array(given.astype(str)),
            "verified_label": pa.array(verified, pa.string()),
        }
        temporary = path.with_suffix(".writing")
        pq.write_table(pa.table(table), temporary, row_group_size=ROWS_IN_A_GROUP)
        temporary.rename(path)


def write_features(folder: Path, n_rows: int) -> None:
    """Write float16 features of classes that overlap, and the labels of a few trusted samples."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(N_CLASSES, N_FEATURES)) * 0.35
    true = rng.integers(N_CLASSES, size=n_rows)
    folder.mkdir(parents=True, exist_ok=True)
    X = open_memmap(folder / "X.npy", "w+", np.float16, (n_rows, N_FEATURES))
    for start in range(0, n_rows, ROWS_AT_ONCE):
        some = true[start : start + ROWS_AT_ONCE]
        noise = rng.standard_normal((len(some), N_FEATURES), dtype=np.float32)
        X[start : start + len(some)] = centres[some] + noise
    trusted = rng.random(n_rows) < TRUSTED
    np.savez(folder / "labels.npz", true=true, trusted=trusted)


def write_model(folder: Path) -> None:
    """Write a tiny network of random weights, as the hub stores one."""
    import torch
    from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetModel

    torch.manual_seed(0)
    sizes = {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [1, 1]}
    ResNetModel(ResNetConfig(**sizes, layer_type="basic")).save_pretrained(folder)
    ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=1.0).save_pretrained(folder)


def fit_pictures(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run the whole of `fit` on pictures that stay on disk."""
    from pudistill.settings import Settings
    from pudistill.workflow import fit_run

    settings = {"data": str(folder / "data"), "features": str(folder / "model")}
    settings |= {"lazy": True, "seed": 0, "n_jobs": options.jobs, **json.loads(options.settings)}
    run = fit_run(Settings.read(settings), folder / f"run-{time.time():.0f}")
    lines = (run.path / "log.jsonl").read_text().splitlines()
    stages = [one for line in lines if "seconds" in (one := json.loads(line)) and "stage" in one]
    table = run.read_table("labels")
    return {
        "seconds": run.read_json("metrics.json")["seconds"],
        "stages": {one["stage"]: one["seconds"] for one in stages},
        "ended": {one["stage"]: datetime.fromisoformat(one["time"]).timestamp() for one in stages},
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


WORK = {"pictures": fit_pictures, "filter": fit_filter}


def measured(kind: str, n_rows: int, options: argparse.Namespace) -> dict[str, Any]:
    """Do the work of one size in a process of its own."""
    folder = options.scratch / f"{kind}-{n_rows}"
    if kind == "pictures":
        write_pictures(folder / "data", n_rows, options.data)
        write_model(folder / "model")
    elif not (folder / "labels.npz").exists():
        write_features(folder, n_rows)
    command = [sys.executable, __file__, kind, "--child", str(folder), "--jobs", str(options.jobs)]
    command += ["--settings", options.settings]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    seen: list[tuple] = []
    Thread(target=watch, args=(process, seen), daemon=True).start()
    try:
        output, _ = process.communicate()
    finally:  # also where this command is interrupted
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise SystemExit(f"{kind} of {n_rows:,} rows failed")
    wall = {"rows": n_rows, "wall_seconds": round(time.perf_counter() - start, 1)}
    result = json.loads(output.splitlines()[-1])
    peaks = {name: max(one[1][name] for one in seen) for name in MEMORY}
    if ended := result.pop("ended", None):
        result["mib_in_stage"] = mib_by_stage(seen, ended)
    return wall | peaks | result


def watch(process: subprocess.Popen, seen: list[tuple]) -> None:
    """Note the MiB of all processes together: shared pages counted once, pages of files apart.

    A container's limit counts both, but drops pages of files before it stops anybody.
    """
    while process.poll() is None:
        totals = dict.fromkeys(MEMORY, 0)
        for lines in _memory_of_session(process.pid):
            for name, start in MEMORY.items():
                found = next((line for line in lines if line.startswith(start)), f"{start} 0")
                totals[name] += int(found.split()[1]) // 1024
        seen.append((time.time(), totals))
        time.sleep(0.5)


def mib_by_stage(seen: list[tuple], ended: dict[str, float]) -> dict[str, int]:
    """Return the peak, without files, up to the end of each stage since that of the one before."""
    peaks, since = {}, 0.0
    for stage, until in {**ended, "the rest": np.inf}.items():
        there = [one["peak_without_files_mib"] for when, one in seen if since < when <= until]
        peaks[stage], since = max(there, default=0), until
    return peaks


def _memory_of_session(session: int) -> Iterator[list[str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if os.getsid(int(folder.name)) == session:
                yield (folder / "smaps_rollup").read_text().splitlines()


def cost_model(sizes: list[dict[str, Any]]) -> dict[str, Any]:
    """Fit straight lines through what sizes took: a fixed part, and what a million rows add."""
    rows = np.array([one["rows"] for one in sizes]) / 1e6
    figures = {
        "wall_seconds": [one["wall_seconds"] for one in sizes],
        **{name: [one[name] for one in sizes] for name in MEMORY},
    }
    stages = set.intersection(*(set(one["seconds"]) for one in sizes))
    for stage in sorted(stages):
        figures[f"seconds of {stage}"] = [one["seconds"][stage] for one in sizes]
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
    """Compare the memory of two sizes, as it is and without what the label table takes."""
    ratios = {name: more[name] / fewer[name] for name in MEMORY}
    if "label_table_bytes_a_row" in more:
        tables = [one["rows"] * one["label_table_bytes_a_row"] / 2**20 for one in (fewer, more)]
        rest = [
            one["peak_without_files_mib"] - table
            for one, table in zip((fewer, more), tables, strict=True)
        ]
        ratios["without_files_and_label_table"] = rest[1] / rest[0]
    return {name: round(ratio, 2) for name, ratio in ratios.items()}


def _rows(size: dict[str, Any]) -> int:
    return size["rows"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=[*WORK, "model"])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/pudistill-scale"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--settings", default="{}", help="more for `pudistill fit`, as JSON")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(WORK[options.kind](options.child, options)))
        return
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    if options.kind in WORK:
        about = {**machine(), "commit": commit(), "versions": installed()}
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
