"""Fitted learners as bytes and back: networks by safetensors, others by skops, never by pickle."""

import io
import json
import sys
from collections.abc import Hashable
from itertools import count
from pathlib import PurePosixPath
from types import ModuleType
from typing import Any, NamedTuple
from zipfile import ZipFile, ZipInfo

from pudistill.exceptions import InputError, torch_extra
from pudistill.learners.skops_files import SKOPS_SCHEMA, check_file, types_in

# Types that a stored scikit-learn learner can contain, besides the types that skops trusts. They
# hold numbers and other learners; building them runs no code that the file chooses.
STORABLE_TYPES = [
    "numpy.dtype",
    "pudistill.data.encoding.TableEncoder",
    "scipy.sparse._csr.csr_array",
    "scipy.sparse._csr.csr_matrix",
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

# Parts of scikit-learn whose learners predict by NumPy, or by compiled code whose arrays
# `stored_checks` checks. In the others (clustering, matrix factorisation, ...) compiled code trusts
# arrays that nobody checks, so that a file could crash the process.
SAFE_PACKAGES = (
    "sklearn._loss",
    "sklearn.calibration",
    "sklearn.compose._column_transformer",
    "sklearn.decomposition._pca",
    "sklearn.decomposition._truncated_svd",
    "sklearn.discriminant_analysis",
    "sklearn.dummy",
    "sklearn.ensemble._bagging",
    "sklearn.ensemble._forest",
    "sklearn.ensemble._gb",
    "sklearn.ensemble._hist_gradient_boosting",
    "sklearn.ensemble._stacking",
    "sklearn.ensemble._voting",
    "sklearn.ensemble._weight_boosting",
    "sklearn.feature_extraction.text",
    "sklearn.feature_selection",
    "sklearn.impute._base",
    "sklearn.isotonic",
    "sklearn.kernel_approximation",
    "sklearn.linear_model",
    "sklearn.metrics._dist_metrics",
    "sklearn.multiclass",
    "sklearn.naive_bayes",
    "sklearn.neighbors",
    "sklearn.neural_network",
    "sklearn.pipeline",
    "sklearn.preprocessing._data",
    "sklearn.preprocessing._discretization",
    "sklearn.preprocessing._encoders",
    "sklearn.preprocessing._function_transformer",
    "sklearn.preprocessing._label",
    "sklearn.preprocessing._target_encoder",
    "sklearn.semi_supervised",
    "sklearn.svm",
    "sklearn.tree",
)

# The package of scikit-learn that imports PyTorch.
TORCH_BRIDGE = "sklearn.externals.array_api_compat.torch"


class Stored(NamedTuple):
    """A fitted learner as bytes.

    Attributes
    ----------
    content : bytes
        A safetensors file of a network, a skops file of any other learner.
    network : dict or None
        Parameters from which a network is built again, for JSON.
    """

    content: bytes
    network: dict[str, Any] | None

    @property
    def own_network(self) -> str | None:
        """Import path of the user's network or factory, if `restore` needs it."""
        module = None if self.network is None else self.network["params"]["module"]
        return module["callable"] if isinstance(module, dict) else None


def suffix_of(network: dict[str, Any] | None) -> str:
    """Return the file extension for `Stored.content`."""
    return "skops" if network is None else "safetensors"


def dump(learner: Any) -> Stored:
    """Return a fitted learner as bytes.

    Parameters
    ----------
    learner : fitted estimator
        A network of the package, or a learner made of types that skops trusts or that are among
        `STORABLE_TYPES`.

    Returns
    -------
    stored : Stored
        For `restore`.

    Raises
    ------
    InputError
        If no file can hold the learner.
    """
    if not is_network(learner):
        try:
            return Stored(_canonical(_skops_io().dumps(learner)), None)
        except Exception as error:  # any type: the learner's own code runs
            raise InputError(
                f"{type(learner).__name__} cannot be stored by skops ({error}): choose another "
                "learner."
            ) from error
    with torch_extra():
        import safetensors.numpy

    arrays, network = learner.to_state()
    return Stored(safetensors.numpy.save(arrays), network)


def _canonical(content: bytes) -> bytes:
    """Rewrite a skops file, so that the same learner gives the same bytes in every process.

    skops numbers objects by their addresses in memory, and zip files hold the time.
    """
    with ZipFile(io.BytesIO(content)) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    parts = {
        name: _unpacked(part) if name.endswith(".npz") else part for name, part in parts.items()
    }
    schema = json.loads(parts.pop(SKOPS_SCHEMA))
    numbers: dict[Hashable, int] = {}
    fresh = count(1)
    names: dict[str, str] = {}

    def renumber(node: Any) -> None:
        if isinstance(node, list):
            for child in node:
                renumber(child)
        if not isinstance(node, dict):
            return
        if isinstance(node.get("__id__"), int):
            # Equal texts or numbers are one object in some processes and several in others.
            address = node["__id__"] if node.get("__loader__") != "JsonNode" else object()
            node["__id__"] = numbers.setdefault(address, next(fresh))
        if isinstance(node.get("file"), str):
            suffix = PurePosixPath(node["file"]).suffix
            node["file"] = names.setdefault(node["file"], f"{len(names)}{suffix}")
        for child in node.values():
            renumber(child)

    renumber(schema)
    written = {names[name]: part for name, part in parts.items()}
    written[SKOPS_SCHEMA] = json.dumps(schema).encode()
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as file:
        for name in sorted(written):
            file.writestr(ZipInfo(name), written[name])
    return buffer.getvalue()


def _unpacked(content: bytes) -> bytes:
    """Return the archive of a sparse matrix without compression."""
    buffer = io.BytesIO()
    with ZipFile(io.BytesIO(content)) as packed, ZipFile(buffer, "w") as file:
        for name in packed.namelist():
            file.writestr(ZipInfo(name), packed.read(name))
    return buffer.getvalue()


def restore(stored: Stored, *, module: Any = None) -> Any:
    """Build a learner from bytes.

    Parameters
    ----------
    stored : Stored
        As `dump` returns it.
    module : callable, default=None
        The user's factory of the network, if it has one: a name in a file is never imported.

    Returns
    -------
    learner : fitted estimator
        The learner. Whatever the file holds, the learner can predict without ending the process.

    Raises
    ------
    Exception
        Of any kind, if the file is damaged.
    """
    if stored.network is None:
        if unknown := unknown_types(stored.content):
            raise ValueError(f"it holds {', '.join(unknown[:3])}")
        learner = _skops_io().loads(stored.content, trusted=STORABLE_TYPES)
        from pudistill.learners.stored_checks import check_learner

        check_learner(learner)
        return learner
    with torch_extra():
        import safetensors.numpy

        from pudistill.learners.networks.classifier import TorchClassifier

    arrays = safetensors.numpy.load(stored.content)
    return TorchClassifier.from_state(arrays, stored.network, module=module)


def unknown_types(content: bytes) -> list[str]:
    """Return the types in a skops file that are trusted neither by skops nor by the package.

    skops trusts all learners of scikit-learn; the package, those of `SAFE_PACKAGES`.
    """
    safe = (*(f"{package}." for package in SAFE_PACKAGES), *STORABLE_TYPES)
    found = types_in(check_file(content))
    unsafe = {name for name in found if name.startswith("sklearn.") and not name.startswith(safe)}
    untrusted = {*_skops_io().get_untrusted_types(data=content)} - {*STORABLE_TYPES}
    return sorted(unsafe | untrusted)


def is_network(learner: Any) -> bool:
    """Whether a learner is one of the package's networks."""
    return hasattr(learner, "to_state")


def _skops_io() -> ModuleType:
    """Import skops without importing PyTorch, which would take two thirds of the time.

    skops imports all packages of scikit-learn to list its estimators. Only one of these packages
    imports PyTorch: the bridge to it, which holds no estimators. Its import is made to fail here,
    and skops skips packages that fail.
    """
    blocks = TORCH_BRIDGE not in sys.modules and "skops.io" not in sys.modules
    if blocks:
        sys.modules[TORCH_BRIDGE] = None  # type: ignore[assignment]  # Python's way to block it
    try:
        import skops.io
    finally:
        if blocks:
            del sys.modules[TORCH_BRIDGE]
    return skops.io
