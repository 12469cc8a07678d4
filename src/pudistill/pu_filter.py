"""The tiered positive-unlabeled filter: lines 1-10 of Algorithm 1 (paper, section III-A)."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from joblib import Memory, delayed, effective_n_jobs
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _num_samples

from pudistill import learners, rowwise
from pudistill.exceptions import InputError, RecoveredWarning, warn_user
from pudistill.learners.linear import affine_map, probabilities
from pudistill.model_selection import deal_folds
from pudistill.progress import Advance, ignore, stage
from pudistill.pseudo_labels import one_hot
from pudistill.units import NOWHERE, Checkpoint, keeping, kept
from pudistill.validation import MISSING, check_features, check_samples
from pudistill.workers import one_thread

# The paper's rule, section IV-C.
DEFAULT_THRESHOLD, DEFAULT_MIN_VOTES = 0.9, 0.95
# The precision that a rule is expected to have before any sample was seen, and the number of
# samples that this expectation weighs as much as. With a few trusted samples a class, one mistake
# proves nothing; with hundreds the samples decide.
PRIOR_PRECISION, PRIOR_SAMPLES = 0.99, 20


class Rule(NamedTuple):
    """The rule by which a team accepts a sample."""

    threshold: float  # `α`
    min_votes: int  # `θ`, among the members of a team
    precision: float  # on held-out trusted samples; NaN if not measured


def choose_rule(
    scores: np.ndarray,
    positive: np.ndarray,
    thresholds: Sequence[float],
    vote_shares: Sequence[float],
    target_precision: float,
) -> Rule:
    """Choose the rule with the largest gain: accepted samples times precision above the target.

    So a rule below the target precision loses, and among those above it more samples may make up
    for a lower precision. Precisions are shrunk towards `PRIOR_PRECISION`, as if `PRIOR_SAMPLES`
    further samples had been seen.

    Parameters
    ----------
    scores : ndarray of shape (n_members, n_samples)
        Members' probabilities of the class for trusted samples that they have not learned from.
    positive : ndarray of shape (n_samples,), bool
        Whether each sample is of the class.
    thresholds, vote_shares : sequence of float
        Values of `α`, and of `θ` as a share of the members, to choose from.
    target_precision : float
        Precision that the accepted samples are to have.

    Returns
    -------
    rule : Rule
        Among rules of equal gain the strictest; if none accepts any sample, the laxest, so that
        the clean set may still grow. If no rule reaches the target, a rule that accepts nothing:
        it needs more votes than there are members, and its precision is NaN. If no sample is
        positive, the paper's rule.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.pu_filter import choose_rule
    >>> scores = np.array([[0.95, 0.7, 0.75, 0.1], [0.9, 0.8, 0.4, 0.2]])
    >>> positive = np.array([True, True, False, False])
    >>> choose_rule(scores, positive, [0.5, 0.7, 0.9], [0.5, 1.0], 0.9)[:2]
    (0.7, 2)
    """
    n_members = len(scores)
    if not positive.any():  # the class has too few trusted samples to hold any out
        return Rule(DEFAULT_THRESHOLD, votes_needed(DEFAULT_MIN_VOTES, n_members), np.nan)
    best, best_gain = Rule(max(thresholds), n_members + 1, np.nan), 0.0
    for threshold in sorted(thresholds, reverse=True):
        votes = (scores >= threshold).sum(axis=0)
        for share in sorted(vote_shares, reverse=True):
            min_votes = votes_needed(share, n_members)
            is_accepted = votes >= min_votes
            n_right, n_accepted = int((is_accepted & positive).sum()), int(is_accepted.sum())
            precision = (n_right + PRIOR_SAMPLES * PRIOR_PRECISION) / (n_accepted + PRIOR_SAMPLES)
            gain = n_accepted * (precision - target_precision)
            if gain > best_gain or gain == best_gain == 0:  # 0: so far no rule accepts anything
                measured = precision if n_accepted else np.nan
                best, best_gain = Rule(threshold, min_votes, measured), gain
    return best


def votes_needed(share: float, n_members: int) -> int:
    """Return the smallest number of votes that is at least a share of the members."""
    return max(1, math.ceil(share * n_members - 1e-9))


# The values among which "auto" chooses: of `α`, and of `θ` as a share of a team.
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
VOTE_SHARES = (0.5, 0.75, 1.0)
# Teams, and so folds of the trusted samples, if a rule is to be chosen.
N_TEAMS = 5


class Plan(NamedTuple):
    """Settings of the filter, resolved: the same for all classes.

    A team is a group of members that leave out the same fold of the trusted samples. Member `n`
    is in team ``n % n_teams``. If the rule is given there is one team, which leaves out nothing.
    """

    n_members: int
    n_teams: int
    max_iter: int
    thresholds: tuple  # values of `α` to choose from; one if it is given
    vote_shares: tuple  # values of `θ` to choose from, as shares of a team
    target_precision: float
    tol: float | None
    seed: int

    @property
    def teams(self) -> list[range]:
        """The members of each team."""
        return [range(team, self.n_members, self.n_teams) for team in range(self.n_teams)]

    def view(self, views: Sequence, n: int) -> Any:
        """Return the samples as member `n` sees them; `views` holds one for all, or one a team."""
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
    """Resolve the parameters of a `TieredPUFilter`, whose names they have.

    Returns
    -------
    plan : Plan
        Without "auto": each setting is a value, or the values to choose from.

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

    views: Sequence  # the samples: one view for all members, or one a team
    eval_views: Sequence  # the same of `eval_set`; empty without one
    verified: np.ndarray  # (n_samples,) codes; -1 for noisy samples
    folds: np.ndarray  # (n_samples,) the team that leaves a trusted sample out; -1: none
    estimator: Any  # the members, not fitted
    plan: Plan


