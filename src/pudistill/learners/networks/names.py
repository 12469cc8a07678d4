"""Names of networks, without importing PyTorch."""

from typing import Any

PRETRAINED = "transformers:"  # prefix of the name of a network with published weights


def is_built_in(module: Any) -> bool:
    """Whether a network is one of the package's, which draw no random numbers while they train."""
    return isinstance(module, str) and not module.startswith(PRETRAINED)
