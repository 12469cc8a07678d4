"""The losses of `TorchClassifier` by name."""

from pudistill.learners.networks.cross_entropy import CrossEntropy
from pudistill.learners.networks.likelihood import Likelihood
from pudistill.learners.networks.objectives import Objective
from pudistill.learners.networks.robust_losses import (
    SIGUA,
    ActivePassive,
    BackwardCorrection,
    GeneralisedCrossEntropy,
    HardBootstrap,
    MeanAbsoluteError,
    SoftBootstrap,
    SymmetricCrossEntropy,
    TaylorCrossEntropy,
)

OBJECTIVES: dict[str, type[Objective]] = {
    "cross_entropy": CrossEntropy,
    "likelihood": Likelihood,
    "bootstrap_soft": SoftBootstrap,
    "bootstrap_hard": HardBootstrap,
    "mean_absolute_error": MeanAbsoluteError,
    "backward_correction": BackwardCorrection,
    "generalised_cross_entropy": GeneralisedCrossEntropy,
    "symmetric_cross_entropy": SymmetricCrossEntropy,
    "taylor_cross_entropy": TaylorCrossEntropy,
    "active_passive": ActivePassive,
    "sigua": SIGUA,
}
"""The values of ``TorchClassifier(loss=…)``."""
