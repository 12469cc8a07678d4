"""Learners: one way to train any classifier on targets, one way to predict.

Inside the package classes are codes 0 … C - 1 and labels are *targets*, rows that sum to 1. A
learner that takes soft targets (``accepts_soft_targets``, like `TorchClassifier`) gets the targets
themselves. Any other classifier gets weighted copies of the samples, which minimise the same
cross-entropy. Logistic regression on many samples is fitted without copies; see `linear`.
"""
