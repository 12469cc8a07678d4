"""The places of arrays in files: another process opens the file, so no content is sent."""

from typing import Any, NamedTuple, Self

import numpy as np

from pudistill.utils.arrays import is_temporary


class MappedArray(NamedTuple):
    """The place of an array in a file.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from pudistill.utils.mapped import MappedArray
    >>> path = f"{tempfile.mkdtemp()}/X.npy"
    >>> np.save(path, np.arange(12.0).reshape(4, 3))
    >>> part = np.load(path, mmap_mode="r")[1:3]
    >>> MappedArray.of(part).open().tolist()
    [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]]
    >>> MappedArray.of(np.arange(3)) is None
    True
    """

    path: str
    dtype: np.dtype
    offset: int  # bytes
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: np.ndarray) -> Self | None:
        """Return the place of an array; None if it is in no permanent file, or not contiguous."""
        owner: Any = array
        while owner is not None and not isinstance(owner, np.memmap):
            owner = getattr(owner, "base", None)
        if owner is None or owner.filename is None or not array.flags.c_contiguous:
            return None
        if is_temporary(owner.filename):
            return None
        while isinstance(owner.base, np.memmap):  # NumPy gives a part the offset of the whole
            owner = owner.base
        start = owner.offset + array.ctypes.data - owner.ctypes.data
        return cls(str(owner.filename), array.dtype, start, array.shape)

    def open(self) -> np.memmap:
        """Map the array, read-only."""
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
