"""The paper's tables and figures, with our numbers beside the paper's.

All experiments share a folder of cached stages, each under a hash of its inputs: stages that two
experiments have in common are computed once, and an interrupted experiment continues.
"""

import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from pudistill.exceptions import InputError
from pudistill.experiments import own_noise, paper, teachers
from pudistill.experiments.levels import (
    COMPARED,
    PREPARE_COMPARED,
    TITLES,
    fig1,
    fig2,
    fig3,
    table5,
    table6,
)
from pudistill.experiments.scales import SCALES, find_folder
from pudistill.experiments.setup import Result, Setup
from pudistill.experiments.tables import as_markdown
from pudistill.learners.cache import StageCache
from pudistill.runs.environment import machine, versions
from pudistill.runs.folder import Run
from pudistill.runs.report import plots
from pudistill.utils.files import remove_leftovers


class Experiment(NamedTuple):
    """A table or figure of the paper.

    Attributes
    ----------
    run : callable
        Takes a `Setup`, returns a `Result`.
    options : tuple of {"levels", "methods"}
        What a user can choose.
    uses_scale_data : bool
        Whether it runs on the scale's data; False: on Clothing1M only.
    uses_clothing1m : bool
        Whether it runs on Clothing1M, too, if that is there.
    """

    run: Callable[[Setup], Result]
    options: tuple[str, ...] = ()
    uses_scale_data: bool = True
    uses_clothing1m: bool = False


EXPERIMENTS = {
    "table1": Experiment(teachers.table1, uses_clothing1m=True),
    "table2": Experiment(teachers.table2, uses_clothing1m=True),
    "table3": Experiment(
        own_noise.table3, ("methods",), uses_scale_data=False, uses_clothing1m=True
    ),
    "table4": Experiment(teachers.table4, uses_clothing1m=True),
    "table5": Experiment(table5, ("levels", "methods")),
    "table6": Experiment(table6, ("levels",)),
    "fig1": Experiment(fig1, ("levels",)),
    "fig2": Experiment(fig2, ("levels",)),
    "fig3": Experiment(fig3, ("levels", "methods")),
}


