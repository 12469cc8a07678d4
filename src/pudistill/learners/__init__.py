"""Learners: one way to train any classifier on targets, one way to predict.

Inside the package classes are codes 0 … C - 1 and labels are *targets*, rows that sum to 1. A
learner that takes soft targets (``accepts_soft_targets``, as `TorchClassifier`) gets them as they
are; any other classifier gets weighted copies, which minimise the same cross-entropy. Logistic
regression on many samples is fitted here, without copies; see `linear`.
"""
