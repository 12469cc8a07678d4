"""Robust classifiers and corrected labels from a noisy data set and a few trusted labels."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pudistill.classifier import PUDistillClassifier
    from pudistill.data import TrustedDataset, load_dataset
    from pudistill.exceptions import InputError, TrustedWarning
    from pudistill.features import embed_dataset
    from pudistill.learners.torch_classifier import TorchClassifier
    from pudistill.model_selection import (
        TrustedKFold,
        trusted_accuracy,
        trusted_accuracy_scorer,
    )
    from pudistill.noise import corrupt_labels
    from pudistill.pu_filter import TieredPUFilter
    from pudistill.runs import load

__version__ = "0.1.0"

# Imported on first use, so that `import pudistill` itself costs nothing.
_MODULES = {
    "InputError": "exceptions",
    "PUDistillClassifier": "classifier",
    "TieredPUFilter": "pu_filter",
    "TorchClassifier": "learners.torch_classifier",
    "TrustedDataset": "data",
    "TrustedKFold": "model_selection",
    "TrustedWarning": "exceptions",
    "corrupt_labels": "noise",
    "embed_dataset": "features",
    "load": "runs",
    "load_dataset": "data",
    "trusted_accuracy": "model_selection",
    "trusted_accuracy_scorer": "model_selection",
}

# Literal, as type checkers read it; a test compares it with `_MODULES`.
__all__ = [
    "InputError",
    "PUDistillClassifier",
    "TieredPUFilter",
    "TorchClassifier",
    "TrustedDataset",
    "TrustedKFold",
    "TrustedWarning",
    "__version__",
    "corrupt_labels",
    "embed_dataset",
    "load",
    "load_dataset",
    "trusted_accuracy",
    "trusted_accuracy_scorer",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'pudistill' has no attribute {name!r}")
    if name == "TorchClassifier":
        from pudistill.exceptions import torch_extra

        with torch_extra():
            return importlib.import_module(f"pudistill.{_MODULES[name]}").TorchClassifier
    return getattr(importlib.import_module(f"pudistill.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
