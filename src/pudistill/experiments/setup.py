"""The input of an experiment (data, learner, levels, seeds) and its result."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pudistill.data.dataset import TrustedDataset
from pudistill.experiments import paper
from pudistill.experiments.curve_settings import CurveSettings
from pudistill.experiments.evaluation import Prepare, class_codes
from pudistill.experiments.measuring import measure
from pudistill.experiments.scales import Scale, TrainAndTest, clothing1m
from pudistill.learners.cache import StageCache
from pudistill.learners.defaults import normalised
from pudistill.learners.networks.recipes import RECIPES
from pudistill.runs.classifiers import make_learner
from pudistill.runs.inputs import with_noise

NOT_RUN = "not run: no data"


@dataclass(frozen=True)
class Setup:
    """The input of an experiment.

    Attributes
    ----------
    scale : Scale
        Data, learner, levels.
    data : Path or None
        The folder of data sets.
    levels : tuple of float
        Noise levels.
    methods : tuple of str
        Names of the compared systems, in experiments that compare them.
    seeds : tuple of int
        Seeds.
    stages : StageCache
        The cache of finished stages.
    skip_bad : bool
        Whether to leave out pictures that are missing or damaged.
    """

    scale: Scale
    data: Path | None
    levels: tuple[float, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    stages: StageCache
    skip_bad: bool = False

    @cached_property
    def loaded(self) -> TrainAndTest:
        """The data, read when first needed."""
        return self.scale.load(self.data, self.skip_bad)

    @property
    def train(self) -> TrustedDataset:
        """Training samples; their labels are correct, except those of Clothing1M."""
        return self.loaded.train

    @property
    def test(self) -> TrustedDataset:
        """Test samples, whose labels are correct."""
        return self.loaded.test

    @property
    def edition(self) -> str:
        """Name of the data in the tables."""
        return self.loaded.edition or self.scale.edition

    @property
    def is_cifar10(self) -> bool:
        """Whether the paper reports numbers on these data as CIFAR-10."""
        return self.scale.reported_as == paper.CIFAR10

    def on_clothing1m(self, held_out: str) -> "Setup | None":
        """Return this setup on Clothing1M, tested on "val" or "test"; None without the data."""
        scale = clothing1m(self.data, held_out)
        return None if scale is None else replace(self, scale=scale)

    def settings(self, seed: int, **changes: Any) -> CurveSettings:
        """Return the settings for a seed."""
        fixed = {"data": self.scale.edition, "trusted_fraction": 0.1}
        return CurveSettings.read(fixed | self.scale.settings | {"seed": seed} | changes)

    def curve(self, systems: Mapping[str, Prepare], **changes: Any) -> pd.DataFrame:
        """Measure systems at all levels with all seeds; see `measure`."""
        parts = [
            measure(
                self.train,
                self.test,
                self.settings(seed, levels=list(self.levels), **changes),
                systems,
                class_map=self.scale.class_map,
                stages=self.stages,
            ).assign(seed=seed)
            for seed in self.seeds
        ]
        return pd.concat(parts, ignore_index=True)

    def train_with_trusted(self, seed: int) -> TrustedDataset:
        """Return the training samples; if none of them is trusted, draw a tenth to be trusted."""
        if self.train.trusted.any():
            return self.train
        return with_noise(self.train, "symmetric", 0.0, 0.1, seed)

    def test_codes(self) -> np.ndarray:
        """Return the true classes of the test samples, as codes."""
        return class_codes(self.test.y, self.train.classes)

    def network(self, *, mixup: bool, entropy: bool) -> Any:
        """Make the scale's network, with or without the paper's mixup and entropy term."""
        settings = self.settings(0)
        learner = make_learner(settings, self.train.X)
        recipe = RECIPES["paper"]["student"]
        learner.set_params(
            mixup=recipe.mixup if mixup else 0.0,
            entropy_weight=recipe.entropy_weight if entropy else 0.0,
        )
        return normalised(learner, self.train.X)


class Result(NamedTuple):
    """The result of an experiment.

    Attributes
    ----------
    cells : DataFrame
        A row per cell of the table: columns that name the cell, our numbers (``final``, ``best``),
        and the ``paper``'s.
    curves : dict of str to DataFrame
        By file name of a figure, the results that `plots.accuracy_curve` draws.
    titles : dict of str to str
        Names of the systems in the figures, where they differ from the registry's.
    caption : str
        What the figures leave out.
    """

    cells: pd.DataFrame
    curves: Mapping[str, pd.DataFrame] = MappingProxyType({})
    titles: Mapping[str, str] = MappingProxyType({})
    caption: str = ""
