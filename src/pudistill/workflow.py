"""What the commands do: data in, a run folder out.

The command line parses and prints; everything in between is here, so that Python code can do the
same with `fit_run` and `Settings`.
"""

import importlib
import os
import platform
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, is_classifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import SVC

from pudistill.classifier import PUDistillClassifier
from pudistill.data import TrustedDataset, load_dataset
from pudistill.exceptions import InputError, as_input_error
from pudistill.features import (
    embedded,
    in_blocks,
    n_features,
    open_embedder,
    with_own_features,
)
from pudistill.learners import (
    PRETRAINED,
    Training,
    continues_training,
    default_learner,
    predict_proba,
    train,
)
from pudistill.methods.base import Method, NetworkMethod
from pudistill.methods.registry import METHODS, OURS, SYSTEMS, load_class
from pudistill.noise import corrupt_labels
from pudistill.progress import stage
from pudistill.pseudo_labels import one_hot
from pudistill.pu_filter import HISTORY
from pudistill.report.html import RunSummary, render
from pudistill.report.label_table import model_label_table
from pudistill.runs import Run
from pudistill.settings import NETWORKS, Settings
from pudistill.storage import check_storable
from pudistill.units import keeping
from pudistill.validation import MISSING, Labels, check_labels

# Pictures in the report: the surest changes, taking turns by pairs of labels, and the least sure.
GALLERY_SUREST, GALLERY_LEAST_SURE = 32, 16
ESTIMATED = ("noise_rate", "asymmetric", "blend")  # by other methods, from the data


def build_classifier(settings: Settings, X: np.ndarray) -> Any:
    """Build the classifier that the settings describe: ours, or another method's.

    Parameters
    ----------
    settings : Settings
        Settings of a run.
    X : ndarray
        Samples, or as few as show their shape.

    Returns
    -------
    classifier : PUDistillClassifier or Method
        Not yet fitted.
    """
    if settings.method not in METHODS:
        return build_pudistill(settings, X)
    method = load_class(settings.method)
    needs_network = issubclass(method, NetworkMethod) and settings.learner == "auto"
    name = "mlp" if needs_network and X.ndim == 2 else settings.learner
    learner = make_learner(name, settings.recipe, X)
    if issubclass(method, NetworkMethod) and not continues_training(learner):
        raise InputError(
            f"The method {settings.method} trains networks, and the learner {settings.learner} is "
            f"none: choose one of {', '.join(NETWORKS)}, or auto."
        )
    parallel = {"n_jobs": settings.n_jobs} if "n_jobs" in method().get_params() else {}
    return method(learner, random_state=settings.seed, **parallel)


def build_pudistill(settings: Settings, X: np.ndarray) -> PUDistillClassifier:
    """Build our classifier; settings and parameters of the same name are the same."""
    same_name = set(PUDistillClassifier().get_params(deep=False)) & set(Settings.model_fields)
    params = {name: getattr(settings, name) for name in same_name}
    params["tol"] = None if settings.all_iterations else settings.tol
    learner = make_learner(settings.learner, settings.recipe, X)
    if settings.n_jobs is None:
        params["n_jobs"] = learners_at_once(learner)
    return PUDistillClassifier(learner, random_state=settings.seed, **params)


def learners_at_once(learner: Any) -> int | None:
    """Choose joblib's `n_jobs`: one learner per core, but networks on a GPU one by one."""
    if not continues_training(learner):
        return -1
    from pudistill.learners.training import choose_hardware

    return -1 if choose_hardware("auto", "auto", pictures=True).device.type == "cpu" else None


