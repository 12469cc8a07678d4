"""Rows about the members of the filter: training several networks, and voting."""

import statistics
from pathlib import Path
from typing import Any

import numpy as np
from joblib import delayed
from sklearn.base import clone

from benchmarks.speed.measurement import Figures, Goal, alternate, medians, ratio, row


def binary_pictures(n: int, n_positives: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw pictures of noise; positives have a bright square in the middle, faint in some."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 160, (n, 28, 28, 1), dtype=np.uint8)
    positive = np.arange(n) < n_positives
    strength = rng.integers(20, 95, n_positives)[:, None, None, None]
    pictures[positive, 8:20, 8:20] += strength.astype(np.uint8)
    return pictures, positive


def member_trainings(
    network: str, n_members: int, per_class: int = 40, precision: str = "auto"
) -> list[Any]:
    from pudistill import TorchClassifier
    from pudistill.labels.pseudo_labels import one_hot
    from pudistill.learners.tasks import Training

    pictures, positive = binary_pictures(2 * per_class, per_class)
    targets = one_hot(positive.astype(int), 2)
    learner = TorchClassifier(network, precision=precision)
    return [
        Training(learner, pictures, targets, role="member", seed=seed) for seed in range(n_members)
    ]


def ensemble(network: str, n_members: int, **params: Any) -> Figures:
    """Train members one after another, as a stack, and in parallel processes."""
    from pudistill.learners.networks.fitting import fit_together
    from pudistill.learners.parallel import in_order
    from pudistill.learners.tasks import train

    tasks = member_trainings(network, n_members, **params)

    def stack() -> None:
        networks = [
            clone(task.estimator).set_params(role="member", random_state=task.seed)
            for task in tasks
        ]
        samples = [(task.X, task.targets, None) for task in tasks]
        fit_together(networks, samples, stack=lambda _: True)

    seconds = alternate(
        2,
        one_by_one=lambda: [train(task) for task in tasks],
        stack=stack,
        in_parallel=lambda: list(in_order((delayed(train)(task) for task in tasks), -1)),
    )
    rates = {
        f"{name}, members/min": 60 * len(tasks) / statistics.median(times)
        for name, times in seconds.items()
    }
    best = max(ratio(seconds, "one_by_one", name) for name in ("stack", "in_parallel"))
    return {
        "the best against one by one": best,
        "a stack against one by one": ratio(seconds, "one_by_one", "stack"),
        "in parallel against one by one": ratio(seconds, "one_by_one", "in_parallel"),
        **rates,
    }


@row("8 members of small_cnn", kind="long")
def members(_: Path) -> Figures:
    return ensemble("small_cnn", 8, precision="fp32")


@row("20 members of preact_resnet18, batch 128", {"the best against one by one": Goal(3)}, "gpu")
def members_on_gpu(_: Path) -> Figures:
    return ensemble("preact_resnet18", 20, per_class=640)


@row("scoring, N = 20, θ = 19", {"the cascade against full voting": Goal(5)}, "long")
def scoring(_: Path) -> Figures:
    from pudistill.learners.scoring import predict_proba
    from pudistill.learners.tasks import train
    from pudistill.pu_filter.voting import cascade_vote

    networks = [train(task) for task in member_trainings("small_cnn", 20)]
    pictures, positive = binary_pictures(5000, 500)

    def score(member: Any, rows: np.ndarray) -> np.ndarray:
        return predict_proba(member, pictures, 2, rows)[:, 1]

    def vote() -> Any:
        return cascade_vote(networks, score, len(pictures), 0.9, 19)

    all_rows = np.arange(len(pictures))
    seconds = alternate(
        3, cascade=vote, full=lambda: [score(network, all_rows) for network in networks]
    )
    accepted = ~np.isnan(vote().mean_proba)
    return {
        "the cascade against full voting": ratio(seconds, "full", "cascade"),
        "accepted": float(accepted.mean()),
        "positives accepted": float(accepted[positive].mean()),
        **medians(seconds),
    }
