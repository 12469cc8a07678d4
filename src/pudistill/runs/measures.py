"""The metrics of a run: counts of labels, estimates, and accuracy on test samples."""

from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pudistill.classifier import PUDistillClassifier
from pudistill.data.dataset import TrustedDataset
from pudistill.distillation.noise_estimate import NOTHING
from pudistill.labels.checks import MISSING, Labels
from pudistill.labels.pseudo_labels import one_hot
from pudistill.labels.table import SOURCES, LabelTable
from pudistill.learners.defaults import default_learner
from pudistill.learners.scoring import predict_proba
from pudistill.learners.tasks import Training, train
from pudistill.methods.registry import METHODS, OURS, SYSTEMS
from pudistill.runs.certificates import certificate_metrics
from pudistill.runs.folder import Run
from pudistill.runs.settings import Settings
from pudistill.utils.progress import stage


def table_metrics(table: LabelTable, classes: list[str]) -> dict[str, Any]:
    """Return counts from the label table."""
    n_by_source = pd.Series(table.source).value_counts()
    sources = [SOURCES[source] for source in n_by_source.index.to_numpy()]
    return {
        "n_samples": len(table),
        "n_trusted": int(table.trusted.sum()),
        "n_classes": len(classes),
        "n_changed": int(table.changed.sum()),
        "n_outliers": int((table.outlier & ~table.trusted).sum()),
        "sources": dict(zip(sources, n_by_source.tolist(), strict=True)),
        "classes": classes,
    }


def label_metrics(table: LabelTable, dataset: TrustedDataset, labels: Labels) -> dict[str, Any]:
    """Return counts from the label table and, if the true labels are known, its accuracy."""
    metrics = table_metrics(table, list(dataset.classes))
    metrics["n_classes"] = labels.n_classes
    metrics["skipped"] = [f"{name}: {reason}" for name, reason in dataset.skipped]
    if dataset.true_labels is not None:
        noisy = ~(labels.trusted | labels.no_class)
        true = dataset.true_labels[noisy]
        metrics["label_accuracy"] = {
            "given": float((table.given_names()[noisy] == true).mean()),
            "corrected": float((table.label_names()[noisy] == true).mean()),
        }
    return metrics


def own_metrics(classifier: PUDistillClassifier) -> dict[str, Any]:
    """Return the estimates of `PUDistillClassifier`: noise, expected accuracy, chosen settings."""
    metrics: dict[str, Any] = {}
    if hasattr(classifier, "filter_"):
        metrics["n_conflicts"] = classifier.filter_.n_conflicts_
        metrics["filter_settings"] = _filter_settings(classifier)
    cut_short = getattr(classifier, "cut_short_", [])
    if cut_short or classifier.time_limit is not None:
        metrics["cut_short"] = cut_short
    expected = classifier.expected_accuracy_
    if (noise := classifier.noise_) is not None:
        name = "noise" if noise.basis != NOTHING else "unknown_noise"  # not reported
        metrics[name] = noise.to_dict()
    if classifier.adapted_:
        metrics["adapted"] = {name: round(value, 3) for name, value in classifier.adapted_.items()}
    if (comparison := classifier.comparison_) is not None:
        metrics["comparison"] = {
            "shipped": comparison.shipped,
            "why": comparison.why,
            "target": "held-out trusted samples",
            "n": 0 if expected is None else expected.n,
            "candidates": comparison.candidates,
        }
    if expected is not None:
        metrics["expected_accuracy"] = asdict(expected)
    if classifier.label_accuracy_ is not None:
        metrics["expected_label_accuracy"] = asdict(classifier.label_accuracy_)
    if (classes := classifier.class_accuracy_) is not None:
        named = classes.rename(index=str).rename_axis("class_name").reset_index()
        metrics["class_accuracy"] = named.to_dict("records")
    if (certificates := certificate_metrics(classifier)) is not None:
        metrics["certificates"] = certificates
    return metrics