def make_learner(name: str, recipe: str, X: np.ndarray) -> BaseEstimator:
    """Build a learner from its name.

    Parameters
    ----------
    name : str
        "auto", "logistic_regression", "svm", a network ("mlp", "small_cnn",
        "airbench", "preact_resnet18", or "transformers:NAME" for one of the hub or a folder), or
        ``package.module:Class`` for any scikit-learn-compatible classifier.
    recipe : str
        How networks are trained.
    X : ndarray
        Samples, which decide what "auto" is.

    Returns
    -------
    learner : classifier
        The learner.
    """
    is_network = name in NETWORKS or name.startswith(PRETRAINED)
    if is_network and name != "mlp" and X.ndim == 2:
        raise InputError(
            f"The learner {name} needs pictures, not feature tables: choose mlp, or a learner that "
            "is not a network."
        )
    if is_network or (name == "auto" and X.ndim > 2):
        from pudistill import TorchClassifier

        return TorchClassifier("auto" if name == "auto" else name, recipe=recipe)
    if X.ndim > 2:
        raise InputError(
            f"The learner {name} takes feature tables, not pictures: choose one of "
            f"{', '.join(NETWORKS[1:])}, or {PRETRAINED}NAME."
        )
    if name in ("auto", "logistic_regression"):
        return default_learner(X)
    if name == "svm":
        return make_pipeline(MinMaxScaler(), SVC(C=5))
    module_name, separator, class_name = name.partition(":")
    try:
        if not separator:
            raise AttributeError("there is no learner of that name")
        learner = getattr(importlib.import_module(module_name), class_name)()
        if not is_classifier(learner):
            raise TypeError(f"{class_name} is no scikit-learn classifier")
        return learner
    except (ImportError, AttributeError, TypeError) as error:
        known = ", ".join(["auto", "logistic_regression", "svm", *NETWORKS, f"{PRETRAINED}NAME"])
        raise InputError(
            f"The learner {name!r} cannot be used ({error}): choose one of {known}, or name a "
            "class as in sklearn.svm:SVC."
        ) from error


def load_data(settings: Settings) -> tuple[TrustedDataset, TrustedDataset | None]:
    """Read training and test data, and put noise in if the settings ask for it."""
    own = settings.own_features
    options = settings.read_options() | {"samples_required": own is None}
    dataset = load_dataset(settings.data, trusted=settings.trusted, **options)
    if own is not None:
        dataset = with_own_features(dataset, own)
    if dataset.is_text and settings.features is None:
        raise InputError(
            f"{settings.data} holds texts, and learners need numbers: name a model that embeds "
            "them, such as --features sentence-transformers/all-MiniLM-L6-v2, or remove the column "
            "of texts."
        )
    test = None
    if settings.test_data is not None:
        test = load_dataset(settings.test_data, columns_required=False, **options)
        if settings.test_features is not None:
            test = with_own_features(test, Path(settings.test_features))
    elif settings.test_fraction is not None:
        dataset, test = dataset.holdout(settings.test_fraction, settings.seed)
    if settings.noise is not None:
        dataset = with_noise(
            dataset, settings.noise, settings.level, settings.trusted_fraction, settings.seed
        )
    dataset.require_trusted()
    if test is not None:
        test = like_training_data(
            _labelled(test), dataset.X.shape[1:], dataset.feature_names, dataset.classes
        )
    return dataset, test


def _labelled(test: TrustedDataset) -> TrustedDataset:
    """Keep test samples that have a label: the verified one or, without it, the given one."""
    test = replace(test, y=np.where(test.trusted, test.verified, test.y))
    return test.take(np.array([label is not None for label in test.y]))


def load_embedder(settings: Settings, dataset: TrustedDataset) -> Any:
    """Load the model that computes features; None if there is none to compute."""
    if settings.features is None or settings.own_features is not None:
        return None
    return open_embedder(settings.features, dataset)


def features_folder(settings: Settings, run: Run) -> Path:
    """Return the folder that keeps the features a model computed."""
    if settings.features_cache is None:
        return run.units.folder
    return Path(settings.features_cache)


