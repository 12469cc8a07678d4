"""Readers: every supported format becomes one `TrustedDataset`."""

from pudistill.data.dataset import TrustedDataset
from pudistill.data.loading import load_dataset
from pudistill.data.writing import write_table

__all__ = ["TrustedDataset", "load_dataset", "write_table"]
