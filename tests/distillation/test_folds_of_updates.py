"""Folds of samples that are verified after the first fit: no fold splits a group."""

from dataclasses import replace

import numpy as np
import pytest

from pudistill.distillation.earlier_fit import _with_new_samples
from pudistill.labels.checks import check_labels


@pytest.mark.parametrize(
    ("folds", "expected"),
    [
        ([0, -1, 1, 2, -1, -1], [0, 0, 1, 2]),  # the new sample joins its group's fold
        ([0, 1, 1, 2, -1, -1], [-1, -1, 1, 2]),  # there were no groups before
    ],
)
def test_groups_stay_whole(folds, expected):
    labels = check_labels(np.array(list("ababab")), np.array([True] * 4 + [False] * 2))
    labels = replace(labels, groups=np.array([0, 0, 1, 2, 3, 3]))
    dealt = _with_new_samples(np.array(folds), 3, labels, seed=0)
    assert dealt[:4].tolist() == expected
