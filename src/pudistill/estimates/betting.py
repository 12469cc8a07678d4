"""Betting test that few labels are wrong, for verified samples drawn with unequal probabilities.

We bet against the claim that more than `max_error` of the accepted labels are wrong. If the claim
is true, the capital ever reaches 1 / tail times the stake with probability at most `tail`. Unlike a
test of counts, this holds for any known probabilities of the draws and at any stopping time.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import binom

from pudistill.data.draws import Draws
from pudistill.estimates.shares import rectified_share

# Largest weight of a draw of which a share of one half is at random. Draws of the weight 1 are
# uniform, and cannot have another weight.
USUAL_LARGEST = 2.0

# Samples that the expected share of wrong labels counts as, in the choice of the stakes.
PRIOR = 20.0

# Bets are expected to succeed if they would win this many times what they have to.
MARGIN = 1.5


class Bets(NamedTuple):
    """Verified samples in the order of drawing.

    Attributes
    ----------
    score : ndarray of shape (n_drawn,)
        The score of each; NaN if it could not be judged.
    is_wrong : ndarray of shape (n_drawn,), bool
        Whether the label that is judged is wrong.
    weight : ndarray of shape (n_drawn,)
        Weight of each draw, see `Draws`.
    n_rest : int
        Number of samples that nobody verified.
    worth : float
        Number of independent samples that a verified sample is worth.
    """

    score: np.ndarray
    is_wrong: np.ndarray
    weight: np.ndarray
    n_rest: int
    worth: float = 1.0

    @property
    def largest(self) -> np.ndarray:
        """Return a bound of each weight, (n_drawn,).

        1 for uniform draws; for all others 2 or, if larger, the largest weight seen.
        """
        bound = max(USUAL_LARGEST, float(self.weight.max(initial=1.0)))
        return np.where(self.weight == 1, 1.0, bound)

    def counts(self, threshold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the accepted and the wrong samples at each threshold, (n_thresholds,) each.

        They are numbers of uniform draws that tell as much in a bet.
        """
        accepted = self.score >= threshold[:, None]
        worth = self.worth * self.weight / self.largest
        return accepted @ worth, (accepted & self.is_wrong) @ worth

    def share_wrong(self, threshold: float) -> tuple[float, tuple[float, float]]:
        """Estimate the share of wrong labels that a threshold accepts, with its interval."""
        order = np.arange(len(self.weight))
        stands_for = Draws(self.weight, order).for_means(self.n_rest)
        accepted = self.score >= threshold
        no_control = np.full(len(order), np.nan)
        value, interval, _ = rectified_share(
            accepted & self.is_wrong,
            no_control,
            np.inf,
            among=accepted,
            among_controls=no_control,
            worth=self.worth,
            weight=stands_for,
        )
        return value, interval

    def evidence(self, threshold: np.ndarray, expected: np.ndarray, max_error: float) -> np.ndarray:
        r"""Return the largest capital that was reached with a stake of 1, for each threshold.

        Parameters
        ----------
        threshold : ndarray of shape (n_thresholds,)
            Samples with this score or a higher one are accepted.
        expected : ndarray of shape (n_thresholds,)
            Share of wrong labels among these that is expected; it decides the first stakes only.
        max_error : float in (0, 1)
            The claim: more than this share of the accepted labels that nobody verified is wrong.

        Returns
        -------
        capital : ndarray of shape (n_thresholds,)
            If the claim is true, the chance that the capital ever reaches `k` is at most ``1 / k``.
            This is proved if no weight exceeds 2 (at least half of the draws at random); otherwise
            the bound is taken from the draws themselves.

        Notes
        -----
        Sample `i` is worth :math:`x_i = a_i (e_i - \epsilon)`, with :math:`a_i` whether it is
        accepted and :math:`e_i` whether its label is wrong: the claim is :math:`\sum x > 0` over
        the rest. With :math:`N_s` samples left before draw `s`, :math:`w_s x_s` has the mean of
        their `x` as its expectation. So with stakes :math:`\lambda_s \ge 0` that are chosen before
        the draw, the capital :math:`\prod_s (1 + \lambda_s (\mu_s - w_s x_s))` is a martingale if
        :math:`\mu_s` is that mean. It grows with :math:`\mu_s`, hence with the sum over the rest,
        so the least capital of all sums of which the claim is true is that of the sum 0, where
        :math:`\mu_s = \sum_{t \ge s} x_t / N_s`.

        References
        ----------
        I. Waudby-Smith, A. Ramdas, "Estimating means of bounded random variables by betting",
        Journal of the Royal Statistical Society B 86 (2024). V. Shekhar, Z. Xu, Z. Lipton, P.
        Liang, A. Ramdas, "Risk-limiting financial audits via weighted sampling without
        replacement", UAI 2023.

        Examples
        --------
        >>> import numpy as np
        >>> from pudistill.estimates.betting import Bets
        >>> bets = Bets(np.ones(100), np.zeros(100, bool), np.tile([0.5, 1.5], 50), 10_000)
        >>> bets.evidence(np.array([0.5]), np.array([0.0]), max_error=0.05).round(1).tolist()
        [12.3]
        """
        n = len(self.weight)
        if n == 0:
            return np.ones(len(threshold))
        n_left = self.n_rest + np.arange(n, 0, -1)
        is_judged = ~np.isnan(self.score)
        accepted = (self.score >= threshold[:, None]) | ~is_judged  # of those at worst
        wrong = accepted & (self.is_wrong & is_judged)
        x = wrong - max_error * accepted
        mean = np.cumsum(x[:, ::-1], axis=1)[:, ::-1] / n_left
        # Stakes that let the capital grow fastest if the share of wrong labels is as until now.
        weight, judged = self.weight, accepted & is_judged
        seen = np.cumsum(judged * weight, axis=1) - judged * weight
        seen_wrong = np.cumsum(wrong * weight, axis=1) - wrong * weight
        # There is nothing to win unless far fewer are wrong than the claim says.
        prior = np.minimum(expected, max_error / 2)[:, None]
        share = (PRIOR * prior + seen_wrong) / (PRIOR + seen)
        best = np.maximum(max_error - share, 0) / (max_error * (1 - max_error))
        # No capital is ever negative, however many of those left are right.
        stake = np.minimum(best / self.largest, 1 / (max_error + (1 - max_error) * self.largest))
        stake = np.where(is_judged, stake, 0.0)
        steps = np.log1p(np.maximum(stake * (mean - weight * x), -1 + 1e-12))
        capital = np.cumsum(self.worth * steps, axis=1)
        return np.exp(np.minimum(capital.max(axis=1), 700.0))


def power_of_bets(
    n_verified: np.ndarray, error: np.ndarray, max_error: float, tail: float
) -> np.ndarray:
    """Return the chance that bets refute the claim, if that share of the labels is wrong.

    Parameters
    ----------
    n_verified : ndarray of shape (n_thresholds,), int
        Accepted verified samples, as numbers of uniform draws.
    error : ndarray of shape (n_thresholds,)
        Share of wrong labels among them.
    max_error, tail : float in (0, 1)
        The claim, and the chance of refuting it if it is true.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.estimates.betting import power_of_bets
    >>> power_of_bets(np.array([50, 100]), np.array([0.0, 0.0]), 0.05, 0.05).tolist()
    [0.0, 1.0]
    """
    share = np.minimum(error, max_error / 2)
    stake = np.minimum((max_error - share) / (max_error * (1 - max_error)), 1.0)
    win, loss = np.log1p(stake * max_error), -np.log1p(-stake * (1 - max_error))
    # So many wrong labels leave enough, also where stakes are not the best ones.
    most = np.floor((n_verified * win + np.log(tail / MARGIN)) / (win + loss))
    return np.where(most < 0, 0.0, binom.cdf(most, n_verified, np.clip(error, 0, 1)))
