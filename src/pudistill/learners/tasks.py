"""The training of learners on soft targets."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
from joblib import delayed
from scipy.sparse import issparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from pudistill.exceptions import DivergedError
from pudistill.learners.cache import cached
from pudistill.learners.capabilities import (
    check_gives_scores,
    continues_training,
    final_step,
    hands_on_fit_params,
    takes_weights,
)
from pudistill.learners.linear import MANY_CLASSES, fit_in_blocks, learns_in_blocks
from pudistill.learners.logistic_part import Block
from pudistill.learners.networks.names import is_built_in, remember_own
from pudistill.learners.networks.recipes import learning_rate_scale, scaled_learning_rate
from pudistill.learners.parallel import in_order
from pudistill.learners.parts import is_worth_dealing
from pudistill.learners.probabilities import with_probabilities
from pudistill.learners.scoring import take, widened
from pudistill.learners.small_linear import fit_together, fits_together
from pudistill.learners.soft_targets import draw_labels, weighted_copies
from pudistill.utils.checkpoint import NOWHERE, Checkpoint, saving_to
from pudistill.utils.cluster import runs_on_cluster
from pudistill.utils.progress import has_epoch_callback, training_ended

# Bytes of samples in a block: it stays in the processor's cache between the two products of a step.
BLOCK_BYTES = 2**21


# Networks that train together as one stack: the paper's number of members per class.
STACK_SIZE = 20


# Parameters of networks that a task sets even if the user has set them.
PARAMETERS_OF_TASK = ("warm_start", "loss", "mixup")


@dataclass(frozen=True)
class Training:
    """One learner to be trained.

    Attributes
    ----------
    estimator : classifier
        A template, which is cloned; or, if `continued`, a network that is trained further.
    X : array-like, sparse matrix or data frame
        Samples.
    targets : ndarray of shape (n_samples, n_classes)
        Rows that sum to 1.
    role : str
        Recipe of a network's training, see `pudistill.learners.networks.recipes.Role`.
    seed : int
        Decides everything random in the training.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights.
    rows : ndarray of shape (n_samples,), int, default=None
        Rows of `X` to learn from; all by default. They are copied only when they are needed, and
        block by block if the learner is fitted in blocks.
    params : dict, default=None
        Further parameters to set if the learner has them.
    continued : bool, default=False
        Whether to continue training from the weights of `estimator`.
    together : bool, default=False
        Whether a logistic regression on a few samples may be fitted together with others, by
        another method to the same optimum.
    may_diverge : bool, default=False
        Whether a training that diverges gives a `DivergedLearner` instead of an error.
    groups : ndarray of shape (n_samples,), int, default=None
        Codes of groups, which the folds that a learner is calibrated on do not split.
    start : fitted estimator, default=None
        A learner fitted to earlier targets of the same samples, or about the same. A fit that has
        one minimum is sought from there, and ends in the minimum all the same; other learners
        ignore it. It must not have learned from labels that this learner will be judged by.
    rough : float, default=1.0
        Multiple of its tolerance at which the fit of a logistic regression ends.
    learning_rate_scale : float
        Factor of a network's learning rate; by default the factor of the enclosing
        `scaled_learning_rate`.
    """

    estimator: Any
    X: Any
    targets: np.ndarray
    role: str
    seed: int
    sample_weight: np.ndarray | None = None
    rows: np.ndarray | None = None
    params: dict[str, Any] | None = None
    continued: bool = False
    together: bool = False
    may_diverge: bool = False
    groups: np.ndarray | None = None
    start: Any = None
    rough: float = 1.0
    learning_rate_scale: float = field(default_factory=learning_rate_scale)

    @property
    def samples(self) -> Any:
        """Samples to learn from."""
        return self.X if self.rows is None else _safe_indexing(self.X, self.rows)

    def blocks(self) -> list[Block]:
        """Return the samples to learn from in blocks, each of which is read when it is needed."""
        n_samples = len(self.targets)
        if issparse(self.X):
            return [Block(lambda: self.samples, slice(0, n_samples))]
        n_columns, n_classes = self.X.shape[1], self.targets.shape[1]
        widest = max(n_columns, n_classes) if n_classes >= MANY_CLASSES else n_columns
        most = max(1, BLOCK_BYTES // (widest * self.X.itemsize))
        size = -(-n_samples // -(-n_samples // most))  # all blocks are of about this size
        parts = [slice(start, min(start + size, n_samples)) for start in range(0, n_samples, size)]
        rows = parts if self.rows is None else [self.rows[part] for part in parts]
        return [
            Block(partial(take, self.X, of_block), part)
            for of_block, part in zip(rows, parts, strict=True)
        ]


class TrainedLearner(NamedTuple):
    """The trained learner, as the result of a cached stage."""

    learner: Any


class DivergedLearner:
    """Stands in for a learner whose training diverged; predicts NaN for every sample.

    Parameters
    ----------
    n_classes : int
        Number of classes.
    """

    def __init__(self, n_classes: int) -> None:
        self.classes_ = np.arange(n_classes)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return NaN, of shape (n_samples, n_classes)."""
        return np.full((_num_samples(X), len(self.classes_)), np.nan)


