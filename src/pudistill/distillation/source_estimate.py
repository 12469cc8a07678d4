"""The noise of each of several sources: how often its labels are wrong, with intervals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from pudistill.distillation.clusters import sample_worth
from pudistill.distillation.predictions import Predictions
from pudistill.distillation.source_model import SourceModel, representatives, weighted
from pudistill.distillation.transition import Originals
from pudistill.estimates.shares import (
    mean_interval,
    rectified_share,
    weighted_mean,
)
from pudistill.labels.checks import Labels
from pudistill.labels.pseudo_labels import PROBA_FLOOR
from pudistill.labels.sources import Sources
from pudistill.utils.arrays import BLOCK_SIZE, without_nan

# Sources whose correlation is at least this are listed as alike, at most so many pairs.
ALIKE, MOST_PAIRS = 0.3, 50

# Largest number of entries of all matrices that JSON gets.
MOST_ENTRIES = 200_000
BY_CLASS = ("class_rate", "class_rate_interval", "transition_matrix")


@dataclass(frozen=True, eq=False, repr=False)
class SourceNoise:
    """Noise in the labels that several sources gave to samples that nobody verified.

    Attributes
    ----------
    names : ndarray of shape (n_sources,)
        Names of the sources, in the order of all arrays below.
    n_labels, n_verified : ndarray of shape (n_sources,), int
        Labels of the source on samples that nobody verified, and on samples drawn to be verified.
    rate : ndarray of shape (n_sources,)
        Share of its labels that are wrong: the model's value, moved into the 50 % interval that
        its verified labels leave.
    rate_interval : ndarray of shape (n_sources, 2)
        Its 95 % interval. It holds under any noise if verified samples are a random sample; (0, 1)
        where no label of the source was verified.
    class_rate : ndarray of shape (n_sources, n_classes)
        Share of its labels that are wrong, by true class: the model's value, moved into the
        interval.
    class_rate_interval : ndarray of shape (n_sources, n_classes, 2)
        95 % intervals, likewise.
    transition_matrix : ndarray of shape (n_sources, n_classes, n_classes)
        `P(the source says j | true = c, it speaks)` according to the model.
    n_decided : ndarray of shape (n_sources,), int
        Labels that the model would change if the source, and its copies, had been silent.
    copy_of : list of str or None
        For each source, the source that it copies; None for others.
    alike : list of tuple (str, str, float)
        Pairs of sources that agree more often than their noise explains, and their correlation.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill import correct_labels
    >>> y, rng = np.arange(1000) % 2, np.random.default_rng(0)
    >>> is_wrong = rng.random((1000, 2)) < [0.1, 0.4]  # the second source errs more often
    >>> given = np.where(is_wrong, 1 - y[:, None], y[:, None])
    >>> verified = np.where(rng.random(1000) < 0.2, y, np.nan)
    >>> proba = np.where(y[:, None] == [0, 1], 0.9, 0.1)  # predictions of some model
    >>> correct_labels(given, proba, verified).noise.per_source.rate.round(1)
    array([0.1, 0.4])
    """

    names: np.ndarray
    n_labels: np.ndarray
    n_verified: np.ndarray
    rate: np.ndarray
    rate_interval: np.ndarray
    class_rate: np.ndarray
    class_rate_interval: np.ndarray
    transition_matrix: np.ndarray
    n_decided: np.ndarray
    copy_of: list[str | None]
    alike: list[tuple[str, str, float]]

    def __repr__(self) -> str:
        return repr(self.frame())

    def _repr_html_(self) -> str:
        return self.frame().to_html(escape=True)

    def frame(self) -> pd.DataFrame:
        """Return a row for each source: name, numbers of labels, rate with interval, copies."""
        return pd.DataFrame(
            {
                "source": self.names,
                "n_labels": self.n_labels,
                "n_verified": self.n_verified,
                "rate": self.rate,
                "rate_low": self.rate_interval[:, 0],
                "rate_high": self.rate_interval[:, 1],
                "n_decided": self.n_decided,
                "copy_of": self.copy_of,
            }
        ).set_index("source")

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as a dictionary for JSON, without matrices if these are large."""
        left_out = BY_CLASS if self.transition_matrix.size > MOST_ENTRIES else ()
        values = {name: without_nan(value) for name, value in vars(self).items()}
        return values | dict.fromkeys(left_out)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], n_classes: int) -> "SourceNoise":
        """Return the estimate that `to_dict` has written; matrices that it left out are NaN."""
        S, C = len(values["names"]), n_classes
        found: dict[str, Any] = {name: np.array(value) for name, value in values.items()}
        found["rate"] = np.array(values["rate"], dtype=float)
        for name, shape in zip(BY_CLASS, [(S, C), (S, C, 2), (S, C, C)], strict=True):
            left_out = values[name] is None
            found[name] = (
                np.full(shape, np.nan) if left_out else np.array(values[name], dtype=float)
            )
        alike = [(one, other, value) for one, other, value in values["alike"]]
        return cls(**found | {"copy_of": list(values["copy_of"]), "alike": alike})


