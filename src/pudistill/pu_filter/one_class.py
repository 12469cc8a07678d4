"""The filter for one class (Algorithm 1, lines 2-8)."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.utils.validation import _num_samples

from pudistill.labels.checks import MISSING
from pudistill.learners.capabilities import continues_training
from pudistill.pu_filter.members import Iteration, draw_training_sets, train_members
from pudistill.pu_filter.plan import FilterInputs, Plan
from pudistill.pu_filter.rules import Rule, choose_rule, votes_needed
from pudistill.pu_filter.trunks import stack_teams
from pudistill.pu_filter.voting import (
    Tally,
    accepted_by_team,
    member_scorer,
    merge_teams,
    no_votes,
    vote_by_team,
)
from pudistill.utils.checkpoint import NOWHERE, Checkpoint
from pudistill.utils.progress import Advance, ignore
from pudistill.utils.time_limit import is_time_up

# Columns of `TieredPUFilter.history_`, after the name of the class.
HISTORY_COLUMNS = ["iteration", "n_positives", "n_negatives", "n_clean", "n_eval", "seconds"]


class ClassResult(NamedTuple):
    """What the filter found for one class. All fields are arrays, because the cache stores them."""

    votes: np.ndarray  # (n_noisy,) int16, -1 where voting stopped early
    mean_proba: np.ndarray  # (n_noisy,) mean member probability; NaN outside the clean set
    team_mean_proba: np.ndarray  # (n_teams, n_noisy) the same for the clean set of each team
    eval_mean_proba: np.ndarray  # (n_eval,) the same for `eval_set`
    rule: np.ndarray  # (3,) the fields of a `Rule`
    history: np.ndarray  # (n_iter, len(HISTORY_COLUMNS))
    cut_short: bool = False  # by a time limit; such a result is not stored


class ClassState(NamedTuple):
    """The filter of a class after some iterations."""

    tallies: list[Tally]  # of each team, over the noisy samples
    eval_tallies: list[Tally]  # the same over `eval_set`
    rule: Rule
    members: Sequence
    history: list[tuple]

    def save(self, checkpoint: Checkpoint) -> None:
        """Save the state; members only if the next iteration starts from their weights."""
        checkpoint.save(
            tallies=[tally._asdict() for tally in self.tallies],
            eval_tallies=[tally._asdict() for tally in self.eval_tallies],
            rule=np.array(self.rule),
            members=[member if continues_training(member) else [] for member in self.members],
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


def filter_class(
    c: int,
    inputs: FilterInputs,
    n_jobs: int | None = None,
    advance: Advance = ignore,
    checkpoint: Checkpoint = NOWHERE,
) -> ClassResult:
    """Find the clean samples of one class (Algorithm 1, lines 2-8).

    Parameters
    ----------
    c : int
        The class, `i` in the paper.
    inputs : FilterInputs
        Samples and settings.
    n_jobs : int, default=None
        Number of members trained at the same time.
    advance : callable
        Called with 1 for each trained member.
    checkpoint : Checkpoint
        Where finished iterations are saved.

    Returns
    -------
    result : ClassResult
        The clean set `P̂` of the class, without its trusted samples; the caller adds them (line 9).
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
    # Line 3: K iterations, fewer if the clean set settles or the time is up.
    cut_short, n_classes = False, int(inputs.verified.max()) + 1
    while len(state.history) < plan.max_iter:
        if state.history and is_time_up("filter", state.history[-1][-1], c, n_classes):
            cut_short = True
            state.save(checkpoint)  # a run with more time continues from here
            break
        start, k = time.perf_counter(), len(state.history)
        iteration = Iteration(c, str(inputs.classes[c]), k, n_jobs, advance)
        was_clean = accepted_by_team(state.tallies)

        # Lines 4-6: draw the training set of each of the N members.
        draws = draw_training_sets(inputs, iteration, noisy, was_clean)

        # Lines 5 and 7: train the members.
        members = train_members(inputs, iteration, draws, state.members)

        # Not in the paper: choose α and θ, unless they are given.
        rule = rule_for_class(c, inputs, members)

        # Line 8: a team accepts a noisy sample to which at least θ of its members give α or more.
        tallies = vote_by_team(members, inputs.views, noisy, rule, plan, n_jobs)
        eval_tallies = vote_by_team(members, inputs.eval_views, eval_rows, rule, plan, n_jobs)

        # Record the iteration, and stop or save.
        sizes = (len(draws[0].positives), len(draws[0].negatives))
        n_clean, n_eval = n_accepted(tallies), n_accepted(eval_tallies)
        row = (k + 1, *sizes, n_clean, n_eval, time.perf_counter() - start)
        state = ClassState(tallies, eval_tallies, rule, members, [*state.history, row])
        if k > 0 and has_settled(was_clean, accepted_by_team(tallies), plan):
            break
        if checkpoint.is_due:
            state.save(checkpoint)

    # Not in the paper: P̂ holds the samples that more than half of the teams accept.
    merged = merge_teams(state.tallies)
    return ClassResult(
        merged.votes,
        merged.mean_proba,
        stack_teams([tally.mean_proba for tally in state.tallies]),
        merge_teams(state.eval_tallies).mean_proba,
        np.array(state.rule),
        np.array(state.history, dtype=float).reshape(-1, len(HISTORY_COLUMNS)),
        cut_short,
    )


def n_accepted(tallies: Sequence[Tally]) -> int:
    """Count the samples that more than half of the teams accept."""
    return int(accepted_by_team([merge_teams(tallies)]).sum())


def rule_for_class(c: int, inputs: FilterInputs, members: Sequence) -> Rule:
    """Return the given rule, or choose `α` and `θ` on the trusted samples that teams leave out."""
    plan = inputs.plan
    team_size = len(plan.teams[0])
    if plan.n_teams == 1:
        return Rule(plan.thresholds[0], votes_needed(plan.vote_shares[0], team_size), np.nan)
    scores, is_positive = [], []
    held_out = np.flatnonzero((inputs.folds != MISSING) & inputs.held_out)
    folds, codes = inputs.folds[held_out], inputs.verified[held_out]
    score = member_scorer(members, inputs.views, held_out, plan)
    for number, team in enumerate(plan.teams):
        positions = np.flatnonzero(folds == number)
        proba = [score(n, positions) for n in team]
        # The last member of a smaller team votes twice, so that all teams have the same size.
        scores.append(np.array(proba + proba[-1:] * (team_size - len(team))))
        is_positive.append(codes[positions] == c)
    return choose_rule(
        np.hstack(scores),
        np.concatenate(is_positive),
        plan.thresholds,
        plan.vote_shares,
        plan.target_precision,
    )


def has_settled(before: np.ndarray, after: np.ndarray, plan: Plan) -> bool:
    """Whether the clean sets, (n_teams, n_samples), bool, changed by at most `tol`."""
    if plan.tol is None:
        return False
    # A rule that is chosen anew each time lets the clean set shrink and grow: only growth counts.
    is_chosen = plan.n_teams > 1
    change = after.sum() - before.sum() if is_chosen else (after != before).sum()
    return bool(change <= plan.tol * after.sum())
