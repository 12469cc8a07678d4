"""Shared trunks: members that are networks share all layers except the last."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pudistill.labels.checks import MISSING
from pudistill.labels.pseudo_labels import one_hot
from pudistill.learners.cache import cached
from pudistill.learners.defaults import default_learner
from pudistill.learners.scoring import embed
from pudistill.learners.tasks import Training, train_all
from pudistill.pu_filter.plan import FilterInputs
from pudistill.utils import arrays
from pudistill.utils.progress import stage


class Embeddings(NamedTuple):
    """The inputs of the last layer of each team's network."""

    samples: np.ndarray  # (n_teams, n_samples, n_hidden), float32
    eval_samples: np.ndarray  # (n_teams, n_eval, n_hidden)


def with_shared_trunks(inputs: FilterInputs, n_jobs: int | None) -> FilterInputs:
    """Replace samples by embeddings, one view per team, and networks by logistic regressions."""
    embeddings = cached(_embed, ignore=["n_jobs"])(inputs, n_jobs)
    return inputs._replace(
        views=list(embeddings.samples),
        eval_views=list(embeddings.eval_samples) if inputs.eval_views else [],
        estimator=default_learner(embeddings.samples[0]),
    )


def _embed(inputs: FilterInputs, n_jobs: int | None = None) -> Embeddings:
    """Train a network for each team to classify the trusted samples outside its fold."""
    (X,), verified, plan = inputs.views, inputs.verified, inputs.plan
    targets, weight = one_hot(verified, verified.max() + 1), inputs.sample_weight
    rows_of_teams = [
        np.flatnonzero((verified != MISSING) & (inputs.folds != team))
        for team in range(plan.n_teams)
    ]
    tasks = (
        Training(
            inputs.estimator,
            X,
            targets[rows],
            rows=rows,
            role="reference",
            seed=plan.seed,
            sample_weight=None if weight is None else weight[rows],
        )
        for rows in rows_of_teams
    )
    samples, eval_samples = [], []
    with stage("trunks", plan.n_teams) as advance:
        for trunk in train_all(tasks, n_jobs):
            samples.append(embed(trunk, X))
            eval_samples += [embed(trunk, eval_set) for eval_set in inputs.eval_views]
            advance(1)
    return Embeddings(
        stack_teams(samples), stack_teams(eval_samples) if eval_samples else np.array([])
    )


def stack_teams(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Stack one array per team; a large result is in a temporary file."""
    return np.stack(parts, out=arrays.empty((len(parts), *parts[0].shape), parts[0].dtype))
