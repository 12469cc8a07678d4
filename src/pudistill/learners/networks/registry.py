"""The losses of `TorchClassifier` by name."""

from pudistill.learners.networks.cross_entropy import CrossEntropy
from pudistill.learners.networks.likelihood import Likelihood
from pudistill.learners.networks.objectives import Objective

OBJECTIVES: dict[str, type[Objective]] = {"cross_entropy": CrossEntropy, "likelihood": Likelihood}
"""The values of ``TorchClassifier(loss=…)``."""
