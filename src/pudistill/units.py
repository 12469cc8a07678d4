"""Finished stages, kept so that nothing is computed twice.

Whoever has a place for stages installs it with :func:`keeping`; a stage that is worth it asks with
:func:`kept` for what was computed before, and is computed if there is nothing, or nobody keeps any.
"""

import inspect
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from joblib.hashing import NumpyHasher
from sklearn.utils.validation import check_memory

from pudistill import __version__
from pudistill.atomic import checksum_of, from_npz, to_npz, write_atomic
from pudistill.context import installed
from pudistill.data.lazy_pictures import is_lazy
from pudistill.exceptions import DamagedWarning, InputError
from pudistill.recording import OWN_CATEGORIES, Told, listening, tell_again
from pudistill.storage import Stored, dump, restore

# Work that a crash may cost; more often would cost more than it saves.
CHECKPOINT_SECONDS = 5.0
CHECKSUM_BYTES = 64
File = tuple[Path, bytes]
log = logging.getLogger(__name__)


class Checkpoint:
    """What a stage has done so far, so that it can go on there.

    Parameters
    ----------
    path : Path or None, default=None
        Where it is kept; None: nowhere.

    Attributes
    ----------
    told : list of Told
        Warnings that the stage has given so far.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.told: list[Told] = []
        self._saved = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether enough has been done since it was last saved."""
        return self.path is not None and time.monotonic() - self._saved >= CHECKPOINT_SECONDS

    def hear(self, one: Told) -> None:
        """Take down a warning of ours, but of files: the next process may find them whole."""
        if one.category in OWN_CATEGORIES and one.category != DamagedWarning.__name__:
            self.told.append(one)

    def load(self) -> dict[str, Any] | None:
        """Return what was saved last; None if there is nothing that can be read."""
        kept = None if self.path is None else _read(self.path)
        if kept is None:
            return None
        tell_again(kept.told)
        log.info("goes on", extra={"file": str(self.path)})
        return kept.parts

    def save(self, **parts: Any) -> None:
        """Keep arrays, fitted learners, and lists or dictionaries of these."""
        if self.path is not None:
            with suppress(InputError):  # a learner that no file can hold
                _write(self.path, _content(_Kept(parts, self.told)))
            self._saved = time.monotonic()

    def remove(self) -> None:
        """Forget it: the stage is finished."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


NOWHERE = Checkpoint()


class Units:
    """Finished stages, each kept under a hash of everything it was computed from.

    A stage that is read instead of computed gives the warnings again that it gave then. It has
    joblib.Memory's interface, as far as an estimator's `memory` needs it, without pickles.

    Parameters
    ----------
    folder : Path
        Where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()  # workers may have another working directory

    def cache(self, func: Callable, ignore: Sequence[str] = ()) -> Callable:
        """Wrap a function, so that it runs once per input.

        Parameters
        ----------
        func : callable
            Returns a NamedTuple, which is its return annotation, of arrays, fitted learners, and
            lists or dictionaries of these. If it has a parameter `checkpoint`, it is passed a
            `Checkpoint`.
        ignore : sequence of str
            Parameters that do not change the result.

        Returns
        -------
        cached : callable
            The same function.
        """
        signature = inspect.signature(func)
        result_type = get_type_hints(func)["return"]

        name = func.__name__.strip("_")

        def path_of(*args: Any, **kwargs: Any) -> Path:
            inputs = signature.bind(*args, **kwargs).arguments
            for ignored in ignore:
                inputs.pop(ignored, None)
            key = key_of((__version__, func.__module__, func.__qualname__, inputs))
            return self.folder / f"{name}-{key}.npz"

        def read(path: Path) -> Any:
            known = _read(path)
            if known is None:
                return None
            tell_again(known.told)
            log.info("known", extra={"file": str(path)})
            return result_type(**known.parts)

        def known(*args: Any, **kwargs: Any) -> Any:
            """Return what was computed before; None if nothing was."""
            is_any = any(self.folder.glob(f"{name}-*.npz"))  # else the inputs need no hash
            return read(path_of(*args, **kwargs)) if is_any else None

        def cached(*args: Any, **kwargs: Any) -> Any:
            path = path_of(*args, **kwargs)
            if (result := read(path)) is not None:
                return result
            start = time.perf_counter()
            checkpoint = Checkpoint(path.with_suffix(".part.npz") if _is_here(path) else None)
            if "checkpoint" in signature.parameters:
                kwargs["checkpoint"] = checkpoint
            with listening(checkpoint.hear):
                result = func(*args, **kwargs)
            with suppress(InputError):  # a learner that no file can hold
                _keep(path, _content(_Kept(result._asdict(), checkpoint.told)))
                seconds = round(time.perf_counter() - start, 3)
                log.info("computed", extra={"file": str(path), "seconds": seconds})
            checkpoint.remove()
            return result

        cached.known = known  # type: ignore[attr-defined]
        return cached


