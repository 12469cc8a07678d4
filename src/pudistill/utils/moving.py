"""Move files so that an interruption at any moment loses none, and all moves can be undone."""

import csv
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePath

from pudistill.exceptions import InputError
from pudistill.utils.files import sync_folder, write_atomic

UNDO_LIST = "undo.csv"
_ABOUT = "# pudistill moves "


def write_undo_list(output: Path, source: Path, pairs: Iterable[tuple[str, str]]) -> Path:
    """Write what is about to be moved, and make sure that it is on the disk.

    Parameters
    ----------
    output : Path
        The folder that files are moved to; it must exist.
    source : Path
        The folder that they come from.
    pairs : iterable of (from, to)
        Paths below `source` and below `output`.

    Returns
    -------
    path : Path
        The list: a line about the folder, and then a line for each file.
    """
    text = io.StringIO()
    text.write(f"{_ABOUT}{json.dumps({'from': str(source.resolve())})}\n")
    csv.writer(text, lineterminator="\n").writerows([("from", "to"), *pairs])
    path = output / UNDO_LIST
    write_atomic(path, text.getvalue().encode())
    sync_folder(output)
    return path


def read_undo_list(path: Path, source: Path) -> list[tuple[Path, Path]]:
    """Read the files of an undo list: where each was, and where it was moved to.

    Parameters
    ----------
    path : Path
        The list.
    source : Path
        The folder of the data; the list must be about it.

    Raises
    ------
    InputError
        If it is no such list, or names files outside the two folders.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            about = str(json.loads(file.readline().removeprefix(_ABOUT))["from"])
            rows = list(csv.reader(file))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{path}: this is no list of moved files ({error}): name one.") from error
    if Path(about) != source.resolve():
        raise InputError(f"{path}: this list is about {about}, and the run about {source}.")
    if not rows or rows[0] != ["from", "to"] or any(map(_leads_out, rows[1:])):
        raise InputError(f"{path}: this list was changed: restore a copy of it.")
    return [(source / old, path.parent / new) for old, new in rows[1:]]


def _leads_out(row: list[str]) -> bool:
    """Return whether a row is no pair of paths that stay within their folders."""
    paths = [PurePath(name) for name in row]
    return len(row) != 2 or any(
        path.anchor or not path.parts or ".." in path.parts for path in paths
    )


def move_all(pairs: Iterable[tuple[Path, Path]]) -> int:
    """Move files, and go on where an earlier attempt was interrupted.

    A file has its new name before it loses the old one, so it has at least one of them at every
    moment.

    Parameters
    ----------
    pairs : iterable of (old, new)
        Paths that the files have, and those that they get. Nobody else may write to the new ones.

    Returns
    -------
    n_moved : int
        Number of files that were moved now.

    Raises
    ------
    InputError
        If a file is at neither path; all others are moved.
    """
    n_moved, lost = 0, []
    for old, new in pairs:
        if not os.path.lexists(old):
            if not os.path.lexists(new):
                lost.append(old)
            continue
        new.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(new) and not _is_same(old, new):
            if not _is_beginning(new, old):
                raise InputError(
                    f"{new} is another file than {old}, which should get this name: rename one."
                )
            new.unlink()  # of a copy that was interrupted
        if not os.path.lexists(new):
            _link_or_copy(old, new)
        old.unlink()
        n_moved += 1
    if lost:
        raise InputError(
            f"{lost[0]} and {len(lost) - 1:,} other files are not there any more: somebody else "
            "moved or removed them."
            if len(lost) > 1
            else f"{lost[0]} is not there any more: somebody else moved or removed it."
        )
    return n_moved


def undo_moves(path: Path, source: Path) -> int:
    """Move the files of an undo list back; return their number. It can be repeated.

    The list and the folders that have become empty are removed at the end.
    """
    pairs = read_undo_list(path, source)
    n_moved = move_all((new, old) for old, new in _unfinished_first(pairs))
    for folder in {new.parent for _, new in pairs}:
        with suppress(OSError):  # it holds something else, or is gone already
            folder.rmdir()
    path.unlink()
    with suppress(OSError):
        path.parent.rmdir()
    return n_moved


def _unfinished_first(pairs: list[tuple[Path, Path]]) -> Iterator[tuple[Path, Path]]:
    """Yield the pairs to move back; a copy whose original is still there is removed instead."""
    for old, new in pairs:
        if os.path.lexists(old):
            if not os.path.lexists(new):
                continue
            if _is_same(old, new) or _is_beginning(new, old):
                new.unlink()  # what was interrupted was the move
                continue
            if not _is_beginning(old, new):
                raise InputError(
                    f"{old} exists again and differs from {new}: move one of them away."
                )
            old.unlink()  # what was interrupted was an undo
        yield old, new


def _is_same(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.samefile(second)


def _is_beginning(part: Path, whole: Path) -> bool:
    """Return whether one file holds the beginning of another one, or all of it."""
    with part.open("rb") as first, whole.open("rb") as second:
        while block := first.read(2**20):
            if block != second.read(len(block)):
                return False
    return True


def _link_or_copy(old: Path, new: Path) -> None:
    """Give a file a second name or, on another disk, copy it; an existing file stays."""
    try:
        os.link(old, new, follow_symlinks=False)
        return
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # another disk, or one without links
        pass
    with old.open("rb") as source, new.open("xb") as target:
        shutil.copyfileobj(source, target, 2**20)
        target.flush()
        os.fsync(target.fileno())
    shutil.copystat(old, new)
    sync_folder(new.parent)
