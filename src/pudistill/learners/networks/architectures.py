"""Network architectures: the paper's, two for a CPU, a fast one for a GPU, one for tables.

Every factory is called as ``factory(in_shape, n_classes)``, where `in_shape` is
``(channels, height, width)`` for pictures and ``(n_features,)`` for feature tables, and returns a
module that maps a batch to logits of shape ``(n, n_classes)``.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise, starmap
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, max_pool2d, relu

from pudistill.exceptions import InputError
from pudistill.learners.networks.names import PRETRAINED
from pudistill.learners.networks.own import build_own
from pudistill.learners.networks.pretrained import Pretrained
from pudistill.learners.networks.texts import PretrainedText

NetworkFactory = Callable[[tuple[int, ...], int], nn.Module]


def _convolution(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1
) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        bias=False,  # the batch normalisation that follows has a bias
    )


def _initialise(network: nn.Module) -> nn.Module:
    """Initialise weights by He's method for ReLU, and biases with zero; return the network."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


def _with_identities(network: "Airbench") -> nn.Module:
    """Let the first filters of each convolution hand their inputs on; return the network.

    Measured with `slim_airbench` after four epochs of CIFAR-10: 82.6 % right, and 81.0 % with He's
    method.
    """
    for layer in network.groups.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.dirac_(layer.weight.data[: layer.in_channels])
    return network


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after batch normalisation and ReLU, and a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = _convolution(in_channels, out_channels, stride=stride)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.conv2 = _convolution(out_channels, out_channels)
        changes_shape = stride != 1 or in_channels != out_channels
        self.shortcut = (
            _convolution(in_channels, out_channels, kernel_size=1, stride=stride)
            if changes_shape
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, in_channels, H, W)`` to ``(n, out_channels, H / stride, W / stride)``."""
        activated = relu(self.norm1(x))
        # If the shape changes, the shortcut starts after the activation, as in the original.
        skipped = x if self.shortcut is None else self.shortcut(activated)
        return skipped + self.conv2(relu(self.norm2(self.conv1(activated))))


class PreActResNet18(nn.Module):
    """Pre-activation ResNet-18 for small pictures; see :func:`preact_resnet18`."""

    def __init__(self, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self.stem = _convolution(in_channels, 64)
        self.blocks = nn.Sequential(
            PreActBlock(64, 64, stride=1),
            PreActBlock(64, 64, stride=1),
            PreActBlock(64, 128, stride=2),
            PreActBlock(128, 128, stride=1),
            PreActBlock(128, 256, stride=2),
            PreActBlock(256, 256, stride=1),
            PreActBlock(256, 512, stride=2),
            PreActBlock(512, 512, stride=1),
        )
        self.norm = nn.BatchNorm2d(512)
        self.classifier = nn.Linear(512, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures ``(n, channels, H, W)`` to logits ``(n, n_classes)``."""
        x = relu(self.norm(self.blocks(self.stem(x))))
        return self.classifier(x.mean(dim=(2, 3)))


