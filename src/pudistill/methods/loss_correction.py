"""Loss Correction: a beta mixture of losses finds wrong labels (reference [9])."""

from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from scipy.stats import beta
from sklearn.utils._param_validation import Interval
from torch import Tensor

from pudistill.exceptions import InputError
from pudistill.learners.networks.augmentation import mixup
from pudistill.learners.networks.fitting import fit_objective
from pudistill.learners.networks.input_checks import are_texts
from pudistill.learners.networks.job import Job
from pudistill.learners.networks.losses import prior_loss, soft_loss
from pudistill.learners.networks.objectives import Batch, LossFn, Objective
from pudistill.methods.base import LabelledSamples, NetworkMethod

# Losses outside these percentiles are clipped for the fit of the mixture; the authors leave them
# out of it, and keep scaled losses 1e-3 away from 0 and 1.
PERCENTILES = (5, 95)
MARGIN = 1e-4
EM_STEPS = 10


class LossCorrectionClassifier(NetworkMethod):
    """Train with mixup on a blend of given labels and the network's own predictions.

    After a warm-up, a mixture of two beta distributions is fitted to the losses of all samples
    before each epoch. The target of a sample is `(1 - w) y + w z`, where `y` is its label, `z` the
    network's predicted class and `w` the probability that its loss belongs to the distribution of
    large losses: the authors' M-DYR-H.

    Here `w` and `z` are computed at the beginning of an epoch; the authors compute them at each
    step, with one more forward pass. Instead of their 300 epochs, the recipe's are used.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    alpha : float, default=32.0
        Pairs are mixed with weights β, 1 - β, where β ~ Beta(alpha, alpha).
    prior_weight : float, default=1.0
        Weight of the term that spreads predictions over the classes.
    warm_up : float in [0, 1], default=0.35
        Share of the epochs in which labels are not replaced: 105 of the authors' 300.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels, which are never replaced. False: the
        paper's protocol, in which only the paper's own method knows which samples are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    mixture_ : BetaMixture
        The last epoch's mixture; its weight of large losses is an estimate of the noise rate.
    model_ : TorchClassifier
        The network, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    E. Arazo, D. Ortego, P. Albert, N. O'Connor, K. McGuinness, "Unsupervised Label Noise Modeling
    and Loss Correction", ICML 2019; equations 2 to 11.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import LossCorrectionClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> LossCorrectionClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **NetworkMethod._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "prior_weight": [Interval(Real, 0, None, closed="left")],
        "warm_up": [Interval(Real, 0, 1, closed="both")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        alpha: float = 32.0,
        prior_weight: float = 1.0,
        warm_up: float = 0.35,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.alpha = alpha
        self.prior_weight = prior_weight
        self.warm_up = warm_up
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        if are_texts(samples.X):
            raise InputError("Loss correction cannot mix texts: choose another method.")
        network = self._make_network(seed)
        job = network.make_job(samples.X, samples.targets)
        objective = DynamicBootstrapping(
            job,
            samples.trusted,
            alpha=self.alpha,
            prior_weight=self.prior_weight,
            warm_up=round(self.warm_up * job.recipe.epochs),
        )
        fit_objective([network], [replace(job, objective=objective)], seed)
        self.mixture_ = objective.mixture
        return network


class DynamicBootstrapping(Objective):
    """The network's objective; for the parameters see `LossCorrectionClassifier`."""

    def __init__(
        self, job: Job, trusted: np.ndarray, *, alpha: float, prior_weight: float, warm_up: int
    ) -> None:
        self.job, self.trusted = job, trusted
        self.alpha, self.prior_weight, self.warm_up = alpha, prior_weight, warm_up
        self.mixture: BetaMixture | None = None
        self.targets: Tensor | None = None

    def begin_epoch(self, epoch: int) -> None:
        """Fit the mixture; replace labels that are probably wrong by predictions (equation 10)."""
        if epoch < self.warm_up:
            return
        proba = self.job.predict()
        losses = sample_losses(proba, self.job.targets)
        low, high = np.percentile(losses, PERCENTILES)
        scaled = (losses - low) / max(high - low, 1e-12)
        scaled = np.clip(scaled, MARGIN, 1 - MARGIN)
        self.mixture = BetaMixture.fit(scaled)
        w = np.where(self.trusted, 0, self.mixture.large(scaled))[:, None]
        predicted = np.eye(proba.shape[1])[proba.argmax(axis=1)]
        hardware = self.job.hardware
        self.targets = torch.tensor(
            (1 - w) * self.job.targets + w * predicted,
            dtype=hardware.dtype,
            device=hardware.device,
        )

    def __call__(self, batch: Batch) -> tuple[Tensor, LossFn]:
        """See `Objective`."""
        targets = batch.label if self.targets is None else self.targets[batch.rows]
        weight = batch.rng.beta(self.alpha, self.alpha)
        inputs, mixed_targets = mixup(batch.view(), targets, weight)
        if self.targets is None:
            return inputs, lambda logits: soft_loss(logits, mixed_targets)
        prior = torch.full_like(targets[0], 1 / targets.shape[1])

        def loss(logits: Tensor) -> Tensor:
            return soft_loss(logits, mixed_targets) + self.prior_weight * prior_loss(logits, prior)

        return inputs, loss