def estimate_sources(
    labels: Labels,
    by_view: Sequence[Predictions],
    originals: Originals | None,
    *,
    is_known: bool = True,
) -> SourceNoise | None:
    """Estimate the noise of each source.

    Parameters
    ----------
    labels : Labels
        Labels of several sources, and verified labels.
    by_view : sequence of Predictions
        Those of all labels, then those of the views that hold verified samples out.
    originals : Originals or None
        Verified samples of which the sources say something.
    is_known : bool, default=True
        Whether the predictions say anything about the classes.

    Returns
    -------
    noise : SourceNoise or None
        None if there is one source only, or no label to estimate from.
    """
    sources, whole = labels.sources, by_view[0]
    rows = whole.view.labelled
    if sources is None or whole.noise.by_source is None or len(rows) == 0:
        return None
    # 1. Copies share the model of the source that they copy.
    of_kept = representatives(sources)
    kept = np.unique(of_kept)
    position = np.searchsorted(kept, of_kept)
    model = whole.noise.by_source
    matrices = model.matrices[position]
    # 2. Rates by verified labels, rectified by predictions; where there are none, by the model.
    annotations = _Annotations.of(sources, rows)
    n_labels = np.bincount(annotations.source, minlength=len(sources))
    rate = _mean_by(annotations.source, _wrong(whole, annotations), len(sources))
    interval = np.tile([0.0, 1.0], (len(sources), 1))
    class_interval = np.tile([0.0, 1.0], (len(sources), labels.n_classes, 1))
    verified = _Annotations.of(sources, np.flatnonzero(labels.drawn))
    weight = labels.drawn_weight()
    if originals is not None:
        controls = _controls(by_view, verified, annotations, len(sources))
        for s, of_source in _by_source(verified.source):
            part = verified.only(of_source)
            truth = labels.verified[part.row]
            groups = None if labels.groups is None else labels.groups[part.row]
            is_wrong, n_rest = part.code != truth, int(n_labels[s])
            worth = sample_worth(is_wrong, groups)
            of_part = None if weight is None else weight[part.row]
            share = rectified_share(
                is_wrong, controls[of_source], n_rest, worth=worth, weight=of_part
            )
            if n_rest:
                # Of a few verified labels, the model knows more than their share.
                rate[s], interval[s] = np.clip(rate[s], *share.middle), share.interval
                class_interval[s] = _class_intervals(
                    is_wrong, truth, groups, n_rest, labels.n_classes, of_part
                )
    class_rate = 1 - np.diagonal(matrices, axis1=1, axis2=2)
    if not (is_known or originals is not None):
        rate, class_rate = np.full_like(rate, np.nan), np.full_like(class_rate, np.nan)
    return SourceNoise(
        names=sources.names,
        n_labels=n_labels,
        n_verified=np.bincount(verified.source, minlength=len(sources)),
        rate=rate,
        rate_interval=interval,
        class_rate=np.clip(class_rate, *np.moveaxis(class_interval, -1, 0)),
        class_rate_interval=class_interval,
        transition_matrix=matrices,
        n_decided=_decided(whole, model, rows)[position],
        copy_of=[
            None if number == first else str(sources.names[first])
            for number, first in enumerate(of_kept)
        ],
        alike=_alike(model, sources.names[kept]),
    )


@dataclass(frozen=True, eq=False)
class _Annotations:
    """Labels of sources, one entry for each."""

    row: np.ndarray
    source: np.ndarray
    code: np.ndarray

    @classmethod
    def of(cls, sources: Sources, rows: np.ndarray) -> "_Annotations":
        said = sources.take(rows).said
        source, code = np.divmod(said.indices, sources.n_classes)
        return cls(np.repeat(rows, np.diff(said.indptr)), source, code)

    def only(self, kept: np.ndarray) -> "_Annotations":
        """Return some entries, a mask or positions."""
        return _Annotations(*(values[kept] for values in vars(self).values()))


