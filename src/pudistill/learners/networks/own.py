"""Networks of the user's own: how they are built, and what they must return."""

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pudistill.exceptions import InputError
from pudistill.learners.networks.names import NAMES_OF_SIZES, import_path

SIGNATURE = (
    "Net(in_shape, n_classes), where in_shape is (channels, height, width) for pictures and "
    "(n_features,) for tables"
)


def build_own(module: Any, in_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Build a network of the user's own.

    Parameters
    ----------
    module : nn.Module or callable
        A network, which is copied with its weights; or a class or function that makes one. It is
        called with those of `in_shape` and `n_classes` (or `num_classes`) that its signature names;
        otherwise with both by position, or, if it takes only keywords, as torchvision's functions
        do, with `num_classes`.
    in_shape : tuple of int
        ``(channels, height, width)`` or ``(n_features,)``.
    n_classes : int
        Number of logits.

    Returns
    -------
    network : nn.Module
        On the CPU, in single precision.

    Raises
    ------
    InputError
        If the callable has another signature, fails or returns something else.

    Examples
    --------
    >>> from torch import nn
    >>> from pudistill.learners.networks.own import build_own
    >>> build_own(lambda num_classes: nn.Linear(4, num_classes), (4,), 3)
    Linear(in_features=4, out_features=3, bias=True)
    """
    name = name_of(module)
    if isinstance(module, nn.Module):
        try:
            return copy.deepcopy(module).cpu().float()
        except Exception as error:  # of any kind, as layers can forbid it
            raise InputError(
                f"{name} cannot be copied ({reason_of(error)}): pass a function that makes it, of "
                f"the form {SIGNATURE}, with its weights on the CPU."
            ) from error
    try:
        bound = _bind(module, in_shape, n_classes)
    except TypeError as error:
        raise InputError(
            f"{name} cannot be called ({error}): make it a class or function of the form "
            f"{SIGNATURE}."
        ) from error
    try:
        network = bound()
        if isinstance(network, nn.Module):
            network = network.cpu().float()
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # the user's code can raise anything
        raise InputError(
            f"{name} failed for in_shape={in_shape} and n_classes={n_classes} "
            f"({reason_of(error)}): correct it; it is called as {SIGNATURE}."
        ) from error
    if not isinstance(network, nn.Module):
        raise InputError(
            f"{name} returned {type(network).__name__}, but {SIGNATURE}, must return a torch.nn."
            "Module."
        )
    return network


def _bind(module: Callable, in_shape: tuple[int, ...], n_classes: int) -> Callable[[], Any]:
    """Return the call of a factory; raise a TypeError if its signature does not allow it."""
    try:
        signature = inspect.signature(module)
    except ValueError:  # compiled code has none
        return lambda: module(in_shape, n_classes)
    sizes = dict(zip(NAMES_OF_SIZES, (in_shape, n_classes, n_classes), strict=True))
    named = {name: sizes[name] for name in sizes if name in signature.parameters}
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    takes_keywords = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    if not named and kinds and kinds <= takes_keywords:
        named = {"num_classes": n_classes}
    ignores_one = any(name.startswith("_") for name in signature.parameters)
    if (named and not ignores_one) or not kinds:
        signature.bind(**named)
        return partial(module, **named)
    signature.bind(in_shape, n_classes)
    return partial(module, in_shape, n_classes)


def name_of(module: Any) -> str:
    """Return the name of a network or of its factory, for messages."""
    return import_path(module) or type(module).__name__


def check_own(network: nn.Module, in_shape: tuple[int, ...], n_classes: int) -> None:
    """Try a network on two samples, before a long run is spent on it.

    Parameters
    ----------
    network : nn.Module
        On the CPU. Its lazy layers take their sizes from these samples.
    in_shape : tuple of int
        Shape of a sample.
    n_classes : int
        Number of logits.

    Raises
    ------
    InputError
        If it has nothing to train, fails, or returns anything but logits of shape (2, n_classes).
    """
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise InputError(
            f"The network {type(network).__name__} has no parameters that can be trained: give it "
            "layers with weights, and do not freeze all of them."
        )
    if any(getattr(layer, "sparse", False) is True for layer in network.modules()):
        raise InputError(
            f"The network {type(network).__name__} has an embedding with sparse gradients, which "
            "the optimiser cannot use: make it with sparse=False."
        )
    batch = torch.zeros(2, *in_shape)
    network.eval()
    with naming_failures(network, batch):
        logits = check_logits(network(batch), (2, n_classes))
    if logits.ndim != 2:
        raise _wrong_shape(logits, (2, n_classes))
    if not logits.requires_grad:
        raise InputError(
            f"The logits of the network {type(network).__name__} do not depend on its parameters: "
            "leave out detach() and torch.no_grad() in its forward()."
        )
    unused = [name for name, weight in network.named_parameters() if is_lazy(weight)]
    if unused:
        raise InputError(
            f"The forward() of {type(network).__name__} never uses the layer of {unused[0]}, whose "
            "size is open: remove the layer, or give it its size."
        )
    if len(in_shape) == 3:
        _choose_layout(network, in_shape)


def _choose_layout(network: nn.Module, in_shape: tuple[int, ...]) -> None:
    """Let a network read contiguous pictures if it cannot read channels_last, the faster layout.

    ``x.view(len(x), -1)`` behind a convolution is the usual reason.
    """
    n_channels, *sides = in_shape
    try:
        trial = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad():
            trial(torch.zeros(2, *sides, n_channels).permute(0, 3, 1, 2))
    except Exception:  # the user's code can raise anything
        network.register_forward_pre_hook(_make_contiguous)


def _make_contiguous(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    # `contiguous()` leaves the strides of channels_last where there is only one channel.
    return tuple(part.clone(memory_format=torch.contiguous_format) for part in inputs)


def needs_contiguous(network: nn.Module) -> bool:
    """Return whether a network that `check_own` tried cannot read pictures in channels_last."""
    return _make_contiguous in network._forward_pre_hooks.values()


def check_logits(logits: Any, expected: tuple[int, int]) -> Tensor:
    """Return the logits; raise `InputError` unless there is one for each sample and class."""
    if not isinstance(logits, Tensor):
        raise InputError(
            f"The network returns a {type(logits).__name__} for a batch: it must return one tensor "
            f"of logits, of shape (n, n_classes), here {expected}."
        )
    if logits.shape[-2:] != expected:
        raise _wrong_shape(logits, expected)
    return logits


def _wrong_shape(logits: Tensor, expected: tuple[int, int]) -> InputError:
    return InputError(
        f"The module returns the shape {tuple(logits.shape)} for a batch: it must return "
        f"logits of shape (n, n_classes), here {expected}."
    )


@contextmanager
def naming_failures(network: nn.Module, batch: Tensor) -> Iterator[None]:
    """Raise an error of a network as an `InputError` that says what it was given."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the user's code can raise anything
        shape = tuple(batch.shape)
        remedy = "change the network"
        if isinstance(error, torch.OutOfMemoryError):
            remedy = "lower batch_size, or use a smaller network"
        elif not isinstance(error, RuntimeError):  # as PyTorch's own errors of shapes are
            remedy = "correct its forward()"
        elif len(batch) == 1:
            remedy = "pass more samples, or raise batch_size"
        elif batch.ndim == 4:
            remedy = (
                "resize the pictures (image_size of load_dataset, --image-size) to the size that "
                "it needs, or change it"
            )
        raise InputError(
            f"The network {type(network).__name__} cannot compute a batch of the shape {shape} "
            f"({reason_of(error)}): {remedy}."
        ) from error


def reason_of(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class."""
    return (str(error).strip() or type(error).__name__).split("\n")[0]
