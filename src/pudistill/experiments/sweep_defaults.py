"""Defaults of `pudistill sweep`, in a module of their own so that ``--help`` is quick."""

from typing import Literal

SWEEP_NOISES: tuple[Literal["symmetric", "asymmetric"], ...] = ("symmetric", "asymmetric")
SWEEP_LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SWEEP_METHODS = (
    "given_labels",
    "trusted_only",
    "gold_loss_correction",
    "paper",
    "pudistill",
    "true_labels",
)