class Embeddings(NamedTuple):
    """The samples as the last layer of each team's network gets them."""

    samples: np.ndarray  # (n_teams, n_samples, n_hidden), float32
    eval_samples: np.ndarray  # (n_teams, n_eval, n_hidden)


def with_shared_trunks(inputs: FilterInputs, n_jobs: int | None) -> FilterInputs:
    """Replace samples by embeddings, one view a team, and networks by logistic regressions."""
    embed = kept(_embed, ignore=["n_jobs"])
    embeddings = embed(inputs, n_jobs)
    return inputs._replace(
        views=list(embeddings.samples),
        eval_views=list(embeddings.eval_samples) if inputs.eval_views else [],
        estimator=learners.default_learner(embeddings.samples[0]),
    )


def _embed(inputs: FilterInputs, n_jobs: int | None = None) -> Embeddings:
    """Train a network for each team to classify the trusted samples outside its fold."""
    (X,), verified, plan = inputs.views, inputs.verified, inputs.plan
    targets = one_hot(verified, verified.max() + 1)
    rows_of_teams = [
        np.flatnonzero((verified != MISSING) & (inputs.folds != team))
        for team in range(plan.n_teams)
    ]
    tasks = (
        learners.Training(
            inputs.estimator, X, targets[rows], rows=rows, role="teacher", seed=plan.seed
        )
        for rows in rows_of_teams
    )
    samples, eval_samples = [], []
    with stage("trunks", plan.n_teams) as advance:
        for trunk in learners.train_all(tasks, n_jobs):
            samples.append(learners.embed(trunk, X))
            eval_samples += [learners.embed(trunk, eval_set) for eval_set in inputs.eval_views]
            advance(1)
    return Embeddings(
        stack_teams(samples), stack_teams(eval_samples) if eval_samples else np.array([])
    )


