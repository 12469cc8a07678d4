"""Clothing1M as its authors distribute it: lists of keys, labels by key, and a tree of pictures.

The training data are the noisy samples and the clean training samples, which are trusted; many
trusted samples also have a noisy label. Samples of a list of clean keys, such as the test samples,
get their clean labels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pudistill.data.columns import object_array
from pudistill.data.dataset import TrustedDataset
from pudistill.data.pictures import decode_pictures
from pudistill.exceptions import InputError

if TYPE_CHECKING:
    from pudistill.data.options import ReadOptions

CLASSES = (
    *("T-Shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker", "Jacket"),
    *("Down Coat", "Suit", "Shawl", "Dress", "Vest", "Underwear"),
)
_NOISY_TRAIN, _CLEAN_TRAIN = "noisy_train_key_list.txt", "clean_train_key_list.txt"
_CLEAN = (_CLEAN_TRAIN, "clean_val_key_list.txt", "clean_test_key_list.txt")
_NOISY_LABELS, _CLEAN_LABELS = "noisy_label_kv.txt", "clean_label_kv.txt"
_N_SHOWN = 5


def accepts(path: Path) -> bool:
    """Return whether `path` is Clothing1M's folder or one of its lists of clean keys."""
    return path.name in _CLEAN or (path.is_dir() and _has_lists(lists_of(path)))


def read(path: Path, options: "ReadOptions") -> TrustedDataset:
    """Read the training data of a folder, or the samples of a list of clean keys."""
    path = path.resolve()
    lists = lists_of(path) if path.is_dir() else path.parent
    clean_labels = _labels(lists / _CLEAN_LABELS)
    noisy_labels = {}
    if path.is_dir():
        noisy_labels = _labels(lists / _NOISY_LABELS)
        noisy, clean = (_keys(lists / name) for name in (_NOISY_TRAIN, _CLEAN_TRAIN))
        _require_labels(noisy, noisy_labels, lists / _NOISY_LABELS)
    else:
        noisy, clean = [], _keys(path)
    _require_labels(clean, clean_labels, lists / _CLEAN_LABELS)
    keys = [*noisy, *clean]
    given = [noisy_labels.get(key) for key in noisy]
    # Samples of another list have no noisy label: they get their clean label.
    given += [(noisy_labels if path.is_dir() else clean_labels).get(key) for key in clean]
    verified = [None] * len(noisy) + [clean_labels[key] for key in clean]

    home = lists.parent if lists.name == "annotations" else lists
    files = {key: _picture(home, key) for key in keys}
    missing = [key for key in keys if files[key] is None]
    if missing and not options.skip_bad:
        shown = ", ".join(missing[:_N_SHOWN])
        raise InputError(
            f"{home}: {len(missing):,} of {len(keys):,} pictures are missing, the first are "
            f"{shown}: fetch them, or leave them out with --skip-bad."
        )
    found = np.array([n for n, key in enumerate(keys) if files[key] is not None], dtype=np.intp)
    ids = [keys[n] for n in found]
    decoded = decode_pictures(home, ids, (files[key] for key in ids), **options.picture_options())
    rows = found[decoded.rows]
    return TrustedDataset(
        X=decoded.X,
        y=object_array(given)[rows],
        trusted=rows >= len(noisy),
        verified=object_array(verified)[rows],
        ids=object_array(keys)[rows],
        name=home.name,
        skipped=(*((key, "missing") for key in missing), *decoded.skipped),
    )


def lists_of(folder: Path) -> Path:
    """Return the folder that holds the lists: ``annotations`` or the data set's own."""
    annotations = folder / "annotations"
    return annotations if _has_lists(annotations) else folder


def _has_lists(lists: Path) -> bool:
    """Return whether any list exists; `read` reports the lists that are missing."""
    names = (_NOISY_TRAIN, *_CLEAN, _NOISY_LABELS, _CLEAN_LABELS)
    return any((lists / name).is_file() for name in names)


def _keys(file: Path) -> list[str]:
    keys = [line.strip() for line in _lines(file)]
    for number, key in enumerate(keys, start=1):
        if key.startswith("/") or ".." in key.split("/"):
            raise InputError(
                f"{file}, line {number}: {key!r} leads out of the data set: fetch the list again."
            )
    return keys


def _labels(file: Path) -> dict[str, str]:
    """Return class names by key; each line holds a key, a space and a number from 0 to 13."""
    labels = {}
    for number, line in enumerate(_lines(file), start=1):
        key, _, code = line.strip().rpartition(" ")
        if not (key and code.isdecimal() and int(code) < len(CLASSES)):
            raise InputError(
                f"{file}, line {number}: expected a key and a label from 0 to {len(CLASSES) - 1}, "
                f"but found {line.strip()[:80]!r}: fetch the file again."
            )
        labels[key.rstrip()] = CLASSES[int(code)]
    return labels


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        raise InputError(f"{file}: this part of Clothing1M is missing: fetch it.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: this is not a text file ({error}): fetch it again.") from error
    return [line for line in text.splitlines() if line.strip()]


def _require_labels(keys: Sequence[str], labels: dict[str, str], file: Path) -> None:
    absent = [key for key in keys if key not in labels]
    if absent:
        raise InputError(
            f"{file}: there is no label for {len(absent):,} of {len(keys):,} keys, the first are "
            f"{', '.join(absent[:_N_SHOWN])}: fetch the file again."
        )


def _picture(home: Path, key: str) -> Path | None:
    """Return the file of a key, ``images/0/1/name.jpg``, with or without the folder ``images``."""
    places = (home / key, home / key.removeprefix("images/"))
    return next((place for place in places if place.is_file()), None)
