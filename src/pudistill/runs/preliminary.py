"""The first result of a run, and what an unfinished run has done so far."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from pudistill.data.dataset import TrustedDataset
from pudistill.distillation.first_result import FirstResult
from pudistill.distillation.noise_estimate import NOTHING
from pudistill.exceptions import DamagedWarning, InputError, warn_user
from pudistill.labels.checks import MISSING, Labels
from pudistill.runs.folder import LOCK, Run, csv_parts
from pudistill.runs.log import records_in
from pudistill.utils.files import open_atomic, write_atomic

# Their names say that they are preliminary; they are removed when the run ends.
LABELS, METRICS = "preliminary-labels.csv", "preliminary-metrics.json"
NOTE = (
    "Preliminary: after the first round of the student. Later rounds and the comparison change "
    "labels, and samples of no class still count as wrong labels."
)


def write_first_result(
    run: Run, dataset: TrustedDataset, labels: Labels, first: FirstResult
) -> None:
    """Write labels and noise after the first round into the folder of a run.

    Parameters
    ----------
    run : Run
        The run.
    dataset : TrustedDataset
        Its samples.
    labels : Labels
        Their labels.
    first : FirstResult
        The labels and the noise of all samples that are of a class.
    """
    rows = np.flatnonzero(~labels.no_class)
    targets, of_class = first.targets, first.labels
    codes, names = targets.argmax(axis=1), of_class.classes
    given = np.array([*names.tolist(), None], dtype=object)[of_class.given]
    if dataset.marked is not None:  # `fit` did not get these given labels, see `for_fit`
        given = np.where(dataset.marked[rows], dataset.y[rows], given)
    table = pd.DataFrame(
        {
            "id": dataset.ids[rows],
            "given": given,
            "trusted": of_class.trusted,
            "label": names[codes],
            "changed": (codes != of_class.given) & (of_class.given != MISSING),
            "confidence": targets[np.arange(len(codes)), codes],
        }
    )
    metrics: dict[str, Any] = {
        "note": NOTE,
        "n_samples": len(table),
        "n_trusted": int(of_class.trusted.sum()),
        "n_changed": int(table["changed"].sum()),
    }
    if first.noise.basis != NOTHING:
        kept = ("rate", "rate_interval", "basis", "warnings")
        noise = first.noise.to_dict()
        metrics["noise"] = {name: noise[name] for name in kept}
    with open_atomic(run.path / LABELS) as file:
        for text in csv_parts(table):
            file.write(text.encode())
    write_atomic(run.path / METRICS, json.dumps(metrics, indent=2).encode())


def remove_first_result(run: Run) -> None:
    """Remove the preliminary files: the results are there."""
    for name in (LABELS, METRICS):
        (run.path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class Progress:
    """What an unfinished run has done so far.

    Attributes
    ----------
    path : Path
        Its folder.
    is_running : bool or None
        Whether a process is at work in it; None if that cannot be found out.
    done : dict of str to float
        Seconds of the finished stages, by name.
    begun : str or None
        The stage that has begun, but not ended.
    to_come : list of str
        Names of later stages, as far as they are known.
    first : dict or None
        Content of ``preliminary-metrics.json``, if there is a first result.
    """

    path: Path
    is_running: bool | None
    done: dict[str, float]
    begun: str | None
    to_come: Sequence[str]
    first: dict[str, Any] | None


def progress_of(path: Path) -> Progress:
    """Return what an unfinished run has done so far, from its log."""
    stages: list[str] = []
    done: dict[str, float] = {}
    begun: str | None = None
    for record in records_in(path):
        event, name = record.get("event"), record.get("stage")
        if event == "planned":  # of the last process that worked on the run
            planned = record.get("stages")
            stages = list(map(str, planned)) if isinstance(planned, list) else []
            done, begun = {}, None
        elif name in stages and event == "begins":
            begun = str(name)
        elif name in stages and event == "ends":
            seconds: Any = record.get("seconds")
            is_known = isinstance(seconds, int | float) and 0 <= seconds < math.inf
            done[str(name)] = float(seconds) if is_known else 0.0
            begun = None
    to_come = [name for name in stages if name not in done and name != begun]
    return Progress(path, _is_locked(path), done, begun, to_come, _first_metrics(path))


def _first_metrics(path: Path) -> dict[str, Any] | None:
    if not (path / METRICS).is_file() or not (path / LABELS).is_file():
        return None
    try:
        metrics = Run(path).read_json(METRICS)
        numbers = [metrics["n_samples"], metrics["n_changed"]]
        if "noise" in metrics:
            low, high = metrics["noise"]["rate_interval"]
            rate = metrics["noise"]["rate"]
            numbers += [low, high] if rate is None else [rate, low, high]
        if not (np.isfinite(numbers).all() and isinstance(metrics["note"], str)):
            raise InputError(f"{path / METRICS} is damaged.")
    except (InputError, KeyError, TypeError, ValueError):  # `resume` does not read it
        warn_user(f"{path / METRICS} is damaged: it is left out.", DamagedWarning)
        return None
    return metrics


def _is_locked(path: Path) -> bool | None:
    """Whether a process is at work in a run folder; None if that cannot be found out."""
    lock = FileLock(path / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:  # a folder without permission to write
        return None
    lock.release()
    return False
