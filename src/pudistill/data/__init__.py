"""Readers: every supported format becomes one `TrustedDataset`."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pudistill.data.dataset import TrustedDataset
    from pudistill.data.loading import load_dataset
    from pudistill.data.writing import write_table

# Loaded when first used: the help of the command line needs only `data.options`.
_PUBLIC = {"TrustedDataset": "dataset", "load_dataset": "loading", "write_table": "writing"}

__all__ = ["TrustedDataset", "load_dataset", "write_table"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pudistill.data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pudistill.data.{_PUBLIC[name]}"), name)
