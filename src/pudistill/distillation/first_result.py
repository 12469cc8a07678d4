"""The first result of a fit, long before its end: labels and noise after the first round."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import numpy as np

from pudistill.distillation.noise_estimate import NoiseEstimate, estimate_noise
from pudistill.distillation.predictions import Predictions
from pudistill.distillation.problem import Problem
from pudistill.distillation.student import TransitionEstimator, posterior_labels
from pudistill.distillation.views import View
from pudistill.labels.checks import Labels
from pudistill.utils.context import installed


class FirstResult(NamedTuple):
    """What is known after the first round of the student.

    Attributes
    ----------
    labels : Labels
        Given and verified labels of all samples, except those verified to be of no class.
    targets : ndarray of shape (n_samples, n_classes)
        Posterior labels.
    noise : NoiseEstimate
        Noise in the given labels. It has the intervals of the final estimate, but outliers, which
        are not known yet, count.
    """

    labels: Labels
    targets: np.ndarray
    noise: NoiseEstimate


# Seconds of a fit before which it has no first result: it costs a second, and the end is near.
WORTH_SECONDS = 5.0
FirstResultCallback = Callable[[FirstResult], None]
# A context variable, because all functions between `fit` and the rounds would have to pass it on.
_callback: ContextVar[tuple[FirstResultCallback, float] | None] = ContextVar(
    "pudistill_first_result", default=None
)


@contextmanager
def on_first_result(callback: FirstResultCallback, after: float | None = None) -> Iterator[None]:
    """Call `callback` when a fit inside the ``with`` block has a first result.

    A fit that has one before `after` seconds (`WORTH_SECONDS`) have passed ends soon, and computes
    none.
    """
    seconds = WORTH_SECONDS if after is None else after
    with installed(_callback, (callback, time.monotonic() + seconds)):
        yield


def announce_first_result(
    problem: Problem,
    views: list[View],
    transition: TransitionEstimator,
    probas: list[np.ndarray],
) -> None:
    """Compute the first result for the callback, if one is installed.

    Parameters
    ----------
    problem, views, transition
        As for `learn_in_rounds`.
    probas : list of ndarray of shape (n_samples, n_classes)
        For each view, predictions of the first students for samples whose given labels they have
        not seen.
    """
    if (wanted := _callback.get()) is None or time.monotonic() < wanted[1]:
        return
    callback, _ = wanted
    by_view = list(map(Predictions, views, probas, transition.estimate_all(views, probas)))
    noise = estimate_noise(problem.labels, by_view, transition.originals)
    targets = posterior_labels(probas[0], by_view[0].noise, views[0])
    callback(FirstResult(problem.labels, targets, noise))