def _mean_by(source: np.ndarray, values: np.ndarray, n_sources: int) -> np.ndarray:
    n = np.bincount(source, minlength=n_sources)
    total = np.bincount(source, values, n_sources)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def _by_source(source: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each source, and the positions of its entries."""
    order = np.argsort(source, kind="stable")
    found, first = np.unique(source[order], return_index=True)
    yield from zip(found.tolist(), np.split(order, first[1:]), strict=True)


def _decided(predictions: Predictions, model: SourceModel, rows: np.ndarray) -> np.ndarray:
    """Count the labels at `rows` that the model would change without each source."""
    decided = np.zeros(len(model.speaks), dtype=int)
    for start in range(0, len(rows), BLOCK_SIZE // 4):
        block = rows[start : start + BLOCK_SIZE // 4]
        logs, row, source, added = _parts(model, block)
        logs += np.log(predictions.proba[block] + PROBA_FLOOR)
        differs = (logs[row] - added).argmax(axis=1) != logs.argmax(axis=1)[row]
        decided += np.bincount(source[differs], minlength=len(decided))
    return decided


def _parts(model: SourceModel, rows: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the log-likelihood at `rows`; row, source, and addition of each annotation."""
    said = csr_array(model.sources.said[rows])
    weighted_said = weighted(said, model.correlation)
    row = np.repeat(np.arange(len(rows)), np.diff(said.indptr))
    added = weighted_said.data[:, None] * model.of_labels[said.indices]
    added += model.of_speaking[said.indices]
    source = said.indices // model.sources.n_classes
    return model.log_likelihood(said, weighted_said), row, source, added


def _blocks(row: np.ndarray) -> list[slice]:
    """Cut annotations, sorted by sample, into parts that do not split a sample."""
    first = np.flatnonzero(np.diff(row, prepend=-1))
    ends = [*first[:: BLOCK_SIZE // 4], len(row)]
    return [slice(*ends_of_part) for ends_of_part in pairwise(ends)]


def _controls(
    by_view: Sequence[Predictions],
    verified: _Annotations,
    annotations: _Annotations,
    n_sources: int,
) -> np.ndarray:
    """Predict how probably each label of verified samples is wrong, by views that hold them out.

    The mean of the predictions for the source's other labels is subtracted.
    """
    controls = np.full(len(verified.row), np.nan)
    for predictions in by_view[1:]:
        held_out = np.isin(verified.row, predictions.view.held_out)
        if not held_out.any():
            continue
        # A network has not read what is said of the samples that it holds out, nor of these.
        alike = annotations
        if predictions.view.unread is not None:
            alike = annotations.only(np.isin(annotations.row, predictions.view.unread))
        mean = _mean_by(alike.source, _wrong(predictions, alike), n_sources)
        part = verified.only(held_out)
        controls[held_out] = _wrong(predictions, part) - mean[part.source]
    return controls


def _wrong(predictions: Predictions, annotations: _Annotations) -> np.ndarray:
    """Return how probably each label is wrong according to a view."""
    wrong = np.empty(len(annotations.row))
    for part in _blocks(annotations.row):
        rows, number = np.unique(annotations.row[part], return_inverse=True)
        shown = np.zeros(len(rows), dtype=int)  # any code: what the sources said counts
        posterior = predictions.posterior(rows, shown)
        wrong[part] = 1 - posterior[number, annotations.code[part]]
    return wrong


def _class_intervals(
    is_wrong: np.ndarray,
    truth: np.ndarray,
    groups: np.ndarray | None,
    n_rest: int,
    n_classes: int,
    weight: np.ndarray | None,
) -> np.ndarray:
    """Return the interval of each true class for one source, (0, 1) where nothing was verified."""
    intervals = np.tile([0.0, 1.0], (n_classes, 1))
    for c in np.unique(truth):
        in_class = truth == c
        intervals[c] = mean_interval(
            is_wrong[in_class],
            None if weight is None else weight[in_class],
            n_rest=max(n_rest * weighted_mean(in_class, weight), 1.0),
            worth=sample_worth(is_wrong[in_class], None if groups is None else groups[in_class]),
        )
    return intervals


def _alike(model: SourceModel, names: np.ndarray) -> list[tuple[str, str, float]]:
    """List the pairs of sources that agree most beyond their noise."""
    found = np.triu(model.correlation, 1)
    pairs = np.argwhere(found >= ALIKE)
    order = np.argsort(-found[tuple(pairs.T)], kind="stable")[:MOST_PAIRS]
    return [(str(names[s]), str(names[t]), float(found[s, t])) for s, t in pairs[order]]
