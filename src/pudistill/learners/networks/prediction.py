"""Probabilities and embeddings of samples by a trained network."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pudistill.data.lazy_pictures import LazyPictures, is_lazy
from pudistill.learners.networks.hardware import Hardware
from pudistill.learners.networks.input_checks import are_tokens
from pudistill.learners.networks.normalisation import Normalisation, network_input
from pudistill.utils.threads import prefetch

# Input values in a batch of prediction: enough to keep the device busy, and few enough that the
# activations, about fifty times as large, fit into a CPU's cache or a small GPU's memory.
PREDICTION_VALUES = {"cpu": 2**18, "accelerator": 2**22}
TOKEN_VALUES = 512  # that a token of a text counts as
# Number of batches that threads read ahead when samples are streamed.
N_AHEAD = 4


def prediction_values(device: torch.device) -> int:
    """Return the number of input values in a batch of prediction."""
    return PREDICTION_VALUES["cpu" if device.type == "cpu" else "accelerator"]


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
    return compute_logits(module, inputs, normalisation, hardware).softmax(dim=1).numpy()


def compute_logits(
    module: nn.Module,
    inputs: np.ndarray | LazyPictures,
    normalisation: Normalisation,
    hardware: Hardware,
) -> Tensor:
    """Compute logits in evaluation mode, without augmentation.

    Parameters are those of `predict_probabilities`.

    Returns
    -------
    logits : Tensor of shape (n, n_classes), float64
        On the CPU.
    """
    return _forward(module, module, inputs, normalisation, hardware).double()


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
    with last_layer_inputs(module) as last_inputs:

        def embed_batch(batch: Tensor) -> Tensor:
            last_inputs.clear()
            logits = module(batch)
            return (last_inputs or [logits])[-1].flatten(1)

        return _forward(module, embed_batch, inputs, normalisation, hardware).float().numpy()


@contextmanager
def last_layer_inputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the inputs of a network's last linear layer whenever it computes.

    Parameters
    ----------
    module : nn.Module
        A network. If it has no linear layer, or does not use its last one, the list stays empty.

    Yields
    ------
    inputs : list of Tensor
        Grows with each forward pass.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.networks.prediction import last_layer_inputs
    >>> network = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(2, 3))
    >>> with last_layer_inputs(network) as inputs:
    ...     logits = network(torch.tensor([[-1.0, 2.0]]))
    >>> inputs
    [tensor([[0., 2.]])]
    """
    collected: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: collected.append(inputs[0]))
        for layer in [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]
    ]
    try:
        yield collected
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()  # not inference_mode: a network may keep a tensor for its next training
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
    batches = _batches(inputs, prediction_values(hardware.device))

    def load(rows: slice | np.ndarray) -> np.ndarray:
        # Copied batch by batch: `inputs` can be a read-only map of a file larger than memory.
        return np.ascontiguousarray(inputs[rows])

    # All results are written to one array: many small arrays would lie in the gaps that freed
    # batches leave, so that later batches could not use the gaps.
    results = None
    parts = prefetch(load, batches, N_AHEAD) if is_lazy(inputs) else map(load, batches)
    for rows, part in zip(batches, parts, strict=True):
        batch = torch.tensor(part, device=hardware.device)
        with hardware.autocast():
            result = function(network_input(batch, mean, inverse_scale))
        if results is None:
            results = torch.empty((len(inputs), *result.shape[1:]), dtype=result.dtype)
        results[rows] = result.to(results.device)
    assert results is not None, "there are no samples"
    return results


def _batches(inputs: np.ndarray | LazyPictures, n_values: int) -> list[Any]:
    """Return the rows of each batch: slices, or for tokens texts of about the same length."""
    if not are_tokens(inputs):
        size = max(1, n_values // int(np.prod(inputs.shape[1:])))
        return [slice(start, start + size) for start in range(0, len(inputs), size)]
    lengths = (np.asarray(inputs) >= 0).sum(axis=1)
    return list(
        batches_by_length(lengths, lambda length: max(1, n_values // (TOKEN_VALUES * length)))
    )


def batches_by_length(
    lengths: np.ndarray, batch_size: Callable[[int], int], shortest: int | None = None
) -> Iterator[np.ndarray]:
    """Yield the rows of each batch of texts of about the same length, which need little padding.

    Parameters
    ----------
    lengths : ndarray of shape (n_texts,), int
        Number of tokens of each text.
    batch_size : callable
        Maps a length to the number of texts of that length in a batch.
    shortest : int or None, default=None
        At most the length of any text. It says how many texts could be in a batch, of which the
        longest limits its size; None: the first text of the batch says that.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.learners.networks.prediction import batches_by_length
    >>> [rows.tolist() for rows in batches_by_length(np.array([9, 1, 2, 1]), lambda n: 8 // n or 1)]
    [[1], [3], [2], [0]]
    """
    by_length = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(lengths):
        first = int(lengths[by_length[start]]) if shortest is None else shortest
        last = by_length[min(start + batch_size(first), len(lengths)) - 1]
        size = batch_size(int(lengths[last]))
        yield by_length[start : start + size]
        start += size
