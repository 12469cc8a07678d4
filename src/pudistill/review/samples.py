"""What a page shows of a sample: its picture, its text or its values, read from the run's data."""

import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import mutual_info_score

from pudistill.data import image_folder
from pudistill.data.dataset import TrustedDataset
from pudistill.data.options import ReadOptions
from pudistill.data.pictures import (
    Encoded,
    decode_pictures,
    encode_for_display,
    encode_picture,
)
from pudistill.data.readers import BUNDLED, find_format
from pudistill.exceptions import DataWarning, InputError
from pudistill.review.run_table import NONE, RunTable
from pudistill.runs.folder import Run
from pudistill.runs.inputs import load_data, names_after_merging
from pudistill.runs.settings import Settings
from pudistill.runs.summary import pictures_of
from pudistill.utils.shown import shown

LARGEST_PICTURE = 1600  # pixels of the longer side that a page gets
LONGEST_TEXT = 20_000  # characters that a page gets at first
_DECODING = threading.Lock()
N_COMPARED, N_BINS = 5_000, 10  # rows and parts by which columns are ranked


class Content(NamedTuple):
    """What a page shows of a sample.

    Attributes
    ----------
    kind : {"picture", "text", "values"}
        A picture is asked for separately.
    text : str
        The beginning of the text.
    n_characters : int
        Length of the whole text.
    values : list of (str, str)
        Names and values of columns, those that tell classes apart best first.
    said : list of (str, str)
        Sources and the labels that they gave.
    """

    kind: str
    text: str = ""
    n_characters: int = 0
    values: list[tuple[str, str]] = []
    said: list[tuple[str, str]] = []


@dataclass(eq=False)
class Samples:
    """The samples of a run, by row of its label table.

    Attributes
    ----------
    kind : {"picture", "text", "values"}
        What the samples are.
    dataset : TrustedDataset, optional
        The data; None for pictures in a folder, which are decoded when they are shown.
    files : list of Path, optional
        The pictures in a folder.
    order : ndarray of int
        Columns of a table, those that tell classes apart best first.
    """

    kind: str
    dataset: TrustedDataset | None
    pictures: Any = None
    files: list[Path] | None = None
    order: Any = ()

    def content(self, row: int) -> Content:
        """Return what a page shows of a sample."""
        if self.kind == "text":
            text = self.text(row)
            return Content("text", text[:LONGEST_TEXT], len(text), said=self._said(row))
        values = self.values(row) if self.kind == "values" else []
        return Content(self.kind, values=values, said=self._said(row))

    def text(self, row: int) -> str:
        """Return the whole text of a sample."""
        assert self.dataset is not None
        return str(self.dataset.X[row])

    def excerpt(self, row: int, n_characters: int = 240) -> str:
        """Return the beginning of a text, or the first values of a row."""
        if self.kind == "text":
            return " ".join(self.text(row)[: 2 * n_characters].split())[:n_characters]
        shown_values = self.values(row)[:4] if self.kind == "values" else []
        return ", ".join(f"{name}: {value}" for name, value in shown_values)

    def values(self, row: int) -> list[tuple[str, str]]:
        """Return names and values of all columns, those that tell classes apart best first."""
        assert self.dataset is not None
        names = self.dataset.feature_names or [f"x{n}" for n in range(self.dataset.X.shape[1])]
        cells = self.dataset.X.iloc[row] if self.dataset.is_frame else self.dataset.X[row]
        cells = cells.tolist()
        return [(str(names[n]), _written(cells[n])) for n in self.order]

    def picture(self, row: int) -> bytes:
        """Return the picture of a sample as a PNG or JPEG file."""
        if self.files is None:
            return encode_picture(np.asarray(self.pictures[row : row + 1])[0])
        with _DECODING:  # Pillow's warnings are set for the whole process
            return _encoded(self.files[row])

    def _said(self, row: int) -> list[tuple[str, str]]:
        if self.dataset is None or self.dataset.annotations is None:
            return []
        said = self.dataset.annotations
        start, end = np.searchsorted(said.rows[self._by_row], [row, row + 1])
        return [
            (str(said.names[said.source[n]]), str(said.label[n])) for n in self._by_row[start:end]
        ]

    def __post_init__(self) -> None:
        said = None if self.dataset is None else self.dataset.annotations
        self._by_row = np.empty(0, int) if said is None else np.argsort(said.rows, kind="stable")


@lru_cache(maxsize=256)
def _encoded(content: Encoded) -> bytes:
    return encode_for_display(content, LARGEST_PICTURE)