def train(task: Training) -> Any:
    """Train one learner.

    Parameters
    ----------
    task : Training
        Learner, samples, targets and role.

    Returns
    -------
    learner : fitted estimator
        Its classes are codes. It has ``predict_proba``: a learner with only a
        ``decision_function`` is calibrated, unless it is a member. A learner that takes no sample
        weights learns one label per sample, drawn from its target. With `may_diverge`, a training
        that diverges even at a smaller learning rate gives a `DivergedLearner`.
    """
    learner = _train_or_read(task)
    training_ended(task.role, final_step(learner))
    return learner


def _train_or_read(task: Training) -> Any:
    """Train a learner, or read it from the cache."""
    if task.may_diverge:
        with suppress(DivergedError):
            return _train(task)
        return DivergedLearner(task.targets.shape[1])
    # Only networks are cached, and members are not: all others are trained faster than stored.
    if task.role == "member" or not continues_training(task.estimator) or has_epoch_callback():
        return _train(task)
    remember_own(getattr(final_step(task.estimator), "module", None))
    return cached(_train_network, ["checkpoint"])(task).learner


def _train_network(task: Training, checkpoint: Checkpoint = NOWHERE) -> TrainedLearner:
    with saving_to(checkpoint):
        return TrainedLearner(_train(task))


def _train(task: Training) -> Any:
    with scaled_learning_rate(task.learning_rate_scale):
        return _fit_on_targets(task)


def _fit_on_targets(task: Training) -> Any:
    # Logistic regression takes soft targets as they are; nothing in its training is random.
    if learns_in_blocks(task.estimator, task.X):
        return fit_in_blocks(
            task.estimator, task.blocks(), task.targets, task.sample_weight, task.start, task.rough
        )
    # So does a network.
    learner = unfitted_learner(task)
    final = final_step(learner)
    if getattr(final, "accepts_soft_targets", False):
        return _fit(learner, task.samples, task.targets, fit_params(learner, task.sample_weight))

    # Any other learner gets weighted copies of the samples, or labels drawn from their targets.
    n_samples = len(task.targets)
    rows, labels, weights = weighted_copies(task.targets, task.sample_weight)
    uniform = (weights == weights[0]).all()
    if not uniform and not takes_weights(learner):
        rows = np.arange(n_samples)
        labels = draw_labels(task.targets, np.random.default_rng(task.seed))
        uniform = True
    # Members are calibrated together, see `calibrate_together`.
    if task.role != "member":
        labels_of = task.targets.argmax(axis=1)
        learner = with_probabilities(learner, rows, labels_of, task.seed, task.groups)
    if np.array_equal(rows, np.arange(n_samples)):
        X = task.samples
    else:
        X = _safe_indexing(task.X, rows if task.rows is None else task.rows[rows])
    learner = _fit(learner, X, labels, {} if uniform else fit_params(learner, weights))
    if task.role != "member":
        check_gives_scores(learner, "predict_proba")
    return learner


def unfitted_learner(task: Training) -> Any:
    """Return the learner of a task before its fit, with the task's seed and parameters."""
    learner = task.estimator if task.continued else clone(task.estimator)
    random_states = (name for name in learner.get_params() if name.endswith("random_state"))
    learner.set_params(**dict.fromkeys(random_states, task.seed))
    final = final_step(learner)
    wanted = {"role": task.role} | (task.params or {})
    if continues_training(final):
        wanted["warm_start"] = task.continued
    # Parameters that the user has set stay as they are, except those that the task depends on.
    of_task = PARAMETERS_OF_TASK + ("role",) * task.continued
    free = {
        name
        for name, value in final.get_params(deep=False).items()
        if value is None or name in of_task
    }
    final.set_params(**{name: value for name, value in wanted.items() if name in free})
    return learner


