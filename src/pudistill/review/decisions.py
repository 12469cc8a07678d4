"""The decisions of reviewers: a log that only grows, and survives the death of the process."""

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pandas as pd
from filelock import FileLock

from pudistill.exceptions import InputError, RecoveredWarning, warn_user
from pudistill.utils.files import named_in_errors, sync_folder, write_atomic

FOLDER, FILE, LOCK = "review", "decisions.jsonl", ".lock"
COLUMNS = ("id", "label", "weight", "when", "who")
# Follow no link, where the system can be told so, and on Windows leave the ends of lines alone.
AS_IT_IS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
Action = Literal["label", "none", "skip", "undo"]
_ACTIONS = ("label", "none", "skip", "undo")


@dataclass(frozen=True)
class Decision:
    """What somebody decided about a sample.

    Attributes
    ----------
    id : str
        The sample.
    action : {"label", "none", "skip", "undo"}
        ``none``: the sample is of no class; ``undo`` takes all decisions on the sample back.
    label : str or None
        The verified label; for ``none``, the run's `no_class_label`.
    weight : float or None
        How rare the draw of the sample was beside a uniform one: 1 / (N · p), where N samples were
        not verified yet and this one was drawn with probability p. 1: drawn uniformly. None: picked
        by hand with an unknown probability, so that the label counts in no estimate.
    part : {"random", "chosen", "picked"}
        The part of the queue that the sample is of; ``picked`` by hand, of none.
    who : str
        Name of the reviewer.
    when : str
        Time in UTC, as in ISO 8601.
    n : int
        Number in the log, from 1.
    session : str
        The page of the reviewer on which the decision was made.
    saw_suggestion : bool
        Whether the reviewer saw the corrected label before.
    """

    id: str
    action: Action
    label: str | None = None
    weight: float | None = None
    part: str = "picked"
    who: str = ""
    when: str = ""
    n: int = 0
    session: str = ""
    saw_suggestion: bool = False

    @property
    def line(self) -> bytes:
        """The line in the log."""
        content = json.dumps(asdict(self), ensure_ascii=True)
        return f'{content[:-1]}, "sum": "{_sum(content)}"}}\n'.encode()

    @property
    def is_final(self) -> bool:
        """Whether the sample has a verified label now."""
        return self.action in ("label", "none")

    @classmethod
    def of_line(cls, line: bytes) -> "Decision":
        """Read a line; raise `ValueError` unless it is as it was written."""
        entry = json.loads(line)
        found = entry.pop("sum", None)
        if found != _sum(json.dumps(entry, ensure_ascii=True)):
            raise ValueError("its checksum is another one")
        decision = cls(**entry)
        if decision.action not in _ACTIONS:
            raise ValueError(f"its action is {decision.action!r}")
        return decision


def _sum(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:16]


