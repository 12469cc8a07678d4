"""The changed samples of a run, in a compact form that the report's table reads."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from pudistill.runs.report.plots import picture_uri

MOST_ROWS = 200_000  # of the table; about 30 bytes each, and up to 300 more with a text
LONGEST_TEXT = 300  # characters


@dataclass
class Changes:
    """The changed samples that nobody verified, the surest first.

    Parameters
    ----------
    accepted : ndarray of shape (n_samples,), uint8, optional
        For each row of the label table the position, in `max_errors`, of the smallest error at
        which its label is certified; ``len(max_errors)`` at none.
    max_errors : sequence of float
        Shares of wrong labels.

    Attributes
    ----------
    n_changed : int
        Number of changed samples that nobody verified; the rows are the surest of them.

    Examples
    --------
    >>> import pandas as pd
    >>> from pudistill.runs.report.changes import Changes
    >>> changes = Changes()
    >>> part = pd.DataFrame({"id": ["a", "b"], "given": ["cat", "cat"], "label": ["cat", "dog"],
    ...     "changed": [False, True], "trusted": False, "source": "student", "confidence": 0.9})
    >>> _ = list(changes.watch([part]))
    >>> changes.rows()[["id", "label"]].values.tolist()
    [['b', 'dog']]
    """

    accepted: np.ndarray | None = None
    max_errors: Sequence[float] = ()
    n_changed: int = 0
    _parts: list[pd.DataFrame] = field(default_factory=list)

    def watch(self, parts: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Pass on the parts of a label table, and keep their changed samples."""
        start = n_kept = 0
        for part in parts:
            is_new = part["changed"].eq(True) & ~part["trusted"].eq(True)
            rows = np.flatnonzero(is_new.fillna(False))
            found = part.iloc[rows][["id", "given", "label", "source", "confidence"]]
            level = 0 if self.accepted is None else self.accepted[start + rows]
            self._parts.append(found.assign(accepted=level))
            self.n_changed, n_kept = self.n_changed + len(rows), n_kept + len(rows)
            start += len(part)
            if n_kept > 2 * MOST_ROWS:  # there may be 10⁸ rows
                self._parts = [self.rows()]
                n_kept = MOST_ROWS
            yield part

    def rows(self) -> pd.DataFrame:
        """Return the rows of the table, the surest first."""
        columns = ["id", "given", "label", "source", "confidence", "accepted"]
        parts = [part for part in self._parts if len(part)]
        table = pd.concat(parts) if parts else pd.DataFrame(columns=columns)
        table["confidence"] = table["confidence"].astype(float)
        return table.sort_values("confidence", ascending=False, kind="stable").head(MOST_ROWS)


def as_json(
    changes: Changes,
    rows: pd.DataFrame,
    classes: Sequence[str],
    texts: Mapping[str, str],
    pictures: Mapping[str, np.ndarray],
    no_class_label: str | None,
) -> str:
    """Write changed samples column by column, with a number for each class.

    Parameters
    ----------
    changes : Changes
        The samples.
    rows : DataFrame
        Those of the table, from ``changes.rows()``.
    classes : sequence of str
        Names of the classes.
    texts, pictures : mapping
        What is shown of a sample, by id; not every sample has to be there.
    no_class_label : str or None
        The label of samples of no class.

    Returns
    -------
    text : str
        JSON that can stand inside of a ``script`` element.
    """
    ids = [str(name) for name in rows["id"]]
    names = list(dict.fromkeys([*classes, *map(str, rows["given"]), *map(str, rows["label"])]))
    sources = list(dict.fromkeys(rows["source"].astype(str)))
    # What is not verified is never quite sure.
    confidence = (1000 * rows["confidence"]).round().clip(upper=999).fillna(-1).astype(int)
    is_certified = changes.accepted is not None
    content: dict[str, Any] = {
        "changed": changes.n_changed,
        "names": names,
        "classes": len(classes),
        "none": no_class_label,
        "sources": sources,
        "ids": ids,
        "given": _codes(rows["given"], names),
        "label": _codes(rows["label"], names),
        "source": _codes(rows["source"], sources),
        "confidence": confidence.tolist(),
        "accepted": rows["accepted"].astype(int).tolist() if is_certified else None,
        "errors": [f"{100 * error:g} %" for error in changes.max_errors],
        "texts": [texts.get(name, "")[:LONGEST_TEXT] for name in ids] if texts else None,
        "pictures": {
            row: [picture_uri(pictures[name]), max(pictures[name].shape[:2])]
            for row, name in enumerate(ids)
            if name in pictures
        },
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    content["key"] = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    # Nothing in the data may end the element, or begin a comment in it.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _codes(values: pd.Series, names: Sequence[str]) -> list[int]:
    return pd.Categorical(values.astype(str), categories=list(names)).codes.astype(int).tolist()