def clean_set_metrics(
    classifier: PUDistillClassifier, dataset: TrustedDataset, labels: Labels
) -> dict[str, Any]:
    """Return size and precision of the clean set, if the true labels are known."""
    if dataset.true_labels is None:
        return {}
    clean = classifier.filter_.clean_labels_
    kept = ~labels.no_class  # samples of no class are in no clean set
    added = ~labels.trusted[kept] & (clean != MISSING)
    is_right = labels.classes[clean] == dataset.true_labels[kept]
    precision = float(is_right[added].mean()) if added.any() else None
    return {"clean_set": {"size": int(added.sum()), "precision": precision}}


def _filter_settings(classifier: PUDistillClassifier) -> list[dict[str, Any]]:
    settings = classifier.filter_.settings_
    records = settings.astype(object).where(settings.notna(), None).to_dict("records")
    return [
        {str(name): value for name, value in record.items()}
        | {"class_name": str(record["class_name"])}
        for record in records
    ]


class Accuracy(NamedTuple):
    """A test accuracy, in a form that `StageCache` can store."""

    accuracy: np.ndarray


def reference_accuracy(
    learner: Any,
    X: Any,
    targets: np.ndarray,
    X_test: Any,
    y_test: np.ndarray,
    seed: int,
    rows: np.ndarray | None = None,
    weight: np.ndarray | None = None,
) -> Accuracy:
    """Train a copy of a learner on given targets, and test it.

    Parameters
    ----------
    learner : classifier
        An unfitted learner.
    X, X_test : samples
        Training and test samples.
    targets : ndarray of shape (n_rows, n_classes)
        Targets of the training samples; rows sum to 1.
    y_test : ndarray of shape (n_test,), int
        Classes of the test samples.
    seed : int
        Seed of the training.
    rows : ndarray of shape (n_rows,), int, default=None
        Rows of `X` to train on; all by default.
    weight : ndarray of shape (n_test,), default=None
        Weights of the test samples; None: all weigh the same.

    Returns
    -------
    accuracy : Accuracy
        Share of right predictions, for a network after the last epoch.
    """
    fitted = train(Training(learner, X, targets, rows=rows, role="student", seed=seed))
    prediction = predict_proba(fitted, X_test, targets.shape[1]).argmax(axis=1)
    return Accuracy(np.average(prediction == y_test, weights=weight))


def test_accuracy(
    run: Run,
    settings: Settings,
    classifier: Any,
    dataset: TrustedDataset,
    test: TrustedDataset,
    labels: Labels,
) -> dict[str, float]:
    """Return test accuracies: of the classifier, and of references unless `compare` is off.

    The references are its learner trained on the given, the trusted and, if known, the true labels.
    """
    codes = {name: code for code, name in enumerate(labels.classes)}
    y_test = np.array([codes[name] for name in test.y])
    references = {
        "given_labels": np.where(labels.trusted | labels.no_class, labels.verified, labels.given),
        "trusted_only": labels.verified,
    }
    if dataset.true_labels is not None:
        references["true_labels"] = np.array(
            [codes.get(name, MISSING) for name in dataset.true_labels]
        )
    # Test samples can be a part of the verified ones.
    weight = None if test.draws is None else test.draws.weight
    weighted = {} if weight is None else {"weight": weight}
    cached_accuracy = run.units.cache(reference_accuracy)
    learner, X, X_test = classifier.estimator, dataset.X, test.X
    if settings.compare and classifier.encoder_ is not None:
        X, X_test = (classifier.encoder_.transform(samples) for samples in (X, X_test))
    if learner is None:
        learner = default_learner(X, encoded=classifier.encoder_ is not None)
    accuracy: dict[str, float] = {}
    if not settings.compare:
        references = {}
    with stage("accuracy", len(references)) as advance:
        for name, y in references.items():
            known = np.flatnonzero(y != MISSING)
            targets = one_hot(y[known], labels.n_classes)
            result = cached_accuracy(
                learner, X, targets, X_test, y_test, settings.seed, known, **weighted
            )
            accuracy[name] = float(result.accuracy)
            advance(1, detail=name.replace("_", " "))
    own = settings.method if settings.method in METHODS else OURS
    accuracy[own] = float(np.average(classifier.predict(test.X) == test.y, weights=weight))
    return {name: accuracy[name] for name in SYSTEMS if name in accuracy}
