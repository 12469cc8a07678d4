"""Finished stages, stored so that nothing is computed twice.

A stage is a function whose result takes long to compute. A caller that has a cache installs it with
:func:`caching_to`. A stage is called through :func:`cached`, which reads the result if the cache
has it, and computes it otherwise.
"""

import inspect
import io
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from sklearn.utils.validation import check_memory

from pudistill import __version__
from pudistill.data.hashing import key_of
from pudistill.exceptions import DamagedWarning, InputError, warn_user
from pudistill.learners.networks.names import remembered_own
from pudistill.learners.storage import Stored, dump, restore
from pudistill.utils.checkpoint import NOWHERE, Checkpoint
from pudistill.utils.context import installed
from pudistill.utils.files import checksum_of, from_npz, write_atomic, write_npz
from pudistill.utils.time_limit import current_limit
from pudistill.utils.warning_log import (
    OWN_CATEGORIES,
    RecordedWarning,
    record_warnings,
    repeat_warnings,
)

# Seconds between two checkpoints: the work that a crash costs. Saving takes time, too.
CHECKPOINT_SECONDS = 5.0


CHECKSUM_BYTES = 64  # at the end of each file


StageFile = tuple[Path, bytes]  # path and content


log = logging.getLogger(__name__)


class FileCheckpoint(Checkpoint):
    """A checkpoint in a file.

    Parameters
    ----------
    path : Path
        The file.
    recorded : list of RecordedWarning
        Warnings that the stage has issued so far; they are saved with its results, and issued
        again by `load`.
    """

    def __init__(self, path: Path, recorded: list[RecordedWarning]) -> None:
        self.path = path
        self.recorded = recorded
        self._last_saved = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the last `save` was `CHECKPOINT_SECONDS` ago."""
        return time.monotonic() - self._last_saved >= CHECKPOINT_SECONDS

    def load(self) -> dict[str, Any] | None:
        """Return the parts that were saved last; None if there is no readable file."""
        stored = _read(self.path)
        if stored is None:
            return None
        repeat_warnings(stored.recorded)
        log.info("goes on", extra={"file": str(self.path)})
        return stored.parts

    def save(self, **parts: Any) -> None:
        """Save arrays, fitted learners, and lists or dictionaries of these."""
        with suppress(InputError):  # a learner that no file can hold
            _write(self.path, _to_bytes(_StoredStage(parts, self.recorded)))
        self._last_saved = time.monotonic()

    def remove(self) -> None:
        """Remove the file: the stage is finished."""
        self.path.unlink(missing_ok=True)


class StageCache:
    """Finished stages, each stored under a hash of everything it was computed from.

    A stage that is read instead of computed issues its warnings again. The interface is that of
    joblib.Memory, as far as an estimator's `memory` needs it, without pickles.

    Parameters
    ----------
    folder : Path
        Where the files are.
    collected : list of (Path, bytes), default=None
        Filled with the files that this machine cannot write because it does not see the run's
        folder, see `caching_in_worker`.
    """

    def __init__(self, folder: Path, collected: list[StageFile] | None = None) -> None:
        self.folder = folder.absolute()  # workers may have another working directory
        self.collected = [] if collected is None else collected

    def cache(self, func: Callable, ignore: Sequence[str] = ()) -> Callable:
        """Wrap a function, so that it runs once per input.

        Parameters
        ----------
        func : callable
            Function that returns a NamedTuple of arrays, fitted learners, and lists or
            dictionaries of these; the NamedTuple is its return annotation. If it has a parameter
            `checkpoint`, a `Checkpoint` is passed. A result whose field `cut_short` is true is not
            stored.
        ignore : sequence of str
            Names of parameters that do not change the result.

        Returns
        -------
        cached : callable
            The same function. Its attribute `lookup` takes the same arguments and returns the
            stored result, or None.
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
            stored = _read(path)
            if stored is None:
                return None
            repeat_warnings(stored.recorded)
            log.info("known", extra={"file": str(path)})
            return result_type(**stored.parts)

        def lookup(*args: Any, **kwargs: Any) -> Any:
            """Return the stored result; None if there is none."""
            # Hashing takes long, so it is skipped if no file can match.
            can_match = any(self.folder.glob(f"{name}-*.npz"))
            return read(path_of(*args, **kwargs)) if can_match else None

        def cached(*args: Any, **kwargs: Any) -> Any:
            path = path_of(*args, **kwargs)
            if (result := read(path)) is not None:
                return result
            call = partial(func, *args, **kwargs)
            return self._compute(path, call, "checkpoint" in signature.parameters)

        cached.lookup = lookup  # type: ignore[attr-defined]
        return cached

    def _compute(self, path: Path, call: Callable, takes_checkpoint: bool) -> Any:
        """Compute a stage, and store its result with the warnings that it issued."""
        start = time.perf_counter()
        recorded: list[RecordedWarning] = []

        def record(warning: RecordedWarning) -> None:
            if _belongs_to_stage(warning):
                recorded.append(warning)

        checkpoint = NOWHERE
        if _is_here(path):
            checkpoint = FileCheckpoint(path.with_suffix(".part.npz"), recorded)
        with record_warnings(record):
            result = call(checkpoint=checkpoint) if takes_checkpoint else call()
        if getattr(result, "cut_short", False):
            return result  # another run may have more time
        # In a worker, the cache of the running task collects files. This cache can be a copy that
        # was sent with the task, and that is lost when the task ends.
        current = current_cache()
        cache = current if isinstance(current, StageCache) else self
        with suppress(InputError):  # a learner that no file can hold
            cache.store([(path, _to_bytes(_StoredStage(result._asdict(), recorded)))])
            seconds = round(time.perf_counter() - start, 3)
            log.info("computed", extra={"file": str(path), "seconds": seconds})
        checkpoint.remove()
        return result

    def store(self, files: Sequence[StageFile]) -> None:
        """Write files of finished stages, or collect them where this machine cannot write them."""
        for path, content in files:
            if _is_here(path):
                _write(path, content)
            else:
                self.collected.append((path, content))