def reproduce(
    experiment: str,
    output: Path,
    *,
    scale: str = "smoke",
    data: Path | None = None,
    levels: Sequence[float] | None = None,
    compared: Sequence[str] | None = None,
    n_seeds: int | None = None,
    skip_bad: bool = False,
) -> Run:
    """Run an experiment of the paper and write a folder with its table and figures.

    The folder, ``<experiment>-<scale>`` in `output`, holds ``config.toml``, ``cells.csv`` and
    ``cells.parquet``, ``table.md``, ``metrics.json`` and what every run has (see `Run`).
    Experiments that compare variants add ``figure.svg``. Those that compare methods draw two:
    ``figure.svg`` of those in the paper's protocol and the baselines, and ``figure-trusted.svg`` of
    those that know the trusted samples; a figure without methods is left out. If the folder exists
    with other settings, ``<experiment>-<scale>-2`` is made, and so on; with the same settings it is
    returned as it is, or continued where it was interrupted.

    Parameters
    ----------
    experiment : str
        A name in `EXPERIMENTS`.
    output : Path
        The folder of all experiments, which share the cached stages in its ``units``.
    scale : {"smoke", "cpu", "cpu-pictures", "cpu-network", "full"}, default="smoke"
        A name in `SCALES`.
    data : Path, default=None
        The folder that holds the data sets; "smoke" needs none.
    levels : sequence of float, default=None
        Noise levels, for experiments that take them; the scale's by default.
    compared : sequence of str, default=None
        Names in `PREPARE_COMPARED`, for experiments that compare methods; by default `COMPARED`.
    n_seeds : int, default=None
        Number of seeds, which count from 0; the scale's by default.
    skip_bad : bool, default=False
        Whether to leave out pictures that are missing or damaged.

    Returns
    -------
    run : Run
        The experiment's folder.

    Raises
    ------
    InputError
        If a name is unknown, or data are missing.
    """
    check_names("experiment", [experiment], EXPERIMENTS)
    check_names("scale", [scale], SCALES)
    size = SCALES[scale]
    levels = size.levels if levels is None else levels
    compared = COMPARED if compared is None else compared
    _check_choice(levels, compared)
    chosen = {"levels": list(levels), "methods": list(compared)}
    seeds = size.seeds if n_seeds is None else n_seeds
    if seeds < 1:
        raise InputError(f"There must be at least one seed, not {seeds}.")
    record = EXPERIMENTS[experiment]
    config: dict[str, Any] = {
        "experiment": experiment,
        "scale": scale,
        "data": "" if data is None else str(data.resolve()),
        "skip_bad": skip_bad,
        "seeds": seeds,
        **{name: chosen[name] for name in record.options},
    }
    if record.uses_clothing1m:
        config["has_clothing1m"] = find_folder(data, "clothing1m") is not None
    path, is_finished = _place(output, f"{experiment}-{scale}", config)
    if is_finished:
        return Run.open(path)
    setup = Setup(
        size,
        data=data,
        levels=tuple(levels),
        methods=tuple(compared),
        seeds=tuple(range(seeds)),
        stages=StageCache(output / "units"),
        skip_bad=skip_bad,
    )
    # Read the data before a folder is made.
    edition = setup.edition if record.uses_scale_data else paper.CLOTHING1M
    remove_leftovers(setup.stages.folder, seconds_old=3600)  # other experiments can be using it
    with Run.begin(path, config, "reproduce") as run:
        start = time.perf_counter()
        result = record.run(setup)
        seconds = time.perf_counter() - start
        about = f"{edition}; {seeds} seed{'s' if seeds > 1 else ''}."
        _write(run, f"{experiment}: {record.run.__doc__}", about, result)
        metrics = {
            "seconds_of_last_go": round(seconds, 1),
            **machine(),
            "versions": versions(),
            "warnings": run.warnings(),
        }
        run.finish(metrics)
    return run


def _write(run: Run, title: str, about: str, result: Result) -> None:
    """Write the table and the figures."""
    run.write_table("cells", result.cells)
    run.write_bytes("table.md", as_markdown(title, about, result.cells, TITLES).encode())
    for name, curve in result.curves.items():
        if len(curve):
            by = ["noise", "level", "method"]
            means = curve.groupby(by, sort=False)[["overall_level", "accuracy"]].mean()
            drawn = plots.accuracy_curve(means.reset_index(), result.titles, result.caption)
            run.write_bytes(f"{name}.svg", plots.standalone(drawn).encode())


def _place(output: Path, name: str, config: dict[str, Any]) -> tuple[Path, bool]:
    """Return the folder of an experiment with these settings, and whether it is finished."""
    for folder in (output, output / "units"):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file: name another folder with --output.")
    for n in count(1):
        path = output / (name if n == 1 else f"{name}-{n}")
        if Run.is_finished(path, config):
            return path, True
        if not path.exists() or Run.is_interrupted(path, config):
            return path, False
    raise AssertionError("count() never ends")


def _check_choice(levels: Sequence[float], compared: Sequence[str]) -> None:
    check_names("method", compared, PREPARE_COMPARED)
    for level in levels:
        if not any(abs(level - known) < 1e-9 for known in paper.LEVELS):
            raise InputError(
                f"The paper has no noise level {level:g}: choose some of {paper.LEVELS}."
            )
    if not levels or not compared:
        raise InputError("There is nothing to compare: give at least one level and one method.")


def check_names(kind: str, names: Sequence[str], known: Any) -> None:
    """Raise `InputError` for an unknown name; the message lists the known ones."""
    for name in names:
        if name not in known:
            raise InputError(f"There is no {kind} {name!r}: choose one of {', '.join(known)}.")
