"""PENCIL: labels are distributions that are trained with the network (reference [19])."""

from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor
from torch.nn.functional import cross_entropy

from pudistill.learners.networks.fitting import fit_objective
from pudistill.learners.networks.losses import entropy, soft_loss
from pudistill.learners.networks.objectives import Batch, LossFn, Objective
from pudistill.methods.base import LabelledSamples, NetworkMethod, derive_seeds

CERTAINTY = 10.0  # logit of the given label at the start, the authors' `K`
# Of the authors' 320 epochs, labels are kept in 70 and trained in 130.
KEPT, TRAINED = 70 / 320, 130 / 320
# The labels' learning rate is 600 for the mean loss of 128 samples, in each of the 130 epochs.
LABEL_RATE = 600 / 128 * 130


class PENCILClassifier(NetworkMethod):
    """Train the network and a distribution over the classes for each sample, in three stages.

    First the network learns the given labels, at a constant, large learning rate. Then the labels
    are trained, too: they follow the network's predictions and are held back by a term that
    compares them with the given labels. At last the network learns the final distributions.

    As in the authors' code, the divergence and the entropy are divided by the number of classes.
    The compatibility with the given labels is not; it applies the softmax to probabilities. The
    labels' learning rate is the authors' per sample, times the ratio of the numbers of epochs, so
    that the labels can move as far in a shorter training. The first stages have 200/320 of the
    recipe's epochs at its largest learning rate, and the last one has the recipe's epochs and
    schedule. A training of very few steps, such as ten, fails: the labels then follow a network
    that knows nothing yet.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    compatibility_weight : float, default=0.4
        Weight of the compatibility with the given labels, `α`; the authors' value.
    entropy_weight : float, default=0.1
        Weight of the entropy of the predictions, `β`.
    label_rate : float, default=1.0
        Learning rate of the labels, `λ`, as a multiple of the authors'.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels, which are never changed. False: the
        paper's protocol, in which only the paper's own method knows which samples are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    label_distributions_ : ndarray of shape (n_learned, n_classes)
        The final distributions; samples without a label are left out.
    model_ : TorchClassifier
        The network, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    K. Yi, J. Wu, "Probabilistic End-to-end Noise Correction for Learning with Noisy Labels", CVPR
    2019; equations 4 to 12.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import PENCILClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> PENCILClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **NetworkMethod._parameter_constraints,
        "compatibility_weight": [Interval(Real, 0, None, closed="left")],
        "entropy_weight": [Interval(Real, 0, None, closed="left")],
        "label_rate": [Interval(Real, 0, None, closed="left")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        compatibility_weight: float = 0.4,
        entropy_weight: float = 0.1,
        label_rate: float = 1.0,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.compatibility_weight = compatibility_weight
        self.entropy_weight = entropy_weight
        self.label_rate = label_rate
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        first_seed, second_seed = derive_seeds(seed, 2)
        # 1. The given labels, then the labels too, at a constant learning rate.
        network = self._make_network(first_seed)
        job = network.make_job(samples.X, samples.targets)
        n_kept = max(1, round(KEPT * job.recipe.epochs))
        n_trained = max(1, round(TRAINED * job.recipe.epochs))
        recipe = replace(job.recipe.with_epochs(n_kept + n_trained), schedule="step", milestones=())
        objective = PENCIL(
            torch.tensor(samples.targets, dtype=job.hardware.dtype, device=job.hardware.device),
            torch.tensor(samples.trusted, device=job.hardware.device),
            n_kept=n_kept,
            compatibility_weight=self.compatibility_weight,
            entropy_weight=self.entropy_weight,
            label_rate=self.label_rate * LABEL_RATE / n_trained,
        )
        fit_objective([network], [replace(job, recipe=recipe, objective=objective)], first_seed)
        # 2. The final distributions, from the weights so far.
        objective.labels_are_final = True
        network.set_params(random_state=second_seed, warm_start=True)
        job = network.make_job(samples.X, samples.targets)
        fit_objective([network], [replace(job, objective=objective)], second_seed)
        self.label_distributions_ = objective.labels.softmax(dim=1).numpy(force=True)
        return network


class PENCIL(Objective):
    """The objective of the network, which trains the labels, too.

    Parameters
    ----------
    targets : Tensor of shape (n_samples, n_classes)
        One-hot given labels.
    trusted : Tensor of shape (n_samples,), bool
        Samples whose labels are never changed.
    n_kept : int
        Number of epochs before labels are trained.
    compatibility_weight, entropy_weight, label_rate : float
        `α`, `β`, and the learning rate of the labels for the loss of one sample.
    """

    def __init__(
        self,
        targets: Tensor,
        trusted: Tensor,
        *,
        n_kept: int,
        compatibility_weight: float,
        entropy_weight: float,
        label_rate: float,
    ) -> None:
        self.labels = CERTAINTY * targets  # logits of the distributions
        self.trusted = trusted
        self.n_kept = n_kept
        self.compatibility_weight = compatibility_weight
        self.entropy_weight = entropy_weight
        self.label_rate = label_rate
        self.labels_are_final = False
        self.labels_are_trained = False

    def begin_epoch(self, epoch: int) -> None:
        """Begin to train the labels when the network has learned the given ones."""
        self.labels_are_trained = not self.labels_are_final and epoch >= self.n_kept

    def __call__(self, batch: Batch) -> tuple[Tensor, LossFn]:
        """See `Objective`."""
        if self.labels_are_trained:
            return batch.view(), lambda logits: self._train_labels(logits, batch)
        if self.labels_are_final:
            labels = self.labels[batch.rows]
            return batch.view(), lambda logits: classification_loss(logits, labels).mean()
        return batch.view(), lambda logits: soft_loss(logits, batch.label)

    def _train_labels(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the loss of the second stage, and make a step of the batch's labels."""
        labels = self.labels[batch.rows].requires_grad_()
        losses = classification_loss(logits, labels)
        losses = losses + self.compatibility_weight * cross_entropy(
            labels.softmax(dim=1), batch.label, reduction="none"
        )
        of_predictions = entropy(logits.log_softmax(dim=1)) / logits.shape[1]
        losses = losses + self.entropy_weight * of_predictions
        # The logits are inputs of this graph: the gradient does not reach into the network.
        (gradient,) = torch.autograd.grad(losses.sum(), labels, retain_graph=True)
        step = self.label_rate * gradient.masked_fill(self.trusted[batch.rows, None], 0)
        self.labels[batch.rows] -= step
        return losses.mean()


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the divergence of predictions from labels, KL(prediction || label) / C.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        The network's output.
    labels : Tensor of shape (n, n_classes)
        Logits of the labels' distributions.

    Returns
    -------
    losses : Tensor of shape (n,)
        At least 0.
    """
    log_proba = logits.log_softmax(dim=1)
    return (log_proba.exp() * (log_proba - labels.log_softmax(dim=1))).mean(dim=1)
