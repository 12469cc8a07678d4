"""Lines 13-15 of Algorithm 1 in the default method: student, comparison, noise, shipped model."""

from typing import Any, NamedTuple

import numpy as np

from pudistill.distillation.candidates import CandidateWeights, judge, ship
from pudistill.distillation.clusters import design_effect
from pudistill.distillation.comparison import Comparison
from pudistill.distillation.learning import find_originals, learn
from pudistill.distillation.noise_estimate import NoiseEstimate, estimate_noise
from pudistill.distillation.noise_free_models import NoiseFreeStage
from pudistill.distillation.problem import Problem
from pudistill.distillation.student import StudentFit
from pudistill.distillation.views import held_out_groups, whole_view
from pudistill.learners.capabilities import final_step
from pudistill.utils.arrays import take_rows


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
    """Train the student, compare all candidates, estimate the noise, and ship the best candidate.

    Parameters
    ----------
    problem : Problem
        Samples, labels and learner.
    noise_free : NoiseFreeStage
        Teachers (lines 1-12 of Algorithm 1) and first guess, as from `run_noise_free_stage`.
    transition_matrix : ndarray of shape (n_classes, n_classes) or None
        `T`, if it is known.

    Returns
    -------
    outcome : Outcome
        The student, the noise and the model to ship.
    """
    labels, guesses, whole = problem.labels, noise_free.guesses, whole_view(problem.labels)
    # 1. Users often overwrite the given label of a sample that they verify. If they did not, a view
    # that holds the sample out uses its given label as one more noisy label.
    originals, warning = find_originals(labels, whole, guesses[0])
    views = [whole] + [
        whole.holding_out(view.held_out, labels.given if originals else None)
        for view in noise_free.views[1:]
    ]
    # 2. Lines 13-14: train the student, on posterior labels in place of pseudo-labels.
    student_fit = learn(
        problem, views, guesses, transition_matrix=transition_matrix, originals=originals
    )
    # 3. Compare the candidates on held-out trusted samples.
    comparison, weights = judge(problem, noise_free, student_fit, views)
    # 4. Estimate the noise under the student's predictions.
    temperature = student_fit.calibration.temperature
    if labels.groups is not None:
        temperature = temperature.less_certain(design_effect(held_out_groups(views)))
    noise = estimate_noise(
        labels.classes,
        take_rows(student_fit.proba, whole.labelled),
        whole.given[whole.labelled],
        originals,
        temperature,
        groups=None if labels.groups is None else labels.groups[whole.labelled],
        notes=[] if warning is None else [warning],
        seed=problem.seed,
    )
    # 5. Line 15: ship the chosen candidate, which can be the student.
    model = ship(comparison.shipped, problem, noise_free, student_fit, weights)
    adapted = _adapted(noise_free, student_fit, weights)
    if problem.tunes_student:
        adapted["C_of_student"] = final_step(student_fit.student).C
    return Outcome(student_fit, noise, comparison, model, adapted)


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
