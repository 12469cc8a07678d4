"""A part of the samples of a logistic regression: what is summed over all, summed over these."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse
from scipy.special import expit

# Samples up to this size are kept for all steps of a fit; others are read anew in each step.
KEPT_BYTES = 2**26


# Most parts of a fit: each step adds up a gradient of each part, in their order. The number of
# workers that share the parts does not change the result.
MAX_PARTS = 64


class Block(NamedTuple):
    """Some samples of a fit.

    Attributes
    ----------
    load : callable
        Returns the samples, of shape (n, n_features).
    rows : slice
        Which of all samples of the fit they are.
    """

    load: Callable[[], Any]
    rows: slice


class Centring(NamedTuple):
    """What samples need before they are multiplied; None: nothing."""

    mean: np.ndarray | None  # (n_features,) to be subtracted
    dtype: np.dtype | None

    def apply(self, block: Any) -> Any:
        """Return a block of samples around their mean, in the precision of the products."""
        if self.mean is not None:
            with np.errstate(invalid="ignore"):  # infinite samples: the caller says so
                block = block - self.mean.astype(block.dtype)
        return block if self.dtype is None else block.astype(self.dtype, copy=False)


UNCHANGED = Centring(None, None)


class LogisticPart:
    """Consecutive samples of a fit; every method adds up something over them, block by block.

    A part remembers nothing but samples that it has read, so that a node of a cluster can start
    anew in the middle of a fit. The centring is that of all samples of the fit.

    Parameters
    ----------
    blocks : sequence of Block
        The samples.
    targets : ndarray of shape (n_samples, n_classes)
        Targets of the samples of this part.
    sample_weight : ndarray of shape (n_samples,) or None
        Their weights.
    keeps : bool
        Whether the samples stay in memory once they are read.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        targets: np.ndarray,
        sample_weight: np.ndarray | None,
        keeps: bool,
    ) -> None:
        self._blocks, self._keeps = blocks, keeps
        self._targets, self._sample_weight = targets, sample_weight
        self._start = blocks[0].rows.start
        self._kept: list[tuple[Any, slice]] | None = None
        self._is_centred = False

    def moments(self, origin: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Return the sums of the samples and of their squares, both from `origin`, and number."""
        total, squares, n = np.zeros(len(origin)), np.zeros(len(origin)), 0
        with np.errstate(invalid="ignore", over="ignore"):
            for block, _ in self._samples(UNCHANGED):
                shifted = block - origin  # exactly 0 where a feature is constant
                total += shifted.sum(axis=0, dtype=float)
                squares += np.einsum("ij,ij->j", shifted, shifted).astype(float)
                n += len(block)
        return total, squares, n

    def of_targets(self, centring: Centring, n_scores: int) -> np.ndarray:
        """Return the sum of target times sample, with a 1 behind the features."""
        total: Any = 0.0
        for block, rows in self._samples(centring):
            targets = self._targets[rows, -n_scores:]
            if self._sample_weight is not None:
                targets = targets * self._sample_weight[rows, None]
            with np.errstate(invalid="ignore"):
                product = block.T @ targets.astype(block.dtype)
            total += np.column_stack([product.T, targets.sum(axis=0)]).astype(float)
        return total

    def loss(self, centring: Centring, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the sum of `log Σ꜀ exp(s꜀)` over the samples, and its gradient."""
        value, gradient = 0.0, np.zeros(weights.shape)
        for block, rows in self._samples(centring):
            losses, proba = _normalised(_scores(weights, block))
            if self._sample_weight is not None:
                weight = self._sample_weight[rows].astype(proba.dtype)
                losses, proba = losses * weight, proba * weight
            value += float(losses.sum(dtype=float))
            gradient[:, :-1] += (block.T @ proba.T).T if issparse(block) else proba @ block
            gradient[:, -1] += proba.sum(axis=1, dtype=float)
        return value, gradient

    def sample(self, centring: Centring, step: int) -> Any:
        """Return those samples whose place among all samples of the fit is a multiple of `step`."""
        parts = []
        for block, rows in self._samples(centring):
            first = -(self._start + rows.start) % step
            parts.append(block[first::step].copy())  # a view would keep the whole block in memory
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _samples(self, centring: Centring) -> Iterator[tuple[Any, slice]]:
        """Yield centred samples in blocks, each with its slice of the targets."""
        if not self._keeps:
            yield from self._read(centring)
            return
        if self._kept is None:
            self._kept = list(self._read(centring))
        elif not self._is_centred:
            for number, (block, rows) in enumerate(self._kept):  # there is no second copy of all
                self._kept[number] = centring.apply(block), rows
        self._is_centred = centring.mean is not None
        yield from self._kept

    def _read(self, centring: Centring) -> Iterator[tuple[Any, slice]]:
        for load, rows in self._blocks:
            yield centring.apply(load()), slice(rows.start - self._start, rows.stop - self._start)


def parts_of(
    blocks: Sequence[Block],
    targets: np.ndarray,
    sample_weight: np.ndarray | None,
    n_bytes: int,
) -> list[LogisticPart]:
    """Cut the samples of a fit, of `n_bytes`, into parts.

    The parts depend on the samples alone, and not on who will share them.
    """
    size, parts = -(-len(blocks) // MAX_PARTS), []
    for start in range(0, len(blocks), size):
        of_part = blocks[start : start + size]
        rows = slice(of_part[0].rows.start, of_part[-1].rows.stop)
        weight = None if sample_weight is None else sample_weight[rows]
        parts.append(LogisticPart(of_part, targets[rows], weight, n_bytes <= KEPT_BYTES))
    return parts


def _scores(weights: np.ndarray, block: Any) -> np.ndarray:
    """Return scores of shape (n_scores, n): numpy is slow along short rows.

    The product has the samples first: the other way around takes two to three times as long.
    """
    return np.ascontiguousarray((block @ weights[:, :-1].T).T) + weights[:, -1:]


def _normalised(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `log Σ exp(score)` of each sample, and probabilities in place of the scores."""
    if len(scores) == 1:
        return np.logaddexp(0, scores[0]), expit(scores)
    highest = scores.max(axis=0)
    scores -= highest
    np.exp(scores, out=scores)
    total = scores.sum(axis=0)
    scores /= total
    return np.log(total) + highest, scores
