from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.common import cells, paired, problems, real_noise, small
from benchmarks.robustness import coverage, labels, never_lose, simulation, sources, systems
from benchmarks.robustness import real_noise as comparison
from pudistill.distillation.noise_estimate import NoiseEstimate


@pytest.fixture
def data(tmp_path):
    """A folder with real noise: 60 samples of two classes, every fifth without a given label."""
    folder = tmp_path / "real-noise"
    folder.mkdir()
    y = np.arange(60) % 2
    X = np.random.default_rng(0).normal(size=(60, 2)) + 3 * y[:, None]
    given = np.where(np.arange(60) % 4 == 0, 1 - y, y)
    given[::5] = -1
    said = np.column_stack([given, y, np.where(np.arange(60) % 3 == 0, y, -1)])
    said[:2] = -1
    np.savez(folder / "tiny.npz", X=X, y=y, given=given, sources=said, X_test=X, y_test=y)
    table = pd.DataFrame(
        {"id": range(60), "text": "good news", "label": "a", "true": ["a", "b"] * 30}
    )
    table.to_csv(folder / "words.csv", index=False)
    table.drop(columns="label").rename(columns={"true": "label"}).to_csv(
        folder / "words_test.csv", index=False
    )
    return tmp_path


@pytest.fixture
def group(data):
    load = partial(real_noise.from_arrays, "tiny")
    problem = real_noise.real("tiny, 20 % verified", load, trusted=0.2)
    return problems.Group(problem, 0, data, data)


def test_packed_predictions_come_back():
    right = np.arange(11) % 3 == 0
    row = {"right": paired.packed(right), "n_test": 11}
    np.testing.assert_array_equal(paired.unpacked(row), right)


def test_difference_and_chance_are_paired():
    right, other = np.array([1, 1, 0, 0], bool), np.array([1, 0, 0, 0], bool)
    assert paired.difference(right, other) == pytest.approx((0.25, 0.25))
    assert paired.chance(right, other) == 1.0
    assert paired.chance(right, right) == 1.0


def test_verified_samples_are_drawn_at_random_until_each_class_has_one():
    y = np.array([0] * 98 + [1] * 2)
    trusted = problems.draw_at_random(y, 0.1, np.random.default_rng(0))
    assert trusted.sum() == 10
    assert {*y[trusted]} == {0, 1}


def test_real_labels_keep_originals_gaps_and_verified_labels(group):
    noisy = group.corrupt(problems.REAL)
    np.testing.assert_array_equal(noisy.y[group.trusted], group.y[group.trusted])
    np.testing.assert_array_equal(noisy.would_be, group.given)
    rows = ~group.trusted & (group.given >= 0)
    assert noisy.noise_rate == np.mean(group.given[rows] != group.y[rows])
    y, verified = systems.with_originals(group, noisy)
    np.testing.assert_array_equal(np.isnan(y), group.given < 0)
    np.testing.assert_array_equal(np.isnan(verified), ~group.trusted)
    assert 0 <= systems.given_labels(group, problems.REAL, noisy)["test_accuracy"] <= 1


def test_texts_are_encoded_once_for_all(data):
    split = real_noise.from_texts("words", data, 0)
    assert split.X.shape == split.X_test.shape
    assert split.given.tolist() == [0] * 60
    assert split.y_test.tolist() == [0, 1] * 30


def test_labels_are_judged_where_nobody_verified_and_one_was_given(group):
    noisy = group.corrupt(problems.REAL)
    table = pd.DataFrame({"trusted": group.trusted, "label": group.y, "confidence": 1.0})
    table["given_quality"] = (group.given == group.y).astype(float)
    found = labels.corrected(group, noisy, table)
    assert found["right_before"] == 1 - noisy.noise_rate
    assert found["right_after"] == found["finds_wrong"] == 1
    assert found["confidence"]["brier"] == found["given_quality"]["gap"] == 0


def test_labels_of_sources_are_judged_where_nobody_verified(group):
    for name in ("majority_vote", "dawid_skene", "label_model", "crowdlab"):
        result = sources.METHODS[name].result(group, problems.REAL, None)
        assert result["right"] > 0.8
        assert result["confidence"]["gap"] == pytest.approx(
            result["confidence"]["said"] - result["right"]
        )


