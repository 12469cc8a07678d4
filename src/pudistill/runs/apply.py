"""`pudistill apply`: a corrected copy of the data of a run."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pudistill.data.columns import like_known, no_labels, row_numbers
from pudistill.data.corrected_copy import NewLabels, write_corrected, write_corrected_npz
from pudistill.data.image_folder import find_pictures, training_folder
from pudistill.data.loading import load_dataset
from pudistill.data.options import ReadOptions, ReadSettings
from pudistill.data.pictures import find_picture
from pudistill.data.readers import find_format
from pudistill.data.table_sources import open_table
from pudistill.data.tables import identify, label_column, picture_column
from pudistill.distillation.certified_labels import check_share
from pudistill.exceptions import InputError
from pudistill.runs.certificates import FILE, certify_run
from pudistill.runs.folder import Run, to_csv
from pudistill.runs.inputs import names_after_merging
from pudistill.utils.files import TEMPORARY, can_name_folder, sync_folder, write_atomic
from pudistill.utils.moving import (
    UNDO_LIST,
    move_all,
    read_undo_list,
    undo_moves,
    write_undo_list,
)
from pudistill.utils.shown import listed, shown

REVIEW = "review.csv"
WAYS = ("copy", "hardlink", "symlink", "move")
"""How pictures come into the folder of their class."""
LINKS: dict[str, Callable[[Path, Path], object]] = {
    "copy": shutil.copy2,
    "hardlink": os.link,
    "symlink": os.symlink,
}


class Applied(NamedTuple):
    """What `apply_run` did, or would do.

    Attributes
    ----------
    n_samples : int
        Samples of the run.
    changes : DataFrame
        The changes that were made: ``id``, ``given``, ``label`` and ``confidence``; of pictures
        also ``file``, the new place below the output.
    review : DataFrame
        The samples that keep their given label and should be looked at: changes that are not
        certified, and outliers. Columns ``id``, ``given``, ``label`` (the suggested one),
        ``confidence`` and ``outlier``.
    review_file : Path or None
        Where these are listed; None if there are none.
    undo_list : Path or None
        The list of moved pictures.
    """

    n_samples: int
    changes: pd.DataFrame
    review: pd.DataFrame
    review_file: Path | None
    undo_list: Path | None


def apply_run(
    run: Run,
    output: Path,
    *,
    certified: bool = False,
    max_error: float = 0.01,
    link: str = "copy",
    dry_run: bool = False,
) -> Applied:
    """Write a corrected copy of the data of a run, in the format that they have.

    A table keeps its columns, rows and their order; its labels are corrected, and the columns
    ``given`` (the labels as they were), ``confidence`` and ``accepted`` (whether the label is
    certified at `max_error`) are added. Pictures get into the folder of their class. A sample that
    was verified as no class gets that label. Outliers that nobody verified keep their given label
    and are listed for review, unless their label is certified and only such ones are changed.

    Parameters
    ----------
    run : Run
        A finished run of `pudistill fit`.
    output : Path
        The copy, a file or a folder, which must not exist yet.
    certified : bool, default=False
        Whether only certified labels are changed; all other changes are listed for review.
    max_error : float in (0, 1), default=0.01
        Largest share of wrong labels among the certified ones that nobody verified.
    link : {"copy", "hardlink", "symlink", "move"}, default="copy"
        How pictures come into `output`. Only "move" touches the data: it writes a list that undoes
        it first, and goes on after an interruption if the command is repeated.
    dry_run : bool, default=False
        Whether nothing is written.

    Returns
    -------
    applied : Applied
        The changes.

    Raises
    ------
    InputError
        If the data are not those of the run any more, or the copy cannot be written.

    Examples
    --------
    >>> from pathlib import Path
    >>> from pudistill.runs.apply import apply_run
    >>> from pudistill.runs.folder import Run
    >>> apply_run(Run.open_fit(Path("run")), Path("corrected.csv"))  # doctest: +SKIP
    """
    if link not in WAYS:
        raise InputError(f"--link cannot be {shown(link)}: it is one of {listed(WAYS)}.")
    check_share("max_error", max_error)
    source, options = data_of(run)
    known = find_format(source)
    if known is None:
        raise InputError(f"{source} is not the data that were fitted any more: put them back.")
    if link != "copy" and known.module != "image_folder":
        raise InputError(f"{source} is no folder of pictures: leave --link out.")
    if link == "move" and not dry_run and (output / UNDO_LIST).is_file():
        return _go_on(run, source, output, certified, max_error)
    review_file = _check_free(output, is_folder=source.is_dir())
    if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{output} lies within the data, {source}: choose another --output.")
    labels = _decide(run, certified, max_error)
    copiers = {"tables": _copy_table, "npz": _copy_npz, "image_folder": _copy_pictures}
    if known.module not in copiers:
        raise InputError(
            f"{source}: a corrected copy of this format cannot be written: "
            "pudistill.load(RUN).to_datasets().to_parquet(FILE) writes one as parquet."
        )
    plan = copiers[known.module](run, source, options, labels, output)
    applied = _applied(labels, plan, review_file, output if link == "move" else None)
    if not dry_run:
        plan.write(link, applied)
    return applied


def undo_run(run: Run, undo_list: Path) -> int:
    """Move the pictures of a run back; return their number. See `undo_moves`."""
    source, _ = data_of(run)
    return undo_moves(undo_list, training_folder(source))


class _Plan(NamedTuple):
    """How the copy is written, and the place of each sample of the run in it, if it is a file."""

    write: Callable[[str, Applied], None]
    files: pd.Series | None = None


def data_of(run: Run) -> tuple[Path, ReadOptions]:
    """Return the data of a run, and how they were read."""
    config = run.read_config()
    if config.get("noise") is not None:
        raise InputError(
            f"{run.path} is an experiment with artificial noise, whose data have right labels: "
            "there is nothing to correct."
        )
    if merge := config.get("merge"):
        raise InputError(
            f"{run.path} has merged classes ({listed(merge)}), and a corrected copy would mix "
            "their old and new names: take the labels from its labels.csv."
        )
    if added := config.get("added"):
        raise InputError(
            f"{run.path} has learned from several batches, and a corrected copy is of one: join "
            f"the corrected labels in {run.path / 'labels.csv'} to {config['data']} and "
            f"{listed(added)} by their ids."
        )
    settings = {name: config[name] for name in ReadSettings.model_fields if name in config}
    source = Path(config["data"])
    if not source.exists():
        problem = (
            "is not there any more: put them back"
            if source.is_absolute()
            else ("are no file or folder, but a data set of scikit-learn: there is nothing to copy")
        )
        raise InputError(f"The data of {run.path}, {source}, {problem}.")
    held_out = {"labels_required": False, "columns_required": True}
    return source, ReadOptions.read(settings | held_out)


def _check_free(output: Path, *, is_folder: bool) -> Path:
    """Return where the samples to review are listed; raise `InputError` if anything is there."""
    review_file = output / REVIEW if is_folder else output.with_name(f"{output.stem}-{REVIEW}")
    for path in (output, review_file):
        if os.path.lexists(path):
            raise InputError(f"{path} already exists: choose another --output.")
    if not output.absolute().parent.is_dir():
        raise InputError(f"{output.parent} is not a folder: make it, or choose another --output.")
    return review_file


def _decide(run: Run, certified: bool, max_error: float) -> pd.DataFrame:
    """Return what every sample of the run gets.

    The columns ``given``, ``label`` (missing where there is none) and its ``confidence``;
    ``suggested`` and ``suggested_confidence``, what the run proposes; ``accepted``, ``differs``
    (from the given label), ``outlier`` and ``review``.
    """
    table = run.read_table("labels").set_index("id")
    label, accepted = table["label"].astype(object), pd.Series(None, table.index, dtype=object)
    if certified or run.has(FILE):
        try:
            _, judged = certify_run(run, max_error, 0.95)
        except InputError:
            if certified:
                raise
        else:
            of_certified = judged["label"].astype(object).set_axis(table.index)
            is_accepted = judged["accepted"].astype(bool).set_axis(table.index)
            if certified:
                label = of_certified
                table["confidence"] = judged["confidence"].set_axis(table.index)
            accepted = (is_accepted & (of_certified == label)).astype(object)
    given = table["given"].astype(object).where(table["given"].notna(), None)
    trusted = table["trusted"].astype(bool)
    outlier = table["outlier"].eq(True).fillna(False).astype(bool) & ~trusted
    is_kept = ~accepted.astype(bool) if certified else outlier
    written = label.where(~is_kept, given)
    is_other = is_kept & (label != given)
    quality = table.get("given_quality", np.nan)
    return pd.DataFrame(
        {
            "given": given,
            "label": written.where(written.notna(), None),
            "suggested": label,
            "confidence": table["confidence"].astype(float).mask(is_other, quality),
            "suggested_confidence": table["confidence"].astype(float),
            "accepted": accepted.where(accepted.isna() | ~is_other, False).replace({np.nan: None}),
            "differs": written.notna() & (written != given),
            "outlier": outlier,
            "review": is_other | (outlier & is_kept),
        }
    )


def _applied(
    labels: pd.DataFrame, plan: _Plan, review_file: Path, moved_to: Path | None
) -> Applied:
    changes = labels.loc[labels["differs"], ["given", "label", "confidence"]]
    if plan.files is not None:
        changes = changes.assign(file=plan.files.reindex(changes.index))
    columns = ["given", "suggested", "suggested_confidence", "outlier"]
    review = labels.loc[labels["review"], columns]
    review = review.rename(columns={"suggested": "label", "suggested_confidence": "confidence"})
    return Applied(
        len(labels),
        changes.reset_index(names="id"),
        review.reset_index(names="id"),
        review_file if len(review) else None,
        None if moved_to is None else moved_to / UNDO_LIST,
    )


def _write_review(applied: Applied, folder: Path | None = None) -> None:
    """List the samples to review, in `folder` if the output is still being made there."""
    if applied.review_file is not None:
        path = applied.review_file if folder is None else folder / applied.review_file.name
        write_atomic(path, to_csv(applied.review).encode())


def rows_of(run: Run, source: Path, labels: pd.DataFrame, ids: Any, given: Any) -> np.ndarray:
    """Return the row of each sample of the data in `labels`; -1 for one that took no part.

    Raises
    ------
    InputError
        If ids or given labels are not those of the run.
    """
    rows = labels.index.get_indexer(pd.Index(np.asarray(ids, dtype=object)))
    config, here = run.read_config(), np.asarray(ids, dtype=object)
    if len(missing := labels.index.difference(pd.Index(here))):
        raise InputError(
            f"{source}: {len(missing):,} of {len(labels):,} samples of the run are not there any "
            f"more, such as {shown(missing[0])}: restore the data that were fitted."
        )
    may_lack = config.get("test_fraction") is not None or config.get("skip_bad")
    if not may_lack and (rows < 0).any():
        raise InputError(
            f"{source}: {(rows < 0).sum():,} samples were not there when it was fitted, such as "
            f"{shown(here[rows < 0][0])}: fit again, or remove them."
        )
    if given is not None:
        known = np.flatnonzero(rows >= 0)
        then = labels["given"].astype(object)
        fitted = then.where(then.notna(), None).to_numpy()[rows[known]]
        new_names = names_after_merging(config.get("merge", []))
        now = np.array([new_names.get(label, label) for label in given], dtype=object)[known]
        is_other = (fitted != now) & (fitted != None) & (now != None)  # noqa: E711
        if is_other.any():
            first = int(np.argmax(is_other))
            raise InputError(
                f"{source}: the labels of {is_other.sum():,} samples have changed since the fit: "
                f"that of {shown(here[known[first]])} was {shown(fitted[first])} and is "
                f"{shown(now[first])}: restore the data that were fitted, or fit again."
            )
    return rows


def _new_labels(
    labels: pd.DataFrame, rows: np.ndarray, given: Any, no_class_label: str | None
) -> NewLabels:
    """Return the labels of a copy in the order of the data; samples without a result keep them."""
    took_part = rows >= 0
    of_run = labels.iloc[np.maximum(rows, 0)]
    nothing = no_labels(len(rows))
    here = nothing if given is None else np.asarray(given, object)
    return NewLabels(
        label=np.where(took_part, of_run["label"].to_numpy(), here),
        differs=took_part & of_run["differs"].to_numpy(),
        given=np.where(took_part, of_run["given"].to_numpy(), here),
        confidence=np.where(took_part, of_run["confidence"].to_numpy(), np.nan),
        accepted=np.where(took_part, of_run["accepted"].to_numpy(), nothing),
        no_class_label=no_class_label,
    )


def _copy_table(
    run: Run, source: Path, options: ReadOptions, labels: pd.DataFrame, output: Path
) -> _Plan:
    table = open_table(source, options.encoding)
    ids, given = identify(source, table, options)
    column = label_column(source, table, options)
    if run.read_config().get("annotations") is not None:  # the labels are those of another table
        column, given = None, None
    if given is not None:  # a column with gaps may have the class 1 as 1.0
        has_label, known = given != None, {*labels["given"]} - {None}  # noqa: E711
        given[has_label] = like_known(given[has_label], known)
    if ids is None:
        name = table.schema.names[0]
        ids = row_numbers(len(table.read([name], [name]) if given is None else given))
    rows = rows_of(run, source, labels, ids, given)
    beside = _pictures_beside(source, table, options)
    if beside and not source.is_dir() and output.absolute().parent != table.folder.absolute():
        raise InputError(
            f"{source} names its pictures by paths beside it: name an --output in "
            f"{table.folder}, or the copy would not find them."
        )

    def write(_: str, applied: Applied) -> None:
        new = _new_labels(labels, rows, given, options.no_class_label)
        if not source.is_dir():
            write_corrected(source, table, output, column, given, new)
            _write_review(applied)
            return
        with _new_folder(output) as folder:
            write_corrected(source, table, folder, column, given, new)
            for path in beside:
                place = folder / path
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(table.folder / path, place)
            _write_review(applied, folder)

    return _Plan(write)


def _pictures_beside(source: Path, table: Any, options: ReadOptions) -> list[Path]:
    """Return the relative paths of the pictures of a table, in a folder that holds both."""
    column = picture_column(source, table, options)
    found = []
    for value in chain.from_iterable(() if column is None else table.batches(column)):
        path = value.get("path") if isinstance(value, dict) and not value.get("bytes") else value
        if not isinstance(path, str) or Path(path).is_absolute() or ".." in Path(path).parts:
            continue
        if not source.is_dir():
            return [Path(path)]  # one is enough to know
        found.append(find_picture(table.folder, path).relative_to(table.folder))
    return found


def _copy_npz(
    run: Run, source: Path, options: ReadOptions, labels: pd.DataFrame, output: Path
) -> _Plan:
    settings = options.model_dump(include=set(ReadSettings.model_fields)) | {"lazy": True}
    dataset = load_dataset(source, labels_required=False, columns_required=False, **settings)
    rows = rows_of(run, source, labels, dataset.ids, dataset.y)

    def write(_: str, applied: Applied) -> None:
        new = _new_labels(labels, rows, dataset.y, options.no_class_label)
        write_corrected_npz(source, output, dataset.y, new)
        _write_review(applied)

    return _Plan(write)


def _copy_pictures(
    run: Run, source: Path, options: ReadOptions, labels: pd.DataFrame, output: Path
) -> _Plan:
    found = find_pictures(source, options.model_copy(update={"skip_bad": True}))
    rows = rows_of(run, source, labels, found.ids, found.labels)
    new = labels["label"].to_numpy()
    written = [
        str(new[row] if row >= 0 else given) for row, given in zip(rows, found.labels, strict=True)
    ]
    places = _places(source, found.ids, written)
    below = training_folder(source)

    def write(link: str, applied: Applied) -> None:
        if link == "move":
            links = [file for file in found.files if file.is_symlink()]
            if links:
                raise InputError(f"{links[0]} is a link: move the file itself, or use --link copy.")
            with _new_folder(output) as folder:
                _write_review(applied, folder)
                write_undo_list(folder, below, zip(found.ids, places, strict=True))
            move_all(
                (below / old, output / new) for old, new in zip(found.ids, places, strict=True)
            )
            return
        with _new_folder(output) as folder:
            for file, place in zip(found.files, places, strict=True):
                (folder / place).parent.mkdir(exist_ok=True)
                _put(link, file.absolute(), folder / place)
            _write_review(applied, folder)

    return _Plan(write, pd.Series(places, index=pd.Index(found.ids, dtype=object)))


def _places(source: Path, ids: list[str], written: list[str]) -> list[str]:
    """Return the new place of each picture; where a name is taken, the old class is added."""
    for name in {*written}:
        if not can_name_folder(name):
            raise InputError(
                f"{source}: the class {shown(name)} cannot be the name of a folder: rename it."
            )
    # Names on some disks do not differ by case alone.
    stay = {
        f"{label}/{name.rsplit('/', 1)[-1]}"
        for name, label in zip(ids, written, strict=True)
        if name.split("/")[0] == label
    }
    taken, places = {place.casefold() for place in stay}, []
    for name, label in zip(ids, written, strict=True):
        old, file = name.rsplit("/", 1)
        place = f"{label}/{file}"
        if old != label:
            stem, suffix = Path(file).stem, Path(file).suffix
            counts = iter(range(2, len(ids) + 3))
            other = f"{label}/{stem}-{old}{suffix}"
            while place.casefold() in taken:
                place, other = other, f"{label}/{stem}-{old}-{next(counts)}{suffix}"
            taken.add(place.casefold())
        places.append(place)
    return places


def _put(link: str, file: Path, place: Path) -> None:
    try:
        LINKS[link](file, place)
    except OSError as error:
        if link == "copy":
            raise
        raise InputError(
            f"{file}: no {link} can be made in {place.parent.parent} ({error.strerror}): use "
            "--link copy."
        ) from error


@contextmanager
def _new_folder(output: Path) -> Iterator[Path]:
    """Make a folder that gets its name only when everything is in it."""
    folder = output.with_name(f".{output.name}{TEMPORARY}")
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    folder.mkdir()
    try:
        yield folder
        folder.rename(output)
        sync_folder(output.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _go_on(run: Run, source: Path, output: Path, certified: bool, max_error: float) -> Applied:
    """Finish a move that was interrupted."""
    below = training_folder(source)
    pairs = read_undo_list(output / UNDO_LIST, below)
    if not any(old.exists() for old, _ in pairs):
        raise InputError(f"{output} already exists: choose another --output.")
    labels = _decide(run, certified, max_error)
    move_all(pairs)
    places = pd.Series(
        [new.relative_to(output).as_posix() for _, new in pairs],
        index=pd.Index([old.relative_to(below).as_posix() for old, _ in pairs], dtype=object),
    )
    review_file = output / REVIEW
    return _applied(labels, _Plan(lambda *_: None, places), review_file, output)


def summary_of(applied: Applied, *, dry_run: bool) -> str:
    """Return what was done in a sentence or two."""
    pairs = Counter(zip(applied.changes["given"], applied.changes["label"], strict=True))
    verb = "would be" if dry_run else "are"
    text = (
        f"{len(applied.changes):,} of {applied.n_samples:,} labels {verb} changed"
        f" ({len(pairs):,} pairs of classes)."
    )
    if applied.review_file is not None:
        text += (
            f" {len(applied.review):,} samples keep their given label and {verb} listed for review "
            f"in {applied.review_file}."
        )
    return text
