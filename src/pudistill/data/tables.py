"""Tables, parquet, CSV and JSONL, with a column of pictures or of texts, or with features."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pudistill.data.dataset import TrustedDataset
from pudistill.data.labels import (
    complete_trust,
    listed,
    no_labels,
    object_array,
    row_numbers,
    shared_names,
    whole_number,
)
from pudistill.data.pictures import Encoded, decode_pictures
from pudistill.data.table_files import Table, accepts, naming, open_table
from pudistill.exceptions import InputError

if TYPE_CHECKING:
    from pudistill.data.options import ReadOptions

TRUE_LABEL = "true_label"
VERIFIED_LABEL = "verified_label"
_LABEL_COLUMNS = ("label", "labels", "y", "target", "class")
_TEXT_COLUMNS = ("text", "sentence", "review", "comment", "document")
_IMAGE_COLUMNS = ("image", "img", "picture", "photo", "file_name")
# The nameless ones are what pandas makes of the row numbers of a data frame.
_SUSPICIOUS_FEATURES = ("label", "labels", "id", "trusted", "", "Unnamed: 0")
_TRUST = dict.fromkeys(("true", "yes", "1", "1.0"), True) | dict.fromkeys(
    ("false", "no", "0", "0.0"), False
)


def read(path: Path, options: "ReadOptions") -> TrustedDataset:
    """Read a table as the columns' names, or the options, say."""
    table = open_table(path)
    roles = _assign_roles(path, table.schema, options)
    with naming(path):
        columns = table.read([*roles.texts, *roles.features], as_text=roles.texts)

    def texts(role: str | None) -> np.ndarray | None:
        return None if role is None else _texts(path, table.schema, role, columns[role])

    def labels(role: str | None) -> np.ndarray | None:
        names = texts(role)
        return None if names is None else shared_names(names)

    ids = _ids(path, roles.id, texts(roles.id), columns.num_rows)
    y = labels(roles.label)
    if y is None:
        y = no_labels(len(ids))
    mask = None if roles.trusted is None else _mask(path, roles.trusted, columns, ids)
    trusted, verified, marked = complete_trust(path, y, mask, labels(roles.verified_label))
    true_labels = labels(roles.true_label)
    text = texts(roles.text)
    if text is not None:
        text = object_array(one or "" for one in text)
    if roles.image is None:
        return TrustedDataset(
            X=_features(path, columns.select(roles.features)) if text is None else text,
            y=y,
            trusted=trusted,
            verified=verified,
            ids=ids,
            true_labels=true_labels,
            feature_names=roles.features or None,
            name=path.resolve().stem,
            marked=marked,
        )
    with naming(path):
        decoded = decode_pictures(
            path,
            ids,
            _encoded_pictures(table, roles.image, folder=path if path.is_dir() else path.parent),
            **options.of_pictures(),
        )
    rows = decoded.rows
    return TrustedDataset(
        X=decoded.X,
        y=y[rows],
        trusted=trusted[rows],
        verified=verified[rows],
        ids=ids[rows],
        true_labels=None if true_labels is None else true_labels[rows],
        name=path.resolve().stem,
        skipped=decoded.skipped,
        marked=marked[rows],
    )


