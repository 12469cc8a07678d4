"""How verified samples were drawn: how rare each draw was beside a uniform one, and their order."""

from typing import NamedTuple

import numpy as np

from pudistill.exceptions import InputError
from pudistill.utils.shown import shown


class Draws(NamedTuple):
    """Weights and order of the draws by which samples were chosen to be verified.

    Samples are drawn one after the other, without replacement. `N` samples are not verified at the
    moment of a draw, and it takes this sample with probability `p`.

    Attributes
    ----------
    weight : ndarray of shape (n_samples,)
        ``1 / (N p)``: 1 for a uniform draw, 0.2 for a sample that was five times as likely to be
        drawn; 0 for one that was picked by hand. NaN where a sample was not drawn.
    order : ndarray of shape (n_samples,), int
        Position of each draw among all; earlier ones are lower. -1 where a sample was not drawn.
    """

    weight: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, weight: np.ndarray, order: np.ndarray, ids: object = None) -> "Draws | None":
        """Check weights; None if all draws were uniform.

        Parameters
        ----------
        weight, order : ndarray of shape (n_samples,)
            As the attributes.
        ids : array of shape (n_samples,), default=None
            Names of the samples for messages; row numbers by default.

        Raises
        ------
        InputError
            If a weight is not a finite number of at least 0.
        """
        is_wrong = ~np.isnan(weight) & ~(np.isfinite(weight) & (weight >= 0))
        if is_wrong.any():
            row = int(np.flatnonzero(is_wrong)[0])
            name = row if ids is None else shown(ids[row])  # type: ignore[index]
            raise InputError(
                f"The draw weight of sample {name} is {weight[row]:g}: it must be a finite number, "
                "1 for a sample drawn at random, and 0 for one picked by hand."
            )
        if np.isin(weight[~np.isnan(weight)], 1.0).all():
            return None
        return cls(weight, order)

    def take(self, rows: np.ndarray) -> "Draws":
        """Return the draws of the samples at `rows`, a mask or positions."""
        return Draws(self.weight[rows], self.order[rows])

    def extended(self, n: int) -> "Draws":
        """Return the draws with `n` further samples at the end, none of which was drawn."""
        return Draws(
            np.concatenate([self.weight, np.full(n, np.nan)]),
            np.concatenate([self.order, np.full(n, -1)]),
        )

    def for_means(self, n_rest: int, *, of_all: bool = False) -> np.ndarray:
        r"""Weigh drawn samples so that they stand for the samples that nobody has drawn.

        Parameters
        ----------
        n_rest : int
            Number of samples that were not drawn.
        of_all : bool, default=False
            Whether they are to stand for all samples, those drawn included.

        Returns
        -------
        weights : ndarray of shape (n_samples,)
            :math:`u_m`; NaN for samples that were not drawn. :math:`\frac1M \sum_m u_m y_m` is
            unbiased for the mean of `y` over the rest, in whatever way `y` depends on the
            probabilities. Samples that were drawn uniformly have the weight 1. A weight can be
            negative for samples that were likely to be drawn, if a large part of all was drawn.

        Notes
        -----
        With `M` of `N` samples drawn, the sample of draw `m`, whose weight is :math:`w_m`, gets
        :math:`1 + \frac{N - M}{N - m} (w_m - 1)` for the mean over all samples. These are the
        weights of LURE. What was drawn is known, so it can be taken off the total: the mean over
        the rest has :math:`1 + \frac{N}{N - m} (w_m - 1)`.

        References
        ----------
        S. Farquhar, Y. Gal, T. Rainforth, "On Statistical Bias In Active Learning: How and When To
        Fix It", ICLR 2021.

        Examples
        --------
        >>> import numpy as np
        >>> from pudistill.data.draws import Draws
        >>> draws = Draws(np.array([np.nan, 1.0, 0.5, np.nan]), np.array([-1, 0, 1, -1]))
        >>> draws.for_means(n_rest=2).tolist()
        [nan, 1.0, 0.0, nan]
        """
        drawn = np.flatnonzero(~np.isnan(self.weight))
        m = np.empty(len(drawn))
        m[np.argsort(self.order[drawn], kind="stable")] = np.arange(1, len(drawn) + 1)
        n_all = n_rest + len(drawn)
        scale = n_rest if of_all else n_all
        weights = np.full(len(self.weight), np.nan)
        # Without a rest, the last draw had no choice.
        weights[drawn] = 1 + scale / np.maximum(n_all - m, 1) * (self.weight[drawn] - 1)
        return weights
