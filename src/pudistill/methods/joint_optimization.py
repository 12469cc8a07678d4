"""Joint Optimization: labels and network are optimised together (reference [7])."""

from collections import deque
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor

from pudistill.learners.networks.fitting import fit_objective
from pudistill.learners.networks.losses import prior_loss, soft_loss
from pudistill.learners.networks.objectives import Batch, LossFn, Objective
from pudistill.methods.base import (
    LabelledSamples,
    NetworkMethod,
    constant_rate_recipe,
    derive_seeds,
)


class JointOptimizationClassifier(NetworkMethod):
    """Train with a large learning rate, and replace labels by the network's mean prediction.

    A second network, from new initial weights, learns the final labels. Two terms of the loss keep
    the first network from assigning all samples to one class: the mean prediction must follow the
    class prior, and each prediction must be confident.

    The authors tune learning rate and weights to the noise. Here the weights are the authors'
    values for symmetric noise, the learning rate is constant (the recipe's largest), and both
    trainings have the recipe's epochs.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    prior_weight : float, default=1.2
        Weight of the term that compares the mean prediction with the class prior, `α`.
    entropy_weight : float, default=0.8
        Weight of the entropy of the predictions, `β`.
    keep_until : float in [0, 1], default=0.35
        Share of the epochs after which labels are replaced: 70 of the authors' 200.
    averaged : float in (0, 1], default=0.05
        Share of the epochs whose predictions are averaged: 10 of the authors' 200.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels, which are never replaced and give the
        class prior. False: the paper's protocol, in which only the paper's own method knows which
        samples are trusted; the prior is then uniform.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    model_ : TorchClassifier
        The second network, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    D. Tanaka, D. Ikami, T. Yamasaki, K. Aizawa, "Joint Optimization Framework for Learning with
    Noisy Labels", CVPR 2018; equations 3 to 10.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import JointOptimizationClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> JointOptimizationClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **NetworkMethod._parameter_constraints,
        "prior_weight": [Interval(Real, 0, None, closed="left")],
        "entropy_weight": [Interval(Real, 0, None, closed="left")],
        "keep_until": [Interval(Real, 0, 1, closed="both")],
        "averaged": [Interval(Real, 0, 1, closed="right")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        prior_weight: float = 1.2,
        entropy_weight: float = 0.8,
        keep_until: float = 0.35,
        averaged: float = 0.05,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.prior_weight = prior_weight
        self.entropy_weight = entropy_weight
        self.keep_until = keep_until
        self.averaged = averaged
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        first_seed, second_seed = derive_seeds(seed, 2)
        network = self._make_network(first_seed)
        network.set_params(recipe=constant_rate_recipe(network, samples.X))
        job = network.make_job(samples.X, samples.targets)
        prior = np.full(samples.n_classes, 1 / samples.n_classes)
        if samples.trusted.any():
            prior = samples.targets[samples.trusted].mean(axis=0)
        objective = JointOptimization(
            torch.tensor(samples.targets, dtype=job.hardware.dtype, device=job.hardware.device),
            torch.tensor(prior, dtype=job.hardware.dtype, device=job.hardware.device),
            torch.tensor(samples.trusted, device=job.hardware.device),
            prior_weight=self.prior_weight,
            entropy_weight=self.entropy_weight,
            keep_until=round(self.keep_until * job.recipe.epochs),
            n_averaged=max(1, round(self.averaged * job.recipe.epochs)),
        )
        fit_objective([network], [replace(job, objective=objective)], first_seed)
        labels = objective.final_labels().numpy(force=True).astype(float)
        labels /= labels.sum(axis=1, keepdims=True)
        return self._make_network(second_seed).fit(samples.X, labels)


class JointOptimization(Objective):
    """The objective of the first network.

    Parameters
    ----------
    targets : Tensor of shape (n_samples, n_classes)
        One-hot given labels.
    prior : Tensor of shape (n_classes,)
        Class prior.
    trusted : Tensor of shape (n_samples,), bool
        Samples whose labels are never replaced.
    prior_weight, entropy_weight : float
        `α` and `β`.
    keep_until : int
        Number of epochs before labels are replaced.
    n_averaged : int
        Number of epochs whose predictions are averaged.
    """

    def __init__(
        self,
        targets: Tensor,
        prior: Tensor,
        trusted: Tensor,
        *,
        prior_weight: float,
        entropy_weight: float,
        keep_until: int,
        n_averaged: int,
    ) -> None:
        self.targets, self.prior, self.trusted = targets, prior, trusted
        self.prior_weight, self.entropy_weight = prior_weight, entropy_weight
        self.keep_until = keep_until
        self.current = targets
        self.predicted = targets.clone()
        self.past_predictions: deque[Tensor] = deque(maxlen=n_averaged)

    def begin_epoch(self, epoch: int) -> None:
        """Replace the labels by the mean prediction of the last epochs (equation 9)."""
        if epoch:
            self.past_predictions.append(self.predicted.clone())
        if epoch and epoch >= self.keep_until:
            self.current = self._mean_labels()

    def final_labels(self) -> Tensor:
        """Return the labels after the last epoch."""
        self.past_predictions.append(self.predicted.clone())
        return self._mean_labels()

    def _mean_labels(self) -> Tensor:
        mean = torch.stack(list(self.past_predictions)).mean(dim=0)
        return torch.where(self.trusted[:, None], self.targets, mean)

    def __call__(self, batch: Batch) -> tuple[Tensor, LossFn]:
        """See `Objective`."""
        labels = self.current[batch.rows].to(batch.label.dtype)
        prior = self.prior.to(batch.label.dtype)

        def loss(logits: Tensor) -> Tensor:
            self.predicted[batch.rows] = logits.detach().softmax(dim=1).to(self.predicted.dtype)
            supervised = soft_loss(logits, labels, self.entropy_weight)
            return supervised + self.prior_weight * prior_loss(logits, prior)

        return batch.view(), loss
