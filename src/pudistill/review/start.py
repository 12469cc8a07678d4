"""A review that begins with no verified label, and fits again whenever a queue is done.

The folder of the review holds runs with numbers. Run 0 has learned nothing: it asks for the first
samples. Each further run has learned from the decisions on the queues of all runs before.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pudistill.data.dataset import TrustedDataset
from pudistill.exceptions import InputError
from pudistill.labels.checks import MISSING
from pudistill.labels.table import GIVEN, LabelTable
from pudistill.review.decisions import Decisions, as_table
from pudistill.review.drawing import CHOSEN, RANDOM, draw
from pudistill.review.first_draw import first_gain
from pudistill.review.promises import Promises, looks_at, promises
from pudistill.review.selection import ids_of, queues, write_new_queue, write_queue
from pudistill.review.update import write_decided
from pudistill.runs.certificates import FILE, MAX_ERRORS
from pudistill.runs.environment import versions
from pudistill.runs.fit import fit_run
from pudistill.runs.folder import Run
from pudistill.runs.inputs import load_data, names_after_merging
from pudistill.runs.settings import Settings
from pudistill.runs.summary import gallery

# A class is fitted from this many verified samples on. If this many samples that are labelled so
# were verified, and fewer are of the class, its labels are left out.
FEWEST_OF_CLASS, ASKED = 2, 8

# With this many times the verified samples of the last fit that did not start from another, the
# next one does not either: an update gains less from new samples.
GROWTH_TO_FIT_ANEW = 2.0

AT_RANDOM, FIRST = "at random", "to meet every class"


@dataclass
class Review:
    """A review of data of which nothing needs to be verified yet.

    Parameters
    ----------
    settings : Settings
        Of the fits.
    folder : Path
        Of the runs. A review that was interrupted continues.
    budget : int, default=50
        Samples of a queue.

    Raises
    ------
    InputError
        If the folder holds something else, or the data cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from pudistill.review.start import Review
    >>> from pudistill.runs.settings import Settings
    >>> review = Review(Settings(data="iris"), Path(tempfile.mkdtemp()) / "review", budget=20)
    >>> review.run.path.name, len(review.queue)
    ('0', 20)
    """

    settings: Settings
    folder: Path
    budget: int = 50

    def __post_init__(self) -> None:
        self.settings = self.settings.model_copy(update={"unverified_classes": "leave out"})
        if (self.folder / "run.json").exists():
            raise InputError(
                f"{self.folder} holds a run: go on with `pudistill review {self.folder}`, or "
                "choose another --output."
            )
        if not self.runs:
            self._begin()
        elif (data := self.runs[0].read_config()["data"]) != self.settings.to_config()["data"]:
            raise InputError(
                f"{self.folder} holds a review of {data}: name these data, or choose another "
                "--output."
            )
        if self.queue_path is None:
            self._draw()

    @property
    def runs(self) -> list[Run]:
        """The finished runs, in their order."""
        found: list[Run] = []
        while (path := self.folder / str(len(found)) / "SHA256SUMS").is_file():
            found.append(Run.open(path.parent))
        return found

    @property
    def run(self) -> Run:
        """The last run, whose queue is asked."""
        return self.runs[-1]

    @cached_property
    def dataset(self) -> TrustedDataset:
        """The data, without decisions."""
        return load_data(self.settings)[0]

    def _begin(self) -> None:
        """Write run 0."""
        dataset = self.dataset
        n, names = len(dataset), np.array(dataset.classes, dtype=object)
        codes = {name: code for code, name in enumerate(names)}
        given = np.array([codes.get(label, MISSING) for label in dataset.y])
        unknown = np.full(n, np.nan, dtype=np.float32)
        table = LabelTable(
            names=names,
            given=given,
            trusted=dataset.trusted,
            label=np.array([codes.get(v, c) for v, c in zip(dataset.verified, given, strict=True)]),
            changed=np.zeros(n, dtype=bool),
            source=np.full(n, GIVEN),
            confidence=unknown,
            given_quality=unknown,
            votes=np.full(n, -1),
            outlier_score=unknown,
            outlier=np.zeros(n, dtype=bool),
            ids=dataset.ids,
        )
        with Run.begin(self.folder / "0", self.settings.to_config()) as run:
            run.write_table("labels", table)
            run.write_arrays("gallery.npz", gallery(dataset, table))
            metrics = {"n_samples": n, "classes": [*dataset.classes], "versions": versions()}
            run.finish(metrics)

    @property
    def queue_path(self) -> Path | None:
        """The queue that is asked; None if nothing is left to ask."""
        drawn = queues(self.run)
        return drawn[-1] if drawn else None

    @property
    def queue(self) -> pd.DataFrame:
        """What the queue holds."""
        path = queues(self.run)[-1]
        return pd.read_csv(path).assign(id=ids_of(path, self.dataset.ids))

    def _draw(self) -> None:
        """Draw the next queue of the last run, unless nothing is left."""
        run = self.run
        if run.path.name != "0":
            table = run.read_table("labels")
            n_left = int((~table["trusted"]).sum())
            skipped = {*self.skipped["id"]}
            n_left -= len(skipped.difference(table["id"][table["trusted"]]))
            budget = min(self.budget, n_left)
            if budget > 0:
                write_queue(run, budget, seed=self.settings.seed, leave_out=skipped)
            return
        dataset, earlier = self.dataset, queues(run)
        gain = first_gain(dataset, self.settings.seed)
        gain[dataset.trusted] = np.nan
        ids = pd.Index(np.asarray(dataset.ids, dtype=object))
        for path in earlier:
            gain[ids.get_indexer(ids_of(path, self.dataset.ids))] = np.nan
        lacking = self._lacking(self._decided())
        if lacking:  # only these are worth more than others
            gain = np.where(np.isin(dataset.y, lacking), gain, np.where(np.isnan(gain), gain, 0.0))
        rng = np.random.default_rng([self.settings.seed, len(earlier)])
        found = draw(gain, min(self.budget, int((~np.isnan(gain)).sum())), 0.5, rng)
        label = dataset.y[found.rows]
        queue = pd.DataFrame(
            {
                "id": ids[found.rows],
                "weight": found.weight,
                "part": np.where(found.is_chosen, CHOSEN, RANDOM),
                "given": label,
                "label": label,
                "confidence": np.nan,
                "reason": np.where(found.is_chosen, FIRST, AT_RANDOM),
            }
        )
        write_new_queue(run, queue)

    def _decided_tables(self) -> list[Path]:
        """Write the decisions of each run as a trusted table, in the order of drawing."""
        return [path for run in self.runs if (path := write_decided(run)) is not None]

    def _decided(self) -> pd.DataFrame:
        """Return all decisions of all runs, in the order of drawing."""
        return _joined(self._decided_tables())

    def _lacking(self, decided: pd.DataFrame) -> list[str]:
        """Return the given labels of which too few samples are verified, and not enough asked."""
        new_names, dataset = names_after_merging(self.settings.merge), self.dataset
        of_class = Counter(decided["label"].replace(new_names))
        of_class.update(dataset.verified[dataset.trusted])
        # Those that were skipped have been asked, too.
        drawn = [name for path in queues(self.run) for name in ids_of(path, dataset.ids)]
        rows = pd.Index(np.asarray(dataset.ids, dtype=object)).get_indexer(drawn)
        asked, available = Counter(dataset.y[rows]), Counter(dataset.y[~dataset.trusted])
        return [
            name
            for name in {*dataset.y} - {None, dataset.no_class_label}
            if of_class[name] < FEWEST_OF_CLASS and asked[name] < min(ASKED, available[name])
        ]

    def learn(self) -> bool:
        """Fit with all decisions; draw the next queue.

        Returns
        -------
        has_fitted : bool
            False: more has to be asked first, because a class has hardly any verified sample.
        """
        last, tables = self.run, self._decided_tables()
        decided = _joined(tables)
        verified = {*decided["label"], *self.dataset.verified[self.dataset.trusted]}
        verified -= {self.dataset.no_class_label}
        new_names = names_after_merging(self.settings.merge)
        verified = {new_names.get(name, name) for name in verified}
        if last.path.name == "0" and (self._lacking(decided) or len(verified) < 2):
            self._draw()
            if self.queue.empty:
                raise InputError(
                    f"{self.folder}: all samples are decided, and they are of fewer than two "
                    "classes: there is nothing to learn."
                )
            return False
        changes: dict[str, Any] = {"more_trusted": [*map(str, tables)]}
        if self._starts_from_last(verified, len(decided) + int(self.dataset.trusted.sum())):
            changes["start_from"] = str(last.path)
        settings, path = self.settings.model_copy(update=changes), self.folder / str(len(self.runs))
        if path.exists() and not Run.is_interrupted(path, settings.to_config()):
            Run(path).discard()  # of an interrupted fit with other settings
        fit_run(settings, path)
        self._draw()
        return True

    def _starts_from_last(self, verified: set[str], n_verified: int) -> bool:
        """Return whether an update will do: with the same classes, and not many more samples."""
        anew = [run for run in self.runs[1:] if "start_from" not in run.read_config()]
        if not anew:
            return False
        is_same = {*self.run.read_json("metrics.json")["classes"]} == verified
        n_before = anew[-1].read_json("metrics.json")["n_trusted"]
        return is_same and n_verified < GROWTH_TO_FIT_ANEW * n_before

    def promises(self, max_errors: Sequence[float] = MAX_ERRORS) -> Promises | None:
        """Return what the last fit promises, however often one has looked; None if nothing."""
        if not (self.run.path / FILE).exists():
            return None
        return promises(
            self.run,
            as_table([]),
            max_errors=max_errors,
            looks_before=self.looks_before,
            skipped_before=self.skipped,
        )

    @property
    def skipped(self) -> pd.DataFrame:
        """Samples of the queues of earlier runs that nobody could label: columns of decisions."""
        earlier = [Decisions(run.path).in_force() for run in self.runs[:-1]]
        return as_table(known for found in earlier for known in found if known.action == "skip")

    @property
    def looks_before(self) -> int:
        """Looks at the promises of all runs before the last one."""
        return sum(looks_at(run, len(Decisions(run.path).in_force())) for run in self.runs[1:-1])


def _joined(tables: Sequence[Path]) -> pd.DataFrame:
    """Read trusted tables that `write_decided` wrote, as one."""
    parts = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in tables]
    return pd.concat([as_table([]), *parts], ignore_index=True)
