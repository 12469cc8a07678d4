"""Networks of one architecture that compute together."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap


class SingleNetwork:
    """One network with the interface of a `Stack`."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def parameters(self) -> Iterable[Tensor]:
        """Return the weights."""
        return self.module.parameters()

    def __call__(self, batches: Sequence[Tensor]) -> list[Tensor]:
        """Return the network's logits for the only batch."""
        return [self.module(batches[0])]

    def write_back(self) -> None:
        """Do nothing: the network is trained in place."""


class Stack:
    """Networks of one architecture that compute together: their weights have a first dimension.

    Parameters
    ----------
    modules : sequence of nn.Module
        The networks, all in training or all in evaluation mode.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = modules
        self.weights, self.buffers = stack_module_state(list(modules))
        self._forward_all = vmap(self._forward, randomness="different")

    def parameters(self) -> Iterable[Tensor]:
        """Return all weights, stacked."""
        return self.weights.values()

    def __call__(self, batches: Sequence[Tensor]) -> list[Tensor]:
        """Return each network's logits for its batch; all batches have one shape."""
        stacked = torch.stack(list(batches))
        return list(self._forward_all(self.weights, self.buffers, stacked).unbind())

    def _forward(self, weights: dict, buffers: dict, batch: Tensor) -> Tensor:
        return functional_call(self.modules[0], (weights, buffers), (batch,))

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the stacked weights and buffers to the networks."""
        stacked = self.weights | self.buffers
        for number, module in enumerate(self.modules):
            for name, value in module.state_dict(keep_vars=True).items():
                value.copy_(stacked[name][number])
