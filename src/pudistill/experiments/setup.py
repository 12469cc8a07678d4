"""What an experiment is run on, and what it gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pudistill.data import TrustedDataset
from pudistill.experiments import paper
from pudistill.experiments.curve import Bench, CurveSettings, Score, codes_of, measure
from pudistill.experiments.scales import Scale, TrainAndTest, clothing1m
from pudistill.learners import normalised
from pudistill.learners.recipes import RECIPES
from pudistill.units import Units
from pudistill.workflow import make_learner, with_noise


@dataclass(frozen=True)
class Setup:
    """What an experiment is run on.

    Attributes
    ----------
    scale : Scale
        Data, learner, levels.
    data : Path or None
        The folder of data sets.
    levels : tuple of float
        Noise levels.
    methods : tuple of str
        Names of what is compared, where an experiment compares methods.
    seeds : tuple of int
        Seeds.
    units : Units
        Where finished stages are kept.
    skip_bad : bool
        Whether pictures that are missing or damaged are left out.
    """

    scale: Scale
    data: Path | None
    levels: tuple[float, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    units: Units
    skip_bad: bool = False

    @cached_property
    def loaded(self) -> TrainAndTest:
        """The data, read when first needed."""
        return self.scale.load(self.data, self.skip_bad)

    @property
    def train(self) -> TrustedDataset:
        """Training samples, whose labels are right unless their noise is their own."""
        return self.loaded.train

    @property
    def test(self) -> TrustedDataset:
        """Test samples, whose labels are right."""
        return self.loaded.test

    @property
    def edition(self) -> str:
        """What the tables call the data."""
        return self.loaded.edition or self.scale.edition

    @property
    def is_cifar10(self) -> bool:
        """Whether the paper's numbers on CIFAR-10 are about these data."""
        return self.scale.reported_as == paper.CIFAR10

    def on_clothing1m(self, held_out: str) -> "Setup | None":
        """Return the same on Clothing1M, tested on its "val" or "test" samples, if it is there."""
        scale = clothing1m(self.data, held_out)
        return None if scale is None else replace(self, scale=scale)

    def settings(self, seed: int, **changes: Any) -> CurveSettings:
        """Return the settings of a seed."""
        fixed = {"data": self.scale.edition, "trusted_fraction": 0.1}
        return CurveSettings.read(fixed | self.scale.settings | {"seed": seed} | changes)

    def curve(
        self, prepare: Mapping[str, Callable[[Bench], Score]], **changes: Any
    ) -> pd.DataFrame:
        """Measure methods at all levels with all seeds; see `measure`."""
        parts = [
            measure(
                self.train,
                self.test,
                self.settings(seed, levels=list(self.levels), **changes),
                prepare,
                class_map=self.scale.class_map,
                units=self.units,
            ).assign(seed=seed)
            for seed in self.seeds
        ]
        return pd.concat(parts, ignore_index=True)

    def trusted(self, seed: int) -> TrustedDataset:
        """Return the training samples, a tenth of them trusted; or those that are."""
        if self.train.trusted.any():
            return self.train
        return with_noise(self.train, "symmetric", 0.0, 0.1, seed)

    def test_codes(self) -> np.ndarray:
        """Return the right classes of the test samples, as codes."""
        return codes_of(self.test.y, self.train.classes)

    def network(self, *, mixup: bool, entropy: bool) -> Any:
        """Make the scale's network, with the paper's mixup and entropy term or without."""
        settings = self.settings(0)
        learner = make_learner(settings.learner, settings.recipe, self.train.X)
        full = RECIPES["paper"]["student"]
        learner.set_params(
            mixup=full.mixup if mixup else 0.0,
            entropy_weight=full.entropy_weight if entropy else 0.0,
        )
        return normalised(learner, self.train.X)


NOT_RUN = "not run: no data"


class Result(NamedTuple):
    """What an experiment gives.

    Attributes
    ----------
    cells : DataFrame
        A row a number: what it is about, ours (``final``, ``best``), and the ``paper``'s.
    curves : dict of str to DataFrame
        By the name of a figure, what `plots.accuracy_curve` draws.
    names : dict of str to str
        What its methods are called there.
    """

    cells: pd.DataFrame
    curves: Mapping[str, pd.DataFrame] = MappingProxyType({})
    names: Mapping[str, str] = MappingProxyType({})
