"""What the page can do: take a sample, decide, take back, list many; without any HTTP."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pudistill.exceptions import InputError
from pudistill.labels.table import SOURCES
from pudistill.review.decisions import Decision, Decisions, as_table
from pudistill.review.filters import Filter
from pudistill.review.promises import Promises, promises
from pudistill.review.queue import (
    Entry,
    Leases,
    picked,
    read_queue,
    until_gap,
)
from pudistill.review.run_table import RunTable
from pudistill.review.samples import Samples
from pudistill.review.selection import queues, write_queue
from pudistill.runs.certificates import FILE as HELD_OUT_LABELS
from pudistill.runs.folder import Run

MOST_PAIRS = 100  # pairs of classes that the filter lists
N_IN_GRID = 48
TRUSTED, PICKED = "trusted.csv", "picked.csv"


@dataclass(frozen=True)
class Options:
    """How to review.

    Attributes
    ----------
    queue : Path, optional
        A queue; by default the first one of the run that is not finished, or a new one.
    budget : int
        Samples of a new queue.
    who : str
        Name of the reviewer; a page can state another one.
    show_suggestion : bool
        Whether corrected labels are shown at once; never those of samples drawn at random.
    again : bool
        Whether samples that somebody else has decided, or is looking at, are asked as well.
    seed : int
        Seed of a new queue, together with the number of earlier ones.
    draws : bool
        Whether a new queue is drawn when all are done.
    learns : bool
        Whether the command fits as soon as all queues are done, and asks on.
    looks_before : int
        See `promises`.
    skipped_before : DataFrame, optional
        See `promises`.
    """

    queue: Path | None = None
    budget: int = 50
    who: str = ""
    show_suggestion: bool = False
    again: bool = False
    seed: int = 0
    draws: bool = True
    learns: bool = False
    looks_before: int = 0
    skipped_before: pd.DataFrame | None = None


class ReviewSession:
    """The review of a run by any number of pages, and of processes.

    Parameters
    ----------
    run : Run
        A finished run of `pudistill fit`.
    options : Options
        How to review.
    open_samples : callable
        Returns the `Samples` of a table; it is called in `load_samples`.
    """

    def __init__(
        self,
        run: Run,
        options: Options,
        open_samples: Callable[[Run, dict[str, Any], RunTable], Samples],
    ) -> None:
        self.run, self.options = run, options
        self._config = run.read_config()
        self.no_class = str(self._config.get("no_class_label") or "none of these")
        self.table = RunTable.read(run)
        self.decisions = Decisions(run.path)
        self.leases = Leases(self.decisions)
        self._open_samples = open_samples
        self._samples: Samples | None = None
        self._own: list[Entry] | None = None
        self._promised: tuple[range, Promises] | None = None
        self._selected: tuple[Filter, np.ndarray] | None = None
        self._are_open = threading.Event()
        self._names = list(dict.fromkeys([*self.table.classes, *self.table.names]))
        if self.no_class in self._names:
            self._names.remove(self.no_class)
        self._rows: dict[str, int] = {}
        self.more()
        self.n_before = len(self.decisions.current())

    # -- the samples ------------------------------------------------------------------------------

    def load_samples(self) -> None:
        """Read the data, which can take long."""
        self._samples = self._open_samples(self.run, self._config, self.table)
        self._are_open.set()

    @property
    def samples(self) -> Samples:
        """The samples, after `load_samples`, for which this waits."""
        self._are_open.wait()
        assert self._samples is not None
        return self._samples

    @cached_property
    def _texts(self) -> Any:
        """Texts to search in; None for other samples, and while the data are being read."""
        dataset = self.samples.dataset
        if dataset is None or not dataset.is_text:
            return None
        return pa.array(map(str, dataset.X), pa.large_string())

    # -- the queue --------------------------------------------------------------------------------

    def more(self) -> None:
        """Go on with the first queue that has open samples, or draw a new one if there is none."""
        with self.decisions.locked():
            self._read_queues()
            known = [queue for queue in (self._own, *self.queues) if queue is not None]
            is_open = (queue for queue in known if any(self._is_open(e.row) for e in queue))
            if (queue := next(is_open, None)) is None:
                queue = self._draw() if self.options.draws else []
                self.queues.append(queue)
            self.queue = queue
            self._in_queue = {e.row for e in queue if not self.table.trusted[e.row]}
            known.append(queue)
            self._entries = {entry.row: entry for queue in reversed(known) for entry in queue}
            self._rows = self._known_rows()

    def _read_queues(self) -> None:
        """Read all queues of the run, and the one that was asked for if it is elsewhere."""
        own, paths = self.options.queue, queues(self.run)
        self.queues = [read_queue(path, self.table) for path in paths]
        places = [path.resolve() for path in paths]
        if own is None:
            self._own = None
        elif own.resolve() in places:
            self._own = self.queues[places.index(own.resolve())]
        else:
            self._own = read_queue(own, self.table)

    def _draw(self) -> list[Entry]:
        """Draw a new queue, and write it to the folder of the decisions; empty if none is left."""
        is_left = ~self.table.trusted
        is_left[[entry.row for queue in self.queues for entry in queue]] = False
        budget = min(self.options.budget, int(is_left.sum()))
        if budget == 0:
            return []
        path, _ = write_queue(self.run, budget, seed=self.options.seed)
        return read_queue(path, self.table)

    def _is_open(self, row: int) -> bool:
        """Whether nobody has verified a sample, before the fit or since, or skipped it."""
        return not self.table.trusted[row] and self.decisions.of(self.table.id_of(row)) is None

    def _is_free(self, row: int, who: str, leased: set[int]) -> bool:
        """Whether a sample can be shown to a reviewer now."""
        if self.options.again:
            known = self.decisions.of(self.table.id_of(row))
            return known is None or (known.is_final and known.who != who)
        return row not in leased and self._is_open(row)

    def _candidates(self, scope: str, wanted: Filter) -> "_Candidates":
        """Return what can be asked, in its order.

        A filter can tell what the label would be corrected to. Samples drawn at random are
        therefore left out: their reviewers must not know.
        """
        if scope == "queue" and not wanted.is_active:
            return _Candidates(np.array([entry.row for entry in self.queue], int), self._entries)
        rows = self._select(wanted)
        random = [row for row, entry in self._entries.items() if entry.part == "random"]
        if scope == "queue":
            order = [entry.row for entry in self.queue if entry.part != "random"]
            return _Candidates(np.array(order, int)[np.isin(order, rows)], self._entries)
        return _Candidates(rows[~np.isin(rows, random)] if random else rows, self._entries)

    def _select(self, wanted: Filter) -> np.ndarray:
        """Return the rows that a filter leaves; those of the last filter are kept."""
        if self._selected is None or self._selected[0] != wanted:
            rows = self.table.select(wanted, self._texts if wanted.search else None)
            self._selected = wanted, rows
        return self._selected[1]

    def take(self, page: str, who: str, scope: str, wanted: Filter, n: int = 1) -> list[Entry]:
        """Return the next samples for a page, and keep them from others for a while."""
        with self.decisions.locked():
            leased = self._leased(page)
            candidates = self._candidates(scope, wanted)
            free = (entry for entry in candidates if self._is_free(entry.row, who, leased))
            found = list(islice(free, n))
            self._lease(page, [entry.row for entry in found])
            return found

    def keep(self, page: str, rows: Sequence[int]) -> bool:
        """Renew the leases of a page; return False if another page has one of its samples now."""
        with self.decisions.locked():
            if self._leased(page).intersection(rows):
                return False
            self._lease(page, rows)
            return True

    def _leased(self, page: str) -> set[int]:
        return set() if self.options.again else self.leases.of_others(page)

    def _lease(self, page: str, rows: Sequence[int]) -> None:
        if not self.options.again:
            self.leases.take(page, rows)

    # -- decisions --------------------------------------------------------------------------------

    def decide(
        self,
        rows: Sequence[int],
        action: str,
        label: str | None,
        who: str,
        session: str,
        *,
        page: str = "",
        saw: bool = False,
    ) -> list[Decision]:
        """Write a decision about one or several samples.

        Parameters
        ----------
        rows : sequence of int
            The samples.
        action : {"given", "suggested", "label", "none", "skip"}
            What was decided: as given, as suggested, or `label`.
        label : str or None
            The label.
        who, session, page : str
            The reviewer, the series of decisions, and the page; see `Decision`.
        saw : bool
            Whether suggestions were shown.

        Returns
        -------
        written : list of Decision
            What is in force now.

        Raises
        ------
        InputError
            If a sample or a label does not exist, or somebody else has decided before.
        """
        new = []
        with self.decisions.locked():
            leased = self._leased(page)
            for row in rows:
                if not 0 <= row < len(self.table):
                    raise InputError(f"The run has no sample {row + 1:,}: load the page again.")
                if action not in ("given", "suggested", "label", "none", "skip"):
                    raise InputError(f"There is no action {action!r}: load the page again.")
                if row in leased and self._is_open(row):
                    raise InputError(
                        "Somebody else is looking at this sample, because this page was away for "
                        "long: go on with the next one."
                    )
                new.append(self._decision(row, action, label, who, session, saw))
            written = self.decisions.append(*new)
        for row, decision in zip(rows, written, strict=True):
            self._rows[decision.id] = row
            if decision.is_final and decision.label not in (*self._names, self.no_class):
                self._names.append(str(decision.label))
        return written

    def _decision(
        self, row: int, action: str, label: str | None, who: str, session: str, saw: bool
    ) -> Decision:
        entry = self._entries.get(row, picked(row))
        sample = self.table.id_of(row)
        known = self.decisions.of(sample)
        if known is not None and known.who != who and not self.options.again:
            said = known.label if known.is_final else "skipped"
            raise InputError(
                f"{known.who} has already decided about this sample ({said}): go on to the next "
                "one, or start the command with --again to ask twice."
            )
        if action == "given":
            label = self.table.given_of(row)
        elif action == "suggested":
            if entry.part == "random":
                raise InputError("This sample was drawn at random and has no suggestion.")
            label = self.table.label_of(row)
        elif action == "none":
            label = self.no_class
        if action == "skip":
            label = None
        elif not label or label != label.strip() or len(label) > 1000:
            raise InputError("This decision has no label: choose a class.")
        kind = "skip" if action == "skip" else "none" if label == self.no_class else "label"
        return Decision(
            id=sample,
            action=kind,  # type: ignore[arg-type]
            label=label,
            weight=entry.weight,
            part=entry.part,
            who=who,
            session=session,
            saw_suggestion=saw and entry.part != "random",
        )

    def undo(self, session: str, who: str, page: str = "") -> Entry | None:
        """Take back the last decision of a session; return its sample, or None."""
        with self.decisions.locked():
            last = self.decisions.last_of(session)
            if last is None:
                return None
            back = Decision(last.id, "undo", part=last.part, who=who, session=session)
            self.decisions.append(back)
            row = self._row_of(last.id)
            self._lease(page, [row])
            return self._entries.get(row, picked(row))

    def _known_rows(self) -> dict[str, int]:
        decided = [decision.id for decision in self.decisions.in_force()]
        rows = self.table.rows_of(decided, self.decisions.path).tolist()
        return dict(zip(decided, rows, strict=True)) | {
            self.table.id_of(row): row for row in self._entries
        }

    def _row_of(self, sample: str) -> int:
        """Return the row of a sample, also one that another process has picked."""
        if sample not in self._rows:
            self._rows[sample] = int(self.table.rows_of([sample], self.decisions.path)[0])
        return self._rows[sample]

    # -- what the page shows ----------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """Return what a page has to know before it shows samples."""
        classes = [name for name in self._names if name != self.no_class]
        return {
            "run": self._name(),
            "who": self.options.who,
            "classes": classes,
            "no_class": self.no_class,
            "labels": list(self.table.names),
            "sources": [SOURCES[code] for code in np.unique(self.table.source)],
            "pairs": self.table.pairs()[:MOST_PAIRS],
            "show_suggestion": self.options.show_suggestion,
            "suggests": bool(np.isfinite(self.table.confidence).any()),  # once there was a fit
            "learns": self.options.learns,
            "queue": len(self.queues),
            "n_samples": len(self.table),
        }

    def _name(self) -> str:
        path = self.run.path.resolve()
        return f"{path.parent.name} · {path.name}" if self.options.learns else path.name

    def progress(self) -> dict[str, Any]:
        """Return how far the queue is, and how many samples were decided in all."""
        actions = {row: known.action for row, known in self._in_force().items()}
        # Decisions are few beside a queue of any length.
        done = sum(row in self._in_queue for row in actions)
        n_skipped = sum(action == "skip" for action in actions.values())
        return {
            "n_queue": len(self.queue),
            "n_open": len(self._in_queue) - done,
            "n_verified": len(actions) - n_skipped,
            "n_skipped": n_skipped,
            "n_trusted": int(self.table.trusted.sum()),
        }

    def show(self, entry: Entry) -> dict[str, Any]:
        """Return a sample as a page shows it; without anything that would bias its reviewer."""
        content = self.samples.content(entry.row)
        is_random = entry.part == "random"
        known = self.decisions.of(self.table.id_of(entry.row))
        shown: dict[str, Any] = {
            "row": entry.row,
            "id": self.table.id_of(entry.row),
            "part": entry.part,
            "reason": "" if is_random else entry.reason,
            "given": self.table.given_of(entry.row),
            "kind": content.kind,
            "text": content.text,
            "n_characters": content.n_characters,
            "values": content.values,
            "said": [] if is_random else content.said,
            "hides_said": is_random and bool(content.said),
            "decided": None if known is None else known.label or known.action,
        }
        if self.options.show_suggestion and not is_random:
            shown |= self.suggestion(entry.row)
        return shown

    def suggestion(self, row: int) -> dict[str, Any]:
        """Return the corrected label of a sample; raise `InputError` if it was drawn at random."""
        if self._entries.get(row, picked(row)).part == "random":
            raise InputError(
                "This sample was drawn at random: it is decided without a suggestion, so that the "
                "estimates hold."
            )
        confidence = float(self.table.confidence[row])
        return {
            "suggestion": self.table.label_of(row),
            "confidence": None if np.isnan(confidence) else round(confidence, 3),
        }

    def grid(
        self, page: str, who: str, scope: str, wanted: Filter, sheet: int = 0
    ) -> dict[str, Any]:
        """Return many samples to decide at once, or a sheet of those that were decided."""
        if scope == "decided":
            kept = set(self._select(wanted).tolist())
            with self.decisions.locked():
                decided = self.decisions.in_force()
            rows = [row for row in (self._row_of(d.id) for d in reversed(decided)) if row in kept]
            start = sheet * N_IN_GRID
            entries = [self._entries.get(r, picked(r)) for r in rows[start : start + N_IN_GRID]]
            cards = [self._card(entry) for entry in entries]
            return {"samples": cards, "before": start, "n": len(rows)}
        entries = self.take(page, who, scope, wanted, N_IN_GRID)
        n = len(self._candidates(scope, wanted).rows)
        return {"samples": [self._card(entry) for entry in entries], "n": n}

    def _card(self, entry: Entry) -> dict[str, Any]:
        known = self.decisions.of(self.table.id_of(entry.row))
        card = {
            "row": entry.row,
            "id": self.table.id_of(entry.row),
            "part": entry.part,
            "given": self.table.given_of(entry.row),
            "kind": self.samples.kind,
            "excerpt": self.samples.excerpt(entry.row),
            "decided": None if known is None else known.label or known.action,
        }
        if self.options.show_suggestion and entry.part != "random":
            card |= self.suggestion(entry.row)
        return card

    # -- results ----------------------------------------------------------------------------------

    def write_trusted(self) -> None:
        """Write the verified labels to ``trusted.csv``, and those picked by hand to ``picked.csv``.

        A sample of a queue is trusted as soon as everything before it is decided, see `until_gap`.
        All others were picked: a fit that takes them for a sample would estimate wrong rates.
        """
        final = {row: known for row, known in self._in_force().items() if known.is_final}
        weights = {entry.row: entry.weight for entry in self._counted()}
        # Others were drawn by a queue that is not here any more.
        weights |= {row: known.weight for row, known in final.items() if row not in self._entries}
        trusted = [
            replace(final.pop(row), weight=weight)
            for row, weight in weights.items()
            if weight is not None and row in final
        ]
        self.decisions.write(TRUSTED, as_table(trusted))
        if final or (self.decisions.folder / PICKED).exists():
            self.decisions.write(PICKED, as_table(final.values()).drop(columns="weight"))

    def promises(self) -> Promises:
        """Return what is promised now, which changes from look to look only.

        Raises
        ------
        InputError
            If nothing can be promised of this run.
        """
        if self.options.learns and not (self.run.path / HELD_OUT_LABELS).exists():
            raise InputError("Nothing is promised yet. The first fit follows when this is done.")
        n_counted = len(self._counted())
        if self._promised is None or n_counted not in self._promised[0]:
            table = as_table(
                replace(known, weight=self._entries[row].weight) if row in self._entries else known
                for row, known in self._in_force().items()
            )
            found = promises(
                self.run,
                table,
                looks_before=self.options.looks_before,
                skipped_before=self.options.skipped_before,
            )
            n_others = found.n_verified + found.n_skipped - n_counted
            until_next = range(found.n_at_look - n_others, found.n_next_look - n_others)
            self._promised = until_next, found
        return self._promised[1]

    def _in_force(self) -> dict[int, Decision]:
        """Return the decisions in force by row, in their order."""
        with self.decisions.locked():
            return {self._row_of(known.id): known for known in self.decisions.in_force()}

    def _counted(self) -> list[Entry]:
        decided = self._in_force()
        is_elsewhere = self._own is not None and self._own not in self.queues
        of_own = until_gap([self._own], decided) if is_elsewhere and self._own else []
        return [*until_gap(self.queues, decided), *of_own]


class _Candidates:
    """Samples in an order, as entries that are made when they are looked at."""

    def __init__(self, rows: np.ndarray, entries: dict[int, Entry]) -> None:
        self.rows, self._entries = rows, entries

    def __iter__(self) -> Iterator[Entry]:
        for row in self.rows:
            yield self._entries.get(int(row), picked(row))
