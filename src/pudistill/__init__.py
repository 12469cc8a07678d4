"""Robust classifiers and corrected labels from a noisy data set and a few trusted labels."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Loaded when first used: `import pudistill` itself costs nothing.
_PUBLIC = {
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

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pudistill' has no attribute {name!r}")
    if name == "TorchClassifier":
        from pudistill.exceptions import torch_extra

        with torch_extra():
            return importlib.import_module(f"pudistill.{_PUBLIC[name]}").TorchClassifier
    return getattr(importlib.import_module(f"pudistill.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
