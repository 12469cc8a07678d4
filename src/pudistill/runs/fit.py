"""`pudistill fit` without its command line: data in, a run folder out.

Python code can do the same with `fit_run` and `Settings`.
"""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import clone

from pudistill.classifier import PUDistillClassifier
from pudistill.data.dataset import TrustedDataset
from pudistill.distillation.first_result import on_first_result
from pudistill.exceptions import DataWarning, as_input_error
from pudistill.labels.annotations import check_given
from pudistill.labels.checks import MISSING, Labels
from pudistill.labels.groups import with_groups
from pudistill.labels.samples import check_features, split_off_no_class
from pudistill.labels.table import LabelTable, model_label_table
from pudistill.learners.cache import caching_to
from pudistill.learners.networks.features import n_features, with_model_features
from pudistill.learners.outliers import find_outliers
from pudistill.learners.scoring import predict_proba
from pudistill.methods.base import Method
from pudistill.pu_filter.one_class import HISTORY_COLUMNS
from pudistill.runs.certificates import write_held_out_labels
from pudistill.runs.classifiers import build_classifier, own_network
from pudistill.runs.correct import read_predictions
from pudistill.runs.environment import versions
from pudistill.runs.folder import Run
from pudistill.runs.inputs import (
    MOST_TEXTS_WITH_WORDS,
    about_features,
    features_folder,
    load_data,
    load_embedder,
    with_columns,
    with_words,
)
from pudistill.runs.learned import (
    check_same_data,
    doubt_batches,
    link_features,
    restore_learned,
    warn_of_noisy_batches,
    write_learned,
)
from pudistill.runs.measures import clean_set_metrics, label_metrics, own_metrics, test_accuracy
from pudistill.runs.models import check_storable
from pudistill.runs.preliminary import remove_first_result, write_first_result
from pudistill.runs.report.html import render
from pudistill.runs.settings import Settings
from pudistill.runs.summary import gallery, summarise
from pudistill.runs.tracking import check_tracker, tracking
from pudistill.utils.progress import planned

ESTIMATED = ("noise_rate", "asymmetric", "blend")  # estimates of other methods, for the metrics


def fit_run(settings: Settings, output: Path) -> Run:
    """Fit a classifier on noisy data and write a run folder.

    Parameters
    ----------
    settings : Settings
        Settings of the run.
    output : Path
        The run folder. It must not exist yet, unless it holds an interrupted run of the same
        settings, which is then continued.

    Returns
    -------
    run : Run
        The finished run.

    Raises
    ------
    InputError
        If the data or the settings are wrong; a new folder is removed again, unless a stage has
        finished.
    """
    settings = with_columns(settings)
    config = settings.to_config()
    Run.check_free(output, config)
    # 1. Check data and settings before there is a folder.
    dataset, test = load_data(settings)
    embedder = load_embedder(settings, dataset)
    if settings.start_from is not None:
        check_same_data(Run.open_fit(Path(settings.start_from)), dataset)
    labels = check_given(
        *dataset.for_fit(),
        every_class=settings.needs_every_class,
        no_class_label=settings.no_class_label,
    )
    # Where nothing is verified, all samples that have a label stand in for the trusted ones.
    of_trusted = labels.verified if labels.trusted.any() else labels.given
    codes = of_trusted[of_trusted != MISSING]
    trusted = (
        dataset.take(of_trusted != MISSING).X
        if embedder is None
        else _mock_features(embedder, dataset, codes)
    )
    classifier = build_classifier(settings, trusted)
    _check_learner(classifier, trusted, codes)
    check_tracker(settings.tracker)
    # 2. Fit, measure and write.
    stages = _stages(classifier, has_features=embedder is not None, has_test=test is not None)
    with Run.begin(output, config) as run, planned(stages):
        with tracking(settings.tracker, run.path, config) as log_results:
            metrics = _fit_into(run, settings, classifier, dataset, test, labels, embedder)
            log_results(metrics)
        # The report is made from the files of the run, and needs the memory that the data took.
        del classifier, dataset, test, labels, embedder
        run.write_bytes("report.html", render(summarise(run, metrics)).encode())
        remove_first_result(run)
        run.finish(metrics)  # last, because it marks the run as complete
    return run


def _stages(classifier: Any, *, has_features: bool, has_test: bool) -> list[str]:
    """List the stages that a run will have; empty if the method does not say."""
    if not isinstance(classifier, PUDistillClassifier):
        return []
    is_paper = classifier.method == "paper"
    stages = ["filter", "teachers" if is_paper else "noise-free models", "student"]
    if classifier.compare and not is_paper:
        stages.append("comparison")
    return ["features"] * has_features + stages + ["accuracy"] * has_test


def _check_learner(classifier: Any, trusted: Any, codes: np.ndarray) -> None:
    """Check the user's learner on the trusted samples, encoded if it needs that."""
    if classifier.estimator is None:  # the default learner can be fitted and stored
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # `fit` will issue it for all samples
        encoded = check_features(clone(classifier), trusted, [classifier.estimator])
    check_storable(classifier.estimator, encoded, codes)