def with_noise(
    dataset: TrustedDataset,
    kind: Any,
    level: float,
    trusted_fraction: float,
    seed: int,
    *,
    class_map: Mapping[Any, Any] | None = None,
) -> TrustedDataset:
    """Draw trusted samples from a data set with right labels, and corrupt the others' labels.

    Trusted samples get noisy given labels too, beside their verified ones, as if somebody had
    verified a part of a noisy data set.
    """
    if kind == "instance" and dataset.is_text:
        raise InputError(
            f"Noise of kind instance depends on numeric features, and {dataset.name} holds texts: "
            "choose another kind."
        )
    right = dataset.y if dataset.true_labels is None else dataset.true_labels
    rng = np.random.default_rng([seed, 0])
    trusted = np.zeros(len(dataset), dtype=bool)
    for name in dataset.classes:
        rows = np.flatnonzero(right == name)
        n_trusted = max(1, round(trusted_fraction * len(rows)))
        trusted[rng.choice(rows, n_trusted, replace=False)] = True
    # The trusted samples, whole numbers by class, are not exactly the fraction. Compute with the
    # fraction as set, or 90 % noise beside 10 % trusted samples would be impossible.
    possible = level + trusted_fraction <= 1 + 1e-9
    corrupted = corrupt_labels(
        right,
        kind,
        min(1, level / (1 - trusted_fraction)) if possible else level,
        share_of="noisy" if possible else "all",
        trusted=trusted,
        X=dataset.X if kind == "instance" else None,
        class_map=class_map if kind == "asymmetric" else None,
        random_state=seed,
    )
    verified = np.full(len(dataset), None, dtype=object)
    verified[trusted] = right[trusted]
    return replace(
        dataset,
        y=corrupted.would_be,
        trusted=trusted,
        verified=verified,
        true_labels=right,
        marked=None,
    )


def about_features(embedder: Any, dataset: TrustedDataset) -> dict[str, Any]:
    """Describe the features and the model that computed them, for ``metrics.json``."""
    return {
        "model": embedder.name,
        "checksum": embedder.checksum,
        "made_of": embedder.kind,
        "n_features": dataset.X.shape[1],
    }


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
            dataset = embedded(dataset, embedder, cache)
            test = None if test is None else embedded(test, embedder, cache)
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
    with _timed(seconds, "training"), as_input_error(), keeping(run.units):
        classifier.fit(dataset.X, y, trusted)
    found = {name: getattr(classifier, f"{name}_", None) for name in ESTIMATED}
    metrics = {name: value for name, value in found.items() if value is not None}
    table = model_label_table(labels, classifier.predict_proba(dataset.X))
    return Learned(table, pd.DataFrame(columns=["class_name", *HISTORY]), metrics)


def label_metrics(table: pd.DataFrame, dataset: TrustedDataset, labels: Labels) -> dict[str, Any]:
    """Return counts of the label table and, if the true labels are known, its accuracy."""
    metrics: dict[str, Any] = {
        "n_samples": len(table),
        "n_trusted": int(table["trusted"].sum()),
        "n_classes": labels.n_classes,
        "n_changed": int(table["changed"].sum()),
        "sources": table["source"].value_counts().to_dict(),
        "classes": list(dataset.classes),
        "skipped": [f"{name}: {reason}" for name, reason in dataset.skipped],
    }
    if dataset.true_labels is not None:
        noisy = ~labels.trusted
        right = (table["label"] == dataset.true_labels).to_numpy()
        metrics["label_accuracy"] = {
            "given": float((table["given"] == dataset.true_labels)[noisy].mean()),
            "corrected": float(right[noisy].mean()),
        }
    return metrics


def own_metrics(
    classifier: PUDistillClassifier, dataset: TrustedDataset, labels: Labels
) -> dict[str, Any]:
    """Return what only our classifier estimates: noise, expected accuracy, settings it chose."""
    metrics: dict[str, Any] = {
        "n_conflicts": classifier.filter_.n_conflicts_,
        "filter_settings": _filter_settings(classifier),
    }
    if classifier.noise_ is not None and classifier.comparison_ and classifier.adapted_:
        comparison, expected = classifier.comparison_, classifier.expected_accuracy_
        if np.isfinite(classifier.noise_.rate):  # else there is no given label to speak of
            metrics["noise"] = classifier.noise_.to_dict()
        metrics["adapted"] = {name: round(value, 3) for name, value in classifier.adapted_.items()}
        metrics["comparison"] = {
            "shipped": comparison.shipped,
            "why": comparison.why,
            "target": "held-out trusted samples",
            "n": 0 if expected is None else expected.n,
            "candidates": comparison.candidates,
        }
        if expected is not None:
            metrics["expected_accuracy"] = asdict(expected)
    if dataset.true_labels is not None:
        clean = classifier.filter_.clean_labels_
        found = ~labels.trusted & (clean != MISSING)
        well_found = labels.classes[clean] == dataset.true_labels
        metrics["clean_set"] = {
            "size": int(found.sum()),
            "precision": float(well_found[found].mean()) if found.any() else None,
        }
    return metrics


