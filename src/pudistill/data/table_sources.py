"""Finds the table in a source: a file, a folder with its files, or an object in memory."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pudistill.data.frames import library_of, name_of
from pudistill.data.table_files import (
    SHARD_SUFFIXES,
    TEXT_SUFFIXES,
    Table,
    as_table_error,
    open_files,
    open_object,
)
from pudistill.data.text_files import suffix_of
from pudistill.exceptions import DataNotice, InputError, warn_user
from pudistill.utils.shown import listed

SPLITS = (
    *("train", "training", "test", "testing"),
    *("validation", "valid", "val", "dev", "eval"),
)
"""Names of the parts of a data set; the first two are read where there are several."""
_TRAINING = SPLITS[:2]
_STATE = "state.json"  # of a folder that `Dataset.save_to_disk` wrote
# Files by which a folder is the clone of a repository or a stored `DatasetDict`.
_SIGNS = {"README.md", "dataset_dict.json", "dataset_infos.json"}
_COUNTED = re.compile(r"(?P<split>.+)-\d{5}-of-(?P<count>\d{5})(-[0-9a-f]{16})?")
# As other programs number the files of a table: part-0, part-00000-c000.snappy, train-0003, 0000.
_NUMBERED = re.compile(r"(?P<split>.*?)[-_.]?\d+([-_.].*)?")
_PARTS = ("", "part", "shard", "chunk", "data", *SPLITS)
_DEPTH = 3  # folders in which tables are looked for: the data set's, its configuration's, a split's


def accepts(path: Path) -> bool:
    """Return whether `path` is a table, or a folder that holds one."""
    if path.is_dir():
        return bool(_places(path))
    return suffix_of(path) in (*TEXT_SUFFIXES, *SHARD_SUFFIXES)


def open_table(source: Any, encoding: str | None = None) -> Table:
    """Open a table.

    Parameters
    ----------
    source : Path, or a table of pandas, polars, pyarrow or `datasets`
        Where there are several splits, the training split is opened, with a notice.
    encoding : str, optional
        The encoding of a text file that is not UTF-8.

    Returns
    -------
    table : Table

    Raises
    ------
    InputError
        If there is no table, or more than one; it is empty; or two columns have one name.
    """
    if isinstance(source, Path):
        with as_table_error(source):
            table = open_files(files_of(source) if source.is_dir() else [source], encoding)
    else:
        table, source = open_object(training_split(source)), name_of(source)
    names = table.schema.names
    if not names:
        raise InputError(f"{source}: the table is empty: give a table with columns and rows.")
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise InputError(f"{source}: there are several columns {repeated[0]!r}: rename them.")
    return table


def training_split(source: Any) -> Any:
    """Return the training split of a `DatasetDict`; another object as it is."""
    if library_of(source) != "datasets" or not isinstance(source, Mapping):
        return source
    return source[choose_split(name_of(source), {name: name for name in source})]


def choose_split(where: Any, splits: Mapping[str, str]) -> str:
    """Return the table of the training split, with a notice if there are others, or the only table.

    Parameters
    ----------
    where : object
        What holds the tables, for messages.
    splits : mapping of str to str
        The split of each table, by the name of the table.

    Raises
    ------
    InputError
        If it is not clear which table to read.
    """
    chosen = [name for name, split in splits.items() if split.lower() in _TRAINING] or list(splits)
    if len(chosen) != 1:
        raise InputError(
            f"{where}: there are several tables in it ({listed(sorted(splits))}): give one of them "
            "alone."
        )
    if len(splits) > 1:
        others = listed(sorted({*splits} - {*chosen}))
        warn_user(f"{where}: {chosen[0]!r} is read, and {others} is not.", DataNotice)
    return chosen[0]


def files_of(folder: Path) -> list[Path]:
    """Return the files of the table in a folder."""
    places = {str(path.relative_to(folder)): (path, split) for path, split in _places(folder)}
    place, _ = places[choose_split(folder, {name: split for name, (_, split) in places.items()})]
    if place.is_file():
        return [place]
    return _stored_files(place) if (place / _STATE).exists() else _shards(place)


def _places(folder: Path, depth: int = _DEPTH) -> list[tuple[Path, str]]:
    """Return the tables in a folder, which are files or folders of files, and their splits.

    Only names are read, and few of them, because folders of pictures can be large.
    """
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "_"))]
    names = {path.name for path in entries}
    folders = [path for path in entries if path.is_dir()]
    metadata = [path for path in entries if _is_table(path) and _first_name(path) == "metadata"]
    if metadata:  # of an image folder as Hugging Face describes it
        return [(metadata[0], folder.name)]
    is_stored = {_STATE, "dataset_info.json"} <= names
    if is_stored or any(
        _is_shard(path) for path in entries if path.suffix != ".tar" or not folders
    ):
        return [(folder, folder.name)]
    is_set = bool(names & _SIGNS)
    found: list[tuple[Path, str]] = []
    for path in folders if depth > 1 else ():
        if is_set or path.name in (*SPLITS, "data"):
            found += _places(path, depth - 1)
    if found:
        return found
    texts = [path for path in entries if suffix_of(path) in TEXT_SUFFIXES]
    splits = [path for path in texts if _first_name(path) in SPLITS]
    if is_set and not folders:
        splits = splits or [path for path in texts if path.name not in _SIGNS]
    return [(path, _first_name(path)) for path in splits]


def _is_shard(path: Path) -> bool:
    return suffix_of(path) in SHARD_SUFFIXES and not path.is_dir()


def _is_table(path: Path) -> bool:
    return suffix_of(path) in (*TEXT_SUFFIXES, ".parquet") and not path.is_dir()


def _first_name(path: Path) -> str:
    return path.name.split(".")[0].lower()


def _stored_files(folder: Path) -> list[Path]:
    """Return the files of a folder that `Dataset.save_to_disk` wrote."""
    try:
        is_file = (folder / _STATE).is_file()  # not a pipe, which can block for ever
        state: Any = json.loads((folder / _STATE).read_text("utf-8")) if is_file else {}
        names = [entry["filename"] for entry in state["_data_files"]]
        is_whole = bool(names) and not state.get("_indices_data_files")
        is_whole &= all(name == Path(name).name for name in names)
    except (ValueError, KeyError, TypeError, RecursionError):
        is_whole = False
    if not is_whole:
        raise InputError(
            f"{folder / _STATE}: this is not as `save_to_disk` writes it today: save the data set "
            "again."
        )
    return [folder / name for name in names]


def _shards(folder: Path) -> list[Path]:
    """Return the files of one split: of the training split if there are several."""
    if (folder / "_delta_log").exists():
        raise InputError(
            f"{folder}: this is a Delta table, which can hold outdated rows: write it as parquet."
        )
    entries = [path for path in folder.iterdir() if path.name[0] not in "._" and _is_shard(path)]
    suffix = min((suffix_of(path) for path in entries), key=SHARD_SUFFIXES.index)
    tables: dict[str, list[Path]] = {}
    splits: dict[str, str] = {}
    counts: dict[str, int | None] = {}
    for file in sorted((path for path in entries if suffix_of(path) == suffix), key=_by_number):
        name = split = file.stem
        count: int | None = None
        if shard := _COUNTED.fullmatch(name):
            split, count = shard["split"], int(shard["count"])
            name = split
        else:
            shard = _NUMBERED.fullmatch(name)
            if shard and (shard["split"].lower() in _PARTS or suffix == ".tar"):
                name = split = shard["split"]
        if counts.get(name, count) != count:  # shards of two versions
            name = file.stem
        tables.setdefault(name, []).append(file)
        splits[name], counts[name] = re.split("[-_.]", split)[-1], count
    chosen = choose_split(folder, splits)
    n_files = len(tables[chosen])
    if counts[chosen] not in (None, n_files):
        raise InputError(
            f"{folder}: split {splits[chosen]!r} has {n_files} of its {counts[chosen]} files: "
            "fetch the others."
        )
    return tables[chosen]


def _by_number(path: Path) -> list[str | int]:
    """Return a key that sorts part-2 before part-10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]
