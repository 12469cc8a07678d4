"""Reviews that begin with no verified label; the truth answers."""

import numpy as np
import pandas as pd
import pytest

from pudistill.exceptions import InputError
from pudistill.review.decisions import Decision, Decisions
from pudistill.review.first_draw import clusters, first_gain
from pudistill.review.selection import queues
from pudistill.review.start import ASKED, Review
from pudistill.runs.inputs import load_data
from pudistill.runs.settings import Settings

QUICK = {"n_members": 2, "max_iter": 1, "compare": False, "threshold": 0.7}
LIGHT = QUICK | {"learner": "sklearn.naive_bayes:GaussianNB", "n_teachers": 1}


@pytest.fixture
def data(tmp_path):
    """Write a table of three classes, one of them rare, and return the truth by id.

    A fifth of the given labels is wrong; "ghost" always is.
    """
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [90, 90, 12])
    centres = np.array([[0, 0], [6, 0], [0, 6]])
    X = centres[y] + rng.normal(size=(len(y), 2))
    given = np.where(rng.random(len(y)) < 0.2, (y + 1) % 3, y)
    names = np.array(["ash", "elm", "fir"])
    labels = names[given].astype(object)
    labels[rng.choice(180, 14, replace=False)] = "ghost"
    ids = [f"t{n}" for n in range(len(y))]
    table = pd.DataFrame({"id": ids, "a": X[:, 0], "b": X[:, 1], "label": labels})
    table.sample(frac=1, random_state=0).to_csv(tmp_path / "trees.csv", index=False)
    return dict(zip(ids, names[y], strict=True))


@pytest.fixture
def begin(data, tmp_path):
    """Begin or continue the review: ``begin(budget=20)``."""

    def review(budget=20, **settings):
        config = {"data": str(tmp_path / "trees.csv"), **LIGHT, **settings}
        return Review(Settings.read(config), tmp_path / "review", budget)

    return review


def answer(review, truth, n=None):
    """Decide the samples of the queue, as the page does."""
    decisions = Decisions(review.run.path)
    done = {decision.id for decision in decisions.in_force()}
    for entry in review.queue.iloc[:n].itertuples():
        if entry.id not in done:
            decisions.append(
                Decision(entry.id, "label", truth[entry.id], entry.weight, entry.part, "Ann")
            )


def learn(review, truth):
    """Answer until a fit is done; return how many queues that took."""
    for n_queues in range(1, 20):
        answer(review, truth)
        if review.learn():
            return n_queues
    raise AssertionError("nothing was fitted")


def test_the_first_queue_meets_every_class(begin, data):
    review = begin()
    dataset, _ = load_data(review.settings)
    is_rare = np.array([data[name] == "fir" for name in dataset.ids])
    for seed in range(3):
        gain = first_gain(dataset, seed)
        assert gain[is_rare].mean() > 2 * gain[~is_rare].mean()
    assert {data[name] for name in review.queue["id"]} == {"ash", "elm", "fir"}
    assert set(review.queue["part"]) == {"random", "chosen"}
    assert review.queue["id"].is_unique


@pytest.mark.parametrize(
    "X",
    [
        np.arange(30.0)[:, None],
        np.ones((30, 40)),
        np.arange(30 * 48, dtype=np.uint8).reshape(30, 4, 4, 3),
        pd.DataFrame({"a": ["x", None] * 15, "b": np.arange(30)}),
        np.array(["a text", "another one", ""] * 10, dtype=object),
    ],
    ids=["one feature", "constant", "pictures", "table", "texts"],
)
def test_samples_of_any_kind_are_clustered(X):
    found = clusters(X, 5)
    assert found.shape == (30,)
    assert set(found) <= set(range(5))


