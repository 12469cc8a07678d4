"""Classifiers and learners, built from settings."""

import importlib
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import SVC

from pudistill.classifier import PUDistillClassifier
from pudistill.exceptions import InputError
from pudistill.learners.capabilities import continues_training
from pudistill.learners.defaults import default_learner
from pudistill.learners.networks.names import PRETRAINED
from pudistill.methods.base import Method, NetworkMethod
from pudistill.methods.registry import METHODS, load_class
from pudistill.runs.settings import NETWORKS, Settings

# Names of the default learner, unless the samples are pictures.
DEFAULT_LEARNERS = ("auto", "logistic_regression")


def build_classifier(settings: Settings, X: np.ndarray) -> PUDistillClassifier | Method:
    """Build the classifier that the settings describe: `PUDistillClassifier` or another method.

    Parameters
    ----------
    settings : Settings
        Settings of a run.
    X : ndarray
        Samples, or some of them: the classifier depends on their shape.

    Returns
    -------
    classifier : PUDistillClassifier or Method
        The unfitted classifier.
    """
    if settings.method not in METHODS:
        return build_pudistill(settings, X)
    method = load_class(settings.method)
    needs_network = issubclass(method, NetworkMethod) and settings.learner == "auto"
    name = "mlp" if needs_network and X.ndim == 2 else settings.learner
    learner = _learner_or_none(name, settings.recipe, X)
    if issubclass(method, NetworkMethod) and not continues_training(learner):
        raise InputError(
            f"The method {settings.method} needs a network, and the learner {settings.learner} is "
            f"not one: choose one of {', '.join(NETWORKS)}, or auto."
        )
    parallel = {"n_jobs": settings.n_jobs} if "n_jobs" in method().get_params() else {}
    classifier = method(learner, random_state=settings.seed, **parallel)
    classifier.no_class_label = settings.no_class_label
    return classifier


def build_pudistill(settings: Settings, X: np.ndarray) -> PUDistillClassifier:
    """Build a `PUDistillClassifier`; a setting is passed as the parameter of the same name."""
    same_name = set(PUDistillClassifier().get_params(deep=False)) & set(Settings.model_fields)
    params = {name: getattr(settings, name) for name in same_name}
    params["tol"] = None if settings.all_iterations else settings.tol
    learner = _learner_or_none(settings.learner, settings.recipe, X)
    if settings.n_jobs is None:
        params["n_jobs"] = learners_at_once(learner)
    return PUDistillClassifier(learner, random_state=settings.seed, **params)


def _learner_or_none(name: str, recipe: str, X: Any) -> BaseEstimator | None:
    """Build a learner; None for the default one, whose regularisation the classifier chooses."""
    if name in DEFAULT_LEARNERS and X.ndim <= 2:
        return None
    return make_learner(name, recipe, X)


def learners_at_once(learner: Any) -> int | None:
    """Return joblib's `n_jobs`: one learner per core, and one network at a time on a GPU."""
    if not continues_training(learner):
        return -1
    from pudistill.learners.networks.hardware import choose_hardware

    return -1 if choose_hardware("auto", "auto", pictures=True).device.type == "cpu" else None


def make_learner(name: str, recipe: str, X: np.ndarray) -> BaseEstimator:
    """Build a learner by name.

    Parameters
    ----------
    name : str
        "auto", "logistic_regression", "svm", a network ("mlp", "small_cnn", "slim_resnet",
        "airbench", "preact_resnet18", or "transformers:NAME", a name on the Hugging Face hub or a
        folder), or
        ``package.module:Class`` for any scikit-learn-compatible classifier.
    recipe : str
        Recipe of a network's training: "fast", "slim" (for slim_resnet), "paper" or "clothing1m".
    X : ndarray
        Samples; their shape decides what "auto" stands for.

    Returns
    -------
    learner : classifier
        The unfitted learner.
    """
    is_network = name in NETWORKS or name.startswith(PRETRAINED)
    if is_network and name != "mlp" and X.ndim == 2:
        raise InputError(
            f"The learner {name} needs pictures, not feature tables: choose mlp, or a learner that "
            "is not a network."
        )
    if is_network or (name == "auto" and X.ndim > 2):
        from pudistill.learners.networks.classifier import TorchClassifier

        return TorchClassifier("auto" if name == "auto" else name, recipe=recipe)
    if X.ndim > 2:
        raise InputError(
            f"The learner {name} takes feature tables, not pictures: choose one of "
            f"{', '.join(NETWORKS[1:])}, or {PRETRAINED}NAME."
        )
    if name in DEFAULT_LEARNERS:
        return default_learner(X)
    if name == "svm":
        return make_pipeline(MinMaxScaler(), SVC(C=5))
    module_name, separator, class_name = name.partition(":")
    try:
        if not separator:
            raise AttributeError("there is no learner of that name")
        kind = getattr(importlib.import_module(module_name), class_name)
        is_learner = isinstance(kind, type) and issubclass(kind, BaseEstimator)
        # Settings from a file can name anything in scikit-learn: only learners are called.
        if module_name.startswith("sklearn.") and not is_learner:
            raise TypeError(f"{class_name} is not a class of a learner")
        learner = kind()
        if not is_classifier(learner):
            raise TypeError(f"{class_name} is not a scikit-learn classifier")
        return learner
    except (ImportError, AttributeError, TypeError) as error:
        known = ", ".join(["auto", "logistic_regression", "svm", *NETWORKS, f"{PRETRAINED}NAME"])
        raise InputError(
            f"The learner {name!r} cannot be used ({error}): choose one of {known}, or name a "
            "class as in sklearn.svm:SVC."
        ) from error
