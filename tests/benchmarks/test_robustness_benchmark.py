import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.common import cells, facts, problems
from benchmarks.robustness import ablation, report, systems


def cell(**accuracies):
    return pd.DataFrame(accuracies)


def test_margin_is_paired_and_knows_its_error():
    found = report.margin(pd.Series([0.04, 0.0, np.nan]))
    assert found["margin"] == pytest.approx(0.02)
    assert found["tolerance"] == pytest.approx(0.02)
    assert report.margin(pd.Series([0.1]))["tolerance"] == report.TOLERANCE


def test_smallest_margin_compares_on_shared_seeds():
    frame = cell(pudistill=[0.9, 0.5], cleanlab=[0.89, np.nan], self_training=[0.8, 0.45])
    found = report.smallest_margin(frame, ["cleanlab", "self_training", "consistency"])
    assert found["against"] == "cleanlab"
    assert found["margin"] == pytest.approx(0.01)


def test_ceiling_counts_where_trusted_only_is_near_it():
    frame = cell(pudistill=[0.93], trusted_only=[0.9], true_labels=[1.0])
    assert report.ceiling_margin(frame)["margin"] == pytest.approx(0.01)


def test_gap_counts_elsewhere():
    frame = cell(
        pudistill=[0.76],
        trusted_only=[0.6],
        true_labels=[1.0],
        gold_loss_correction=[0.7],
        true_matrix=[0.8],
    )
    found = report.ceiling_margin(frame)
    assert found["margin"] == pytest.approx(0.01)
    assert "60% closed" in found["against"]
    assert report.ceiling_margin(frame.drop(columns="true_matrix")) == {}


def test_accuracies_carries_noise_free_methods_to_all_cells():
    rows = pd.DataFrame(
        [
            ("digits", "any", 0, 0, "trusted_only", 0.5),
            ("digits", "symmetric", 0.3, 0, "pudistill", 0.7),
            ("digits", "symmetric", 0.6, 0, "pudistill", 0.6),
        ],
        columns=["problem", "kind", "level", "seed", "method", "test_accuracy"],
    )
    assert report.accuracies(rows)["trusted_only"].tolist() == [0.5, 0.5]


def test_flips_found():
    T = np.array([[0.1, 0.9, 0.0], [0.2, 0.1, 0.7], [0.0, 0.0, 1.0]])
    assert systems.flips_found(T, {0: 1, 1: 2}) == 1.0
    assert systems.flips_found(T, {0: 2, 1: 2}) == 0.5


def test_every_cell_has_a_file_of_its_own():
    cells = [
        cell
        for problem in problems.PROBLEMS
        for seed in range(problem.seeds)
        for cell in systems.cells_of(problem, seed)
    ]
    assert len({cell.path for cell in cells}) == len(cells)


def test_a_cell_is_computed_once_and_goes_on_from_committed_results(tmp_path, monkeypatch):
    options = cells.options_parser("Test.", "test.json", [0]).parse_args(
        ["--output", str(tmp_path / "test.json")]
    )
    problem = next(each for each in problems.PROBLEMS if each.name == "breast_cancer")
    cell = cells.Cell(problem.name, 0, problems.ANY, "trusted_only")
    folder = cells.cells_folder(options.output)
    for _ in range(2):
        failed = cells.compute_missing([(problem, [cell])], systems.METHODS, folder, options)
        assert failed == 0
    rows = cells.read_cells(folder)
    assert rows["test_accuracy"].between(0.8, 1).tolist() == [True]
    report.summarise(folder, options.output)
    run = json.loads(options.output.read_bytes())["run"]
    folder.rename(tmp_path / "elsewhere")
    folder = cells.cells_folder(options.output)
    pd.testing.assert_frame_equal(cells.read_cells(folder), rows)
    # A summary on another machine does not say that the cells were computed there.
    monkeypatch.setattr(facts, "machine", lambda: {"device": "other", "cores": 99})
    monkeypatch.setattr(facts, "installed", dict)
    report.summarise(folder, options.output)
    assert json.loads(options.output.read_bytes())["run"] == run


def test_ablation_learns_from_the_first_guess_of_the_models_that_it_names():
    problem = next(each for each in problems.PROBLEMS if each.name == "breast_cancer")
    quick = replace(problem, filter={"n_members": 2, "max_iter": 1})
    group = problems.Group(quick, 0, Path(), Path())
    stage = group.ours()._noise_free
    changed = ablation.with_guess_from(["trusted_only"], stage, group)
    for guess, models in zip(changed.guesses, stage.models, strict=True):
        expected = changed.first_guess.predict_proba(models, group.X, group.n_classes)
        np.testing.assert_array_equal(guess, expected)
    assert not np.allclose(changed.guesses[0], stage.guesses[0])
