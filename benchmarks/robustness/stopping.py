"""Simulated reviews that look often: whether promises are true whenever one stops."""

from typing import Any, NamedTuple

import numpy as np

from pudistill.distillation.held_out_labels import HeldOutLabels
from pudistill.estimates.certificates import Curve, accept
from pudistill.estimates.shares import rectified_share
from pudistill.review.drawing import draw
from pudistill.review.promises import Decided, Judged, last_look, promises_of

N_SAMPLES, N_OF_FIT, N_REVIEWED = 2000, 60, 400
BATCH = 10  # verified samples between two looks of the plain bounds
MAX_ERROR = 0.05


TITLES = {
    "labels_right": "labels right, error spent over looks",
    "rate": "noise rate, error spent over looks",
    "certified": "certificate, error spent over looks",
    "plain": "labels right, plain bounds",
    "plain_certified": "certificate, plain bounds",
}


class Broken(NamedTuple):
    """Whether a promise was false at any look."""

    labels_right: bool
    rate: bool
    certified: bool
    plain: bool  # 95 % intervals of the labels after every batch
    plain_certified: bool


def simulate(seed: int) -> Broken:
    """Review a simulated run to the end, looking after every batch."""
    rng = np.random.default_rng(seed)
    n, every = N_SAMPLES, np.arange(N_SAMPLES)
    score = 1 - 0.5 * rng.random(n) ** 3
    is_right = rng.random(n) < score ** rng.uniform(0.5, 1.5)  # models are too sure, or not enough
    wrong_proba = np.where(rng.random(n) < 0.3, 0.8, 0.1)
    given_wrong = rng.random(n) < wrong_proba
    label, truth = np.zeros(n, dtype=int), np.where(is_right, 0, 1)
    of_fit = rng.permutation(n)[:N_OF_FIT]
    trusted = np.isin(every, of_fit)
    judged = Judged(
        HeldOutLabels(label, score, 1.0, None),
        np.where(trusted, truth, -1),
        np.where(trusted, given_wrong, np.nan),
        np.where(trusted, np.nan, wrong_proba),
        trusted,
    )
    gain = np.where(trusted, np.nan, (1 - score) ** 2 + 1e-4)
    drawn = draw(gain, N_REVIEWED, 0.5, rng)
    rows = drawn.rows
    decided = Decided(
        rows,
        truth[rows],
        given_wrong[rows].astype(float),
        drawn.weight,
        np.zeros(N_REVIEWED, dtype=bool),
    )
    broken = dict.fromkeys(Broken._fields, False)
    sizes = looks()
    for size in sizes:
        found = promises_of(judged, decided.first(size - N_OF_FIT), max_errors=(MAX_ERROR,))
        rest = np.setdiff1d(every, [*of_fit, *rows[: size - N_OF_FIT]])
        broken["labels_right"] |= not _holds(found.labels_right, is_right[rest])
        broken["rate"] |= not _holds(found.rate, given_wrong[rest])
        n_accepted = found.certified[0].n_accepted
        broken["certified"] |= _is_false(n_accepted, score, is_right, rest)
    # The same with uniform draws and a plain bound after every batch.
    order = np.concatenate([of_fit, rng.permutation(np.flatnonzero(~trusted))])
    for n_seen in range(N_OF_FIT, N_OF_FIT + N_REVIEWED + 1, BATCH):
        seen, rest = order[:n_seen], order[n_seen:]
        share = rectified_share(is_right[seen], score[seen] - score[rest].mean(), len(rest))
        broken["plain"] |= not _holds(share, is_right[rest])
        curve = Curve.of(score[seen], ~is_right[seen], score[rest])
        n_accepted = accept(curve, MAX_ERROR).n_accepted
        broken["plain_certified"] |= _is_false(n_accepted, score, is_right, rest)
    return Broken(**broken)


def looks() -> list[int]:
    """List the numbers of verified samples at which promises are made."""
    sizes = [N_OF_FIT]
    while (following := last_look(N_OF_FIT, sizes[-1])[2]) <= N_OF_FIT + N_REVIEWED:
        sizes.append(following)
    return sizes


def _holds(share: Any, outcomes: np.ndarray) -> bool:
    low, high = share.interval
    return bool(low <= outcomes.mean() <= high)


def _is_false(n_accepted: int, score: np.ndarray, is_right: np.ndarray, rest: np.ndarray) -> bool:
    accepted = rest[np.argsort(-score[rest], kind="stable")[:n_accepted]]
    return n_accepted > 0 and bool((~is_right[accepted]).mean() > MAX_ERROR)
