"""Meta-Weight-Net: weights of samples from a network of their losses (reference [10])."""

from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from pudistill.exceptions import InputError
from pudistill.labels.checks import NO_TRUSTED
from pudistill.learners.networks.batches import shared_batches
from pudistill.learners.networks.fitting import fit_objective
from pudistill.learners.networks.hardware import seeded
from pudistill.learners.networks.objectives import Batch, LossFn, Objective, step_on_trial
from pudistill.methods.base import LabelledSamples, NetworkMethod, derive_seeds

META_WEIGHT_DECAY = 1e-4  # of the weighting network, as in the authors' code


class MetaWeightNetClassifier(NetworkMethod):
    """Weight samples by a small network of their losses, which trusted samples teach.

    A step looks ahead: it computes the weights that the classifier would have after a step of
    gradient descent on the weighted losses, and their loss on trusted samples. The gradient of that
    loss with respect to the weighting network contains second derivatives; the weighting network
    makes a step with it. Then the classifier makes its own step with the new weights.

    As in the authors' code, trusted samples are the meta set and not among the samples to learn
    from, a batch has as many of them as of the others, and the trial step has the current learning
    rate, but no momentum. Recipe, network and epochs are those of the other methods. Three
    things differ. A short training with plain cross-entropy on all samples comes first: as long as
    all losses are alike, they do not tell right labels from wrong ones, and all weights would rise
    to 1, where the sigmoid is flat. The weighting network's learning rate is three times the
    authors', because there are fewer steps. And only every second step looks ahead, which halves
    the cost.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    n_hidden : int, default=100
        Hidden values of the weighting network.
    meta_learning_rate : float, default=0.003
        Learning rate of the weighting network, which Adam trains.
    meta_interval : int, default=2
        Number of steps of the classifier after which the weighting network makes one.
    warm_up : float in [0, 1], default=0.1
        Share of the epochs in which all samples have the weight 1.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    weight_curve_ : ndarray of shape (2, 101)
        Losses from 0 to 10, and the weights that the trained weighting network gives them; the
        weights are 1 if there was no untrusted sample.
    model_ : TorchClassifier
        The network, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    J. Shu, Q. Xie, L. Yi, Q. Zhao, S. Zhou, Z. Xu, D. Meng, "Meta-Weight-Net: Learning an Explicit
    Mapping For Sample Weighting", NeurIPS 2019; equations 2 to 6, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import MetaWeightNetClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> MetaWeightNetClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **NetworkMethod._parameter_constraints,
        "n_hidden": [Interval(Integral, 1, None, closed="left")],
        "meta_learning_rate": [Interval(Real, 0, None, closed="neither")],
        "meta_interval": [Interval(Integral, 1, None, closed="left")],
        "warm_up": [Interval(Real, 0, 1, closed="both")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_hidden: int = 100,
        meta_learning_rate: float = 0.003,
        meta_interval: int = 2,
        warm_up: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.n_hidden = n_hidden
        self.meta_learning_rate = meta_learning_rate
        self.meta_interval = meta_interval
        self.warm_up = warm_up
        self.random_state = random_state

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        if not samples.trusted.any():
            raise InputError(NO_TRUSTED)
        losses = np.linspace(0, 10, 101)
        self.weight_curve_ = np.stack([losses, np.ones(101)])
        if samples.trusted.all():
            return self._fit_network(samples, seed)
        network_seed, meta_seed = derive_seeds(seed, 2)
        network = self._make_network(network_seed)
        job = network.make_job(samples.X, samples.targets)
        hardware = job.hardware
        with seeded(meta_seed, hardware.device):
            weighting = weighting_network(self.n_hidden).to(hardware.device, hardware.dtype)
        objective = MetaWeightNet(
            weighting,
            torch.tensor(samples.trusted, device=hardware.device),
            meta_learning_rate=self.meta_learning_rate,
            meta_interval=self.meta_interval,
            batch_size=job.recipe.batch_size,
            warm_up=round(self.warm_up * job.recipe.epochs),
        )
        fit_objective([network], [replace(job, objective=objective)], network_seed)
        with torch.no_grad():
            on_device = torch.tensor(losses, dtype=hardware.dtype, device=hardware.device)
            self.weight_curve_[1] = weights_of(weighting, on_device).numpy(force=True)
        return network


def weighting_network(n_hidden: int) -> nn.Module:
    """Build the authors' weighting network: one hidden layer with ReLU, then a sigmoid."""
    return nn.Sequential(nn.Linear(1, n_hidden), nn.ReLU(), nn.Linear(n_hidden, 1), nn.Sigmoid())


