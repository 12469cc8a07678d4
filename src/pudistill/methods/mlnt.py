"""MLNT: a network that one step on wrong labels does not mislead (reference [42])."""

import copy
import math
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from pudistill.exceptions import InputError
from pudistill.learners.networks.classifier import TorchClassifier
from pudistill.learners.networks.fitting import fit_objective
from pudistill.learners.networks.objectives import Batch, LossFn, Objective, step_on_trial
from pudistill.methods.base import LabelledSamples, NetworkMethod, derive_seeds

# The targets of the second training: the share of the teacher rises from 0 to this; the rest is the
# mentor's.
LARGEST_TEACHER_SHARE = 0.5


class MLNTClassifier(NetworkMethod):
    """Train a network so that one step on synthetic wrong labels does not change its predictions.

    For each batch, several sets of synthetic labels are made: some samples get the label of a near
    neighbour. After a step on each set, the network should predict what a teacher predicts, which
    is the moving average of its weights. The gradient of that goes through the step, so that it has
    second derivatives; it is added to that of the cross-entropy with the given labels.

    The training is repeated. The teacher of the first training is the mentor of the second: samples
    whose given label it finds improbable are left out, and its predictions join the teacher's. The
    teacher of the last training predicts.

    Neighbours are found in the batch, by the features of a network that has learned the given
    labels. Epochs and learning rate are the recipe's; the moving average forgets faster than the
    authors', who make 30,000 steps.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    n_label_sets : int, default=3
        Number of sets of synthetic labels of a batch, `M`. Each takes about as long as three
        ordinary steps; with batch normalisation of large pictures, as six. The authors take 10; on
        the digits of scikit-learn, 1, 3 and 10 were equally good.
    perturbed : float in [0, 1], default=0.5
        Share of the samples that get another label in a set.
    n_neighbours : int, default=10
        Number of neighbours from which the label of one is drawn; less than the batch size.
    meta_learning_rate : float, default=0.2
        Rate of the step on synthetic labels: the authors' for CIFAR-10.
    consistency_weight : float, default=1.0
        Weight of the divergence from the teacher, after it has risen.
    warm_up : float in [0, 1], default=0.1
        Share of the epochs that only learn the given labels. In as many epochs after these, the
        weight of the divergence rises.
    teacher_momentum : float in [0, 1), default=0.99
        Share of the teacher's weights that stays at each step.
    n_trainings : int, default=2
        Number of trainings; each but the first has the mentor that the one before has trained.
    min_label_proba : float in [0, 1], default=0.01
        Samples whose given label has a smaller probability by the mentor are left out.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels and are never left out. False: the
        paper's protocol, in which only the paper's own method knows which samples are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    model_ : TorchClassifier
        The teacher of the last training, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    J. Li, Y. Wong, Q. Zhao, M. Kankanhalli, "Learning to Learn from Noisy Labeled Data", CVPR 2019;
    algorithm 1 and section 3.4.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import MLNTClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> classifier = MLNTClassifier(n_label_sets=2, random_state=0).fit(X, y, trusted=trusted)
    >>> classifier.score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **NetworkMethod._parameter_constraints,
        "n_label_sets": [Interval(Integral, 1, None, closed="left")],
        "perturbed": [Interval(Real, 0, 1, closed="both")],
        "n_neighbours": [Interval(Integral, 1, None, closed="left")],
        "meta_learning_rate": [Interval(Real, 0, None, closed="left")],
        "consistency_weight": [Interval(Real, 0, None, closed="left")],
        "warm_up": [Interval(Real, 0, 1, closed="both")],
        "teacher_momentum": [Interval(Real, 0, 1, closed="left")],
        "n_trainings": [Interval(Integral, 1, None, closed="left")],
        "min_label_proba": [Interval(Real, 0, 1, closed="both")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_label_sets: int = 3,
        perturbed: float = 0.5,
        n_neighbours: int = 10,
        meta_learning_rate: float = 0.2,
        consistency_weight: float = 1.0,
        warm_up: float = 0.1,
        teacher_momentum: float = 0.99,
        n_trainings: int = 2,
        min_label_proba: float = 0.01,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.n_label_sets = n_label_sets
        self.perturbed = perturbed
        self.n_neighbours = n_neighbours
        self.meta_learning_rate = meta_learning_rate
        self.consistency_weight = consistency_weight
        self.warm_up = warm_up
        self.teacher_momentum = teacher_momentum
        self.n_trainings = n_trainings
        self.min_label_proba = min_label_proba
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        plain_seed, *seeds = derive_seeds(seed, 1 + self.n_trainings)
        plain = self._make_network(plain_seed)
        batch_size = plain.make_job(samples.X, samples.targets).recipe.batch_size
        if batch_size <= self.n_neighbours:
            raise InputError(
                f"n_neighbours={self.n_neighbours} other samples do not fit into a batch of "
                f"{batch_size}: make n_neighbours smaller, or the batch size larger."
            )
        features = plain.fit(samples.X, samples.targets).embed(samples.X)
        teacher = self._train(samples, features, None, seeds[0])
        for training_seed in seeds[1:]:
            mentor = teacher.predict_proba(samples.X)
            label_proba = mentor[np.arange(len(mentor)), samples.labels]
            kept = np.flatnonzero(samples.trusted | (label_proba >= self.min_label_proba))
            if len(np.unique(samples.labels[kept])) < 2:
                break  # the mentor agrees with too few labels to learn from these alone
            teacher = self._train(samples.take(kept), features[kept], mentor[kept], training_seed)
        return teacher

    def _train(
        self, samples: LabelledSamples, features: np.ndarray, mentor: np.ndarray | None, seed: int
    ) -> TorchClassifier:
        """Train a network; return its teacher."""
        network = self._make_network(seed)
        job = network.make_job(samples.X, samples.targets)
        device, dtype = job.hardware.device, job.hardware.dtype
        warm_up = round(self.warm_up * job.recipe.epochs)
        objective = NoiseTolerance(
            job.module,
            torch.tensor(features, device=device),
            None if mentor is None else torch.tensor(mentor, dtype=dtype, device=device),
            n_label_sets=self.n_label_sets,
            perturbed=self.perturbed,
            n_neighbours=self.n_neighbours,
            meta_learning_rate=self.meta_learning_rate,
            consistency_weight=self.consistency_weight,
            warm_up=min(warm_up, job.recipe.epochs - 1),
            teacher_momentum=self.teacher_momentum,
        )
        fit_objective([network], [replace(job, objective=objective)], seed)
        job.module.load_state_dict(objective.teacher.state_dict())
        return network


class NoiseTolerance(Objective):
    """The objective of one training.

    Parameters
    ----------
    network : nn.Module
        The network before its training.
    features : Tensor of shape (n_samples, n_features)
        Features, by which neighbours are found.
    mentor : Tensor of shape (n_samples, n_classes) or None
        The mentor's probabilities; None: there is no mentor.
    n_label_sets, perturbed, n_neighbours, meta_learning_rate, consistency_weight, teacher_momentum
        As in `MLNTClassifier`.
    warm_up : int
        Number of epochs that only learn the given labels, less than all; in as many after these,
        the weight of the divergence rises.
    """

    def __init__(
        self,
        network: nn.Module,
        features: Tensor,
        mentor: Tensor | None,
        *,
        n_label_sets: int,
        perturbed: float,
        n_neighbours: int,
        meta_learning_rate: float,
        consistency_weight: float,
        warm_up: int,
        teacher_momentum: float,
    ) -> None:
        self.features, self.mentor = features, mentor
        self.n_label_sets, self.perturbed = n_label_sets, perturbed
        self.n_neighbours, self.meta_learning_rate = n_neighbours, meta_learning_rate
        self.consistency_weight, self.warm_up = consistency_weight, warm_up
        self.teacher_momentum = teacher_momentum
        self.teacher = copy.deepcopy(network).requires_grad_(False)
        self.n_averaged = 0
        self.progress = -1.0  # below 0: the warm-up

    def begin_epoch(self, epoch: int) -> None:
        """Let the weight of the divergence, and that of the teacher beside a mentor, rise."""
        self.progress = min((epoch - self.warm_up) / max(1, self.warm_up), 1.0)

    def __call__(self, batch: Batch) -> tuple[Tensor, LossFn]:
        """See `Objective`; used in the warm-up."""
        return batch.view(), lambda logits: cross_entropy(logits, batch.label)

    def backward(self, batch: Batch, rate: float) -> Tensor | None:
        """See `Objective`."""
        del rate  # the step on synthetic labels has its own
        if self.progress < 0:
            return None
        self._update_teacher(batch.module)
        inputs, labels = batch.view(), batch.label.argmax(dim=1)
        target = self._target(batch, inputs)
        neighbours = nearest(self.features[batch.rows], self.n_neighbours)
        weight = self.consistency_weight * math.exp(-5 * (1 - self.progress) ** 2)
        logits = batch.logits_with_gradient(inputs)
        loss = cross_entropy(logits, labels)
        for _ in range(self.n_label_sets):
            synthetic = perturb(labels, neighbours, self.perturbed, batch.generator)
            synthetic_loss = cross_entropy(logits, synthetic)
            ahead = step_on_trial(
                batch.module, synthetic_loss, self.meta_learning_rate, create_graph=True
            )
            predicted = batch.logits_with_gradient(inputs, ahead).log_softmax(dim=1)
            divergence = kl_div(predicted, target, reduction="batchmean")
            loss = loss + weight / self.n_label_sets * divergence
        loss.backward()
        return loss

    def _target(self, batch: Batch, inputs: Tensor) -> Tensor:
        """Return the probabilities of the teacher and, in the second training, the mentor."""
        target = batch.logits(self.teacher.train(), inputs).softmax(dim=1)
        if self.mentor is None:
            return target
        return self.mentor[batch.rows].lerp(target, LARGEST_TEACHER_SHARE * self.progress)

    @torch.no_grad()
    def _update_teacher(self, module: nn.Module) -> None:
        """Add the network's weights to the average: that of all so far, then one that forgets."""
        momentum = min(self.n_averaged / (self.n_averaged + 1), self.teacher_momentum)
        pairs = zip(self.teacher.parameters(), module.parameters(), strict=True)
        for averaged, weight in pairs:
            averaged.lerp_(weight, 1 - momentum)
        self.n_averaged += 1


