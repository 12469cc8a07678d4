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
    frame["label"] = like_known(frame["label"], known)
    annotations = Annotations.from_table(frame, pd.Index(dataset.ids, dtype=object))
    return replace(dataset, y=annotations.vote(), annotations=annotations)
