"""Reviews from nothing: samples that nobody can label, odd names, and the end of the data."""

import numpy as np
import pandas as pd
import pytest

from pudistill.data.batches import with_batch
from pudistill.data.draws import Draws
from pudistill.data.loading import load_dataset
from pudistill.data.options import ReadOptions
from pudistill.data.trusted_files import read_trusted
from pudistill.distillation.held_out_labels import HeldOutLabels
from pudistill.review.decisions import Decision, Decisions
from pudistill.review.promises import Decided, Judged, _with_skipped, promises_of
from pudistill.review.start import Review
from pudistill.runs.inputs import load_data
from pudistill.runs.settings import Settings

NOTHING = Decided(*(np.zeros(0, dtype=kind) for kind in (int, int, float, float, bool)))


def test_samples_skipped_before_the_fit_count_as_wrong():
    n, trusted = 400, np.arange(400) < 60
    held_out = HeldOutLabels(np.zeros(n, int), np.full(n, 0.9, np.float32), 1.0, None)
    judged = Judged(
        held_out,
        np.where(trusted, 0, -1),
        np.where(trusted, 0.0, np.nan),
        np.where(trusted, np.nan, 0.1),
        trusted,
    )
    table = pd.DataFrame({"id": [str(i) for i in range(n)]})
    skipped = pd.DataFrame({"id": [str(i) for i in range(60, 80)], "weight": 1.0})
    before = promises_of(judged, NOTHING)
    after = promises_of(_with_skipped(judged, table, skipped), NOTHING)
    assert (before.n_verified, before.n_skipped) == (60, 0)
    assert (after.n_verified, after.n_skipped) == (60, 20)
    assert before.labels_right.value == 1.0
    assert after.labels_right.value == pytest.approx(60 / 80)
    assert after.rate.interval[1] > 20 / 80


@pytest.fixture
def odd_data(tmp_path):
    rng = np.random.default_rng(0)
    names = np.array(["NA", "None"])[np.arange(40) % 2]
    ids = [f"=1+{i}" if i % 2 else f"-x,{i}" for i in range(40)]
    table = pd.DataFrame({"id": ids, "a": np.arange(40) % 2 + rng.normal(size=40)})
    table.assign(label=names).to_csv(tmp_path / "odd.csv", index=False)
    return tmp_path / "odd.csv", dict(zip(ids, names, strict=True))


def test_odd_ids_and_labels_survive(odd_data, tmp_path):
    data, truth = odd_data
    review = Review(Settings(data=str(data)), tmp_path / "review", budget=10)
    queue = review.queue
    assert {*queue["id"]} <= {*truth}
    Decisions(review.run.path).append(
        *(Decision(i, "label", truth[i], 1.0, "random") for i in queue["id"])
    )
    assert {*review._decided()["label"]} == {"NA", "None"}
    review._draw()
    assert len({*queue["id"]} | {*review.queue["id"]}) == 20
    dataset = load_dataset(str(data))
    ids, _, weights = read_trusted(review.queue_path, dataset, ReadOptions())
    assert ids == review.queue["id"].tolist()
    assert len(weights) == 10


def test_samples_that_the_data_show_as_verified_are_not_asked(odd_data, tmp_path):
    data, truth = odd_data
    table = pd.read_csv(data, keep_default_na=False)
    known = np.arange(40) < 30
    table["verified_label"] = [
        truth[i] if k else "" for i, k in zip(table["id"], known, strict=True)
    ]
    table.to_csv(data, index=False)
    review = Review(Settings(data=str(data)), tmp_path / "review", budget=50)
    assert sorted(review.queue["id"]) == sorted(table["id"][~known])


def test_a_batch_keeps_marks_groups_and_draws():
    iris = load_dataset("iris")
    first = iris.with_trusted(["0", "60", "120"], weights=[0.5, 1.0, 1.5])
    both = with_batch(first, iris.take(np.arange(5)))
    assert both.marked.sum() == 3
    assert isinstance(both.draws, Draws)
    assert np.flatnonzero(~np.isnan(both.draws.weight)).tolist() == [0, 60, 120]
    later = both.with_trusted(["151"], ["setosa"], weights=[0.7])
    assert later.draws.weight[151] == 0.7


def test_a_batch_can_have_other_column_order_and_no_labels(tmp_path):
    first = pd.DataFrame({"id": ["a", "b"], "x": [1.0, 2], "z": [3.0, 4], "label": ["u", "v"]})
    first.assign(verified_label=first["label"]).to_csv(tmp_path / "first.csv", index=False)
    more = pd.DataFrame({"z": [5.0], "id": ["c"], "x": [6.0]})
    more.to_csv(tmp_path / "more.csv", index=False)
    settings = Settings(data=str(tmp_path / "first.csv"), added=[str(tmp_path / "more.csv")])
    both, _ = load_data(settings)
    assert both.X.tolist() == [[1, 3], [2, 4], [6, 5]]
    assert both.y.tolist() == ["u", "v", None]
