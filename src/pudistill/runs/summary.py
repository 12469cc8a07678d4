"""Collect the contents of the report from a run."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pudistill.data.dataset import TrustedDataset
from pudistill.exceptions import InputError
from pudistill.labels.table import LabelTable
from pudistill.runs.certificates import MAX_ERRORS, accepted_in
from pudistill.runs.folder import Run
from pudistill.runs.report.changes import Changes
from pudistill.runs.report.counts import LEAST_SURE, MAX_UNLIKE, SUREST, count_labels
from pudistill.runs.report.html import RunSummary, render

IN_PYTHON = "pudistill: fitted in Python"  # title of the report if the data have no name
LONGEST_EXCERPT = 240  # characters of a text that the report shows
MOST_TEXTS = 100_000  # of changed samples, for the table of the report
MOST_PIXELS = 2**22  # bytes of the pictures of changed samples, for that table
MOST_VALUES = 12  # of a table's row that the report shows


def gallery(dataset: TrustedDataset, labels: LabelTable) -> dict[str, np.ndarray]:
    """Return samples for the report: the arrays ``ids``, and ``pictures`` or ``texts``.

    Of a table, the texts are the values of its first columns.

    Of the samples that nobody verified, they are the surest changes, with each pair of given and
    new label in turn, the least sure, and the samples most unlike all classes. The arrays
    ``more_ids``, and ``more_pictures`` or ``more_texts``, hold further changes for the table of
    all of them, as many as there is room for, the surest first.
    """
    pictures = pictures_of(dataset)
    if pictures is None and not dataset.is_text and dataset.feature_names is None:
        return {}
    table = labels.frame()
    changed = table[table["changed"] & ~table["trusted"]]
    scores = table.loc[~table["trusted"], "outlier_score"].dropna()
    unlike = scores.sort_values(ascending=False, kind="stable").index[:MAX_UNLIKE]
    if changed.empty and unlike.empty:
        return {}
    surest = changed.sort_values("confidence", ascending=False, kind="stable")
    turn = surest.groupby(["given", "label"]).cumcount()
    alternating = turn.sort_values(kind="stable").index
    least_sure = surest.index[::-1][:LEAST_SURE]
    chosen = alternating[:SUREST].union(least_sure, sort=False).union(unlike, sort=False)
    rows = table.index.get_indexer(chosen)
    more = table.index.get_indexer(alternating.difference(chosen, sort=False))
    if pictures is not None:
        more = more[: MOST_PIXELS // max(1, math.prod(pictures.shape[1:]))]
    arrays = _shown(dataset, pictures, rows)
    further = _shown(dataset, pictures, more[:MOST_TEXTS])
    return arrays | {f"more_{name}": array for name, array in further.items() if len(more)}


def _shown(
    dataset: TrustedDataset, pictures: np.ndarray | None, rows: np.ndarray
) -> dict[str, np.ndarray]:
    ids = np.asarray(dataset.ids[rows], dtype=str)
    if pictures is None:
        texts = dataset.X[rows] if dataset.is_text else _values(dataset, rows)
        return {"ids": ids, "texts": np.array([_excerpt(text) for text in texts], dtype=str)}
    return {"ids": ids, "pictures": np.asarray(pictures[rows])}


def _values(dataset: TrustedDataset, rows: np.ndarray) -> list[str]:
    """Write the values of some rows of a table that are not missing, with their columns' names."""
    X = dataset.X
    part = X.iloc[rows, :MOST_VALUES] if dataset.is_frame else X[:, :MOST_VALUES][rows]
    table = pd.DataFrame(np.asarray(part))
    names = list(dataset.feature_names or [])[:MOST_VALUES]
    return [
        ", ".join(
            f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}"
            for name, value in zip(names, row, strict=True)
            if not (pd.api.types.is_scalar(value) and pd.isna(value))
        )
        for row in table.itertuples(index=False)
    ]


def _excerpt(text: str) -> str:
    """Return the beginning of a text in one line."""
    line = " ".join(text[: 2 * LONGEST_EXCERPT].split())
    return line if len(line) <= LONGEST_EXCERPT else f"{line[: LONGEST_EXCERPT - 1]}…"


def pictures_of(dataset: TrustedDataset) -> np.ndarray | None:
    """Return the samples as pictures; None unless they are pictures or named pixels.

    Named pixels are features with the names ``pixel_<row>_<column>``.
    """
    if dataset.is_pictures:
        return dataset.X
    if dataset.pictures is not None:
        return dataset.pictures
    height, width = _picture_size(dataset.feature_names)
    names = [f"pixel_{i}_{j}" for i, j in np.ndindex(height, width)]
    if not names or tuple(names) != dataset.feature_names or dataset.is_frame:
        return None
    brightest = max(float(dataset.X.max()), 1e-9)
    grey = (255 / brightest * np.clip(dataset.X, 0, None)).astype(np.uint8)
    return grey.reshape(-1, height, width)


def _picture_size(names: Sequence[str] | None) -> tuple[int, int]:
    """Return height and width by the name of the last feature; zeros if it is not a named pixel."""
    last = re.fullmatch(r"pixel_(\d{1,4})_(\d{1,4})", names[-1]) if names else None
    return (int(last[1]) + 1, int(last[2]) + 1) if last else (0, 0)


def write_report(run: Run) -> Path:
    """Write ``report.html`` of a finished run again; return its path."""
    if not (run.path / "labels.parquet").exists() and "data" not in run.read_config():
        raise InputError(
            f"{run.path} holds a classifier of a method that keeps no labels to report: "
            "`pudistill fit --method` writes a report for every method."
        )
    run.write_bytes("report.html", render(summarise(run, run.read_json("metrics.json"))).encode())
    return run.path / "report.html"


def summarise(run: Run, metrics: dict[str, Any]) -> RunSummary:
    """Return the contents of the report, from the files of a run.

    Parameters
    ----------
    run : Run
        A run whose tables and pictures are written.
    metrics : dict
        The contents of ``metrics.json``; the file itself can still be missing.

    Returns
    -------
    summary : RunSummary
        The summary.
    """
    settings = run.read_config()
    gallery = run.read_arrays("gallery.npz")
    history = run.read_table("history")
    shown = set(gallery.get("ids", ()))
    changes = Changes(accepted_in(run), MAX_ERRORS)
    labels = run.read_in_parts(
        "labels",
        lambda parts: count_labels(changes.watch(part.to_pandas() for part in parts), shown),
    )
    notes = [*metrics["warnings"], *(f"Skipped {line}." for line in metrics.get("skipped", ()))]
    return RunSummary(
        title=f"pudistill: {Path(settings['data']).name}" if "data" in settings else IN_PYTHON,
        labels=labels,
        history=history,
        metrics=metrics,
        settings=settings,
        classes=metrics["classes"],
        **{name: _by_id(gallery, name) for name in ("pictures", "texts")},
        notes=notes,
        changes=changes,
    )


def _by_id(gallery: dict[str, np.ndarray], name: str) -> dict[str, Any]:
    """Return one kind of samples in `gallery` by id; none if it holds another kind."""
    return {
        sample: value
        for part in ("", "more_")
        if part + name in gallery
        for sample, value in zip(gallery[f"{part}ids"], gallery[part + name], strict=True)
    }
