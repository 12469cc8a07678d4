"""Figures of what a classifier has learned, each drawn on an axis of matplotlib.

Every function takes ``ax=None``, draws in the present style of matplotlib, and returns the axis.
"""

from pudistill.plots.figures import (
    accepted_share,
    accuracy_curve,
    calibration,
    clean_set_growth,
    transition_matrix,
)

__all__ = [
    "accepted_share",
    "accuracy_curve",
    "calibration",
    "clean_set_growth",
    "transition_matrix",
]
