"""How each system is fitted and scored under noise.

Work that reads no noisy label (filter and teachers, a model of the trusted samples) is done once
for all noise settings.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from pudistill.distillation.network_student import train_semi_supervised
from pudistill.distillation.self_training import train_on_labels
from pudistill.distillation.views import View
from pudistill.exceptions import InputError
from pudistill.experiments.evaluation import (
    Evaluator,
    FitAndScore,
    NoisyDataset,
    Prepare,
    class_codes,
)
from pudistill.labels.checks import MISSING
from pudistill.learners.cache import caching_to
from pudistill.learners.capabilities import continues_training
from pudistill.methods.registry import METHODS, OURS
from pudistill.runs.classifiers import build_classifier, build_pudistill
from pudistill.runs.settings import Settings


def given_labels(evaluator: Evaluator) -> FitAndScore:
    """Train the learner on the given labels, but on the verified labels of trusted samples."""
    return lambda noisy: evaluator.learner_accuracy(noisy.known_labels)


def trusted_only(evaluator: Evaluator) -> FitAndScore:
    """Train the learner on the trusted samples only."""
    return lambda noisy: evaluator.learner_accuracy(evaluator.clean.verified)  # noqa: ARG005


def semi_supervised(evaluator: Evaluator) -> FitAndScore:
    """Train the learner on the trusted pictures, and on all others without a label."""
    clean, learner, seed = evaluator.clean, evaluator.learner, evaluator.settings.seed
    check_semi_supervised(learner, clean.X)
    verified = class_codes(clean.verified, clean.classes)
    view = View(verified, np.full(len(verified), MISSING), np.arange(0))

    def fit_and_score(_: NoisyDataset) -> float:
        with caching_to(evaluator.stages):
            n_classes = len(clean.classes)
            trusted_only = train_on_labels(learner, clean.X, verified, n_classes, seed)
            network = train_semi_supervised(trusted_only, clean.X, view, n_classes, seed)
        return evaluator.networks_accuracy([network])

    return fit_and_score


def check_semi_supervised(learner: Any, X: Any) -> None:
    """Raise `InputError` if a learner cannot learn from samples without labels."""
    if not (X.ndim > 2 and continues_training(learner)):
        raise InputError("semi_supervised needs pictures and a network: leave this method out.")


def true_labels(evaluator: Evaluator) -> FitAndScore:
    """Train the learner on all true labels: the ceiling."""
    labels = evaluator.clean.true_labels
    if labels is None:
        raise InputError("true_labels needs data with known true labels: leave this method out.")
    return lambda noisy: evaluator.learner_accuracy(labels)  # noqa: ARG005


def pudistill(evaluator: Evaluator) -> FitAndScore:
    """Fit `PUDistillClassifier` with its default settings."""
    return distilled(evaluator, evaluator.settings)


def paper(evaluator: Evaluator) -> FitAndScore:
    """Fit the paper's method, with one λ and η for all levels."""
    return distilled(evaluator, evaluator.settings_for("paper"))


def distilled(
    evaluator: Evaluator,
    settings: Settings,
    *,
    student_params: Callable[[NoisyDataset], dict[str, Any]] | None = None,
    **params: Any,
) -> FitAndScore:
    """Fit filter and teachers of `PUDistillClassifier` once, and a student per noise setting.

    Parameters
    ----------
    evaluator : Evaluator
        Data and settings that all systems share.
    settings : Settings
        The classifier's settings.
    student_params : callable, default=None
        Takes the noisy data set, returns parameters of the classifier for its student, by which an
        experiment can reveal the noise level.
    **params
        Parameters of the classifier that are not settings.

    Returns
    -------
    fit_and_score : callable
        Takes a noisy data set, returns the student's test accuracy.
    """
    clean = evaluator.clean
    classifier = build_pudistill(settings, clean.X).set_params(memory=evaluator.stages, **params)
    eval_set = evaluator.test.X if evaluator.tracks_epochs and settings.method == "paper" else None
    classifier.fit_teachers(clean.X, clean.y, clean.verified, eval_set=eval_set)
    if evaluator.n_jobs(OURS) != 1:  # several noise settings run at once, each on one core
        classifier.set_params(n_jobs=None)

    def fit_and_score(noisy: NoisyDataset) -> float:
        if student_params is not None:
            classifier.set_params(**student_params(noisy))
        classifier.fit_student(noisy.dataset.X, noisy.dataset.y, noisy.dataset.verified)
        return evaluator.classifier_accuracy(classifier)

    return fit_and_score


def fitted_per_noise(method: str) -> Prepare:
    """Return how to prepare a method of the registry, which is fitted for each noise setting."""

    def prepare(evaluator: Evaluator) -> FitAndScore:
        settings = evaluator.settings_for(method)

        def fit_and_score(noisy: NoisyDataset) -> float:
            X, y, verified = noisy.dataset.X, noisy.dataset.y, noisy.dataset.verified
            return evaluator.classifier_accuracy(build_classifier(settings, X).fit(X, y, verified))

        return fit_and_score

    return prepare


PREPARE: dict[str, Prepare] = {
    "given_labels": given_labels,
    "trusted_only": trusted_only,
    "semi_supervised": semi_supervised,
    **{method: fitted_per_noise(method) for method in METHODS},
    "paper": paper,
    OURS: pudistill,
    "true_labels": true_labels,
}
"""How to prepare each system that a curve can compare."""
