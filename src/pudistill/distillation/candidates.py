"""The candidates for the shipped model: their predictions, their comparison, and the models."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pudistill.distillation.comparison import Comparison, compare, leads, unjudged
from pudistill.distillation.metrics import METRICS
from pudistill.distillation.noise_free_models import (
    FirstGuess,
    NoiseFreeStage,
    collect_held_out,
    drop_small,
)
from pudistill.distillation.peers import (
    Peers,
    fine_tuned,
    held_out_by_labels,
    model_of_labels,
    train_peers,
)
from pudistill.distillation.problem import Problem
from pudistill.distillation.rounds import most_rounds
from pudistill.distillation.student import StudentFit
from pudistill.distillation.views import (
    ENOUGH_HELD_OUT,
    View,
    fit_for_each_view,
    held_out_groups,
    held_out_proba,
    held_out_slices,
    held_out_truth,
    held_out_weight,
    whole_view,
)
from pudistill.exceptions import TrustedWarning, warn_user
from pudistill.learners.calibration import Temperature, mixture_weights
from pudistill.learners.capabilities import continues_training
from pudistill.learners.scoring import Mixture
from pudistill.utils.progress import stage
from pudistill.utils.time_limit import is_time_up

# Candidates that are not weighed in the mixture. All but the last are in the first guess already.
NOT_MIXED = ("trusted_only", "teacher", "semi_supervised", "fine_tuned")


@dataclass(frozen=True)
class CandidateWeights:
    """Weights of the predictions in the candidate "mixture", fitted on held-out trusted samples.

    Attributes
    ----------
    shares : dict of str to float in [0, 1]
        Weights of the first guess ("guess"), the student, the model of the given labels and, if
        they were trained, the peers; they sum to 1.
    temperatures : dict of str to Temperature
        Calibrate all predictions but the first guess, which is calibrated.
    """

    shares: dict[str, float]
    temperatures: dict[str, Temperature]

    @classmethod
    def fit(
        cls,
        predictions: dict[str, np.ndarray],
        truth: np.ndarray,
        weight: np.ndarray | None = None,
    ) -> "CandidateWeights":
        """Fit on predictions of shape (n_held_out, n_classes), among them "guess" and "student".

        The prior counts each prediction as if it had explained one sample: the fewer samples are
        held out, the more evenly the weights are spread. A handful of samples cannot show that one
        prediction is better, and the errors of different models cancel.
        """
        if len(truth) == 0:
            shares = {name: float(name == "student") for name in predictions}
            return cls(shares, dict.fromkeys(shares.keys() - {"guess"}, Temperature()))
        temperatures = {
            name: Temperature.fit(proba, truth, weight)
            for name, proba in predictions.items()
            if name != "guess"
        }
        calibrated = {
            name: temperatures[name].apply(proba) if name in temperatures else proba
            for name, proba in predictions.items()
        }
        weights = drop_small(mixture_weights([*calibrated.values()], truth, weight=weight)).tolist()
        return cls(dict(zip(predictions, weights, strict=True)), temperatures)

    def mix(self, predictions: dict[str, np.ndarray]) -> np.ndarray:
        """Mix predictions of shape (n_samples, n_classes)."""
        parts = []
        for name, share in self.shares.items():
            temperature = self.temperatures.get(name)
            proba = predictions[name]
            parts.append(share * (proba if temperature is None else temperature.apply(proba)))
        return np.sum(parts, axis=0)


def judge(
    problem: Problem, noise_free: NoiseFreeStage, student_fit: StudentFit, views: list[View]
) -> tuple[Comparison, CandidateWeights, Peers | None]:
    """Compare the candidates on the samples that the views hold out.

    Returns
    -------
    comparison : Comparison
        The candidates' results, and the choice.
    weights : CandidateWeights
        Weights of the candidate "mixture".
    peers : Peers or None
        The candidates that do without the first guess, if they were trained.
    """
    truth, groups = held_out_truth(views, problem.n_classes), held_out_groups(views)
    # New samples are like all samples, not like those that nobody verified.
    weight = held_out_weight(problem.labels.drawn_weight(of_all=True), views)
    codes = truth.argmax(axis=1)
    # Given labels of held-out samples are hidden even where they are known, because new samples
    # have none either.
    views = [views[0], *(views[0].holding_out(view.held_out, None) for view in views[1:])]
    peers = None
    teacher = collect_held_out(noise_free.models, "teacher")
    if (calibration := noise_free.first_guess.temperatures.get("teacher")) is not None:
        teacher = calibration.apply(teacher)  # as it is shipped
    n_steps = 2 * (len(views) - 1) + most_rounds(problem)  # the peers', too, if they are needed
    with stage("comparison", n_steps) as advance:
        candidates = {
            "trusted_only": collect_held_out(noise_free.models, "trusted_only"),
            **held_out_by_labels(problem, views, advance),
            "teacher": teacher,
            "student": student_fit.held_out,
        }
        if "semi_supervised" in noise_free.models[0].by_name:
            candidates["semi_supervised"] = collect_held_out(noise_free.models, "semi_supervised")
        if needs_peers(problem, views[0], candidates, codes, groups, weight):
            peers = train_peers(problem, views, noise_free.models, advance)
            candidates |= peers.held_out
    of_guess = {"guess": held_out_proba(noise_free.guesses, views)}
    mixed = of_guess | {name: candidates[name] for name in candidates if name not in NOT_MIXED}
    weights, *of_views = fit_weights(mixed, truth, weight, views)
    if weights.shares["student"] < 1:
        candidates["mixture"] = np.concatenate(
            [
                own.mix({name: proba[rows] for name, proba in mixed.items()})
                for own, rows in zip(of_views, held_out_slices(views[1:]), strict=True)
            ]
        )
    comparison = compare(
        candidates, codes, metric=problem.metric, groups=groups, weight=weight, seed=problem.seed
    )
    if warning := unjudged(problem.labels.classes, codes):
        warn_user(warning, TrustedWarning)
        comparison = replace(comparison, why=f"{comparison.why} {warning}")
    return comparison, weights, peers


def fit_weights(
    predictions: dict[str, np.ndarray],
    truth: np.ndarray,
    weight: np.ndarray | None,
    views: list[View],
) -> list[CandidateWeights]:
    """Fit the weights of the mixture on all held-out samples, and for each view on the others'.

    Weights that had seen the samples would make the mixture seem better than it is.
    """
    return fit_for_each_view(
        lambda rows: CandidateWeights.fit(
            {name: proba[rows] for name, proba in predictions.items()},
            truth[rows],
            None if weight is None else weight[rows],
        ),
        views,
    )


def needs_peers(
    problem: Problem,
    whole: View,
    candidates: dict[str, np.ndarray],
    codes: np.ndarray,
    groups: np.ndarray | None,
    weight: np.ndarray | None = None,
) -> bool:
    """Return whether the first guess can be so weak that candidates without it are worth training.

    Many held-out samples show a weak first guess: then a simpler model leads the student clearly.
    Of few, it is strong if the student leads all others clearly. Networks take too long, and so
    does everything if the time is up.
    """
    if continues_training(problem.student) or len(codes) == 0 or is_time_up("student"):
        return False
    if not whole.has_several_labels:
        return False
    scores = METRICS[problem.metric].scores
    measured = {name: scores(proba, codes, weight) for name, proba in candidates.items()}
    student = measured.pop("student")
    if len(codes) < ENOUGH_HELD_OUT:
        return not all(leads(student, other, groups, weight) for other in measured.values())
    return any(leads(other, student, groups, weight) for other in measured.values())


def ship(
    name: str,
    problem: Problem,
    noise_free: NoiseFreeStage,
    student_fit: StudentFit,
    weights: CandidateWeights,
    peers: Peers | None,
) -> Any:
    """Return the model that makes a candidate's predictions.

    Parameters
    ----------
    name : str
        The candidate, a key of `CANDIDATE_NAMES`.
    problem : Problem
        Samples, labels and learner.
    noise_free : NoiseFreeStage
        Models that read no noisy label.
    student_fit : StudentFit
        The student.
    weights : CandidateWeights
        As from `judge`.
    peers : Peers or None
        As from `judge`.

    Returns
    -------
    model : fitted estimator
        A single model, or a `Mixture`.
    """
    models, first_guess = noise_free.models[0], noise_free.first_guess  # of all trusted samples
    if name == "student":
        return student_fit.student
    if name in ("given_labels", "fine_tuned"):
        whole = whole_view(problem.labels)
        model = model_of_labels(problem, whole)
        return model if name == "given_labels" else fine_tuned(problem, whole, model)
    if name == "pruned_labels" and peers is not None:
        return model_of_labels(problem, peers.pruned)
    if name == "gold_loss_correction" and peers is not None:
        return peers.gold.student
    if name == "semi_supervised":
        return models.by_name[name][0]
    if name == "trusted_only" or (name == "teacher" and "teacher" not in models.by_name):
        return models.by_name["trusted_only"][0]
    if name == "teacher":
        teachers = FirstGuess({"teacher": first_guess.temperatures["teacher"]}, {"teacher": 1.0})
        members = teachers.members(models)
    else:
        members = [
            (model, weights.shares["guess"] * weight, temperature)
            for model, weight, temperature in first_guess.members(models)
        ]
        for part, share in weights.shares.items():
            if part != "guess" and share > 0:
                model = ship(part, problem, noise_free, student_fit, weights, peers)
                members.append((model, share, weights.temperatures[part]))
    parts, shares, temperatures = zip(*(part for part in members if part[1] > 0), strict=True)
    return Mixture(list(parts), list(shares), list(temperatures), problem.n_classes)
