"""Random changes of training pictures, on whole batches and on the device they live on.

Pictures are ``(n, height, width, channels)``, of any dtype: the layout they are stored in, and,
seen through a permuted view, the `channels_last` layout that convolutions are fastest on. Changing
raw uint8 pixels moves a quarter of the bytes that normalised floats would take.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

PADDED_SHARE = 8


def random_flip(pictures: Tensor, generator: Generator) -> Tensor:
    """Mirror every picture left to right with probability 1/2.

    Parameters
    ----------
    pictures : Tensor of shape (n, height, width, channels)
        A batch.
    generator : torch.Generator
        Source of randomness, on the device of `pictures`.

    Returns
    -------
    flipped : Tensor of shape (n, height, width, channels)
    """
    coins = torch.rand(len(pictures), 1, 1, 1, generator=generator, device=pictures.device)
    return torch.where(coins < 0.5, pictures.flip(2), pictures)


def random_crop(pictures: Tensor, generator: Generator) -> Tensor:
    """Shift every picture at random, filling with zeros what comes into view.

    This is the padded crop of the paper, section IV-C: padding by an eighth of the side, which is
    its 4 pixels for 32, then a crop of the original size at a random place.

    Parameters
    ----------
    pictures : Tensor of shape (n, height, width, channels)
        A batch.
    generator : torch.Generator
        Source of randomness, on the device of `pictures`.

    Returns
    -------
    cropped : Tensor of shape (n, height, width, channels)
    """
    n, height, width, _ = pictures.shape
    up, left = round(height / PADDED_SHARE), round(width / PADDED_SHARE)
    padded = pad(pictures, (0, 0, left, left, up, up))
    # A view of every possible crop, (n, rows, columns, channels, height, width), from which one
    # place per picture is copied.
    crops = padded.unfold(1, height, 1).unfold(2, width, 1).permute(0, 1, 2, 4, 5, 3)

    def place(n_places: int) -> Tensor:
        return torch.randint(n_places, (n,), generator=generator, device=pictures.device)

    picture = torch.arange(n, device=pictures.device)
    return crops[picture, place(2 * up + 1), place(2 * left + 1)]


AUGMENT: Mapping[str, Callable[[Tensor, Generator], Tensor]] = MappingProxyType(
    {"flip": random_flip, "crop": random_crop}
)


def mixup(inputs: Tensor, targets: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Mix every sample with its neighbour: ``beta * sample + (1 - beta) * neighbour``.

    Paper, section II-B, with one β a batch. A batch is in random order already, so its neighbour
    is a random partner, without a second permutation.

    Parameters
    ----------
    inputs : Tensor of shape (n, ...), floating
        A batch in random order.
    targets : Tensor of shape (n, n_classes), floating
        Its targets.
    beta : float in [0, 1]
        Share of the sample itself.

    Returns
    -------
    inputs, targets : tuple of Tensor
        Mixed alike, of the shapes given.

    Examples
    --------
    >>> import torch
    >>> from pudistill.learners.augmentation import mixup
    >>> mixup(torch.tensor([[0.0], [8.0]]), torch.eye(2), beta=0.75)
    (tensor([[2.],
            [6.]]), tensor([[0.7500, 0.2500],
            [0.2500, 0.7500]]))
    """
    return inputs.roll(1, 0).lerp(inputs, beta), targets.roll(1, 0).lerp(targets, beta)
