"""Accuracy against noise level: figure 3 of the paper, on any data whose labels are correct.

One trusted split serves all noise settings, so all work that reads no noisy label (the filter and
the teachers, models of the trusted samples or of the true labels) is done once; each noise setting
then costs one student.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pudistill.data.dataset import TrustedDataset
from pudistill.data.encoding import TableEncoder, needs_encoding
from pudistill.experiments.curve_settings import CurveSettings
from pudistill.experiments.measuring import COLUMNS, measure
from pudistill.experiments.systems import PREPARE
from pudistill.learners.cache import StageCache
from pudistill.learners.networks.features import with_model_features
from pudistill.runs.environment import versions
from pudistill.runs.folder import Run
from pudistill.runs.inputs import about_features, features_folder, load_data, load_embedder
from pudistill.runs.report import plots
from pudistill.runs.report.curve_page import CurveSummary, render_curve


def accuracy_curve(
    dataset: TrustedDataset,
    test: TrustedDataset,
    settings: CurveSettings,
    *,
    stages: StageCache | None = None,
) -> pd.DataFrame:
    """Measure how accurate each system is at each kind and level of noise.

    Parameters
    ----------
    dataset : TrustedDataset
        Training samples, with `true_labels` or with given labels that are all correct. Trusted
        samples are drawn anew: the share `settings.trusted_fraction` of each class.
    test : TrustedDataset
        Test samples of the same kind with correct labels.
    settings : CurveSettings
        Kinds and levels of noise, systems, and how to learn.
    stages : StageCache, default=None
        The cache of finished stages, from which an interrupted sweep continues.

    Returns
    -------
    results : DataFrame
        A row per kind, level and system: ``noise``, ``level`` (as requested), ``overall_level``
        (the share of wrong labels in the whole data set), ``method`` and ``accuracy`` (on the test
        samples, after the last epoch).

    Raises
    ------
    InputError
        If the settings describe no sweep, or do not fit the data.

    Examples
    --------
    >>> from pudistill.data.loading import load_dataset
    >>> from pudistill.experiments.curve import accuracy_curve
    >>> from pudistill.experiments.curve_settings import CurveSettings
    >>> train, test = load_dataset("iris").holdout(0.3, random_state=0)
    >>> settings = CurveSettings.read(
    ...     {"data": "iris", "test_fraction": 0.3, "trusted_fraction": 0.2, "levels": [0.6],
    ...      "methods": ["given_labels", "true_labels"]}
    ... )
    >>> results = accuracy_curve(train, test, settings)
    >>> results[["noise", "level", "method"]].drop_duplicates().shape
    (4, 3)
    """
    settings.check()
    systems = {name: PREPARE[name] for name in settings.methods}
    return measure(dataset, test, settings, systems, stages=stages, tracks_epochs=False)[COLUMNS]


def curve_run(settings: CurveSettings, output: Path) -> Run:
    """Measure a curve and write a run folder.

    It holds ``config.toml``, ``curve.csv`` and ``curve.parquet`` (see `accuracy_curve`),
    ``curve.svg``, ``report.html``, ``metrics.json`` and what every run has (see `Run`).

    Parameters
    ----------
    settings : CurveSettings
        What to measure.
    output : Path
        The run folder. It must not exist yet, or hold the same sweep, interrupted, which then
        continues.

    Returns
    -------
    run : Run
        The finished run.

    Raises
    ------
    InputError
        If the data or the settings are wrong; then no folder is left.
    """
    # Check everything and read the data before a folder is made.
    settings.check()
    config = settings.to_config()
    Run.check_free(output, config)
    dataset, test = load_data(settings.model_copy(update={"noise": "symmetric", "level": 0.0}))
    assert test is not None  # the settings name test samples
    embedder = load_embedder(settings, dataset)
    settings.check_classifiers(dataset.X if embedder is None else np.empty((0, 1)))
    with Run.begin(output, config, "sweep") as run:
        start = time.perf_counter()
        about = {}
        if embedder is not None:
            cache = features_folder(settings, run)
            dataset, test = (with_model_features(part, embedder, cache) for part in (dataset, test))
            about["features"] = about_features(embedder, dataset)
        elif needs_encoding(dataset.X):  # once, for all systems
            encoder = TableEncoder()
            dataset = dataset.with_features(encoder.fit_transform(dataset.X))
            test = test.with_features(encoder.transform(test.X))
        results = accuracy_curve(dataset, test, settings, stages=run.units)
        seconds = time.perf_counter() - start
        metrics = {
            "n_samples": len(dataset),
            "n_trusted": int(dataset.trusted.sum()),
            "n_classes": len(dataset.classes),
            "n_test": len(test),
            **about,
            "seconds": round(seconds, 3),
            "versions": versions(),
            "warnings": run.warnings(),
        }
        run.write_table("curve", results)
        _write_pages(run, results, metrics)
        run.finish(metrics)
    return run


def write_curve_report(run: Run) -> Path:
    """Write ``report.html`` and ``curve.svg`` of a sweep again; return the path of the report."""
    _write_pages(run, run.read_table("curve"), run.read_json("metrics.json"))
    return run.path / "report.html"


def is_curve(run: Run) -> bool:
    """Return whether a run folder holds a sweep."""
    return (run.path / "curve.parquet").is_file()


def _write_pages(run: Run, results: pd.DataFrame, metrics: dict[str, Any]) -> None:
    settings = run.read_config()
    summary = CurveSummary(
        title=f"pudistill: {Path(settings['data']).name}",
        results=results,
        metrics=metrics,
        settings=settings,
        notes=[*_left_out(CurveSettings.model_validate(settings)), *metrics["warnings"]],
    )
    run.write_bytes("report.html", render_curve(summary).encode())
    run.write_bytes("curve.svg", plots.standalone(plots.accuracy_curve(results)).encode())


def _left_out(settings: CurveSettings) -> list[str]:
    """Return notes about noise levels that the share of trusted samples does not allow."""
    _, left_out = settings.split_levels()
    if not left_out:
        return []
    return [
        f"Left out: a noise level of {' and '.join(f'{level:g}' for level in left_out)}, because a "
        f"share of {settings.trusted_fraction:g} of the samples is trusted."
    ]