def test_further_sources_are_copies_and_an_adversary(group):
    active = group.sources[:, 1]  # it speaks of all samples but two
    assert (sources.copies(group) == active[:, None]).all()
    changed = sources.near_copies(group) != active[:, None]
    assert 0 < changed.mean() < 0.15
    assert not changed[active == -1].any()
    assert np.mean(sources.adversary(group) == 1 - group.y) == pytest.approx(0.9, abs=0.02)


def test_tables_of_sources_are_paired_by_seed():
    rows = pd.DataFrame(
        [
            {"problem": "p, 10 % verified", "seed": seed, "method": method, "right": right}
            | {"test_accuracy": 0.5, "confidence": {"gap": 0.02}}
            for seed in range(3)
            for method, right in (
                ("pudistill", 0.8 + seed / 100),
                ("majority_vote", 0.7 + seed / 100),
                ("pudistill, an adversary", 0.9 + seed / 100),
            )
        ]
    )
    lead = sources.differences(rows, "right", ["majority_vote", "crowdlab"])
    assert lead.to_numpy().tolist() == [["p, 10 % verified", "+10.0 ± 0.0", ""]]
    assert sources.effects(rows)["labels right"].tolist() == ["", "", "+10.0 ± 0.0"]
    assert sources.gaps(rows)["pudistill"].tolist() == ["+2.0"]
    assert sources.means(rows, "right")["pudistill"].tolist() == ["81.0"]


def test_every_draw_and_run_has_a_file_of_its_own():
    found = [cell for _, part in coverage.draws(2) for cell in part]
    found += [
        cell
        for problem in small.LOSABLE_PROBLEMS
        for seed in range(2)
        for cell in systems.cells_of(problem, seed)
    ]
    found += [
        cell
        for problem in real_noise.REAL_PROBLEMS
        for seed in range(2)
        for cell in comparison.cells_of(problem, seed, [*comparison.METHODS])
    ]
    found += [
        cell
        for problem in sources.PROBLEMS
        for seed in range(2)
        for cell in sources.cells_of(problem, seed, [*sources.METHODS])
        if cell.method != "pudistill"  # as above, in another folder
    ]
    assert len({cell.path for cell in found}) == len(found)


def test_problems_without_information_and_with_overlap_can_be_made():
    for problem in (*small.HARD_PROBLEMS, *small.LOSABLE_PROBLEMS):
        split = problem.load(Path(), 1)
        assert len(split.X) == len(split.y)
        assert len(np.unique(split.y)) == len(np.unique(split.y_test))
    one = small.HARD_PROBLEMS[-1]
    assert (~problems.Group(one, 0, Path(), Path()).trusted).sum() == 1


def rows_of(accuracies, n_test=100, problem="digits, 3 % verified"):
    return pd.DataFrame(
        {
            "problem": problem,
            "seed": 0,
            "method": method,
            "test_accuracy": right / n_test,
            "right": paired.packed(np.arange(n_test) < right),
            "n_test": n_test,
            "shipped": "student",
        }
        for method, right in accuracies.items()
    )


def test_losses_beyond_chance_are_told_from_others():
    rows = rows_of({"trusted_only": 90, "given_labels": 60, "pudistill": 87, never_lose.KNOWN: 80})
    runs = never_lose.compared(rows)
    assert runs["loses"].tolist() == [True, True]
    assert runs["better baseline"].tolist() == ["trusted_only"] * 2
    total = never_lose.counts(runs).iloc[-1]
    assert (total["more than 2 points below"], total["of these beyond chance"]) == (2, 1)


def test_the_best_peer_is_chosen_in_hindsight():
    rows = rows_of({"cleanlab": 80, "given_labels": 70, "pudistill": 78, "true_labels": 90})
    lead = comparison.leads(comparison.accuracies(rows)).iloc[0]
    assert lead["best peer"] == "cleanlab"
    assert lead["lead"] == pytest.approx(-0.02)
    assert lead["room"] == pytest.approx(0.1)
    assert comparison.losses(rows)["loses"].tolist() == [False]


