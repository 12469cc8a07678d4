"""The systems that pudistill compares, one record each.

A new method is one file, ``methods/NAME.py``, or a class beside similar ones, one record in
`_RECORDS`, and an import for type checkers in ``methods/__init__.py``. Importing this module loads
neither scikit-learn nor PyTorch.
"""

import importlib
from dataclasses import dataclass
from typing import Any

from pudistill.exceptions import torch_extra


@dataclass(frozen=True)
class System:
    """What the rest of the package must know about a system.

    Attributes
    ----------
    name : str
        Its name in settings, tables and metrics.
    title : str
        Its name in reports and tables.
    class_name : str or None
        The method's class; ``None`` for baselines, and for `PUDistillClassifier` itself.
    module : str
        The name of the method's module, if it is not `name`.
    short_title : str
        Its name at the end of a curve.
    needs_trusted : bool
        Whether the method cannot be fitted without trusted samples.
    ignores_trusted : bool
        Whether the method uses nothing of trusted samples except their verified labels.
    accepts_noise_level : bool
        Whether its authors read the noise level from the generator of the noise. The class then
        has a parameter ``noise_rate``, which experiments "as published" set to the true one.
    reads_noisy_labels : bool
        Whether its accuracy depends on the noise. If not, curves show a horizontal line.
    aggregates_sources : bool
        Whether the method is for labels of several sources. It is not among the systems that
        experiments compare by default, whose samples have one given label.
    colour : str or None
        The colour of its curve, a name in `palette.LIGHT`; ``None``: the next unused one.
    """

    name: str
    title: str
    class_name: str | None = None
    module: str = ""
    short_title: str = ""
    needs_trusted: bool = False
    ignores_trusted: bool = False
    accepts_noise_level: bool = False
    reads_noisy_labels: bool = True
    aggregates_sources: bool = False
    colour: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "short_title", self.short_title or self.title)
        object.__setattr__(self, "module", self.module or self.name)


OURS = "pudistill"
"""The name of `PUDistillClassifier` with its default settings, where systems are compared."""

