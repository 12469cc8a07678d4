"""Votes of members on samples (equation 3), and the class that each accepted sample goes to."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from joblib import delayed
from scipy.special import expit

from pudistill.labels.checks import MISSING
from pudistill.learners.capabilities import continues_training
from pudistill.learners.linear import affine_map, scores
from pudistill.learners.parallel import in_order
from pudistill.learners.scoring import predict_proba, take
from pudistill.pu_filter.plan import Plan
from pudistill.pu_filter.rules import Rule
from pudistill.utils import arrays

# Samples that networks vote on in one task: enough to be worth sending to a worker.
NETWORKS_BLOCK = 2048


# To score all samples between the first and the last that is voted on is quicker than to copy those
# that are voted on, unless there are this many times as many.
LARGEST_SPAN = 1.5


# In place of the number of votes for a sample that could no longer be accepted.
STOPPED_EARLY = -1


class Tally(NamedTuple):
    """The result of a vote on n samples."""

    votes: np.ndarray  # (n,) int16, -1 where voting stopped early
    mean_proba: np.ndarray  # (n,) mean member probability; NaN if the sample is not accepted


def no_votes(n_samples: int) -> Tally:
    """Return the tally of a vote that accepts nothing."""
    return Tally(np.full(n_samples, STOPPED_EARLY, np.int16), np.full(n_samples, np.nan))


def vote_by_team(
    members: Sequence,
    views: Sequence,
    rows: np.ndarray,
    rule: Rule,
    plan: Plan,
    n_jobs: int | None,
) -> list[Tally]:
    """Let each team vote on samples (Algorithm 1, line 8).

    Parameters
    ----------
    members : sequence of length n_members
        Fitted members.
    views : sequence
        The samples: one view for all members, or one per team.
    rows : ndarray of shape (n_rows,), int
        Rows of the samples to vote on.
    rule : Rule
        The rule by which a team accepts a sample.
    plan : Plan
        The teams.
    n_jobs : int or None
        Number of blocks of samples that networks vote on at the same time.

    Returns
    -------
    tallies : list of Tally
        One for each team.
    """
    if rule.min_votes > len(plan.teams[0]) or len(rows) == 0:  # nothing can be accepted
        return [no_votes(len(rows)) for _ in plan.teams]
    are_networks = any(map(continues_training, members))
    # The block size must not depend on the number of workers: the last digits depend on it.
    size = NETWORKS_BLOCK if are_networks else arrays.BLOCK_SIZE
    starts = range(0, len(rows), size)
    tasks = (
        delayed(_vote_on_block)(members, views, rows[start : start + size], rule, plan)
        for start in starts
    )
    votes = arrays.empty((plan.n_teams, len(rows)), np.int16)
    mean_proba = arrays.empty(votes.shape)
    results = in_order(tasks, n_jobs if are_networks and len(starts) > 1 else 1)
    for start, tallies in zip(starts, results, strict=True):
        for team, tally in enumerate(tallies):
            votes[team, start : start + size] = tally.votes
            mean_proba[team, start : start + size] = tally.mean_proba
    return list(map(Tally, votes, mean_proba))


def _vote_on_block(
    members: Sequence, views: Sequence, rows: np.ndarray, rule: Rule, plan: Plan
) -> list[Tally]:
    score = member_scorer(members, views, rows, plan)
    return [
        cascade_vote(team, score, len(rows), rule.threshold, min(rule.min_votes, len(team)))
        for team in plan.teams
    ]


def member_scorer(
    members: Sequence, views: Sequence, rows: np.ndarray, plan: Plan
) -> Callable[[int, np.ndarray], np.ndarray]:
    """Return a function that scores samples by any member.

    Samples are read once for all members. Logistic regressions, the default members, score all
    samples at once, in one matrix product.

    Parameters
    ----------
    members, views, plan
        As for `vote_by_team`.
    rows : ndarray of shape (n_rows,), int
        Rows of the samples, in ascending order.

    Returns
    -------
    score : callable
        ``score(n, positions)`` returns the probabilities that member `n` gives to the samples
        ``rows[positions]``.
    """
    maps = {n: found for n in range(len(members)) if (found := affine_map(members[n])) is not None}
    span = slice(rows[0], rows[-1] + 1) if len(rows) else slice(0, 0)
    score_span = len(maps) == len(members)
    score_span &= span.stop - span.start <= LARGEST_SPAN * len(rows)
    score_span &= all(isinstance(view, np.ndarray) for view in views)
    blocks = [take(view, span if score_span else rows) for view in views]
    of_linear: dict[int, np.ndarray] = {}
    for number, block in enumerate(blocks):
        viewers = [n for n in range(number, len(members), len(blocks)) if n in maps]  # `Plan.view`
        if viewers and not isinstance(block, pd.DataFrame):
            of_block = scores([maps[n] for n in viewers], block)
            of_rows = of_block[:, rows - span.start] if score_span else of_block
            of_linear |= zip(viewers, expit(of_rows), strict=True)

    def score(n: int, positions: np.ndarray) -> np.ndarray:
        if n in of_linear:
            return of_linear[n][positions]
        return predict_proba(members[n], plan.view(blocks, n), 2, positions)[:, 1]

    return score


def accepted_by_team(tallies: Sequence[Tally]) -> np.ndarray:
    """Return which samples each team accepts: (n_teams, n_samples), bool."""
    return np.array([~np.isnan(tally.mean_proba) for tally in tallies])


def merge_teams(tallies: Sequence[Tally]) -> Tally:
    """Accept the samples that more than half of the teams accept.

    Votes are the sum, and probabilities the mean, over the teams that accept a sample.
    """
    if len(tallies) == 1:
        return tallies[0]
    n_samples = len(tallies[0].votes)
    votes, n_teams = np.zeros((2, n_samples), np.int16)
    proba = np.zeros(n_samples)
    for tally, accepted in zip(tallies, accepted_by_team(tallies), strict=True):
        votes[accepted] += tally.votes[accepted]
        proba[accepted] += tally.mean_proba[accepted]
        n_teams += accepted
    enough = n_teams > len(tallies) / 2
    votes[~enough] = STOPPED_EARLY
    proba[enough] /= n_teams[enough]
    proba[~enough] = np.nan
    return Tally(votes, proba)


def cascade_vote(
    members: Sequence,
    score: Callable[[Any, np.ndarray], np.ndarray],
    n_samples: int,
    threshold: float,
    min_votes: int,
) -> Tally:
    """Count members' votes, without scoring samples that can no longer be accepted.

    Once `n_members - min_votes + 1` members have not voted for a sample, it is not scored again.
    Exactly the samples are accepted that full voting accepts (paper, equation 3).

    Parameters
    ----------
    members : sequence of length n_members
        Voters.
    score : callable
        ``score(member, rows)`` returns the member's probabilities, of shape (len(rows),).
    n_samples : int
        Number of samples.
    threshold : float
        Probability from which a member votes for a sample, `α`.
    min_votes : int
        Votes that a sample needs to be accepted, `θ`.

    Returns
    -------
    tally : Tally
        ``votes`` of shape (n_samples,), int16, -1 where voting stopped early, and ``mean_proba`` of
        shape (n_samples,), NaN for samples that are not accepted.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.pu_filter.voting import cascade_vote
    >>> proba = np.array([[0.9, 0.2], [0.8, 0.9], [0.9, 0.9]])  # 3 members, 2 samples
    >>> cascade_vote([0, 1, 2], lambda n, rows: proba[n, rows], 2, 0.85, 2).votes.tolist()
    [2, 2]
    >>> cascade_vote([0, 1, 2], lambda n, rows: proba[n, rows], 2, 0.85, 3).votes.tolist()
    [-1, -1]
    """
    votes = np.zeros(n_samples, dtype=np.int16)
    total = np.zeros(n_samples)
    open_rows = np.arange(n_samples)  # samples that can still be accepted
    for n, member in enumerate(members, start=1):
        proba = score(member, open_rows)
        votes[open_rows] += proba >= threshold
        total[open_rows] += np.nan_to_num(proba)  # a member that diverged predicts NaN
        is_out = n - votes[open_rows] > len(members) - min_votes
        if n < len(members):
            votes[open_rows[is_out]] = STOPPED_EARLY
        open_rows = open_rows[~is_out]
    mean_proba = np.full(n_samples, np.nan)
    mean_proba[open_rows] = total[open_rows] / len(members)
    return Tally(votes, mean_proba)


class ClassAssignment:
    """Assignment of each sample to one of the classes that accept it (Algorithm 1, line 10).

    Parameters
    ----------
    n_samples : int
        Number of samples.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.pu_filter.voting import ClassAssignment
    >>> assignment, nan = ClassAssignment(4), np.nan
    >>> assignment.add_class(np.array([0.9, 0.9, 0.9, nan]))
    >>> assignment.add_class(np.array([nan, 0.95, 0.9, nan]))
    >>> labels, n_conflicts = assignment.resolve()
    >>> labels.tolist(), n_conflicts
    ([0, 1, -1, -1], 2)
    """

    def __init__(self, n_samples: int) -> None:
        self._labels = np.full(n_samples, MISSING, np.int32)
        self._highest = arrays.empty((n_samples,))
        self._highest[:] = -np.inf
        self._is_tied = np.zeros(n_samples, dtype=bool)
        self._is_disputed = np.zeros(n_samples, dtype=bool)
        self._n_classes = 0

    def add_class(self, mean_proba: np.ndarray) -> None:
        """Add the votes of the next class.

        Parameters
        ----------
        mean_proba : ndarray of shape (n_samples,)
            Mean member probability if the class accepts the sample, else NaN.
        """
        is_accepted = ~np.isnan(mean_proba)
        self._is_disputed |= is_accepted & (self._labels != MISSING)
        is_tied = mean_proba == self._highest
        is_higher = mean_proba > self._highest
        self._is_tied = is_tied | (self._is_tied & ~is_higher)
        self._labels[is_higher] = self._n_classes
        self._highest[is_higher] = mean_proba[is_higher]
        self._n_classes += 1

    def resolve(self) -> tuple[np.ndarray, int]:
        """Assign each sample to the class with the highest mean probability.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int
            Classes; -1 if no class accepts the sample, or two classes tie.
        n_conflicts : int
            Number of samples that more than one class accepts.
        """
        return np.where(self._is_tied, MISSING, self._labels), int(self._is_disputed.sum())
