"""The description of one training, which the trainer carries out."""

from dataclasses import dataclass, field

import numpy as np
from torch import nn

from pudistill.data.lazy_pictures import LazyPictures
from pudistill.learners.networks.cross_entropy import CrossEntropy
from pudistill.learners.networks.hardware import Hardware
from pudistill.learners.networks.normalisation import Normalisation
from pudistill.learners.networks.objectives import Objective
from pudistill.learners.networks.prediction import compute_embeddings, predict_probabilities
from pudistill.learners.networks.recipes import Recipe


@dataclass(frozen=True)
class Job:
    """One network to be trained, its data and its settings.

    Parameters
    ----------
    module : nn.Module
        A network on ``hardware.device``, which is trained in place.
    inputs : ndarray or LazyPictures of shape (n, height, width, channels), or (n, n_features), \
            or tokens, int32 of shape (n, n_tokens)
        Raw pictures, features or texts.
    targets : ndarray of shape (n, n_classes)
        Target probabilities, or other targets that `objective` accepts.
    normalisation : Normalisation
        Applied to every batch after the augmentation.
    recipe : Recipe
        How to train.
    hardware : Hardware
        Device and precision.
    rng : RandomState
        Source of all randomness except the network's own (dropout).
    weights : ndarray of shape (n,), default=None
        Sample weights with the mean 1; None: all are 1.
    objective : Objective, default=CrossEntropy()
        The loss.
    balanced : bool, default=False
        Whether each epoch is a balanced bootstrap by the most likely class of the targets.
    seed : int, default=0
        Seed of the network's own randomness while it trains (dropout).
    """

    module: nn.Module
    inputs: np.ndarray | LazyPictures
    targets: np.ndarray
    normalisation: Normalisation
    recipe: Recipe
    hardware: Hardware
    rng: np.random.RandomState
    weights: np.ndarray | None = None
    objective: Objective = field(default_factory=CrossEntropy)
    balanced: bool = False
    seed: int = 0

    def predict(self) -> np.ndarray:
        """Return the network's current class probabilities for the samples, (n, n_classes)."""
        return predict_probabilities(self.module, self.inputs, self.normalisation, self.hardware)

    def embed(self) -> np.ndarray:
        """Return the current inputs of the network's last linear layer, (n, n_hidden)."""
        return compute_embeddings(self.module, self.inputs, self.normalisation, self.hardware)

    def can_stack_with(self, other: "Job") -> bool:
        """Return whether both can train as one stack: in the same steps and batch sizes."""
        return (
            self._stack_key == other._stack_key
            and not (self.balanced or other.balanced)
            and not (self.recipe.trusted_share or self.recipe.has_transforms)
            # The posterior of that term is that of the network alone.
            and not self.recipe.consistency_weight
        )

    @property
    def _stack_key(self) -> tuple:
        """Everything that networks of one stack must have in common."""
        weights = [(name, value.shape) for name, value in self.module.state_dict().items()]
        shapes = (self.inputs.shape, self.targets.shape)
        return (type(self.module), weights, shapes, self.recipe, self.hardware, self.objective)
