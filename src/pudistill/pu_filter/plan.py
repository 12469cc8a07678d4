"""What all classes of a filter share: the settings, the teams, and the inputs."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from pudistill.exceptions import InputError
from pudistill.labels.checks import Labels
from pudistill.learners.linear import MANY_CLASSES
from pudistill.pu_filter.rules import DEFAULT_MIN_VOTES, DEFAULT_THRESHOLD

# The values that "auto" chooses from: of `α`, and of `θ` as a share of a team.
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
VOTE_SHARES = (0.5, 0.75, 1.0)


# Number of teams, and of folds of the trusted samples, if a rule is chosen.
N_TEAMS = 5


# Trusted samples per class from which on members of a team hardly differ, and two of them suffice.
# With 500 (CIFAR-10 features), ten members end within 0.1 points of twenty with three noises.
MANY_TRUSTED = 400


def at_most_needed(n_members: int, labels: Labels) -> int:
    """Return the number of members per class, fewer where more of them would only take time.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.labels.checks import check_labels
    >>> from pudistill.pu_filter.plan import at_most_needed
    >>> y = np.arange(1000) % 2
    >>> [at_most_needed(20, check_labels(y, np.arange(1000) < n)) for n in (700, 900)]
    [20, 10]
    """
    if labels.n_classes >= MANY_CLASSES:
        return min(n_members, N_TEAMS)
    if labels.drawn.sum() >= MANY_TRUSTED * labels.n_classes:
        return min(n_members, 2 * N_TEAMS)
    return n_members


class Plan(NamedTuple):
    """Settings of the filter, without "auto": the same for all classes.

    A team is a group of members that leave out the same fold of the trusted samples. Member `n`
    is in team ``n % n_teams``. If the rule is given, there is one team, which leaves out nothing.
    """

    n_members: int
    n_teams: int
    max_iter: int
    thresholds: tuple  # values of `α` to choose from; a single value if it is given
    vote_shares: tuple  # values of `θ` to choose from, as shares of a team; the same
    target_precision: float
    tol: float | None
    seed: int

    @property
    def teams(self) -> list[range]:
        """The members of each team."""
        return [range(team, self.n_members, self.n_teams) for team in range(self.n_teams)]

    def view(self, views: Sequence, n: int) -> Any:
        """Return the samples as member `n` sees them; `views` holds one view, or one per team."""
        return views[n % self.n_teams] if len(views) > 1 else views[0]


def make_plan(
    *,
    n_members: int,
    max_iter: int,
    threshold: float | str,
    min_votes: float | str,
    target_precision: float,
    tol: float | None,
    seed: int,
) -> Plan:
    """Make the plan from the parameters of a `TieredPUFilter`.

    Returns
    -------
    plan : Plan
        The settings; for each "auto", the values to choose from.

    Raises
    ------
    InputError
        If `min_votes` is a count above `n_members`.
    """
    n_teams = min(N_TEAMS, n_members) if "auto" in (threshold, min_votes) else 1
    if n_teams == 1:  # nothing can be held out, so nothing can be chosen
        threshold = DEFAULT_THRESHOLD if threshold == "auto" else threshold
        min_votes = DEFAULT_MIN_VOTES if min_votes == "auto" else min_votes
    if isinstance(min_votes, Integral):
        if min_votes > n_members:
            raise InputError(
                f"min_votes={min_votes} can never be reached with n_members={n_members}: ask for "
                f"at most {n_members} votes, or add members."
            )
        min_votes = int(min_votes) / n_members
    return Plan(
        n_members=n_members,
        n_teams=n_teams,
        max_iter=max_iter,
        thresholds=THRESHOLDS if threshold == "auto" else (threshold,),
        vote_shares=VOTE_SHARES if min_votes == "auto" else (min_votes,),
        target_precision=target_precision,
        tol=tol,
        seed=seed,
    )


class FilterInputs(NamedTuple):
    """Everything that the filters of all classes have in common."""

    views: Sequence  # the samples: one view for all members, or one per team
    eval_views: Sequence  # the same for `eval_set`; empty without it
    verified: np.ndarray  # (n_samples,) codes; -1 for noisy samples
    folds: np.ndarray  # (n_samples,) the team that a sample is hidden from; -1: no team
    estimator: Any  # template of the members
    plan: Plan
    held_out: np.ndarray  # (n_samples,) bool: trusted samples that a team is judged on
    classes: np.ndarray  # (n_classes,) class labels
    groups: np.ndarray | None = None  # (n_samples,) codes of groups
    sample_weight: np.ndarray | None = None  # (n_samples,) weights in the training of members
