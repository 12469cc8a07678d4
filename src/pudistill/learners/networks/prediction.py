"""Probabilities and embeddings of samples by a trained network."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from pudistill.data.lazy_pictures import LazyPictures, is_lazy
from pudistill.learners.networks.hardware import Hardware
from pudistill.learners.networks.normalisation import Normalisation, network_input
from pudistill.utils.threads import prefetch

# Input values in a batch of prediction: enough to keep the device busy, and few enough that the
# activations, about fifty times as large, fit into a CPU's cache or a small GPU's memory.
PREDICTION_VALUES = {"cpu": 2**18, "accelerator": 2**22}
# Number of batches that threads read ahead when samples are streamed.
N_AHEAD = 4


def predict_probabilities(
    module: nn.Module,
    inputs: np.ndarray | LazyPictures,
    normalisation: Normalisation,
    hardware: Hardware,
) -> np.ndarray:
    """Compute class probabilities in evaluation mode, without augmentation.

    Parameters
    ----------
    module : nn.Module
        A trained network on ``hardware.device``.
    inputs : ndarray of shape (n, height, width, channels) or (n, n_features)
        Raw pictures or features.
    normalisation : Normalisation
        That of the training data.
    hardware : Hardware
        Device and precision.

    Returns
    -------
    probabilities : ndarray of shape (n, n_classes), float64
        Rows sum to 1.
    """
    logits = _forward(module, module, inputs, normalisation, hardware)
    return logits.double().softmax(dim=1).numpy()


def compute_embeddings(
    module: nn.Module,
    inputs: np.ndarray | LazyPictures,
    normalisation: Normalisation,
    hardware: Hardware,
) -> np.ndarray:
    """Compute the inputs of the last linear layer in evaluation mode, without augmentation.

    Parameters are those of `predict_probabilities`.

    Returns
    -------
    embeddings : ndarray of shape (n, n_hidden), float32
        One row per sample; the logits, if the network has no linear layer, or does not use its
        last one.
    """
    last_inputs: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: last_inputs.append(inputs[0]))
        for layer in [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]
    ]

    def embed_batch(batch: Tensor) -> Tensor:
        last_inputs.clear()
        logits = module(batch)
        return (last_inputs or [logits])[-1].flatten(1)

    try:
        return _forward(module, embed_batch, inputs, normalisation, hardware).float().numpy()
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def _forward(
    module: nn.Module,
    function: Callable[[Tensor], Tensor],
    inputs: np.ndarray | LazyPictures,
    normalisation: Normalisation,
    hardware: Hardware,
) -> Tensor:
    """Put `module` in evaluation mode; apply `function` to all inputs, batch by batch."""
    module.eval()
    mean, inverse_scale = normalisation.on(hardware)
    n_values = PREDICTION_VALUES["cpu" if hardware.device.type == "cpu" else "accelerator"]
    batch_size = max(1, n_values // int(np.prod(inputs.shape[1:])))
    starts = range(0, len(inputs), batch_size)

    def load(start: int) -> np.ndarray:
        # Copied batch by batch: `inputs` can be a read-only map of a file larger than memory.
        return np.ascontiguousarray(inputs[start : start + batch_size])

    # All results are written to one array: many small arrays would lie in the gaps that freed
    # batches leave, so that later batches could not use the gaps.
    results = None
    parts = prefetch(load, starts, N_AHEAD) if is_lazy(inputs) else map(load, starts)
    for start, part in zip(starts, parts, strict=True):
        batch = torch.tensor(part, device=hardware.device)
        with hardware.autocast():
            result = function(network_input(batch, mean, inverse_scale))
        if results is None:
            results = torch.empty((len(inputs), *result.shape[1:]), dtype=result.dtype)
        results[start : start + len(part)] = result
    assert results is not None, "there are no samples"
    return results