def _filter_settings(classifier: PUDistillClassifier) -> list[dict[str, Any]]:
    settings = classifier.filter_.settings_
    records = settings.astype(object).where(settings.notna(), None).to_dict("records")
    return [
        {str(name): value for name, value in record.items()}
        | {"class_name": str(record["class_name"])}
        for record in records
    ]


class Accuracy(NamedTuple):
    """A test accuracy, in a form that `Units` stores."""

    accuracy: np.ndarray


def reference_accuracy(
    learner: Any,
    X: Any,
    targets: np.ndarray,
    X_test: Any,
    y_test: np.ndarray,
    seed: int,
    rows: np.ndarray | None = None,
) -> Accuracy:
    """Train a learner on other targets than the student's, and test it.

    Parameters
    ----------
    learner : classifier
        The learner.
    X, X_test : samples
        Training and test samples.
    targets : ndarray of shape (n_rows, n_classes)
        Rows that sum to 1.
    y_test : ndarray of shape (n_test,), int
        Classes of the test samples.
    seed : int
        Decides the training.
    rows : ndarray of shape (n_rows,), int, default=None
        Which of `X` to learn from; all by default.

    Returns
    -------
    accuracy : Accuracy
        Share of right predictions; of a network after the last epoch.
    """
    fitted = train(Training(learner, X, targets, rows=rows, role="student", seed=seed))
    prediction = predict_proba(fitted, X_test, targets.shape[1]).argmax(axis=1)
    return Accuracy(np.mean(prediction == y_test))


def test_accuracy(
    run: Run,
    settings: Settings,
    classifier: Any,
    dataset: TrustedDataset,
    test: TrustedDataset,
    labels: Labels,
) -> dict[str, float]:
    """Test the classifier, and the same learner trained on given, trusted or true labels."""
    codes = {name: code for code, name in enumerate(labels.classes)}
    y_test = np.array([codes[name] for name in test.y])
    corrected = np.where(labels.trusted, labels.verified, labels.given)
    candidates = {
        "given_labels": corrected,
        "trusted_only": labels.verified,
    }
    if dataset.true_labels is not None:
        candidates["true_labels"] = np.array([codes[name] for name in dataset.true_labels])
    reference = run.units.cache(reference_accuracy)
    accuracy: dict[str, float] = {}
    with stage("comparison", len(candidates) if settings.compare else 0) as advance:
        for name, y in candidates.items() if settings.compare else ():
            known = np.flatnonzero(y != MISSING)
            targets = one_hot(y[known], labels.n_classes)
            result = reference(
                classifier.estimator,
                dataset.X,
                targets,
                test.X,
                y_test,
                settings.seed,
                known,
            )
            accuracy[name] = float(result.accuracy)
            advance(1, detail=name.replace("_", " "))
    own = settings.method if settings.method in METHODS else OURS
    accuracy[own] = float(np.mean(classifier.predict(test.X) == test.y))
    return {name: accuracy[name] for name in SYSTEMS if name in accuracy}