def open_samples(run: Run, config: Mapping[str, Any], table: RunTable) -> Samples:
    """Read the data of a run again.

    Parameters
    ----------
    run : Run
        The run.
    config : mapping
        Its settings, as `Run.read_config` returns them.
    table : RunTable
        Its label table.

    Returns
    -------
    samples : Samples
        Row for row those of the table. Pictures in a folder are not decoded yet.

    Raises
    ------
    InputError
        If the data have moved, or are not those that the run was fitted on; it names what differs.
    """
    settings = Settings.read(dict(config))
    source = Path(settings.data)
    if not source.exists() and settings.data not in BUNDLED:
        raise InputError(
            f"The data of {run.path} are not at {settings.data} any more (seen from {Path.cwd()}): "
            "move them back, or start the command where `pudistill fit` was started."
        )
    found = find_format(source) if source.exists() else None
    is_folder = found is not None and found.reader is image_folder
    if is_folder and settings.annotations is None and not settings.added:
        options = ReadOptions.read(settings.read_options())
        folder = image_folder.find_pictures(source, options)
        new_names = names_after_merging(settings.merge)
        names: list[Any] = [new_names.get(str(name), name) for name in folder.labels]
        given = np.array(names, dtype=object) if settings.noise is None else None
        rows = _rows_in(run, table, settings.data, np.array(folder.ids, dtype=object), given)
        samples = Samples("picture", None, files=[folder.files[row] for row in rows])
        _check_gallery(run, table, settings, samples)
        return samples
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # `fit` has said so
        dataset, _ = load_data(settings)
    given = dataset.y if dataset.annotations is None else None
    rows = _rows_in(run, table, settings.data, np.asarray(dataset.ids, dtype=object), given)
    if not np.array_equal(rows, np.arange(len(dataset))):
        dataset = dataset.take(rows)
    pictures = pictures_of(dataset)
    if pictures is not None:
        samples = Samples("picture", dataset, pictures=pictures)
    elif dataset.is_text:
        samples = Samples("text", dataset)
    else:
        samples = Samples("values", dataset, order=_most_telling(dataset.X, table.label))
    _check_gallery(run, table, settings, samples)
    return samples


def _rows_in(run: Run, table: RunTable, data: str, ids: np.ndarray, given: Any) -> np.ndarray:
    """Return the row of the data for each row of the label table."""
    expected = table.ids.to_pylist()
    if len(ids) == len(expected) and ids.tolist() == expected:
        rows = np.arange(len(ids))
    else:
        rows = pd.Index(ids).get_indexer(pd.Index(expected, dtype=object))
        if (rows < 0).any():
            gone = np.flatnonzero(rows < 0)
            raise InputError(
                f"{data} has changed since {run.path} was fitted: {len(gone):,} of its samples are "
                f"gone, such as {shown(expected[gone[0]])}: restore the data, or fit them anew."
            )
    if given is not None:
        was = np.array([*table.names, None], dtype=object)[table.given]
        differs = np.flatnonzero((given[rows] != was) & (table.given != NONE))
        if len(differs):
            row = int(differs[0])
            raise InputError(
                f"{data} has changed since {run.path} was fitted: the label of "
                f"{shown(expected[row])} is {shown(given[rows[row]])} and was {shown(was[row])} "
                f"({len(differs):,} labels differ): restore the data, or fit them anew."
            )
    return rows


def _check_gallery(run: Run, table: RunTable, settings: Settings, samples: Samples) -> None:
    """Compare the samples that the run keeps for its report with those of the data."""
    kept = run.read_arrays("gallery.npz")
    if not len(kept.get("ids", ())):
        return
    ids = kept["ids"].tolist()
    rows = table.rows_of(ids, run.path / "gallery.npz")
    if "pictures" in kept and samples.files is not None:
        options = ReadOptions.read(settings.read_options() | {"skip_bad": False, "lazy": False})
        files = [samples.files[row] for row in rows]
        decoded = decode_pictures(Path(settings.data), ids, files, **options.picture_options())
        are_same = [*map(_show_the_same, np.asarray(decoded.X), kept["pictures"])]
    elif "pictures" in kept and samples.kind == "picture":
        are_same = [*map(_show_the_same, np.asarray(samples.pictures[rows]), kept["pictures"])]
    elif "texts" in kept and samples.kind == "text":
        beginnings = [str(text).removesuffix("…") for text in kept["texts"]]
        texts = [samples.excerpt(row, 1000) for row in rows]
        are_same = [*map(str.startswith, texts, beginnings)]
    else:
        return
    if not all(are_same):
        raise InputError(
            f"{settings.data} has changed since {run.path} was fitted: the content of sample "
            f"{shown(ids[are_same.index(False)])} is another one: restore the data, or fit them "
            "anew."
        )


def _show_the_same(picture: np.ndarray, other: np.ndarray) -> bool:
    """Whether two pictures are equal; a grey one can be stored in three equal channels."""
    if picture.ndim < other.ndim:
        picture = np.broadcast_to(picture[..., None], other.shape)
    return np.array_equal(picture, other)


def _most_telling(X: Any, label: np.ndarray) -> np.ndarray:
    """Return columns in the order of their mutual information with the corrected labels."""
    rows = np.linspace(0, len(label) - 1, min(N_COMPARED, len(label))).astype(int)
    part = X.iloc[rows] if isinstance(X, pd.DataFrame) else pd.DataFrame(np.asarray(X[rows]))
    information = []
    for n in range(part.shape[1]):
        column = part.iloc[:, n]
        codes: Any
        if column.dtype.kind in "fiu":
            codes = pd.cut(column.rank(), N_BINS, labels=False).fillna(NONE)
        else:
            codes = pd.factorize(column)[0]
            common = pd.Series(codes).value_counts().index[:N_BINS]
            codes = np.where(np.isin(codes, common), codes, NONE)
        information.append(mutual_info_score(label[rows], codes))
    return np.argsort(-np.array(information), kind="stable")


def _written(value: Any) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.6g}"
    return "–" if value is None or value is pd.NaT else str(value)
