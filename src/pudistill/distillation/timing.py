"""What a classifier says about the time of its fit, and how it keeps to a limit."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from joblib import effective_n_jobs
from sklearn.base import clone

from pudistill.distillation.earlier_fit import can_be_updated
from pudistill.distillation.time_estimate import WORTH_SAYING, TimeEstimate, Work, estimate_time
from pudistill.exceptions import TimeLimitWarning, warn_user
from pudistill.labels.checks import Labels
from pudistill.labels.samples import check_samples, split_off_no_class
from pudistill.utils.progress import expect, wants_estimate
from pudistill.utils.time_limit import duration, is_time_up, limited_by, note_cut, seconds_of

# Share of the time of a fit that an update takes: measured were a quarter to a half of it
# (benchmarks/results/update.json).
UPDATE = 0.4


class TimedFit:
    """The part of a `PUDistillClassifier` that estimates and limits the time of its fit."""

    compare: bool
    method: str
    n_jobs: int | None
    warm_start: bool
    time_limit: Any
    cut_short_: list[str]

    def estimate_time(
        self, X: Any, y: Any, trusted: Any = None, groups: Any = None
    ) -> TimeEstimate:
        """Estimate how long `fit` takes on this machine, from short trial fits on few samples.

        Parameters
        ----------
        X, y, trusted, groups
            As for `fit`.

        Returns
        -------
        estimate : TimeEstimate
            ``seconds``, ``interval`` (in which the actual time mostly is), ``steps``, and
            ``faster``: the seconds with other parameters. Printed, it is a sentence.
        """
        other: Any = clone(self)
        other._validate_params()
        X, labels = check_samples(other, X, y, trusted, other._learners(), groups=groups)
        X, labels, _ = split_off_no_class(X, labels)
        return estimate_time(other._work(X, labels))

    def _work(self, X: Any, labels: Labels) -> Work:
        """Describe what a fit has to do."""
        raise NotImplementedError

    @property
    def _is_update(self) -> bool:
        """Whether `fit` starts from an earlier fit."""
        return self.warm_start and self.method == "default" and can_be_updated(self)

    @contextmanager
    def _in_time(self, X: Any, labels: Labels) -> Iterator[None]:
        """Estimate the time of a fit if somebody wants to know it, and keep to the limit."""
        seconds, begin = seconds_of(self.time_limit), time.time()
        if seconds is None and (self._is_update or not wants_estimate()):
            yield
            return
        X, labels, _ = split_off_no_class(X, labels)
        estimate = estimate_time(self._work(X, labels))
        if self._is_update:
            estimate = estimate.scaled(UPDATE)
        limit, limit_text = None, self.time_limit
        if not isinstance(limit_text, str):
            limit_text = f"{seconds} s"
        if seconds is not None:
            limit = estimate.limit(seconds, begin, effective_n_jobs(self.n_jobs))
            if estimate.least_uncompared > seconds:
                warn_user(
                    f"The time limit of {limit_text} is too short: this fit needs about "
                    f"{duration(estimate.least_uncompared)[0]}, even if everything that can be "
                    "cut short is.",
                    TimeLimitWarning,
                )
        text = str(estimate) if estimate.seconds >= WORTH_SAYING else ""
        if seconds is not None and seconds < estimate.seconds:
            text = f"{estimate} The time limit of {limit_text} cuts it short."
            estimate = estimate.shortened_to(seconds)
        expect(text, estimate.seconds_of_stages)
        with limited_by(limit):
            yield
        if limit is not None and limit.cut_short:
            self.cut_short_ = list(limit.cut_short)
            warn_user(
                f"The time limit of {limit_text} cut this short: "
                f"{', '.join(self.cut_short_)}. With more time the result can be better; it "
                "depends on the speed of the machine.",
                TimeLimitWarning,
            )

    def _affords_comparison(self) -> bool:
        """Whether to hold samples out to compare; not if the time limit leaves no time for it."""
        if self.compare and is_time_up("held-out views"):
            note_cut("the comparison (left out)")
            return False
        return self.compare
