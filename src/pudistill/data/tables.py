"""Tables with a column of pictures or of texts, or with features."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pudistill.data.columns import (
    complete_trust,
    interned,
    listed,
    no_labels,
    object_array,
    row_numbers,
    whole_number,
)
from pudistill.data.dataset import TrustedDataset
from pudistill.data.frames import spread_lists
from pudistill.data.json_files import refuse_choices
from pudistill.data.pictures import Encoded, decode_pictures, find_picture
from pudistill.data.table_files import Table, as_table_error
from pudistill.data.table_sources import accepts, open_table
from pudistill.exceptions import InputError

if TYPE_CHECKING:
    from pudistill.data.options import ReadOptions

TRUE_LABEL = "true_label"
VERIFIED_LABEL = "verified_label"
_LABEL_COLUMNS = ("label", "labels", "y", "target", "class", "choice")
_TEXT_COLUMNS = ("text", "sentence", "review", "comment", "document")
_IMAGE_COLUMNS = ("image", "img", "picture", "photo", "file_name")
# pandas writes the row numbers of a data frame as a column without a name.
_SUSPICIOUS_FEATURES = ("label", "labels", "id", "trusted", "", "Unnamed: 0")
_MASK_VALUES = dict.fromkeys(("true", "yes", "1", "1.0"), True) | dict.fromkeys(
    ("false", "no", "0", "0.0"), False
)


def read(path: Path, options: "ReadOptions") -> TrustedDataset:
    """Read a table; the options, or else the names of its columns, say what each column holds."""
    return read_table(path, open_table(path, options.encoding), options)


def read_table(path: Path, table: Table, options: "ReadOptions") -> TrustedDataset:
    """Read an open table; `path` is its name in messages."""
    roles = _assign_roles(path, table.schema, options)
    with as_table_error(path):
        columns = table.read([*roles.texts, *roles.features], as_text=roles.texts)

    def texts(role: str | None) -> np.ndarray | None:
        return None if role is None else _texts(path, table.schema, role, columns[role])

    def labels(role: str | None) -> np.ndarray | None:
        names = texts(role)
        if role is None or names is None:
            return None
        refuse_choices(path, role, names)
        return interned(names)

    ids = _ids(path, roles.id, texts(roles.id), columns.num_rows)
    y = labels(roles.label)
    if y is None:
        y = no_labels(len(ids))
    mask = None if roles.trusted is None else _mask(path, roles.trusted, columns, ids)
    trusted, verified, marked = complete_trust(path, y, mask, labels(roles.verified_label))
    dataset = TrustedDataset(
        X=np.zeros((len(ids), 0)),
        y=y,
        trusted=trusted,
        verified=verified,
        ids=ids,
        true_labels=labels(roles.true_label),
        name=path.resolve().stem,
        marked=marked,
    )
    if roles.image is not None:
        return _with_pictures(path, table, roles.image, dataset, options)
    text = texts(roles.text)
    if text is not None:
        return replace(dataset, X=object_array(value or "" for value in text))
    features = spread_lists(path, columns.select(roles.features))
    X = _features(path, features)
    return replace(dataset, X=X, feature_names=tuple(features.column_names) or None)


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


def read_trusted(
    path: Path, encoding: str | None = None
) -> tuple[list[str], list[str | None] | None]:
    """Read the ids of trusted samples, and their verified labels if the table has them.

    Parameters
    ----------
    path : Path
        A table with a column ``id``, and optionally ``label``.
    encoding : str, optional
        The encoding of a text file that is not UTF-8.

    Returns
    -------
    ids : list of str
    labels : list of str, or None without such a column
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file of trusted samples.")
    if not accepts(path):
        raise InputError(f"{path}: give trusted samples as .csv, .tsv, .jsonl or .parquet.")
    table = open_table(path, encoding)
    names = table.schema.names
    if "id" not in names:
        raise InputError(
            f"{path}: there is no column 'id' among {listed(names)}: put the ids of the "
            "trusted samples there."
        )
    if "label" not in names and len(names) > 1:
        raise InputError(
            f"{path}: there is no column 'label' among {listed(names)}: call the verified labels "
            "'label', or keep the column 'id' alone if the given labels are right."
        )
    wanted = [name for name in ("id", "label") if name in names]
    with as_table_error(path):
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


def text_columns(path: Path, table: Table, options: "ReadOptions") -> list[str]:
    """Return the columns whose values are kept as they are written: labels, ids and texts."""
    roles = _roles_without_samples(path, table, options)
    return [name for name in roles.texts if name != roles.trusted]