class Decisions:
    """All decisions about the samples of a run.

    Several processes can append at once: each reads what the others wrote. A decision is on the
    disk when `append` returns. A line that a process did not finish is dropped with a warning.

    Parameters
    ----------
    run : Path
        The run folder; decisions are in its folder ``review``, which is made if it is missing.

    Raises
    ------
    InputError
        If a line is damaged, or the folder or one of its files is a link.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from pudistill.review.decisions import Decision, Decisions
    >>> decisions = Decisions(Path(tempfile.mkdtemp()))
    >>> _ = decisions.append(Decision("a.png", "label", "cat", weight=1.0, who="Ann"))
    >>> decisions.current()[["id", "label", "weight", "who"]].values.tolist()
    [['a.png', 'cat', 1.0, 'Ann']]
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / FOLDER
        self.path = self.folder / FILE
        with named_in_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
        for path in (self.folder, self.path, self.folder / LOCK):
            _refuse_link(path)
        self._file_lock = FileLock(self.folder / LOCK)
        self._thread_lock = threading.RLock()
        self._end = 0  # bytes of the log that were read
        self._of: dict[str, Decision] = {}  # the decision in force, by id
        self._n = 0
        with self.locked():
            pass

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes and threads from deciding, and read what they decided before."""
        with self._thread_lock, self._file_lock:
            self._refresh()
            yield

    def append(self, *decisions: Decision) -> list[Decision]:
        """Write decisions; those that are already in force are left out.

        Parameters
        ----------
        *decisions : Decision
            `n` and `when` are filled in.

        Returns
        -------
        written : list of Decision
            The decisions as written, or those in force that say the same.
        """
        with self.locked():
            results: list[Decision] = []
            new: list[Decision] = []
            for decision in decisions:
                known = self.of(decision.id)
                if known is not None and _say_the_same(known, decision):
                    results.append(known)
                elif known is not None or decision.action != "undo":
                    number = self._n + len(new) + 1
                    when = decision.when or _now()
                    new.append(Decision(**asdict(decision) | {"n": number, "when": when}))
                    results.append(new[-1])
            if new:
                self._write(b"".join(decision.line for decision in new))
                for decision in new:
                    self._take_in(decision)
            return results

    def of(self, sample: str) -> Decision | None:
        """Return the decision in force about a sample."""
        return self._of.get(sample)

    def last_of(self, session: str) -> Decision | None:
        """Return the last decision of a page that is in force."""
        own = (decision for decision in self._of.values() if decision.session == session)
        return max(own, key=lambda decision: decision.n, default=None)

    def in_force(self) -> list[Decision]:
        """Return the decisions in force, in their order; also those to skip a sample."""
        return sorted(self._of.values(), key=lambda decision: decision.n)

    def current(self) -> pd.DataFrame:
        """Return the verified labels: columns id, label, weight, when and who, in their order.

        The weight is NaN for samples that were picked by hand.
        """
        return as_table(decision for decision in self.in_force() if decision.is_final)

    def skipped(self) -> list[str]:
        """Return the ids of the samples that were skipped."""
        return [decision.id for decision in self.in_force() if decision.action == "skip"]

    def write(self, name: str, table: pd.DataFrame) -> Path:
        """Write a table of verified labels beside the log, and return its path."""
        path = self.folder / name
        _refuse_link(path)
        # Ids and labels are written as they are: they are read again.
        write_atomic(path, table.to_csv(index=False).encode("utf-8", "surrogatepass"))
        return path

    def _take_in(self, decision: Decision) -> None:
        self._n = decision.n
        if decision.action == "undo":
            self._of.pop(decision.id, None)
        else:
            self._of[decision.id] = decision

    def _write(self, content: bytes) -> None:
        with named_in_errors(self.path):
            is_new = not self.path.exists()
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | AS_IT_IS
            descriptor = os.open(self.path, flags, 0o666)
            try:
                try:
                    written = 0
                    while written < len(content):
                        written += os.write(descriptor, content[written:])
                    os.fsync(descriptor)
                except BaseException:
                    os.ftruncate(descriptor, self._end)  # a full disk: nothing was decided
                    raise
            finally:
                os.close(descriptor)
            if is_new:
                sync_folder(self.folder)
        self._end += len(content)

    def _refresh(self) -> None:
        """Read what was appended since; drop what a process that died left unfinished."""
        if not self.path.exists():
            if self._end:
                raise InputError(f"{self.path} is gone: restore a copy of it.")
            return
        size = self.path.stat().st_size
        if size == self._end:
            return
        if size < self._end:
            raise InputError(f"{self.path} has become shorter: restore a copy of it.")
        with self.path.open("rb") as file:
            file.seek(self._end)
            lines = file.readlines()
        for line in lines:
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("it is not complete")
                decision = Decision.of_line(line)
                if decision.n != self._n + 1:
                    raise ValueError(f"it has the number {decision.n} in place of {self._n + 1}")
            except (AttributeError, ValueError, TypeError, RecursionError) as error:
                if line.endswith(b"\n"):
                    raise InputError(
                        f"{self.path}: line {self._n + 1} is damaged ({error}): restore a copy of "
                        "this file."
                    ) from error
                self._drop_last_line(line)
                return
            self._take_in(decision)
            self._end += len(line)

    def _drop_last_line(self, line: bytes) -> None:
        with named_in_errors(self.path):
            os.truncate(self.path, self._end)
        warn_user(
            f"{self.path}: the last line ({len(line)} bytes) was not finished when a process died; "
            "it is dropped, and its sample is asked again.",
            RecoveredWarning,
        )


def as_table(decisions: Iterable[Decision]) -> pd.DataFrame:
    """Return decisions as a table with the columns id, label, weight, when and who."""
    rows = [[getattr(decision, name) for name in COLUMNS] for decision in decisions]
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=object).astype({"weight": float})


def _say_the_same(known: Decision, new: Decision) -> bool:
    """Whether a page repeats a decision, because it did not hear that it was written."""
    return (known.action, known.label, known.who) == (new.action, new.label, new.who)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _refuse_link(path: Path) -> None:
    """Raise `InputError` if somebody else's run would make the log lead out of its folder."""
    if path.is_symlink():
        raise InputError(f"{path} is a link, and a run holds its own files only: remove it.")
