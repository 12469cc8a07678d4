"""How good corrected labels are, and how true what is said of them."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from benchmarks.common.problems import Group
from pudistill.labels.checks import MISSING
from pudistill.labels.corruption import CorruptedLabels

FIFTHS = 5


def corrected(group: Group, noisy: CorruptedLabels, table: pd.DataFrame) -> dict[str, Any]:
    """Judge the corrected labels of the samples that nobody verified.

    Parameters
    ----------
    group : Group
        Samples with their right labels.
    noisy : CorruptedLabels
        Given labels.
    table : DataFrame
        A row for each sample, in order: ``label``, ``trusted``, ``given_quality``, the probability
        that the given label is right, and, if it is known, ``confidence``, that of ``label``.

    Returns
    -------
    result : dict
        Shares of right labels before and after, the average precision of finding wrong labels, and
        how true probabilities are; without those that are not known.
    """
    rows = np.flatnonzero(~table["trusted"].to_numpy(dtype=bool) & (noisy.would_be != MISSING))
    part, y = table.iloc[rows], group.y[rows]
    was_right, is_right = noisy.would_be[rows] == y, part["label"].to_numpy() == y
    result: dict[str, Any] = {
        "right_before": float(was_right.mean()),
        "right_after": float(is_right.mean()),
    }
    for name, happened in (("given_quality", was_right), ("confidence", is_right)):
        said = part.get(name, pd.Series(np.nan, part.index)).to_numpy(dtype=float)
        known = np.isfinite(said)  # nothing may be known
        if known.any():
            result[name] = truth_of(said[known], happened[known])
            if name == "given_quality" and not was_right[known].all():
                found = average_precision_score(~was_right[known], 1 - said[known])
                result["finds_wrong"] = float(found)
    return result


def truth_of(probability: np.ndarray, happened: np.ndarray) -> dict[str, Any]:
    """Compare stated probabilities with what happened: in the mean, by Brier score, by fifths.

    Examples
    --------
    >>> import numpy as np
    >>> from benchmarks.robustness.labels import truth_of
    >>> found = truth_of(np.full(10, 0.75), np.arange(10) < 5)
    >>> found["gap"], found["brier"], found["fifths"][0]
    (0.25, 0.3125, [0.75, 1.0])
    """
    order = np.argsort(probability, kind="stable")
    return {
        "said": float(probability.mean()),
        "gap": float(probability.mean() - happened.mean()),
        "brier": float(np.mean((probability - happened) ** 2)),
        "fifths": [  # [said, true]
            [float(probability[rows].mean()), float(happened[rows].mean())]
            for rows in np.array_split(order, FIFTHS)
            if len(rows)
        ],
    }
