"""Fitted learners as bytes and back: networks by safetensors, all others by skops; no pickles."""

import io
import json
import sys
from collections.abc import Hashable
from itertools import count
from pathlib import PurePosixPath
from types import ModuleType
from typing import Any, NamedTuple
from zipfile import ZipFile, ZipInfo

import numpy as np

from pudistill.exceptions import InputError, torch_extra

# What a stored scikit-learn learner may be made of besides what skops trusts on its own. These
# classes hold numbers and other learners; building one runs nothing that the file chose.
STORABLE_TYPES = [
    "numpy.dtype",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.link.MultinomialLogit",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn._loss.loss.HalfMultinomialLoss",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
]

SKOPS_SCHEMA = "schema.json"  # of a skops file: which objects there are, and in which files arrays


class Stored(NamedTuple):
    """A fitted learner, put into bytes.

    Attributes
    ----------
    content : bytes
        A safetensors file of a network, a skops file of any other learner.
    network : dict or None
        What else it takes to build a network again, fit for JSON.
    """

    content: bytes
    network: dict[str, Any] | None

    @property
    def needs_module(self) -> bool:
        """Whether the network's factory is the user's, which no file may name."""
        return self.network is not None and isinstance(self.network["params"]["module"], dict)


def suffix_of(network: dict[str, Any] | None) -> str:
    """Return the ending of the name of a file of `Stored.content`."""
    return "skops" if network is None else "safetensors"


def dump(learner: Any) -> Stored:
    """Put a fitted learner into bytes.

    Parameters
    ----------
    learner : fitted estimator
        See `check_storable`.

    Returns
    -------
    stored : Stored
        What `restore` makes the learner of.

    Raises
    ------
    InputError
        If no file can hold the learner.
    """
    if not is_network(learner):
        try:
            return Stored(_canonical(_skops_io().dumps(learner)), None)
        except Exception as error:  # skops raises whatever the object's own state makes it raise
            raise InputError(
                f"{type(learner).__name__} cannot be stored by skops ({error}): choose another "
                "learner."
            ) from error
    with torch_extra():
        import safetensors.numpy

    arrays, network = learner.to_state()
    return Stored(safetensors.numpy.save(arrays), network)


def _canonical(content: bytes) -> bytes:
    """Write a skops file anew, so that the same learner is the same bytes, in whatever process.

    skops numbers objects by where they lie in memory, and zip files hold the time.
    """
    with ZipFile(io.BytesIO(content)) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    schema = json.loads(parts.pop(SKOPS_SCHEMA))
    numbers: dict[Hashable, int] = {}
    fresh = count(1)
    names: dict[str, str] = {}

    def renumber(node: Any) -> None:
        if isinstance(node, list):
            for one in node:
                renumber(one)
        if not isinstance(node, dict):
            return
        if isinstance(node.get("__id__"), int):
            # Which texts and numbers are one object is an accident of how they came about.
            shared = node["__id__"] if node.get("__loader__") != "JsonNode" else object()
            node["__id__"] = numbers.setdefault(shared, next(fresh))
        if isinstance(node.get("file"), str):
            suffix = PurePosixPath(node["file"]).suffix
            node["file"] = names.setdefault(node["file"], f"{len(names)}{suffix}")
        for one in node.values():
            renumber(one)

    renumber(schema)
    written = {names[name]: part for name, part in parts.items()}
    written[SKOPS_SCHEMA] = json.dumps(schema).encode()
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as file:
        for name in sorted(written):
            file.writestr(ZipInfo(name), written[name])
    return buffer.getvalue()


def restore(stored: Stored, *, module: Any = None) -> Any:
    """Build a learner from bytes.

    Parameters
    ----------
    stored : Stored
        As from `dump`.
    module : callable, default=None
        The network's factory, if it was one of the user's: none is imported because a file names
        it.

    Returns
    -------
    learner : fitted estimator
        The learner.
    """
    if stored.network is None:
        return _skops_io().loads(stored.content, trusted=STORABLE_TYPES)
    with torch_extra():
        import safetensors.numpy

        from pudistill.learners.torch_classifier import TorchClassifier

    arrays = safetensors.numpy.load(stored.content)
    return TorchClassifier.from_state(arrays, stored.network, module=module)


def check_storable(learner: Any, X: Any, codes: np.ndarray) -> None:
    """Refuse a learner that cannot be stored, before hours are spent on it.

    Parameters
    ----------
    learner : classifier
        The student.
    X : samples
        Samples to fit a copy on.
    codes : ndarray of shape (n_samples,), int
        Their classes.

    Raises
    ------
    InputError
        If neither safetensors nor skops can hold it; the message names the type.
    """
    if is_network(learner):
        from pudistill.learners import torch_classifier

        torch_classifier.check_storable(learner)
        return
    from pudistill.learners import Training, train
    from pudistill.pseudo_labels import one_hot

    name = type(learner).__name__
    targets = one_hot(codes, int(codes.max()) + 1)
    try:
        fitted = train(Training(learner, X, targets, role="student", seed=0))
    except Exception as error:  # whatever a learner of the user's choice raises
        raise InputError(
            f"{name} cannot be fitted on the trusted samples ({error}): choose another learner."
        ) from error
    content = dump(fitted).content
    unknown = sorted({*_skops_io().get_untrusted_types(data=content)} - {*STORABLE_TYPES})
    if unknown:
        raise InputError(
            f"{name} cannot be stored safely, because it holds "
            f"{', '.join(unknown[:3])}: choose another learner."
        )


def is_network(learner: Any) -> bool:
    """Whether a learner is one of the project's networks."""
    return hasattr(learner, "to_state")


def _skops_io() -> ModuleType:
    """Import skops, but not PyTorch with it.

    skops walks through all of scikit-learn, whose bridge to PyTorch it imports on the way where
    PyTorch is installed: three quarters of the time, for nothing.
    """
    hides = "torch" not in sys.modules and "skops.io" not in sys.modules
    if hides:
        sys.modules["torch"] = None  # type: ignore[assignment]  # so that importing it fails
    try:
        import skops.io
    finally:
        if hides:
            del sys.modules["torch"]
    return skops.io