def preact_resnet18(in_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Build the paper's network for CIFAR-10: a pre-activation ResNet-18 [1]_.

    A 3x3 stem without pooling, four stages of two blocks with 64, 128, 256 and 512 channels, a last
    batch normalisation and ReLU, the average over all positions, one linear layer. With 3x32x32
    inputs and 10 classes it has 11,172,170 trained parameters: scale and shift of every batch
    normalisation are counted, its running statistics are not.

    Parameters
    ----------
    in_shape : tuple of int
        ``(channels, height, width)``.
    n_classes : int
        Number of logits.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren, J. Sun, "Identity Mappings in Deep Residual Networks", 2016.

    Examples
    --------
    >>> from pudistill.learners.networks.architectures import preact_resnet18
    >>> sum(p.numel() for p in preact_resnet18((3, 32, 32), n_classes=10).parameters())
    11172170
    """
    return _initialise(PreActResNet18(_channels(in_shape, "preact_resnet18"), n_classes))


class SmallCNN(nn.Module):
    """Four 3x3 convolutions with batch normalisation and ReLU; see :func:`small_cnn`."""

    WIDTHS = (16, 32, 64, 128)

    def __init__(self, in_channels: int, n_classes: int) -> None:
        super().__init__()
        channels = (in_channels, *self.WIDTHS)
        self.stages = nn.ModuleList(
            nn.Sequential(
                _convolution(channels[i], channels[i + 1]),
                nn.BatchNorm2d(channels[i + 1]),
                nn.ReLU(inplace=True),
            )
            for i in range(len(self.WIDTHS))
        )
        self.classifier = nn.Linear(self.WIDTHS[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures ``(n, channels, H, W)`` to logits ``(n, n_classes)``."""
        for number, stage in enumerate(self.stages):
            # Tiny pictures are not halved below 2x2: in a small batch, batch normalisation would
            # have too few values for its statistics.
            if number > 0 and min(x.shape[2:]) >= 4:
                x = max_pool2d(x, 2)
            x = stage(x)
        return self.classifier(x.mean(dim=(2, 3)))


def small_cnn(in_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Build a network that one CPU core trains in minutes.

    Four 3x3 convolutions with 16, 32, 64 and 128 channels, each with batch normalisation and ReLU
    and, except the first, after 2x2 pooling; the average over all positions; one linear layer.
    About 100,000 parameters; pictures of any size from 2x2, grey or colour.

    Parameters
    ----------
    in_shape : tuple of int
        ``(channels, height, width)``.
    n_classes : int
        Number of logits.

    Examples
    --------
    >>> from pudistill.learners.networks.architectures import small_cnn
    >>> sum(p.numel() for p in small_cnn((1, 28, 28), n_classes=10).parameters())
    98682
    """
    return _initialise(SmallCNN(_channels(in_shape, "small_cnn"), n_classes))


class AirbenchGroup(nn.Module):
    """A 3x3 convolution, pooling and another one, each with batch normalisation and GELU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, out_channels)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = _convolution(out_channels, out_channels)
        self.norm2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, in_channels, H, W)`` to ``(n, out_channels, H / 2, W / 2)``."""
        x = self.conv1(x)
        if min(x.shape[2:]) >= 4:  # as in SmallCNN
            x = max_pool2d(x, 2)
        x = gelu(self.norm1(x))
        return gelu(self.norm2(self.conv2(x)))


class Airbench(nn.Module):
    """Three groups of two convolutions; see :func:`airbench` and :func:`slim_airbench`.

    Parameters
    ----------
    first : Conv2d
        The first convolution.
    widths : sequence of int
        Channels of each group.
    n_classes : int
        Number of logits.
    """

    SCALE = 1 / 9  # of the logits, which are sums of maxima and would be too large

    def __init__(self, first: nn.Conv2d, widths: Sequence[int], n_classes: int) -> None:
        super().__init__()
        self.first = first
        channels = pairwise((first.out_channels, *widths))
        self.groups = nn.Sequential(*starmap(AirbenchGroup, channels))
        self.classifier = nn.Linear(widths[-1], n_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures ``(n, channels, H, W)`` to logits ``(n, n_classes)``."""
        x = self.groups(gelu(self.first(x)))
        return self.classifier(x.amax(dim=(2, 3))) * self.SCALE


