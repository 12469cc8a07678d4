"""Tables in tar files, as webdataset writes them: the files of a sample share a name.

Nothing is extracted: names are only read, and pictures stay in the archive until they are decoded.
"""

import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa

from pudistill.data.json_files import table_of
from pudistill.data.memory import require_memory
from pudistill.data.pictures import SUFFIXES
from pudistill.exceptions import InputError

IMAGE = "image"
_PICTURES_AT_ONCE = 64
_COLUMNS = {"cls": "label", "txt": "text", "text": "text"}


class _Place(NamedTuple):
    """The bytes of a file inside an archive."""

    archive: Path
    offset: int
    size: int

    def read(self) -> bytes:
        with self.archive.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


class TarTable:
    """Samples in tar files.

    Columns are ``id``, ``image``, ``label`` (the text of ``.cls``), ``text`` (of ``.txt``) and the
    values of ``.json``; files of other kinds are ignored.

    Parameters
    ----------
    files : list of Path
        The archives, in order.
    """

    def __init__(self, files: list[Path]) -> None:
        self.path, self.folder = files[0], files[0].parent
        samples = [
            (file, key, members) for file in files for key, members in _samples(file).items()
        ]
        keys = {key for _, key, _ in samples}
        # Some archives count from zero again.
        ids = [
            key if len(keys) == len(samples) else f"{file.stem}/{key}" for file, key, _ in samples
        ]
        rows = [
            {"id": name} | _values(file, key, members)
            for name, (file, key, members) in zip(ids, samples, strict=True)
        ]
        self._pictures = [_picture(file, key, members) for file, key, members in samples]
        self._table = table_of(self.path, rows)
        self.schema = self._table.schema
        if any(self._pictures):
            self.schema = self.schema.append(pa.field(IMAGE, pa.binary()))

    def read(self, names: list[str], as_text: Iterable[str]) -> pa.Table:  # noqa: ARG002
        """Return columns by name."""
        table = self._table
        if IMAGE in names:
            n_bytes = sum(place.size for place in self._pictures if place is not None)
            require_memory(self.path, n_bytes, "the pictures")
            pictures = [picture for batch in self.batches(IMAGE) for picture in batch]
            table = table.append_column(IMAGE, pa.array(pictures, pa.binary()))
        return table.select(names)

    def batches(self, name: str) -> Iterator[list[Any]]:
        """Yield the values of one column a few at a time."""
        if name != IMAGE:
            yield self._table[name].to_pylist()
            return
        for start in range(0, len(self._pictures), _PICTURES_AT_ONCE):
            places = self._pictures[start : start + _PICTURES_AT_ONCE]
            yield [None if place is None else place.read() for place in places]


def _samples(archive: Path) -> dict[str, dict[str, _Place]]:
    """Return the files of each sample by what follows the first dot of their names."""
    samples: dict[str, dict[str, _Place]] = {}
    n_bytes = archive.stat().st_size
    try:
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                _check(archive, member, n_bytes)
                path = PurePosixPath(member.name)
                stem, _, kind = path.name.partition(".")
                kind = kind.lower()
                if not (member.isreg() and stem and _is_known(kind)):
                    continue
                files = samples.setdefault(path.with_name(stem).as_posix(), {})
                if kind in files:
                    raise InputError(
                        f"{archive}: {member.name!r} is there twice: make the archive again."
                    )
                files[kind] = _Place(archive, member.offset_data, member.size)
    except InputError:
        raise
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise InputError(f"{archive}: cannot be read ({error}): fetch it again.") from error
    if not samples:
        raise InputError(f"{archive}: there is no sample in this archive: make it again.")
    return samples


def _check(archive: Path, member: tarfile.TarInfo, n_bytes: int) -> None:
    """Raise an `InputError` unless a member is an ordinary file or folder inside the archive."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"{archive}: {member.name!r} leads out of the archive: make it again.")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise InputError(
            f"{archive}: {member.name!r} is a link or a special file: make the archive again, of "
            "ordinary files."
        )
    if member.offset_data + member.size > n_bytes:
        raise InputError(f"{archive}: {member.name!r} is cut off: fetch it again.")


def _is_known(kind: str) -> bool:
    return kind in _COLUMNS or kind == "json" or _is_picture(kind)


def _is_picture(kind: str) -> bool:
    return PurePosixPath(f"x.{kind}").suffix in SUFFIXES


def _values(archive: Path, key: str, members: dict[str, _Place]) -> dict[str, Any]:
    """Return the values of a sample that are no pictures."""
    values: dict[str, Any] = {}
    for kind, place in members.items():
        if kind not in (*_COLUMNS, "json"):
            continue
        try:
            text = place.read().decode()
            found = json.loads(text) if kind == "json" else {_COLUMNS[kind]: text.strip()}
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{archive}: {key}.{kind} cannot be read ({error}): make the archive again."
            ) from error
        if not isinstance(found, dict):
            raise InputError(
                f"{archive}: {key}.{kind} is not a JSON object: make the archive again."
            )
        values = found | values if kind == "json" else values | found
    return {name: values[name] for name in values if name not in ("id", IMAGE)}


def _picture(archive: Path, key: str, members: dict[str, _Place]) -> _Place | None:
    kinds = [kind for kind in members if _is_picture(kind)]
    if len(kinds) > 1:
        raise InputError(
            f"{archive}: sample {key!r} has several pictures ({', '.join(kinds)}): keep one."
        )
    return members[kinds[0]] if kinds else None