class _Hasher(NumpyHasher):
    """joblib's, but that pictures on disk are known by what they show, wherever they lie."""

    def save(self, obj: Any) -> None:
        """Hash one object."""
        super().save(obj.fingerprint if is_lazy(obj) else obj)


def key_of(inputs: Any) -> str:
    """Return a hash of whatever a result is computed from."""
    return _Hasher(hash_name="md5").hash(inputs)


_place: ContextVar[Any] = ContextVar("pudistill_place", default=None)
_to_bring_home: ContextVar[list[File]] = ContextVar("pudistill_to_bring_home")
_checkpoint: ContextVar[Checkpoint] = ContextVar("pudistill_checkpoint", default=NOWHERE)


@contextmanager
def keeping(memory: Any) -> Iterator[None]:
    """Keep the stages of everything that runs inside the ``with`` block.

    Parameters
    ----------
    memory : str, Memory, Units or None
        Where: as estimators' parameter `memory`. None: nowhere.
    """
    with installed(_place, None if memory is None else check_memory(memory)):
        yield


def place() -> Any:
    """Return where stages are kept here; None: nowhere."""
    return _place.get()


def kept(func: Callable, ignore: Sequence[str] = ()) -> Callable:
    """Wrap a function so that it is a stage that is kept; see `Units.cache`."""
    memory = _place.get()
    return func if memory is None else memory.cache(func, ignore=list(ignore))


@contextmanager
def collecting() -> Iterator[list[File]]:
    """Collect stages that are finished inside the ``with`` block, far from the place for them."""
    files: list[File] = []
    with installed(_to_bring_home, files):
        yield files


def bring_home(files: Sequence[File]) -> None:
    """Keep stages that were finished elsewhere."""
    for path, content in files:
        _keep(path, content)


@contextmanager
def saving_to(checkpoint: Checkpoint) -> Iterator[None]:
    """Let the training of a network inside the ``with`` block save how far it is."""
    with installed(_checkpoint, checkpoint):
        yield


def current_checkpoint() -> Checkpoint:
    """Return where a training shall save how far it is."""
    return _checkpoint.get()


def _pack(value: Any, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Put arrays aside under numbers, return what else a result is made of."""

    def aside(array: Any) -> str:
        arrays[name := str(len(arrays))] = np.asarray(array)
        return name

    if isinstance(value, dict):
        return {"dict": {name: _pack(one, arrays) for name, one in value.items()}}
    if isinstance(value, list):
        return {"list": [_pack(one, arrays) for one in value]}
    if hasattr(value, "predict"):
        stored = dump(value)
        if stored.needs_module:
            raise InputError("A network of the user's cannot be built without its factory.")
        content = np.frombuffer(stored.content, np.void(b" ").dtype)
        return {"learner": aside(content), "network": stored.network}
    return {"array": aside(value)}


def _unpack(packed: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    if "dict" in packed:
        return {name: _unpack(one, arrays) for name, one in packed["dict"].items()}
    if "list" in packed:
        return [_unpack(one, arrays) for one in packed["list"]]
    if "learner" in packed:
        content = arrays[packed["learner"]].tobytes()
        return restore(Stored(content, packed["network"]))
    return arrays[packed["array"]]


class _Kept(NamedTuple):
    parts: dict[str, Any]
    told: list[Told]


def _content(kept: _Kept) -> bytes:
    """Make a file of a result, with a checksum at its end."""
    arrays: dict[str, np.ndarray] = {}
    about = {"result": _pack(kept.parts, arrays), "told": kept.told}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    content = to_npz(arrays)
    return content + checksum_of(content).encode()


def _is_here(path: Path) -> bool:
    """Whether this machine sees the run's folder: a node of a cluster may share no disk with it."""
    return path.parent.parent.is_dir()


def _keep(path: Path, content: bytes) -> None:
    """Write a file, or let whoever has sent for it do so."""
    if _is_here(path):
        _write(path, content)
    else:
        _to_bring_home.get().append((path, content))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, content)


def _read(path: Path) -> _Kept | None:
    """Read a result; None if it is missing or damaged, and has to be computed again."""
    try:
        file = path.read_bytes()
        content, checksum = file[:-CHECKSUM_BYTES], file[-CHECKSUM_BYTES:]
        if checksum_of(content).encode() != checksum:
            raise ValueError("its checksum is wrong")
        arrays = from_npz(content)
        about = json.loads(arrays["about"].tobytes())
        return _Kept(_unpack(about["result"], arrays), [Told(*one) for one in about["told"]])
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever a damaged file makes its readers raise
        warnings.warn(
            f"{path} is damaged ({error}): what it held is computed again.",
            DamagedWarning,
            stacklevel=2,
        )
        return None
