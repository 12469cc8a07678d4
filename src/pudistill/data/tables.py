"""Tables with a column of pictures or of texts, or with features."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from pudistill.data.annotations import Annotations
from pudistill.data.columns import (
    complete_trust,
    no_labels,
    object_array,
    row_numbers,
    without_decimals,
)
from pudistill.data.dataset import TrustedDataset
from pudistill.data.feature_columns import unfit_by_content, unfit_by_name
from pudistill.data.frames import spread_lists
from pudistill.data.json_files import refuse_choices
from pudistill.data.pictures import Encoded, decode_pictures, find_picture
from pudistill.data.table_columns import (
    is_words,
    read_features,
    read_ids,
    read_labels,
    read_marks,
    read_names,
)
from pudistill.data.table_files import Table, as_table_error, is_text_or_bytes
from pudistill.data.table_sources import accepts, open_table
from pudistill.exceptions import DataWarning, InputError, warn_user
from pudistill.utils.shown import by_reason, listed

if TYPE_CHECKING:
    from pudistill.data.options import ReadOptions

__all__ = ["accepts", "read"]

TRUE_LABEL = "true_label"
VERIFIED_LABEL = "verified_label"
# pandas writes the row numbers of a data frame as a first column without a name.
ID_COLUMNS = ("id", "", "Unnamed: 0")
LABEL_COLUMNS = ("label", "labels", "y", "target", "class", "choice")
TEXT_COLUMNS = ("text", "sentence", "review", "comment", "document")
IMAGE_COLUMNS = ("image", "img", "picture", "photo", "file_name")
_PATTERN = re.compile(r"[*?\[]")
NO_FEATURES = ("label", "labels", "true", "truth", "trusted", *ID_COLUMNS)


def read(path: Path, options: "ReadOptions") -> TrustedDataset:
    """Read a table; the options, or else the names of its columns, say what each column holds."""
    return read_table(path, open_table(path, options.encoding), options)


def read_table(path: Path, table: Table, options: "ReadOptions") -> TrustedDataset:
    """Read an open table; `path` is its name in messages."""
    roles = _assign_roles(path, table.schema, options)
    with as_table_error(path):
        columns = table.read([*roles.texts, *roles.features], as_text=roles.texts)
    dataset = _without_samples(path, table.schema, roles, columns)
    if roles.image is not None:
        return _with_pictures(path, table, roles.image, dataset, options)
    if roles.text is not None:
        if roles.unused and options.columns_required:
            warn_user(
                f"{path}: the samples are the texts of column {roles.text!r}, and "
                f"{listed(roles.unused)} are not used: drop the texts to learn from these columns.",
                DataWarning,
            )
        texts = read_names(path, table.schema, roles.text, columns[roles.text])
        return replace(dataset, X=object_array(text or "" for text in texts))
    features = spread_lists(path, columns.select(roles.features))
    if options.columns_required:  # in training data
        unfit = unfit_by_content(features, (dataset.y, dataset.true_labels))
        if reasons := roles.unfit | unfit:
            warn_user(
                f"{path}: these columns are not used: {by_reason(reasons)}: rename or encode those "
                "that are features.",
                DataWarning,
            )
        features = features.drop_columns([*unfit])
    X = read_features(path, features, dataset.ids)
    return replace(dataset, X=X, feature_names=tuple(features.column_names) or None)


def _without_samples(
    path: Path, schema: pa.Schema, roles: "_Roles", columns: pa.Table
) -> TrustedDataset:
    """Return the ids, labels, trust and groups of the rows."""

    def names(role: str | None) -> np.ndarray | None:
        return None if role is None else read_labels(path, schema, role, columns[role])

    n_samples = columns.num_rows
    ids = row_numbers(n_samples)
    if roles.id is not None:
        ids = read_ids(path, schema, roles.id, columns[roles.id])
    label_roles = (roles.label, roles.verified_label, roles.true_label, *roles.sources)
    y, verified, true_labels, *of_sources = found = _labels(*map(names, label_roles))
    for role, labels in zip(label_roles, found, strict=True):
        if role is not None and labels is not None:
            refuse_choices(path, role, labels)
    annotations = None
    if of_sources:
        said = pd.DataFrame(dict(zip(roles.sources, of_sources, strict=True)), dtype=object)
        annotations = Annotations.from_columns(said)
        y = annotations.vote()
    if y is None:
        y = no_labels(n_samples)
    mask = None
    if roles.trusted is not None:
        mask = read_marks(path, roles.trusted, columns[roles.trusted], ids)
    trusted, verified, marked = complete_trust(path, y, mask, verified)
    return TrustedDataset(
        X=np.zeros((n_samples, 0)),
        y=y,
        trusted=trusted,
        verified=verified,
        ids=ids,
        true_labels=true_labels,
        name=path.resolve().stem,
        marked=marked,
        groups=_labels(names(roles.group))[0],
        noise_groups=_labels(names(roles.noise_group))[0],
        annotations=annotations,
    )


def _labels(*columns: np.ndarray | None) -> list[np.ndarray | None]:
    """Return columns of names in which whole numbers have no decimals."""
    known = iter(without_decimals([column for column in columns if column is not None]))
    return [None if column is None else next(known) for column in columns]


def _with_pictures(
    path: Path, table: Table, column: str, dataset: TrustedDataset, options: "ReadOptions"
) -> TrustedDataset:
    """Return the data set with the pictures of a column, without skipped pictures."""
    with as_table_error(path):
        decoded = decode_pictures(
            path,
            dataset.ids,
            _encoded_pictures(table, column),
            **options.picture_options(),
        )
    return replace(dataset.take(decoded.rows), X=decoded.X, skipped=decoded.skipped)


def text_columns(path: Path, table: Table, options: "ReadOptions") -> list[str]:
    """Return the columns whose values are kept as they are written: labels, ids and texts."""
    roles = _roles_without_samples(path, table, options)
    return [name for name in roles.texts if name != roles.trusted]


def identify(
    path: Path, table: Table, options: "ReadOptions"
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Read the column of ids and the column of given labels, each None if there is none."""
    roles = _roles_without_samples(path, table, options)

    def read(role: str | None, names: Callable[..., np.ndarray]) -> np.ndarray | None:
        if role is None:
            return None
        with as_table_error(path):
            column = table.read([role], as_text=roles.texts)[role]
        return names(path, table.schema, role, column)

    return read(roles.id, read_ids), read(roles.label, read_names)


