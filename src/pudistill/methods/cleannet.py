"""CleanNet: samples weigh as much as they resemble their class (reference [28])."""

from dataclasses import replace
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import Interval
from torch import Generator, Tensor, nn
from torch.nn.functional import normalize

from pudistill.exceptions import DivergedError, InputError
from pudistill.labels.checks import NO_TRUSTED
from pudistill.learners.networks.batches import shared_batches
from pudistill.learners.networks.classifier import TorchClassifier
from pudistill.learners.networks.fitting import fit_objective
from pudistill.learners.networks.objectives import Batch, LossFn, Objective
from pudistill.learners.networks.prediction import compute_logits
from pudistill.learners.networks.recipes import Recipe
from pudistill.methods.base import LabelledSamples, NetworkMethod, derive_seeds

# The authors' constants: the similarity up to which a label counts as wrong, and the weights of the
# losses of the reconstruction and of samples that are not verified.
MARGIN, RECONSTRUCTION_WEIGHT, UNVERIFIED_WEIGHT = 0.1, 0.1, 0.1
# Half of each batch is verified, as the authors' 32 of 64 samples.
VERIFIED_SHARE = 0.5
# Sizes of the layers; the authors' are 256 to 512 and 128, for features of ResNet-50.
N_HIDDEN, N_EMBEDDED = 128, 64
EMBEDDING_RECIPE = Recipe(
    epochs=1,  # those of the embedding are given to it
    learning_rate=1e-3,
    schedule="one_cycle",
    batch_size=64,
    optimiser="adamw",
    weight_decay=1e-4,
)


