"""The rule of a class: the threshold of a vote, and the number of votes that a sample needs."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# The paper's rule (section IV-C): α, and θ as a share of the members.
DEFAULT_THRESHOLD, DEFAULT_MIN_VOTES = 0.9, 0.95


# The precision that a rule is expected to have before any sample is seen, and the number of samples
# that this expectation counts for. With few trusted samples per class, one mistake proves nothing;
# with hundreds, the samples decide.
PRIOR_PRECISION, PRIOR_SAMPLES = 0.99, 20


class Rule(NamedTuple):
    """The rule by which a team accepts a sample."""

    threshold: float  # `α`
    min_votes: int  # `θ`, among the members of a team
    precision: float  # of held-out trusted samples, shrunk; NaN if none was accepted


def choose_rule(
    scores: np.ndarray,
    positive: np.ndarray,
    thresholds: Sequence[float],
    vote_shares: Sequence[float],
    target_precision: float,
) -> Rule:
    """Choose the rule with the largest gain: accepted samples times precision above the target.

    A rule below the target precision has a negative gain. Among rules above it, more samples can
    make up for a lower precision. Precisions are shrunk towards `PRIOR_PRECISION`, as if
    `PRIOR_SAMPLES` further samples had been seen.

    Parameters
    ----------
    scores : ndarray of shape (n_members, n_samples)
        Members' probabilities of the class, for trusted samples that they were not trained on.
    positive : ndarray of shape (n_samples,), bool
        Whether each sample belongs to the class.
    thresholds, vote_shares : sequence of float
        Values of `α`, and of `θ` as a share of the members, to choose from.
    target_precision : float
        Precision that the accepted samples should have.

    Returns
    -------
    rule : Rule
        Among rules of equal gain, the strictest. If no rule accepts any held-out sample, the
        laxest, so that the clean set can still grow. If some rules accept held-out samples but none
        with a positive gain, the laxest of the rules that accept none of them; only if there is no
        such rule, a rule that accepts nothing: it needs more votes than there are members. In all
        these cases the precision is NaN. If no sample is positive, the paper's rule.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.pu_filter.rules import choose_rule
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
            if gain > best_gain or gain == best_gain == 0:  # 0: no rule has accepted anything yet
                estimate = precision if n_accepted else np.nan
                best, best_gain = Rule(threshold, min_votes, estimate), gain
    return best


def votes_needed(share: float, n_members: int) -> int:
    """Return the smallest number of votes that is at least `share` of the members."""
    return max(1, math.ceil(share * n_members - 1e-9))