def picture_column(path: Path, table: Table, options: "ReadOptions") -> str | None:
    """Return the column of the pictures; None if the samples are no pictures."""
    return _roles_without_samples(path, table, options).image


def label_column(path: Path, table: Table, options: "ReadOptions") -> str | None:
    """Return the column of given labels; None if there is none, or several of them."""
    return _roles_without_samples(path, table, options).label


def _roles_without_samples(path: Path, table: Table, options: "ReadOptions") -> "_Roles":
    lenient = {"samples_required": False, "labels_required": False, "columns_required": False}
    return _assign_roles(path, table.schema, options.model_copy(update=lenient))


@dataclass(frozen=True)
class _Roles:
    """The name of the column of each role; None if there is no such column."""

    label: str | None
    sources: tuple[str, ...]  # columns of labels of several sources, in place of `label`
    id: str | None
    trusted: str | None
    image: str | None
    text: str | None
    group: str | None
    noise_group: str | None
    true_label: str | None
    verified_label: str | None
    features: tuple[str, ...]
    unused: tuple[str, ...]  # what could be features if there were no pictures or texts
    unfit: dict[str, str]  # what cannot be features, and why

    @property
    def texts(self) -> list[str]:
        """The columns that are read as text, without conversion to numbers."""
        labels = (self.label, *self.sources, self.true_label, self.verified_label)
        roles = (*labels, self.id, self.trusted, self.text, self.group, self.noise_group)
        return [name for name in roles if name is not None]