def gallery(dataset: TrustedDataset, table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Choose pictures of changed samples for the report."""
    pictures = _pictures(dataset)
    changed = table[table["changed"] & ~table["trusted"]]
    if pictures is None or changed.empty:
        return {}
    surest = changed.sort_values("confidence", ascending=False, kind="stable")
    turn = surest.groupby(["given", "label"]).cumcount()
    alternating = turn.sort_values(kind="stable").index
    least_sure = surest.index[::-1][:GALLERY_LEAST_SURE]
    chosen = alternating[:GALLERY_SUREST].union(least_sure, sort=False)
    rows = table.index.get_indexer(chosen)
    return {"ids": dataset.ids[rows].astype(str), "pictures": np.asarray(pictures[rows])}


def _pictures(dataset: TrustedDataset) -> np.ndarray | None:
    """Return the pictures; features named ``pixel_<row>_<column>`` make pictures, too."""
    if dataset.is_pictures:
        return dataset.X
    if dataset.pictures is not None:
        return dataset.pictures
    grid = _grid(dataset.feature_names)
    names = [f"pixel_{i}_{j}" for i, j in np.ndindex(*grid)]
    if not names or tuple(names) != dataset.feature_names:
        return None
    brightest = max(float(dataset.X.max()), 1e-9)
    grey = (255 / brightest * np.clip(dataset.X, 0, None)).astype(np.uint8)
    return grey.reshape(-1, *grid)


def _grid(names: Sequence[str] | None) -> tuple[int, int]:
    """Return height and width, if the last feature is named as a picture's last pixel."""
    last = re.fullmatch(r"pixel_(\d{1,4})_(\d{1,4})", names[-1]) if names else None
    return (int(last[1]) + 1, int(last[2]) + 1) if last else (0, 0)


def write_report(run: Run) -> Path:
    """Write ``report.html`` of a finished run again, and return its path."""
    run.write_bytes("report.html", render(summarise(run, run.read_json("metrics.json"))).encode())
    return run.path / "report.html"


def summarise(run: Run, metrics: dict[str, Any]) -> RunSummary:
    """Collect the contents of the report from the files of a run.

    Parameters
    ----------
    run : Run
        A run with its tables.
    metrics : dict
        The contents of ``metrics.json``, which need not be written yet.

    Returns
    -------
    summary : RunSummary
        The summary.
    """
    settings = run.read_config()
    gallery = run.read_arrays("gallery.npz")
    history = run.read_table("history")
    notes = [*metrics["warnings"], *(f"Skipped {line}." for line in metrics["skipped"])]
    return RunSummary(
        title=f"pudistill: {Path(settings['data']).name}",
        labels=run.read_table("labels"),
        history=history,
        metrics=metrics,
        settings=settings,
        classes=metrics["classes"],
        pictures=dict(zip(gallery.get("ids", ()), gallery.get("pictures", ()), strict=True)),
        notes=notes,
    )


def predict_run(
    run: Run, source: str, *, features: str | None = None, skip_bad: bool = False
) -> pd.DataFrame:
    """Predict the classes of new samples with the model of a run.

    Parameters
    ----------
    run : Run
        A finished run.
    source : str
        Samples in any form that `load_dataset` reads; labels are not needed. If a model computed
        the features of the run's samples, it computes theirs, too.
    features : str, optional
        File with their features, if the run was fitted on the user's own; see `with_own_features`.
    skip_bad : bool, default=False
        Leave out unreadable pictures.

    Returns
    -------
    predictions : DataFrame
        Columns ``id``, ``label`` and ``confidence``.

    Raises
    ------
    InputError
        If the samples' shape, features or classes are not those that the run was fitted on.
    """
    settings = Settings.read(run.read_config())
    _check_own_features(settings, features)
    classifier = run.read_model()
    options = settings.read_options() | {"skip_bad": skip_bad, "lazy": False}
    dataset = load_dataset(
        source,
        samples_required=features is None,
        labels_required=False,
        columns_required=False,
        **options,
    )
    if features is not None:
        dataset = with_own_features(dataset, Path(features))
    embedder = load_embedder(settings, dataset)
    if embedder is None:
        proba = _predict_proba(classifier, dataset)
    else:
        _check_same_model(run, embedder)
        like_training_data(dataset, dataset.X.shape[1:], None, classifier.classes_)
        parts = [classifier.predict_proba(block) for block in in_blocks(embedder, dataset.X)]
        proba = np.concatenate(parts)
    return pd.DataFrame(
        {
            "id": dataset.ids,
            "label": classifier.classes_[proba.argmax(axis=1)],
            "confidence": proba.max(axis=1),
        }
    )


def _predict_proba(classifier: Any, dataset: TrustedDataset) -> np.ndarray:
    """Predict for samples of the training data's kind; grey pictures may stand for colour ones."""
    shape = classifier._picture_shape
    if shape is not None and len(shape) == 3 and dataset.X.ndim == 3:
        dataset = replace(dataset, X=dataset.X[..., None][..., [0] * shape[2]])
    dataset = like_training_data(
        dataset,
        shape or (classifier.n_features_in_,),
        getattr(classifier, "feature_names_in_", None),
        classifier.classes_,
    )
    X: Any = dataset.X
    if hasattr(classifier, "feature_names_in_") and dataset.feature_names is not None:
        X = pd.DataFrame(X, columns=list(dataset.feature_names))
    return classifier.predict_proba(X)


def _check_own_features(settings: Settings, features: str | None) -> None:
    """Raise `InputError` if only one of run and new samples has features of the user's own."""
    if settings.own_features is not None and features is None:
        raise InputError(
            f"The run was fitted on your own features, {settings.features}: give those of the new "
            "samples with --features."
        )
    if settings.own_features is None and features is not None:
        raise InputError(
            "The run was not fitted on features of your own: leave --features out. "
            + (
                "It takes the samples as they are."
                if settings.features is None
                else f"The model {settings.features} computes the features of new samples."
            )
        )


def _check_same_model(run: Run, embedder: Any) -> None:
    """Raise `InputError` if the embedding model is not the one that the run was fitted with."""
    about = run.read_json("metrics.json")["features"]
    if about["made_of"] != embedder.kind:
        raise InputError(
            f"The run in {run.path} was fitted on {about['made_of']}, and these are "
            f"{embedder.kind}: give samples of the same kind."
        )
    if about["checksum"] != embedder.checksum:
        raise InputError(
            f"The model {embedder.name} has changed since {run.path} was fitted with it: restore "
            "the old version, or fit again."
        )


def like_training_data(
    dataset: TrustedDataset, shape: Sequence[int], names: Sequence[str] | None, classes: Any
) -> TrustedDataset:
    """Put columns in the order of the training data; raise `InputError` if samples do not fit.

    Parameters
    ----------
    dataset : TrustedDataset
        Samples to test on, or to predict.
    shape : sequence of int
        Shape of one training sample.
    names : sequence of str, or None
        The training data's columns.
    classes : sequence of str
        The training data's classes.

    Returns
    -------
    dataset : TrustedDataset
        The same samples.
    """
    if names is not None and dataset.feature_names is not None:
        missing = [name for name in names if name not in dataset.feature_names]
        if missing:
            raise InputError(
                f"{dataset.name} lacks the column {missing[0]!r} of the training data: add it."
            )
        surplus = [name for name in dataset.feature_names if name not in names]
        if surplus:
            raise InputError(
                f"{dataset.name} has the column {surplus[0]!r}, which the training data do not "
                "have: remove it."
            )
        order = [dataset.feature_names.index(name) for name in names]
        dataset = replace(dataset, X=dataset.X[:, order], feature_names=tuple(names))
    if dataset.X.shape[1:] != tuple(shape):
        raise InputError(
            f"Each sample of {dataset.name} has shape {dataset.X.shape[1:]}, but those of the "
            f"training data have {tuple(shape)}: give samples of the same kind."
        )
    unknown = sorted(set(dataset.classes) - set(classes))
    if unknown:
        raise InputError(
            f"{dataset.name} has labels of class {unknown[0]!r}, which the training data do not "
            "have: correct or remove them."
        )
    return dataset


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start


def versions() -> dict[str, str]:
    """Return the versions of Python and of the imported packages that results depend on."""
    used = [name for name in ("pudistill", "numpy", "sklearn", "torch") if name in sys.modules]
    return {"python": platform.python_version()} | {
        name: sys.modules[name].__version__ for name in used
    }


def machine() -> dict[str, Any]:
    """Return the processor, the accelerator if there is one, and the number of cores."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    device = names[0] if names else platform.processor()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        device = f"{torch.cuda.get_device_name()} and {device}"
    return {"device": device, "cores": os.cpu_count()}
