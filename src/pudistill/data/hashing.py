"""Hashes of the inputs of a result, by which caches find it."""

from typing import Any

import numpy as np
from joblib.hashing import NumpyHasher

from pudistill.data.lazy_pictures import is_lazy


class _Hasher(NumpyHasher):
    """joblib's hasher, which here hashes pictures on disk by content, wherever they are stored."""

    def save(self, obj: Any) -> None:
        """Add one object to the hash."""
        if is_lazy(obj):
            obj = obj.fingerprint
        elif isinstance(obj, np.ndarray) and obj.size == 0:  # numpy may give it any strides
            obj = ("empty", obj.dtype.str, obj.shape)
        super().save(obj)


def key_of(inputs: Any) -> str:
    """Return a hash of everything that a result is computed from."""
    return _Hasher(hash_name="md5").hash(inputs)
