"""DivideMix: two networks divide the samples for each other (reference [14])."""

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

from pudistill.learners.lessons import Batch, Lesson, Price
from pudistill.learners.losses import prior_loss, soft_loss
from pudistill.learners.torch_classifier import teach
from pudistill.learners.training import Job, split_batches
from pudistill.methods.base import Given, NetworkMethod, average, seeds
from pudistill.methods.loss_correction import sample_losses
from pudistill.methods.noise_level import NoiseLevel, estimate_noise_level

# Weight of the unlabelled samples' loss by the share of labels drawn anew: the authors' table for
# symmetric noise on CIFAR-10. Under asymmetric noise it is 0.
UNLABELLED_WEIGHT = {0.2: 0.0, 0.5: 25.0, 0.8: 25.0, 0.9: 50.0}
# From this noise rate on, losses are averaged over so many epochs, as the authors do at 90 %.
HIGH_NOISE, AVERAGED_EPOCHS = 0.85, 5
# Share of the epochs over which the weight rises: 16 of the authors' 300, in a recipe of 100.
RAMP_UP = 0.16


class DivideMixClassifier(NetworkMethod):
    """Train two networks by MixMatch, on samples that the other one takes for clean or not.

    Before each epoch a mixture of two Gaussians is fitted to each network's losses. Samples that
    are probably of the smaller losses are labelled for the *other* network, all others unlabelled.
    Labels are refined by the network's own predictions, or guessed by both, sharpened, and mixed.

    The authors are told the rate and the kind of the noise, for three settings: the weight of the
    unlabelled loss, the averaging of losses at 90 %, and a penalty on sure predictions during the
    warm-up under asymmetric noise. Here both are estimated. Epochs and learning rate are those of
    the recipe; a batch has as many samples as the recipe says, half of them labelled. Both networks
    predict by the mean of their probabilities, there of their logits.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    noise_rate : float in [0, 1] or None, default=None
        Share of wrong labels among all samples. ``None``: estimated. The truth, where somebody
        knows it, is what the authors use.
    asymmetric : bool or None, default=None
        Whether wrong labels of a class are mostly of one other class. ``None``: estimated.
    unlabelled_weight : float or None, default=None
        Weight of the unlabelled samples' loss, `λ_u`. ``None``: 0 under asymmetric noise, else by
        the noise rate, between the authors' values for CIFAR-10.
    warm_up : float in [0, 1], default=0.1
        Share of the epochs in which all samples are labelled: the authors' 10, in a recipe of 100.
    threshold : float in (0, 1), default=0.5
        Probability of being clean from which on a sample is labelled, `τ`.
    sharpness : float, default=2.0
        Power that sharpens labels, one over the authors' temperature.
    alpha : float, default=4.0
        Pairs are mixed by β ~ Beta(alpha, alpha), or 1 - β if that is larger.
    use_trusted : bool, default=True
        Whether the labels of trusted samples are their verified ones, which are clean whatever
        their loss. False: the paper's protocol, in which only its own method knows them.
    random_state : int, RandomState instance or None, default=None
        Decides everything random.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    noise_rate_, asymmetric_ : float, bool
        What was used.
    clean_proba_ : ndarray of shape (2, n_learned)
        By either network: how probably each sample that was learned from has a clean label.
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

    def _learn(self, given: Given, seed: int) -> Any:
        of_noise, of_division, *of_networks = seeds(seed, 4)
        level = self._noise_level(given, of_noise)
        # The authors count labels that were drawn anew, of which some are right by chance.
        redrawn = level.rate * given.n_classes / (given.n_classes - 1)
        weight = self.unlabelled_weight
        if weight is None:
            rates, weights = zip(*UNLABELLED_WEIGHT.items(), strict=True)
            weight = 0.0 if self.asymmetric_ else float(np.interp(redrawn, rates, weights))
        networks = [self._network(one) for one in of_networks]
        jobs = [network.start(given.X, given.targets) for network in networks]
        epochs = jobs[0].recipe.epochs
        division = CoDivision(
            jobs,
            given.trusted,
            n_averaged=AVERAGED_EPOCHS if redrawn >= HIGH_NOISE else 1,
            seed=of_division,
        )
        lessons = [
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
        jobs = [replace(job, lesson=one) for job, one in zip(jobs, lessons, strict=True)]
        teach(networks, jobs, seed)
        self.clean_proba_ = division.clean_proba
        return average(networks, given.n_classes)

    def _noise_level(self, given: Given, seed: int) -> NoiseLevel:
        """Take what is told, estimate the rest."""
        level = NoiseLevel(0.0, np.eye(given.n_classes))
        if self.noise_rate is None or self.asymmetric is None:
            level = estimate_noise_level(partial(self._fitted, seed=seed), given)
        self.noise_rate_ = level.rate if self.noise_rate is None else self.noise_rate
        self.asymmetric_ = level.is_asymmetric if self.asymmetric is None else self.asymmetric
        return level._replace(rate=self.noise_rate_)


class CoDivision:
    """How probably each sample is clean, by the losses of either of two networks.

    Parameters
    ----------
    jobs : list of two Jobs
        The networks, and the samples with one-hot labels.
    trusted : ndarray of shape (n_samples,), bool
        Samples that are clean.
    n_averaged : int
        Epochs whose losses are averaged.
    seed : int
        Decides where the mixture's fit starts.
    """

    def __init__(self, jobs: list[Job], trusted: np.ndarray, *, n_averaged: int, seed: int) -> None:
        self.jobs, self.trusted, self.seed = jobs, trusted, seed
        self.losses: list[deque] = [deque(maxlen=n_averaged) for _ in jobs]
        self.clean_proba = np.ones((2, len(trusted)))
        self._epoch: int | None = None

    def update(self, epoch: int) -> None:
        """Judge all samples by both networks, once an epoch, before either learns."""
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
    """Fit two Gaussians to losses; return the probability of the one with the smaller mean.

    Parameters
    ----------
    losses : ndarray of shape (n_samples,)
        Losses, scaled to [0, 1].
    seed : int, default=0
        Decides where the fit starts.

    Returns
    -------
    proba : ndarray of shape (n_samples,)
        Probabilities of being clean.

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
        warnings.simplefilter("ignore", ConvergenceWarning)  # ten steps, as the authors
        proba = mixture.fit(losses[:, None]).predict_proba(losses[:, None])
    return proba[:, mixture.means_.ravel().argmin()]


