"""The samples of a run as other tools show them."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pudistill.data.batches import with_batch
from pudistill.data.columns import without_apostrophes
from pudistill.data.image_folder import find_pictures, training_folder
from pudistill.data.loading import load_dataset
from pudistill.data.options import ReadOptions, ReadSettings
from pudistill.data.pictures import encode_picture
from pudistill.data.readers import find_format
from pudistill.data.table_sources import open_table
from pudistill.exceptions import InputError
from pudistill.runs.apply import rows_of
from pudistill.runs.folder import Run
from pudistill.utils.shown import shown

IMAGE, TEXT = "image", "text"
SUGGESTED_BY = "pudistill"
ABOUT_DRAW = ("weight", "part")  # columns of a queue that travel with a sample
_BYTES_IN_TEXT = 2**28  # of pictures without files, which are written into the file


class Sample(NamedTuple):
    """A sample as a person sees it.

    Attributes
    ----------
    id : str
    content : str
        The text; the values of a row of a table, a line each; or a data URI of a picture. Empty for
        a picture that has a file.
    file : Path or None
        The file of a picture.
    given : str or None
        The label in the data.
    label : str
        The corrected label.
    confidence : float
        Probability that it is right; NaN if unknown.
    draw : dict
        How the sample was drawn: ``weight`` and ``part`` of a queue, as far as they are known.
    """

    id: str
    content: str
    file: Path | None
    given: str | None
    label: str
    confidence: float
    draw: dict[str, Any]


@dataclass(frozen=True)
class Samples:
    """The samples of a run that are exported.

    Attributes
    ----------
    name : str
        Name of the data.
    kind : {"image", "text"}
        Kind of their content; the row of a table is a text.
    classes : list of str
        All classes.
    no_class_label : str or None
        The label of samples of no class.
    folder : Path or None
        The folder of the pictures, if each has a file there.
    table : DataFrame
        Their rows of the label table, in the order of export.
    """

    name: str
    kind: str
    classes: list[str]
    no_class_label: str | None
    folder: Path | None
    table: pd.DataFrame
    _rows: np.ndarray
    _X: Any
    _feature_names: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Sample]:
        table = self.table
        known = [name for name in ABOUT_DRAW if name in table]
        draws = table[known].to_dict("records") if known else [{}] * len(table)
        columns = (table[name].tolist() for name in ("id", "given", "label", "confidence"))
        for row, draw, (name, given, label, confidence) in zip(
            self._rows, draws, zip(*columns, strict=True), strict=True
        ):
            yield Sample(
                name,
                self._content(row),
                None if self.folder is None else self.folder / name,
                None if pd.isna(given) else given,
                label,
                confidence,
                {str(key): value for key, value in draw.items() if not pd.isna(value)},
            )

    @property
    def choices(self) -> list[str]:
        """All labels that a person can choose."""
        return self.classes + ([] if self.no_class_label is None else [self.no_class_label])

    def _content(self, row: int) -> str:
        if self.folder is not None:
            return ""
        if self.kind == IMAGE:
            png = base64.b64encode(encode_picture(np.asarray(self._X[row])))
            return f"data:image/png;base64,{png.decode()}"
        if self._X.ndim == 1:
            return self._X[row]
        values = self._X.iloc[row] if isinstance(self._X, pd.DataFrame) else self._X[row]
        names = self._feature_names or [f"x{number}" for number in range(len(values))]
        return "\n".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))


def beside(output: Path, name: str) -> Path:
    """Return a second file of an export; raise `InputError` if it exists already."""
    path = output.with_name(name)
    if path.exists():
        raise InputError(f"{path} already exists: choose another --output.")
    return path


def samples_of(run: Run, only: Path | None = None, *, is_shown: bool = True) -> Samples:
    """Read the samples of a run with its labels.

    Parameters
    ----------
    run : Run
        A finished run of `pudistill fit`.
    only : Path, optional
        A table with a column ``id``: the samples to export in this order, such as a queue of
        samples to verify. Its columns ``weight`` and ``part`` travel with the samples. By default
        all samples that nobody verified, in random order.
    is_shown : bool, default=True
        Whether the samples themselves are needed.

    Raises
    ------
    InputError
        If the data are not those of the run any more, or an id is unknown.
    """
    config = run.read_config()
    labels = run.read_table("labels")
    if only is None:  # in random order: those that are answered first are a random sample
        table = labels[~labels["trusted"].astype(bool)]
        table = table.sample(frac=1, random_state=config.get("seed", 0))
    else:
        table = _only(labels, only)
    classes = run.read_json("metrics.json")["classes"]
    source, name = Path(config["data"]), Path(config["data"]).name
    settings = {key: config[key] for key in ReadSettings.model_fields if key in config}
    no_class_label = config.get("no_class_label")
    known = find_format(source) if source.exists() else None
    folder, X, feature_names, kind = None, None, None, TEXT
    if not is_shown:
        rows = np.zeros(len(table), dtype=int)
    elif known is not None and known.module == "image_folder" and not config.get("added"):
        found = find_pictures(source, ReadOptions.read(settings | {"skip_bad": True}))
        rows = _rows_in(run, source, labels, table, found.ids, found.labels)
        folder, kind = training_folder(source), IMAGE
    else:
        settings |= {"lazy": True}
        dataset = load_dataset(config["data"], labels_required=False, **settings)
        for path in config.get("added", []):
            batch = load_dataset(path, labels_required=False, **settings)
            dataset = with_batch(dataset, batch)
        is_own = dataset.annotations is None and "noise" not in config
        given = dataset.y if is_own else None
        rows = _rows_in(run, source, labels, table, dataset.ids, given)
        X, feature_names = dataset.X, dataset.feature_names
        if dataset.is_pictures:
            kind = IMAGE
            if len(rows) * np.prod(X.shape[1:]) > _BYTES_IN_TEXT:
                raise InputError(
                    f"{source}: {len(rows):,} pictures without files of their own are too many for "
                    "one file: choose some with --only."
                )
    return Samples(name, kind, classes, no_class_label, folder, table, rows, X, feature_names)


def _only(labels: pd.DataFrame, only: Path) -> pd.DataFrame:
    """Return the rows of the label table that a table names, with its columns about the draws."""
    if not only.is_file():
        raise InputError(f"{only}: there is no such table: name one with a column id.")
    queue = open_table(only)
    if "id" not in queue.schema.names:
        raise InputError(f"{only}: there is no column 'id': name the samples to export there.")
    names = [name for name in ("id", *ABOUT_DRAW) if name in queue.schema.names]
    chosen = queue.read(names, ["id"]).to_pandas()
    ids = without_apostrophes(chosen["id"].astype(str), labels["id"])
    rows = pd.Index(labels["id"]).get_indexer(pd.Index(ids))
    if (rows < 0).any():
        raise InputError(
            f"{only}: the run has no sample {shown(chosen['id'][rows < 0].iloc[0])} "
            f"({(rows < 0).sum():,} of {len(rows):,} ids are unknown): correct the ids."
        )
    table = labels.iloc[rows].reset_index(drop=True)
    return table.assign(**{name: chosen[name] for name in names[1:]})


def _rows_in(
    run: Run, source: Path, labels: pd.DataFrame, table: pd.DataFrame, ids: Any, given: Any
) -> np.ndarray:
    """Return the row of each exported sample in the data, which must be those of the run."""
    rows_of(run, source, labels.set_index("id"), ids, given)
    return pd.Index(np.asarray(ids, dtype=object)).get_indexer(pd.Index(table["id"]))