def stack_teams(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack one array a team; a large result is in a temporary file."""
    return np.stack(arrays, out=rowwise.empty((len(arrays), *arrays[0].shape), arrays[0].dtype))


# Training sets on which members without probabilities are calibrated, all members together.
CALIBRATION_SETS = 3
# Positives, and negatives, of a member's training set on which the member is checked.
PROBE_SIZE = 32
DIVERGED = "knows nothing, as its training diverged"


class Iteration(NamedTuple):
    """Iteration `k` (from 0) for class `c`, and how its work is run."""

    c: int
    k: int
    n_jobs: int | None
    advance: Advance

    def __str__(self) -> str:
        return f"class {self.c + 1}, iteration {self.k + 1}"


class TrainingSet(NamedTuple):
    """The rows that one member learns from, and the weight of each negative."""

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


def draw_training_sets(
    inputs: FilterInputs, iteration: Iteration, noisy: np.ndarray, is_clean: np.ndarray
) -> list[TrainingSet]:
    """Draw the training set of each member (Algorithm 1, lines 4-6).

    Parameters
    ----------
    inputs : FilterInputs
        Samples and settings.
    iteration : Iteration
        Decides, with the seed, what is drawn: the same whatever else runs before or beside it.
    noisy : ndarray of shape (n_noisy,), int
        Rows of `D_n`.
    is_clean : ndarray of shape (n_teams, n_noisy), bool
        The clean set of the class so far, as each team has found it.

    Returns
    -------
    draws : list of TrainingSet
        One for each member. None has a trusted sample of its team's fold.
    """
    verified, plan = inputs.verified, inputs.plan
    positives = np.flatnonzero(verified == iteration.c)  # D_c^(i)
    negatives = np.flatnonzero((verified != iteration.c) & (verified != MISSING))
    draws = []
    for n in range(plan.n_members):
        rng = np.random.default_rng([plan.seed, iteration.c, iteration.k, n])
        team = n % plan.n_teams
        is_seen, found = inputs.folds != team, is_clean[team]
        draws.append(
            draw_training_set(
                rng,
                positives[is_seen[positives]],
                noisy[found],
                negatives[is_seen[negatives]],
                noisy[~found],
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
    """Draw the training set of one member (Algorithm 1, lines 4, 6 and 7).

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
        All trusted positives and `m_k` clean ones against as many negatives, half of them
        trusted. If one kind of negatives is short, the other fills up; if both together are short,
        negatives weigh more, so that both sides have equal weight. No row is drawn twice.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.pu_filter import draw_training_set
    >>> rng = np.random.default_rng(0)
    >>> pools = np.arange(4), np.arange(10, 12), np.arange(20, 40), np.arange(50, 90)
    >>> positives, negatives, weight = draw_training_set(rng, *pools)
    >>> len(positives), (negatives < 50).sum().item(), (negatives >= 50).sum().item(), weight
    (6, 3, 3, 1.0)
    """
    n_clean = min(len(trusted_positives), len(clean))  # m_k
    positives = np.concatenate([trusted_positives, rng.choice(clean, n_clean, replace=False)])
    n_trusted = len(positives) // 2  # m'_k
    n_unlabeled = len(positives) - n_trusted
    missing_trusted = max(0, n_trusted - len(trusted_negatives))
    missing_unlabeled = max(0, n_unlabeled - len(unlabeled))
    n_trusted = min(n_trusted + missing_unlabeled, len(trusted_negatives))
    n_unlabeled = min(n_unlabeled + missing_trusted, len(unlabeled))
    negatives = np.concatenate(
        [
            rng.choice(trusted_negatives, n_trusted, replace=False),  # N''
            rng.choice(unlabeled, n_unlabeled, replace=False),  # N'
        ]
    )
    return TrainingSet(positives, negatives, len(positives) / len(negatives))


def _train_members(
    inputs: FilterInputs, iteration: Iteration, draws: Sequence[TrainingSet], previous: Sequence
) -> list:
    """Train the members of one iteration (Algorithm 1, lines 5 and 7).

    Parameters
    ----------
    inputs : FilterInputs
        Samples, the estimator and settings.
    iteration : Iteration
        Decides, with the seed, the members' seeds.
    draws : sequence of TrainingSet
        One for each member.
    previous : sequence of fitted estimators
        The members of the iteration before; empty in the first one. Networks continue from their
        weights.

    Returns
    -------
    members : list of fitted estimators
        All give probabilities. Where a member failed, another one of its team stands in.
    """
    plan = inputs.plan
    seeds = np.random.SeedSequence([plan.seed, iteration.c, iteration.k]).generate_state(
        plan.n_members
    )

    def task(n: int) -> learners.Training:
        is_continued = bool(previous) and learners.continues_training(previous[n])
        return learners.Training(
            previous[n] if is_continued else inputs.estimator,
            learners.take(plan.view(inputs.views, n), draws[n].rows),
            draws[n].targets,
            role="member",
            seed=int(seeds[n]) % 2**31,
            sample_weight=draws[n].weights,
            continued=is_continued,
            expendable=True,
        )

    members = []
    for member in learners.train_all(map(task, range(plan.n_members)), iteration.n_jobs):
        members.append(member)
        iteration.advance(1, detail=f"{iteration}, member {len(members)}")
    calibration_tasks = map(task, range(min(CALIBRATION_SETS, plan.n_members)))
    members = learners.calibrate_together(members, calibration_tasks)
    flaws = [
        find_flaw(member, plan.view(inputs.views, n), draws[n]) for n, member in enumerate(members)
    ]
    return replace_flawed(members, flaws, plan, str(iteration))


def find_flaw(member: Any, view: Any, draw: TrainingSet) -> str | None:
    """Return what is wrong with a member that puts all its training samples on one side."""
    rows = np.concatenate([draw.positives[:PROBE_SIZE], draw.negatives[:PROBE_SIZE]])
    scores = learners.predict_proba(member, view, 2, rows)[:, 1]
    if not np.isfinite(scores).all():
        return DIVERGED
    if (scores >= 0.5).all():
        return "votes for everything"
    return "votes for nothing" if (scores < 0.5).all() else None


def replace_flawed(members: list, flaws: Sequence[str | None], plan: Plan, where: str) -> list:
    """Replace members that would spoil the vote by copies of sound members of their team.

    If a whole team is flawed, its members abstain. If most members are flawed, none is replaced
    and only those that diverged abstain: networks that learn slowly are all alike in their first
    iterations.

    Parameters
    ----------
    members : list of fitted estimators
        All members.
    flaws : sequence of str or None
        What is wrong with each; None: nothing.
    plan : Plan
        Knows the teams.
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
            # The next sound member, from the first one again after the last. A copy, as both may
            # be trained further.
            after = next((other for other in sound if other > n), sound[0] if sound else None)
            abstaining = learners.Silent(n_classes=2)
            voters[n] = abstaining if after is None else copy.deepcopy(members[after])
    return voters


# Samples that networks vote on at once: enough to be worth sending to a worker.
NETWORKS_BLOCK = 2048
# In place of the number of votes for a sample that could no longer be accepted.
STOPPED_EARLY = -1


class Tally(NamedTuple):
    """The result of a vote on n samples."""

    votes: np.ndarray  # (n,) int16, -1 where voting stopped early
    mean_proba: np.ndarray  # (n,) mean member probability; NaN where the sample is not accepted


def no_votes(n_samples: int) -> Tally:
    """Return the tally of a vote that accepts nothing."""
    return Tally(np.full(n_samples, STOPPED_EARLY, np.int16), np.full(n_samples, np.nan))


def _vote(
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
        The samples, one view for all members or one a team.
    rows : ndarray of shape (n_rows,), int
        Which samples to vote on.
    rule : Rule
        When a team accepts a sample.
    plan : Plan
        Knows the teams.
    n_jobs : int or None
        Blocks of samples that networks vote on at the same time.

    Returns
    -------
    tallies : list of Tally
        One for each team.
    """
    if rule.min_votes > len(plan.teams[0]) or len(rows) == 0:  # nothing can be accepted
        return [no_votes(len(rows)) for _ in plan.teams]
    are_networks = any(map(learners.continues_training, members))
    # The size does not depend on the number of workers: it decides the last digits.
    size = NETWORKS_BLOCK if are_networks else rowwise.BLOCK_SIZE
    starts = range(0, len(rows), size)
    tasks = (
        delayed(_vote_on_block)(members, views, rows[start : start + size], rule, plan)
        for start in starts
    )
    votes = rowwise.empty((plan.n_teams, len(rows)), np.int16)
    mean_proba = rowwise.empty(votes.shape)
    results = learners.in_order(tasks, n_jobs if are_networks and len(starts) > 1 else 1)
    for start, tallies in zip(starts, results, strict=True):
        for team, tally in enumerate(tallies):
            votes[team, start : start + size] = tally.votes
            mean_proba[team, start : start + size] = tally.mean_proba
    return list(map(Tally, votes, mean_proba))


def _vote_on_block(
    members: Sequence, views: Sequence, rows: np.ndarray, rule: Rule, plan: Plan
) -> list[Tally]:
    score = _block_scorer(members, views, rows, plan)
    return [
        cascade_vote(team, score, len(rows), rule.threshold, min(rule.min_votes, len(team)))
        for team in plan.teams
    ]


def _block_scorer(
    members: Sequence, views: Sequence, rows: np.ndarray, plan: Plan
) -> Callable[[int, np.ndarray], np.ndarray]:
    """Return a function that scores positions among `rows` by member `n`.

    Samples are read once for all members. Logistic regressions, the default members, score all of
    them at once, in one matrix product.
    """
    blocks = [learners.take(view, rows) for view in views]
    scores: dict[int, np.ndarray] = {}
    for number, block in enumerate(blocks):
        seeing = range(number, len(members), len(blocks))
        maps = {n: found for n in seeing if (found := affine_map(members[n])) is not None}
        if maps and not isinstance(block, pd.DataFrame):
            scores |= zip(maps, probabilities(list(maps.values()), block), strict=True)

    def score(n: int, positions: np.ndarray) -> np.ndarray:
        if n in scores:
            return scores[n][positions]
        return learners.predict_proba(members[n], plan.view(blocks, n), 2, positions)[:, 1]

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

    Once `n_members - min_votes + 1` members have not voted for a sample it is not scored again.
    The samples that are accepted are exactly those of full voting (paper, equation 3).

    Parameters
    ----------
    members : sequence of length n_members
        Voters.
    score : callable
        ``score(member, rows)`` returns the member's probabilities, of shape (len(rows),).
    n_samples : int
        Number of samples.
    threshold : float
        A member votes for a sample from this probability on, `α`.
    min_votes : int
        Votes with which a sample is accepted, `θ`.

    Returns
    -------
    tally : Tally
        ``votes`` of shape (n_samples,), int16, -1 where voting stopped early, and ``mean_proba`` of
        shape (n_samples,), NaN for samples that are not accepted.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.pu_filter import cascade_vote
    >>> proba = np.array([[0.9, 0.2], [0.8, 0.9], [0.9, 0.9]])  # 3 members, 2 samples
    >>> cascade_vote([0, 1, 2], lambda n, rows: proba[n, rows], 2, 0.85, 2).votes.tolist()
    [2, 2]
    >>> cascade_vote([0, 1, 2], lambda n, rows: proba[n, rows], 2, 0.85, 3).votes.tolist()
    [-1, -1]
    """
    votes = np.zeros(n_samples, dtype=np.int16)
    total = np.zeros(n_samples)
    open_rows = np.arange(n_samples)  # which may still be accepted
    for n, member in enumerate(members, start=1):
        proba = score(member, open_rows)
        votes[open_rows] += proba >= threshold
        total[open_rows] += np.nan_to_num(proba)  # NaN: from a member that diverged
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
    >>> from pudistill.pu_filter import ClassAssignment
    >>> assignment, nan = ClassAssignment(4), np.nan
    >>> assignment.add_class(np.array([0.9, 0.9, 0.9, nan]))
    >>> assignment.add_class(np.array([nan, 0.95, 0.9, nan]))
    >>> labels, n_conflicts = assignment.resolve()
    >>> labels.tolist(), n_conflicts
    ([0, 1, -1, -1], 2)
    """

    def __init__(self, n_samples: int) -> None:
        self._labels = np.full(n_samples, MISSING, np.int32)
        self._highest = rowwise.empty((n_samples,))
        self._highest[:] = -np.inf
        self._is_tied = np.zeros(n_samples, dtype=bool)
        self._is_disputed = np.zeros(n_samples, dtype=bool)
        self._n_classes = 0

    def add_class(self, mean_proba: np.ndarray) -> None:
        """Add the votes of the next class.

        Parameters
        ----------
        mean_proba : ndarray of shape (n_samples,)
            Mean member probability where the class accepts a sample, NaN elsewhere.
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
            Classes; -1 where no class accepts the sample, or two tie.
        n_conflicts : int
            Number of samples that more than one class accepts.
        """
        return np.where(self._is_tied, MISSING, self._labels), int(self._is_disputed.sum())


# Columns of `TieredPUFilter.history_`, after the name of the class.
HISTORY = ["iteration", "n_positives", "n_negatives", "n_clean", "n_eval", "seconds"]


class ClassResult(NamedTuple):
    """What the filter found for one class; arrays only, to be stored."""

    votes: np.ndarray  # (n_noisy,) int16, -1 where voting stopped early
    mean_proba: np.ndarray  # (n_noisy,) of members; NaN outside the clean set
    team_mean_proba: np.ndarray  # (n_teams, n_noisy) the same for the clean set of each team
    eval_mean_proba: np.ndarray  # (n_eval,) the same for `eval_set`
    rule: np.ndarray  # a Rule
    history: np.ndarray  # (n_iter, len(HISTORY))


class ClassState(NamedTuple):
    """The filter of a class after some iterations."""

    tallies: list[Tally]  # of each team, over the noisy samples
    eval_tallies: list[Tally]  # the same over `eval_set`
    rule: Rule
    members: Sequence
    history: list[tuple]

    def save(self, checkpoint: Checkpoint) -> None:
        """Save the state; members only if the next iteration starts from their weights."""
        continues = learners.continues_training
        checkpoint.save(
            tallies=[tally._asdict() for tally in self.tallies],
            eval_tallies=[tally._asdict() for tally in self.eval_tallies],
            rule=np.array(self.rule),
            members=[member if continues(member) else [] for member in self.members],
            history=np.array(self.history, dtype=float),
        )

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> "ClassState | None":
        """Return the state that was saved last; None if there is none."""
        parts = checkpoint.load()
        if parts is None:
            return None
        threshold, min_votes, precision = parts["rule"].tolist()
        return cls(
            [Tally(**tally) for tally in parts["tallies"]],
            [Tally(**tally) for tally in parts["eval_tallies"]],
            Rule(threshold, int(min_votes), precision),
            parts["members"],
            [tuple(row) for row in parts["history"]],
        )


def _filter_class(
    c: int,
    inputs: FilterInputs,
    n_jobs: int | None = None,
    advance: Advance = ignore,
    checkpoint: Checkpoint = NOWHERE,
) -> ClassResult:
    """Find the clean samples of one class (Algorithm 1, lines 2-9).

    Parameters
    ----------
    c : int
        The class, `i` in the paper.
    inputs : FilterInputs
        Samples and settings.
    n_jobs : int, default=None
        Members trained at the same time.
    advance : callable
        Called with 1 for each trained member.
    checkpoint : Checkpoint
        Where finished iterations are saved.

    Returns
    -------
    result : ClassResult
        The clean set `P̂` of the class, without its trusted samples.
    """
    plan = inputs.plan
    noisy = np.flatnonzero(inputs.verified == MISSING)  # D_n
    eval_rows = np.arange(_num_samples(inputs.eval_views[0]) if inputs.eval_views else 0)

    # Line 2: the clean set starts empty, unless an interrupted run left one.
    state = ClassState.load(checkpoint) or ClassState(
        tallies=[no_votes(len(noisy)) for _ in plan.teams],
        eval_tallies=[no_votes(len(eval_rows)) for _ in plan.teams],
        rule=Rule(plan.thresholds[0], len(plan.teams[0]), np.nan),
        members=(),
        history=[],
    )
    # Line 3: K iterations, or until the clean set settles.
    while len(state.history) < plan.max_iter:
        start, k = time.perf_counter(), len(state.history)
        iteration = Iteration(c, k, n_jobs, advance)
        was_clean = accepted_by_team(state.tallies)

        # Lines 4-6: draw the training set of each member.
        draws = draw_training_sets(inputs, iteration, noisy, was_clean)

        # Lines 5 and 7: train the members.
        members = _train_members(inputs, iteration, draws, state.members)

        # Not in the paper: choose α and θ, unless they are given.
        rule = rule_for_class(c, inputs, members)

        # Line 8: a noisy sample with at least θ votes, of members that give it α or more, is clean.
        tallies = _vote(members, inputs.views, noisy, rule, plan, n_jobs)
        eval_tallies = _vote(members, inputs.eval_views, eval_rows, rule, plan, n_jobs)

        sizes = [len(draws[0].positives), len(draws[0].negatives)]
        sizes += [
            int(accepted_by_team([merge_teams(found)]).sum()) for found in (tallies, eval_tallies)
        ]
        row = (k + 1, *sizes, time.perf_counter() - start)
        state = ClassState(tallies, eval_tallies, rule, members, [*state.history, row])
        if k > 0 and has_settled(was_clean, accepted_by_team(tallies), plan):
            break
        if checkpoint.is_due:
            state.save(checkpoint)

    # Line 9: P̂ holds what more than half of the teams accept. The filter adds D_c.
    merged = merge_teams(state.tallies)
    return ClassResult(
        merged.votes,
        merged.mean_proba,
        stack_teams([tally.mean_proba for tally in state.tallies]),
        merge_teams(state.eval_tallies).mean_proba,
        np.array(state.rule),
        np.array(state.history, dtype=float).reshape(-1, len(HISTORY)),
    )


def rule_for_class(c: int, inputs: FilterInputs, members: Sequence) -> Rule:
    """Return the given rule, or choose `α` and `θ` on the trusted samples that teams left out."""
    plan = inputs.plan
    team_size = len(plan.teams[0])
    if plan.n_teams == 1:
        return Rule(plan.thresholds[0], votes_needed(plan.vote_shares[0], team_size), np.nan)
    scores, is_positive = [], []
    for number, team in enumerate(plan.teams):
        rows = np.flatnonzero(inputs.folds == number)
        proba = [
            learners.predict_proba(members[n], plan.view(inputs.views, n), 2, rows)[:, 1]
            for n in team
        ]
        # The last member of a smaller team votes twice, so that all teams have one size.
        scores.append(np.array(proba + proba[-1:] * (team_size - len(team))))
        is_positive.append(inputs.verified[rows] == c)
    return choose_rule(
        np.hstack(scores),
        np.concatenate(is_positive),
        plan.thresholds,
        plan.vote_shares,
        plan.target_precision,
    )


def has_settled(before: np.ndarray, after: np.ndarray, plan: Plan) -> bool:
    """Return whether the clean sets, (n_teams, n_samples), bool, changed by at most `tol`."""
    if plan.tol is None:
        return False
    # A rule that is chosen anew accepts more now and fewer then: only growth counts.
    is_chosen = plan.n_teams > 1
    change = after.sum() - before.sum() if is_chosen else (after != before).sum()
    return bool(change <= plan.tol * after.sum())


class TieredPUFilter(BaseEstimator):
    """Find clean samples among noisy ones, without reading their labels.

    For each class, an ensemble of `n_members` binary classifiers is trained. Positives are the
    trusted samples of the class and samples found so far; negatives are as many trusted samples of
    other classes and unlabeled samples. A sample joins the augmented clean set of the class if at
    least `min_votes` members give it a probability of at least `threshold`. This repeats `max_iter`
    times (paper, Algorithm 1, lines 1-10, and equation 3).

    Parameters
    ----------
    estimator : classifier, default=None
        The estimator that each member is a copy of. ``None``: logistic regression for features, a
        `TorchClassifier` for pictures. Networks continue from their weights of the previous
        iteration, other estimators are fitted anew.
    n_members : int, default=20
        Members per class, `N`.
    max_iter : int, default=10
        Iterations, `K`.
    threshold : float in (0, 1) or "auto", default=0.9
        The probability from which on a member votes for a sample, `α`. "auto": chosen for each
        class, so that `target_precision` is reached with as many samples as possible; see Notes.
    min_votes : int, float or "auto", default=0.95
        Votes that a sample needs, `θ`: a count, or a fraction of the members. "auto": chosen with
        `threshold`.
    target_precision : float in (0, 1), default=0.95
        Share of right labels that the clean set of each class is to have if `threshold` or
        `min_votes` is "auto". A class that cannot reach it adds no samples.
    tol : float or None, default=0.01
        Stop a class when its clean set changes by at most this fraction of its size (or grows by at
        most this fraction, with "auto"); ``None`` runs all iterations.
    share_trunk : bool, default=False
        Whether members that are networks of the project share their layers: each team trains one
        network to classify the trusted samples it may see, and its members are logistic
        regressions on the input of that network's last layer. Much faster. It has no effect on
        other estimators, nor without "auto": then there are no teams, and members would judge
        samples by a trunk that has learned them.
    n_jobs : int, default=None
        Classes filtered at the same time or, if there are fewer classes than workers or the
        estimator is a network, members fitted at the same time; as in joblib. The result does not
        depend on it.
    memory : str or object with the joblib.Memory interface, default=None
        Where to store the result of each class, under a hash of everything it is computed from.
    random_state : int, RandomState instance or None, default=None
        Decides which samples members are trained on, and their training.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    clean_labels_ : ndarray of shape (n_samples,), int
        For each sample of the augmented clean set `P`, trusted ones included, the index of its
        class in `classes_`; -1 for all others.
    votes_ : ndarray of shape (n_samples, n_classes), int16
        Votes of the last iteration; -1 where voting stopped early, and for trusted samples.
    n_conflicts_ : int
        Number of samples that more than one class accepts. They go to the class with the highest
        mean member probability; exact ties are dropped.
    history_ : DataFrame
        For each class and iteration: ``class_name``, ``iteration``, ``n_positives`` (trusted
        samples plus `m_k`), ``n_negatives`` (about half of them trusted: `m'_k`), ``n_clean``
        (size of the clean set), ``n_eval`` (the same in `eval_set`) and ``seconds``.
    eval_labels_ : ndarray of shape (n_eval,), int
        As `clean_labels_`, for `eval_set`.
    n_iter_ : ndarray of shape (n_classes,), int
        Number of iterations of each class.
    settings_ : DataFrame
        For each class: ``class_name``, ``threshold`` and ``min_votes`` of the last iteration,
        ``n_members`` (out of which `min_votes` counts), ``precision`` (measured on trusted samples;
        NaN if nothing was chosen, no rule reached the target, or the rule accepts none of them) and
        ``n_clean``.
    folds_ : ndarray of shape (n_samples,), int
        The team of members that left a trusted sample out; -1 for all others.
    team_labels_ : ndarray of shape (n_teams, n_samples), int
        As `clean_labels_`, found by one team alone. Row `b` is -1 for the trusted samples of fold
        `b` and does not depend on their labels, except through the choice of `threshold`,
        `min_votes` and the number of iterations.
    n_features_in_ : int
        Number of features.

    Notes
    -----
    With "auto" the members form teams, each of which leaves out one fold of the trusted samples.
    Their votes on that fold measure the precision that every `α` and `θ` would have, class by
    class. A sample belongs to the clean set if more than half of the teams accept it. A single
    member forms no teams, and the default rule holds.

    See Also
    --------
    PUDistillClassifier : The whole of Algorithm 1.

    References
    ----------
    J. Xu, T. Q. S. Quek, K. F. E. Chong, "Training Classifiers that are Universally Robust to All
    Label Noise Levels", IJCNN 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from pudistill import TieredPUFilter
    >>> X, y = load_iris(return_X_y=True)
    >>> trusted = np.arange(150) % 5 == 0
    >>> pu_filter = TieredPUFilter(n_members=5, threshold=0.7, random_state=0).fit(X, y, trusted)
    >>> found = (pu_filter.clean_labels_ >= 0) & ~trusted
    >>> bool((pu_filter.clean_labels_[found] == y[found]).mean() > 0.9)
    True
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit"]), None],
        "n_members": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "threshold": [Interval(Real, 0, 1, closed="neither"), StrOptions({"auto"})],
        "min_votes": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Real, 0, 1, closed="right"),
            StrOptions({"auto"}),
        ],
        "target_precision": [Interval(Real, 0, 1, closed="neither")],
        "tol": [Interval(Real, 0, None, closed="left"), None],
        "share_trunk": ["boolean"],
        "n_jobs": [Integral, None],
        "memory": [str, HasMethods(["cache"]), None],
        "random_state": ["random_state"],
    }
    __metadata_request__fit = {"trusted": True}

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_members: int = 20,
        max_iter: int = 10,
        threshold: float | str = DEFAULT_THRESHOLD,
        min_votes: float | str = DEFAULT_MIN_VOTES,
        target_precision: float = 0.95,
        tol: float | None = 0.01,
        share_trunk: bool = False,
        n_jobs: int | None = None,
        memory: str | Memory | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.n_members = n_members
        self.max_iter = max_iter
        self.threshold = threshold
        self.min_votes = min_votes
        self.target_precision = target_precision
        self.tol = tol
        self.share_trunk = share_trunk
        self.n_jobs = n_jobs
        self.memory = memory
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        return tags

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any, trusted: Any = None, *, eval_set: Any = None) -> "TieredPUFilter":
        """Find clean samples.

        Parameters
        ----------
        X : {array-like, sparse matrix, data frame} of shape (n_samples, n_features), or pictures \
                of shape (n_samples, height, width[, channels])
            Samples.
        y : array-like of shape (n_samples,)
            Given labels. Only the set of classes and the labels of trusted samples are read.
        trusted : array-like of shape (n_samples,), default=None
            A boolean mask, or verified labels with a missing value elsewhere. ``None``: all labels
            are trusted and there is nothing to find.
        eval_set : samples as `X`, default=None
            Further samples that the members of each iteration vote on, and never learn from.

        Returns
        -------
        self : TieredPUFilter
            The fitted filter.

        Raises
        ------
        InputError
            If a class has no trusted sample, or `min_votes` is larger than `n_members`.
        """
        X, labels = check_samples(self, X, y, trusted, [self.estimator])
        if eval_set is not None:
            eval_set = check_features(self, eval_set, [self.estimator], reset=False)
        with keeping(self.memory):
            return self._fit_checked(X, labels.classes, labels.verified, eval_set)

    def _fit_checked(
        self, X: Any, classes: np.ndarray, verified: np.ndarray, eval_set: Any = None
    ) -> "TieredPUFilter":
        """Find clean samples among samples that have been checked.

        Parameters
        ----------
        X : samples of shape (n_samples, ...)
            As `check_samples` returns them.
        classes : ndarray of shape (n_classes,)
            Class labels.
        verified : ndarray of shape (n_samples,), int
            Indices into `classes` for trusted samples, -1 for noisy ones.
        eval_set : samples of shape (n_eval, ...), default=None
            As for `fit`.

        Returns
        -------
        self : TieredPUFilter
            The fitted filter.
        """
        noisy = np.flatnonzero(verified == MISSING)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        plan = make_plan(
            n_members=self.n_members,
            max_iter=self.max_iter if len(noisy) else 0,
            threshold=self.threshold,
            min_votes=self.min_votes,
            target_precision=self.target_precision,
            tol=self.tol,
            seed=seed,
        )
        self.classes_ = classes
        self.folds_ = deal_folds(verified, plan.n_teams, seed)
        self.votes_ = np.full((len(verified), len(classes)), STOPPED_EARLY, dtype=np.int16)
        found = ClassAssignment(len(noisy))
        team_found = [ClassAssignment(len(noisy)) for _ in plan.teams]
        eval_found = ClassAssignment(0 if eval_set is None else _num_samples(eval_set))
        rules, histories = [], []

        # Lines 1-8, class by class. Results are added up and dropped: with many samples and
        # classes, holding all of them would take more memory than everything else.
        inputs = self._inputs(X, verified, eval_set, plan)
        for c, result in enumerate(self._filter_classes(inputs, len(classes))):
            self.votes_[noisy, c] = result.votes
            found.add_class(result.mean_proba)
            eval_found.add_class(result.eval_mean_proba)
            for assignment, mean_proba in zip(team_found, result.team_mean_proba, strict=True):
                assignment.add_class(mean_proba)
            rules.append(result.rule)
            histories.append(result.history)

        # Lines 9-10: P holds the trusted samples and those found, each in one class.
        self.clean_labels_ = verified.copy()
        self.clean_labels_[noisy], self.n_conflicts_ = found.resolve()
        self.team_labels_ = np.tile(verified, (plan.n_teams, 1))
        for team, labels in enumerate(self.team_labels_):
            labels[self.folds_ == team] = MISSING
            labels[noisy], _ = team_found[team].resolve()
        if eval_set is not None:
            self.eval_labels_, _ = eval_found.resolve()

        self.n_iter_ = np.array([len(history) for history in histories])
        self.history_ = _history_table(classes, histories)
        counts = np.bincount(self.clean_labels_[noisy] + 1, minlength=len(classes) + 1)
        self.settings_ = pd.DataFrame(
            {
                "class_name": classes,
                "threshold": [float(rule[0]) for rule in rules],
                "min_votes": [int(rule[1]) for rule in rules],
                "n_members": len(plan.teams[0]),
                "precision": [float(rule[2]) for rule in rules],
                "n_clean": counts[1:],
            }
        )
        return self

    def _inputs(self, X: Any, verified: np.ndarray, eval_set: Any, plan: Plan) -> FilterInputs:
        """Bind what the filters of all classes have in common."""
        estimator = learners.default_learner(X)
        if self.estimator is not None:
            estimator = learners.normalised(self.estimator, X)
        eval_views = [] if eval_set is None else [eval_set]
        inputs = FilterInputs([X], eval_views, verified, self.folds_, estimator, plan)
        shares_trunk = self.share_trunk and plan.n_teams > 1 and learners.has_trunk(estimator)
        if shares_trunk and plan.max_iter:
            return with_shared_trunks(inputs, self.n_jobs)
        return inputs

    def _filter_classes(self, inputs: FilterInputs, n_classes: int) -> Iterator[ClassResult]:
        """Filter one class after the other, or several at the same time (line 1)."""
        cached_filter = kept(_filter_class, ignore=["n_jobs", "advance", "checkpoint"])
        n_steps = inputs.plan.max_iter * inputs.plan.n_members
        # With enough classes for all workers, none of them waits for the slowest member. Networks
        # are trained one class at a time: each takes so long that its progress is to be seen.
        in_parallel = not learners.continues_training(inputs.estimator) and (
            1 < effective_n_jobs(self.n_jobs) <= n_classes
        )
        with stage("filter", n_classes * n_steps) as advance:
            if in_parallel:
                tasks = (delayed(cached_filter)(c, inputs) for c in range(n_classes))
                results = learners.in_order(tasks, self.n_jobs)
            else:
                results = (
                    _on_one_thread(cached_filter, c, inputs, self.n_jobs, advance)
                    for c in range(n_classes)
                )
            for n_done, result in enumerate(results, start=1):
                advance(to=n_done * n_steps)
                yield result


def _on_one_thread(function: Callable, *args: Any) -> Any:
    """Call a function as a worker process would, so that results do not depend on `n_jobs`."""
    with one_thread():
        return function(*args)


def _history_table(classes: np.ndarray, histories: Sequence[np.ndarray]) -> pd.DataFrame:
    """Put the histories of all classes into one table."""
    table = pd.DataFrame(np.concatenate(histories), columns=HISTORY)
    table = table.astype(dict.fromkeys(HISTORY[:-1], int))
    table.insert(0, "class_name", np.repeat(classes, list(map(len, histories))))
    return table
