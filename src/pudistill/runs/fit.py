"""What the commands do: data in, a run folder out.

The command line parses and prints; everything in between is here, so that Python code can do the
same with `fit_run` and `Settings`.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pudistill.classifier import PUDistillClassifier
from pudistill.data.dataset import TrustedDataset
from pudistill.exceptions import as_input_error
from pudistill.labels.checks import Labels, check_labels
from pudistill.labels.table import model_label_table
from pudistill.learners.cache import caching_to
from pudistill.learners.networks.features import n_features, with_model_features
from pudistill.methods.base import Method
from pudistill.pu_filter.one_class import HISTORY_COLUMNS
from pudistill.runs.classifiers import build_classifier
from pudistill.runs.environment import versions
from pudistill.runs.folder import Run
from pudistill.runs.inputs import about_features, features_folder, load_data, load_embedder
from pudistill.runs.measures import label_metrics, own_metrics, test_accuracy
from pudistill.runs.models import check_storable
from pudistill.runs.report.html import render
from pudistill.runs.settings import Settings
from pudistill.runs.summary import gallery, summarise

ESTIMATED = ("noise_rate", "asymmetric", "blend")  # by other methods, from the data


def fit_run(settings: Settings, output: Path) -> Run:
    """Fit on noisy data and leave a run folder behind.

    Parameters
    ----------
    settings : Settings
        Settings of the run.
    output : Path
        The run folder, which must not exist yet; or that of the same run, if it was interrupted,
        to continue it.

    Returns
    -------
    run : Run
        The finished run.

    Raises
    ------
    InputError
        If something in the data or the settings is wrong; then no folder is left.
    """
    config = settings.to_config()
    Run.check_free(output, config)
    # 1. Find whatever is wrong with data and settings before there is a folder.
    dataset, test = load_data(settings)
    embedder = load_embedder(settings, dataset)
    labels = check_labels(*dataset.for_fit())
    codes = labels.verified[labels.trusted]
    trusted = (
        dataset.X[labels.trusted] if embedder is None else _mock_features(embedder, dataset, codes)
    )
    classifier = build_classifier(settings, trusted)
    check_storable(classifier.estimator, trusted, codes)
    # 2. Fit, measure and write.
    with Run.begin(output, config) as run:
        _fit_into(run, settings, classifier, dataset, test, labels, embedder)
    return run


def _mock_features(embedder: Any, dataset: TrustedDataset, codes: np.ndarray) -> np.ndarray:
    """Draw random features in the shape of real ones, to try a learner before embedding samples."""
    rng = np.random.default_rng(0)
    shape = (len(codes), n_features(embedder, dataset.X))
    return rng.standard_normal(shape, np.float32) + codes[:, None]


class Learned(NamedTuple):
    """What a fitted classifier leaves for the run folder."""

    table: pd.DataFrame  # of labels
    history: pd.DataFrame  # of the filter; empty for methods without one
    metrics: dict[str, Any]


def _fit_into(
    run: Run,
    settings: Settings,
    classifier: Any,
    dataset: TrustedDataset,
    test: TrustedDataset | None,
    labels: Labels,
    embedder: Any,
) -> None:
    seconds: dict[str, float] = {}
    about: dict[str, Any] = {}
    # 1. Compute features.
    if embedder is not None:
        with _timed(seconds, "features"):
            cache = features_folder(settings, run)
            dataset = with_model_features(dataset, embedder, cache)
            test = None if test is None else with_model_features(test, embedder, cache)
        about["features"] = about_features(embedder, dataset)
    # 2. Fit.
    fit = _fit_ours if isinstance(classifier, PUDistillClassifier) else _fit_other
    table, history, metrics_of_method = fit(run, classifier, dataset, labels, seconds)
    if dataset.marked is not None:  # `given` is the label as it came, even if not learned from
        table.loc[dataset.marked, "given"] = dataset.y[dataset.marked]
    table.insert(0, "id", dataset.ids)

    # 3. Measure.
    metrics = label_metrics(table, dataset, labels) | about | metrics_of_method
    if test is not None:
        with _timed(seconds, "comparison"), as_input_error():
            metrics["n_test"] = len(test)
            metrics["test_accuracy"] = test_accuracy(
                run, settings, classifier, dataset, test, labels
            )
    metrics["seconds"] = {name: round(value, 3) for name, value in seconds.items()}
    metrics["versions"] = versions()
    metrics["warnings"] = run.warnings()

    # 4. Write; `finish` comes last, as it says that the run is complete.
    run.write_table("labels", table)
    run.write_table("history", history)
    run.write_arrays("gallery.npz", gallery(dataset, table))
    run.write_model(classifier, dataset.feature_names)
    run.write_bytes("report.html", render(summarise(run, metrics)).encode())
    run.finish(metrics)


def _fit_ours(
    run: Run,
    classifier: PUDistillClassifier,
    dataset: TrustedDataset,
    labels: Labels,
    seconds: dict[str, float],
) -> Learned:
    y, trusted = dataset.for_fit()
    classifier.set_params(memory=run.units)
    with _timed(seconds, "filter_and_teachers"), as_input_error():
        classifier.fit_teachers(dataset.X, y, trusted)
    with _timed(seconds, "student"), as_input_error():
        classifier.fit_student(dataset.X, y, trusted)
    metrics = own_metrics(classifier, dataset, labels)
    return Learned(classifier.label_table_, classifier.filter_.history_, metrics)


def _fit_other(
    run: Run,
    classifier: Method,
    dataset: TrustedDataset,
    labels: Labels,
    seconds: dict[str, float],
) -> Learned:
    """Fit a method other than ours; its corrected labels are its predictions."""
    y, trusted = dataset.for_fit()
    with _timed(seconds, "training"), as_input_error(), caching_to(run.units):
        classifier.fit(dataset.X, y, trusted)
    found = {name: getattr(classifier, f"{name}_", None) for name in ESTIMATED}
    metrics = {name: value for name, value in found.items() if value is not None}
    table = model_label_table(labels, classifier.predict_proba(dataset.X))
    return Learned(table, pd.DataFrame(columns=["class_name", *HISTORY_COLUMNS]), metrics)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
