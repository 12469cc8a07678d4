"""A fitted network as arrays and JSON, for storage without pickle."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from pudistill.exceptions import InputError, OwnModuleError
from pudistill.learners.networks.architectures import NetworkFactory, find_factory
from pudistill.learners.networks.embedding import LONGEST_TEXT
from pudistill.learners.networks.hardware import choose_hardware, seeded
from pudistill.learners.networks.names import PRETRAINED, import_path
from pudistill.learners.networks.normalisation import Normalisation
from pudistill.learners.networks.own import check_own, name_of, reason_of
from pudistill.learners.networks.pretrained import PretrainedNetwork, build_untrained
from pudistill.learners.networks.recipes import Recipe
from pudistill.learners.networks.texts import (
    StoredTokenizer,
    TextNetwork,
    build_untrained_text,
    merged,
)

LARGEST_NAME = 2**20  # bytes of a class in an array of text


def state_of(estimator: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return a fitted `TorchClassifier` as arrays and JSON; see its method ``to_state``."""
    network = merged(estimator.module_)
    arrays = {
        f"module.{name}": tensor.numpy(force=True).copy()
        for name, tensor in network.state_dict().items()
    }
    arrays["normalisation.mean"] = estimator.normalisation_.mean
    arrays["normalisation.scale"] = estimator.normalisation_.scale
    params = {name: _as_json(value) for name, value in estimator.get_params(deep=False).items()}
    if estimator.recipe_.has_transforms:  # predictions do without
        params["augment"] = None
    meta = {
        "params": params,
        "classes": {"dtype": estimator.classes_.dtype.str, "values": estimator.classes_.tolist()},
        "in_shape": list(estimator.in_shape_),
        "recipe": _as_json(estimator.recipe_),
        "loss_curve": estimator.loss_curve_,
    }
    if isinstance(network, PretrainedNetwork | TextNetwork):
        meta["architecture"] = network.architecture
    if isinstance(network, TextNetwork):
        tokenizer = estimator.tokenizer_
        arrays["tokenizer"] = np.frombuffer(tokenizer.json.encode(), np.uint8)
        meta["tokenizer"] = {"n_tokens": tokenizer.n_tokens, "empty": tokenizer.empty}
    if hasattr(estimator, "feature_names_in_"):
        meta["feature_names_in"] = estimator.feature_names_in_.tolist()
    return arrays, meta


def params_from_json(params: dict[str, Any], module: NetworkFactory | None) -> dict[str, Any]:
    """Return the parameters of a `TorchClassifier` from its state."""
    params = dict(params)
    if isinstance(params["module"], dict):
        if module is None:
            raise InputError(
                f"The network was built by {params['module']['callable']}: pass that as module= "
                "to load it."
            )
        if not callable(module):
            raise OwnModuleError(
                f"module={module!r} is no network and makes none: pass "
                f"{params['module']['callable']}, which the network was built by."
            )
        params["module"] = module
    if isinstance(params["recipe"], dict):
        params["recipe"] = _recipe_from_json(params["recipe"])
    if isinstance(params["augment"], list):
        params["augment"] = tuple(params["augment"])
    if params["device"] != "auto":
        try:
            choose_hardware(params["device"], "auto", is_table=False)
        except InputError:  # another machine trained the network
            params["device"] = "auto"
    return params


