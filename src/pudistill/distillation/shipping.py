"""The default method after the noise-free models: student, comparison, noise, shipped model."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from joblib import delayed

from pudistill.distillation.comparison import Comparison, compare, unjudged
from pudistill.distillation.learning import find_originals, learn
from pudistill.distillation.noise_estimate import NoiseEstimate, estimate_noise
from pudistill.distillation.noise_free_models import (
    FirstGuess,
    NoiseFreeStage,
    collect_held_out,
    drop_small,
    train_on_labels,
)
from pudistill.distillation.problem import Problem
from pudistill.distillation.student import StudentFit
from pudistill.distillation.views import View, held_out_proba, held_out_truth, whole_view
from pudistill.exceptions import TrustedWarning, warn_user
from pudistill.labels.checks import MISSING
from pudistill.learners.calibration import Temperature, log_likelihood, mixture_weights
from pudistill.learners.parallel import in_order
from pudistill.learners.scoring import Mixture
from pudistill.utils.arrays import take_rows
from pudistill.utils.progress import stage

# Prior of the weights of first guess, student and given labels, as a number of samples that speak
# for each. The student has learned from all that the others know: where it is worse than training
# on given labels, the transition matrix is wrong, which is rare.
PRIOR_OF_MIXTURE = (1.0, 3.0, 1.0)


class Outcome(NamedTuple):
    """Results of `learn_and_ship`.

    Attributes
    ----------
    student_fit : StudentFit
        The student.
    noise : NoiseEstimate
        Noise in the given labels.
    comparison : Comparison
        The candidates' results, and the choice.
    model : fitted estimator
        The model that is shipped, which `predict` uses.
    adapted : dict of str to float
        Values of the quantities that adapt to the data.
    """

    student_fit: StudentFit
    noise: NoiseEstimate
    comparison: Comparison
    model: Any
    adapted: dict[str, float]


def learn_and_ship(
    problem: Problem, noise_free: NoiseFreeStage, *, transition_matrix: np.ndarray | None
) -> Outcome:
    """Train the student, estimate the noise, compare all candidates, and ship the best.

    The augmented clean set, the teachers (lines 1-12 of Algorithm 1) and the first guess come with
    `noise_free`; this stands for lines 13-14.

    Parameters
    ----------
    problem : Problem
        Samples, labels and learner.
    noise_free : NoiseFreeStage
        As from `run_noise_free_stage`.
    transition_matrix : ndarray of shape (n_classes, n_classes) or None
        `T`, if it is known.

    Returns
    -------
    outcome : Outcome
        The student, the noise and the model to ship.
    """
    labels, guesses, whole = problem.labels, noise_free.guesses, whole_view(problem.labels)
    # 1. Decide whether trusted samples still have the labels that they were given. If so, views
    # that hold them out treat these labels as any other noisy label.
    originals, warning = find_originals(labels, whole, guesses[0])
    views = [whole] + [
        whole.holding_out(view.held_out, labels.given if originals else None)
        for view in noise_free.views[1:]
    ]
    # 2. Train the student on posterior labels (in place of lines 13-14).
    student_fit = learn(
        problem, views, guesses, transition_matrix=transition_matrix, originals=originals
    )
    # 3. Judge the candidates on held-out trusted samples.
    comparison, weights = judge(problem, noise_free, student_fit, views)
    # 4. Estimate the noise under the student's predictions.
    noise = estimate_noise(
        labels.classes,
        take_rows(student_fit.proba, whole.labelled),
        whole.given[whole.labelled],
        originals,
        student_fit.calibration.temperature,
        notes=[] if warning is None else [warning],
        seed=problem.seed,
    )
    # 5. Ship the candidate that was chosen.
    model = ship(comparison.shipped, problem, noise_free, student_fit, weights)
    adapted = _adapted(noise_free, student_fit, weights)
    return Outcome(student_fit, noise, comparison, model, adapted)


@dataclass(frozen=True)
class CandidateWeights:
    """Weights of the predictions in the candidate "mixture", fitted on held-out trusted samples.

    Attributes
    ----------
    guess, student, given_labels : float in [0, 1]
        Weights of the first guess, the student and training on the given labels; they sum to 1.
    given_temperature : Temperature
        Calibrates the last one.
    """

    guess: float
    student: float
    given_labels: float
    given_temperature: Temperature

    @classmethod
    def fit(
        cls, guess: np.ndarray, student: np.ndarray, given: np.ndarray, truth: np.ndarray
    ) -> "CandidateWeights":
        """Fit on predictions of shape (n_held_out, n_classes), the first two calibrated."""
        if len(truth) == 0:
            return cls(0.0, 1.0, 0.0, Temperature())
        temperature = Temperature.fit(given, truth)
        predictions = [guess, student, temperature.apply(given)]
        lead = log_likelihood(predictions[1], truth) - log_likelihood(predictions[2], truth)
        if lead.mean() > lead.std() / np.sqrt(len(truth)):
            # A student that is clearly better has learned all that is in the given labels.
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
    """Compare what could be shipped on the samples that the views hold out.

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
    weights = CandidateWeights.fit(guess, student, given, truth)
    candidates = {
        "trusted_only": collect_held_out(noise_free.models, "trusted_only"),
        "given_labels": given,
        "teacher": collect_held_out(noise_free.models, "teacher"),
        "student": student,
    }
    if weights.student < 1:
        candidates["mixture"] = weights.mix(guess, student, given)
    codes = truth.argmax(axis=1)
    comparison = compare(candidates, codes, seed=problem.seed)
    if warning := unjudged(problem.labels.classes, codes):
        warn_user(warning, TrustedWarning)
        comparison = replace(comparison, why=f"{comparison.why} {warning}")
    return comparison, weights