def read_trusted(path: Path) -> tuple[list[str], list[str | None] | None]:
    """Read which samples were verified, and their verified labels if the table has them.

    Parameters
    ----------
    path : Path
        A table with a column ``id``, and optionally ``label``.

    Returns
    -------
    ids : list of str
    labels : list of str, or None without such a column
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file of trusted samples.")
    if not accepts(path):
        raise InputError(f"{path}: give trusted samples as .csv, .tsv, .jsonl or .parquet.")
    table = open_table(path)
    names = table.schema.names
    if "id" not in names:
        raise InputError(
            f"{path}: there is no column 'id' among {listed(names)}: name the trusted samples "
            "there."
        )
    if "label" not in names and len(names) > 1:
        raise InputError(
            f"{path}: there is no column 'label' among {listed(names)}: call the verified labels "
            "'label', or keep the column 'id' alone if the given labels are the verified ones."
        )
    wanted = [name for name in ("id", "label") if name in names]
    with naming(path):
        columns = table.read(wanted, as_text=wanted)
    ids = _ids(path, "id", _texts(path, table.schema, "id", columns["id"]), columns.num_rows)
    if "label" not in names:
        return list(ids), None
    labels = list(_texts(path, table.schema, "label", columns["label"]))
    if None in labels:
        raise InputError(
            f"{path}: trusted id {ids[labels.index(None)]!r} has no label: give it or remove the "
            "row."
        )
    return list(ids), labels


@dataclass(frozen=True)
class _Roles:
    """Which column is what."""

    label: str | None
    id: str | None
    trusted: str | None
    image: str | None
    text: str | None
    true_label: str | None
    verified_label: str | None
    features: tuple[str, ...]

    @property
    def texts(self) -> list[str]:
        """The columns that are read to the letter."""
        roles = (self.label, self.id, self.trusted, self.true_label, self.verified_label, self.text)
        return [name for name in roles if name is not None]


def _assign_roles(path: Path, schema: pa.Schema, options: "ReadOptions") -> _Roles:
    if not options.columns_required:
        options = options.without_columns(set(schema.names))
    chosen = {
        "--label-column": options.label_column,
        "--id-column": options.id_column,
        "--trusted-column": options.trusted_column,
        "--image-column": options.image_column,
        "--text-column": options.text_column,
    }
    if options.image_column is not None and options.text_column is not None:
        raise InputError(
            f"{path}: samples are pictures or texts: give --image-column or --text-column."
        )
    taken: set[str] = set()
    for flag, name in chosen.items():
        if name is None:
            continue
        if name not in schema.names:
            raise InputError(
                f"{path}: there is no column {name!r} for {flag}; the columns are "
                f"{listed(schema.names)}."
            )
        if name in taken:
            raise InputError(f"{path}: column {name!r} cannot be two things: see {flag}.")
        taken.add(name)

    def find(chosen_name: str | None, *defaults: str) -> str | None:
        if chosen_name is not None:
            return chosen_name
        name = next((name for name in defaults if name in schema.names and name not in taken), None)
        taken.update(set() if name is None else {name})
        return name

    true_label, verified_label = find(None, TRUE_LABEL), find(None, VERIFIED_LABEL)
    label = find(options.label_column, *_LABEL_COLUMNS)
    if label is None and options.labels_required:
        raise InputError(
            f"{path}: there is no column of labels among {listed(schema.names)}: name it with "
            "--label-column."
        )
    image = find(
        options.image_column,
        *(
            name
            for name in _IMAGE_COLUMNS
            if options.text_column is None and _may_be_picture(schema, name)
        ),
    )
    if image is not None and not _may_be_picture(schema, image):
        raise InputError(
            f"{path}: column {image!r} is of type {schema.field(image).type}, not pictures: give "
            "their bytes or their paths."
        )
    # A data frame that was written with its row numbers has them in a nameless first column.
    sample_id = find(options.id_column, "id", "", "Unnamed: 0")
    trusted = find(options.trusted_column, "trusted")
    text = None
    if image is None and (options.samples_required or options.text_column is not None):
        defaults = (name for name in _TEXT_COLUMNS if _is_text(schema, name))
        text = find(options.text_column, *defaults)
    has_features = image is None and text is None and options.samples_required
    features = tuple(name for name in schema.names if has_features and name not in taken)
    features = tuple(name for name in features if name not in _pandas_index(schema))
    for name in features:
        if name in _SUSPICIOUS_FEATURES:
            raise InputError(
                f"{path}: column {name!r} would become a feature although it looks like labels, "
                "ids or row numbers: drop or rename it."
            )
    return _Roles(label, sample_id, trusted, image, text, true_label, verified_label, features)


def _pandas_index(schema: pa.Schema) -> list[str]:
    """Return the columns that are a data frame's index, which says nothing about a sample."""
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    return [column for column in index if isinstance(column, str)]


