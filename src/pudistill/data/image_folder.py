"""Image folders: `DIR/<label>/<file>`."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pudistill.data.columns import no_labels, object_array
from pudistill.data.dataset import TrustedDataset
from pudistill.data.pictures import SUFFIXES, decode_pictures
from pudistill.data.table_sources import SPLITS, choose_split
from pudistill.exceptions import InputError

if TYPE_CHECKING:
    from pudistill.data.options import ReadOptions

_IGNORED_FILES = {"thumbs.db", "desktop.ini"}


def accepts(path: Path) -> bool:
    """Return whether `path` is a folder."""
    return path.is_dir()


def read(folder: Path, options: "ReadOptions") -> TrustedDataset:
    """Read the pictures of a folder, which need no folders of labels if labels are optional."""
    found = find_pictures(folder, options)
    decoded = decode_pictures(folder, found.ids, found.files, **options.picture_options())
    n_samples = len(decoded.rows)
    return TrustedDataset(
        X=decoded.X,
        y=object_array(found.labels)[decoded.rows],
        trusted=np.zeros(n_samples, dtype=bool),
        verified=no_labels(n_samples),
        ids=object_array(found.ids)[decoded.rows],
        name=folder.resolve().name,
        skipped=(*found.skipped, *decoded.skipped),
    )


class FoundPictures(NamedTuple):
    """The pictures of a folder, before they are decoded."""

    files: list[Path]
    ids: list[str]
    labels: list[str | None]
    skipped: list[tuple[str, str]]
    """Id and reason of each file that is no picture."""


def find_pictures(folder: Path, options: "ReadOptions") -> FoundPictures:
    """Find the pictures of a folder and their labels; of several splits, the training split's."""
    folder = training_folder(folder)
    entries = _entries(folder)
    pictures = [path for path in entries if _is_picture(path)]
    label_folders = [path for path in entries if path.is_dir()]
    if not pictures and not any(map(_entries, label_folders)):
        raise InputError(f"{folder}: there is no picture in this folder or its subfolders.")
    labels: list[str | None]
    skipped: list[tuple[str, str]] = []
    if label_folders:
        if pictures:
            raise InputError(
                f"{pictures[0]}: this picture lies beside the folders of the labels: move it into "
                "the folder of its label."
            )
        for label_folder in label_folders:
            pictures += _pictures_of_label(folder, label_folder, options, skipped)
        labels = [path.parent.name for path in pictures]
    elif options.labels_required:
        raise InputError(
            f"{pictures[0]}: this picture has no label: put it into a folder that is named after "
            f"its label, {folder}/<label>/{pictures[0].name}."
        )
    else:
        labels = [None] * len(pictures)
    ids = [path.relative_to(folder).as_posix() for path in pictures]
    return FoundPictures(pictures, ids, labels, skipped)


def training_folder(folder: Path) -> Path:
    """Return the folder of the training split if all folders of labels lie in folders of splits."""
    splits = {path.name: path for path in _entries(folder) if path.is_dir()}
    if not splits or not all(
        name.lower() in SPLITS and any(path.is_dir() for path in _entries(splits[name]))
        for name in splits
    ):
        return folder
    return splits[choose_split(folder, {name: name for name in splits})]


def _pictures_of_label(
    folder: Path, label_folder: Path, options: "ReadOptions", skipped: list[tuple[str, str]]
) -> list[Path]:
    pictures = []
    for path in _entries(label_folder):
        if path.is_dir():
            raise InputError(
                f"{path}: this folder lies too deep: pictures are expected at "
                f"{folder}/<label>/<file>; move them up, or name {label_folder} as the data."
            )
        if _is_picture(path):
            pictures.append(path)
        elif options.skip_bad:
            skipped.append((path.relative_to(folder).as_posix(), "not a picture"))
        else:
            raise InputError(
                f"{path}: this file is not a picture: remove it, or leave such files out with "
                "--skip-bad. Texts are read from a table with a row for each text."
            )
    return pictures


def _entries(folder: Path) -> list[Path]:
    """Return the sorted entries of a folder, without hidden files and files of file managers."""
    names = sorted(
        name
        for name in (path.name for path in folder.iterdir())
        if not name.startswith(".") and name.lower() not in _IGNORED_FILES
    )
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"{folder}: the file name {name!r} is not valid UTF-8: rename the file."
            ) from None
    return [folder / name for name in names]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()
