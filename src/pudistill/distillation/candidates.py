"""The candidates for the shipped model: their predictions, their comparison, and the models."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from joblib import delayed

from pudistill.distillation.clusters import standard_error
from pudistill.distillation.comparison import Comparison, compare, unjudged
from pudistill.distillation.noise_free_models import (
    FirstGuess,
    NoiseFreeStage,
    collect_held_out,
    drop_small,
    train_on_labels,
)
from pudistill.distillation.problem import Problem
from pudistill.distillation.student import StudentFit
from pudistill.distillation.views import (
    View,
    held_out_groups,
    held_out_proba,
    held_out_truth,
    whole_view,
)
from pudistill.exceptions import TrustedWarning, warn_user
from pudistill.labels.checks import MISSING
from pudistill.learners.calibration import Temperature, log_likelihood, mixture_weights
from pudistill.learners.parallel import in_order
from pudistill.learners.scoring import Mixture
from pudistill.utils.progress import stage

# Prior of the weights of first guess, student and model of the given labels: each counts as if it
# had explained that many samples. The student has learned from everything that the other two know.
# It does worse than the model of the given labels only if the transition matrix is wrong, which is
# rare.
PRIOR_OF_MIXTURE = (1.0, 3.0, 1.0)


@dataclass(frozen=True)
class CandidateWeights:
    """Weights of the predictions in the candidate "mixture", fitted on held-out trusted samples.

    Attributes
    ----------
    guess, student, given_labels : float in [0, 1]
        Weights of the first guess, the student and the model of the given labels; they sum to 1.
    given_temperature : Temperature
        Calibrates the model of the given labels.
    """

    guess: float
    student: float
    given_labels: float
    given_temperature: Temperature

    @classmethod
    def fit(
        cls,
        guess: np.ndarray,
        student: np.ndarray,
        given: np.ndarray,
        truth: np.ndarray,
        groups: np.ndarray | None = None,
    ) -> "CandidateWeights":
        """Fit on predictions of shape (n_held_out, n_classes), of which `given` is uncalibrated."""
        if len(truth) == 0:
            return cls(0.0, 1.0, 0.0, Temperature())
        temperature = Temperature.fit(given, truth)
        predictions = [guess, student, temperature.apply(given)]
        lead = log_likelihood(predictions[1], truth) - log_likelihood(predictions[2], truth)
        if lead.mean() > standard_error(lead, groups):
            # A student that is clearly better has learned everything that the given labels tell.
            weights = np.append(mixture_weights(predictions[:2], truth), 0.0)
        else:
            weights = mixture_weights(predictions, truth, PRIOR_OF_MIXTURE)
        guess_weight, student_weight, given_weight = drop_small(weights).tolist()
        return cls(guess_weight, student_weight, given_weight, temperature)

    def mix(self, guess: np.ndarray, student: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Mix predictions of shape (n_samples, n_classes)."""
        given = self.given_temperature.apply(given)
        return self.guess * guess + self.student * student + self.given_labels * given


def judge(
    problem: Problem, noise_free: NoiseFreeStage, student_fit: StudentFit, views: list[View]
) -> tuple[Comparison, CandidateWeights]:
    """Compare the candidates on the samples that the views hold out.

    Returns
    -------
    comparison : Comparison
        The candidates' results, and the choice.
    weights : CandidateWeights
        Weights of the candidate "mixture".
    """
    truth, student = held_out_truth(views, problem.n_classes), student_fit.held_out
    guess = held_out_proba(noise_free.guesses, views)
    given = _given_labels_held_out(problem, views)
    groups = held_out_groups(views)
    weights = CandidateWeights.fit(guess, student, given, truth, groups)
    candidates = {
        "trusted_only": collect_held_out(noise_free.models, "trusted_only"),
        "given_labels": given,
        "teacher": collect_held_out(noise_free.models, "teacher"),
        "student": student,
    }
    if weights.student < 1:
        candidates["mixture"] = weights.mix(guess, student, given)
    codes = truth.argmax(axis=1)
    comparison = compare(candidates, codes, metric=problem.metric, groups=groups, seed=problem.seed)
    if warning := unjudged(problem.labels.classes, codes):
        warn_user(warning, TrustedWarning)
        comparison = replace(comparison, why=f"{comparison.why} {warning}")
    return comparison, weights


def _given_labels_held_out(problem: Problem, views: list[View]) -> np.ndarray:
    """Predict held-out samples by models trained on the given labels of all other samples.

    Given labels of held-out samples are hidden even where they are known, because new samples have
    none either.
    """
    whole = views[0]
    models = (
        delayed(given_labels_model)(problem, whole.holding_out(view.held_out, None))
        for view in views[1:]
    )
    parts = [np.zeros((0, problem.n_classes))]
    with stage("comparison", len(views) - 1) as advance:
        for view, model in zip(views[1:], in_order(models, problem.n_tasks), strict=True):
            parts.append(problem.predict_proba(model, view.held_out))
            advance(1)
    return np.concatenate(parts)


def given_labels_model(problem: Problem, view: View) -> Any:
    """Train on the labels as they are: verified where trusted, else given."""
    labels = np.where(view.verified == MISSING, view.given, view.verified)
    return train_on_labels(
        problem.student,
        problem.X,
        labels,
        problem.n_classes,
        problem.seed,
        groups=view.groups,
        sample_weight=problem.labels.sample_weight,
    )


def ship(
    name: str,
    problem: Problem,
    noise_free: NoiseFreeStage,
    student_fit: StudentFit,
    weights: CandidateWeights,
) -> Any:
    """Return the model that makes a candidate's predictions.

    Parameters
    ----------
    name : {"mixture", "student", "teacher", "trusted_only", "given_labels"}
        The candidate.
    problem : Problem
        Samples, labels and learner.
    noise_free : NoiseFreeStage
        Models that read no noisy label.
    student_fit : StudentFit
        The student.
    weights : CandidateWeights
        As from `judge`.

    Returns
    -------
    model : fitted estimator
        A single model, or a `Mixture`.
    """
    models, first_guess = noise_free.models[0], noise_free.first_guess  # of all trusted samples
    if name == "student":
        return student_fit.student
    if name == "given_labels":
        return given_labels_model(problem, whole_view(problem.labels))
    if name == "trusted_only" or (name == "teacher" and "teacher" not in models.by_name):
        return models.by_name["trusted_only"][0]
    if name == "teacher":
        teachers = FirstGuess({"teacher": first_guess.temperatures["teacher"]}, {"teacher": 1.0})
        members = teachers.members(models)
    else:
        members = [
            (model, weights.guess * weight, temperature)
            for model, weight, temperature in first_guess.members(models)
        ]
        members.append((student_fit.student, weights.student, student_fit.calibration.temperature))
        if weights.given_labels:
            given = given_labels_model(problem, whole_view(problem.labels))
            members.append((given, weights.given_labels, weights.given_temperature))
    parts, shares, temperatures = zip(*(part for part in members if part[1] > 0), strict=True)
    return Mixture(list(parts), list(shares), list(temperatures), problem.n_classes)