def _is_numeric(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    # A column without any value has the type null; its values are then reported as missing.
    return pa.types.is_null(kind) or any(test(kind) for test in tests)


def _is_text(schema: pa.Schema, name: str) -> bool:
    if name not in schema.names:
        return False
    kind = schema.field(name).type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _may_be_picture(schema: pa.Schema, name: str) -> bool:
    if name not in schema.names:
        return False
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        return any(kind.field(index).name in ("bytes", "path") for index in range(kind.num_fields))
    return any(
        test(kind)
        for test in (
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_string,
            pa.types.is_large_string,
        )
    )


def _class_names(schema: pa.Schema, name: str) -> list[str] | None:
    """Return the names that Hugging Face's `datasets` keeps for a column of class numbers."""
    try:
        metadata = json.loads((schema.metadata or {})[b"huggingface"])
        feature = metadata["info"]["features"][name]
        return list(map(str, feature["names"])) if feature["_type"] == "ClassLabel" else None
    except (KeyError, TypeError, ValueError):
        return None


def _texts(path: Path, schema: pa.Schema, name: str, column: pa.ChunkedArray) -> np.ndarray:
    """Return labels or ids as an object array of str, None where missing."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    with naming(path):  # damaged text is found when it is turned into Python's
        kind, values = column.type, column.to_pylist()
    names = _class_names(schema, name)
    if pa.types.is_integer(kind) and names is not None:
        return object_array(_class_name(path, name, value, names) for value in values)
    if pa.types.is_floating(kind):
        return object_array(whole_number(path, name, value) for value in values)
    if not any(
        test(kind)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_integer,
            pa.types.is_boolean,
            pa.types.is_null,
        )
    ):
        raise InputError(
            f"{path}: column {name!r} is of type {kind}: give names (text) or whole numbers."
        )
    return object_array(None if value in (None, "") else str(value) for value in values)


def _class_name(path: Path, column: str, number: int | None, names: list[str]) -> str | None:
    if number is None or number == -1:  # how Hugging Face writes a label that is not known
        return None
    if not 0 <= number < len(names):
        raise InputError(
            f"{path}: column {column!r} holds {number}, but there are {len(names)} classes."
        )
    return names[number]


def _ids(path: Path, name: str | None, ids: np.ndarray | None, n_samples: int) -> np.ndarray:
    if ids is None:
        return row_numbers(n_samples)
    for row, sample in enumerate(ids):
        if sample is None:
            raise InputError(
                f"{path}: row {row} (counted from 0) has no id in column {name!r}: give every row "
                "one."
            )
    return ids


def _mask(path: Path, name: str, columns: pa.Table, ids: np.ndarray) -> np.ndarray:
    mask = np.zeros(len(ids), dtype=bool)
    for row, value in enumerate(columns[name].to_pylist()):
        trusted = _TRUST.get(str(value).strip().lower())
        if trusted is None:
            raise InputError(
                f"{path}: column {name!r} holds {value!r} in the row with id {ids[row]!r}: give "
                "true or false, 1 or 0."
            )
        mask[row] = trusted
    return mask


def _features(path: Path, columns: pa.Table) -> np.ndarray:
    for field in columns.schema:
        if not _is_numeric(field.type):
            raise InputError(
                f"{path}: column {field.name!r} is of type {field.type}, not numeric: drop it, or "
                "encode it as numbers."
            )
    kinds = set(columns.schema.types)
    dtype = np.float32 if kinds and kinds <= {pa.float16(), pa.float32()} else np.float64
    X = np.empty((columns.num_rows, columns.num_columns), dtype)
    for index, column in enumerate(columns.columns):
        # Missing values become NaN here and are reported with all others that are not finite.
        X[:, index] = column.cast(pa.from_numpy_dtype(dtype), safe=False).to_numpy()
    return X


def _encoded_pictures(table: Table, name: str, folder: Path) -> Iterator[Encoded]:
    for batch in table.batches(name):
        for value in batch:
            if isinstance(value, dict):
                value = value.get("bytes") or value.get("path")
            yield folder / value if isinstance(value, str) else value or None
