"""The training loop."""

import copy
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pudistill.exceptions import DivergedError
from pudistill.learners.networks.batches import BatchFeed, move_to_device
from pudistill.learners.networks.job import Job
from pudistill.learners.networks.objectives import Batch
from pudistill.learners.networks.own import check_logits, naming_failures
from pudistill.learners.networks.process_group import SINGLE_PROCESS, ProcessGroup
from pudistill.learners.networks.stacks import SingleNetwork, Stack

log = logging.getLogger(__name__)


class Trainer:
    """Trains one network, or several as a stack; iterating over it trains epoch by epoch.

    The networks of a stack make every step together. Each draws its own random numbers, so that
    all get the weights, within rounding, that they would get alone.

    Parameters
    ----------
    jobs : sequence of Job
        One job, or several that can be stacked; see `Job.can_stack_with`. Between epochs the
        networks can be used for prediction.
    group : ProcessGroup, default=SINGLE_PROCESS
        Processes that train one network together; its objective must be stateless. The main
        process iterates; the others run the epochs that it announces.

    Yields
    ------
    losses : list of float, one per job
        Mean training loss of the epoch.

    Raises
    ------
    DivergedError
        If a loss is no longer a finite number.
    InputError
        If a network does not return one logit for each class.
    """

    def __init__(self, jobs: Sequence[Job], group: ProcessGroup = SINGLE_PROCESS) -> None:
        self.jobs = jobs
        self.group = group
        self.recipe, self.hardware = jobs[0].recipe, jobs[0].hardware
        data = move_to_device([job.inputs for job in jobs], self.hardware.device)
        self.feeds = [
            BatchFeed(job, samples, group) for job, samples in zip(jobs, data, strict=True)
        ]
        self.network = (
            Stack([job.module for job in jobs])
            if len(jobs) > 1
            else SingleNetwork(group.synchronise_batch_norm(jobs[0].module))
        )
        settings: dict[str, Any] = {
            "lr": self.recipe.learning_rate,
            "weight_decay": self.recipe.weight_decay,
            "fused": self.hardware.device.type in ("cpu", "cuda"),
        }
        self.optimiser: torch.optim.Optimizer
        if self.recipe.optimiser == "adamw":
            self.optimiser = torch.optim.AdamW(self.network.parameters(), **settings)
        else:
            self.optimiser = torch.optim.SGD(
                self.network.parameters(),
                momentum=self.recipe.momentum,
                nesterov=self.recipe.nesterov,
                **settings,
            )
        self.epoch = 0  # number of the next epoch

    def __iter__(self) -> Iterator[list[float]]:
        self._send_job()
        while self.epoch < self.recipe.epochs:
            self.group.send("epoch")
            yield self.run_epoch()

    def _send_job(self) -> None:
        """Send the job and its progress to the other processes of the group."""
        if self.group.size > 1:
            (job,) = self.jobs
            log.info("together", extra={"processes": self.group.size})
            on_cpu = replace(job, module=copy.deepcopy(job.module).cpu())
            self.group.send("train", on_cpu, self.state())

    def run_epoch(self) -> list[float]:
        """Train for one epoch; return the mean loss of each job."""
        epoch = self.epoch
        # 1. Draw the epoch's batches.
        for job in self.jobs:
            job.objective.begin_epoch(epoch)
            job.module.train()
        n_batches, batches = zip(*(feed.epoch() for feed in self.feeds), strict=True)
        # 2. Make a step for each batch.
        total = torch.zeros(len(self.jobs), device=self.hardware.device)
        n_samples = 0
        for number, drawn in enumerate(zip(*batches, strict=True)):
            n_drawn = len(drawn[0][0])
            rate = self.recipe.rate(epoch + number / n_batches[0])
            if self.recipe.epochs * n_batches[0] == 1:
                rate = self.recipe.learning_rate  # the first step of a one-cycle schedule has 0
            total += self._step(drawn, rate) * n_drawn
            n_samples += n_drawn
        # 3. Copy weights and batch statistics back to the networks.
        self.network.write_back()
        for job in self.jobs:
            self.group.average(job.module.buffers())
        # 4. Read the losses once per epoch: each read waits until a GPU has finished all its work.
        mean_losses = (total / n_samples).tolist()
        for mean_loss in mean_losses:
            if not math.isfinite(mean_loss):
                raise DivergedError(
                    f"The training loss became {mean_loss} in epoch {epoch + 1}: lower "
                    f"learning_rate, which is {self.recipe.learning_rate:g}."
                )
        self.epoch += 1
        return mean_losses

    def _step(self, drawn: Sequence[tuple[Tensor, Tensor]], rate: float) -> Tensor:
        """Make one step with the (rows, raw samples) of each job; return the jobs' losses."""
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.zero_grad()
        batches = [feed.batch(*samples) for feed, samples in zip(self.feeds, drawn, strict=True)]
        losses = None
        if len(self.jobs) == 1:
            losses = self.jobs[0].objective.backward(batches[0], rate)
        losses = self._backward(batches) if losses is None else losses[None]
        self.optimiser.step()
        return losses.detach()

    def _backward(self, batches: Sequence[Batch]) -> Tensor:
        """Set the gradients of the losses from the objectives; return the losses, (n_jobs,)."""
        # 1. Ask the objectives for inputs and loss functions.
        objectives = [job.objective(batch) for job, batch in zip(self.jobs, batches, strict=True)]
        inputs, loss_fns = zip(*objectives, strict=True)
        # 2. Compute the logits of this process's part of the batch; gather those of the others.
        n_inputs = len(inputs[0])
        parts = [own_inputs[self.group.part(n_inputs)] for own_inputs in inputs]
        with self.hardware.autocast(), naming_failures(self.jobs[0].module, parts[0]):
            outputs = self.network(parts)
        logits = [
            self.group.gather(
                check_logits(own, (len(part), job.targets.shape[1])).to(self.hardware.dtype),
                n_inputs,
                dim=-2,
            )
            for own, part, job in zip(outputs, parts, self.jobs, strict=True)
        ]
        # 3. Set the gradients. The losses can be added: each depends on one network only.
        losses = torch.stack([loss_fn(own) for loss_fn, own in zip(loss_fns, logits, strict=True)])
        (losses.sum() / self.group.n_copies(n_inputs)).backward()
        self.group.add_gradients(self.network.parameters())
        return losses

    @property
    def can_be_saved(self) -> bool:
        """Whether `state` contains everything that a continued training needs."""
        return len(self.jobs) == 1 and not self.jobs[0].objective.is_stateful

    def state(self) -> dict[str, Any]:
        """Return the state of the training of one network, between two epochs, as arrays."""
        (job,), (feed,) = self.jobs, self.feeds
        _, *rng = job.rng.get_state()
        return {
            "epoch": np.array(self.epoch),
            "weights": _as_arrays(job.module.state_dict()),
            "optimiser": {
                str(n): _as_arrays(
                    {name: value for name, value in of_weight.items() if value is not None}
                )
                for n, of_weight in enumerate(self._optimiser_states())
            },
            "means": _as_arrays(feed.means),
            "generator": feed.generator.get_state().numpy(),
            "rng": [np.asarray(part) for part in rng],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue a training of the same job from its `state`."""
        (job,), (feed,) = self.jobs, self.feeds
        self.epoch = int(state["epoch"])
        weights = {name: torch.tensor(value) for name, value in state["weights"].items()}
        job.module.load_state_dict(weights)
        for n, weight in enumerate(self.network.parameters()):
            for name, value in state["optimiser"][str(n)].items():
                buffer = torch.tensor(value, device=weight.device)
                if buffer.shape == weight.shape:
                    # In the memory layout of the weight, which fused steps assume.
                    buffer = torch.empty_like(weight).copy_(buffer).detach()
                self.optimiser.state[weight][name] = buffer
        for name, mean in state.get("means", {}).items():
            feed.means[name] = torch.tensor(mean, device=self.hardware.device)
        feed.generator.set_state(torch.tensor(state["generator"]))
        key, position, has_gauss, cached = state["rng"]
        job.rng.set_state(("MT19937", key, int(position), int(has_gauss), float(cached)))

    def _optimiser_states(self) -> list[dict[str, Tensor | None]]:
        return [self.optimiser.state.get(weight, {}) for weight in self.network.parameters()]


def _as_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy(force=True).copy() for name, tensor in tensors.items()}
