"""Robust classifiers and corrected labels from a noisy data set and a few trusted labels."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pudistill import plots as plots
    from pudistill.classifier import PUDistillClassifier
    from pudistill.data.annotations import Annotations
    from pudistill.data.dataset import TrustedDataset
    from pudistill.data.loading import load_dataset
    from pudistill.distillation.correction import correct_labels
    from pudistill.exceptions import DataWarning, InputError, TimeLimitWarning, TrustedWarning
    from pudistill.labels.corruption import corrupt_labels, simulate_sources
    from pudistill.labels.model_selection import (
        TrustedKFold,
        trusted_accuracy,
        trusted_accuracy_scorer,
    )
    from pudistill.learners.networks.classifier import TorchClassifier
    from pudistill.learners.networks.features import embed_dataset
    from pudistill.pu_filter.estimator import TieredPUFilter
    from pudistill.runs.saved import load, report, save

__version__ = "0.2.0"

# Modules are imported on first use, so that `import pudistill` is quick.
_MODULES = {
    "Annotations": "data.annotations",
    "DataWarning": "exceptions",
    "InputError": "exceptions",
    "PUDistillClassifier": "classifier",
    "TieredPUFilter": "pu_filter.estimator",
    "TimeLimitWarning": "exceptions",
    "TorchClassifier": "learners.networks.classifier",
    "TrustedDataset": "data.dataset",
    "TrustedKFold": "labels.model_selection",
    "TrustedWarning": "exceptions",
    "correct_labels": "distillation.correction",
    "corrupt_labels": "labels.corruption",
    "embed_dataset": "learners.networks.features",
    "load": "runs.saved",
    "load_dataset": "data.loading",
    "report": "runs.saved",
    "save": "runs.saved",
    "simulate_sources": "labels.corruption",
    "trusted_accuracy": "labels.model_selection",
    "trusted_accuracy_scorer": "labels.model_selection",
}

# A literal for type checkers; a test compares it with `_MODULES`.
__all__ = [
    "Annotations",
    "DataWarning",
    "InputError",
    "PUDistillClassifier",
    "TieredPUFilter",
    "TimeLimitWarning",
    "TorchClassifier",
    "TrustedDataset",
    "TrustedKFold",
    "TrustedWarning",
    "__version__",
    "correct_labels",
    "corrupt_labels",
    "embed_dataset",
    "load",
    "load_dataset",
    "plots",
    "report",
    "save",
    "simulate_sources",
    "trusted_accuracy",
    "trusted_accuracy_scorer",
]


if not TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> object:
        if name == "plots":
            return importlib.import_module("pudistill.plots")
        if name not in _MODULES:
            raise AttributeError(f"module 'pudistill' has no attribute {name!r}")
        if name == "TorchClassifier":
            from pudistill.exceptions import torch_extra

            with torch_extra():
                return importlib.import_module(f"pudistill.{_MODULES[name]}").TorchClassifier
        return getattr(importlib.import_module(f"pudistill.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__]
