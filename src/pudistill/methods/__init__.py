"""Other methods, each with ours' interface: ``fit(X, y, trusted=...)``."""

import importlib
from typing import Any

from pudistill.exceptions import torch_extra

# By the names that settings and tables know them by; loaded when first used.
METHODS = {
    "cross_entropy": "CrossEntropyClassifier",
    "mixup": "MixupClassifier",
    "joint_optimization": "JointOptimizationClassifier",
    "co_teaching": "CoTeachingClassifier",
    "loss_correction": "LossCorrectionClassifier",
    "jocor": "JoCoRClassifier",
    "dividemix": "DivideMixClassifier",
    "forward_correction": "ForwardCorrectionClassifier",
    "l_dmi": "LDMIClassifier",
    "gold_loss_correction": "GoldLossCorrectionClassifier",
    "label_distillation": "LabelDistillationClassifier",
}
# Of these, what cannot do without trusted samples; what does not care which samples are trusted;
# and what reads the noise where it is told.
NEED_TRUSTED = ("gold_loss_correction", "label_distillation")
BLIND_TO_TRUSTED = ("cross_entropy", "mixup")
CAN_BE_TOLD = ("co_teaching", "jocor", "dividemix")
NAMES = {
    "given_labels": "trained on the given labels",
    "trusted_only": "trained on the trusted labels only",
    "cross_entropy": "Cross Entropy",
    "mixup": "Mixup",
    "joint_optimization": "Joint Optimization",
    "co_teaching": "Co-teaching",
    "loss_correction": "Loss Correction",
    "jocor": "JoCoR",
    "dividemix": "DivideMix",
    "forward_correction": "Forward",
    "l_dmi": "L_DMI",
    "gold_loss_correction": "Gold Loss Correction",
    "label_distillation": "Distillation of labels",
    "paper": "the paper's method",
    "paper_told": "the paper's, told the level",
    "pudistill": "pudistill",
    "true_labels": "trained with all labels right",
}
"""What people call all that is compared anywhere, in the order in which it is shown."""

_MODULES = {class_name: name for name, class_name in METHODS.items()}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'pudistill.methods' has no attribute {name!r}")
    with torch_extra():
        return getattr(importlib.import_module(f"pudistill.methods.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "METHODS", "NAMES", "NEED_TRUSTED", "BLIND_TO_TRUSTED", "CAN_BE_TOLD"]
