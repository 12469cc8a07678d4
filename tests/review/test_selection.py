"""`pudistill next`: which samples to verify, with known probabilities."""

import numpy as np
import pandas as pd
import pytest

from pudistill.exceptions import InputError
from pudistill.review.drawing import draw
from pudistill.review.promises import confidence_of_look, last_look, promises, reached
from pudistill.review.selection import next_samples, queues, write_queue
from pudistill.runs.fit import fit_run
from pudistill.runs.settings import Settings


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Write a noisy table, its truth, and a trusted file."""
    folder, rng, n = tmp_path_factory.mktemp("table"), np.random.default_rng(0), 600
    y = rng.integers(3, size=n)
    X = 2 * np.eye(3)[y] + rng.normal(size=(n, 3))
    given = np.where(rng.random(n) < 0.3, (y + 1) % 3, y)
    table = pd.DataFrame(X, columns=["a", "b", "c"])
    table.insert(0, "id", [f"s{row}" for row in range(n)])
    names = np.array(["cat", "dog", "emu"])
    table["label"] = names[given]
    table.to_csv(folder / "data.csv", index=False)
    truth = pd.Series(names[y], index=table["id"])
    trusted = truth.sample(90, random_state=0)
    trusted.rename("label").reset_index().to_csv(folder / "trusted.csv", index=False)
    return folder, truth


def fitted(folder, output, trusted="trusted.csv", **changes):
    settings = Settings(
        data=str(folder / "data.csv"),
        trusted=str(folder / trusted),
        learner="sklearn.naive_bayes:GaussianNB",
        n_members=3,
        max_iter=2,
        **changes,
    )
    return fit_run(settings, output)


@pytest.fixture(scope="module")
def run(written):
    return fitted(written[0], written[0] / "run")


def test_a_queue_is_drawn_from_samples_that_nobody_verified(run):
    queue = next_samples(run, 50)
    columns = ["id", "weight", "part", "given", "label", "confidence", "reason"]
    assert queue.columns.tolist() == columns
    table = run.read_table("labels").set_index("id")
    assert queue["id"].is_unique
    assert not table.loc[queue["id"], "trusted"].any()
    assert 10 < (queue["part"] == "random").sum() < 40
    assert (queue["weight"] <= 2).all()
    chosen = queue[queue["part"] == "chosen"]
    assert chosen["weight"].mean() < 0.7
    assert chosen["confidence"].mean() < table["confidence"].mean() - 0.1
    pd.testing.assert_frame_equal(queue, next_samples(run, 50))
    pd.testing.assert_frame_equal(queue.head(20), next_samples(run, 20))
    assert not queue["id"].equals(next_samples(run, 50, seed=1)["id"])


def test_all_at_random(run):
    queue = next_samples(run, 50, random_share=1)
    assert (queue["weight"] == 1).all()
    assert (queue["reason"] == "at random").all()


def test_queues_are_numbered_and_share_no_sample(run):
    first, second = (write_queue(run, 200) for _ in range(2))
    assert [path.name for path in queues(run)] == ["queue-1.csv", "queue-2.csv"]
    assert not {*first[1]["id"]} & {*second[1]["id"]}
    read = pd.read_csv(first[0])
    assert read["id"].tolist() == first[1]["id"].tolist()
    with pytest.raises(InputError, match="only 110 samples of the run are not verified"):
        write_queue(run, 150)
    for path in queues(run):
        path.unlink()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "budget is 0"),
        ({"budget": 511}, "only 510 samples"),
        ({"random_share": 0.0}, "random share is 0"),
        ({"random_share": 1.5}, "random share is 1.5"),
        ({"max_error": 2.0}, "max_error is 2.0"),
    ],
)
def test_bad_numbers_are_errors(run, options, message):
    with pytest.raises(InputError, match=message):
        next_samples(run, **{"budget": 10, **options})


def test_a_run_without_held_out_labels_is_drawn_from_at_random(written, tmp_path):
    other = fitted(written[0], tmp_path / "run", compare=False)
    with pytest.warns(UserWarning, match="all samples are drawn at random"):
        queue = next_samples(other, 20)
    assert (queue["weight"] == 1).all()


def test_the_command_and_a_fit_with_its_weights(command, written, run, tmp_path):
    folder, truth = written
    code, out, err = command("next", run.path, "--budget", "60", "--output", "queue.csv")
    assert code == 0
    assert "60 samples to verify" in out
    queue = pd.read_csv("queue.csv")
    queue["label"] = truth[queue["id"]].to_numpy()
    before = pd.read_csv(folder / "trusted.csv")
    pd.concat([before, queue]).to_csv(folder / "more.csv", index=False)
    again = fitted(folder, tmp_path / "again", trusted="more.csv")
    assert "not like a random sample" not in str(again.read_json("metrics.json")["warnings"])
    stored = again.read_arrays("held_out_labels.npz")
    assert np.isfinite(stored["draw_weight"]).sum() == 150
    low, high = again.read_json("metrics.json")["noise"]["rate_interval"]
    assert low < 0.3 < high
    assert next_samples(again, 10)["id"].isin(queue["id"]).sum() == 0
    code, _, err = command("next", run.path, "--output", "queue.csv")
    assert (code, "queue.csv already exists" in err) == (2, True)
    code, _, err = command("next", folder)
    assert (code, "holds no run" in err) == (2, True)
    code, _, err = command("certify", again.path, "--max-error", "0.3")
    assert code == 0


def test_draws_have_the_probabilities_that_their_weights_say():
    rng, gain = np.random.default_rng(0), np.array([4.0, 1.0, 1.0, 0.0])
    firsts = np.array([draw(gain, 1, 0.5, rng).rows[0] for _ in range(4000)])
    probability = np.bincount(firsts, minlength=4) / len(firsts)
    np.testing.assert_allclose(probability, 0.5 / 4 + 0.5 * gain / 6, atol=0.03)
    drawn = draw(gain, 4, 0.5, rng)
    assert sorted(drawn.rows.tolist()) == [0, 1, 2, 3]
    assert drawn.weight[-1] == pytest.approx(1)  # there was no choice


def decisions(queue, truth, n):
    labels = truth[queue["id"].head(n)].to_numpy(dtype=object)
    return pd.DataFrame({"id": queue["id"].head(n), "label": labels, "weight": queue["weight"][:n]})


def test_promises_hold(run, written):
    queue, truth = next_samples(run, 300), written[1]
    before = promises(run, decisions(queue, truth, 0))
    assert (before.look, before.n_at_look, before.n_verified) == (1, before.n_verified, 90)
    now = promises(run, decisions(queue, truth, 300))
    table = run.read_table("labels").set_index("id")
    rest = table.index[~table["trusted"]].difference(queue["id"])
    right = (table.loc[rest, "label"] == truth[rest]).mean()
    assert now.labels_right.interval[0] <= right <= now.labels_right.interval[1]
    rate = (table.loc[rest, "given"] != truth[rest]).mean()
    assert now.rate.interval[0] <= rate <= now.rate.interval[1]
    assert now.n_verified == 390
    assert now.n_at_look <= 390 < now.n_next_look
    assert [found.max_error for found in now.certified] == [0.01, 0.02, 0.05, 0.1]
    assert not reached(now, 0.01)
    assert reached(now, 0.9, share=0.0)


def test_between_looks_the_last_promise_stands(run, written):
    queue, truth = next_samples(run, 60), written[1]
    found = [promises(run, decisions(queue, truth, n)) for n in (30, 35)]
    assert found[0].labels_right == found[1].labels_right
    assert found[0].n_verified < found[1].n_verified


def test_skipped_samples_count_as_wrong(run, written):
    queue, truth = next_samples(run, 200), written[1]
    decided = decisions(queue, truth, 200)
    plain = promises(run, decided)
    decided.loc[::4, "label"] = None
    skipped = promises(run, decided)
    assert skipped.n_skipped == 50
    assert skipped.n_verified == plain.n_verified - 50
    assert skipped.labels_right.value < plain.labels_right.value - 0.05
    low, high = skipped.rate.interval
    assert low < plain.rate.value < high
    assert high - low > np.diff(plain.rate.interval)[0]


def test_samples_picked_by_hand_prove_nothing(run, written):
    queue, truth = next_samples(run, 200), written[1]
    decided = decisions(queue, truth, 200)
    decided["weight"] = np.nan
    nothing = promises(run, decided)
    assert nothing.labels_right == promises(run, decided.head(0)).labels_right


def test_decisions_of_another_run_are_an_error(run):
    decided = pd.DataFrame({"id": ["x"], "label": ["cat"], "weight": [1.0]})
    with pytest.raises(InputError, match="another run"):
        promises(run, decided)
    twice = next_samples(run, 1).loc[[0, 0], ["id", "label", "weight"]]
    with pytest.raises(InputError, match="decided twice"):
        promises(run, twice)


def test_what_the_fit_took_as_verified_is_left_out(run):
    known = run.read_table("labels").query("trusted")["id"].iloc[:1]
    decided = pd.DataFrame({"id": known, "label": ["cat"], "weight": [1.0]})
    assert promises(run, decided) == promises(run, decided.head(0))


def test_a_gap_in_a_queue_ends_what_counts(run, written):
    path, queue = write_queue(run, 60)
    decided = decisions(queue, written[1], 60)
    try:
        assert promises(run, decided.sample(frac=1, random_state=0)) == promises(run, decided)
        assert promises(run, decided.drop(index=10)).n_verified == 90 + 10
    finally:
        path.unlink()


def test_all_looks_together_spend_the_error():
    spent = sum(1 - confidence_of_look(look) for look in range(1, 10_000))
    assert spent == pytest.approx(0.05, rel=1e-3)
    look, n, following = last_look(60, 1000)
    assert (look, n, following) == (13, 888, 1110)
    assert last_look(60, n) == (look, n, following)


def test_a_queue_that_cannot_be_written_leaves_no_file(run, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("pudistill.review.selection.write_atomic", full)
    before = queues(run)
    with pytest.raises(OSError, match="no space"):
        write_queue(run, 5)
    assert queues(run) == before