def airbench(in_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Build a network like airbench94 [1]_, which trains fast on a GPU.

    A 2x2 convolution with 24 channels (learned, where airbench94 has a fixed whitening) and three
    groups of two 3x3 convolutions with 64, 256 and 256 channels, each group pooling once; the
    maximum over all positions; one linear layer. About 2,000,000 parameters.

    Parameters
    ----------
    in_shape : tuple of int
        ``(channels, height, width)``.
    n_classes : int
        Number of logits.

    References
    ----------
    .. [1] K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024.

    Examples
    --------
    >>> from pudistill.learners.networks.architectures import airbench
    >>> sum(p.numel() for p in airbench((3, 32, 32), n_classes=10).parameters())
    1972792
    """
    first = nn.Conv2d(_channels(in_shape, "airbench"), 24, kernel_size=2)
    return _with_identities(Airbench(first, (64, 256, 256), n_classes))


def slim_airbench(in_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Build a network like :func:`airbench` that one CPU core trains on CIFAR-10 in ten minutes.

    The first convolution is 4x4 with stride 2 and 32 channels, so that the groups, of 64, 128 and
    256 channels, work at half the side of the pictures and below: a training step takes an eighth
    of the time of `airbench`. About 1,200,000 parameters; pictures of any size from 2x2. The recipe
    ``"slim"`` is made for it.

    Parameters
    ----------
    in_shape : tuple of int
        ``(channels, height, width)``.
    n_classes : int
        Number of logits.

    Examples
    --------
    >>> from pudistill.learners.networks.architectures import slim_airbench
    >>> sum(p.numel() for p in slim_airbench((3, 32, 32), n_classes=10).parameters())
    1167136
    """
    channels = _channels(in_shape, "slim_airbench")
    first = nn.Conv2d(channels, 32, kernel_size=4, stride=2, padding=1)
    return _with_identities(Airbench(first, (64, 128, 256), n_classes))


def mlp(in_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Build a network with two hidden layers of 128 values each, for feature tables.

    It has neither batch normalisation nor dropout, so that a sample's part of the loss does not
    depend on the rest of its batch, and a weight of 2 means the same as two copies. Its last
    layer starts at zero: before training, all classes are equally likely.

    Parameters
    ----------
    in_shape : tuple of int
        ``(n_features,)``; pictures are flattened.
    n_classes : int
        Number of logits.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.networks.architectures import mlp
    >>> mlp((4,), n_classes=3)(torch.ones(2, 4)).shape
    torch.Size([2, 3])
    """
    n_hidden = 128
    n_inputs = int(torch.Size(in_shape).numel())
    last = nn.Linear(n_hidden, n_classes)
    network = _initialise(
        nn.Sequential(
            nn.Flatten(),
            nn.Linear(n_inputs, n_hidden),
            nn.ReLU(),
            nn.Linear(n_hidden, n_hidden),
            nn.ReLU(),
            last,
        )
    )
    nn.init.zeros_(last.weight)
    return network


def _channels(in_shape: tuple[int, ...], network: str) -> int:
    if len(in_shape) != 3:
        raise InputError(
            f"{network} needs pictures, but the samples have the shape {in_shape}: "
            'use module="mlp" for feature tables.'
        )
    return in_shape[0]


NETWORKS: Mapping[str, NetworkFactory] = MappingProxyType(
    {
        "small_cnn": small_cnn,
        "slim_airbench": slim_airbench,
        "airbench": airbench,
        "preact_resnet18": preact_resnet18,
        "mlp": mlp,
    }
)


def find_factory(module: str | NetworkFactory, in_shape: tuple[int, ...]) -> NetworkFactory:
    """Return the factory of a network.

    Parameters
    ----------
    module : str or callable
        As `module` of `TorchClassifier`.
    in_shape : tuple of int
        ``(channels, height, width)``, ``(n_features,)``, or ``()`` for texts.

    Returns
    -------
    factory : callable
        Takes `in_shape` and the number of classes, returns the network.

    Raises
    ------
    InputError
        If no network has this name.
    """
    if callable(module):
        return partial(build_own, module)
    if module == "auto":
        return NETWORKS["small_cnn" if len(in_shape) == 3 else "mlp"]
    if isinstance(module, str) and module.startswith(PRETRAINED):
        kind = Pretrained if in_shape else PretrainedText
        return kind(module.removeprefix(PRETRAINED))
    if module not in NETWORKS:
        raise InputError(
            f"module={module!r} is unknown: choose one of {sorted(NETWORKS)}, "
            f"{PRETRAINED}NAME, or pass a callable."
        )
    return NETWORKS[module]
