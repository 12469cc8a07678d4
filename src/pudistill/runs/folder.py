"""The run folder: all files that a command writes, each written whole or not at all.

A run folder holds ``labels.csv`` and ``labels.parquet``, ``model/``, ``metrics.json``,
``config.toml``, ``history.csv``, ``report.html`` and ``log.jsonl``, the log. ``units/`` caches
finished stages under keys computed from their inputs, so that no stage is computed twice.
``SHA256SUMS``, in the format of ``sha256sum --check``, is written last: it marks the run as
finished, and every file is checked against it when it is read again.
"""

import hashlib
import io
import json
import logging
import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import tomli_w
from filelock import FileLock, Timeout

from pudistill.data.columns import FORMULA_STARTS
from pudistill.data.memory import Budget, release_unused, require_memory
from pudistill.exceptions import DamagedWarning, InputError, OwnModuleError, warn_user
from pudistill.labels.checks import MISSING
from pudistill.labels.table import LabelTable
from pudistill.learners.cache import StageCache
from pudistill.learners.storage import Stored, restore
from pudistill.runs.log import logged_to, warnings_in
from pudistill.runs.models import check_no_own_network, model_files, restore_classifier
from pudistill.utils.files import (
    TEMPORARY,
    ChecksumWriter,
    checksum_of,
    from_npz,
    open_atomic,
    remove_leftovers,
    to_npz,
    write_atomic,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from pudistill.learners.base import NoisyLabelClassifier
    from pudistill.learners.networks.architectures import NetworkFactory

FORMAT = 4  # of the files in a run folder; see CONTRIBUTING.md
COMMANDS = {"experiment": "reproduce", "noises": "sweep"}  # by a setting; all others are "fit"
SAVE = "save"  # in the place of the command, for what `pudistill.save` has written
LOCK, SUMS = ".lock", "SHA256SUMS"
ROWS_WRITTEN_AT_ONCE = 65_536
log = logging.getLogger(__name__)


class Run:
    """A run folder.

    Parameters
    ----------
    path : Path
        The folder, which must exist; `create`, `begin` and `open` check more.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from pudistill.runs.folder import Run
    >>> run = Run.create(Path(tempfile.mkdtemp()) / "run", {"seed": 0})
    >>> run.finish({"test_accuracy": {"pudistill": 0.97}})
    >>> run.read_json("metrics.json")["test_accuracy"]
    {'pudistill': 0.97}
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def check_free(cls, path: Path, config: dict[str, Any]) -> None:
        """Raise `InputError` if a path is taken, unless by an interrupted run of these settings."""
        if not path.exists() or cls.is_interrupted(path, config):
            return
        if cls._are_same(cls._settings_alone(path), config):
            return
        if (path / "run.json").exists():
            finished = (path / SUMS).is_file()
            kind = "a run" if finished else "an unfinished run with other settings"
            raise InputError(f"{path} already holds {kind}: choose another --output folder.")
        if not path.is_dir() or any(file.name != LOCK for file in path.iterdir()):
            raise InputError(f"{path} already exists and is not empty: choose another --output.")

    @classmethod
    def _settings_alone(cls, path: Path) -> dict[str, Any] | None:
        """Return the settings of a run whose disk had no room for more; None for other folders."""
        if not path.is_dir() or {file.name for file in path.iterdir()} - {LOCK} != {"config.toml"}:
            return None
        return cls(path)._read("config.toml", lambda content: tomllib.loads(content.decode()))

    @classmethod
    def create(cls, path: Path, config: dict[str, Any], command: str = "fit") -> "Run":
        """Make a run folder, or open the one of an interrupted run of the same settings.

        Parameters
        ----------
        path : Path
            The folder.
        config : dict
            The settings, as stored in ``config.toml``.
        command : {"fit", "sweep", "reproduce", "save"}, default="fit"
            The command that computes the run.

        Returns
        -------
        run : Run
            The run.

        Raises
        ------
        InputError
            If the path is taken, or the folder cannot be written to.
        """
        cls.check_free(path, config)
        run = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"Cannot write to {path}: {error.strerror}.") from error
        content = tomli_w.dumps(config).encode()
        about = {"format": FORMAT, "command": command, "config": checksum_of(content)}
        # The settings come first: if the disk is full, a run can be resumed from them alone.
        run.write_bytes("config.toml", content)
        run.write_json("run.json", about)
        return run

    @classmethod
    @contextmanager
    def begin(cls, path: Path, config: dict[str, Any], command: str = "fit") -> Iterator["Run"]:
        """Create or continue a run, and keep other processes out of its folder.

        If an `InputError` is raised before a stage has finished, a new folder is removed again.
        """
        cls.check_free(path, config)
        is_new = not (path / "run.json").exists()
        if path.is_dir():
            cls(path)._check_links()
        with _locked(path):
            cls.check_free(path, config)  # again: another process may have finished the run
            if (path / SUMS).is_file():
                cls(path)._reopen()
            try:
                run = cls.create(path, config, command)
            except OSError:
                if is_new and not (path / "config.toml").exists():
                    cls(path).discard()
                raise
            for folder in (path, run.units.folder):
                remove_leftovers(folder)
            try:
                with logged_to(path):
                    log.info("begins" if is_new else "goes on", extra={"command": command})
                    try:
                        yield run
                    except BaseException as error:
                        log.error("stops", extra={"reason": f"{type(error).__name__}: {error}"})
                        raise
                    log.info("ends")
            except InputError:
                if is_new and not run.units.folder.exists():  # finished stages are kept
                    run.discard()
                raise
            except OSError:
                raise
            except Exception as error:
                if is_new:
                    raise
                # Of a stage that somebody else wrote, shape and content can be anything.
                raise InputError(
                    f"{path} cannot be continued ({type(error).__name__}: {error}): if the stages "
                    f"in {run.units.folder} are not your own, remove that folder."
                ) from error

    @classmethod
    def is_interrupted(cls, path: Path, config: dict[str, Any]) -> bool:
        """Return whether a folder holds a run of these settings that is unfinished or damaged."""
        if not cls._holds(path, config):
            return False
        return not (path / SUMS).is_file() or bool(cls(path)._damaged())

    @classmethod
    def is_finished(cls, path: Path, config: dict[str, Any]) -> bool:
        """Return whether a folder holds a finished run of these settings."""
        return cls._holds(path, config) and not cls.is_interrupted(path, config)

    @classmethod
    def _holds(cls, path: Path, config: dict[str, Any]) -> bool:
        if not (path / "run.json").is_file():
            return False
        run = cls(path)
        run.check_format()
        try:
            return cls._are_same(run.read_config(), config)
        except InputError as error:
            if (path / SUMS).is_file():
                raise
            # Stages of other settings do no harm: their keys come from their inputs.
            warn_user(f"{error} It is written anew.", DamagedWarning)
            return True

    @staticmethod
    def _are_same(stored: dict[str, Any] | None, config: dict[str, Any]) -> bool:
        """Whether settings are the same; the time limit, in the key of no stage, may differ."""
        limit = {"time_limit": None}
        return stored is not None and stored | limit == config | limit

    @classmethod
    def begun(cls, path: Path) -> tuple[str, dict[str, Any]]:
        """Return command and settings of a run to resume: one that is unfinished or damaged."""
        run = cls(path)
        if (config := cls._settings_alone(path)) is not None:
            return next((name for key, name in COMMANDS.items() if key in config), "fit"), config
        if not (path / "run.json").is_file():
            raise InputError(f"{path} holds no run: name the folder of a run.")
        run._check_links()
        about, config = run.check_format(), run.read_config()
        if about.get("command") == SAVE:
            raise InputError(f"{path} was written by pudistill.save: save the classifier again.")
        if (path / SUMS).is_file() and not run._damaged():
            raise InputError(f"The run in {path} is finished: there is nothing to resume.")
        return about.get("command", "fit"), config

    def _check_links(self) -> None:
        """Raise `InputError` if anything in the folder is a link, which leads out of it, or a pipe.

        Somebody else's run could make pudistill read or overwrite any file of the user.
        """
        for folder in (self.path, self.path / "model", self.path / "units"):
            if not folder.is_dir():
                continue
            for entry in os.scandir(folder):
                if not (
                    entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)
                ):
                    raise InputError(
                        f"{folder / entry.name} is a link or no file, and a run holds its own "
                        "files only: replace it by the file itself."
                    )

    def _damaged(self) -> list[str]:
        """Return the names of a finished run's files that are missing or damaged."""
        return [name for name in self._sums if not self._is_whole(name)]

    def _is_whole(self, name: str) -> bool:
        path = self.path / name
        if not path.is_file():
            return False
        with path.open("rb") as file:  # of any size
            return hashlib.file_digest(file, "sha256").hexdigest() == self._sums[name]

    def _reopen(self) -> None:
        """Mark a finished run as unfinished, to write damaged files again; they are renamed."""
        for name in self._damaged():
            path = self.path / name
            if path.is_file():
                path.rename(self.path / f"{name.replace('/', '-')}.damaged")
            warn_user(f"{path} is missing or damaged: it is written anew.", DamagedWarning)
        (self.path / SUMS).unlink()
        self.__dict__.pop("_sums")

    def check_format(self) -> dict[str, Any]:
        """Return the content of ``run.json``; raise `InputError` if its format is another one."""
        about = self.read_json("run.json")
        version = about.get("format") if isinstance(about, dict) else None
        if version == FORMAT and not isinstance(about.get("config"), str):
            raise InputError(f"{self.path / 'run.json'} is damaged: {self._remedy('run.json')}.")
        if version != FORMAT:
            raise InputError(
                f"{self.path} was written in format {version}, and this version of pudistill reads "
                f"format {FORMAT}: install the version that wrote it."
            )
        return about

    @classmethod
    def is_unfinished_fit(cls, path: Path) -> bool:
        """Return whether a folder holds a run of `pudistill fit` that has not finished."""
        if not (path / "run.json").is_file() or (path / SUMS).is_file():
            return False
        run = cls(path)
        run._check_links()
        return run.check_format().get("command", "fit") == "fit"

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Open a finished run; raise `InputError` if the folder holds none."""
        run = cls(Path(path))
        if not (run.path / "run.json").is_file():
            raise InputError(f"{path} holds no run: name a folder that `pudistill fit` wrote.")
        run._check_links()
        run.check_format()
        if not (run.path / SUMS).is_file():
            raise InputError(f"The run in {path} did not finish: `pudistill resume {path}`.")
        return run

    @classmethod
    def open_fit(cls, path: Path) -> "Run":
        """Open a finished run of `pudistill fit`; raise `InputError` if the folder holds none."""
        run = cls.open(path)
        if any((run.path / f"{table}.parquet").exists() for table in ("cells", "curve")):
            raise InputError(
                f"{path} compares methods and holds no model: name a folder that `pudistill fit` "
                "wrote."
            )
        return run

    @classmethod
    def open_with_data(cls, path: Path) -> "Run":
        """Open a finished run of `pudistill fit` that knows its data, for work on these data."""
        run = cls.open_fit(path)
        if "data" not in run.read_config():
            raise InputError(
                f"{path} was written by pudistill.save, which does not know where the data are: "
                "run `pudistill fit` on a file or folder of them for this command."
            )
        return run

    def discard(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def units(self) -> StageCache:
        """The cache of finished stages."""
        return StageCache(self.path / "units")

    def finish(self, metrics: dict[str, Any]) -> None:
        """Write the metrics and then the checksums, which mark the run as finished."""
        self.write_json("metrics.json", metrics)
        self._write_sums()

    def _write_sums(self) -> None:
        lines = [f"{checksum}  {name}\n" for name, checksum in sorted(self._sums.items())]
        write_atomic(self.path / SUMS, "".join(lines).encode())

    @cached_property
    def _sums(self) -> dict[str, str]:
        """Checksums by file name; in an unfinished run, of the files written so far."""
        path = self.path / SUMS
        if not path.is_file():
            return {}
        lines = path.read_text("utf-8", "replace").splitlines()
        found = [re.fullmatch(r"([0-9a-f]{64})  ((?:model/)?\w[\w.-]*)", line) for line in lines]
        sums = {match[2]: match[1] for match in found if match is not None}
        if len(sums) < len(lines) or not sums.keys() >= {"run.json", "config.toml"}:
            raise InputError(
                f"{path} is damaged: restore a copy of it, or remove it and run `pudistill resume "
                f"{self.path}`."
            )
        return sums

    def has(self, name: str) -> bool:
        """Return whether the run has written a file; if it is missing now, reading it says so."""
        return name in self._sums or (self.path / name).exists()

    def warnings(self) -> list[str]:
        """Return the warnings in the log of the run."""
        return warnings_in(self.path)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file of the run; in a finished run, also correct its checksum."""
        with self._writing(name) as file:
            file.write(content)

    @contextmanager
    def _writing(self, name: str) -> Iterator[ChecksumWriter]:
        with open_atomic(self.path / name) as file:
            yield (summing := ChecksumWriter(file))
        self._sums[name] = summing.checksum
        if (self.path / SUMS).is_file():
            self._write_sums()

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file of the run."""
        self.write_bytes(name, json.dumps(content, indent=2).encode())

    def write_table(self, stem: str, table: pd.DataFrame | LabelTable) -> None:
        """Write a table of the run as CSV and as parquet, in blocks of rows."""
        with self._writing(f"{stem}.csv") as file:
            for text in csv_parts(table):
                file.write(text.encode())
        import pyarrow as pa
        import pyarrow.parquet

        schema = pa.Schema.from_pandas(_with_all_types(table), preserve_index=False)
        with (
            self._writing(f"{stem}.parquet") as file,
            pa.parquet.ParquetWriter(file, schema) as writer,
        ):
            for part in _parts(table):
                writer.write_table(pa.Table.from_pandas(part, schema, preserve_index=False))

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Write an ``.npz`` file of the run."""
        self.write_bytes(name, to_npz(arrays))

    def read_json(self, name: str) -> Any:
        """Read a JSON file of the run."""
        return self._read(name, json.loads)

    def read_config(self) -> dict[str, Any]:
        """Read the settings of the run, finished or not."""
        checksum = self.check_format()["config"]

        def read(content: bytes) -> dict[str, Any]:
            if checksum_of(content) != checksum:
                raise ValueError("its checksum is not the one in run.json")
            return tomllib.loads(content.decode())

        return self._read("config.toml", read)

    def read_text(self, name: str) -> str:
        """Read a text file of the run."""
        return self._read(name, bytes.decode)

    def read_table(self, stem: str) -> pd.DataFrame:
        """Read a table of the run."""
        import pyarrow as pa

        table = self.read_in_parts(stem, lambda parts: pa.Table.from_batches(parts).to_pandas())
        release_unused()
        return table

    def read_in_parts(self, stem: str, use: "Callable[[Iterator[pa.RecordBatch]], Any]") -> Any:
        """Pass a table of the run to `use` in blocks of rows, and return its result."""
        name = f"{stem}.parquet"

        def read(content: bytes) -> Any:
            from pudistill.data.table_files import parquet_batches

            budget = Budget(self.path / name, len(content))
            return use(parquet_batches(io.BytesIO(content), budget))

        return self._read(name, read)

    def read_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Read an ``.npz`` file of the run."""
        return self._read(name, from_npz)

    def _read(self, name: str, read: Callable[[bytes], Any]) -> Any:
        path = self.path / name
        try:
            require_memory(path, path.stat().st_size, "its bytes")
            content = path.read_bytes()
            if (self.path / SUMS).is_file() and self._sums.get(name) != checksum_of(content):
                raise ValueError(f"its checksum is not the one in {SUMS}")
            return read(content)
        except OwnModuleError:
            raise
        except Exception as error:  # a damaged file can make a reader raise anything
            raise InputError(
                f"{path} is missing or damaged ({error}): {self._remedy(name)}."
            ) from error

    def _remedy(self, name: str) -> str:
        if not (self.path / SUMS).is_file():
            return "repeat the command that wrote it"
        if name in ("run.json", "config.toml"):
            return "restore a copy of it, or repeat the command with another --output"
        if self.check_format().get("command") == SAVE:
            return "restore a copy of it, or save the classifier again"
        return f"`pudistill resume {self.path}` writes it anew"

    def write_model(self, classifier: Any, feature_names: Sequence[str] | None = None) -> None:
        """Store the model that predicts; see `model_files`."""
        folder = Path(tempfile.mkdtemp(TEMPORARY, ".model-", self.path))
        try:
            for name, content in model_files(classifier, feature_names).items():
                write_atomic(folder / name, content)
                self._sums[f"model/{name}"] = checksum_of(content)
            folder.chmod(0o755)
            shutil.rmtree(self.path / "model", ignore_errors=True)  # of an interrupted attempt
            folder.rename(self.path / "model")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def read_model(self, module: "NetworkFactory | None" = None) -> "NoisyLabelClassifier":
        """Load the classifier; see `load`."""

        def read_learner(name: str, network: dict | None) -> Any:
            return self._read(
                f"model/{name}", lambda content: restore(Stored(content, network), module=module)
            )

        try:
            about = self.read_json("model/model.json")
            if module is None:
                check_no_own_network(about)
            return restore_classifier(about, read_learner)
        except InputError:
            raise
        except Exception as error:  # what somebody else wrote can raise anything
            raise InputError(
                f"{self.path / 'model' / 'model.json'} is damaged ({error!r}): "
                f"{self._remedy('model/model.json')}."
            ) from error


def to_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV; a text that a spreadsheet would run as a formula gets an apostrophe.

    Parameters
    ----------
    table : DataFrame
        The table; its index is not written.

    Returns
    -------
    csv : str
        The lines, with a header.

    Examples
    --------
    >>> import pandas as pd
    >>> from pudistill.runs.folder import to_csv
    >>> to_csv(pd.DataFrame({"label": ["cat", "=cmd()", "-1"]})).split()
    ['label', 'cat', "'=cmd()", '-1']
    """
    return "".join(csv_parts(table))


def _parts(table: pd.DataFrame | LabelTable) -> Iterator[pd.DataFrame]:
    """Cut a table into blocks of rows; an empty table is one block."""
    for start in range(0, max(len(table), 1), ROWS_WRITTEN_AT_ONCE):
        rows = slice(start, start + ROWS_WRITTEN_AT_ONCE)
        yield table.frame(rows) if isinstance(table, LabelTable) else table.iloc[rows]


def _with_all_types(table: pd.DataFrame | LabelTable) -> pd.DataFrame:
    """Return a data frame that shows the type of each column: for arrays, of a labelled row."""
    if not isinstance(table, LabelTable):
        return table
    row = int(np.argmax(table.given != MISSING))
    return table.frame(slice(row, row + 1))


def csv_parts(table: pd.DataFrame | LabelTable) -> Iterator[str]:
    """Yield what `to_csv` returns in blocks of rows."""
    for number, part in enumerate(_parts(table)):
        yield _without_formulas(part).to_csv(index=False, header=number == 0, lineterminator="\n")


def _without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    shown = table.copy()
    for name in shown.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in shown.dtypes]]:
        column = shown[name]
        is_formula = column.astype(str).str.startswith(FORMULA_STARTS)
        # Few texts look like formulas, and those that are numbers are none.
        numbers = pd.to_numeric(column[is_formula], errors="coerce")
        is_formula[is_formula] = numbers.isna().to_numpy()
        if is_formula.any():
            shown.loc[is_formula, name] = "'" + column[is_formula].astype(str)
    return shown


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock a run folder; the lock is released even if the process dies."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise InputError(
            f"Another process is at work in {path}: wait until it has finished, or stop it."
        ) from None
    except OSError as error:
        raise InputError(f"Cannot write to {path}: {error.strerror}.") from error
    try:
        yield
    finally:
        lock.release()
