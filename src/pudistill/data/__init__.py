"""Readers: every supported format becomes one `TrustedDataset`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pudistill.data.dataset import TrustedDataset
    from pudistill.data.loading import load_dataset
    from pudistill.data.writing import write_table

__all__ = ["TrustedDataset", "load_dataset", "write_table"]

# Loaded when first used, so that the command line's help can list the formats at once.
_MODULES = {"TrustedDataset": "dataset", "load_dataset": "loading", "write_table": "writing"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
