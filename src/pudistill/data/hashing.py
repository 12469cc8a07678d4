"""Hashes of everything that a result is computed from."""

from typing import Any

from joblib.hashing import NumpyHasher

from pudistill.data.lazy_pictures import is_lazy


class _Hasher(NumpyHasher):
    """joblib's hasher, except that pictures on disk are hashed by content, wherever they lie."""

    def save(self, obj: Any) -> None:
        """Hash one object."""
        super().save(obj.fingerprint if is_lazy(obj) else obj)


def key_of(inputs: Any) -> str:
    """Return a hash of everything that a result is computed from."""
    return _Hasher(hash_name="md5").hash(inputs)