def _given_labels_held_out(problem: Problem, views: list[View]) -> np.ndarray:
    """Predict held-out samples by models trained on the given labels of all others.

    Also where held-out samples have a given label: new samples have none either.
    """
    whole = views[0]
    models = (
        delayed(given_labels_model)(problem, whole.holding_out(view.held_out, None))
        for view in views[1:]
    )
    parts = [np.zeros((0, problem.n_classes))]
    with stage("comparison", len(views) - 1) as advance:
        for view, model in zip(views[1:], in_order(models, problem.n_jobs), strict=True):
            parts.append(problem.predict_proba(model, view.held_out))
            advance(1)
    return np.concatenate(parts)


def given_labels_model(problem: Problem, view: View) -> Any:
    """Train on the labels as they are: verified where trusted, else given."""
    labels = np.where(view.verified == MISSING, view.given, view.verified)
    return train_on_labels(problem.student, problem.X, labels, problem.n_classes, problem.seed)


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
    problem, noise_free, student_fit, weights
        Samples and learner, and what was trained.

    Returns
    -------
    model : fitted estimator
        One model, or a `Mixture`.
    """
    models, first_guess = noise_free.models[0], noise_free.first_guess
    if name == "student":
        return student_fit.student
    if name == "given_labels":
        return given_labels_model(problem, whole_view(problem.labels))
    if name == "trusted_only" or (name == "teacher" and "teacher" not in models.models):
        return models.models["trusted_only"][0]
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


def _adapted(
    noise_free: NoiseFreeStage, student_fit: StudentFit, weights: CandidateWeights
) -> dict[str, float]:
    """List the quantities that adapt to the data, for the attribute ``adapted_``."""
    first_guess = noise_free.first_guess
    return {
        "rounds": student_fit.n_rounds,
        "student_share": weights.student,
        "given_labels_share": weights.given_labels,
        **{f"{name}_share_of_guess": w for name, w in first_guess.weights.items()},
        "sharpness_of_student": student_fit.calibration.temperature.sharpness,
        **{f"sharpness_of_{name}": t.sharpness for name, t in first_guess.temperatures.items()},
        "held_out_trusted_samples": sum(len(view.held_out) for view in noise_free.views),
    }
