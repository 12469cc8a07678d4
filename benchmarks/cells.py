"""Cells, the resumable units of the benchmarks' work: one method on one problem, noise and seed.

The result of a cell is a small JSON file, written when it is done, and a cell that has a file is
not computed again: an interrupted command goes on where it stopped, or, in a new clone, from the
committed results. After a change to a method, delete its files and the same command computes them
anew (``rm benchmarks/results/robustness.units/*/*/pudistill*``).
"""

import argparse
import json
import os
import shlex
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from joblib import Parallel, delayed

from facts import commit, log_run, write_runs
from problems import N_JOBS, Group, Noise, Problem
from pudistill.atomic import write_atomic
from pudistill.noise import CorruptedLabels

RESULTS = Path(__file__).parent / "results"


class Method(NamedTuple):
    """What is measured."""

    result: Callable[[Group, Noise, CorruptedLabels | None], dict[str, Any]]
    needs: Callable[[Group], Any] | None = None  # fits the teachers, which cells share
    reads_noise: bool = True
    in_extremes: bool = False


class Cell(NamedTuple):
    """The unit of work."""

    problem: str
    seed: int
    noise: Noise
    method: str

    @property
    def path(self) -> Path:
        """Where the result is, below the units' folder."""
        noise = f"{self.noise.kind} {self.noise.level:g}"
        return Path(self.problem, noise, f"{self.method}, seed {self.seed}.json")


Work = tuple[Problem, Sequence[Cell]]  # the cells of one seed; those of one noise follow each other


def options_parser(description: str, output: str, seeds: Sequence[int]) -> argparse.ArgumentParser:
    """Parse what all these benchmarks have in common."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    data = Path(os.environ.get("PUDISTILL_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data, help="or the variable PUDISTILL_DATA")
    parser.add_argument("--only", nargs="+", default=[""], help="beginnings of problems' names")
    parser.add_argument("--seeds", nargs="+", type=int, default=seeds)
    parser.add_argument("--max-minutes", type=float, default=float("inf"))
    parser.add_argument("--output", type=Path, default=RESULTS / output)
    parser.add_argument("--summary", action="store_true", help="from the finished cells")
    return parser


def units_of(output: Path) -> Path:
    """Find the folder of finished cells; it starts from `output` if that was measured elsewhere."""
    units = output.with_suffix(".units")
    known = json.loads(output.read_bytes()) if output.exists() and not units.exists() else {}
    units.mkdir(parents=True, exist_ok=True)
    for row in known.get("rows", []):
        noise = Noise(row["kind"], row["level"])
        store(units, Cell(row["problem"], row["seed"], noise, row["method"]), row)
    if known:
        write_runs(units, known["run"]["runs"])
    return units


def read_units(units: Path) -> pd.DataFrame:
    """Read all finished cells."""
    rows = pd.DataFrame([json.loads(path.read_bytes()) for path in units.glob("*/*/*.json")])
    order = ["problem", "kind", "level", "seed", "method"]
    return rows.sort_values(order, ignore_index=True) if len(rows) else rows


def compute_missing(
    work: Sequence[Work], methods: Mapping[str, Method], units: Path, options: Any
) -> int:
    """Compute all cells that have no result, two processes side by side.

    Returns how many failed.
    """
    start = time.time()
    deadline = start + 60 * options.max_minutes
    of_commit = commit()
    rest = (methods, units, deadline, of_commit)
    place = (options.data, units / f"filters {of_commit}")
    todo = [
        (problem, [cell for cell in cells if not (units / cell.path).exists()])
        for problem, cells in work
    ]
    todo = [(problem, cells) for problem, cells in todo if cells]
    print(f"{sum(len(cells) for _, cells in todo)} cells to compute", flush=True)
    parallel = Parallel(n_jobs=N_JOBS, batch_size=1, pre_dispatch=N_JOBS)
    try:
        failures = sum(
            parallel(
                delayed(_start_group)(problem, cells, place, rest)
                for problem, cells in todo
                if not problem.cells_apart
            )
        )
        for problem, cells in todo:
            if problem.cells_apart and time.time() < deadline:
                group = Group(problem, cells[0].seed, *place)
                for cell in cells:
                    _prepare(group, methods[cell.method])
                failures += sum(parallel(delayed(_work)(group, [cell], *rest) for cell in cells))
    finally:
        log_run(units, shlex.join(sys.argv), time.time() - start, of_commit)
    return failures


def _start_group(problem: Problem, cells: Sequence[Cell], place: tuple, rest: tuple) -> int:
    """Compute all cells of a problem and seed, in this process."""
    deadline = rest[2]
    if time.time() > deadline:
        return 0
    return _work(Group(problem, cells[0].seed, *place), cells, *rest)


def _work(
    group: Group,
    cells: Sequence[Cell],
    methods: Mapping[str, Method],
    units: Path,
    deadline: float,
    of_commit: str,
) -> int:
    """Compute cells and store each when it is done; returns how many failed."""
    failures = 0
    for noise, of_one_noise in groupby(cells, key=lambda cell: cell.noise):
        noisy = group.corrupt(noise)
        for cell in of_one_noise:
            if time.time() > deadline:
                return failures
            try:
                result = _compute(group, cell, methods[cell.method], noisy)
            except Exception:  # the other cells are worth having; this one is tried again
                print(f"FAILED {cell.path}\n{traceback.format_exc()}", flush=True)
                failures += 1
                continue
            store(units, cell, result | {"commit": of_commit})
            outcome = result.get("error") or f"{result['test_accuracy']:.4f}"
            print(f"{outcome} in {result['seconds']:.1f} s: {cell.path}", flush=True)
    return failures


def _compute(
    group: Group, cell: Cell, method: Method, noisy: CorruptedLabels | None
) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _prepare(group, method)
        start = time.perf_counter()
        result = method.result(group, cell.noise, noisy)
        seconds = time.perf_counter() - start
    where = {"problem": cell.problem, "seed": cell.seed, "method": cell.method}
    where["n_test"] = len(group.y_test)
    if noisy is not None:
        where["noise_rate"] = noisy.noise_rate  # the realised share of wrong labels in D_n
    teachers = {"teacher_seconds": group.seconds} if group.seconds else {}
    return where | cell.noise._asdict() | result | {"seconds": seconds} | teachers


def _prepare(group: Group, method: Method) -> None:
    if method.needs is not None:
        method.needs(group)


def store(units: Path, cell: Cell, result: dict[str, Any]) -> None:
    """Write a cell's result."""
    path = units / cell.path
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(result, indent=1).encode())