def nearest(features: Tensor, n_neighbours: int) -> Tensor:
    """Return the positions of the nearest other samples, by Euclidean distance.

    Parameters
    ----------
    features : Tensor of shape (n, n_features)
        Features; at least two rows.
    n_neighbours : int
        Largest number of neighbours.

    Returns
    -------
    neighbours : Tensor of shape (n, min(n_neighbours, n - 1)), int64
        Nearest first.

    Examples
    --------
    >>> import torch
    >>> from pudistill.methods.mlnt import nearest
    >>> nearest(torch.tensor([[0.0], [1.0], [3.0]]), n_neighbours=1).ravel()
    tensor([1, 0, 1])
    """
    distances = torch.cdist(features, features).fill_diagonal_(torch.inf)
    return distances.topk(min(n_neighbours, len(features) - 1), largest=False).indices


def perturb(labels: Tensor, neighbours: Tensor, share: float, generator: Generator) -> Tensor:
    """Give a share of the samples the label of one of their neighbours.

    Parameters
    ----------
    labels : Tensor of shape (n,), int64
        Class of each sample.
    neighbours : Tensor of shape (n, n_neighbours), int64
        Positions of the neighbours of each sample.
    share : float in [0, 1]
        Share of the samples.
    generator : torch.Generator
        Source of randomness, on the device of `labels`.

    Returns
    -------
    synthetic : Tensor of shape (n,), int64
        The labels; a neighbour can have the same one.
    """
    n, device = len(labels), labels.device
    changed = torch.randperm(n, generator=generator, device=device)[: int(share * n)]
    choice = torch.randint(neighbours.shape[1], changed.shape, generator=generator, device=device)
    synthetic = labels.clone()
    synthetic[changed] = labels[neighbours[changed, choice]]
    return synthetic