def test_it_goes_from_run_to_run(begin, data):
    review = begin()
    assert review.run.path.name == "0"
    assert review.promises() is None
    learn(review, data)
    n_first = len(review._decided())
    first = review.run.read_table("labels")
    assert review.run.path.name == "1"
    assert first["trusted"].sum() == n_first
    answer(review, data)
    assert review.learn()
    second = review.run.read_table("labels")
    assert [run.path.name for run in review.runs] == ["0", "1", "2"]
    assert review.run.read_config()["start_from"].endswith("1")
    assert second["trusted"].sum() == n_first + 20
    right = (second["label"] == second["id"].map(data)).mean()
    assert right > 0.95
    assert right > (second["given"] == second["id"].map(data)).mean() + 0.1
    # No sample is asked twice, and the weights of all draws are kept.
    decided = review._decided()
    assert decided["id"].is_unique
    assert not set(decided["id"]) & set(review.queue["id"])
    assert len([*review.runs[1].path.glob("review/trusted-*.csv")]) == 1  # learned once
    drawn = pd.concat([pd.read_csv(path) for run in review.runs[:-1] for path in queues(run)])
    assert decided["id"].tolist() == drawn["id"].tolist()
    weight = decided["weight"].astype(float)
    np.testing.assert_allclose(weight, drawn["weight"])
    assert 0 < weight.min() < 1 < weight.max() <= 2.001  # 1 / random share


def test_a_class_that_no_verified_sample_has_is_asked_about_and_then_left_out(begin, data):
    review = begin(budget=6)
    assert learn(review, data) > 1
    given = review.run.read_table("labels").set_index("id")["given"]
    table = pd.read_csv(review.settings.data).set_index("id")["label"]
    asked = table[review._decided()["id"]]
    assert (asked == "ghost").sum() >= ASKED
    assert review.run.read_json("metrics.json")["classes"] == ["ash", "elm", "fir"]
    assert "ghost" not in set(review.run.read_table("labels")["label"])
    assert len(given) == len(table)


def test_an_interrupted_review_goes_on(begin, data):
    review = begin()
    answer(review, data, 7)
    again = begin()
    assert again.queue["id"].tolist() == review.queue["id"].tolist()
    assert len(again._decided()) == 7
    learn(again, data)
    last = begin()
    assert last.run.path.name == "1"
    assert last.queue["id"].tolist() == again.queue["id"].tolist()
    # A fit that was not finished is no run.
    (last.run.path / "SHA256SUMS").unlink()
    assert begin().run.path.name == "0"


def test_looks_of_earlier_runs_are_counted(begin, data):
    review = begin(compare=True)
    learn(review, data)
    assert review.looks_before == 0
    first = review.promises()
    answer(review, data)
    review.learn()
    assert review.looks_before >= 1
    second = review.promises()
    assert second.look == review.looks_before + 1
    assert second.confidence > first.confidence > 0.95


def test_a_folder_of_something_else_is_refused(begin):
    review = begin()
    with pytest.raises(InputError, match="holds a review of"):
        Review(Settings(data="iris"), review.folder)
    with pytest.raises(InputError, match="holds a run"):
        Review(Settings(data="iris"), review.run.path)


def test_a_label_that_a_few_samples_have_does_not_keep_a_review_from_learning(tmp_path, data):
    table = pd.read_csv(tmp_path / "trees.csv")
    table.loc[:2, "label"] = "asch"  # a slip
    table.to_csv(tmp_path / "trees.csv", index=False)
    settings = Settings.read({"data": str(tmp_path / "trees.csv"), **LIGHT})
    review = Review(settings, tmp_path / "review", 30)
    for _ in range(4):
        answer(review, data)
        if review.learn():
            break
    assert review.run.path.name == "1"


def test_a_review_of_samples_of_one_class_ends(tmp_path):
    X = np.random.default_rng(0).normal(size=12)
    table = pd.DataFrame({"id": [f"t{n}" for n in range(12)], "x": X, "label": ["ash", "elm"] * 6})
    table.to_csv(tmp_path / "trees.csv", index=False)
    settings = Settings.read({"data": str(tmp_path / "trees.csv"), **LIGHT})
    review = Review(settings, tmp_path / "review", 20)
    answer(review, dict.fromkeys(table["id"], "ash"))
    with pytest.raises(InputError, match="of fewer than two classes: there is nothing to learn"):
        review.learn()