class DivideMix(Lesson):
    """The lesson of one of the networks.

    Parameters
    ----------
    division : CoDivision
        Knows both networks.
    own : int
        Which of them learns; samples are divided by the other one.
    unlabelled_weight : float
        `λ_u`.
    warm_up, ramp_up : int
        Epochs in which all samples are labelled; epochs after these in which the weight rises.
    warm_up_penalty : float
        Weight of a penalty on sure predictions during the warm-up.
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
        self.clean: Tensor | None = None  # (n_samples,) probabilities; None during the warm-up
        self.progress = 0.0

    def begin_epoch(self, epoch: int) -> None:
        """Divide the samples."""
        if epoch < self.warm_up:
            return
        self.division.update(epoch)
        self.progress = min(1.0, (epoch - self.warm_up) / self.ramp_up)
        hardware = self.division.jobs[self.own].hardware
        self.clean = torch.tensor(
            self.division.clean_proba[1 - self.own], dtype=hardware.dtype, device=hardware.device
        )
        self.peer.eval()

    def batches(self, generator: Generator) -> tuple[Tensor, ...] | None:
        """Draw batches whose first half is labelled; there are as many as those samples fill."""
        if self.clean is None:
            return None
        chosen = self.clean > self.threshold
        if chosen.all() or not chosen.any():  # there is nothing to divide
            return None

        def shuffled(rows: Tensor) -> Tensor:
            order = torch.randperm(len(rows), generator=generator, device=rows.device)
            return rows[order]

        labelled, unlabelled = (mask.nonzero().ravel() for mask in (chosen, ~chosen))
        half = max(1, self.division.jobs[self.own].recipe.batch_size // 2)
        parts = split_batches(shuffled(labelled), half)
        n_rounds = -(-len(labelled) // len(unlabelled))
        others = torch.cat([shuffled(unlabelled) for _ in range(n_rounds)])
        starts = np.cumsum([0, *(len(part) for part in parts)])
        return tuple(
            torch.cat([part, others[start : start + len(part)]])
            for part, start in zip(parts, starts[:-1], strict=True)
        )

    def __call__(self, batch: Batch) -> tuple[Tensor, Price]:
        """See `Lesson`."""
        if self.clean is None:
            return batch.view(), partial(self._warm_up_price, labels=batch.label)
        clean = self.clean[batch.rows]
        divided = (clean > self.threshold).sum() < len(clean)
        n = len(clean) // 2 if divided else len(clean)
        views = [batch.view(), batch.view()]
        own = average_answer(batch, self.network, views)
        peers = average_answer(batch, self.peer, [view[n:] for view in views])
        refined = clean[:n, None] * batch.label[:n] + (1 - clean[:n, None]) * own[:n]
        guessed = (own[n:] + peers) / 2
        targets = sharpen(torch.cat([refined, guessed]), self.sharpness)
        # Labelled samples first: both views of them, then both of the others.
        inputs = torch.cat([view[:n] for view in views] + [view[n:] for view in views])
        targets = torch.cat([targets[:n], targets[:n], targets[n:], targets[n:]])
        share = batch.rng.beta(self.alpha, self.alpha)
        share = max(share, 1 - share)
        order = torch.randperm(len(inputs), generator=batch.generator, device=inputs.device)
        mixed = share * inputs + (1 - share) * inputs[order]
        wanted = share * targets + (1 - share) * targets[order]
        return mixed, partial(self._price, wanted=wanted, n_labelled=2 * n)

    def _warm_up_price(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, with a negative entropy that keeps predictions unsure."""
        return soft_loss(logits, labels, -self.warm_up_penalty)

    def _price(self, logits: Tensor, wanted: Tensor, n_labelled: int) -> Tensor:
        """Compute the loss of MixMatch, and the term that spreads predictions (equation 12)."""
        prior = torch.full_like(wanted[0], 1 / wanted.shape[1])
        price = soft_loss(logits[:n_labelled], wanted[:n_labelled]) + prior_loss(logits, prior)
        if n_labelled < len(logits):
            off = logits[n_labelled:].softmax(dim=1) - wanted[n_labelled:]
            price = price + self.progress * self.unlabelled_weight * (off**2).mean()
        return price


def average_answer(batch: Batch, network: nn.Module, views: list[Tensor]) -> Tensor:
    """Average a network's probabilities over views of the same samples."""
    proba = [batch.answer(network, view).softmax(dim=1) for view in views]
    return torch.stack(proba).mean(dim=0)


def sharpen(proba: Tensor, sharpness: float) -> Tensor:
    """Raise probabilities to a power and scale rows to sum to 1 (equation 5)."""
    powers = proba**sharpness
    return powers / powers.sum(dim=1, keepdim=True)