class CleanNetClassifier(NetworkMethod):
    """Weight samples by how much they resemble the class of their given label, then train.

    A network learns the given labels. Its features of the verified samples of a class, or the
    centres of their clusters, are the reference set of the class. Two small networks then embed
    samples and reference sets, so that verified samples are similar to their own class and to no
    other one. The cosine similarity of a sample and the class of its given label, at least 0, is
    the weight with which it trains the next network. Classes may lack verified samples: reference
    sets are then those of all samples, and what was learned of some classes holds for the others.

    The authors always take all samples. They know of a verified sample whether its given label is
    right; here its class is known, so that all other classes are wrong for it. In the loss, its
    class counts as much as all others together. Features are standardised, the embedding is
    smaller, and AdamW trains it in about as many steps as the network.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    n_references : int, default=32
        Largest number of centres in the reference set of a class.
    n_rounds : int, default=2
        How often samples are weighted and the network is trained; from the second round on, by the
        features of the network of the round before.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    relevance_ : ndarray of shape (n_learned,)
        Weights of the training samples, in [0, 1]; 1 for trusted samples. Samples without a label
        are left out.
    model_ : TorchClassifier
        The final network, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    K.-H. Lee, X. He, L. Zhang, L. Yang, "CleanNet: Transfer Learning for Scalable Image Classifier
    Training with Label Noise", CVPR 2018; equations 1 to 7.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import CleanNetClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> given = np.where(trusted, y, (y + (np.arange(178) % 3 == 1)) % 3)  # every third is wrong
    >>> classifier = CleanNetClassifier(random_state=0).fit(X, given, trusted=trusted)
    >>> classifier.score(X, y) > 0.9
    True
    """

    needs_every_class: ClassVar[bool] = False
    _parameter_constraints: dict = {
        **NetworkMethod._parameter_constraints,
        "n_references": [Interval(Integral, 1, None, closed="left")],
        "n_rounds": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_references: int = 32,
        n_rounds: int = 2,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.n_references = n_references
        self.n_rounds = n_rounds
        self.random_state = random_state

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        if not samples.trusted.any():
            raise InputError(NO_TRUSTED)
        plain_seed, *seeds = derive_seeds(seed, 1 + 2 * self.n_rounds)
        network = self._fit_network(samples, plain_seed)
        for weighting_seed, network_seed in zip(seeds[::2], seeds[1::2], strict=True):
            similarity = self._similarity(samples, network, weighting_seed)
            self.relevance_ = np.where(samples.trusted, 1.0, similarity.clip(0, 1))
            network = self._make_network(network_seed)
            network.fit(samples.X, samples.targets, sample_weight=self.relevance_)
        return network

    def _similarity(
        self, samples: LabelledSamples, network: TorchClassifier, seed: int
    ) -> np.ndarray:
        """Return the similarity of each sample and the class of its label, (n,)."""
        features = network.embed(samples.X).astype(np.float64)
        if not np.isfinite(features).all():
            raise DivergedError(
                "The features of a network are not finite: lower learning_rate, which is "
                f"{network.recipe_.learning_rate:g}."
            )
        features = StandardScaler().fit_transform(features)
        rows = samples.trusted
        if not np.isin(samples.labels, samples.labels[rows]).all():
            # One kind of set, so that what is learned of some classes holds for the others.
            rows = np.ones(len(features), dtype=bool)
        references = reference_sets(
            features[rows], samples.labels[rows], samples.n_classes, self.n_references, seed
        )
        embedding = TorchClassifier(
            lambda in_shape, n_classes: JointEmbedding(references),  # noqa: ARG005
            recipe=EMBEDDING_RECIPE,
            role="member",  # whose epochs are not reported: it is no classifier of the samples
            # Batches that repeat verified samples are twice as many.
            epochs=max(1, network.recipe_.epochs // 2),
            device=network.device,
            precision=network.precision,
            random_state=seed,
        )
        job = embedding.make_job(features, samples.targets)
        verified = torch.tensor(samples.trusted, device=job.hardware.device)
        objective = Relevance(verified, job.recipe.batch_size)
        fit_objective([embedding], [replace(job, objective=objective)], seed)
        similarity = compute_logits(job.module, job.inputs, job.normalisation, job.hardware).numpy()
        return similarity[np.arange(len(features)), samples.labels]


def reference_sets(
    features: np.ndarray,
    labels: np.ndarray,
    n_classes: int,
    n_references: int,
    seed: int,
) -> Tensor:
    """Summarise the features of each class by the centres of k-means.

    Parameters
    ----------
    features : ndarray of shape (n_samples, n_features)
        Features.
    labels : ndarray of shape (n_samples,), int
        Class codes.
    n_classes : int
        Number of classes; the set of a class without samples holds zeros.
    n_references : int
        Largest number of centres of a class.
    seed : int
        Seeds k-means.

    Returns
    -------
    references : Tensor of shape (n_classes, n_centres, n_features), float32
        The centres; those of a class that has fewer than others are repeated.
    """
    centres = []
    for label in range(n_classes):
        of_class = np.unique(features[labels == label], axis=0)
        if len(of_class) > n_references:
            means = KMeans(n_references, n_init=1, random_state=seed).fit(of_class)
            of_class = means.cluster_centers_
        centres.append(of_class if len(of_class) else np.zeros((1, features.shape[1])))
    shape = (max(map(len, centres)), features.shape[1])
    stacked = np.stack([np.resize(of_class, shape) for of_class in centres])
    return torch.from_numpy(stacked.astype(np.float32))


class JointEmbedding(nn.Module):
    """Embeds samples and reference sets in one space.

    Parameters
    ----------
    references : Tensor of shape (n_classes, n_references, n_features)
        The reference set of each class.

    Attributes
    ----------
    reconstruction_error : Tensor of shape (n,)
        Mean squared error with which the embedding of the last batch gives back the features.
    """

    references: Tensor

    def __init__(self, references: Tensor) -> None:
        super().__init__()
        n_features = references.shape[-1]
        self.register_buffer("references", references)
        self.encoder = nn.Sequential(
            nn.Linear(n_features, N_HIDDEN), nn.Tanh(), nn.Linear(N_HIDDEN, N_EMBEDDED), nn.Tanh()
        )
        self.decoder = nn.Sequential(
            nn.Linear(N_EMBEDDED, N_HIDDEN), nn.Tanh(), nn.Linear(N_HIDDEN, n_features)
        )
        self.reference_encoder = nn.Sequential(
            nn.Linear(n_features, N_HIDDEN), nn.Tanh(), nn.Linear(N_HIDDEN, N_HIDDEN), nn.Tanh()
        )
        self.attention = nn.Sequential(
            nn.Linear(N_HIDDEN, N_HIDDEN),
            nn.Tanh(),
            nn.Linear(N_HIDDEN, 1, bias=False),
            nn.Softmax(dim=1),
        )
        self.set_encoder = nn.Sequential(nn.Linear(N_HIDDEN, N_EMBEDDED), nn.Tanh())
        self.reconstruction_error = torch.zeros(0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the cosine similarity of samples and classes, ``(n, n_classes)``."""
        encoded = self.reference_encoder(self.references)
        of_classes = self.set_encoder((self.attention(encoded) * encoded).sum(dim=1))
        of_samples = self.encoder(x)
        self.reconstruction_error = ((self.decoder(of_samples) - x) ** 2).mean(dim=1)
        return normalize(of_samples) @ normalize(of_classes).T


class Relevance(Objective):
    """The objective of `JointEmbedding`.

    Parameters
    ----------
    verified : Tensor of shape (n_samples,), bool
        Samples whose label is known to be right, at least one.
    batch_size : int
        Largest number of samples in a batch.
    """

    def __init__(self, verified: Tensor, batch_size: int) -> None:
        self.verified, self.batch_size = verified, batch_size

    def batches(self, generator: Generator) -> tuple[Tensor, ...] | None:
        """Draw batches of which half is verified."""
        if self.verified.all():
            return None
        return shared_batches(self.verified, VERIFIED_SHARE, self.batch_size, generator)

    def __call__(self, batch: Batch) -> tuple[Tensor, LossFn]:
        """See `Objective`."""
        verified = self.verified[batch.rows]

        def loss(similarity: Tensor) -> Tensor:
            of_labels = relevance_loss(similarity, batch.label, verified)
            error: Any = batch.module.reconstruction_error
            return (of_labels + RECONSTRUCTION_WEIGHT * error).mean()

        return batch.view(), loss


def relevance_loss(similarity: Tensor, labels: Tensor, verified: Tensor) -> Tensor:
    """Compute the loss of each sample's similarities to the classes.

    A verified sample should be similar to its class, and to no other one. One that is not verified
    should be similar to the class of its label if it is already.

    Parameters
    ----------
    similarity : Tensor of shape (n, n_classes)
        Cosine similarities, with at least two classes.
    labels : Tensor of shape (n, n_classes)
        One-hot labels.
    verified : Tensor of shape (n,), bool
        Whether the label is verified.

    Returns
    -------
    losses : Tensor of shape (n,)
        At least 0.

    Examples
    --------
    >>> import torch
    >>> from pudistill.methods.cleannet import relevance_loss
    >>> similarity = torch.tensor([[0.75, 0.5, 0.0], [0.05, 0.9, 0.0]])
    >>> label = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    >>> relevance_loss(similarity, label, torch.tensor([True, False]))
    tensor([0.4500, 0.0000])
    """
    of_label = (labels * similarity).sum(dim=1)
    too_similar = ((1 - labels) * (similarity - MARGIN).clamp_min(0)).sum(dim=1)
    of_verified = 1 - of_label + too_similar / (labels.shape[1] - 1)
    # Not verified, it counts as right from the margin on; below, there is nothing to lower.
    of_others = UNVERIFIED_WEIGHT * torch.where(of_label >= MARGIN, 1 - of_label, 0.0)
    return torch.where(verified, of_verified, of_others)
