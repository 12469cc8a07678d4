"""Other methods, each with ours' interface: ``fit(X, y, trusted=...)``."""

from pudistill.methods.gold_loss_correction import GoldLossCorrectionClassifier

__all__ = ["GoldLossCorrectionClassifier"]
