"""MetaCleaner: small sets of one class are averaged by learned weights (reference [13])."""

from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import Generator, Tensor, nn

from pudistill.exceptions import InputError
from pudistill.learners.networks.batches import same_label_rows, split_batches
from pudistill.learners.networks.fitting import fit_objective
from pudistill.learners.networks.hardware import seeded
from pudistill.learners.networks.losses import soft_loss
from pudistill.learners.networks.objectives import Batch, LossFn, Objective
from pudistill.learners.networks.prediction import last_layer_inputs
from pudistill.methods.base import LabelledSamples, NetworkMethod, derive_seeds

N_HIDDEN = 128  # of the network that weights the samples of a set


class MetaCleanerClassifier(NetworkMethod):
    """Train a network on weighted means of samples that have the same given label.

    The features of a few samples of one class are read together by a second, small network, which
    gives each sample a weight ("noisy weighting"). Their weighted mean, a "hallucinated" sample of
    the class, takes the place of the single samples in the loss. Both networks are trained at once.
    A prediction needs the first one only.

    The weights are a softmax over the set, and the weighting network has one hidden layer: its
    size is not the authors', who train ResNet-50. Epochs and learning rate are the recipe's.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    set_size : int, default=5
        Number of samples in a set, `K`; at most the batch size.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels. False: the paper's protocol, in which
        only the paper's own method knows which samples are trusted.
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
    W. Zhang, Y. Wang, Y. Qiao, "MetaCleaner: Learning to Hallucinate Clean Representations for
    Noisy-Labeled Visual Recognition", CVPR 2019; section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import MetaCleanerClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> MetaCleanerClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **NetworkMethod._parameter_constraints,
        "set_size": [Interval(Integral, 1, None, closed="left")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        set_size: int = 5,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.set_size = set_size
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        network_seed, weighting_seed = derive_seeds(seed, 2)
        network = self._make_network(network_seed)
        job = network.make_job(samples.X, samples.targets)
        if job.recipe.batch_size < self.set_size:
            raise InputError(
                f"set_size={self.set_size} is larger than a batch of {job.recipe.batch_size} "
                "samples: make set_size smaller, or the batch size larger."
            )
        n_features = replace(job, inputs=job.inputs[:1]).embed().shape[1]
        with seeded(weighting_seed, job.hardware.device):
            cleaner = MetaCleaner(job.module, n_features, self.set_size)
        cleaner.to(device=job.hardware.device, dtype=job.hardware.dtype)
        labels = torch.tensor(samples.labels, device=job.hardware.device)
        objective = CleanHallucinating(labels, self.set_size, job.recipe.batch_size)
        fit_objective([network], [replace(job, module=cleaner, objective=objective)], seed)
        return network


class MetaCleaner(nn.Module):
    """A network, and one that weights the samples of a set.

    Parameters
    ----------
    network : nn.Module
        Maps samples to logits.
    n_features : int
        Number of inputs of its last linear layer.
    set_size : int
        Number of samples in a set.
    """

    def __init__(self, network: nn.Module, n_features: int, set_size: int) -> None:
        super().__init__()
        self.network, self.set_size = network, set_size
        last = nn.Linear(N_HIDDEN, set_size)
        nn.init.zeros_(last.weight)  # at first, all samples of a set count the same
        nn.init.zeros_(last.bias)
        self.weighting = nn.Sequential(
            nn.Linear(set_size * n_features, N_HIDDEN), nn.ReLU(), last, nn.Softmax(dim=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map sets, one after the other, to the logits of their weighted mean, once per sample."""
        with last_layer_inputs(self.network) as features:
            logits = self.network(x)
        n_sets = len(x) // self.set_size
        weights = self.weighting((features or [logits])[-1].reshape(n_sets, -1))
        return hallucinate(logits, weights).repeat_interleave(self.set_size, dim=0)


def hallucinate(logits: Tensor, weights: Tensor) -> Tensor:
    """Return the logits of the weighted mean of the features of each set.

    The last layer of a network is linear: they are the weighted mean of the logits.

    Parameters
    ----------
    logits : Tensor of shape (n_sets * set_size, n_classes)
        Logits of single samples, one set after the other.
    weights : Tensor of shape (n_sets, set_size)
        Weights of the samples of each set, which sum to 1.

    Returns
    -------
    means : Tensor of shape (n_sets, n_classes)
        One row per set.

    Examples
    --------
    >>> import torch
    >>> from pudistill.methods.metacleaner import hallucinate
    >>> hallucinate(torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.75, 0.25]]))
    tensor([[1.5000, 1.0000]])
    """
    return (weights[:, None] @ logits.unflatten(0, weights.shape)).squeeze(1)


class CleanHallucinating(Objective):
    """The cross-entropy of `MetaCleaner`: batches hold whole sets.

    Parameters
    ----------
    labels : Tensor of shape (n_samples,), int64
        Given labels.
    set_size : int
        Number of samples in a set.
    batch_size : int
        Largest number of samples in a batch, at least `set_size`.
    """

    def __init__(self, labels: Tensor, set_size: int, batch_size: int) -> None:
        self.labels, self.set_size, self.batch_size = labels, set_size, batch_size

    def batches(self, generator: Generator) -> tuple[Tensor, ...]:
        """Draw sets, and split them into batches."""
        sets = same_label_rows(self.labels, self.set_size, generator)
        parts = split_batches(sets, self.batch_size // self.set_size)
        return tuple(part.ravel() for part in parts)

    def __call__(self, batch: Batch) -> tuple[Tensor, LossFn]:
        """See `Objective`."""
        return batch.view(), lambda logits: soft_loss(logits, batch.label)
