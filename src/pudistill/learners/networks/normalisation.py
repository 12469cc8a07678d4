"""Mean and scale of the training data, and the normalised inputs of networks."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pudistill.data.lazy_pictures import LazyPictures
from pudistill.learners.networks.hardware import Hardware


def network_input(batch: Tensor, mean: Tensor, inverse_scale: Tensor) -> Tensor:
    """Normalise a batch; return pictures as ``(n, channels, height, width)`` in channels_last.

    Tokens of texts, which are whole numbers, stay as they are.
    """
    if batch.ndim == 2 and not batch.is_floating_point():
        return batch
    dtype = inverse_scale.dtype
    if batch.dtype == torch.float64:  # features that vary little beside their mean
        normalised = (batch - mean).to(dtype) * inverse_scale
    else:
        normalised = (batch.to(dtype) - mean.to(dtype)) * inverse_scale
    return normalised.permute(0, 3, 1, 2) if normalised.ndim == 4 else normalised


# Number of input values that are averaged at once.
MEASURED_VALUES = 2**20


@dataclass(frozen=True, eq=False)
class Normalisation:
    """Mean and scale of every input channel, or every feature, of the training data.

    Parameters
    ----------
    mean, scale : ndarray of shape (n_channels,) or (n_features,), float64
        Inputs are mapped to ``(input - mean) / scale``.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, inputs: np.ndarray | LazyPictures, weights: np.ndarray) -> "Normalisation":
        """Compute the weighted mean and standard deviation of `inputs`, channels last.

        Parameters
        ----------
        inputs : ndarray of shape (n, height, width, n_channels) or (n, n_features)
            Training data.
        weights : ndarray of shape (n,)
            Positive weights.
        """
        n_channels = inputs.shape[-1]
        share = weights / weights.sum()
        # In small blocks: pictures take eight times as much memory as float64 than as bytes.
        at_once = max(1, MEASURED_VALUES // math.prod(inputs.shape[1:]))

        def average(power: int, centre: np.ndarray | float) -> np.ndarray:
            total = np.zeros(n_channels)
            for start in range(0, len(inputs), 1024):
                end = min(start + 1024, len(inputs))
                means = []
                for first in range(start, end, at_once):
                    block = np.asarray(inputs[first : min(first + at_once, end)])
                    values = block.reshape(len(block), -1, n_channels) - centre
                    means.append((values**power).mean(axis=1, dtype=np.float64))
                total += share[start:end] @ np.concatenate(means)
            return total

        mean = average(1, centre=0.0)
        scale = np.sqrt(average(2, centre=mean))
        # A constant carries no information; the threshold is the rounding error of its mean.
        constant = scale <= 1e-12 * np.maximum(1, np.abs(mean))
        return cls(mean, np.where(constant, 1.0, scale))

    def on(self, hardware: Hardware) -> tuple[Tensor, Tensor]:
        """Return mean, in double precision where the device has it, and 1 / scale as tensors."""
        dtype = torch.float32 if hardware.device.type == "mps" else torch.float64
        mean = torch.as_tensor(self.mean, dtype=dtype, device=hardware.device)
        scale = torch.as_tensor(self.scale, dtype=hardware.dtype, device=hardware.device)
        return mean, scale.reciprocal()