def restore_state(estimator: Any, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    """Make an estimator fitted from its stored state; see `TorchClassifier.from_state`."""
    kind = np.dtype(meta["classes"]["dtype"])
    if kind.itemsize > LARGEST_NAME:
        raise InputError(f"The stored classes are of the type {kind}, which is absurd.")
    estimator.classes_ = np.array(meta["classes"]["values"], kind)
    estimator.in_shape_ = tuple(meta["in_shape"])
    estimator.recipe_ = _recipe_from_json(meta["recipe"])
    estimator.loss_curve_ = list(meta["loss_curve"])
    estimator.n_iter_ = len(estimator.loss_curve_)
    estimator.normalisation_ = Normalisation(
        arrays["normalisation.mean"], arrays["normalisation.scale"]
    )
    scales = (estimator.normalisation_.mean, estimator.normalisation_.scale)
    if any(np.shape(scale) != estimator.in_shape_[:1] for scale in scales):
        raise InputError("The stored normalisation does not fit the samples: train it again.")
    if len(estimator.in_shape_) == 1:
        estimator.n_features_in_ = estimator.in_shape_[0]
    if "feature_names_in" in meta:
        estimator.feature_names_in_ = np.array(meta["feature_names_in"], dtype=object)
    weights = {
        name.removeprefix("module."): torch.tensor(array)
        for name, array in arrays.items()
        if name.startswith("module.")
    }
    n_classes = len(estimator.classes_)
    if "tokenizer" in meta:
        about = meta["tokenizer"]
        content = arrays["tokenizer"].tobytes().decode()
        n_tokens, empty = int(about["n_tokens"]), int(about["empty"])
        if not (0 < n_tokens <= LONGEST_TEXT and empty >= 0):
            raise InputError("The stored tokenizer is damaged: train the network again.")
        estimator.tokenizer_ = StoredTokenizer(content, n_tokens, empty)

    def build() -> nn.Module:
        if "tokenizer" in meta:
            return build_untrained_text(meta["architecture"], n_classes)
        if "architecture" in meta:
            return build_untrained(meta["architecture"], n_classes)
        if str(estimator.module).startswith(PRETRAINED):
            raise InputError("The stored network does not describe its layers: train it again.")
        return find_factory(estimator.module, estimator.in_shape_)(estimator.in_shape_, n_classes)

    with seeded(0, torch.device("cpu")):
        if not callable(estimator.module):
            _check_sizes(build, weights, str(meta["params"]["module"]))
        try:
            network = build()
            # `assign` keeps the stored precision.
            network.load_state_dict(weights, assign=True)
            if callable(estimator.module) and len(estimator.in_shape_) == 3:
                check_own(network, estimator.in_shape_, n_classes)  # the layout that it reads
        except (RuntimeError, InputError) as error:
            if callable(estimator.module):
                raise OwnModuleError(
                    f"{name_of(estimator.module)} does not fit the stored weights "
                    f"({reason_of(error)}): pass {meta['params']['module']['callable']} as it was "
                    "when they were trained."
                ) from error
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"The stored weights do not fit the network {meta['params']['module']}: load them "
                "with the module they were trained with."
            ) from error
    estimator.module_ = network.eval()


def _check_sizes(build: Callable[[], nn.Module], weights: dict[str, Tensor], name: str) -> None:
    """Raise `InputError` if a described network does not have the sizes of its stored weights.

    The network is built without memory for its weights, as a file can describe one of any size.
    """
    n_left = 4 * len(weights) + 100  # a layer may register a parameter more than once

    def count(*_: object) -> None:
        nonlocal n_left
        n_left -= 1
        if n_left < 0:
            raise InputError(f"The stored network {name} has fewer weights than its description.")

    counting = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            sketch = build()
    finally:
        counting.remove()
    sizes = {name: tensor.shape for name, tensor in sketch.state_dict().items()}
    n_buffered = sum(buffer.numel() for buffer in sketch.buffers())
    n_stored = sum(tensor.numel() for tensor in weights.values())
    if sizes != {name: tensor.shape for name, tensor in weights.items()} or (
        n_buffered > 16 * n_stored + 2**24
    ):
        raise InputError(
            f"The stored weights do not fit the network {name}: load them with the module they "
            "were trained with."
        )


def check_storable(estimator: Any) -> None:
    """Check that the state of a network can name the module that builds it.

    A built-in network is stored by name, one of the user's own by its import path, which is never
    imported: it tells the user what to pass to :meth:`TorchClassifier.from_state`.

    Parameters
    ----------
    estimator : TorchClassifier
        Fitted or not.

    Raises
    ------
    InputError
        If `module` is a callable without an import path, such as a lambda, or an unknown name.

    Examples
    --------
    >>> from pudistill.learners.networks.classifier import TorchClassifier
    >>> from pudistill.learners.networks.state import check_storable
    >>> check_storable(TorchClassifier("small_cnn"))
    """
    if callable(estimator.module) and import_path(estimator.module) is None:
        raise InputError(
            f"module={estimator.module!r} has no name by which it could be imported: define it "
            "with def or class at the top level of a module."
        )


def _as_json(value: Any) -> Any:
    """Return a parameter as a JSON value; the normalisation is stored in the arrays instead."""
    if isinstance(value, np.random.RandomState | Normalisation):
        return None
    if isinstance(value, Recipe):
        return asdict(replace(value, augment=() if value.has_transforms else value.augment))
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    return {"callable": import_path(value)} if callable(value) else value


def _recipe_from_json(fields: dict[str, Any]) -> Recipe:
    """Return a recipe from its fields, whose tuples JSON has turned into lists."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return Recipe(**values)
