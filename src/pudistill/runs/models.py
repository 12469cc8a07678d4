"""The files of a fitted classifier: what is written, and how it is read again."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from sklearn.base import clone

from pudistill.exceptions import InputError
from pudistill.learners.calibration import Temperature
from pudistill.learners.scoring import Mixture, take
from pudistill.learners.storage import (
    Stored,
    dump,
    is_network,
    restore,
    suffix_of,
    unknown_types,
)

if TYPE_CHECKING:
    from pudistill.learners.base import NoisyLabelClassifier

ENCODER = "encoder.skops"  # the encoder of texts and mixed tables
CHANGES_NO_RESULT = ("verbose", "memory")  # parameters that are not stored
LARGEST_CLASS_LABEL = 16  # bytes of a number


class NotStored:
    """Stands for a parameter that the files do not hold, such as a learner; `fit` says so.

    Parameters
    ----------
    name : str
        Name of the parameter.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name} is not stored>"

    @property
    def fit(self) -> NoReturn:
        """Raise an `InputError`: whatever looks for this method wants to train."""
        raise InputError(
            f"The `{self.name}` that this classifier was fitted with is not stored: pass it with "
            f"set_params({self.name}=...), or None for the default, before you call fit."
        )


def model_files(classifier: Any, feature_names: Sequence[str] | None = None) -> dict[str, bytes]:
    """Return the files that store a fitted classifier, with everything that predictions need.

    Parameters
    ----------
    classifier : NoisyLabelClassifier
        A fitted classifier.
    feature_names : sequence of str, default=None
        Names of the features, if the classifier was fitted on an array.

    Returns
    -------
    files : dict of str to bytes
        ``model.json``, and a file for each learner: networks in safetensors, others in skops. The
        encoder of texts or of a mixed table is stored in skops, too.
    """
    model = classifier.fitted_model
    members = model.members if isinstance(model, Mixture) else [model]
    stored = [dump(member) for member in members]
    classes = classifier.classes_
    params = {
        name: _as_json(value)
        for name, value in classifier.get_params(deep=False).items()
        if name not in CHANGES_NO_RESULT and not isinstance(value, np.random.RandomState)
    }
    meta = {
        "class": type(classifier).__name__,
        "params": {name: value for name, value in params.items() if _is_plain(value)},
        "not_stored": [name for name, value in params.items() if not _is_plain(value)],
        "classes": _checked_classes(classes),
        "class_type": "str" if classes.dtype.kind == "U" else classes.dtype.name,
        "n_features_in": getattr(classifier, "n_features_in_", None),
        "feature_names_in": list(getattr(classifier, "feature_names_in_", feature_names or [])),
        "picture_shape": getattr(classifier, "picture_shape_", None),
        "learners": [learner.network for learner in stored],
        "encoded": classifier.encoder_ is not None,
    }
    if isinstance(model, Mixture):
        sharpness = [temperature.sharpness for temperature in model.temperatures]
        meta["mixture"] = {"weights": model.weights, "sharpness": sharpness}
    files = {_learner_name(n, learner.network): learner.content for n, learner in enumerate(stored)}
    if classifier.encoder_ is not None:
        files[ENCODER] = dump(classifier.encoder_).content
    return files | {"model.json": json.dumps(meta, indent=2).encode()}


def own_network_in(meta: dict[str, Any]) -> str | None:
    """Return the name of the user's own code that builds a network of ``model.json``, if any."""
    names = (Stored(b"", network).own_network for network in meta["learners"])
    return next((name for name in names if name is not None), None)


def check_no_own_network(meta: dict[str, Any]) -> None:
    """Raise `InputError` if a network of ``model.json`` is built by the user's own code."""
    if (own := own_network_in(meta)) is not None:
        raise InputError(
            f"The run holds a network that is built by {own}, which is run only if you name it: "
            f"pass module= to pudistill.load, or repeat --learner {own}."
        )


