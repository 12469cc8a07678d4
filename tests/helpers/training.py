"""What a network is trained with: one batch for an objective, randomness, a small network."""

import numpy as np
import torch
from torch import nn

from pudistill.learners.networks.hardware import choose_hardware
from pudistill.learners.networks.objectives import Batch
from pudistill.learners.networks.recipes import Recipe

PLAIN = Recipe(epochs=2, learning_rate=0.1, batch_size=4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_of(labels, x=None, *, n_classes=3, recipe=PLAIN, network=None):
    """A batch of labels, which may be rows of targets; samples are zeros where none are given."""
    labels = torch.as_tensor(labels)
    targets = labels if labels.ndim == 2 else torch.eye(n_classes, dtype=torch.float64)[labels]
    n = len(targets)
    x = torch.zeros(n, 2, dtype=torch.float64) if x is None else x
    return Batch(
        torch.arange(n),
        x,
        targets,
        torch.ones(n, dtype=torch.float64),
        recipe,
        torch.zeros(x.shape[1], dtype=torch.float64),
        torch.ones(x.shape[1], dtype=torch.float64),
        choose_hardware("cpu", "fp32", is_table=True),
        generator(),
        np.random.RandomState(0),
        nn.Identity() if network is None else network,
    )


def dropout_network(in_shape, n_classes):
    n_inputs = int(np.prod(in_shape))
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(n_inputs, n_classes))
