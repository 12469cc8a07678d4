"""Features of pictures without a network: histograms of oriented gradients, and mean colours."""

from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np

NAME = "hog"
"""The value of the setting ``features`` that chooses them."""

N_CELLS = 8  # a side: 4 x 4 pixels of a picture of 32 x 32
N_ORIENTATIONS = 9  # of 20 degrees; opposite directions are one
N_COLOUR_CELLS = 4  # a side
CLIPPED_AT = 0.4
NOISE = 1e-2  # energy of a gradient that is no edge, so that empty areas stay empty
PICTURES_AT_ONCE = 128


class OrientedGradients:
    """A function that computes features of pictures, with the interface of an `Embedder`.

    A picture is cut into 8 x 8 cells. Each has a histogram of the directions in which brightness
    changes, weighted by the change, relative to that of the 3 x 3 cells around it, and clipped.
    Mean colours of 4 x 4 cells are added. Nothing is learned, so features take a second for a
    thousand small pictures, and a linear classifier learns them in seconds.

    Attributes
    ----------
    name, checksum, kind : str
        As of an `Embedder`.

    References
    ----------
    N. Dalal, B. Triggs, "Histograms of Oriented Gradients for Human Detection" (2005).

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.learners.oriented_gradients import OrientedGradients
    >>> pictures = np.zeros((2, 16, 16), dtype=np.uint8)
    >>> pictures[1, :, 8:] = 255  # an upright edge
    >>> features = OrientedGradients()(pictures)
    >>> features.shape, features.dtype
    ((2, 592), dtype('float32'))
    >>> histograms = features[1, :576].reshape(8, 8, 9)
    >>> int(histograms.sum(axis=(0, 1)).argmax())  # brightness changes to the right
    0
    """

    name: ClassVar[str] = NAME
    kind: ClassVar[str] = "pictures"
    checksum: ClassVar[str] = "histograms of oriented gradients, 1"

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Compute features.

        Parameters
        ----------
        X : ndarray of shape (n, height, width[, 3]), uint8
            Pictures.

        Returns
        -------
        features : ndarray of shape (n, n_features), float32
            From 0 to 1.
        """
        parts = [
            _features(X[start : start + PICTURES_AT_ONCE])
            for start in range(0, len(X), PICTURES_AT_ONCE)
        ]
        return np.concatenate(parts)

    def stream(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the features of blocks of pictures."""
        yield from map(self, blocks)


def _features(pictures: np.ndarray) -> np.ndarray:
    channels = np.asarray(pictures, dtype=np.float32) / 255
    if channels.ndim == 3:
        channels = channels[..., None]
    # 1. Where brightness changes, how much, and in which direction.
    grey = channels.mean(axis=3)
    down, right = _change(grey, axis=1), _change(grey, axis=2)
    strength = np.hypot(down, right)
    direction = np.arctan2(down, right) / np.pi * N_ORIENTATIONS  # in orientations; -9 to 9
    # 2. A histogram for each cell; a direction counts for the two orientations beside it.
    histograms = []
    for orientation in range(N_ORIENTATIONS):
        offset = (direction - orientation + 0.5 * N_ORIENTATIONS) % N_ORIENTATIONS
        weight = np.maximum(0, 1 - np.abs(offset - 0.5 * N_ORIENTATIONS))
        histograms.append(_cells(strength * weight, N_CELLS))
    cells = np.stack(histograms, axis=3)
    # 3. Relative to the cells around.
    energy = np.pad((cells**2).sum(axis=3), ((0, 0), (1, 1), (1, 1)))
    n_rows, n_columns = cells.shape[1:3]
    around = sum(
        energy[:, row : row + n_rows, column : column + n_columns]
        for row in range(3)
        for column in range(3)
    )
    relative = np.minimum(cells / np.sqrt(around + NOISE**2)[..., None], CLIPPED_AT) / CLIPPED_AT
    # 4. Colours.
    colours = [_cells(channel, N_COLOUR_CELLS) for channel in np.moveaxis(channels, 3, 0)]
    flat = [part.reshape(len(part), -1) for part in (relative, *colours)]
    return np.hstack(flat).astype(np.float32)


def _change(grey: np.ndarray, axis: int) -> np.ndarray:
    """Return half the difference of a pixel's neighbours; a picture of one pixel has none."""
    return np.gradient(grey, axis=axis) if grey.shape[axis] > 1 else np.zeros_like(grey)


def _cells(values: np.ndarray, n_cells: int) -> np.ndarray:
    """Return means over cells, of shape (n, n_rows, n_columns), of values (n, height, width)."""
    for axis in (1, 2):
        size = values.shape[axis]
        starts = np.arange(min(n_cells, size)) * size // min(n_cells, size)
        lengths = np.diff(np.append(starts, size)).astype(np.float32)
        shape = [1, 1, 1]
        shape[axis] = len(starts)
        values = np.add.reduceat(values, starts, axis=axis) / lengths.reshape(shape)
    return values
