"""MentorNet: a curriculum that weights samples by their losses (reference [18])."""

from dataclasses import replace
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor
from torch.nn.functional import cross_entropy

from pudistill.learners.networks.fitting import fit_objective
from pudistill.learners.networks.objectives import Batch, LossFn, Objective
from pudistill.methods.base import LabelledSamples, NetworkMethod, derive_seeds
from pudistill.methods.noise_level import noise_rate

# The percentile of the losses that the authors take, by the share of labels redrawn at random.
PERCENTILE = {0.2: 0.75, 0.4: 0.75, 0.8: 0.5}
# The authors' curriculum by the share of the training that has passed: all samples, then those of
# small loss, then weights that fall with the loss; and the shares of samples left out at random.
ALL_UNTIL, LINEAR_FROM = 0.18, 0.9
DROPPED_UNTIL, DROPPED_FIRST, DROPPED_LATER = 0.17, 0.5, 0.05


class MentorNetClassifier(NetworkMethod):
    """Learn all samples first, then those whose loss is below a percentile, by a curriculum.

    This is the authors' predefined curriculum, MentorNet PD: for 18 % of the training all samples
    count; until 90 % those count whose loss is below a moving average of a percentile of the
    losses; after that the weight falls linearly above it. Samples are also left out at random.

    The authors train a network to repeat this rule; here the rule itself is used. They choose the
    percentile by the level of the noise; here it is interpolated between their values by the
    estimated level. Their learned curriculum, MentorNet DD, is not here: it needs to know the given
    labels of verified samples, which no method of this package reads.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    noise_rate : float in [0, 1] or None, default=None
        Share of wrong labels among all samples, which decides the percentile. ``None``: estimated.
        The authors use the true rate. Not used if `percentile` is given.
    percentile : float in [0, 1] or None, default=None
        Share of the losses that are small. ``None``: interpolated between the authors' values.
    decay : float in [0, 1), default=0.5
        Weight of the past in the moving average of the percentile.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels and always count fully. False: the
        paper's protocol, in which only the paper's own method knows which samples are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    percentile_ : float
        The percentile that was used.
    model_ : TorchClassifier
        The network, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    L. Jiang, Z. Zhou, T. Leung, L.-J. Li, L. Fei-Fei, "MentorNet: Learning Data-Driven Curriculum
    for Very Deep Neural Networks on Corrupted Labels", ICML 2018; equation 5 and algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import MentorNetClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> MentorNetClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **NetworkMethod._parameter_constraints,
        "noise_rate": [Interval(Real, 0, 1, closed="both"), None],
        "percentile": [Interval(Real, 0, 1, closed="both"), None],
        "decay": [Interval(Real, 0, 1, closed="left")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        noise_rate: float | None = None,
        percentile: float | None = None,
        decay: float = 0.5,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.noise_rate = noise_rate
        self.percentile = percentile
        self.decay = decay
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        noise_seed, network_seed = derive_seeds(seed, 2)
        self.percentile_ = self._find_percentile(samples, noise_seed)
        network = self._make_network(network_seed)
        job = network.make_job(samples.X, samples.targets)
        objective = MentorNet(
            torch.tensor(samples.trusted, device=job.hardware.device),
            percentile=self.percentile_,
            decay=self.decay,
            n_epochs=job.recipe.epochs,
        )
        fit_objective([network], [replace(job, objective=objective)], network_seed)
        return network

    def _find_percentile(self, samples: LabelledSamples, seed: int) -> float:
        """Return the percentile: the parameter, or by the noise rate."""
        if self.percentile is not None:
            return float(self.percentile)
        rate = noise_rate(self.noise_rate, partial(self._fit_network, seed=seed), samples)
        # The authors count redrawn labels, of which some are right by chance.
        redrawn = rate * samples.n_classes / (samples.n_classes - 1)
        levels, percentiles = zip(*PERCENTILE.items(), strict=True)
        return float(np.interp(redrawn, levels, percentiles))


class MentorNet(Objective):
    """The objective of the network; for the parameters see `MentorNetClassifier`.

    Parameters
    ----------
    trusted : Tensor of shape (n_samples,), bool
        Samples that always count fully.
    percentile, decay : float
        As in `MentorNetClassifier`.
    n_epochs : int
        Number of epochs.
    """

    def __init__(self, trusted: Tensor, *, percentile: float, decay: float, n_epochs: int) -> None:
        self.trusted = trusted
        self.percentile, self.decay, self.n_epochs = percentile, decay, n_epochs
        self.progress = 0.0
        self.average: Tensor | None = None  # of the percentile of the losses

    def begin_epoch(self, epoch: int) -> None:
        """Set the share of the training that has passed."""
        self.progress = epoch / self.n_epochs

    def __call__(self, batch: Batch) -> tuple[Tensor, LossFn]:
        """See `Objective`."""
        share = DROPPED_FIRST if self.progress < DROPPED_UNTIL else DROPPED_LATER
        n = len(batch.rows)
        order = torch.randperm(n, generator=batch.generator, device=batch.rows.device)
        is_kept = order < int(n * (1 - share))

        def loss(logits: Tensor) -> Tensor:
            losses = cross_entropy(logits, batch.label, reduction="none")
            weights = is_kept * self._weights(losses.detach())
            return (weights.masked_fill(self.trusted[batch.rows], 1) * losses).mean()

        return batch.view(), loss

    def _weights(self, losses: Tensor) -> Tensor:
        """Add the batch to the moving average; return the curriculum's weights."""
        percentile = losses.quantile(self.percentile)
        if self.average is None:
            self.average = percentile
        self.average = self.average.lerp(percentile, 1 - self.decay)
        return curriculum(losses, self.average, self.progress)


def curriculum(losses: Tensor, threshold: Tensor, progress: float) -> Tensor:
    """Return the weights of samples by the authors' predefined curriculum.

    Parameters
    ----------
    losses : Tensor of shape (n,)
        Losses of the samples.
    threshold : Tensor of shape ()
        Largest loss that counts as small.
    progress : float in [0, 1]
        Share of the training that has passed.

    Returns
    -------
    weights : Tensor of shape (n,)
        In [0, 1].

    Examples
    --------
    >>> import torch
    >>> from pudistill.methods.mentornet import curriculum
    >>> losses, threshold = torch.tensor([0.1, 1.5, 4.0]), torch.tensor(1.0)
    >>> [curriculum(losses, threshold, progress).tolist() for progress in (0.0, 0.5, 0.95)]
    [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.5, 0.0]]
    """
    if progress <= ALL_UNTIL:
        return torch.ones_like(losses)
    if progress < LINEAR_FROM:
        return (losses <= threshold).to(losses.dtype)
    return (1 - (losses - threshold)).clamp(0, 1)