class Stated:
    """A classifier that states intervals and certificates."""

    label_accuracy_ = None

    def __init__(self, group, rate):
        n = group.n_classes
        self.label_table_ = pd.DataFrame({"trusted": group.trusted, "label": group.y})
        ends = np.array([0.0, 0.8])
        self.noise_ = NoiseEstimate(
            classes=np.arange(n),
            basis="",
            transition_matrix=np.eye(n),
            transition_interval=np.tile(ends[:, None, None], (1, n, n)),
            rate=rate,
            rate_interval=(0.0, 1.0),
            class_rate=np.zeros(n),
            class_rate_interval=np.tile(ends, (n, 1)),
            class_prior=np.full(n, 1 / n),
            warnings=[],
        )

    def certify(self, max_error):
        self.accepted, self.labels = np.ones(60, dtype=bool), np.zeros(60)
        return self


def test_what_is_stated_is_compared_with_samples_that_nobody_verified(group):
    noisy = group.corrupt(problems.REAL)
    found = coverage.stated(group, noisy, Stated(group, 0.3))
    assert found["noise_rate"] == noisy.noise_rate
    assert found["labels_right"] == 1
    assert found["class_rates"] == {"held": 2, "of": 2, "width": 0.8}
    assert found["entries"]["held"] == 3  # all labels of one class are right
    rest = ~group.trusted
    assert found["certified"]["0.1"] == [rest.sum(), group.y[rest].sum()]


def test_too_many_violations_of_certificates_are_noticed():
    certified = [{f"{e:g}": [10, wrong] for e in coverage.MAX_ERRORS} for wrong in (1, 1, 0)]
    rows = pd.DataFrame({"certified": [*certified, dict.fromkeys(certified[0])]})
    rows = rows.assign(problem="tiny", kind="real", level=0.0, method="pudistill")
    table = coverage.violations(rows).set_index("max_error")
    assert table.loc[0.05, ["draws", "refused", "violations"]].tolist() == [3, 1, 2]
    assert table["too many"].tolist() == [True, True, True, False]


@pytest.mark.parametrize("what", ["share", "share in a class", "certificate"])
def test_simulated_promises_hold(what):
    setting = simulation.Setting(what, 0.2, 60, 600, "too sure")
    for row in simulation.simulated(setting, 20):
        broken = row["violations"] if what == "certificate" else 20 - row["held"]
        assert broken <= 4


def test_networks_are_compared_with_cross_entropy():
    rows = pd.concat(
        [
            rows_of({"mlnt_mlp": 80, "cross_entropy_mlp": 75}).assign(seed=0),
            rows_of({"mlnt_mlp": 79, "cross_entropy_mlp": 72}).assign(seed=1),
        ]
    )
    table = comparison.network_table(rows)
    assert table["method"].tolist() == ["cross_entropy", "mlnt"]
    assert table.iloc[:, 1].tolist() == ["73.5", "79.5 (+6.0 ± 1.0)"]


def test_networks_do_not_read_words(group):
    words = replace(group.problem, load=partial(real_noise.from_texts, "words"))
    names = ["given_labels", comparison.PLAIN]
    assert [cell.method for cell in comparison.cells_of(words, 0, names)] == ["given_labels"]


@pytest.mark.parametrize("benchmark", [coverage, comparison, sources])
def test_cells_are_computed_and_summarised(benchmark, group, data, tmp_path):
    pytest.importorskip("torch")
    quick = replace(group.problem, filter={"n_members": 2, "max_iter": 1})
    names = [name for name in benchmark.METHODS if "cleanlab" not in name]
    if benchmark is comparison:
        others = set(comparison.NETWORKS) - {comparison.PLAIN, "gold_loss_correction_mlp"}
        names = [name for name in names if name not in others]
        work = [(quick, [*comparison.cells_of(quick, 0, names)])]
    else:
        work = [(quick, [cells.Cell(quick.name, 0, problems.REAL, name) for name in names])]
    options = cells.options_parser("Test.", "", [0]).parse_args(
        ["--data", str(data), "--output", str(tmp_path / "test.json"), "--jobs", "1"]
    )
    folder = cells.cells_folder(options.output)
    assert cells.compute_missing(work, benchmark.METHODS, folder, options) == 0
    benchmark.summarise(folder, options.output)
    assert "## Goals" in options.output.with_suffix(".md").read_text()
    assert len(cells.read_cells(folder)) == len(names)
