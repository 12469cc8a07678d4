"""DivideMix: each network selects the labelled samples of the other one (reference [14])."""

import warnings
from collections import deque
from dataclasses import replace
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.utils._param_validation import Interval
from torch import Generator, Tensor, nn

from pudistill.learners.networks.batches import shuffled, split_batches
from pudistill.learners.networks.fitting import fit_objective
from pudistill.learners.networks.job import Job
from pudistill.learners.networks.losses import prior_loss, soft_loss
from pudistill.learners.networks.objectives import Batch, LossFn, Objective
from pudistill.methods.base import LabelledSamples, NetworkMethod, average_networks, derive_seeds
from pudistill.methods.loss_correction import sample_losses
from pudistill.methods.noise_level import NoiseLevel, estimate_noise_level

# Weight of the loss of unlabelled samples, by the share of labels that were redrawn at random: the
# authors' table for symmetric noise on CIFAR-10. Under asymmetric noise the weight is 0.
UNLABELLED_WEIGHT = {0.2: 0.0, 0.5: 25.0, 0.8: 25.0, 0.9: 50.0}
# From this noise rate on, losses are averaged over several epochs, as the authors do at 90 %.
HIGH_NOISE, AVERAGED_EPOCHS = 0.85, 5
# Share of the epochs in which the weight rises: the authors' 16 epochs, in a recipe of 100.
RAMP_UP = 0.16


