"""Which sample is asked next, and of whom: no sample is shown to two reviewers at once."""

import json
import time
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pudistill.data.columns import without_apostrophes
from pudistill.exceptions import InputError
from pudistill.review.decisions import Decisions
from pudistill.review.run_table import RunTable
from pudistill.utils.files import TEMPORARY
from pudistill.utils.shown import shown

LEASES = "leases.json"
SECONDS_OF_A_LEASE = 90.0  # pages renew theirs more often
PARTS = ("random", "chosen")


@dataclass(frozen=True)
class Entry:
    """A sample in the queue.

    Attributes
    ----------
    row : int
        Its row in the label table.
    weight : float or None
        See `Decision`.
    part : {"random", "chosen", "picked"}
        See `Decision`.
    reason : str
        Why it was chosen, for people.
    """

    row: int
    weight: float | None = 1.0
    part: str = "random"
    reason: str = ""


def picked(row: int) -> Entry:
    """Return the entry of a sample that a reviewer picked by hand."""
    return Entry(int(row), None, "picked")


def read_queue(path: Path, table: RunTable) -> list[Entry]:
    """Read a queue that ``pudistill next`` wrote.

    Parameters
    ----------
    path : Path
        A CSV file with the column ``id``, and perhaps ``weight``, ``part`` and ``reason``. Without
        weights, the samples count as chosen by hand, with unknown probabilities.
    table : RunTable
        The label table of the run.

    Returns
    -------
    queue : list of Entry
        In the order of the file.

    Raises
    ------
    InputError
        If it cannot be read, or is of another run.
    """
    try:
        # Ids and labels such as "None" or "NA" are names, not missing values.
        queue = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such queue: correct its name.") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a queue ({error}): correct it.") from error
    if "id" not in queue:
        raise InputError(f"{path} has no column id: give a queue that `pudistill next` wrote.")
    if repeated := queue["id"][queue["id"].duplicated()].tolist():
        raise InputError(f"{path} names the sample {shown(repeated[0])} twice: remove one row.")
    ids = without_apostrophes(queue["id"], map(str, table.ids))
    rows = table.rows_of(ids, path)
    entries = []
    for n, row in enumerate(rows.tolist()):
        cell = {name: queue[name].iloc[n] for name in queue}
        weight, part = _weight(cell.get("weight", ""), path, n), cell.get("part") or ""
        if part not in PARTS:
            part = "picked" if weight is None else "chosen"
        entries.append(Entry(row, weight, part, cell.get("reason", "")))
    return entries


def _weight(text: str, path: Path, n: int) -> float | None:
    if not text:
        return None
    try:
        weight = float(text)
    except ValueError:
        weight = 0.0
    if not 0 < weight < np.inf:
        raise InputError(
            f"{path}, row {n + 2}: the weight {text!r} is not a number above 0: correct it, or "
            "leave it empty for a sample picked by hand."
        )
    return weight


class Leases:
    """Who is looking at which sample, in a file that all processes of a run share.

    Use it only while the decisions are locked.

    Parameters
    ----------
    decisions : Decisions
        The decisions, whose folder holds the file.
    seconds : float, default=90
        A page that says nothing for so long has lost its samples to others.
    """

    def __init__(self, decisions: Decisions, seconds: float = SECONDS_OF_A_LEASE) -> None:
        self.path = decisions.folder / LEASES
        self.seconds = seconds

    def take(self, page: str, rows: Sequence[int]) -> None:
        """Lease samples to a page, which gives up those it had before."""
        others = {row: lease for row, lease in self._all().items() if lease[0] != page}
        until = time.time() + self.seconds
        self._write(others | {int(row): [page, until] for row in rows})

    def of_others(self, page: str) -> set[int]:
        """Return the rows of the samples that other pages show."""
        now = time.time()
        return {row for row, (who, until) in self._all().items() if who != page and until > now}

    def _all(self) -> dict[int, Any]:
        try:
            if self.path.is_symlink():
                return {}
            leases = json.loads(self.path.read_bytes())
            return {int(row): [str(who), float(until)] for row, (who, until) in leases.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}  # nobody is at work, or the file is damaged: it says nothing of decisions

    def _write(self, leases: dict[int, Any]) -> None:
        now = time.time()
        kept = {row: lease for row, lease in leases.items() if lease[1] > now}
        # Not flushed to the disk, which takes long: after a crash nobody looks at a sample.
        temporary = self.path.with_suffix(TEMPORARY)
        temporary.unlink(missing_ok=True)
        temporary.write_text(json.dumps(kept), "utf-8")
        temporary.replace(self.path)


def until_gap(queues: Iterable[Sequence[Entry]], decided: Container[int]) -> list[Entry]:
    """Return the first entries of the queues, up to the first about which nobody has decided.

    Only the beginning of a queue is a sample with known probabilities: whoever decides the easy
    ones first would bias all estimates.

    Parameters
    ----------
    queues : iterable of sequences of Entry
        The queues, in the order of drawing.
    decided : container of int
        The rows about which somebody has decided, be it to skip them.
    """
    entries = (entry for queue in queues for entry in queue)
    return list(takewhile(lambda entry: entry.row in decided, entries))
