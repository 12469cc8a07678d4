"""`pudistill correct` without its command line: labels and predictions of files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pudistill.data.dataset import TrustedDataset
from pudistill.data.loading import load_dataset
from pudistill.data.table_sources import accepts, open_table
from pudistill.distillation.correction import ROUNDING, CorrectedLabels, correct_labels
from pudistill.exceptions import InputError
from pudistill.labels.table import LabelTable
from pudistill.runs.inputs import with_columns
from pudistill.runs.settings import Settings
from pudistill.utils.shown import listed, shown

ID_COLUMNS = ("id", "ids")


def correct_table(
    settings: Settings, predictions: Path, classes: list[str] | None = None
) -> tuple[CorrectedLabels, LabelTable]:
    """Correct the labels of a table by predictions that a file holds.

    Parameters
    ----------
    settings : Settings
        Where labels and verified labels are, and how they are read.
    predictions : Path
        A table with a column for each class, or an ``.npy`` file of shape (n_samples, n_classes).
    classes : list of str, default=None
        Classes of the columns of an ``.npy`` file.

    Returns
    -------
    corrected : CorrectedLabels
        The result.
    table : LabelTable
        Its label table, with ids.

    Raises
    ------
    InputError
        If a file cannot be read, or labels and predictions do not fit together.
    """
    settings = with_columns(settings)
    dataset = load_dataset(
        settings.data,
        trusted=settings.trusted,
        annotations=settings.annotations,
        **settings.read_options() | {"samples_required": False},
    )
    labels, trusted = dataset.for_fit()
    corrected = correct_labels(
        labels,
        read_predictions(predictions, dataset, classes, settings.id_column),
        trusted if dataset.trusted.any() else None,
        dataset.groups,
        noise_groups=dataset.noise_groups,
        random_state=settings.seed,
        draw_weight=dataset.draws,
    )
    table = replace(corrected.label_arrays, ids=dataset.ids)
    if dataset.marked is not None:  # `for_fit` leaves these given labels out
        table = table.with_given(dataset.marked, dataset.y)
    return corrected, table


def read_predictions(
    path: Path,
    dataset: TrustedDataset,
    classes: list[str] | None = None,
    id_column: str | None = None,
) -> pd.DataFrame:
    """Read predictions of the samples of a data set; columns are named by the classes.

    Parameters
    ----------
    path, classes
        See `correct_table`.
    dataset : TrustedDataset
        The samples.
    id_column : str, default=None
        Column of ids; if the table lacks it, ``id`` or ``ids``, unless that is a class. Without
        any, rows have the order of the samples.
    """
    if path.suffix.lower() != ".npy":
        if classes is not None:
            raise InputError(f"{path} names its columns: leave --classes out.")
        return _read_table(path, dataset, id_column)
    proba, classes = _read_array(path), classes or [*dataset.classes]
    if proba.ndim != 2 or proba.shape[1] != len(classes):
        raise InputError(
            f"{path} has shape {proba.shape}, but there are {len(classes)} classes, "
            f"{listed(classes)}: save a column for each class, in this order."
        )
    return pd.DataFrame(proba, columns=classes)


def _read_array(path: Path) -> np.ndarray:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path}: cannot be read as an array ({error}): save probabilities with numpy.save."
        ) from error
    if not isinstance(found, np.ndarray):
        raise InputError(f"{path} holds several arrays: save one with numpy.save.")
    return found


def _read_table(path: Path, dataset: TrustedDataset, id_column: str | None) -> pd.DataFrame:
    """Read a table of predictions; its rows get the order of the samples if it has their ids."""
    if not accepts(path):
        raise InputError(f"{path} is no table: name a table of predictions, or an .npy file.")
    table = open_table(path)
    names = table.schema.names
    of_ids = id_column if id_column in names else None
    if of_ids is None:
        can_be = (name for name in names if name not in dataset.classes)
        of_ids = next((name for name in can_be if name.lower() in ID_COLUMNS), None)
    read = table.read(names, [] if of_ids is None else [of_ids])
    frame = read.to_pandas(ignore_metadata=True)
    _check_columns(path, frame.drop(columns=[] if of_ids is None else of_ids), dataset)
    if of_ids is None:
        return frame
    ids = pd.Index(frame.pop(of_ids).astype(str))
    wanted = pd.Index(np.asarray(dataset.ids[:], dtype=object)).astype(str)
    if not ids.is_unique:
        raise InputError(f"{path}: the id {shown(ids[ids.duplicated()][0])} occurs twice.")
    if len(lacking := wanted.difference(ids, sort=False)):
        raise InputError(
            f"{path} has no row for {listed(lacking[:3])}"
            f"{f' and {len(lacking) - 3:,} other samples' if len(lacking) > 3 else ''} of "
            f"{dataset.name}: predict them, too."
        )
    return frame.set_index(ids).loc[wanted].reset_index(drop=True)


def _check_columns(path: Path, frame: pd.DataFrame, dataset: TrustedDataset) -> None:
    """Raise `InputError` if columns beside those of the classes are no probabilities."""
    others = [name for name in frame.columns if name not in dataset.classes]
    are_numbers = all(pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes)
    if others and not (are_numbers and np.allclose(frame.sum(axis=1), 1, atol=ROUNDING)):
        raise InputError(
            f"{path} has the column {shown(others[0])}, which is no class of {dataset.name} "
            f"({listed(dataset.classes)}): keep columns of probabilities and ids only."
        )