def sample_losses(proba: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each prediction and its one-hot label, of shape (n_samples,)."""
    return -np.log(np.maximum((proba * targets).sum(axis=1), np.finfo(float).tiny))


@dataclass(frozen=True)
class BetaMixture:
    """A mixture of two beta distributions, one of small and one of large losses.

    Attributes
    ----------
    a, b : ndarray of shape (2,)
        Parameters of the distributions.
    weight : ndarray of shape (2,)
        Weights of the distributions, which sum to 1; the second distribution has the large losses.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.methods.loss_correction import BetaMixture
    >>> rng = np.random.default_rng(0)
    >>> losses = np.concatenate([rng.beta(2, 20, 700), rng.beta(20, 2, 300)])
    >>> BetaMixture.fit(losses).weight.round(1).tolist()
    [0.7, 0.3]
    """

    a: np.ndarray
    b: np.ndarray
    weight: np.ndarray

    @classmethod
    def fit(cls, losses: np.ndarray, n_steps: int = EM_STEPS) -> "BetaMixture":
        """Fit by expectation-maximisation, whose M-step matches weighted moments.

        Parameters
        ----------
        losses : ndarray of shape (n_samples,)
            Losses, scaled to (0, 1).
        n_steps : int, default=10
            Number of steps.

        Returns
        -------
        mixture : BetaMixture
            The second distribution has the larger mean.
        """
        mixture = cls(np.array([1.0, 2.0]), np.array([2.0, 1.0]), np.array([0.5, 0.5]))
        for _ in range(n_steps):
            proba = mixture.posterior(losses)
            total = proba.sum(axis=1) + 1e-12
            mean = np.clip(proba @ losses / total, MARGIN, 1 - MARGIN)
            variance = (proba * (losses - mean[:, None]) ** 2).sum(axis=1) / total
            # A beta distribution has a + b = mean (1 - mean) / variance - 1.
            size = np.maximum(mean * (1 - mean) / np.maximum(variance, 1e-9) - 1, 1e-3)
            mixture = cls(mean * size, (1 - mean) * size, total / total.sum())
        order = np.argsort(mixture.a / (mixture.a + mixture.b), kind="stable")
        return cls(mixture.a[order], mixture.b[order], mixture.weight[order])

    def posterior(self, losses: np.ndarray) -> np.ndarray:
        """Return the probability of each distribution given the loss, of shape (2, n_samples)."""
        log_joint = beta.logpdf(losses, self.a[:, None], self.b[:, None])
        log_joint += np.log(np.maximum(self.weight, 1e-12))[:, None]
        joint = np.exp(log_joint - log_joint.max(axis=0))
        return joint / joint.sum(axis=0)

    def large(self, losses: np.ndarray) -> np.ndarray:
        """Return the probability of the distribution of large losses, of shape (n_samples,).

        It never falls as the loss grows: it is constant above the mean of the large losses and
        below the mean of the small losses, where the tails of the densities can cross.
        """
        ends = self.a / (self.a + self.b)
        return self.posterior(np.clip(losses, *ends))[1]
