"""What Co-teaching and JoCoR share: two networks that learn from samples of small loss."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pudistill.learners.lessons import Batch, Lesson, Price
from pudistill.learners.torch_classifier import TorchClassifier, teach
from pudistill.learners.training import Job
from pudistill.methods.base import Given, average, seeds


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


def teach_pair(make_network: Any, given: Given, make_lesson: Any, seed: int) -> Any:
    """Train two networks on the same batches, and return their average.

    Parameters
    ----------
    make_network : callable
        Takes a seed, returns a `TorchClassifier`.
    given : Given
        Samples and labels.
    make_lesson : callable
        Takes the job of the first network and which samples are trusted, returns a `SmallLoss`.
    seed : int
        Decides everything random.

    Returns
    -------
    model : Mixture
        Both networks.
    """
    networks: list[TorchClassifier] = [make_network(one) for one in seeds(seed, 2)]
    jobs: list[Job] = [network.start(given.X, given.targets) for network in networks]
    trusted = torch.tensor(given.trusted, device=jobs[0].hardware.device)
    job = replace(
        jobs[0],
        module=Committee([job.module for job in jobs]),
        lesson=make_lesson(jobs[0], trusted),
    )
    teach(networks, [job], seed)
    return average(networks, given.n_classes)