def restore_classifier(
    meta: dict[str, Any], read_learner: Callable[[str, dict[str, Any] | None], Any]
) -> "NoisyLabelClassifier":
    """Build a classifier from the files of `model_files`.

    Parameters
    ----------
    meta : dict
        The content of ``model.json``.
    read_learner : callable
        Returns a learner, given its file name and the description of its network (None if the
        learner is not a network).

    Returns
    -------
    classifier : NoisyLabelClassifier
        A classifier that can predict; other results of `fit` are missing.
    """
    not_stored = {name: NotStored(name) for name in meta.get("not_stored", ())}
    classifier = _classifier_class(meta["class"])(**meta["params"] | not_stored)
    learners = [
        read_learner(_learner_name(n, network), network)
        for n, network in enumerate(meta["learners"])
    ]
    model = learners[0]
    if mixture := meta.get("mixture"):
        temperatures = [Temperature(sharpness) for sharpness in mixture["sharpness"]]
        model = Mixture(learners, mixture["weights"], temperatures, len(meta["classes"]))
    classifier.fitted_model, classifier.fitted_learners_ = model, learners
    has_names = all(isinstance(label, str) for label in meta["classes"])
    class_type = meta.get("class_type") or (object if has_names else None)
    if np.dtype(class_type).itemsize > LARGEST_CLASS_LABEL:  # as much memory for each prediction
        raise ValueError(f"class_type is {class_type!r}")
    classifier.classes_ = np.array(meta["classes"], dtype=class_type)
    if meta["n_features_in"]:
        classifier.n_features_in_ = meta["n_features_in"]
    if meta["feature_names_in"]:
        classifier.feature_names_in_ = np.array(meta["feature_names_in"], dtype=object)
    classifier.encoder_ = read_learner(ENCODER, None) if meta.get("encoded") else None
    classifier.fitted_on_frame_ = all(hasattr(part, "feature_names_in_") for part in learners)
    classifier.picture_shape_ = meta["picture_shape"] and tuple(meta["picture_shape"])
    return classifier


def _learner_name(n: int, network: dict[str, Any] | None) -> str:
    return f"learner-{n}.{suffix_of(network)}"


def _classifier_class(name: str) -> type:
    """Return a classifier class by name: one of this package, whatever a file names."""
    from pudistill.classifier import PUDistillClassifier
    from pudistill.methods.registry import load_class

    return PUDistillClassifier if name == PUDistillClassifier.__name__ else load_class(name)


def _as_json(value: Any) -> Any:
    """Return numbers and arrays of NumPy and pandas as JSON can hold them, all else as it is."""
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _checked_classes(classes: np.ndarray) -> list[Any]:
    names = classes.tolist()
    if classes.dtype.kind in "mM" or not _is_plain(names):
        raise InputError(
            f"Class labels of the type {type(classes[0]).__name__}, such as {names[0]!r}, cannot "
            "be stored: fit with texts or numbers, such as those of astype(str)."
        )
    return names


def check_storable(learner: Any, X: Any, codes: np.ndarray) -> None:
    """Check that a learner can be fitted and stored, before a long run is spent on it.

    Parameters
    ----------
    learner : classifier
        Template of the student.
    X : samples
        Samples to fit a copy of it on; a network is only built for them, and tried.
    codes : ndarray of shape (n_samples,), int
        Their classes.

    Raises
    ------
    InputError
        If the learner cannot be fitted, or contains a type that cannot be stored safely.
    """
    if is_network(learner):
        from pudistill.learners.networks.state import check_storable

        check_storable(learner)
        rows = np.unique(codes, return_index=True)[1]  # a sample of each class
        if len(rows) > 1:
            clone(learner).make_job(take(X, rows), codes[rows])
        return
    from pudistill.labels.pseudo_labels import one_hot
    from pudistill.learners.tasks import Training, train

    name = type(learner).__name__
    targets = one_hot(codes, int(codes.max()) + 1)
    try:
        fitted = train(Training(learner, X, targets, role="student", seed=0))
    except Exception as error:  # the user's learner can raise anything
        raise InputError(
            f"{name} cannot be fitted on the trusted samples ({error}): choose another learner."
        ) from error
    content = dump(fitted).content
    if unknown := unknown_types(content):
        raise InputError(
            f"{name} cannot be stored safely, because it contains "
            f"{', '.join(unknown[:3])}: choose another learner."
        )
    try:
        restore(Stored(content, None))
    except Exception as error:  # the checks of what is read back: better now than at the end
        raise InputError(
            f"{name} cannot be stored safely ({error}): choose another learner."
        ) from error