def _mock_features(embedder: Any, dataset: TrustedDataset, codes: np.ndarray) -> np.ndarray:
    """Draw features of the right shape at random, to test a learner before the real computation."""
    rng = np.random.default_rng(0)
    shape = (len(codes), n_features(embedder, dataset.X))
    return rng.standard_normal(shape, np.float32) + codes[:, None]


class FitResults(NamedTuple):
    """Results of a fitted classifier for the run folder."""

    label_table: LabelTable
    history: pd.DataFrame  # of the filter; empty if the method has no filter
    metrics: dict[str, Any]


def _fit_into(
    run: Run,
    settings: Settings,
    classifier: Any,
    dataset: TrustedDataset,
    test: TrustedDataset | None,
    labels: Labels,
    embedder: Any,
) -> dict[str, Any]:
    """Fit and measure; write everything except the report, and return the metrics."""
    seconds: dict[str, float] = {}
    about: dict[str, Any] = {}
    samples = dataset  # the report shows them as they are, without features
    # 1. Compute features.
    before = None if settings.start_from is None else Run.open_fit(Path(settings.start_from))
    if embedder is not None:
        if before is not None:
            link_features(before, run)
        with _timed(seconds, "features"):
            cache = features_folder(settings, run)
            parts = [part for part in (dataset, test) if part is not None]
            computed = [with_model_features(part, embedder, cache) for part in parts]
        about["features"] = about_features(embedder, computed[0])
        is_default = classifier.estimator is None
        if dataset.is_text and is_default and len(dataset) <= MOST_TEXTS_WITH_WORDS:
            computed = [
                replace(features, X=with_words(part.X, features.X))
                for part, features in zip(parts, computed, strict=True)
            ]
        dataset, test = computed[0], None if test is None else computed[1]
    # 2. Fit.
    y, trusted = dataset.for_fit()
    groups: dict[str, Any] = {} if dataset.groups is None else {"groups": dataset.groups}
    is_pudistill = isinstance(classifier, PUDistillClassifier)
    if is_pudistill and dataset.noise_groups is not None:
        groups["noise_groups"] = dataset.noise_groups
    if is_pudistill:
        groups["draw_weight"] = dataset.draws
    if is_pudistill and settings.predictions is not None:
        groups["pred_probs"] = read_predictions(
            Path(settings.predictions), dataset, id_column=settings.id_column
        )
    if is_pudistill:
        classifier.set_params(memory=run.units)
        if before is not None:
            classifier.set_params(warm_start=True)
            restore_learned(before, classifier, own_network(settings.learner))
    write_first = on_first_result(partial(write_first_result, run, dataset, labels))
    with _timed(seconds, "training"), as_input_error(), caching_to(run.units), write_first:
        classifier.fit(dataset.X, y, trusted, **groups)
    if settings.added and is_pudistill:
        warn_of_noisy_batches(classifier.noise_, dataset)
        if settings.noise_group_column is None:  # else a group can be missed by chance
            doubt_batches(classifier, dataset)
    results_of = _results_of_pudistill if is_pudistill else _results_of_other_method
    table, history, metrics_of_method = results_of(classifier, dataset, labels)
    if dataset.marked is not None:  # `fit` did not get these given labels, see `for_fit`
        table = table.with_given(dataset.marked, dataset.y)
    table = replace(table, ids=dataset.ids, index=None)

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

    # 4. Write.
    run.write_table("labels", table)
    run.write_table("history", history)
    run.write_arrays("gallery.npz", gallery(samples, table))
    if is_pudistill:
        write_held_out_labels(run, classifier)
        write_learned(run, classifier)
    run.write_model(classifier, dataset.feature_names)
    return metrics


def _results_of_pudistill(
    classifier: PUDistillClassifier, dataset: TrustedDataset, labels: Labels
) -> FitResults:
    metrics = own_metrics(classifier) | clean_set_metrics(classifier, dataset, labels)
    return FitResults(classifier.label_arrays_, classifier.filter_.history_, metrics)


def _results_of_other_method(
    classifier: Method, dataset: TrustedDataset, labels: Labels
) -> FitResults:
    """Return the results of another method; its predictions are the corrected labels."""
    estimates = {name: getattr(classifier, f"{name}_", None) for name in ESTIMATED}
    metrics = {name: value for name, value in estimates.items() if value is not None}
    X = dataset.X if classifier.encoder_ is None else classifier.encoder_.transform(dataset.X)
    texts = dataset.X if dataset.is_text else None
    labels = with_groups(labels, X, None, texts=texts, warn=False)  # copies are verified, too
    X, of_classes, no_class = split_off_no_class(X, labels)
    model = classifier.fitted_model
    outliers = find_outliers(X, of_classes.verified, model, no_class=no_class, seed=0)
    table = model_label_table(of_classes, predict_proba(model, X, labels.n_classes), outliers)
    table = table.with_no_class(labels, classifier.no_class_label)
    return FitResults(table, pd.DataFrame(columns=["class_name", *HISTORY_COLUMNS]), metrics)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
