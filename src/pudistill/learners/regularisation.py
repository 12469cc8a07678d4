"""The strength of the default learner's regularisation, chosen on held-out verified samples.

A few trusted samples of a text want a weak penalty, many noisy ones a strong one: no constant
suits both.
"""

from collections.abc import Callable

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression

from pudistill.learners.calibration import Temperature, log_likelihood
from pudistill.learners.capabilities import final_step

# The candidates are powers of this factor. A finer grid would follow chance.
STEP = 10**0.5

# Largest number of steps in one direction, up to a hundredfold.
MAX_STEPS = 4

# Standard errors by which a step must raise the log-likelihood.
LEAD = 2.0


def with_regularisation(learner: BaseEstimator, C: float) -> BaseEstimator:
    """Return a copy of the default learner with another inverse strength of its penalty.

    Parameters
    ----------
    learner : classifier
        The default learner, see `default_learner`.
    C : float
        Parameter ``C`` of its logistic regression. A learner without one is returned as it is.

    Returns
    -------
    learner : classifier
        The copy.
    """
    if not isinstance(final_step(learner), LogisticRegression):
        return learner
    learner = clone(learner)
    final_step(learner).set_params(C=C)
    return learner


def choose_regularisation(
    held_out_proba: Callable[[float], np.ndarray], truth: np.ndarray
) -> float:
    """Choose `C` by the likelihood of held-out labels, step by step from 1.

    A step is taken only if it raises the mean log-likelihood by more than two standard errors of
    the difference, so that chance on a few samples does not move `C` away from 1.

    Parameters
    ----------
    held_out_proba : callable
        Returns predictions of shape (n_held_out, n_classes) by models with a given `C`.
    truth : ndarray of shape (n_held_out, n_classes)
        Verified labels of the held-out samples, one-hot.

    Returns
    -------
    C : float
        A power of √10; 1 if nothing is held out.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.learners.regularisation import choose_regularisation
    >>> truth = np.eye(2)[np.arange(100) % 2]
    >>> best_at_ten = lambda C: truth * (right := 0.9 - 0.1 * abs(np.log10(C) - 1)) + (
    ...     1 - truth
    ... ) * (1 - right)
    >>> round(choose_regularisation(best_at_ten, truth), 6)
    10.0
    """
    if len(truth) == 0:
        return 1.0

    def score(power: int) -> np.ndarray:
        proba = held_out_proba(STEP**power)
        return log_likelihood(Temperature.fit(proba, truth).apply(proba), truth)

    best, best_score = 0, score(0)
    for direction in (1, -1):
        while abs(best + direction) <= MAX_STEPS:
            moved = score(best + direction)
            gain = moved - best_score
            if gain.mean() <= LEAD * gain.std() / np.sqrt(len(gain)):
                break
            best, best_score = best + direction, moved
        if best != 0:
            break
    return STEP**best