def identify(
    path: Path, table: Table, options: "ReadOptions"
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Read the column of ids and the column of given labels, each None if there is none."""
    roles = _roles_without_samples(path, table, options)

    def read(role: str | None) -> np.ndarray | None:
        if role is None:
            return None
        with as_table_error(path):
            column = table.read([role], as_text=roles.texts)[role]
        return _texts(path, table.schema, role, column)

    return read(roles.id), read(roles.label)


def _roles_without_samples(path: Path, table: Table, options: "ReadOptions") -> "_Roles":
    lenient = {"samples_required": False, "labels_required": False, "columns_required": False}
    return _assign_roles(path, table.schema, options.model_copy(update=lenient))


@dataclass(frozen=True)
class _Roles:
    """The name of the column of each role; None if there is no such column."""

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
        """The columns that are read as text, without conversion to numbers."""
        roles = (self.label, self.id, self.trusted, self.true_label, self.verified_label, self.text)
        return [name for name in roles if name is not None]


def _assign_roles(path: Path, schema: pa.Schema, options: "ReadOptions") -> _Roles:
    """Decide by the options, or else by names and types, what each column holds."""
    if not options.columns_required:
        options = options.without_columns(set(schema.names))
    taken = _named_columns(path, schema, options)

    def find(named: str | None, *defaults: str) -> str | None:
        """Return the named column, or else the first default that exists and is not taken."""
        if named is not None:
            return named
        name = next((name for name in defaults if name in schema.names and name not in taken), None)
        if name is not None:
            taken.add(name)
        return name

    true_label, verified_label = find(None, TRUE_LABEL), find(None, VERIFIED_LABEL)
    label = find(options.label_column, *_LABEL_COLUMNS)
    if label is None and options.labels_required:
        raise InputError(
            f"{path}: there is no column of labels among {listed(schema.names)}: name it with "
            "--label-column."
        )
    image_columns = _IMAGE_COLUMNS if options.text_column is None else ()
    image = find(
        options.image_column, *(name for name in image_columns if _may_be_picture(schema, name))
    )
    if image is not None and not _may_be_picture(schema, image):
        raise InputError(
            f"{path}: column {image!r} is of type {schema.field(image).type}, not pictures: give "
            "their bytes or their paths."
        )
    # pandas writes the row numbers of a data frame as a first column without a name.
    sample_id = find(options.id_column, "id", "", "Unnamed: 0")
    trusted = find(options.trusted_column, "trusted")
    text = None
    if image is None and (options.samples_required or options.text_column is not None):
        text_columns = (name for name in _TEXT_COLUMNS if _is_text(schema, name))
        text = find(options.text_column, *text_columns)
    has_features = image is None and text is None and options.samples_required
    features = _feature_columns(path, schema, taken) if has_features else ()
    return _Roles(label, sample_id, trusted, image, text, true_label, verified_label, features)


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


def _feature_columns(path: Path, schema: pa.Schema, taken: set[str]) -> tuple[str, ...]:
    """Return the columns that are neither taken nor an index; none may look like labels or ids."""
    index = _pandas_index(schema)
    features = tuple(name for name in schema.names if name not in taken and name not in index)
    for name in features:
        if name in _SUSPICIOUS_FEATURES:
            raise InputError(
                f"{path}: column {name!r} would become a feature although it looks like labels, "
                "ids or row numbers: drop or rename it."
            )
    return features


def _pandas_index(schema: pa.Schema) -> list[str]:
    """Return the columns that are the index of a data frame, and therefore not features."""
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    return [column for column in index if isinstance(column, str)]


def _is_numeric(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    # A column without any value has the type null; its values are reported as missing later.
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
    """Return the class names that Hugging Face's `datasets` stores for a column of numbers."""
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
    with as_table_error(path):  # damaged text raises here, when it becomes Python strings
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
    if number is None or number == -1:  # Hugging Face's code of an unknown label
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
                "an id."
            )
    return ids


def _mask(path: Path, name: str, columns: pa.Table, ids: np.ndarray) -> np.ndarray:
    mask = np.zeros(len(ids), dtype=bool)
    for row, value in enumerate(columns[name].to_pylist()):
        trusted = _MASK_VALUES.get(str(value).strip().lower())
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
        # Missing values become NaN; `validate` reports them with all others that are not finite.
        X[:, index] = column.cast(pa.from_numpy_dtype(dtype), safe=False).to_numpy()
    return X


def _encoded_pictures(table: Table, name: str) -> Iterator[Encoded]:
    for batch in table.batches(name):
        for value in batch:
            if isinstance(value, dict):
                value = value.get("bytes") or value.get("path")
            yield find_picture(table.folder, value) if isinstance(value, str) else value or None
