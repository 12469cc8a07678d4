"""Paired comparisons: which test samples two methods predict right."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest


def packed(right: np.ndarray) -> str:
    """Write which samples were predicted right as hexadecimal digits, a bit a sample."""
    return np.packbits(right).tobytes().hex()


def unpacked(row: Any) -> np.ndarray:
    """Read from a result which test samples were predicted right."""
    bits = np.frombuffer(bytes.fromhex(row["right"]), dtype=np.uint8)
    return np.unpackbits(bits, count=int(row["n_test"])).astype(bool)


def difference(right: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return the difference of two accuracies on the same samples, and its standard error."""
    return mean_and_error(pd.Series(right.astype(float) - other))


def mean_and_error(values: pd.Series) -> tuple[float, float]:
    """Return the mean and its standard error; the latter is NaN for fewer than two values."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.count()))


def chance(right: np.ndarray, other: np.ndarray) -> float:
    """Return how often chance alone makes the other method lead by as much (McNemar's exact test).

    Examples
    --------
    >>> import numpy as np
    >>> from benchmarks.common.paired import chance
    >>> chance(np.zeros(5, dtype=bool), np.ones(5, dtype=bool))
    0.03125
    """
    ahead, behind = int((other & ~right).sum()), int((right & ~other).sum())
    if ahead + behind == 0:
        return 1.0
    return float(binomtest(ahead, ahead + behind, 0.5, alternative="greater").pvalue)
