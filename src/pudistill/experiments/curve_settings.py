"""The settings of a curve of accuracy against noise level."""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from pudistill.exceptions import InputError, as_input_error
from pudistill.experiments.sweep_defaults import SWEEP_LEVELS, SWEEP_METHODS, SWEEP_NOISES
from pudistill.experiments.systems import PREPARE, check_semi_supervised
from pudistill.methods.registry import METHODS
from pudistill.runs.classifiers import build_classifier, build_pudistill, make_learner
from pudistill.runs.settings import Settings

Noise = Literal["symmetric", "asymmetric", "pair", "instance"]


class CurveSettings(Settings):
    """Everything that decides what a sweep computes, as ``config.toml`` stores it.

    They contain all settings of `Settings`; ``noise`` and ``level`` must not be given.

    Attributes
    ----------
    noises : list of {"symmetric", "asymmetric", "pair", "instance"}
        Kinds of noise.
    levels : list of float in [0, 1]
        Shares of the whole data set that get a noisy label. Trusted samples get none: a level that
        exceeds the share of untrusted samples is left out.
    methods : list of str
        Names of the compared systems, in `systems.PREPARE`.
    """

    noises: list[Noise] = Field(
        list(SWEEP_NOISES),
        min_length=1,
        description="some of symmetric, asymmetric, pair and instance",
    )
    levels: list[float] = Field(
        list(SWEEP_LEVELS), min_length=1, description="a list of noise levels from 0 to 1"
    )
    methods: list[str] = Field(list(SWEEP_METHODS), min_length=1)

    def to_config(self) -> dict[str, Any]:
        """Return the settings as ``config.toml`` stores them; they repeat the sweep anywhere."""
        return super().to_config() | {"trusted_fraction": self.trusted_fraction}

    def split_levels(self) -> tuple[list[float], list[float]]:
        """Return the levels that the share of trusted samples allows, and those left out."""
        levels = sorted(set(self.levels))
        n_possible = sum(level + self.trusted_fraction <= 1 + 1e-9 for level in levels)
        return levels[:n_possible], levels[n_possible:]

    def check(self) -> None:
        """Raise `InputError` if the settings do not describe a sweep."""
        if self.noise is not None:
            raise InputError(
                "A curve goes through kinds and levels of noise: give `noises` and `levels`, and "
                "leave `noise` out."
            )
        if self.test_data is None and self.test_fraction is None:
            raise InputError(
                "A curve needs samples to test on: name `test_data`, or hold out a "
                "`test_fraction` such as 0.2."
            )
        unknown = [name for name in self.methods if name not in PREPARE]
        if unknown:
            raise InputError(
                f"There is no method {unknown[0]!r}: choose some of {', '.join(PREPARE)}."
            )
        if not all(0 <= level <= 1 for level in self.levels):
            raise InputError(f"The levels {self.levels} are not all from 0 to 1: correct them.")
        if not self.split_levels()[0]:
            raise InputError(
                f"With a trusted share of {self.trusted_fraction:g} no level can be more than "
                f"{1 - self.trusted_fraction:g}: give lower levels, or trust fewer samples."
            )

    def check_classifiers(self, X: np.ndarray) -> None:
        """Raise `InputError` if a classifier rejects its parameters or its learner."""
        with as_input_error():
            build_pudistill(self, X)._validate_params()
        if "semi_supervised" in self.methods:
            check_semi_supervised(make_learner(self, X), X)
        for name in self.methods:
            if name in METHODS:
                build_classifier(self.model_copy(update={"method": name}), X)