def _belongs_to_stage(warning: RecordedWarning) -> bool:
    """Whether a warning is stored with a stage: any of the package, except about damaged files.

    The next process may find those files intact.
    """
    return warning.category in OWN_CATEGORIES and warning.category != DamagedWarning.__name__


# A context variable, because nearly every function below `fit` would have to pass the cache on.
_current_cache: ContextVar[Any] = ContextVar("pudistill_cache", default=None)


@contextmanager
def caching_to(memory: Any) -> Iterator[None]:
    """Cache the stages of everything that runs inside the ``with`` block.

    Parameters
    ----------
    memory : str, joblib.Memory, StageCache or None
        The cache, as an estimator's parameter `memory`. None: stages are not cached.
    """
    with installed(_current_cache, None if memory is None else check_memory(memory)):
        yield


@contextmanager
def caching_in_worker(memory: Any) -> Iterator[list[StageFile]]:
    """Cache the stages of a task in a worker, whose machine may not see the run's folder.

    Parameters
    ----------
    memory : joblib.Memory, StageCache or None
        The cache of the process that sent the task.

    Yields
    ------
    files : list of (Path, bytes)
        Filled with finished stages, which that process passes to `StageCache.store`.
    """
    files: list[StageFile] = []
    with caching_to(StageCache(memory.folder, files) if isinstance(memory, StageCache) else memory):
        yield files


def current_cache() -> Any:
    """Return the cache of the enclosing :func:`caching_to`, or None."""
    return _current_cache.get()


def cached(func: Callable, ignore: Sequence[str] = ()) -> Callable:
    """Cache the results of a function if a cache is installed; see `StageCache.cache`."""
    memory = current_cache()
    if memory is None:
        return func
    known = memory.cache(func, ignore=list(ignore))
    if isinstance(memory, StageCache) or current_limit() is None:
        return known
    return partial(_read_only, known, func)


def _read_only(known: Any, func: Callable, *args: Any, **kwargs: Any) -> Any:
    """Read a result from a joblib.Memory, which would store it even if it is cut short."""
    return (known if known.check_call_in_cache(*args, **kwargs) else func)(*args, **kwargs)


class _StoredStage(NamedTuple):
    parts: dict[str, Any]
    recorded: list[RecordedWarning]


def _to_bytes(stage: _StoredStage) -> bytes:
    """Return the content of a stage's file, with a checksum at its end."""
    arrays: dict[str, np.ndarray] = {}
    # The name "told" is part of the file format.
    about = {"result": _to_json(stage.parts, arrays), "told": stage.recorded}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    file = io.BytesIO()  # the only copy of arrays that can be large
    write_npz(file, arrays)
    file.write(checksum_of(file.getbuffer()).encode())
    return file.getvalue()


def _to_json(value: Any, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return a result's structure for JSON; its arrays go into `arrays`, named by numbers."""

    def add(array: Any) -> str:
        arrays[name := str(len(arrays))] = np.asarray(array)
        return name

    if isinstance(value, dict):
        return {"dict": {name: _to_json(part, arrays) for name, part in value.items()}}
    if isinstance(value, list):
        return {"list": [_to_json(part, arrays) for part in value]}
    if hasattr(value, "predict"):
        stored = dump(value)
        content = np.frombuffer(stored.content, np.void(b" ").dtype)
        return {"learner": add(content), "network": stored.network}
    return {"array": add(value)}


def _from_json(structure: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    """Return the result that `_to_json` took apart."""
    if "dict" in structure:
        return {name: _from_json(part, arrays) for name, part in structure["dict"].items()}
    if "list" in structure:
        return [_from_json(part, arrays) for part in structure["list"]]
    if "learner" in structure:
        content = arrays[structure["learner"]].tobytes()
        stored = Stored(content, structure["network"])
        own = stored.own_network
        return restore(stored, module=None if own is None else remembered_own(own))
    return arrays[structure["array"]]


def _is_here(path: Path) -> bool:
    """Whether this machine sees the run's folder; a node of a cluster may not share that disk."""
    return path.parent.parent.is_dir()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, content)


def _read(path: Path) -> _StoredStage | None:
    """Read a stage; None if it must be computed, because its file is missing or damaged."""
    try:
        file = path.read_bytes()
        content, checksum = file[:-CHECKSUM_BYTES], file[-CHECKSUM_BYTES:]
        if checksum_of(content).encode() != checksum:
            raise ValueError("its checksum is wrong")
        arrays = from_npz(content)
        about = json.loads(arrays["about"].tobytes())
        recorded = [RecordedWarning(*warning) for warning in about["told"]]
        return _StoredStage(_from_json(about["result"], arrays), recorded)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file can make its readers raise anything
        warn_user(f"{path} is damaged ({error}): its content is computed again.", DamagedWarning)
        return None
