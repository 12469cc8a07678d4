"""What Co-teaching and JoCoR share: two networks that learn from samples of small loss."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pudistill.learners.lessons import Batch, Lesson, Price
from pudistill.learners.torch_classifier import TorchClassifier, teach
from pudistill.learners.training import Job
from pudistill.methods.base import Given, NetworkMethod, average, seeds
from pudistill.methods.noise_level import estimate_noise_level


class Committee(nn.Module):
    """Networks that answer side by side: logits of shape (n_networks, n, n_classes)."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch to the logits of all networks."""
        return torch.stack([network(x) for network in self.networks])


class SmallLoss(Lesson):
    """A lesson for two networks, in which samples of large loss are left out.

    Parameters
    ----------
    noise_rate : float in [0, 1]
        Share of the samples that are left out in the end.
    n_epochs : int
        Epochs in all.
    warm_up : float in [0, 1]
        Share of the epochs over which the share of samples left out rises to `noise_rate`.
    trusted : Tensor of shape (n_samples,), bool
        Samples that are never left out.
    """

    def __init__(self, noise_rate: float, n_epochs: int, warm_up: float, trusted: Tensor) -> None:
        self.noise_rate = noise_rate
        self.n_rising = max(1.0, warm_up * n_epochs)
        self.trusted = trusted
        self.kept_share = 1.0

    def begin_epoch(self, epoch: int) -> None:
        """Say which share of a batch is kept, `R(t)` of the papers."""
        self.kept_share = 1 - self.noise_rate * min(epoch / self.n_rising, 1)

    def smallest(self, losses: Tensor, batch: Batch) -> Tensor:
        """Select the samples of smallest loss.

        Parameters
        ----------
        losses : Tensor of shape (n,)
            Losses of a batch.
        batch : Batch
            The batch.

        Returns
        -------
        chosen : Tensor of shape (n_kept,), int64
            Places in the batch; trusted samples come first, whatever their loss.
        """
        trusted = self.trusted[batch.rows]
        n_kept = max(1, int(self.kept_share * len(losses)), int(trusted.sum()))
        ranked = losses.detach().masked_fill(trusted, -torch.inf)
        return ranked.argsort(stable=True)[:n_kept]

    def __call__(self, batch: Batch) -> tuple[Tensor, Price]:
        """See `Lesson`."""
        return batch.view(), lambda logits: self.price(logits, batch)

    def price(self, logits: Tensor, batch: Batch) -> Tensor:
        """Compute the loss of both networks from logits of shape (2, n, n_classes)."""
        raise NotImplementedError


class SmallLossMethod(NetworkMethod):
    """A method whose two networks learn from the same batches by a `SmallLoss`; they are averaged.

    Subclasses have the parameters `noise_rate` and `warm_up`, and make the lesson.
    """

    noise_rate: float | None
    warm_up: float

    def _learn(self, given: Given, seed: int) -> Any:
        of_noise, of_pair = seeds(seed, 2)
        if self.noise_rate is None:
            level = estimate_noise_level(partial(self._fitted, seed=of_noise), given)
        self.noise_rate_ = level.rate if self.noise_rate is None else float(self.noise_rate)
        networks: list[TorchClassifier] = [self._network(one) for one in seeds(of_pair, 2)]
        jobs: list[Job] = [network.start(given.X, given.targets) for network in networks]
        trusted = torch.tensor(given.trusted, device=jobs[0].hardware.device)
        lesson = self._lesson(self.noise_rate_, jobs[0].recipe.epochs, self.warm_up, trusted)
        both = Committee([job.module for job in jobs])
        teach(networks, [replace(jobs[0], module=both, lesson=lesson)], of_pair)
        return average(networks, given.n_classes)

    def _lesson(
        self, noise_rate: float, n_epochs: int, warm_up: float, trusted: Tensor
    ) -> SmallLoss:
        """Make the lesson; parameters are those of `SmallLoss`."""
        raise NotImplementedError
