"""A small finished run, written without a fit."""

import numpy as np
import pandas as pd
import pytest

from pudistill.review.queue import Entry
from pudistill.review.samples import open_samples
from pudistill.review.session import Options, ReviewSession
from pudistill.runs.folder import Run
from pudistill.runs.settings import Settings
from tests.helpers.pictures import write_picture
from tests.helpers.runs import label_rows

CLASSES = ["cat", "dog", "owl"]


def label_table(ids, given, classes):
    """Every third given label is corrected to the next class; the first three are verified."""
    n = len(ids)
    changed = (np.arange(n) % 3 == 2) & (np.arange(n) >= 3)
    label = [
        classes[(classes.index(name) + 1) % len(classes)] if is_changed else name
        for name, is_changed in zip(given, changed, strict=True)
    ]
    trusted = np.arange(n) < 3
    source = np.where(trusted, "trusted", np.where(changed, "student", "given"))
    sure = np.linspace(0, 1, n)
    return label_rows(ids, given, label, trusted=trusted, source=source, confidence=sure)


def write_run(folder, data, ids, given, classes=CLASSES, **settings):
    """Write what the page reads of a run."""
    config = Settings.read({"data": str(data), **settings}).to_config()
    run = Run.create(folder, config)
    run.write_table("labels", label_table(ids, given, classes))
    run.write_arrays("gallery.npz", {})
    run.finish({"classes": classes})
    return run


@pytest.fixture
def text_run(tmp_path):
    """A run on twelve texts, one of which is long and another one HTML."""
    texts = [f"text number {n}" for n in range(12)]
    texts[4], texts[5] = "long " * 100_000, "<script>alert(1)</script>"
    ids, given = [f"t{n}" for n in range(12)], [CLASSES[n % 3] for n in range(12)]
    trusted = [n < 3 for n in range(12)]
    table = pd.DataFrame({"id": ids, "text": texts, "label": given, "trusted": trusted})
    table.to_csv(tmp_path / "texts.csv", index=False)
    return write_run(tmp_path / "run", tmp_path / "texts.csv", ids, given)


@pytest.fixture
def picture_run(tmp_path):
    """A run on a folder of pictures, one of which is a GIF."""
    rng = np.random.default_rng(0)
    for n in range(12):
        path = tmp_path / "photos" / CLASSES[n % 3] / f"{n:02}.{'gif' if n == 4 else 'png'}"
        write_picture(path, rng.integers(0, 256, (8, 8, 3), np.uint8))
    files = sorted((tmp_path / "photos").rglob("*.*"))
    ids = [path.relative_to(tmp_path / "photos").as_posix() for path in files]
    return write_run(
        tmp_path / "run", tmp_path / "photos", ids, [path.split("/")[0] for path in ids]
    )


@pytest.fixture
def start():
    """Start a review: ``start(run, who="Ann")``; a queue is given as entries."""

    def begin(run, queue=None, **options):
        if queue is not None:
            options["queue"] = write_queue(run, queue)
        session = ReviewSession(run, Options(**{"who": "Ann"} | options), open_samples)
        session.load_samples()
        return session

    return begin


def write_queue(run, entries):
    """Write a queue as ``pudistill next`` does."""
    ids = run.read_table("labels")["id"]
    table = pd.DataFrame([vars(entry) for entry in entries])
    path = run.path / "review" / "queue-1.csv"
    path.parent.mkdir(exist_ok=True)
    table.assign(id=ids[table["row"]].to_numpy()).drop(columns="row").to_csv(path, index=False)
    return path


@pytest.fixture
def mixed_queue():
    """A queue of two samples at random and two chosen ones."""
    return [
        Entry(5, 0.8, "chosen", "likely wrong"),
        Entry(3, 1.25, "random"),
        Entry(8, 0.5, "chosen", "likely wrong"),
        Entry(4, 1.25, "random"),
    ]
