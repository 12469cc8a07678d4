"""The common part of Co-teaching and JoCoR: two networks learn from samples of small loss."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pudistill.learners.networks.classifier import TorchClassifier
from pudistill.learners.networks.fitting import fit_objective
from pudistill.learners.networks.job import Job
from pudistill.learners.networks.losses import kept_share, split_by_loss
from pudistill.learners.networks.objectives import Batch, LossFn, Objective
from pudistill.methods.base import LabelledSamples, NetworkMethod, average_networks, derive_seeds
from pudistill.methods.noise_level import noise_rate


class SideBySide(nn.Module):
    """Networks that see the same batches; the logits have shape (n_networks, n, n_classes)."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of all networks for a batch."""
        return torch.stack([network(x) for network in self.networks])


class SmallLoss(Objective):
    """An objective of two networks that leaves out samples of large loss.

    Parameters
    ----------
    noise_rate : float in [0, 1]
        Share of the samples that is left out at the end of the training.
    n_epochs : int
        Number of epochs.
    warm_up : float in [0, 1]
        Share of the epochs in which the share of samples left out rises from 0 to `noise_rate`.
    trusted : Tensor of shape (n_samples,), bool
        Samples that are never left out.
    """

    def __init__(self, noise_rate: float, n_epochs: int, warm_up: float, trusted: Tensor) -> None:
        self.noise_rate, self.n_epochs, self.warm_up = noise_rate, n_epochs, warm_up
        self.trusted = trusted
        self.kept_share = 1.0

    def begin_epoch(self, epoch: int) -> None:
        """Set the share of a batch to learn from, `R(t)` in the papers."""
        self.kept_share = kept_share(self.noise_rate, self.warm_up, epoch, self.n_epochs)

    def smallest(self, losses: Tensor, batch: Batch) -> Tensor:
        """Select the samples of smallest loss; trusted samples are always selected.

        Parameters
        ----------
        losses : Tensor of shape (n,)
            Losses of the samples of a batch.
        batch : Batch
            The batch.

        Returns
        -------
        positions : Tensor of shape (n_kept,), int64
            Positions in the batch; trusted samples come first.
        """
        return split_by_loss(losses, self.kept_share, self.trusted[batch.rows])[0]

    def __call__(self, batch: Batch) -> tuple[Tensor, LossFn]:
        """See `Objective`."""
        return batch.view(), lambda logits: self.batch_loss(logits, batch)

    def batch_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Compute the loss of both networks from logits of shape (2, n, n_classes)."""
        raise NotImplementedError


class SmallLossMethod(NetworkMethod):
    """A method that trains two networks on the same batches with a `SmallLoss`, and averages them.

    Subclasses have the parameters `noise_rate` and `warm_up`, and make the objective.
    """

    noise_rate: float | None
    warm_up: float

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        noise_seed, pair_seed = derive_seeds(seed, 2)
        fit = partial(self._fit_network, seed=noise_seed)
        self.noise_rate_ = noise_rate(self.noise_rate, fit, samples)
        networks: list[TorchClassifier] = [
            self._make_network(network_seed) for network_seed in derive_seeds(pair_seed, 2)
        ]
        jobs: list[Job] = [network.make_job(samples.X, samples.targets) for network in networks]
        trusted = torch.tensor(samples.trusted, device=jobs[0].hardware.device)
        objective = self._make_objective(
            self.noise_rate_, jobs[0].recipe.epochs, self.warm_up, trusted
        )
        both = SideBySide([job.module for job in jobs])
        fit_objective(networks, [replace(jobs[0], module=both, objective=objective)], pair_seed)
        return average_networks(networks, samples.n_classes)

    def _make_objective(
        self, noise_rate: float, n_epochs: int, warm_up: float, trusted: Tensor
    ) -> SmallLoss:
        """Make the objective; the parameters are those of `SmallLoss`."""
        raise NotImplementedError
