"""The systems that the robustness benchmark compares, and the cells of each problem."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.semi_supervised import SelfTrainingClassifier

from benchmarks.common.cells import Cell, Method
from benchmarks.common.problems import (
    ANY,
    EXTREMES,
    KNOWN,
    Group,
    Noise,
    Problem,
    small_cnn,
)
from pudistill.classifier import PUDistillClassifier
from pudistill.distillation.first_result import FirstResult, on_first_result
from pudistill.experiments import paper
from pudistill.labels.checks import MISSING
from pudistill.labels.corruption import CorruptedLabels
from pudistill.labels.pseudo_labels import one_hot
from pudistill.methods.registry import load_class

PAPER_FIXED = (0.5, 0.7)


# Each function takes a group, the noise and the noisy labels, and returns a result.


def given_labels(group: Group, _: Noise, noisy: CorruptedLabels) -> dict:
    return group.learner_on(noisy.y, noisy.y != MISSING)


def trusted_only(group: Group, *_: Any) -> dict:
    return group.learner_on(group.y, group.trusted)


def true_labels(group: Group, *_: Any) -> dict:
    return group.learner_on(group.y)


def self_training(group: Group, *_: Any) -> dict:
    classifier = SelfTrainingClassifier(group.learner_with_probabilities())
    classifier.fit(group.X, np.where(group.trusted, group.y, -1))
    return group.scored(classifier.predict(group.X_test))


def consistency(group: Group, *_: Any) -> dict:
    """Train on trusted samples and unlabeled pictures as FixMatch does, without given labels."""
    network = small_cnn(
        role="noise_aware", consistency_weight=1.0, loss="likelihood", random_state=group.seed
    )
    likelihood = np.where(group.trusted[:, None], one_hot(group.y, group.n_classes), 1.0)
    return group.score(network.fit(group.X, likelihood))


def clean_learning(
    group: Group, noisy: CorruptedLabels, *, keeps_trusted: bool
) -> tuple[Any, pd.DataFrame]:
    """Fit CleanLearning; return it with its findings, a row for each sample with a label."""
    from cleanlab.classification import CleanLearning

    classifier = CleanLearning(
        group.learner_with_probabilities(),
        seed=group.seed,
        find_label_issues_kwargs={"n_jobs": 1},  # two cells run in parallel already
    )
    rows = np.flatnonzero(noisy.y != MISSING)
    X, y = group.X[rows], noisy.y[rows]
    found = classifier.find_label_issues(X, y).set_index(rows)
    if keeps_trusted:
        found["is_label_issue"] &= ~group.trusted[rows]
    return classifier.fit(X, y, label_issues=found), found


def cleanlab(group: Group, _: Noise, noisy: CorruptedLabels) -> dict:
    try:
        classifier, _found = clean_learning(group, noisy, keeps_trusted=False)
    except Exception as error:  # cleanlab sometimes leaves a class without samples
        return {"test_accuracy": None, "error": f"{type(error).__name__}: {error}"}
    return group.scored(classifier.predict(group.X_test))


def registered(
    group: Group,
    _: Noise,
    noisy: CorruptedLabels,
    *,
    name: str,
    make_learner: Callable[[], Any] | None = None,
) -> dict:
    """Fit a method of the registry with the problem's learner, or another one."""
    learner = group.learner if make_learner is None else make_learner()
    classifier = load_class(name)(learner, random_state=group.seed)
    classifier.fit(group.X, *as_mask(group, noisy))
    return group.scored(classifier.predict(group.X_test))


def paper_fixed(group: Group, _: Noise, noisy: CorruptedLabels) -> dict:
    return students_result(group, noisy, *PAPER_FIXED)


def paper_per_level(group: Group, noise: Noise, noisy: CorruptedLabels) -> dict:
    kind = noise.kind if noise.kind in paper.TUNED else "symmetric"
    nearest = min(paper.LEVELS, key=lambda level: abs(level - noise.level))
    return students_result(group, noisy, **paper.tuned(kind, nearest))


def students_result(
    group: Group, noisy: CorruptedLabels, blend: float, min_confidence: float
) -> dict:
    classifier = group.paper().set_params(blend=blend, min_confidence=min_confidence)
    classifier.fit_student(group.X, noisy.y, group.trusted)
    return group.scored(classifier.predict(group.X_test))


def as_mask(group: Group, noisy: CorruptedLabels) -> tuple[np.ndarray, np.ndarray]:
    """Return the given labels, overwritten where they are verified, and the mask of these."""
    return with_gaps(noisy.y), group.trusted


