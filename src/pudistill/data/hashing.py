"""Hashes of the inputs of a result, by which caches find it."""

from typing import Any

from joblib.hashing import NumpyHasher

from pudistill.data.lazy_pictures import is_lazy


class _Hasher(NumpyHasher):
    """joblib's hasher, which here hashes pictures on disk by content, wherever they are stored."""

    def save(self, obj: Any) -> None:
        """Add one object to the hash."""
        super().save(obj.fingerprint if is_lazy(obj) else obj)


def key_of(inputs: Any) -> str:
    """Return a hash of everything that a result is computed from."""
    return _Hasher(hash_name="md5").hash(inputs)
