"""Joint Optimization: labels are learned together with the network (reference [7])."""

from collections import deque
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor

from pudistill.learners.lessons import Batch, Lesson, Price
from pudistill.learners.losses import prior_loss, soft_loss
from pudistill.learners.torch_classifier import teach
from pudistill.methods.base import Given, NetworkMethod, at_constant_rate, seeds


class JointOptimizationClassifier(NetworkMethod):
    """Train with a large learning rate, replace labels by the network's average prediction.

    The labels that come out are learned by a second network from fresh weights. Two terms keep the
    first one from agreeing with itself on one class: predictions must be spread over the classes as
    the prior says, and be sure.

    The authors have a table of learning rates and weights by noise; here the weights are theirs for
    symmetric noise, the rate is the recipe's largest one, constant, and both trainings have the
    recipe's epochs.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    prior_weight : float, default=1.2
        Weight of the term about the classes' shares, `α`.
    entropy_weight : float, default=0.8
        Weight of the entropy of predictions, `β`.
    keep_until : float in [0, 1], default=0.35
        Share of the epochs after which labels are replaced: 70 of the authors' 200.
    averaged : float in (0, 1], default=0.05
        Share of the epochs whose predictions are averaged: 10 of the authors' 200.
    use_trusted : bool, default=True
        Whether the labels of trusted samples are their verified ones, which are never replaced, and
        the prior is theirs. False: the paper's protocol, in which only its own method knows them;
        the prior is then the same for all classes.
    random_state : int, RandomState instance or None, default=None
        Decides everything random.

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

    def _learn(self, given: Given, seed: int) -> Any:
        first, second = seeds(seed, 2)
        network = self._network(first)
        network.set_params(recipe=at_constant_rate(network, given.X))
        job = network.start(given.X, given.targets)
        prior = np.full(given.n_classes, 1 / given.n_classes)
        if given.trusted.any():
            prior = given.targets[given.trusted].mean(axis=0)
        lesson = JointOptimization(
            torch.tensor(given.targets, dtype=job.hardware.dtype, device=job.hardware.device),
            torch.tensor(prior, dtype=job.hardware.dtype, device=job.hardware.device),
            torch.tensor(given.trusted, device=job.hardware.device),
            prior_weight=self.prior_weight,
            entropy_weight=self.entropy_weight,
            keep_until=round(self.keep_until * job.recipe.epochs),
            n_averaged=max(1, round(self.averaged * job.recipe.epochs)),
        )
        teach([network], [replace(job, lesson=lesson)], first)
        learned = lesson.learned().numpy(force=True).astype(float)
        return self._network(second).fit(given.X, learned / learned.sum(axis=1, keepdims=True))


class JointOptimization(Lesson):
    """The first network's lesson.

    Parameters
    ----------
    targets : Tensor of shape (n_samples, n_classes)
        One-hot given labels.
    prior : Tensor of shape (n_classes,)
        The classes' shares.
    trusted : Tensor of shape (n_samples,), bool
        Samples whose labels are never replaced.
    prior_weight, entropy_weight : float
        `α` and `β`.
    keep_until : int
        Epochs before labels are replaced.
    n_averaged : int
        Epochs whose predictions are averaged.
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
        self.epochs: deque[Tensor] = deque(maxlen=n_averaged)

    def begin_epoch(self, epoch: int) -> None:
        """Replace the labels by the average prediction of the last epochs (equation 9)."""
        if epoch:
            self.epochs.append(self.predicted.clone())
        if epoch and epoch >= self.keep_until:
            self.current = self._average()

    def learned(self) -> Tensor:
        """Return the labels as the last epoch leaves them."""
        self.epochs.append(self.predicted.clone())
        return self._average()

    def _average(self) -> Tensor:
        mean = torch.stack(list(self.epochs)).mean(dim=0)
        return torch.where(self.trusted[:, None], self.targets, mean)

    def __call__(self, batch: Batch) -> tuple[Tensor, Price]:
        """See `Lesson`."""
        labels = self.current[batch.rows].to(batch.label.dtype)
        prior = self.prior.to(batch.label.dtype)

        def price(logits: Tensor) -> Tensor:
            self.predicted[batch.rows] = logits.detach().softmax(dim=1).to(self.predicted.dtype)
            return soft_loss(logits, labels, self.entropy_weight) + self.prior_weight * prior_loss(
                logits, prior
            )

        return batch.view(), price
