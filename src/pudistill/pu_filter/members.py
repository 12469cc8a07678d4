"""Members of the filter: their training sets (lines 4-6), their training (5, 7), their flaws."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pudistill.exceptions import RecoveredWarning, warn_user
from pudistill.labels.checks import MISSING
from pudistill.labels.pseudo_labels import one_hot
from pudistill.learners.capabilities import continues_training
from pudistill.learners.cross_fitting import calibrate_together
from pudistill.learners.scoring import take
from pudistill.learners.tasks import DivergedLearner, Training, train_all
from pudistill.pu_filter.plan import FilterInputs, Plan
from pudistill.pu_filter.voting import member_scorer
from pudistill.utils.progress import Advance

# Number of training sets on which members without probabilities are calibrated together.
CALIBRATION_SETS = 3


# Number of positives, and of negatives, of its training set on which a member is checked.
PROBE_SIZE = 32


DIVERGED = "knows nothing, as its training diverged"


class Iteration(NamedTuple):
    """Iteration `k` (from 0) for class `c`, with its number of workers and its progress."""

    c: int
    class_name: str
    k: int
    n_jobs: int | None
    advance: Advance

    def __str__(self) -> str:
        return f"class {self.class_name}, iteration {self.k + 1}"


class TrainingSet(NamedTuple):
    """The rows that a member learns from, and the weight of each negative."""

    positives: np.ndarray
    negatives: np.ndarray
    negative_weight: float

    @property
    def rows(self) -> np.ndarray:
        """Positives, then negatives."""
        return np.concatenate([self.positives, self.negatives])

    @property
    def targets(self) -> np.ndarray:
        """One-hot labels of `rows`: class 1 for positives."""
        return one_hot(np.repeat([1, 0], [len(self.positives), len(self.negatives)]), 2)

    @property
    def weights(self) -> np.ndarray | None:
        """Weights of `rows`; None if all are 1."""
        if self.negative_weight == 1:
            return None
        sizes = [len(self.positives), len(self.negatives)]
        return np.repeat([1.0, self.negative_weight], sizes)

    def weights_with(self, sample_weight: np.ndarray | None) -> np.ndarray | None:
        """Return `weights` times the weights of the samples, if they have any."""
        if sample_weight is None:
            return self.weights
        own = sample_weight[self.rows]
        return own if self.weights is None else own * self.weights


def draw_training_sets(
    inputs: FilterInputs, iteration: Iteration, noisy: np.ndarray, is_clean: np.ndarray
) -> list[TrainingSet]:
    """Draw the training set of each member (Algorithm 1, lines 4-6).

    Parameters
    ----------
    inputs : FilterInputs
        Samples and settings.
    iteration : Iteration
        Class and iteration. They decide, with the seed, what is drawn; the order of the work does
        not.
    noisy : ndarray of shape (n_noisy,), int
        Rows of `D_n`.
    is_clean : ndarray of shape (n_teams, n_noisy), bool
        The clean set of the class so far, as found by each team.

    Returns
    -------
    draws : list of TrainingSet
        One for each member, without the samples of the fold that its team leaves out.
    """
    verified, plan = inputs.verified, inputs.plan
    positives = np.flatnonzero(verified == iteration.c)  # D_c^(i)
    negatives = np.flatnonzero((verified != iteration.c) & (verified != MISSING))
    draws = []
    for n in range(plan.n_members):
        rng = np.random.default_rng([plan.seed, iteration.c, iteration.k, n])
        team = n % plan.n_teams
        # With groups, noisy samples are hidden, too: those of the groups of the fold.
        is_seen, found = inputs.folds != team, is_clean[team]
        is_noisy_seen = is_seen[noisy]
        draws.append(
            draw_training_set(
                rng,
                positives[is_seen[positives]],
                noisy[found & is_noisy_seen],
                negatives[is_seen[negatives]],
                noisy[~found & is_noisy_seen],
            )
        )
    return draws


def draw_training_set(
    rng: np.random.Generator,
    trusted_positives: np.ndarray,
    clean: np.ndarray,
    trusted_negatives: np.ndarray,
    unlabeled: np.ndarray,
) -> TrainingSet:
    """Draw the training set of one member (Algorithm 1, lines 4 and 6).

    Parameters
    ----------
    rng : Generator
        Source of randomness.
    trusted_positives, clean, trusted_negatives, unlabeled : ndarrays, int
        Rows to draw from: `D_c` of the class, its clean set so far, `D_c` of all other classes,
        and the rest of `D_n`.

    Returns
    -------
    training_set : TrainingSet
        Positives: all trusted positives and `m_k` clean samples. Negatives: as many, half of them
        trusted. If there are too few negatives of one kind, the other kind fills up; if there are
        too few of both together, negatives weigh more, so that both sides have equal weight. No row
        is drawn twice.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.pu_filter.members import draw_training_set
    >>> rng = np.random.default_rng(0)
    >>> pools = np.arange(4), np.arange(10, 12), np.arange(20, 40), np.arange(50, 90)
    >>> positives, negatives, weight = draw_training_set(rng, *pools)
    >>> len(positives), (negatives < 50).sum().item(), (negatives >= 50).sum().item(), weight
    (6, 3, 3, 1.0)
    """
    n_clean = min(len(trusted_positives), len(clean))  # m_k (line 4)
    positives = np.concatenate([trusted_positives, rng.choice(clean, n_clean, replace=False)])
    n_trusted = len(positives) // 2  # m'_k (line 4)
    n_unlabeled = len(positives) - n_trusted
    missing_trusted = max(0, n_trusted - len(trusted_negatives))
    missing_unlabeled = max(0, n_unlabeled - len(unlabeled))
    n_trusted = min(n_trusted + missing_unlabeled, len(trusted_negatives))
    n_unlabeled = min(n_unlabeled + missing_trusted, len(unlabeled))
    negatives = np.concatenate(
        [
            rng.choice(trusted_negatives, n_trusted, replace=False),  # N'' (line 6)
            rng.choice(unlabeled, n_unlabeled, replace=False),  # N' (line 6)
        ]
    )
    return TrainingSet(positives, negatives, len(positives) / len(negatives))


def train_members(
    inputs: FilterInputs, iteration: Iteration, draws: Sequence[TrainingSet], previous: Sequence
) -> list:
    """Train the members of one iteration (Algorithm 1, lines 5 and 7).

    Parameters
    ----------
    inputs : FilterInputs
        Samples, the estimator and settings.
    iteration : Iteration
        Class and iteration. They decide, with the seed, the members' seeds.
    draws : sequence of TrainingSet
        One for each member.
    previous : sequence of fitted estimators
        The members of the previous iteration; empty in the first iteration. Networks continue from
        their weights.

    Returns
    -------
    members : list of fitted estimators
        All have ``predict_proba``. A copy of another member of its team stands in for a member
        whose training failed.
    """
    plan = inputs.plan
    seeds = np.random.SeedSequence([plan.seed, iteration.c, iteration.k]).generate_state(
        plan.n_members
    )

    def task(n: int) -> Training:
        is_continued = bool(previous) and continues_training(previous[n])
        return Training(
            previous[n] if is_continued else inputs.estimator,
            take(plan.view(inputs.views, n), draws[n].rows),
            draws[n].targets,
            role="member",
            seed=int(seeds[n]) % 2**31,
            sample_weight=draws[n].weights_with(inputs.sample_weight),
            continued=is_continued,
            together=True,
            may_diverge=True,
            groups=None if inputs.groups is None else inputs.groups[draws[n].rows],
        )

    members = []
    for member in train_all(map(task, range(plan.n_members)), iteration.n_jobs):
        members.append(member)
        iteration.advance(1, detail=f"{iteration}, member {len(members)}")
    calibration_tasks = map(task, range(min(CALIBRATION_SETS, plan.n_members)))
    members = calibrate_together(members, calibration_tasks)
    return replace_flawed(members, find_flaws(members, inputs, draws), plan, str(iteration))


def find_flaws(
    members: Sequence, inputs: FilterInputs, draws: Sequence[TrainingSet]
) -> list[str | None]:
    """Say what is wrong with each member that diverged or votes alike for all; None: nothing."""
    probes = [np.r_[draw.positives[:PROBE_SIZE], draw.negatives[:PROBE_SIZE]] for draw in draws]
    rows = np.unique(np.concatenate(probes))
    score = member_scorer(members, inputs.views, rows, inputs.plan)
    return [_flaw(score(n, np.searchsorted(rows, probe))) for n, probe in enumerate(probes)]


def _flaw(scores: np.ndarray) -> str | None:
    if not np.isfinite(scores).all():
        return DIVERGED
    if (scores >= 0.5).all():
        return "votes for everything"
    return "votes for nothing" if (scores < 0.5).all() else None


def replace_flawed(members: list, flaws: Sequence[str | None], plan: Plan, where: str) -> list:
    """Replace members that would spoil the vote by copies of sound members of their team.

    If all members of a team are flawed, they abstain. If most members of the filter are flawed,
    none is replaced, because slow networks all vote alike in their first iterations; only members
    that diverged abstain.

    Parameters
    ----------
    members : list of fitted estimators
        All members.
    flaws : sequence of str or None
        What is wrong with each member; None: nothing.
    plan : Plan
        The teams.
    where : str
        Class and iteration, for the warning.

    Returns
    -------
    voters : list of fitted estimators
        One for each member.
    """
    flawed = {n: flaw for n, flaw in enumerate(flaws) if flaw is not None}
    are_few = 2 * len(flawed) <= len(members)
    named = flawed if are_few else {n: flawed[n] for n in flawed if flawed[n] == DIVERGED}
    if named:
        reasons = ", ".join(f"member {n + 1} {flaw}" for n, flaw in named.items())
        remedy = "others vote in their place, or none" if are_few else "they abstain"
        warn_user(f"In the filter, {where}, {reasons}: {remedy}.", RecoveredWarning)
    voters = list(members)
    if not are_few:
        return voters
    for team in plan.teams:
        sound = [n for n in team if n not in flawed]
        for n in flawed.keys() & team:
            # The next sound member of the team, or the first if there is none. A copy, because both
            # can be trained further.
            after = next((other for other in sound if other > n), sound[0] if sound else None)
            abstaining = DivergedLearner(n_classes=2)
            voters[n] = abstaining if after is None else copy.deepcopy(members[after])
    return voters
