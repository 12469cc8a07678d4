"""Names of networks, without importing PyTorch."""

from typing import Any

PRETRAINED = "transformers:"  # prefix of the name of a network with published weights


def is_built_in(module: Any) -> bool:
    """Return whether a network is built in: such networks draw no random numbers in training."""
    return isinstance(module, str) and not module.startswith(PRETRAINED)