def _assign_roles(path: Path, schema: pa.Schema, options: "ReadOptions") -> _Roles:
    """Decide by the options, or else by names and types, what each column holds."""
    sources = _source_columns(path, schema, options)
    # A named column of labels that new samples lack is not replaced by another one. Of samples to
    # predict, a column such as `y` can be a feature, but never `label`.
    is_absent = options.label_column is not None and not options.labels_required
    are_new = not (options.columns_required or options.labels_required)
    usual = [n for n in LABEL_COLUMNS if n in NO_FEATURES] if are_new else [*LABEL_COLUMNS]
    if not options.columns_required:
        options = options.without_columns(set(schema.names))
    if sources:
        options = options.model_copy(update={"label_column": None, "labels_required": False})
    taken = _named_columns(path, schema, options) | {*sources}

    def find(named: str | None, *defaults: str) -> str | None:
        """Return the named column, or else the first default that exists and is not taken."""
        if named is not None:
            return named
        name = next((name for name in defaults if name in schema.names and name not in taken), None)
        if name is not None:
            taken.add(name)
        return name

    true_label, verified_label = find(None, TRUE_LABEL), find(None, VERIFIED_LABEL)
    label = find(options.label_column, *(() if sources or is_absent else usual))
    if label is None and options.labels_required:
        raise InputError(
            f"{path}: there is no column of labels among {listed(schema.names)}: name it with "
            "--label-column."
        )
    images = filter(partial(_may_be_picture, schema), IMAGE_COLUMNS)
    image = find(options.image_column, *(images if options.text_column is None else ()))
    if image is not None and not _may_be_picture(schema, image):
        raise InputError(
            f"{path}: column {image!r} is of type {schema.field(image).type}, not pictures: give "
            "their bytes or their paths."
        )
    # A nameless column elsewhere is no index: a comma at the end of each line makes one.
    index_names = ID_COLUMNS if schema.names[:1] in ([""], ["Unnamed: 0"]) else ID_COLUMNS[:1]
    sample_id = find(options.id_column, *index_names)
    trusted = find(options.trusted_column, "trusted")
    text = options.text_column
    if image is None and options.samples_required:
        text = find(text, *filter(partial(_may_be_text, schema), TEXT_COLUMNS))
    index = _pandas_index(schema)
    free = [name for name in schema.names if name not in taken and name not in index]
    unfit = unfit_by_name(schema, free, NO_FEATURES)
    possible = tuple(name for name in free if name not in unfit)
    has_features = image is None and text is None and options.samples_required
    return _Roles(
        label=label,
        sources=sources,
        id=sample_id,
        trusted=trusted,
        image=image,
        text=text,
        group=options.group_column,
        noise_group=options.noise_group_column,
        true_label=true_label,
        verified_label=verified_label,
        features=possible if has_features else (),
        unused=() if has_features else possible,
        unfit=unfit,
    )


def _source_columns(path: Path, schema: pa.Schema, options: "ReadOptions") -> tuple[str, ...]:
    """Return the columns that a pattern such as ``worker_*`` names; none if it is no pattern."""
    pattern = options.label_column
    if pattern is None or pattern in schema.names or not _PATTERN.search(pattern):
        return ()
    found = tuple(name for name in schema.names if fnmatchcase(name, pattern))
    if not found and options.columns_required:
        raise InputError(
            f"{path}: no column is called like {pattern!r} (--label-column); the columns are "
            f"{listed(schema.names)}."
        )
    return found


def _named_columns(path: Path, schema: pa.Schema, options: "ReadOptions") -> set[str]:
    """Return the columns that the options name; each must exist and have one meaning."""
    if options.image_column is not None and options.text_column is not None:
        raise InputError(
            f"{path}: samples are pictures or texts: give --image-column or --text-column."
        )
    named: set[str] = set()
    for flag, name in {
        "--label-column": options.label_column,
        "--id-column": options.id_column,
        "--trusted-column": options.trusted_column,
        "--image-column": options.image_column,
        "--text-column": options.text_column,
        "--group-column": options.group_column,
        "--noise-group-column": options.noise_group_column,
    }.items():
        if name is None:
            continue
        if name not in schema.names:
            raise InputError(
                f"{path}: there is no column {name!r} for {flag}; the columns are "
                f"{listed(schema.names)}."
            )
        if name in named:
            raise InputError(
                f"{path}: column {name!r} cannot have two meanings: name another one with {flag}."
            )
        named.add(name)
    return named


def _pandas_index(schema: pa.Schema) -> list[str]:
    """Return the columns that are the index of a data frame, and therefore not features."""
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    return [column for column in index if isinstance(column, str)]


def _may_be_picture(schema: pa.Schema, name: str) -> bool:
    if name not in schema.names:
        return False
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        return any(kind.field(index).name in ("bytes", "path") for index in range(kind.num_fields))
    return is_text_or_bytes(kind)


def _may_be_text(schema: pa.Schema, name: str) -> bool:
    return name in schema.names and is_words(schema.field(name).type)


def _encoded_pictures(table: Table, name: str) -> Iterator[Encoded]:
    for batch in table.batches(name):
        for value in batch:
            if isinstance(value, dict):
                value = value.get("bytes") or value.get("path")
            yield find_picture(table.folder, value) if isinstance(value, str) else value or None
