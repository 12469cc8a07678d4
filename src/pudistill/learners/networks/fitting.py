"""Fit networks by their jobs: with checkpoints, a retry after divergence, and stacks."""

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from pudistill.exceptions import DivergedError, InputError, RecoveredWarning, warn_user
from pudistill.learners.networks.hardware import (
    global_random_states,
    seeded,
    set_global_random_states,
)
from pudistill.learners.networks.job import Job
from pudistill.learners.networks.names import is_built_in
from pudistill.learners.networks.process_group import (
    SINGLE_PROCESS,
    ProcessGroup,
    current_process_group,
)
from pudistill.learners.networks.recipes import RETRY_FACTOR, Recipe
from pudistill.learners.networks.trainer import Trainer
from pudistill.utils.checkpoint import NOWHERE, Checkpoint, current_checkpoint
from pudistill.utils.progress import epoch_ended, stage

# Number of training steps by which the speeds of a stack and of separate networks are compared.
TRIAL_STEPS = 5
_is_stack_faster: dict[tuple, bool] = {}


class TrainableNetwork(Protocol):
    """An estimator that holds a network, such as `TorchClassifier`."""

    module: Any
    role: Any
    recipe_: Recipe
    n_iter_: int

    def make_job(self, X: Any, y: Any, sample_weight: Any = None) -> Job:
        """Check the data and build the network; see `TorchClassifier.make_job`."""

    def record_epochs(self, losses: Sequence[float]) -> Any:
        """Mark the estimator as fitted; record the mean loss of each epoch."""


def fit_objective(
    networks: Sequence[TrainableNetwork], jobs: Sequence[Job], seed: int | None = None
) -> None:
    """Train networks; several jobs take turns, one epoch each.

    Parameters
    ----------
    networks : sequence of TorchClassifier
        The networks that the jobs train, which are fitted afterwards. A job can train several.
    jobs : sequence of Job
        One or more jobs with the same number of epochs.
    seed : int, default=None
        Seed of the modules' own randomness while they train; None: that of the first job.
    """
    first, job = networks[0], jobs[0]
    device, epochs = job.hardware.device, job.recipe.epochs
    # Built-in networks draw no random numbers while they train; others can have dropout.
    is_random = not is_built_in(first.module) or job.recipe.has_transforms
    randomness = seeded(job.seed if seed is None else seed, device) if is_random else nullcontext()
    try:
        with randomness, _epoch_bar(first, epochs) as advance:
            # 1. Choose the processes that train, and set up a trainer for each job.
            group = _process_group_for(first, jobs)
            trainers = [Trainer([job], group) for job in jobs]
            # 2. Continue from the checkpoint, if there is one.
            saves = len(trainers) == 1 and trainers[0].can_be_saved
            checkpoint = current_checkpoint() if saves else NOWHERE
            losses = _restore(checkpoint, trainers[0], is_random)
            if losses:
                advance(len(losses))
                for network in networks:
                    network.record_epochs(losses)
            # 3. Train, one epoch of each job at a time.
            for epoch_losses in zip(*trainers, strict=True):
                losses.append(float(np.mean(epoch_losses)))
                for network in networks:
                    network.record_epochs(losses)
                advance(1, detail=f"loss {losses[-1]:.3f}")
                if first.role != "member":
                    epoch_ended(len(losses), networks)
                if checkpoint.is_due:
                    checkpoint.save(
                        **trainers[0].state(),
                        losses=np.array(losses),
                        learning_rate=np.array(job.recipe.learning_rate),
                        device=np.array(device.type),
                        drawn=global_random_states(device),
                    )
    except BaseException:
        for network in networks:
            network.n_iter_ = 0  # not fitted
        raise


def _epoch_bar(network: TrainableNetwork, epochs: int) -> AbstractContextManager[Any]:
    """Show progress by epochs; none for members of the filter, which counts its members itself."""
    if network.role == "member":
        return nullcontext(lambda *_, **__: None)
    return stage(f"{network.role or 'network'} epochs", epochs)


def _process_group_for(network: TrainableNetwork, jobs: Sequence[Job]) -> ProcessGroup:
    """Choose the processes that train: all those of a launcher, or this one alone."""
    group = current_process_group()
    if group.size == 1 or network.role == "member":  # members are many, and small
        return SINGLE_PROCESS
    can_be_sent = (
        len(jobs) == 1 and not jobs[0].objective.is_stateful and isinstance(network.module, str)
    )
    if can_be_sent and jobs[0].hardware.device == group.device:
        return group
    warn_user(
        "The main process trains this network alone: a network with a method's own loss, one that "
        f"a callable builds, or one on another device cannot be shared among {group.size} "
        "processes.",
        UserWarning,
    )
    return SINGLE_PROCESS


def _restore(checkpoint: Checkpoint, trainer: Trainer, is_random: bool) -> list[float]:
    """Continue from a checkpoint; return the losses of the epochs that are done."""
    job = trainer.jobs[0]
    done = checkpoint.load()
    # A checkpoint with another learning rate is of another attempt; see `fit_with_retry`. One
    # without a device is of an earlier version.
    if done is None or done["learning_rate"] != job.recipe.learning_rate or "device" not in done:
        return []
    # Random states of a GPU and of a CPU do not fit each other: train this network anew.
    if str(done["device"]) != job.hardware.device.type:
        return []
    trainer.restore(done)
    if is_random:
        set_global_random_states(done["drawn"], job.hardware.device)
    return done["losses"].tolist()


