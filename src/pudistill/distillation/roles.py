"""The learners of filter, teachers and student."""

from numbers import Integral
from typing import Any

from pudistill.distillation.noise_free_models import choose_noise_free_regularisation
from pudistill.distillation.problem import Problem
from pudistill.labels.checks import Labels
from pudistill.labels.samples import is_pictures
from pudistill.learners.defaults import default_learner, normalised
from pudistill.learners.linear import MANY_CLASSES
from pudistill.learners.regularisation import with_regularisation
from pudistill.pu_filter.estimator import TieredPUFilter
from pudistill.pu_filter.plan import at_most_needed
from pudistill.pu_filter.rules import DEFAULT_MIN_VOTES, DEFAULT_THRESHOLD

# Roles of the learners, in the order of `HasRoles._learners`.
FILTER, TEACHER, STUDENT = range(3)


class HasRoles:
    """The choice of a learner for each role, and the filter, of a classifier."""

    estimator: Any
    filter_estimator: Any
    teacher: Any
    student: Any
    method: str
    n_members: int
    max_iter: int
    threshold: float | str
    min_votes: float | str
    target_precision: float
    tol: float | None
    share_trunk: bool | str
    n_jobs: int | None
    memory: Any
    encoder_: Any
    _noise_free_c: float | None = None

    def _choose_regularisation(self, X: Any, labels: Labels, seed: int) -> None:
        """Choose the regularisation of models that read no noisy label, if they are the default."""
        is_tuned = None in self._learners() and not is_pictures(X)
        is_tuned &= self.method == "default" and labels.n_classes < MANY_CLASSES
        if is_tuned and labels.trusted.any():
            learner = default_learner(X, encoded=self.encoder_ is not None)
            problem = Problem(X, labels, learner, self.n_jobs, seed)
            self._noise_free_c = choose_noise_free_regularisation(problem)

    def _learners(self) -> list:
        """List the learners of filter, teachers and student; None: chosen for the data."""
        own = (self.filter_estimator, self.teacher, self.student)
        return [self.estimator if learner is None else learner for learner in own]

    def _learner(self, role: int, X: Any, *, reads_noisy_labels: bool | None = None) -> Any:
        """Return the learner of a role; by default only that of the student reads noisy labels."""
        learner = self._learners()[role]
        if learner is not None:
            return normalised(learner, X)
        noisy = role == STUDENT if reads_noisy_labels is None else reads_noisy_labels
        C = 1.0
        if not noisy and self._noise_free_c is not None and not is_pictures(X):
            C = self._noise_free_c
        return with_regularisation(default_learner(X, encoded=self.encoder_ is not None), C)

    def _new_filter(self, X: Any, labels: Labels, seed: int) -> TieredPUFilter:
        """Make the filter with this classifier's settings; the paper's method has its own rule."""
        threshold, min_votes, is_paper = self.threshold, self.min_votes, self.method == "paper"
        n_members = self.n_members if is_paper else at_most_needed(self.n_members, labels)
        if is_paper:
            threshold = DEFAULT_THRESHOLD if threshold == "auto" else threshold
            min_votes = DEFAULT_MIN_VOTES if min_votes == "auto" else min_votes
        elif isinstance(min_votes, Integral) and n_members < self.n_members >= min_votes:
            min_votes = min_votes / self.n_members  # of fewer members, as many in proportion
        return TieredPUFilter(
            self._learner(FILTER, X),
            n_members=n_members,
            max_iter=self.max_iter,
            threshold=threshold,
            min_votes=min_votes,
            target_precision=self.target_precision,
            tol=self.tol,
            share_trunk=not is_paper if self.share_trunk == "auto" else bool(self.share_trunk),
            n_jobs=self.n_jobs,
            memory=self.memory,
            random_state=seed,
        )