def with_originals(group: Group, noisy: CorruptedLabels) -> tuple[np.ndarray, np.ndarray]:
    """Return the given labels as they were, and the verified labels."""
    return with_gaps(noisy.would_be), np.where(group.trusted, group.y, np.nan)


def with_gaps(codes: np.ndarray) -> np.ndarray:
    """Write NaN where there is no label."""
    return np.where(codes == MISSING, np.nan, codes) if (codes == MISSING).any() else codes


def pudistill(group: Group, noise: Noise, noisy: CorruptedLabels) -> dict:
    return our_result(group, noise, group.ours(), *as_mask(group, noisy))


def pudistill_with(
    group: Group, _: Noise, noisy: CorruptedLabels, *, make_learner: Callable[[], Any]
) -> dict:
    """Fit the default method with another learner than the problem's."""
    classifier = PUDistillClassifier(make_learner(), random_state=group.seed)
    classifier.fit(group.X, *as_mask(group, noisy))
    return group.scored(classifier.predict(group.X_test))


def pudistill_originals_known(group: Group, noise: Noise, noisy: CorruptedLabels) -> dict:
    return our_result(group, noise, group.ours(), *with_originals(group, noisy))


def true_matrix(group: Group, noise: Noise, noisy: CorruptedLabels) -> dict:
    classifier = group.ours().set_params(transition_matrix=noisy.transition_matrix)
    return our_result(group, noise, classifier, *as_mask(group, noisy))


def our_result(
    group: Group, noise: Noise, classifier: Any, y: np.ndarray, trusted: np.ndarray
) -> dict:
    """Fit the student; return its accuracy and its estimates of noise and accuracy."""
    first: list[FirstResult] = []
    with on_first_result(first.append, after=0):
        classifier.fit_student(group.X, y, trusted)
    result = group.scored(classifier.predict(group.X_test))
    result["noise_rate_estimate"] = float(classifier.noise_.rate)
    result["noise_rate_interval"] = [float(bound) for bound in classifier.noise_.rate_interval]
    if first:
        bounds = first[0].noise.rate_interval
        result["preliminary_interval"] = [float(bound) for bound in bounds]
    if noise.kind == "asymmetric":
        result["flips_found"] = flips_found(classifier.noise_.transition_matrix, group.class_map)
    if (expected := classifier.expected_accuracy_) is not None:
        result["expected_accuracy"] = float(expected.value)
        result["interval"] = [float(bound) for bound in expected.interval]
    result["shipped"] = classifier.shipped_
    result["held_out"] = {
        candidate["name"]: candidate["accuracy"] for candidate in classifier.comparison_.candidates
    }
    return result


def flips_found(T: np.ndarray, class_map: dict[int, int]) -> float:
    """Return the share of flipped classes whose largest off-diagonal entry is the right one."""
    off_diagonal = np.where(np.eye(len(T), dtype=bool), -np.inf, T)
    found = off_diagonal.argmax(axis=1)
    return float(np.mean([found[right] == wrong for right, wrong in class_map.items()]))


METHODS = {
    "trusted_only": Method(trusted_only, reads_noise=False),
    "true_labels": Method(true_labels, reads_noise=False),
    "self_training": Method(self_training, reads_noise=False),
    "consistency": Method(consistency, reads_noise=False),
    "given_labels": Method(given_labels, in_extremes=True),
    "gold_loss_correction": Method(
        partial(registered, name="gold_loss_correction"), in_extremes=True
    ),
    "cleanlab": Method(cleanlab),
    "paper_per_level": Method(paper_per_level, needs=Group.paper),
    "paper_fixed": Method(paper_fixed, needs=Group.paper, in_extremes=True),
    "pudistill": Method(pudistill, needs=Group.ours, in_extremes=True),
    KNOWN: Method(pudistill_originals_known, needs=Group.ours),
    "true_matrix": Method(true_matrix, needs=Group.ours),
}


def cells_of(problem: Problem, seed: int) -> Iterator[Cell]:
    """Yield all cells of a problem and seed, grouped by noise."""
    names = problem.methods or [name for name in METHODS if name != "consistency"]
    grid = [Noise(kind, level) for kind in problem.kinds for level in problem.levels]
    for noise in (ANY, *grid, *problem.extremes):
        for name in names:
            fits = METHODS[name].reads_noise == (noise != ANY)
            wanted = noise not in EXTREMES or METHODS[name].in_extremes
            if fits and wanted and seed < problem.seeds_of.get(name, problem.seeds):
                yield Cell(problem.name, seed, noise, name)
