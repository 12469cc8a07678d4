"""L_DMI: the determinant of a joint distribution, which noise only scales (reference [12])."""

from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor

from pudistill.learners.networks.fitting import fit_objective
from pudistill.learners.networks.objectives import Batch, LossFn, Objective
from pudistill.methods.base import (
    LabelledSamples,
    NetworkMethod,
    constant_rate_recipe,
    derive_seeds,
)

RIDGE = 0.01  # relative to the mean share of a class, 1 / C


class LDMIClassifier(NetworkMethod):
    """Train with cross-entropy, then with minus the log-determinant of predictions and labels.

    The loss is `-log |det U|`, where `U[c, j]` is the joint distribution of prediction and given
    label in a batch. Noise that depends only on the class multiplies the determinant by that of the
    transition matrix, so the best classifier is the same with noise and without.

    Three things differ from the authors' training. The loss cannot correct a network that has
    memorised wrong labels, so the first training is short; the authors take the epoch that is best
    on validation data. A batch of 128 is too small to estimate the 100 entries of `U` for ten
    classes, so batches of the second training are larger. A small ridge, `r = 0.01 / C`, keeps the
    matrix regular if a class is missing or predictions hardly differ; the authors add 0.001 to the
    determinant. The second training has the recipe's epochs.

    Parameters
    ----------
    estimator : TorchClassifier, default=None
        The network and its recipe; ``None``: one that fits the data.
    warm_up : float in (0, 1], default=0.2
        Epochs of the first training, as a share of the recipe's.
    learning_rate_share : float, default=0.03
        Learning rate of the second training, constant, as a share of the recipe's largest rate.
    batch_size : int, default=1024
        Largest number of samples in a step of the second training.
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
    Y. Xu, P. Cao, Y. Kong, Y. Wang, "L_DMI: A Novel Information-theoretic Loss Function for
    Training Deep Nets Robust to Label Noise", NeurIPS 2019; equations 4 and 6, theorem 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import LDMIClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> LDMIClassifier(random_state=0).fit(X, y, trusted=trusted).score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        **NetworkMethod._parameter_constraints,
        "warm_up": [Interval(Real, 0, 1, closed="right")],
        "learning_rate_share": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "use_trusted": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        warm_up: float = 0.2,
        learning_rate_share: float = 0.03,
        batch_size: int = 1024,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.warm_up = warm_up
        self.learning_rate_share = learning_rate_share
        self.batch_size = batch_size
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        first_seed, second_seed = derive_seeds(seed, 2)
        network = self._make_network(first_seed)
        job = network.make_job(samples.X, samples.targets)
        epochs = max(1, round(self.warm_up * job.recipe.epochs))
        fit_objective([network], [replace(job, recipe=job.recipe.with_epochs(epochs))], first_seed)
        share, rate = self.learning_rate_share, network.learning_rate
        recipe = constant_rate_recipe(
            network,
            samples.X,
            batch_size=self.batch_size,
            epochs=job.recipe.epochs,
            min_steps=0,
        )
        # Continue from the weights of the first training. `make_job` applies what else scales the
        # learning rate.
        network.set_params(
            recipe=replace(recipe, learning_rate=share * recipe.learning_rate),
            learning_rate=None if rate is None else share * rate,
            batch_size=None,
            epochs=None,
            random_state=second_seed,
            warm_start=True,
        )
        job = network.make_job(samples.X, samples.targets)
        fit_objective([network], [replace(job, objective=Determinant())], second_seed)
        return network


class Determinant(Objective):
    """The objective of the second training."""

    def __call__(self, batch: Batch) -> tuple[Tensor, LossFn]:
        """See `Objective`."""
        return batch.view(), lambda logits: determinant_loss(logits, batch.label)


def determinant_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute `-log |det (U + r I)|` of a batch.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
        Logits of the network.
    targets : Tensor of shape (n, n_classes)
        One-hot given labels.

    Returns
    -------
    loss : Tensor of shape ()
        The loss of the batch.
    """
    joint = logits.softmax(dim=1).T @ targets / len(targets)
    ridge = RIDGE / len(joint) * torch.eye(len(joint), dtype=joint.dtype, device=joint.device)
    return -torch.linalg.slogdet(joint + ridge).logabsdet
