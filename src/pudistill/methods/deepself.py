"""DeepSelf: labels are corrected by several prototypes of each class (reference [43])."""

from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor
from torch.nn.functional import normalize

from pudistill.learners.networks.fitting import fit_objective
from pudistill.learners.networks.job import Job
from pudistill.learners.networks.losses import soft_loss
from pudistill.learners.networks.objectives import Batch, LossFn, Objective
from pudistill.methods.base import LabelledSamples, NetworkMethod, derive_seeds

# A sample is near another one if their similarity is above this quantile of all similarities.
NEAR_QUANTILE = 0.4
# A prototype is less similar than this to all samples that have more neighbours.
LARGEST_SIMILARITY = 0.95


class DeepSelfClassifier(NetworkMethod):
    """Train on two labels of each sample: the given one, and one that prototypes have corrected.

    After a warm-up, before each epoch, some samples of each class are compared by the cosine
    similarity of their features. The prototypes of the class are those with the most near
    neighbours, without any that is similar to a sample with more. A sample's corrected label is the
    class to whose prototypes it is most similar on average. The loss is a weighted sum of the
    cross-entropies with both labels. Neither verified labels nor the noise rate are needed.

    Epochs and learning rate are the recipe's.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    n_prototypes : int, default=8
        Largest number of prototypes of a class, `p`.
    n_compared : int, default=1280
        Largest number of samples of a class that are compared with each other, `m`.
    corrected_weight : float in [0, 1], default=0.5
        Weight of the loss of the corrected labels, `α`; that of the given labels is `1 - α`.
    warm_up : float in [0, 1], default=0.2
        Share of the epochs that learn from the given labels only.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels, which are never corrected. False: the
        paper's protocol, in which only the paper's own method knows which samples are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    model_ : TorchClassifier
        The network, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    J. Han, P. Luo, X. Wang, "Deep Self-Learning From Noisy Labels", ICCV 2019; equations 1 to 7.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import DeepSelfClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> DeepSelfClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **NetworkMethod._parameter_constraints,
        "n_prototypes": [Interval(Integral, 1, None, closed="left")],
        "n_compared": [Interval(Integral, 1, None, closed="left")],
        "corrected_weight": [Interval(Real, 0, 1, closed="both")],
        "warm_up": [Interval(Real, 0, 1, closed="both")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_prototypes: int = 8,
        n_compared: int = 1280,
        corrected_weight: float = 0.5,
        warm_up: float = 0.2,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.n_prototypes = n_prototypes
        self.n_compared = n_compared
        self.corrected_weight = corrected_weight
        self.warm_up = warm_up
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        network_seed, draw_seed = derive_seeds(seed, 2)
        network = self._make_network(network_seed)
        job = network.make_job(samples.X, samples.targets)
        objective = SelfLearning(
            job,
            samples,
            n_prototypes=self.n_prototypes,
            n_compared=self.n_compared,
            corrected_weight=self.corrected_weight,
            warm_up=max(1, round(self.warm_up * job.recipe.epochs)),
            seed=draw_seed,
        )
        fit_objective([network], [replace(job, objective=objective)], seed)
        return network


class SelfLearning(Objective):
    """The objective of `DeepSelfClassifier`.

    Parameters
    ----------
    job : Job
        The training of the network, whose features are compared.
    samples : LabelledSamples
        The samples; labels of trusted samples are not corrected.
    n_prototypes, n_compared, corrected_weight : int, int and float
        As in `DeepSelfClassifier`.
    warm_up : int
        Number of epochs before labels are corrected.
    seed : int
        Seeds the choice of the samples that are compared.
    """

    def __init__(
        self,
        job: Job,
        samples: LabelledSamples,
        *,
        n_prototypes: int,
        n_compared: int,
        corrected_weight: float,
        warm_up: int,
        seed: int,
    ) -> None:
        self.job, self.samples = job, samples
        self.n_prototypes, self.n_compared = n_prototypes, n_compared
        self.corrected_weight, self.warm_up = corrected_weight, warm_up
        self.rng = np.random.RandomState(seed)
        self.corrected: Tensor | None = None  # (n_samples, n_classes); None during the warm-up

    def begin_epoch(self, epoch: int) -> None:
        """Correct the labels."""
        if epoch < self.warm_up:
            return
        hardware = self.job.hardware
        features = torch.from_numpy(self.job.embed()).to(hardware.device)
        labels = correct_by_prototypes(
            features, self.samples.labels, self.n_prototypes, self.n_compared, self.rng
        )
        labels = np.where(self.samples.trusted, self.samples.labels, labels)
        self.corrected = torch.eye(
            self.samples.n_classes, dtype=hardware.dtype, device=hardware.device
        )[torch.from_numpy(labels).to(hardware.device)]

    def __call__(self, batch: Batch) -> tuple[Tensor, LossFn]:
        """See `Objective`."""
        labels = batch.label
        if self.corrected is not None:
            labels = labels.lerp(self.corrected[batch.rows], self.corrected_weight)
        # Cross-entropy is linear in the labels: this is the weighted sum of both losses.
        return batch.view(), lambda logits: soft_loss(logits, labels)


def correct_by_prototypes(
    features: Tensor,
    labels: np.ndarray,
    n_prototypes: int,
    n_compared: int,
    rng: np.random.RandomState,
) -> np.ndarray:
    """Return the class to whose prototypes each sample is most similar.

    Parameters
    ----------
    features : Tensor of shape (n_samples, n_features)
        Features.
    labels : ndarray of shape (n_samples,), int
        Class codes. Classes without samples are not returned.
    n_prototypes : int
        Largest number of prototypes of a class.
    n_compared : int
        Largest number of samples of a class that are compared with each other.
    rng : RandomState
        Draws these samples.

    Returns
    -------
    corrected : ndarray of shape (n_samples,), int
        Class codes.
    """
    features = normalize(features)
    present = np.unique(labels)
    means = []
    for label in present:
        rows = np.flatnonzero(labels == label)
        rows = rng.permutation(rows)[:n_compared]
        of_class = features[torch.from_numpy(rows).to(features.device)]
        chosen = choose_prototypes(of_class @ of_class.T, n_prototypes)
        # The mean of similarities to unit vectors is the similarity to their mean.
        means.append(of_class[chosen].mean(dim=0))
    nearest = (features @ torch.stack(means).T).argmax(dim=1)
    return present[nearest.numpy(force=True)]


def choose_prototypes(similarity: Tensor, n_prototypes: int) -> Tensor:
    """Choose samples with many near neighbours that are not similar to each other.

    Parameters
    ----------
    similarity : Tensor of shape (n, n)
        Cosine similarities of samples of one class.
    n_prototypes : int
        Largest number of prototypes.

    Returns
    -------
    chosen : Tensor of shape (n_chosen,), int64
        Their positions, at least one: that of the most neighbours comes first.

    Examples
    --------
    >>> import torch
    >>> from pudistill.methods.deepself import choose_prototypes
    >>> angles = torch.tensor([0.0, 0.1, 0.2, 1.5, 1.6])  # a group of three, and one of two
    >>> choose_prototypes((angles[:, None] - angles).cos(), n_prototypes=2)
    tensor([2, 3])
    """
    n = len(similarity)
    rank = max(1, round(NEAR_QUANTILE * n * n))
    threshold = similarity.ravel().kthvalue(rank).values
    density = (similarity - threshold).sign().sum(dim=1)
    ranked = density.argsort(descending=True, stable=True)
    # Each sample's largest similarity to a sample before it; that of the first one is -inf.
    is_before = torch.ones_like(similarity, dtype=torch.bool).tril(-1)
    nearest = similarity[ranked][:, ranked].masked_fill(~is_before, -torch.inf).amax(dim=1)
    return ranked[nearest < LARGEST_SIMILARITY][:n_prototypes]