_RECORDS = [
    System(
        "given_labels",
        "trained on the given labels",
        short_title="given labels",
        colour="series-0",
    ),
    System(
        "trusted_only",
        "trained on the trusted labels only",
        short_title="trusted labels only",
        reads_noisy_labels=False,
        colour="series-2",
    ),
    System(
        "semi_supervised",
        "trained on the trusted labels and unlabelled pictures",
        short_title="semi-supervised",
        reads_noisy_labels=False,
    ),
    System("cross_entropy", "Cross Entropy", "CrossEntropyClassifier", ignores_trusted=True),
    System("mixup", "Mixup", "MixupClassifier", ignores_trusted=True),
    System("joint_optimization", "Joint Optimization", "JointOptimizationClassifier"),
    System("co_teaching", "Co-teaching", "CoTeachingClassifier", accepts_noise_level=True),
    System("loss_correction", "Loss Correction", "LossCorrectionClassifier"),
    System("jocor", "JoCoR", "JoCoRClassifier", accepts_noise_level=True),
    System("dividemix", "DivideMix", "DivideMixClassifier", accepts_noise_level=True),
    System("forward_correction", "Forward", "ForwardCorrectionClassifier"),
    System("l_dmi", "L_DMI", "LDMIClassifier", ignores_trusted=True),
    System(
        "gold_loss_correction",
        "Gold Loss Correction",
        "GoldLossCorrectionClassifier",
        needs_trusted=True,
        colour="series-3",
    ),
    System(
        "label_distillation",
        "Distillation of labels",
        "LabelDistillationClassifier",
        needs_trusted=True,
    ),
    System(
        "bootstrap_soft",
        "Bootstrap soft",
        "BootstrapSoftClassifier",
        module="robust_losses",
        ignores_trusted=True,
    ),
    System(
        "bootstrap_hard",
        "Bootstrap hard",
        "BootstrapHardClassifier",
        module="robust_losses",
        ignores_trusted=True,
    ),
    System(
        "mean_absolute_error",
        "Mean absolute error",
        "MeanAbsoluteErrorClassifier",
        module="robust_losses",
        ignores_trusted=True,
    ),
    System("backward_correction", "Backward", "BackwardCorrectionClassifier"),
    System(
        "generalised_cross_entropy",
        "Generalised Cross Entropy",
        "GeneralisedCrossEntropyClassifier",
        module="robust_losses",
        ignores_trusted=True,
    ),
    System(
        "symmetric_cross_entropy",
        "Symmetric Cross Entropy",
        "SymmetricCrossEntropyClassifier",
        module="robust_losses",
        ignores_trusted=True,
    ),
    System(
        "taylor_cross_entropy",
        "Taylor Cross Entropy",
        "TaylorCrossEntropyClassifier",
        module="robust_losses",
        ignores_trusted=True,
    ),
    System(
        "active_passive",
        "Active-passive loss",
        "ActivePassiveClassifier",
        module="robust_losses",
        ignores_trusted=True,
    ),
    System("sigua", "SIGUA", "SIGUAClassifier", accepts_noise_level=True),
    System("metacleaner", "MetaCleaner", "MetaCleanerClassifier", ignores_trusted=True),
    System("mlnt", "MLNT", "MLNTClassifier"),
    System("deepself", "DeepSelf", "DeepSelfClassifier"),
    System("cleannet", "CleanNet", "CleanNetClassifier", needs_trusted=True),
    System("mentornet", "MentorNet", "MentorNetClassifier", accepts_noise_level=True),
    System("meta_weight_net", "Meta-Weight-Net", "MetaWeightNetClassifier", needs_trusted=True),
    System("pencil", "PENCIL", "PENCILClassifier"),
    System("deep_bilevel", "Deep bilevel", "DeepBilevelClassifier"),
    System("noise_layer", "Noise layer", "NoiseLayerClassifier"),
    System("noise_layer_dropout", "Noise layer, dropout", "NoiseLayerDropoutClassifier"),
    System("majority_vote", "Majority vote", "MajorityVoteClassifier", aggregates_sources=True),
    System("dawid_skene", "Dawid and Skene", "DawidSkeneClassifier", aggregates_sources=True),
    System("label_model", "Label model", "LabelModelClassifier", aggregates_sources=True),
    System("crowdlab", "CROWDLAB", "CrowdlabClassifier", aggregates_sources=True),
    System("paper", "the paper's method", colour="series-4"),
    System("paper_told", "the paper's, told the level", colour="series-0"),
    System(OURS, "pudistill", colour="accent"),
    System(
        "true_labels",
        "trained with all labels right",
        short_title="all labels right",
        reads_noisy_labels=False,
        colour="muted",
    ),
]

SYSTEMS: dict[str, System] = {system.name: system for system in _RECORDS}
"""All systems by name, in the order in which reports and tables show them."""

METHODS: dict[str, System] = {
    system.name: system for system in _RECORDS if system.class_name is not None
}
"""The systems of `pudistill.methods`, by the name that the setting ``method`` takes."""


def title_of(name: str) -> str:
    """Return a system's title; for a name that is not registered, its words."""
    return SYSTEMS[name].title if name in SYSTEMS else name.replace("_", " ")


def load_class(name: str) -> Any:
    """Import a method's class.

    Parameters
    ----------
    name : str
        Name of the method or of its class, such as ``"co_teaching"`` or ``"CoTeachingClassifier"``.

    Returns
    -------
    cls : type
        Subclass of `pudistill.methods.base.Method`.

    Raises
    ------
    KeyError
        If no method has that name.
    InputError
        If PyTorch is needed and not installed.
    """
    for system in METHODS.values():
        if name in (system.name, system.class_name):
            with torch_extra():
                module = importlib.import_module(f"pudistill.methods.{system.module}")
            return getattr(module, str(system.class_name))
    raise KeyError(name)