def weights_of(weighting: nn.Module, losses: Tensor) -> Tensor:
    """Return the weights of samples with losses (n,), without a gradient to the losses."""
    return weighting(losses.detach()[:, None])[:, 0]


class MetaWeightNet(Objective):
    """The objective of the classifier, which also trains the weighting network.

    Parameters
    ----------
    weighting : nn.Module
        Maps losses of shape (n, 1) to weights of shape (n, 1).
    trusted : Tensor of shape (n_samples,), bool
        Which samples are the meta set; both kinds must be there.
    meta_learning_rate : float
        Learning rate of the weighting network.
    meta_interval : int
        Number of steps after which the weighting network makes one.
    batch_size : int
        Number of untrusted samples in a batch, which has as many trusted samples.
    warm_up : int
        Number of epochs with plain cross-entropy on all samples.
    """

    def __init__(
        self,
        weighting: nn.Module,
        trusted: Tensor,
        *,
        meta_learning_rate: float,
        meta_interval: int,
        batch_size: int,
        warm_up: int,
    ) -> None:
        self.weighting, self.trusted, self.meta_interval = weighting, trusted, meta_interval
        self.batch_size, self.warm_up = batch_size, warm_up
        self.n_steps = 0
        self.is_warm = warm_up == 0
        self.optimiser = torch.optim.Adam(
            weighting.parameters(), lr=meta_learning_rate, weight_decay=META_WEIGHT_DECAY
        )

    def begin_epoch(self, epoch: int) -> None:
        """Begin to weight samples after the warm-up."""
        self.is_warm = epoch >= self.warm_up

    def batches(self, generator: Generator) -> tuple[Tensor, ...] | None:
        """Draw batches of untrusted samples with as many trusted ones, which are repeated."""
        if not self.is_warm:
            return None
        return shared_batches(self.trusted, 0.5, 2 * self.batch_size, generator)

    def __call__(self, batch: Batch) -> tuple[Tensor, LossFn]:
        """See `Objective`; used in the warm-up."""
        return batch.view(), lambda logits: cross_entropy(logits, batch.label)

    def backward(self, batch: Batch, rate: float) -> Tensor | None:
        """See `Objective`."""
        if not self.is_warm:
            return None
        is_meta = self.trusted[batch.rows]
        noisy = batch.part(~is_meta)
        logits = batch.logits_with_gradient(noisy.view())
        losses = cross_entropy(logits, noisy.label, reduction="none")
        if self.n_steps % self.meta_interval == 0:
            self._improve(batch.part(is_meta), losses, rate)
        self.n_steps += 1
        loss = (weights_of(self.weighting, losses).detach() * losses).mean()
        loss.backward()
        return loss

    def _improve(self, meta: Batch, losses: Tensor, rate: float) -> None:
        """Improve the weighting network by the meta set's loss after a step on trial."""
        loss = (weights_of(self.weighting, losses) * losses).mean()
        ahead = step_on_trial(meta.module, loss, rate, create_graph=True)
        meta_loss = cross_entropy(meta.logits_with_gradient(meta.view(), ahead), meta.label)
        self.optimiser.zero_grad()
        # Only for the weighting network; the classifier's step needs the graph of the losses again.
        meta_loss.backward(inputs=list(self.weighting.parameters()), retain_graph=True)
        self.optimiser.step()
