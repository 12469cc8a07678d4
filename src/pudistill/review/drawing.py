"""Draws without replacement, partly at random, each with its known probability."""

from typing import NamedTuple

import numpy as np

RANDOM, CHOSEN = "random", "chosen"


class Drawn(NamedTuple):
    """Samples in the order in which they were drawn.

    Attributes
    ----------
    rows : ndarray of shape (n_draws,), int
        Their rows.
    weight : ndarray of shape (n_draws,)
        See `Draws`: 1 over the number of samples left times the probability of the draw.
    is_chosen : ndarray of shape (n_draws,), bool
        Whether a sample was drawn by its gain, not at random.
    """

    rows: np.ndarray
    weight: np.ndarray
    is_chosen: np.ndarray


def draw(gain: np.ndarray, n_draws: int, random_share: float, rng: np.random.Generator) -> Drawn:
    """Draw samples one after the other, from those that are left.

    Each draw is uniform with probability `random_share`, and otherwise in proportion to the gain.
    So no weight is above ``1 / random_share``, and any number of first draws is a valid sample.

    Parameters
    ----------
    gain : ndarray of shape (n_samples,)
        What it is worth to draw each sample, at least 0. If nothing is left that is worth anything,
        draws are uniform. NaN: the sample cannot be drawn.
    n_draws : int
        Number of draws, at most that of the samples that can be drawn.
    random_share : float in [0, 1]
        Share of uniform draws.
    rng : Generator
        Source of randomness.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.review.drawing import draw
    >>> drawn = draw(np.array([0.0, 0.0, 0.0, 1.0]), 1, 0.5, np.random.default_rng(0))
    >>> drawn.rows.tolist(), drawn.weight.tolist()
    ([3], [0.4])
    """
    gain, left = gain.astype(float), np.flatnonzero(~np.isnan(gain))
    of_left = gain[left]
    rows, weights = np.zeros(n_draws, dtype=int), np.ones(n_draws)
    is_chosen = np.zeros(n_draws, dtype=bool)
    for number in range(n_draws):
        reached = np.cumsum(of_left)
        total = float(reached[-1])
        n_left = len(left)
        is_uniform = total <= 0 or random_share == 1
        is_chosen[number] = not is_uniform and rng.random() >= random_share
        if is_chosen[number]:
            at = int(np.searchsorted(reached, rng.random() * total, side="right"))
            at = min(at, int(np.flatnonzero(of_left)[-1]))  # rounding
        else:
            at = int(rng.integers(n_left))
        if not is_uniform:
            share = n_left * of_left[at] / total
            weights[number] = 1 / (random_share + (1 - random_share) * share)
        rows[number] = left[at]
        left, of_left = np.delete(left, at), np.delete(of_left, at)
    return Drawn(rows, weights, is_chosen)
