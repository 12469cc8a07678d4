"""Lines 13-15 of Algorithm 1 in the default method: student, comparison, noise, shipped model."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binom

from pudistill.distillation.candidates import CandidateWeights, judge, ship
from pudistill.distillation.clusters import standard_error
from pudistill.distillation.comparison import Comparison, LabelAccuracy
from pudistill.distillation.few_trusted import (
    are_few,
    are_very_few,
    lean_on_given_labels,
    warning_of_few,
)
from pudistill.distillation.held_out_labels import HeldOutLabels, judge_all
from pudistill.distillation.learning import find_originals, learn
from pudistill.distillation.noise_estimate import (
    NO_EVIDENCE,
    NoiseEstimate,
    estimate_noise,
)
from pudistill.distillation.noise_free_models import FirstGuess, NoiseFreeStage
from pudistill.distillation.noise_model import NoiseModel
from pudistill.distillation.paper import train_student
from pudistill.distillation.peers import predict_by_pruned_labels
from pudistill.distillation.predictions import Predictions
from pudistill.distillation.problem import Problem
from pudistill.distillation.random_sample import doubt_of_own_predictions
from pudistill.distillation.readout import Readout
from pudistill.distillation.student import StudentFit
from pudistill.distillation.transition import Originals, smoothed
from pudistill.distillation.views import (
    View,
    deal_unread,
    held_out_groups,
    held_out_proba,
    held_out_truth,
    whole_view,
)
from pudistill.exceptions import TrustedWarning, warn_user
from pudistill.labels.checks import MISSING, Labels
from pudistill.labels.pseudo_labels import one_hot
from pudistill.labels.samples import is_pictures
from pudistill.labels.table import Outliers
from pudistill.learners.calibration import log_likelihood
from pudistill.learners.capabilities import continues_training, final_step, has_trunk
from pudistill.learners.outliers import find_outliers
from pudistill.learners.scoring import Mixture
from pudistill.utils.arrays import rowwise

NOTHING_VERIFIED = (
    "Nothing is verified: labels and rates are those of a model of the sources, with the "
    "classifier as the prior, and nothing can be promised. Verify some labels of each class, drawn "
    "at random."
)

NO_BETTER_THAN_GUESSES = (
    "The models that correct labels predict held-out verified samples no better than by guesses, "
    "so the given labels alone say what a label should be. {}."
)
FIND_FEATURES = "Find features that say more about the classes"
TRAIN_LONGER = "Train the network longer, or choose another one"
CHECK_ORDER = (
    "Check that the rows of pred_probs are in the order of the labels, and its columns in that of "
    "the classes"
)

# Predictions for held-out samples are better than guesses if chance makes them as good in fewer
# cases than this.
CHANCE = 0.1


class Outcome(NamedTuple):
    """Results of `learn_and_ship`.

    Attributes
    ----------
    student_fit : StudentFit
        The student.
    noise : NoiseEstimate
        Noise in the given labels of samples that are no outliers.
    comparison : Comparison
        The candidates' results, and the choice.
    model : fitted estimator
        The model that is shipped, which `predict` uses.
    adapted : dict of str to float
        Values of the quantities that adapt to the data.
    outliers : Outliers
        How unlike the trusted samples all samples are.
    held_out_labels : HeldOutLabels
        Labels of all samples by models that have not seen their verified labels.
    label_accuracy : LabelAccuracy or None
        Share of right labels among the corrected ones.
    folds : ndarray of shape (n_samples,), int
        The view that holds each verified sample out, from 0; -1 for none.
    """

    student_fit: StudentFit
    noise: NoiseEstimate
    comparison: Comparison
    model: Any
    adapted: dict[str, float]
    outliers: Outliers
    held_out_labels: HeldOutLabels
    label_accuracy: LabelAccuracy | None
    folds: np.ndarray


def learn_and_ship(
    problem: Problem,
    noise_free: NoiseFreeStage,
    *,
    transition_matrix: np.ndarray | None,
    no_class: Any = None,
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
    no_class : samples, default=None
        Further samples that are known to be of no class. They only teach which samples are unlike
        those of every class.

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
    is_network = continues_training(problem.student)
    if is_network:
        views = deal_unread(views, problem.seed)
    if problem.own_proba is not None:
        guesses = _joined([problem.own_proba] * len(views), guesses, views)
    if problem.earlier is not None:
        guesses = _joined(problem.earlier.predictions(guesses), guesses, views)
    # With few trusted samples, the first guess is weak, and the given labels know more. With very
    # few, not even that can be measured. Networks take too long to learn what they know.
    if not labels.trusted.any():
        warn_user(NOTHING_VERIFIED, TrustedWarning)
    elif are_very_few(labels):
        guesses = lean_on_given_labels(problem, views, guesses)
    elif are_few(labels) and not is_network and len(views) > 1 and whole.has_several_labels:
        guesses = _joined(predict_by_pruned_labels(problem, views), guesses, views)
    # 2. Lines 13-14: train the student, on posterior labels in place of pseudo-labels.
    student_fit = learn(
        problem,
        views,
        guesses,
        transition_matrix=transition_matrix,
        originals=originals,
        trained=noise_free.semi_supervised,
    )
    parts = zip(views, student_fit.probas, student_fit.noise, strict=True)
    # The network of a view that holds samples out has read all given labels, or most of them.
    by_view = [Predictions(*part, is_blind=part[0] is whole or not is_network) for part in parts]
    # Predictions of the user's own model can say more than the student.
    held_out = student_fit.calibrated_held_out
    remedy = TRAIN_LONGER if is_network else FIND_FEATURES
    if problem.own_proba is not None:
        held_out, remedy = held_out_proba(student_fit.probas, views), CHECK_ORDER
    by_view, is_known = informed_predictions(by_view, held_out, labels, originals, remedy)
    readout = Readout.fit(by_view[1:], originals)
    targets = readout.labels(by_view[0]) if is_known else kept_labels(labels, student_fit.probas[0])
    student_fit = student_fit._replace(targets=targets)
    # 3. Compare the candidates on held-out trusted samples.
    comparison, weights, peers = judge(problem, noise_free, student_fit, views)
    if labels.trusted.any() and are_very_few(labels):
        warn_user(warning_of_few(labels), TrustedWarning)
    # 4. Estimate the noise under the student's predictions; outliers may be of no class.
    outliers = _outliers(problem, noise_free, student_fit.student, views, no_class)
    noise = estimate_noise(
        labels,
        by_view,
        originals,
        is_known=is_known,
        is_outlier=outliers.is_outlier,
        notes=[] if warning is None else [warning],
    )
    doubt = None
    if problem.own_proba is not None:
        doubt = doubt_of_own_predictions(labels, problem.own_proba, originals)
    judged = judge_all(labels, by_view[1:], originals, targets, problem.seed, doubt)
    if not is_known:
        warn_user(NO_EVIDENCE, TrustedWarning)
    # 5. Line 15: ship the chosen candidate, which can be the student.
    model = ship(comparison.shipped, problem, noise_free, student_fit, weights, peers)
    if problem.single_model and isinstance(model, Mixture):
        model, note = distilled(problem, model)
        # No sample was held out from this model, so its accuracy is not stated.
        why = f"{comparison.why} {note}"
        comparison = replace(comparison, why=why, expected_accuracy=None)
    adapted = _adapted(noise_free, student_fit, weights)
    adapted["exponent_of_predictions"] = readout.of_prediction
    adapted["exponent_of_given_labels"] = readout.of_label
    if problem.tunes_student:
        adapted["C_of_student"] = final_step(student_fit.student).C
    folds = np.full(len(labels.given), MISSING)
    for fold, view in enumerate(views[1:]):
        folds[view.held_out] = fold
    return Outcome(student_fit, noise, comparison, model, adapted, outliers, *judged, folds)


def _joined(
    others: list[np.ndarray], guesses: list[np.ndarray], views: list[View]
) -> list[np.ndarray]:
    """Mix the first guess of each view with other predictions, all calibrated.

    Only labels are learned from it: new samples have no such predictions.
    """
    of_kind = {"guess": guesses, "other": others}
    held_out = {name: held_out_proba(proba, views) for name, proba in of_kind.items()}
    mixture = FirstGuess.fit(held_out, held_out_truth(views, guesses[0].shape[1]))
    return [
        rowwise(lambda p, q: mixture.mix({"guess": p, "other": q}), guess, other)
        for guess, other in zip(guesses, others, strict=True)
    ]


def distilled(problem: Problem, mixture: Mixture) -> tuple[Any, str]:
    """Train one model on the predictions of a mixture, and on verified labels.

    Parameters
    ----------
    problem : Problem
        Samples, labels and learner.
    mixture : Mixture
        The model to be replaced.

    Returns
    -------
    model : fitted estimator
        One model like the student.
    note : str
        How often both agree, for the reader: the model itself was not compared.
    """
    labels, proba = problem.labels, problem.predict_proba(mixture)
    targets = np.where(
        labels.trusted[:, None],
        one_hot(np.maximum(labels.verified, 0), labels.n_classes),
        proba,
    )
    weighted = {"groups": labels.groups, "sample_weight": labels.sample_weight}
    model = train_student(problem.student, problem.X, targets, seed=problem.seed, **weighted)
    same = problem.predict_proba(model).argmax(axis=1) == proba.argmax(axis=1)
    note = (
        f"It was distilled into one model, which predicts the same class for {same.mean():.1%} of "
        "the samples that it has learned from. Its own accuracy was not measured."
    )
    return model, note


def says_something(held_out: np.ndarray, labels: Labels, views: list[View]) -> bool:
    """Return whether predictions for held-out samples are better than guesses.

    Parameters
    ----------
    held_out : ndarray of shape (n_held_out, n_classes)
        Predictions; if there are none, nothing speaks against them.
    labels : Labels
        Verified labels.
    views : list of View
        The views that hold these samples out.
    """
    truth, n = held_out_truth(views, labels.n_classes), len(held_out)
    share = np.bincount(labels.verified[labels.drawn], minlength=labels.n_classes) + 1.0
    share /= share.sum()
    n_right = int((held_out.argmax(axis=1) == truth.argmax(axis=1)).sum())
    if n == 0 or binom.sf(n_right - 1, n, share.max()) < CHANCE:
        return True
    gain = log_likelihood(held_out, truth) - truth @ np.log(share)
    return bool(gain.mean() > 1.5 * standard_error(gain, held_out_groups(views)))


def informed_predictions(
    by_view: list[Predictions],
    held_out: np.ndarray,
    labels: Labels,
    originals: Originals | None,
    remedy: str,
) -> tuple[list[Predictions], bool]:
    """Replace predictions that say nothing by the shares of the classes, if originals are known.

    Then only the given label says what the true one is, by the noise that the originals show.

    Parameters
    ----------
    by_view : list of Predictions
        Those of all labels, then those of the views that hold verified samples out.
    held_out : ndarray of shape (n_held_out, n_classes)
        Predictions for the samples that are held out.
    labels : Labels
        Verified labels.
    originals : Originals or None
        Verified samples with the labels that they were given.
    remedy : str
        What to do about predictions that say nothing, for the warning.

    Returns
    -------
    by_view : list of Predictions
        Those to correct labels by.
    is_known : bool
        Whether anything is known about the labels.
    """
    views = [predictions.view for predictions in by_view]
    says = says_something(held_out, labels, views)
    if says or originals is None or labels.sources is not None:
        return by_view, says or originals is not None
    warn_user(NO_BETTER_THAN_GUESSES.format(remedy), TrustedWarning)
    found, shape = [], (len(labels.given), labels.n_classes)
    for view in views:
        share = np.bincount(view.verified[view.trusted], minlength=labels.n_classes) + 1.0
        T = smoothed(originals.without(view.hidden).counted(labels.n_classes))
        proba = np.broadcast_to(share / share.sum(), shape)
        found.append(Predictions(view, proba, NoiseModel(T)))
    return found, True


def kept_labels(labels: Labels, proba: np.ndarray) -> np.ndarray:
    """Return verified and given labels as one-hot rows; predictions where there are none."""
    codes = np.where(labels.trusted, labels.verified, labels.given)
    return np.where(codes[:, None] == MISSING, proba, one_hot(np.maximum(codes, 0), proba.shape[1]))


def _outliers(
    problem: Problem, noise_free: NoiseFreeStage, student: Any, views: list[View], no_class: Any
) -> Outliers:
    """Find samples unlike the trusted ones; pictures are seen by a network that holds some out."""
    model, held_out = student, None
    if is_pictures(problem.X) and len(views) > 1 and has_trunk(problem.student):
        # A network knows the samples that it has learned from: those would seem nearer than others.
        model, held_out = noise_free.models[1].by_name["trusted_only"][0], [views[1].held_out]
    return find_outliers(
        problem.X,
        problem.labels.verified,
        model,
        held_out=held_out,
        no_class=no_class,
        seed=problem.seed,
    )


def _adapted(
    noise_free: NoiseFreeStage, student_fit: StudentFit, weights: CandidateWeights
) -> dict[str, float]:
    """List the quantities that adapt to the data, for the attribute ``adapted_``."""
    first_guess = noise_free.first_guess
    return {
        "rounds": student_fit.n_rounds,
        **{f"{name}_share": share for name, share in weights.shares.items() if name != "guess"},
        **{f"{name}_share_of_guess": w for name, w in first_guess.weights.items()},
        "sharpness_of_student": student_fit.calibration.temperature.sharpness,
        **{f"sharpness_of_{name}": t.sharpness for name, t in first_guess.temperatures.items()},
        "held_out_trusted_samples": sum(len(view.held_out) for view in noise_free.views),
    }
