"""Names of networks, without importing PyTorch."""

from typing import Any

PRETRAINED = "transformers:"  # prefix of the name of a network with published weights
# Parameters by which a function of the user's asks for the sizes of its network; the last is
# torchvision's name.
NAMES_OF_SIZES = ("in_shape", "n_classes", "num_classes")


def is_built_in(module: Any) -> bool:
    """Return whether a network is built in: such networks draw no random numbers in training."""
    return isinstance(module, str) and not module.startswith(PRETRAINED)


def import_path(network: Any) -> str | None:
    """Return ``package.module:name`` of a callable, or of the class of a network.

    None if it has no such name, as a lambda has none.
    """
    network = getattr(network, "func", network)  # of a functools.partial
    named = network if hasattr(network, "__qualname__") else type(network)
    name, module = named.__qualname__, getattr(named, "__module__", None)
    return None if "<" in name or module is None else f"{module}:{name}"


_own_networks: dict[str, Any] = {}


def remember_own(module: Any) -> None:
    """Remember the user's network or factory, so that finished stages can be read again.

    A file may choose only among the networks that the user has passed in this process.
    """
    path = None if isinstance(module, str) or module is None else import_path(module)
    if path is not None:
        _own_networks[path] = module


def remembered_own(path: str) -> Any:
    """Return the network or factory of that import path, or None."""
    return _own_networks.get(path)
