"""Test accuracy of systems at each kind and level of noise, computed once and cached."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd

from pudistill.data.dataset import TrustedDataset
from pudistill.exceptions import DivergedError, as_input_error
from pudistill.experiments.curve_settings import CurveSettings
from pudistill.experiments.evaluation import Evaluator, FitAndScore, NoisyDataset, Prepare
from pudistill.labels.checks import check_labels
from pudistill.learners.cache import StageCache
from pudistill.learners.parallel import in_order
from pudistill.methods.registry import OURS, SYSTEMS
from pudistill.runs.inputs import with_noise
from pudistill.utils.progress import epoch_callback, stage

COLUMNS = ["noise", "level", "overall_level", "method", "accuracy"]


class Cell(NamedTuple):
    """The measurements of a system at one noise setting."""

    accuracy: np.ndarray
    best_over_epochs: np.ndarray
    seconds: np.ndarray


def measure(
    dataset: TrustedDataset,
    test: TrustedDataset,
    settings: CurveSettings,
    systems: Mapping[str, Prepare],
    *,
    class_map: Mapping[Any, Any] | None = None,
    stages: StageCache | None = None,
    tracks_epochs: bool = True,
) -> pd.DataFrame:
    """Measure systems at each kind and level of noise.

    Parameters
    ----------
    dataset, test, settings, stages
        As for `curve.accuracy_curve`.
    systems : mapping of str to callable
        How to prepare each system, as in `systems.PREPARE`.
    class_map : mapping, default=None
        The class that asymmetric noise mistakes each class for; by default the next class.
    tracks_epochs : bool, default=True
        Whether to test networks after each epoch, too.

    Returns
    -------
    results : DataFrame
        The columns of `curve.accuracy_curve`, and ``best_over_epochs`` (the largest test accuracy
        after any epoch of the last training, which no user can know; for our classifier, which is a
        mixture, the accuracy) and ``seconds`` (without the work that all noise settings share).
    """
    levels, _ = settings.split_levels()

    def noisy(noise: str, level: float) -> TrustedDataset:
        share, seed = settings.trusted_fraction, settings.seed
        return with_noise(dataset, noise, level, share, seed, class_map=class_map)

    evaluator = Evaluator(settings, noisy("symmetric", 0.0), test, stages, tracks_epochs)
    noisy_datasets = [
        NoisyDataset(noise, level, noisy(noise, level))
        for noise in settings.noises
        for level in levels
    ]
    return measure_on(evaluator, noisy_datasets, systems)


def measure_on(
    evaluator: Evaluator, noisy_datasets: list[NoisyDataset], systems: Mapping[str, Prepare]
) -> pd.DataFrame:
    """Measure systems on data sets that are already noisy; see `measure`."""
    rows = []
    with stage("curve", len(systems) * len(noisy_datasets)) as advance, as_input_error():
        fingerprint = evaluator.fingerprint()
        for name, prepare in systems.items():
            cells = _measure_system(name, prepare, evaluator, noisy_datasets, fingerprint)
            for noisy, cell in zip(noisy_datasets, cells, strict=True):
                rows.append((*noisy[:2], noisy.overall_level, name, *map(float, cell)))
                level = "" if np.isnan(noisy.level) else f" {noisy.level:.0%}"
                advance(1, detail=f"{name}, {noisy.noise}{level}".replace("_", " "))
    return pd.DataFrame(rows, columns=[*COLUMNS, "best_over_epochs", "seconds"])


class _NotCachedError(Exception):
    """No earlier run has measured a cell."""


def _measure_system(
    name: str,
    prepare: Prepare,
    evaluator: Evaluator,
    noisy_datasets: list[NoisyDataset],
    fingerprint: str,
) -> Iterator[Cell]:
    """Yield a system's cells; prepare it only if one of them is not in the cache."""
    cell = cached_cell
    if evaluator.stages is not None:
        cell = evaluator.stages.cache(cached_cell, ignore=["compute"])

    # 1. Key the cells by the given labels; if the system reads none, one cell serves all.
    keys: list[np.ndarray | None] = [
        check_labels(noisy.dataset.y, noisy.dataset.verified).given for noisy in noisy_datasets
    ]
    if name in SYSTEMS and not SYSTEMS[name].reads_noisy_labels:
        keys = [None]
    hashes = [joblib.hash(key) for key in keys]

    # 2. Find the cells that are not cached. All kinds of noise are the same at level 0.
    def not_cached() -> Cell:
        raise _NotCachedError

    missing = {}
    for n, (key, key_hash) in enumerate(zip(keys, hashes, strict=True)):
        if key_hash not in missing:
            try:
                cell(fingerprint, name, key, not_cached)
            except _NotCachedError:
                missing[key_hash] = n

    # 3. Measure them, several at once. Our classifier is a mixture, which has no epochs.
    measured: Iterator[tuple[str, Cell]] = iter(())
    if missing:
        fit_and_score = prepare(evaluator)
        tracks_epochs = evaluator.tracks_epochs and not name.startswith(OURS)
        tasks = (
            joblib.delayed(_measure_cell)(
                fit_and_score, evaluator, noisy_datasets[n], tracks_epochs
            )
            for n in missing.values()
        )
        n_jobs = evaluator.n_jobs(name)
        measured = zip(missing, in_order(tasks, n_jobs, alone=n_jobs == 1), strict=True)

    # 4. Yield all cells in order; cache each measured cell as soon as it is finished. Another
    # process that shares the cache may have stored a cell meanwhile: its measurement is skipped.
    cells: dict[str, Cell] = {}
    for key, key_hash in zip(keys, hashes, strict=True):
        if key_hash not in cells:

            def compute(wanted: str = key_hash) -> Cell:
                return next(found for key_hash, found in measured if key_hash == wanted)

            cells[key_hash] = cell(fingerprint, name, key, compute)
        yield from [cells[key_hash]] * (len(noisy_datasets) // len(keys))


def cached_cell(
    fingerprint: str,  # noqa: ARG001
    system: str,  # noqa: ARG001
    given: np.ndarray | None,  # noqa: ARG001
    compute: Callable[[], Cell],
) -> Cell:
    """Compute a cell; the first three parameters are its key in the cache."""
    return compute()


def _measure_cell(
    fit_and_score: FitAndScore, evaluator: Evaluator, noisy: NoisyDataset, tracks_epochs: bool
) -> Cell:
    """Fit and test a system; if `tracks_epochs`, test its networks after each epoch, too."""
    epochs: list[float] = []
    seconds_testing = 0.0

    def test_epoch(epoch: int, networks: Sequence[Any]) -> None:
        nonlocal seconds_testing
        start = time.perf_counter()
        if epoch == 1:  # a new training begins: only the last one counts
            epochs.clear()
        epochs.append(evaluator.networks_accuracy(networks))
        seconds_testing += time.perf_counter() - start

    start = time.perf_counter()
    try:
        with epoch_callback(test_epoch) if tracks_epochs else nullcontext():
            accuracy = fit_and_score(noisy)
    except DivergedError:  # even at a smaller learning rate: only this cell has no accuracy
        return Cell(*map(np.asarray, (np.nan, np.nan, time.perf_counter() - start)))
    seconds = time.perf_counter() - start - seconds_testing
    return Cell(*map(np.asarray, (accuracy, max([accuracy, *epochs]), seconds)))
