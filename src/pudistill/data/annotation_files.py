"""Files of annotations: the labels that several sources gave, one row for each."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from pudistill.data.annotations import Annotations
from pudistill.data.columns import like_known, without_decimals
from pudistill.data.dataset import TrustedDataset
from pudistill.data.options import ReadOptions
from pudistill.data.table_columns import read_names
from pudistill.data.table_files import as_table_error
from pudistill.data.table_sources import accepts, open_table
from pudistill.data.tables import ID_COLUMNS, LABEL_COLUMNS
from pudistill.exceptions import DataWarning, InputError, warn_user
from pudistill.utils.shown import listed

SOURCE_COLUMNS = ("source", "worker", "annotator", "rater", "labeler", "rule")


def with_annotations(dataset: TrustedDataset, path: Path, options: ReadOptions) -> TrustedDataset:
    """Return the data set with the labels that a file of annotations holds.

    Parameters
    ----------
    dataset : TrustedDataset
        The samples.
    path : Path
        A table with columns of ids (called as in the data, or ``id``), sources and labels.
    options : ReadOptions
        The options with which the data were read.

    Returns
    -------
    dataset : TrustedDataset
        `y` is the majority vote.

    Raises
    ------
    InputError
        If the file cannot be read, lacks a column, or names an unknown sample.
    """
    if not path.is_file() or not accepts(path):
        raise InputError(f"{path}: there is no such table of annotations: correct its name.")
    table = open_table(path, options.encoding)
    names = table.schema.names
    roles = {
        "id": next((n for n in (options.id_column, *ID_COLUMNS[:1]) if n in names), None),
        "source": next((n for n in SOURCE_COLUMNS if n in names), None),
        "label": next((n for n in (options.label_column, *LABEL_COLUMNS) if n in names), None),
    }
    if lacking := [role for role, name in roles.items() if name is None]:
        raise InputError(
            f"{path}: there is no column of {listed(lacking)} among {listed(names)}: annotations "
            "need the columns id (called as in the data), source and label, one row for each label "
            "that somebody gave."
        )
    wanted = [str(name) for name in roles.values()]
    with as_table_error(path):
        columns = table.read(wanted, as_text=wanted)
    ids, source, label = (read_names(path, table.schema, n, columns[n]) for n in wanted)
    if any(given is not None for given in dataset.y):
        warn_user(
            f"{dataset.name}: its own labels are not used, because {path} has those of several "
            "sources: add them there as a source, or drop them.",
            DataWarning,
        )
    (label,) = without_decimals([label])
    known = {*dataset.verified} - {None}
    frame = pd.DataFrame({"id": ids, "source": source, "label": label}, dtype=object)
    frame = frame[frame["label"].notna()]
    if frame.empty:
        raise InputError(f"{path} holds no label: add a row for each label that somebody gave.")
    if (is_blank := frame["id"].isna()).any():
        raise InputError(
            f"{path}: row {frame.index[is_blank][0]} (counted from 0) has no id in column "
            f"{wanted[0]!r}: give every row the id of its sample."
        )
    frame["id"] = like_known(frame["id"], {*dataset.ids})
    frame["label"] = like_known(frame["label"], known)
    annotations = Annotations.from_table(frame, pd.Index(dataset.ids, dtype=object))
    _point_out_labels(dataset, {*frame["label"]})
    return replace(dataset, y=annotations.vote(), annotations=annotations)


def _point_out_labels(dataset: TrustedDataset, classes: set[str]) -> None:
    """Warn if features look like labels, as columns of the same sources would."""
    if not dataset.is_frame:
        return
    words = dataset.X.select_dtypes(["object", "string", "category"])
    found = [name for name in words if {*words[name].dropna().unique()} <= classes]
    if found:
        warn_user(
            f"{dataset.name}: {listed(found)} hold names of classes only and are used as features: "
            "drop these columns if they are labels.",
            DataWarning,
        )