def fit_with_retry(network: TrainableNetwork, job: Job) -> None:
    """Train a network; if it diverges, train it again from the same weights at a smaller rate."""
    weights, drawn = copy.deepcopy(job.module.state_dict()), job.rng.get_state()
    try:
        fit_objective([network], [job])
    except DivergedError as error:
        rate = job.recipe.learning_rate * RETRY_FACTOR
        warn_user(
            f"A network is trained once more, with learning_rate={rate:g}: {error}",
            RecoveredWarning,
        )
        current_checkpoint().remove()
        job.module.load_state_dict(weights)
        job.rng.set_state(drawn)
        network.recipe_ = replace(job.recipe, learning_rate=rate)
        try:
            fit_objective([network], [replace(job, recipe=network.recipe_)])
        except DivergedError as again:
            current_checkpoint().remove()
            repeated = DivergedError(
                f"{again} It was repeated at a tenth of the rate already: check the network and "
                "its inputs."
            )
            repeated.was_repeated = True
            raise repeated from again


def stacking_pays(jobs: Sequence[Job]) -> bool:
    """Measure whether networks train faster as a stack than one after another.

    On a CPU they never do, so nothing is measured: the convolutions of a stack are grouped
    convolutions, which take two to five times as long as separate convolutions.

    Parameters
    ----------
    jobs : sequence of Job
        Networks of one architecture whose jobs can be stacked.

    Returns
    -------
    is_faster : bool
        Measured once for each kind and number of networks.
    """
    first = jobs[0]
    device = first.hardware.device
    if len(jobs) == 1 or device.type == "cpu":
        return False
    recipe = first.recipe.with_epochs(1)
    key = (type(first.module), first.inputs.shape[1:], len(jobs), recipe, first.hardware)
    if key not in _is_stack_faster:
        _is_stack_faster[key] = _measure_stack(jobs)
    return _is_stack_faster[key]


def _measure_stack(jobs: Sequence[Job]) -> bool:
    """Return whether copies of the networks make a few steps faster as a stack than in turn.

    A stack that fails, for lack of memory or because PyTorch does not support an operation on this
    device and in this precision, counts as slower.
    """
    recipe = jobs[0].recipe.with_epochs(1)
    stride = max(1, len(jobs[0].inputs) // (TRIAL_STEPS * recipe.batch_size))

    def copies() -> list[Job]:
        return [
            replace(
                job,
                module=copy.deepcopy(job.module),
                inputs=job.inputs[::stride],
                targets=job.targets[::stride],
                weights=None,
                recipe=recipe,
                rng=np.random.RandomState(0),
            )
            for job in jobs
        ]

    def seconds(groups: list[list[Job]]) -> float:
        start = time.perf_counter()
        for group in groups:
            list(Trainer(group))  # reads the losses, and so waits for the device
        return time.perf_counter() - start

    try:
        for _ in range(2):  # the first round warms up
            in_turn = seconds([[job] for job in copies()])
            together = seconds([copies()])
    except (RuntimeError, InputError):
        return False
    return together < in_turn


def fit_together(
    networks: Sequence[TrainableNetwork],
    samples: Sequence[tuple[Any, Any, Any]],
    *,
    stack: Callable[[Sequence[Job]], bool] = stacking_pays,
) -> None:
    """Fit several networks, as stacks where that is faster.

    The result is that of fitting them one by one, within rounding. If the training of a network
    diverges, the others are finished before the error is raised.

    Parameters
    ----------
    networks : sequence of TorchClassifier
        Built-in networks: others can contain operations that a stack does not support.
    samples : sequence of tuple of (X, y, sample_weight)
        The training data of each network.
    stack : callable, default=stacking_pays
        Decides whether jobs that can be a stack are trained as one.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from pudistill.learners.networks.classifier import TorchClassifier
    >>> from pudistill.learners.networks.fitting import fit_together
    >>> X, y = load_iris(return_X_y=True)
    >>> networks = [TorchClassifier(random_state=seed) for seed in range(3)]
    >>> fit_together(networks, [(X, y, None)] * 3)
    >>> [network.n_iter_ for network in networks] == [networks[0].n_iter_] * 3
    True
    """
    waiting = [
        (network, network.make_job(*data)) for network, data in zip(networks, samples, strict=True)
    ]
    diverged: DivergedError | None = None
    while waiting:
        # 1. Take all jobs that can be a stack with the first one.
        first = waiting[0][1]
        fits_stack = [job is first or job.can_stack_with(first) for _, job in waiting]
        group = [pair for pair, fits in zip(waiting, fits_stack, strict=True) if fits]
        waiting = [pair for pair, fits in zip(waiting, fits_stack, strict=True) if not fits]
        # 2. Train them as a stack, or one by one if that is slower or the stack diverges.
        jobs = [job for _, job in group]
        if len(jobs) > 1 and stack(jobs) and _fit_stack(group):
            continue
        for network, job in group:
            try:
                fit_with_retry(network, job)
            except DivergedError as error:
                diverged = error
    if diverged is not None:
        raise diverged


def _fit_stack(group: Sequence[tuple[TrainableNetwork, Job]]) -> bool:
    """Train networks as a stack; if one diverges, restore all weights and return False."""
    jobs = [job for _, job in group]
    weights = [copy.deepcopy(job.module.state_dict()) for job in jobs]
    try:
        epochs = list(Trainer(jobs))
    except DivergedError:
        for job, before in zip(jobs, weights, strict=True):
            job.module.load_state_dict(before)
        return False
    for (network, _), losses in zip(group, zip(*epochs, strict=True), strict=True):
        network.record_epochs(losses)
    return True
