"""`pudistill update` through the command line."""

import json

import numpy as np
import pandas as pd
import pytest

from pudistill.review.decisions import Decision, Decisions

QUICK = ["--n-members", "2", "--max-iter", "1", "--seed", "0"]
LIGHT = [*QUICK, "--learner", "sklearn.naive_bayes:GaussianNB", "--n-teachers", "1"]
NAMES = np.array(["ash", "elm", "fir"])


def write_table(path, n, noise, seed, first=0):
    """Write a table of three classes, and return the truth by id."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    X = np.array([[0, 0], [5, 0], [0, 5]])[y] + rng.normal(size=(n, 2))
    given = np.where(rng.random(n) < noise, (y + 1) % 3, y)
    ids = [f"t{number}" for number in range(first, first + n)]
    columns = {"id": ids, "a": X[:, 0], "b": X[:, 1], "label": NAMES[given]}
    pd.DataFrame(columns).to_csv(path, index=False)
    return dict(zip(ids, NAMES[y], strict=True))


def write_trusted(path, truth, numbers):
    ids = [f"t{n}" for n in numbers]
    pd.DataFrame({"id": ids, "label": [truth[name] for name in ids]}).to_csv(path, index=False)


@pytest.fixture
def run(command, tmp_path):
    """Fit a run on 240 samples, a quarter of them wrong, 40 verified; return the truth."""
    truth = write_table("trees.csv", 240, 0.25, seed=0)
    write_trusted("first.csv", truth, range(0, 240, 6))
    code, _, err = command("fit", "trees.csv", "--trusted", "first.csv", "--output", "run", *LIGHT)
    assert code == 0, err
    return truth


def metrics(tmp_path, name):
    return json.loads((tmp_path / name / "metrics.json").read_text())


def labels(tmp_path, name):
    return pd.read_csv(tmp_path / name / "labels.csv")


def test_further_verified_samples_and_again(command, run, tmp_path):
    write_trusted("more.csv", run, range(1, 240, 6))
    code, out, err = command("update", "run", "--trusted", "more.csv")
    assert code == 0, err
    assert "run-2" in out + err
    assert metrics(tmp_path, "run-2")["n_trusted"] == 80
    table = labels(tmp_path, "run-2")
    assert (table["label"] == table["id"].map(run)).mean() > 0.95
    # An update can be updated; what was verified before stays so.
    write_trusted("yet-more.csv", run, range(2, 240, 6))
    code, _, err = command("update", "run-2", "--trusted", "yet-more.csv")
    assert code == 0, err
    assert metrics(tmp_path, "run-3")["n_trusted"] == 120
    folds = [np.load(tmp_path / name / "learned.npz")["folds_"] for name in ("run", "run-2")]
    had_one = folds[0] >= 0
    np.testing.assert_array_equal(folds[1][had_one], folds[0][had_one])


def test_decisions_of_a_review_are_learned_and_picks_count_in_no_estimate(command, run, tmp_path):
    decisions = Decisions(tmp_path / "run")
    assert command("next", "run", "--budget", "20")[0] == 0
    queue = pd.read_csv(tmp_path / "run" / "review" / "queue-1.csv")
    for entry in queue.itertuples():
        decisions.append(Decision(entry.id, "label", run[entry.id], entry.weight, entry.part))
    others = [name for name in run if name not in {*queue["id"]} and int(name[1:]) % 6]
    for name in others[:15]:
        decisions.append(Decision(name, "label", run[name]))
    decisions.append(Decision(others[15], "skip"))
    code, _, err = command("update", "run", "--output", "again")
    assert code == 0, err
    found = metrics(tmp_path, "again")
    assert found["n_trusted"] == 40 + 20 + 15
    folds = np.load(tmp_path / "again" / "learned.npz")["folds_"]
    table = labels(tmp_path, "again").set_index("id")
    assert (folds >= 0).sum() == 60  # picks judge nothing
    assert (folds[table.index.get_indexer(others[:15])] == -1).all()
    assert (table.loc[others[:15], "label"] == [run[name] for name in others[:15]]).all()
    assert not table.loc[others[15], "trusted"]
    # The decisions that were learned stay, so that the run can be repeated.
    written = pd.read_csv(tmp_path / "run" / "review" / "trusted-1.csv")
    assert (written["weight"] == 0).sum() == 15


def test_a_noisier_batch_is_named(command, run, tmp_path):
    truth = run | write_table("june.csv", 200, 0.8, seed=1, first=240)
    write_trusted("june-checked.csv", truth, range(240, 440, 4))
    arguments = ("update", "run", "--add", "june.csv", "--trusted", "june-checked.csv")
    code, out, err = command(*arguments)
    assert code == 0, err
    said = " ".join((out + err).split())
    assert "The labels of june are noisier than those of trees" in said
    table = labels(tmp_path, "run-2")
    assert len(table) == 440
    assert (table["label"] == table["id"].map(truth)).mean() > 0.9
    # A batch that is as noisy as the first one is not named.
    more = truth | write_table("july.csv", 100, 0.25, seed=2, first=440)
    write_trusted("july-checked.csv", more, range(440, 540, 4))
    code, out, err = command(
        "update", "run", "--add", "july.csv", "--trusted", "july-checked.csv", "--output", "july"
    )
    assert code == 0, err
    assert "noisier" not in out + err


def test_what_cannot_be_updated_is_a_sentence(command, run, tmp_path):
    code, _, err = command("update", "run")
    assert code == 2
    assert "Nothing is new for run: verify samples with `pudistill review run`" in err
    assert command("update", "nothing", "--add", "trees.csv")[0] == 2
    write_trusted("strange.csv", {"t9999": "ash"}, [9999])
    code, _, err = command("update", "run", "--trusted", "strange.csv")
    assert code == 2
    assert "t9999" in err
    code, _, err = command("update", "run", "--add", "trees.csv")
    assert (code, "is already used" in err) == (2, True), err
    # The data have changed since.
    write_trusted("more.csv", run, range(1, 240, 6))
    table = pd.read_csv("trees.csv")
    table.loc[8, "label"] = "elm" if table.loc[8, "label"] == "ash" else "ash"
    table.to_csv("trees.csv", index=False)
    code, _, err = command("update", "run", "--trusted", "more.csv")
    assert code == 2
    assert "1 given label of trees has changed since run was fitted: that of 't8' was" in " ".join(
        err.split()
    )
    table.iloc[::-1].to_csv("trees.csv", index=False)
    code, _, err = command("update", "run", "--trusted", "more.csv")
    assert code == 2
    assert "no longer holds the samples of run in their order" in " ".join(err.split())
    assert not (tmp_path / "run-2").exists()


def test_classes_are_merged(command, run, tmp_path):
    code, _, err = command("update", "run", "--merge", "elm=fir")
    assert code == 0, err
    truth = {name: "fir" if label == "elm" else label for name, label in run.items()}
    table = labels(tmp_path, "run-2")
    assert set(table["given"]) == set(table["label"]) == {"ash", "fir"}
    assert (table["label"] == table["id"].map(truth)).mean() > 0.9
    # Further verified labels may still have the old name; a merged run can be updated.
    write_trusted("more.csv", run, range(1, 240, 6))
    code, _, err = command("update", "run-2", "--trusted", "more.csv")
    assert code == 0, err
    assert metrics(tmp_path, "run-3")["classes"] == ["ash", "fir"]
    assert command("export", "run-3", "--to", "csv", "--output", "labels.csv")[0] == 0
    code, _, err = command("apply", "run-2", "--output", "corrected.csv")
    assert code
    assert "has merged classes" in err
    for merge, message in (("oak=fir", "no class 'oak' to merge"), ("elm", "OLD=NEW")):
        code, _, err = command("update", "run", "--merge", merge)
        assert code
        assert message in err.replace("\n", " ")