def fit_params(learner: Any, sample_weight: np.ndarray | None) -> dict[str, np.ndarray]:
    """Return the parameter of ``fit`` that passes weights to the learner inside pipelines.

    It is empty without weights, and if the learner takes none.
    """
    if sample_weight is None or not takes_weights(learner):
        return {}
    prefix = ""
    while isinstance(learner, Pipeline) or hands_on_fit_params(learner):
        if isinstance(learner, Pipeline):
            name, learner = learner.steps[-1]
            prefix += f"{name}__"
        else:
            learner = learner.estimator
    return {f"{prefix}sample_weight": sample_weight}


def _fit(learner: Any, X: Any, y: np.ndarray, params: dict[str, np.ndarray]) -> Any:
    # A user enables metadata routing for calls of our ``fit``, not for our calls of learners.
    with config_context(enable_metadata_routing=False):
        return learner.fit(widened(X), y, **params)


def train_all(tasks: Iterable[Training], n_jobs: int | None) -> Iterator[Any]:
    """Train independent learners in parallel, and yield them in order.

    Networks on an accelerator and, where tasks allow it, logistic regressions on a few samples are
    trained together as stacks.
    """
    tasks = iter(tasks)
    first = list(islice(tasks, 2))
    tasks = chain(first, tasks)
    if len(first) == 1 or (first and (_is_shared(first[0]) or is_dealt(first[0]))):
        yield from map(train, tasks)  # each can use all threads
    elif first and _can_be_stacked(first[0]):
        while stack := list(islice(tasks, STACK_SIZE)):
            yield from _train_stack(stack)
    elif first and first[0].together and fits_together(first[0].estimator, first[0].X):
        yield from _fit_together(list(tasks))
    else:
        roles = []

        def calls() -> Iterator[Any]:
            for task in tasks:
                roles.append(task.role)
                yield delayed(_train_or_read)(task)

        for n, learner in enumerate(in_order(calls(), n_jobs)):
            training_ended(roles[n], final_step(learner))
            yield learner


def is_dealt(task: Training) -> bool:
    """Whether threads or nodes share each step of this fit: better than a fit for each of them.

    Neither workers have to start then, nor do they wait for the slowest fit.
    """
    if not learns_in_blocks(task.estimator, task.X) or issparse(task.X):
        return False
    return is_worth_dealing(len(task.blocks()), task.targets.size * task.X.shape[1])


def _is_shared(task: Training) -> bool:
    """Whether all processes of a launcher train this network together; members are not shared."""
    if task.role == "member" or not continues_training(task.estimator):
        return False
    from pudistill.learners.networks.process_group import current_process_group

    return current_process_group().size > 1


def _can_be_stacked(task: Training) -> bool:
    """Whether such networks can train as a stack: members on an accelerator of this machine."""
    if runs_on_cluster() or task.role != "member":
        return False
    if not is_built_in(getattr(task.estimator, "module", None)):
        return False
    from pudistill.learners.networks.classifier import TorchClassifier
    from pudistill.learners.networks.hardware import choose_hardware

    network = task.estimator
    if not isinstance(network, TorchClassifier):
        return False
    return choose_hardware(network.device, "fp32", is_table=False).device.type != "cpu"


def _fit_together(tasks: list[Training]) -> list:
    """Fit logistic regressions together, by Newton's method.

    Those for which it does not converge are trained one by one.
    """
    fitted = fit_together(
        tasks[0].estimator,
        [task.samples for task in tasks],
        [task.targets.argmax(axis=1) for task in tasks],
        [task.sample_weight for task in tasks],
    )
    return [
        train(task) if learner is None else learner
        for task, learner in zip(tasks, fitted, strict=True)
    ]


def _train_stack(tasks: list[Training]) -> list:
    """Train networks together as a stack."""
    from pudistill.learners.networks.fitting import fit_together

    networks = [unfitted_learner(task) for task in tasks]
    try:
        fit_together(networks, [(task.samples, task.targets, task.sample_weight) for task in tasks])
    except DivergedError:
        if not all(task.may_diverge for task in tasks):
            raise
    return [
        network if network.n_iter_ else DivergedLearner(task.targets.shape[1])
        for network, task in zip(networks, tasks, strict=True)
    ]
