"""What the report needs of a label table, counted in blocks of rows: it may have 10⁸ rows."""

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pudistill.utils.formats import shortened

COLUMNS = (
    "id",
    "given",
    "trusted",
    "label",
    "changed",
    "source",
    "confidence",
    "votes",
    "outlier_score",
    "outlier",
)
FLAGS = ("trusted", "changed", "outlier")
SUREST, LEAST_SURE = 32, 16  # changed samples that the report shows
MAX_UNLIKE = 20  # samples unlike all classes that the report shows
N_BINS = 25  # of the histograms of confidence


class LabelCounts(NamedTuple):
    """Counts over a label table, and the few of its rows that the report shows.

    Attributes
    ----------
    n_samples, n_given, n_trusted, n_outliers : int
        Numbers of all samples, of those with a given label, of those whose label was verified, and
        of the outliers among all others.
    sources : Counter
        Number of samples by ``(source, changed)``.
    pairs : Counter
        Number of samples by ``(given label, label, changed)``; long names are shortened.
    confidence : dict of str to ndarray of shape (N_BINS,), int
        Histogram of the confidence in [0, 1], by source.
    surest, least_sure, unlike : DataFrame
        Rows of samples that nobody verified: the changed ones of highest and of lowest confidence
        (not among `surest`, the lowest last), and those with the highest ``outlier_score``.
    """

    n_samples: int
    n_given: int
    n_trusted: int
    n_outliers: int
    sources: Counter
    pairs: Counter
    confidence: dict[str, np.ndarray]
    surest: pd.DataFrame
    least_sure: pd.DataFrame
    unlike: pd.DataFrame

    @property
    def n_changed(self) -> int:
        """Number of samples whose given label was changed."""
        return sum(count for (_, changed), count in self.sources.items() if changed)


def count_labels(parts: Iterable[pd.DataFrame], shown: Collection[str] = ()) -> LabelCounts:
    """Count a label table that comes in parts, of which one is in memory at a time.

    Parameters
    ----------
    parts : iterable of DataFrame
        Rows of the label table; missing columns have no values.
    shown : collection of str, default=()
        Ids of the only changed samples to show; empty: any.

    Returns
    -------
    counts : LabelCounts
        They do not depend on how the table is cut.

    Examples
    --------
    >>> import pandas as pd
    >>> from pudistill.runs.report.counts import count_labels
    >>> part = pd.DataFrame({"given": ["cat", "cat"], "label": ["cat", "dog"],
    ...                      "changed": [False, True], "source": "filter"})
    >>> counts = count_labels([part, part])
    >>> counts.n_samples, counts.n_changed, counts.pairs["cat", "dog", True]
    (4, 2, 2)
    """
    numbers: Counter = Counter()
    sources: Counter = Counter()
    pairs: Counter = Counter()
    confidence: dict[str, np.ndarray] = {}
    changes = unlike = pd.DataFrame(columns=list(COLUMNS))
    for part in parts:
        part = part.reindex(columns=list(COLUMNS))
        trusted, changed, outlier = (_is_true(part[name]) for name in FLAGS)
        numbers.update(
            n_samples=len(part),
            n_given=int(part["given"].notna().sum()),
            n_trusted=int(trusted.sum()),
            n_outliers=int((outlier & ~trusted & part["outlier_score"].notna()).sum()),
        )
        sources.update(_count(part["source"], changed))
        pairs.update(_count(part["given"], part["label"], changed))
        for source, counts in _histograms(part).items():
            confidence[source] = confidence.get(source, 0) + counts
        of_shown = part["id"].astype(str).isin(shown) if shown else True
        changes = _both_ends(changes, part[changed & ~trusted & of_shown])
        unlike = _highest(unlike, part[~trusted & part["outlier_score"].notna()], "outlier_score")
        unlike = unlike.head(MAX_UNLIKE)
    return LabelCounts(
        **{name: numbers[name] for name in LabelCounts._fields[:4]},
        sources=sources,
        pairs=_with_short_names(pairs),
        confidence=confidence,
        surest=shortened(changes.head(SUREST)),
        least_sure=shortened(changes.iloc[SUREST:]),
        unlike=shortened(unlike),
    )


def _is_true(column: pd.Series) -> pd.Series:
    """Return whether each value is true; a missing value is not."""
    return column.eq(True).fillna(False).astype(bool)


def _count(*columns: pd.Series) -> dict[Any, int]:
    """Count the rows of each combination of values, in the order of their first rows."""
    return pd.concat(columns, axis=1).groupby([*columns], sort=False).size().to_dict()


def _histograms(part: pd.DataFrame) -> dict[str, np.ndarray]:
    known = part.dropna(subset=["source", "confidence"])
    confidence = known["confidence"].astype(float).clip(0, 1)
    return {
        source: np.histogram(values, bins=N_BINS, range=(0, 1))[0]
        for source, values in confidence.groupby(known["source"], sort=False)
    }


def _highest(known: pd.DataFrame, part: pd.DataFrame, column: str) -> pd.DataFrame:
    """Sort rows by a column, the highest value first; of equal values the first row."""
    rows = pd.concat([known, part]) if len(known) else part
    return rows.sort_values(column, ascending=False, kind="stable")


def _both_ends(known: pd.DataFrame, part: pd.DataFrame) -> pd.DataFrame:
    """Return the surest changes and then the least sure ones, of all rows so far."""
    rows = _highest(known, part, "confidence")
    return pd.concat([rows.head(SUREST), rows.iloc[SUREST:].tail(LEAST_SURE)])


def _with_short_names(pairs: Counter) -> Counter:
    short: Counter = Counter()
    for (given, label, changed), count in pairs.items():
        short[shortened(str(given)), shortened(str(label)), changed] += count
    return short
