"""Cells: one method on one problem, noise and seed, computed once and stored.

The result of a cell is a small JSON file, written as soon as the cell is done. A cell that has a
file is not computed again, so an interrupted command continues where it stopped, or, in a new
clone, from the committed results. After a change to a method, delete its files and run the same
command again (``rm benchmarks/results/robustness.cells/*/*/pudistill*``).
"""

import argparse
import json
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

from benchmarks.common.facts import RESULTS, add_data_option, facts, log_run, write_runs
from benchmarks.common.problems import N_JOBS, Group, Noise, Problem
from pudistill.labels.corruption import CorruptedLabels
from pudistill.utils.cluster import running_on
from pudistill.utils.files import write_atomic


class Method(NamedTuple):
    """A method to measure."""

    result: Callable[[Group, Noise, CorruptedLabels | None], dict[str, Any]]
    needs: Callable[[Group], Any] | None = None  # fits the teachers that cells share
    reads_noise: bool = True  # whether the result depends on noisy labels
    in_extremes: bool = False  # whether to measure it at the extreme noises, too


class Cell(NamedTuple):
    """One method on one problem, noise and seed."""

    problem: str
    seed: int
    noise: Noise
    method: str

    @property
    def path(self) -> Path:
        """Return the path of the result, relative to the folder of cells."""
        noise = f"{self.noise.kind} {self.noise.level:g}"
        return Path(self.problem, noise, f"{self.method}, seed {self.seed}.json")


RESULTS_OF_CELLS = "*/*/*.json"
Work = tuple[Problem, Sequence[Cell]]  # the cells of one seed; those of one noise follow each other


def options_parser(description: str, output: str, seeds: Sequence[int]) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks of cells share."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--only", nargs="+", default=[""], help="prefixes of problem names")
    parser.add_argument("--seeds", nargs="+", type=int, default=seeds)
    parser.add_argument("--max-minutes", type=float, default=float("inf"))
    parser.add_argument("--output", type=Path, default=RESULTS / output)
    parser.add_argument("--jobs", type=int, default=N_JOBS, help="processes; default: %(default)s")
    parser.add_argument(
        "--cluster",
        help="Ray cluster to compute on, as for `pudistill fit`; all its nodes must see this "
        "checkout, the data and the results",
    )
    parser.add_argument(
        "--summary",
        action="store_true",
        help="only write the tables of finished cells",
    )
    return parser


def compute_and_summarise(
    work: Sequence[Work],
    methods: Mapping[str, Method],
    summarise: Callable[[Path, Path], None],
    options: Any,
) -> None:
    """Compute the cells that have no result, write the tables, and exit: with 1 if any failed."""
    folder = cells_folder(options.output)
    failures = 0 if options.summary else compute_missing(work, methods, folder, options)
    if any(folder.glob(RESULTS_OF_CELLS)):
        summarise(folder, options.output)
    else:
        print("No cell is finished yet.")
    sys.exit(1 if failures else 0)


def cells_folder(output: Path) -> Path:
    """Return the folder of finished cells; if it is new, fill it from the results in `output`."""
    folder = output.with_suffix(".cells").resolve()
    known = json.loads(output.read_bytes()) if output.exists() and not folder.exists() else {}
    folder.mkdir(parents=True, exist_ok=True)
    for row in known.get("rows", []):
        noise = Noise(row["kind"], row["level"])
        store(folder, Cell(row["problem"], row["seed"], noise, row["method"]), row)
    if known:
        where = {name: known["run"][name] for name in ("device", "cores", "versions")}
        write_runs(folder, [where | run for run in known["run"]["runs"]])
    return folder


def read_cells(folder: Path) -> pd.DataFrame:
    """Read all finished cells."""
    rows = pd.DataFrame([json.loads(path.read_bytes()) for path in folder.glob(RESULTS_OF_CELLS)])
    order = ["problem", "kind", "level", "seed", "method"]
    return rows.sort_values(order, ignore_index=True) if len(rows) else rows


def compute_missing(
    work: Sequence[Work], methods: Mapping[str, Method], folder: Path, options: Any
) -> int:
    """Compute all cells that have no result, in a few processes or on a cluster.

    Return how many failed.
    """
    start = time.time()
    deadline = start + 60 * options.max_minutes
    about = facts()
    rest = (methods, folder, deadline, about["commit"])
    place = (options.data.resolve(), folder / f"filters {about['commit']}")
    todo = [
        (problem, [cell for cell in cells if not (folder / cell.path).exists()])
        for problem, cells in work
    ]
    todo = [(problem, cells) for problem, cells in todo if cells]
    print(f"{sum(len(cells) for _, cells in todo)} cells to compute", flush=True)
    if not todo:
        return 0
    n_jobs = options.jobs if options.cluster is None else -1
    try:
        with running_on(options.cluster):
            parallel = Parallel(n_jobs=n_jobs, batch_size=1, pre_dispatch="n_jobs")
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
                    tasks = (delayed(_work)(group, [cell], *rest) for cell in cells)
                    failures += sum(parallel(tasks))
    finally:
        log_run(folder, about, time.time() - start)
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
    folder: Path,
    deadline: float,
    at_commit: str,
) -> int:
    """Compute cells, store each as soon as it is done, and return how many failed."""
    failures = 0
    for noise, cells_of_noise in groupby(cells, key=lambda cell: cell.noise):
        noisy = group.corrupt(noise)
        for cell in cells_of_noise:
            if time.time() > deadline:
                return failures
            try:
                result = _compute(group, cell, methods[cell.method], noisy)
            except Exception:  # compute the other cells; the next command tries this one again
                print(f"FAILED {cell.path}\n{traceback.format_exc()}", flush=True)
                failures += 1
                continue
            store(folder, cell, result | {"commit": at_commit})
            outcome = result.get("error") or f"{result['test_accuracy']:.4f}"
            print(f"{outcome} in {result['seconds']:.1f} s: {cell.path}", flush=True)
    return failures


def _compute(
    group: Group, cell: Cell, method: Method, noisy: CorruptedLabels | None
) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _prepare(group, method)
        start, cpu_start = time.perf_counter(), time.process_time()
        result = method.result(group, cell.noise, noisy)
        seconds = {"seconds": time.perf_counter() - start}
        seconds["cpu_seconds"] = time.process_time() - cpu_start  # not of other processes
    where = {"problem": cell.problem, "seed": cell.seed, "method": cell.method}
    where["n_test"] = len(group.y_test)
    if noisy is not None:
        where["noise_rate"] = noisy.noise_rate  # the realised share of wrong labels in D_n
    teachers = {}
    if group.seconds:
        teachers = {"teacher_seconds": group.seconds, "teacher_cpu_seconds": group.cpu_seconds}
    return where | cell.noise._asdict() | result | seconds | teachers


def _prepare(group: Group, method: Method) -> None:
    if method.needs is not None:
        method.needs(group)


def store(folder: Path, cell: Cell, result: dict[str, Any]) -> None:
    """Write a cell's result."""
    path = folder / cell.path
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(result, indent=1).encode())