class DivideMixClassifier(NetworkMethod):
    """Train two networks with MixMatch; each one decides which samples are labelled for the other.

    Before each epoch a mixture of two Gaussians is fitted to each network's losses. A sample whose
    loss probably belongs to the Gaussian of small losses counts as labelled for the *other*
    network; all other samples count as unlabelled. A labelled sample's label is refined by the
    network's own prediction; the label of an unlabelled sample is the mean prediction of both
    networks. Then labels are sharpened, and samples are mixed.

    The authors know the rate and the kind of the noise and use them for three settings: the weight
    of the unlabelled loss, the averaging of losses at 90 %, and a penalty on confident predictions
    during the warm-up under asymmetric noise. Here both are estimated. Epochs, learning rate and
    batch size are the recipe's; half of a batch is labelled. The prediction is the mean of the
    networks' probabilities; the authors take the mean of their logits.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    noise_rate : float in [0, 1] or None, default=None
        Share of wrong labels among all samples. ``None``: estimated. The authors use the true rate.
    asymmetric : bool or None, default=None
        Whether the wrong labels of each class mostly name one other class. ``None``: estimated.
    unlabelled_weight : float or None, default=None
        Weight of the loss of unlabelled samples, `λ_u`. ``None``: 0 under asymmetric noise, else
        interpolated between the authors' values for CIFAR-10 by the noise rate.
    warm_up : float in [0, 1], default=0.1
        Share of the epochs in which all samples are labelled: the authors' 10, in a recipe of 100.
    threshold : float in (0, 1), default=0.5
        Samples with a larger probability of a clean label are labelled, `τ`.
    sharpness : float, default=2.0
        Exponent that sharpens labels: 1 / T, where T is the authors' temperature.
    alpha : float, default=4.0
        Pairs are mixed with weights β, 1 - β, where β ~ Beta(alpha, alpha); the first sample of a
        pair has the larger weight.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels, which count as clean whatever their
        loss. False: the paper's protocol, in which only the paper's own method knows which samples
        are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    noise_rate_, asymmetric_ : float, bool
        The noise rate and the kind of noise that were used.
    clean_proba_ : ndarray of shape (2, n_learned)
        Each network's probability that the label of a training sample is clean; samples without a
        label are left out.
    model_ : Mixture
        Both networks, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    J. Li, R. Socher, S. Hoi, "DivideMix: Learning with Noisy Labels as Semi-supervised Learning",
    ICLR 2020; algorithm 1, equations 1 to 12.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import DivideMixClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> DivideMixClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **NetworkMethod._parameter_constraints,
        "noise_rate": [Interval(Real, 0, 1, closed="both"), None],
        "asymmetric": ["boolean", None],
        "unlabelled_weight": [Interval(Real, 0, None, closed="left"), None],
        "warm_up": [Interval(Real, 0, 1, closed="both")],
        "threshold": [Interval(Real, 0, 1, closed="neither")],
        "sharpness": [Interval(Real, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        noise_rate: float | None = None,
        asymmetric: bool | None = None,
        unlabelled_weight: float | None = None,
        warm_up: float = 0.1,
        threshold: float = 0.5,
        sharpness: float = 2.0,
        alpha: float = 4.0,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.noise_rate = noise_rate
        self.asymmetric = asymmetric
        self.unlabelled_weight = unlabelled_weight
        self.warm_up = warm_up
        self.threshold = threshold
        self.sharpness = sharpness
        self.alpha = alpha
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        noise_seed, division_seed, *network_seeds = derive_seeds(seed, 4)

        # 1. Noise level, and the settings that depend on it.
        level = self._noise_level(samples, noise_seed)
        # The authors count redrawn labels, of which some are correct by chance.
        redrawn = level.rate * samples.n_classes / (samples.n_classes - 1)
        weight = self.unlabelled_weight
        if weight is None:
            rates, weights = zip(*UNLABELLED_WEIGHT.items(), strict=True)
            weight = 0.0 if self.asymmetric_ else float(np.interp(redrawn, rates, weights))

        # 2. Two networks, and the division of the samples that they share.
        networks = [self._make_network(network_seed) for network_seed in network_seeds]
        jobs = [network.make_job(samples.X, samples.targets) for network in networks]
        epochs = jobs[0].recipe.epochs
        division = CoDivision(
            jobs,
            samples.trusted,
            n_averaged=AVERAGED_EPOCHS if redrawn >= HIGH_NOISE else 1,
            seed=division_seed,
        )

        # 3. Train both, each with its own objective.
        objectives = [
            DivideMix(
                division,
                own=own,
                unlabelled_weight=weight,
                warm_up=max(1, round(self.warm_up * epochs)),
                ramp_up=max(1, round(RAMP_UP * epochs)),
                warm_up_penalty=1.0 if self.asymmetric_ else 0.0,
                threshold=self.threshold,
                sharpness=self.sharpness,
                alpha=self.alpha,
            )
            for own in (0, 1)
        ]
        jobs = [
            replace(job, objective=objective)
            for job, objective in zip(jobs, objectives, strict=True)
        ]
        fit_objective(networks, jobs, seed)
        self.clean_proba_ = division.clean_proba
        return average_networks(networks, samples.n_classes)

    def _noise_level(self, samples: LabelledSamples, seed: int) -> NoiseLevel:
        """Return rate and kind of the noise: from the parameters, otherwise estimated."""
        level = NoiseLevel(0.0, np.eye(samples.n_classes))
        if self.noise_rate is None or self.asymmetric is None:
            level = estimate_noise_level(partial(self._fit_network, seed=seed), samples)
        self.noise_rate_ = level.rate if self.noise_rate is None else self.noise_rate
        self.asymmetric_ = level.is_asymmetric if self.asymmetric is None else self.asymmetric
        return level._replace(rate=self.noise_rate_)


class CoDivision:
    """For each of two networks, the probability that a sample's label is clean, by its loss.

    Parameters
    ----------
    jobs : list of two Jobs
        The networks, and the samples with one-hot labels.
    trusted : ndarray of shape (n_samples,), bool
        Samples whose labels are known to be clean.
    n_averaged : int
        Number of epochs whose losses are averaged.
    seed : int
        Seeds the start of the mixture's fit.
    """

    def __init__(self, jobs: list[Job], trusted: np.ndarray, *, n_averaged: int, seed: int) -> None:
        self.jobs, self.trusted, self.seed = jobs, trusted, seed
        self.losses: list[deque] = [deque(maxlen=n_averaged) for _ in jobs]
        self.clean_proba = np.ones((2, len(trusted)))
        self._epoch: int | None = None

    def update(self, epoch: int) -> None:
        """Compute the probabilities by both networks, once per epoch, before either is trained."""
        if epoch == self._epoch:
            return
        self._epoch = epoch
        for n, job in enumerate(self.jobs):
            losses = sample_losses(job.predict(), job.targets)
            spread = max(float(np.ptp(losses)), 1e-12)
            self.losses[n].append((losses - losses.min()) / spread)
            proba = small_loss_proba(np.mean(self.losses[n], axis=0), self.seed)
            self.clean_proba[n] = np.where(self.trusted, 1.0, proba)


def small_loss_proba(losses: np.ndarray, seed: int = 0) -> np.ndarray:
    """Fit two Gaussians to losses; return the probability of the Gaussian with the smaller mean.

    Parameters
    ----------
    losses : ndarray of shape (n_samples,)
        Losses, scaled to [0, 1].
    seed : int, default=0
        Seeds the start of the fit.

    Returns
    -------
    proba : ndarray of shape (n_samples,)
        Probabilities of a clean label.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.methods.dividemix import small_loss_proba
    >>> small_loss_proba(np.array([0.0, 0.01, 0.02, 0.98, 0.99, 1.0])).round().tolist()
    [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    """
    if np.ptp(losses) == 0:
        return np.ones(len(losses))
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the authors stop after ten steps, too
        proba = mixture.fit(losses[:, None]).predict_proba(losses[:, None])
    return proba[:, mixture.means_.ravel().argmin()]


class DivideMix(Objective):
    """The objective of one network.

    Parameters
    ----------
    division : CoDivision
        The division of the samples, and both networks.
    own : int
        Index of the network that is trained; the other one divides the samples.
    unlabelled_weight : float
        `λ_u`.
    warm_up, ramp_up : int
        Number of epochs in which all samples are labelled, and number of epochs after that in which
        the weight of the unlabelled loss rises.
    warm_up_penalty : float
        Weight of a penalty on confident predictions during the warm-up.
    threshold, sharpness, alpha : float
        As in `DivideMixClassifier`.
    """

    def __init__(
        self,
        division: CoDivision,
        *,
        own: int,
        unlabelled_weight: float,
        warm_up: int,
        ramp_up: int,
        warm_up_penalty: float,
        threshold: float,
        sharpness: float,
        alpha: float,
    ) -> None:
        self.division, self.own = division, own
        self.network = division.jobs[own].module
        self.peer = division.jobs[1 - own].module
        self.unlabelled_weight = unlabelled_weight
        self.warm_up, self.ramp_up, self.warm_up_penalty = warm_up, ramp_up, warm_up_penalty
        self.threshold, self.sharpness, self.alpha = threshold, sharpness, alpha
        self.clean: Tensor | None = None  # (n_samples,) probabilities; None: all are labelled
        self.progress = 0.0

    def begin_epoch(self, epoch: int) -> None:
        """Divide the samples into labelled and unlabelled samples."""
        if epoch < self.warm_up:
            return
        self.division.update(epoch)
        self.progress = min(1.0, (epoch - self.warm_up) / self.ramp_up)
        hardware = self.division.jobs[self.own].hardware
        self.clean = torch.tensor(
            self.division.clean_proba[1 - self.own], dtype=hardware.dtype, device=hardware.device
        )
        if not (self.clean > self.threshold).any():  # no sample is labelled: learn all labels
            self.clean = None
        self.peer.eval()

    def batches(self, generator: Generator) -> tuple[Tensor, ...] | None:
        """Draw batches whose first half is labelled, as many as the labelled samples fill."""
        if self.clean is None:
            return None
        is_labelled = self.clean > self.threshold
        if is_labelled.all():  # there is nothing to divide
            return None
        labelled, unlabelled = (mask.nonzero().ravel() for mask in (is_labelled, ~is_labelled))
        half = max(1, self.division.jobs[self.own].recipe.batch_size // 2)
        parts = split_batches(shuffled(labelled, generator), half)
        n_rounds = -(-len(labelled) // len(unlabelled))
        others = torch.cat([shuffled(unlabelled, generator) for _ in range(n_rounds)])
        starts = np.cumsum([0, *(len(part) for part in parts)])
        return tuple(
            torch.cat([part, others[start : start + len(part)]])
            for part, start in zip(parts, starts[:-1], strict=True)
        )

    def __call__(self, batch: Batch) -> tuple[Tensor, LossFn]:
        """See `Objective`."""
        if self.clean is None:
            return batch.view(), partial(self._warm_up_loss, labels=batch.label)
        clean = self.clean[batch.rows]
        is_divided = (clean > self.threshold).sum() < len(clean)
        n = len(clean) // 2 if is_divided else len(clean)  # the first n samples are labelled
        views = [batch.view(), batch.view()]

        # Refine the labels of labelled samples, guess those of the other samples, and sharpen all.
        own_proba = mean_proba(batch, self.network, views)
        peer_proba = mean_proba(batch, self.peer, [view[n:] for view in views])
        refined = clean[:n, None] * batch.label[:n] + (1 - clean[:n, None]) * own_proba[:n]
        guessed = (own_proba[n:] + peer_proba) / 2
        targets = sharpen(torch.cat([refined, guessed]), self.sharpness)

        # Two views of each labelled sample, then two of each unlabelled one; mix random pairs.
        inputs = torch.cat([view[:n] for view in views] + [view[n:] for view in views])
        targets = torch.cat([targets[:n], targets[:n], targets[n:], targets[n:]])
        weight = batch.rng.beta(self.alpha, self.alpha)
        weight = max(weight, 1 - weight)
        order = torch.randperm(len(inputs), generator=batch.generator, device=inputs.device)
        mixed_inputs = weight * inputs + (1 - weight) * inputs[order]
        mixed_targets = weight * targets + (1 - weight) * targets[order]
        return mixed_inputs, partial(self._mix_match_loss, targets=mixed_targets, n_labelled=2 * n)

    def _warm_up_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy, with a penalty on confident predictions."""
        return soft_loss(logits, labels, -self.warm_up_penalty)

    def _mix_match_loss(self, logits: Tensor, targets: Tensor, n_labelled: int) -> Tensor:
        """Return MixMatch's loss plus the term that spreads predictions (equation 12)."""
        prior = torch.full_like(targets[0], 1 / targets.shape[1])
        loss = soft_loss(logits[:n_labelled], targets[:n_labelled]) + prior_loss(logits, prior)
        if n_labelled < len(logits):
            error = logits[n_labelled:].softmax(dim=1) - targets[n_labelled:]
            loss = loss + self.progress * self.unlabelled_weight * (error**2).mean()
        return loss


def mean_proba(batch: Batch, network: nn.Module, views: list[Tensor]) -> Tensor:
    """Return a network's mean probabilities over views of the same samples."""
    proba = [batch.logits(network, view).softmax(dim=1) for view in views]
    return torch.stack(proba).mean(dim=0)


def sharpen(proba: Tensor, sharpness: float) -> Tensor:
    """Raise probabilities to a power, and scale each row to sum to 1 (equation 5)."""
    powers = proba**sharpness
    return powers / powers.sum(dim=1, keepdim=True)
