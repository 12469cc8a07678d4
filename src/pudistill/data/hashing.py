"""Hashes of the inputs of a result, by which caches find it."""

from typing import Any

import numpy as np
from joblib.hashing import NumpyHasher


class _Hasher(NumpyHasher):
    """joblib's hasher, which hashes objects that have a ``fingerprint`` by that.

    Pictures on disk are then hashed by content, wherever they are stored, and networks by their
    weights, whether they were trained or read from a file.
    """

    def save(self, obj: Any) -> None:
        """Add one object to the hash."""
        if isinstance(getattr(type(obj), "fingerprint", None), property):
            obj = obj.fingerprint
        elif isinstance(obj, np.ndarray) and obj.size == 0:  # numpy may give it any strides
            obj = ("empty", obj.dtype.str, obj.shape)
        super().save(obj)


def key_of(inputs: Any) -> str:
    """Return a hash of everything that a result is computed from."""
    return _Hasher(hash_name="md5").hash(inputs)
