"""Classifiers and learners, built from settings."""

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import SVC

from pudistill.classifier import PUDistillClassifier
from pudistill.data.encoding import is_texts
from pudistill.exceptions import InputError, torch_extra
from pudistill.learners.capabilities import continues_training, final_step
from pudistill.learners.defaults import default_learner
from pudistill.learners.networks.names import NAMES_OF_SIZES, PRETRAINED
from pudistill.methods.base import Method, NetworkMethod
from pudistill.methods.registry import METHODS, OURS, load_class
from pudistill.runs.settings import NETWORKS, Settings, imports_module

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
    if needs_network and X.ndim == 2:
        settings = settings.model_copy(update={"learner": "mlp"})
    learner = _learner_or_none(settings, X)
    if issubclass(method, NetworkMethod) and not continues_training(learner):
        choice = f"choose one of {', '.join(NETWORKS)}"
        if is_texts(X):
            choice = "choose transformers:NAME, or let a model compute features of the texts"
        elif settings.learner != "auto":
            choice += ", or auto"
        raise InputError(
            f"The method {settings.method} needs a network, and the learner {settings.learner} is "
            f"not one for these data: {choice}."
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
    learner = _learner_or_none(settings, X)
    learns_pictures = X.ndim > 2 and continues_training(learner)
    if settings.semi_supervised and not (settings.method == OURS and learns_pictures):
        raise InputError(
            "The setting semi_supervised is for networks that learn pictures by the default "
            "method: leave it out."
        )
    if settings.n_jobs is None:
        params["n_jobs"] = learners_at_once(learner)
    return PUDistillClassifier(learner, random_state=settings.seed, **params)


def _learner_or_none(settings: Settings, X: Any) -> BaseEstimator | None:
    """Build a learner; None for the default one, whose regularisation the classifier chooses."""
    if settings.learner in DEFAULT_LEARNERS and X.ndim <= 2:
        _refuse_network_settings(settings)
        return None
    return make_learner(settings, X)


def _refuse_network_settings(settings: Settings) -> None:
    """Raise `InputError` if a setting of networks was given for another learner."""
    for name in ("epochs", "batch_size", "device", "lora_rank"):
        if getattr(settings, name) != Settings.model_fields[name].default:
            raise InputError(
                f"The setting {name} is for networks, and the learner {settings.learner} is none: "
                f"leave it out, or choose one of {', '.join(NETWORKS)} or a network of your own."
            )


def learners_at_once(learner: Any) -> int | None:
    """Return joblib's `n_jobs`: one learner per core, and one network at a time on a GPU."""
    if not continues_training(learner):
        return -1
    from pudistill.learners.networks.hardware import choose_hardware

    device = final_step(learner).device
    return -1 if choose_hardware(device, "auto", is_table=False).device.type == "cpu" else None


def make_learner(settings: Settings, X: np.ndarray) -> BaseEstimator:
    """Build the learner that the settings describe.

    Parameters
    ----------
    settings : Settings
        The learner is "auto", "logistic_regression", "svm", a network ("mlp", "small_cnn",
        "slim_airbench", "airbench", "preact_resnet18", or "transformers:NAME", a name on the
        Hugging Face hub or a folder), or ``package.module:NAME`` for any scikit-learn-compatible
        classifier, or for a network of the user's own.
    X : ndarray
        Samples; their shape decides what "auto" stands for.

    Returns
    -------
    learner : classifier
        The unfitted learner.
    """
    name = settings.learner
    is_network = name in NETWORKS or name.startswith(PRETRAINED)
    if is_network and name != "mlp" and X.ndim == 2:
        raise InputError(
            f"The learner {name} needs pictures, not feature tables: choose mlp, or a learner that "
            "is not a network."
        )
    if is_network or (name == "auto" and X.ndim > 2):
        return _make_network(name, settings)
    own = _import_own(name) if ":" in name else None
    if _makes_network(own):
        return _make_network(own, settings)
    _refuse_network_settings(settings)
    if X.ndim > 2:
        raise InputError(
            f"The learner {name} takes feature tables, not pictures: choose one of "
            f"{', '.join(NETWORKS[1:])}, {PRETRAINED}NAME, or a network of your own."
        )
    if name in DEFAULT_LEARNERS:
        return default_learner(X)
    if name == "svm":
        return make_pipeline(MinMaxScaler(), SVC(C=5))
    try:
        if own is None:
            raise TypeError("there is no learner of that name")
        is_learner = isinstance(own, type) and issubclass(own, BaseEstimator)
        # Settings from a file can name anything in scikit-learn: only learners are called.
        if name.startswith("sklearn.") and not is_learner:
            raise TypeError(f"{name} is not a class of a learner")
        learner = own()
        if not is_classifier(learner):
            raise TypeError(f"{name} is neither a scikit-learn classifier nor a network")
        return learner
    except Exception as error:  # the user's class can raise anything
        raise _unusable(name, error) from error


def _make_network(module: Any, settings: Settings) -> BaseEstimator:
    with torch_extra():
        from pudistill.learners.networks.classifier import TorchClassifier

    return TorchClassifier(
        module,
        recipe=settings.recipe,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        device=settings.device,
        lora_rank=settings.lora_rank,
    )


def own_network(name: str) -> Any:
    """Import the user's network, or the class or function that makes it; None if it is none.

    Parameters
    ----------
    name : str
        A learner's name, which the user has given and no file.
    """
    own = _import_own(name) if imports_module(name) else None
    return own if _makes_network(own) else None


def _import_own(name: str) -> Any:
    """Import ``package.module:NAME``; the module can lie in the working directory."""
    module_name, _, attribute = name.partition(":")
    if imports_module(name) and (folder := str(Path.cwd())) not in sys.path:
        sys.path.append(folder)  # and stays: workers import the module, too
    try:
        own = getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:  # the user's module can raise anything
        raise _unusable(name, error) from error
    if hasattr(own, "forward") and not isinstance(own, type):
        raise InputError(
            f"The learner {name!r} is a network, of which a run cannot store where it came from: "
            "name the class, or a function that makes it."
        )
    return own


def _makes_network(own: Any) -> bool:
    """Return whether an object is a network or makes one; other callables make a learner."""
    if hasattr(own, "forward"):
        return True
    if hasattr(own, "fit") or not callable(own):
        return False
    try:
        parameters = inspect.signature(own).parameters.values()
    except ValueError:  # compiled code has none
        return False
    return any(
        parameter.kind == parameter.VAR_KEYWORD
        or parameter.name in NAMES_OF_SIZES
        or (parameter.default is parameter.empty and parameter.kind != parameter.VAR_POSITIONAL)
        for parameter in parameters
    )


def _unusable(name: str, error: BaseException) -> InputError:
    known = ", ".join(["auto", "logistic_regression", "svm", *NETWORKS, f"{PRETRAINED}NAME"])
    return InputError(
        f"The learner {name!r} cannot be used ({error}): choose one of {known}, name a class as in "
        "sklearn.svm:SVC, or a PyTorch network of the form Net(in_shape, n_classes)."
    )
