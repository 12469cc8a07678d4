"""Other methods for noisy labels, with the interface of pudistill: ``fit(X, y, trusted=...)``.

Each class is imported when it is first used; `registry` has the list.
"""

from typing import TYPE_CHECKING, Any

from pudistill.methods.registry import METHODS as _METHODS
from pudistill.methods.registry import load_class

if TYPE_CHECKING:
    from pudistill.methods.backward_correction import (
        BackwardCorrectionClassifier as BackwardCorrectionClassifier,
    )
    from pudistill.methods.cleannet import CleanNetClassifier as CleanNetClassifier
    from pudistill.methods.co_teaching import CoTeachingClassifier as CoTeachingClassifier
    from pudistill.methods.cross_entropy import CrossEntropyClassifier as CrossEntropyClassifier
    from pudistill.methods.crowdlab import CrowdlabClassifier as CrowdlabClassifier
    from pudistill.methods.dawid_skene import DawidSkeneClassifier as DawidSkeneClassifier
    from pudistill.methods.deep_bilevel import DeepBilevelClassifier as DeepBilevelClassifier
    from pudistill.methods.deepself import DeepSelfClassifier as DeepSelfClassifier
    from pudistill.methods.dividemix import DivideMixClassifier as DivideMixClassifier
    from pudistill.methods.forward_correction import (
        ForwardCorrectionClassifier as ForwardCorrectionClassifier,
    )
    from pudistill.methods.gold_loss_correction import (
        GoldLossCorrectionClassifier as GoldLossCorrectionClassifier,
    )
    from pudistill.methods.jocor import JoCoRClassifier as JoCoRClassifier
    from pudistill.methods.joint_optimization import (
        JointOptimizationClassifier as JointOptimizationClassifier,
    )
    from pudistill.methods.l_dmi import LDMIClassifier as LDMIClassifier
    from pudistill.methods.label_distillation import (
        LabelDistillationClassifier as LabelDistillationClassifier,
    )
    from pudistill.methods.label_model import LabelModelClassifier as LabelModelClassifier
    from pudistill.methods.loss_correction import (
        LossCorrectionClassifier as LossCorrectionClassifier,
    )
    from pudistill.methods.majority_vote import MajorityVoteClassifier as MajorityVoteClassifier
    from pudistill.methods.mentornet import MentorNetClassifier as MentorNetClassifier
    from pudistill.methods.meta_weight_net import (
        MetaWeightNetClassifier as MetaWeightNetClassifier,
    )
    from pudistill.methods.metacleaner import MetaCleanerClassifier as MetaCleanerClassifier
    from pudistill.methods.mixup import MixupClassifier as MixupClassifier
    from pudistill.methods.mlnt import MLNTClassifier as MLNTClassifier
    from pudistill.methods.noise_layer import NoiseLayerClassifier as NoiseLayerClassifier
    from pudistill.methods.noise_layer_dropout import (
        NoiseLayerDropoutClassifier as NoiseLayerDropoutClassifier,
    )
    from pudistill.methods.pencil import PENCILClassifier as PENCILClassifier
    from pudistill.methods.robust_losses import (
        ActivePassiveClassifier as ActivePassiveClassifier,
    )
    from pudistill.methods.robust_losses import (
        BootstrapHardClassifier as BootstrapHardClassifier,
    )
    from pudistill.methods.robust_losses import (
        BootstrapSoftClassifier as BootstrapSoftClassifier,
    )
    from pudistill.methods.robust_losses import (
        GeneralisedCrossEntropyClassifier as GeneralisedCrossEntropyClassifier,
    )
    from pudistill.methods.robust_losses import (
        MeanAbsoluteErrorClassifier as MeanAbsoluteErrorClassifier,
    )
    from pudistill.methods.robust_losses import (
        SymmetricCrossEntropyClassifier as SymmetricCrossEntropyClassifier,
    )
    from pudistill.methods.robust_losses import (
        TaylorCrossEntropyClassifier as TaylorCrossEntropyClassifier,
    )
    from pudistill.methods.sigua import (
        SIGUAClassifier as SIGUAClassifier,
    )

__all__ = sorted(str(system.class_name) for system in _METHODS.values())


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pudistill.methods' has no attribute {name!r}")
    return load_class(name)


def __dir__() -> list[str]:
    return __all__
