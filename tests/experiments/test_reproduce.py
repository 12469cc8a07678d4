"""The paper's experiments on small data: results, interruption, and messages about wrong input."""

import gzip
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pudistill import InputError, methods
from pudistill.exceptions import DivergedError
from pudistill.experiments import levels, paper, reproduce, scales, setup
from pudistill.experiments.curve_settings import CurveSettings
from pudistill.experiments.evaluation import Evaluator, NoisyDataset
from pudistill.experiments.reproduce import EXPERIMENTS
from pudistill.experiments.scales import SCALES
from pudistill.experiments.tables import as_markdown
from pudistill.methods.registry import METHODS, load_class
from pudistill.runs.inputs import with_noise


@pytest.fixture(autouse=True)
def few_members(monkeypatch):
    for name, value in {"n_members": 3, "max_iter": 1}.items():
        monkeypatch.setitem(SCALES["smoke"].settings, name, value)


def run(tmp_path, experiment="table5", **options):
    return reproduce.reproduce(experiment, tmp_path, **options)


def test_methods_are_compared_at_each_level(tmp_path):
    finished = run(tmp_path, levels=[0.3], compared=["cross_entropy", "co_teaching"])
    cells = pd.read_csv(finished.path / "cells.csv")
    assert list(cells["method"]) == ["cross_entropy", "co_teaching"]
    assert (cells["best"] >= cells["final"]).all()
    assert (cells["final"] > 70).all()
    assert cells["paper"].isna().all()  # those numbers are about other data
    table = (finished.path / "table.md").read_text()
    assert "| Co-teaching |" in table
    assert "scikit-learn's digits" in table
    assert "Co-teaching" in (finished.path / "figure-trusted.svg").read_text()
    assert "Co-teaching" not in (finished.path / "figure.svg").read_text()


def test_figures_show_ours_and_the_best_others():
    others = [f"other {n}" for n in range(20)]
    systems = [*others, "cross_entropy", "pudistill"]
    accuracies = [n / 100 for n in range(20)] + [0.0, 0.0]
    results = pd.DataFrame({"method": systems, "accuracy": accuracies})
    shown = set(levels._best(results)["method"])
    assert shown == {*others[-levels.MAX_OTHERS :], "cross_entropy", "pudistill"}


@pytest.mark.usefixtures("brief_training")
def test_only_the_second_figure_shows_methods_that_know_the_trusted_samples():
    methods = ["cross_entropy", "cleannet", "jocor", "jocor_as_published", "paper", "pudistill"]
    results = pd.DataFrame({"method": methods, "noise": "symmetric", "level": 0.3, "seed": 0})
    results = results.assign(overall_level=0.3, accuracy=0.5, best_over_epochs=0.5, seconds=1)
    measured = SimpleNamespace(methods=methods, is_cifar10=False, curve=lambda *_, **__: results)
    curves = levels.table5(measured).curves
    others = {
        "jocor_as_published": "figure",
        "cleannet": "figure-trusted",
        "jocor": "figure-trusted",
    }
    for name, curve in curves.items():
        assert {*curve["method"]} == {m for m in methods if others.get(m, name) == name}


def test_a_seed_that_diverged_is_counted():
    results = pd.DataFrame(
        {"accuracy": [0.8, np.nan], "best_over_epochs": [0.9, np.nan], "seed": [0, 1]}
    )
    results = results.assign(
        method="mixup", noise="symmetric", level=0.3, overall_level=0.3, seconds=1
    )
    cells = levels._average_over_seeds(results, lambda _: None)
    table = as_markdown("Title", "", cells, {})
    assert "| mixup | 80.0, 1 of 2 seeds diverged (90.0) |" in table


def test_the_same_command_again_computes_nothing(tmp_path, monkeypatch):
    options = {"levels": [0.3], "compared": ["cross_entropy"]}
    first = run(tmp_path, **options)
    monkeypatch.setattr(setup, "measure", None)
    assert run(tmp_path, **options).path == first.path == tmp_path / "table5-smoke"


@pytest.mark.usefixtures("brief_training")
def test_experiments_share_cached_stages(tmp_path):
    options = {"levels": [0.3], "compared": ["cross_entropy", "paper"]}
    run(tmp_path, **options)
    before = {path.name for path in (tmp_path / "units").iterdir()}
    run(tmp_path, "table1")
    assert {path.name for path in (tmp_path / "units").iterdir()} == before
    other = run(tmp_path, **options | {"levels": [0.7]})  # the first table stays
    assert other.path == tmp_path / "table5-smoke-2"
    new = {path.name for path in (tmp_path / "units").iterdir()} - before
    assert {name.split("-")[0] for name in new} == {"cached_cell"}


def test_in_the_papers_protocol_trusted_samples_are_not_known(tmp_path, monkeypatch):
    fitted = []

    def fit(self, X, y, trusted=None):
        fitted.append((self, y, trusted))
        self.classes_ = np.unique(y)
        return self

    monkeypatch.setattr(methods.DivideMixClassifier, "fit", fit)
    monkeypatch.setattr(methods.DivideMixClassifier, "predict", lambda self, X: np.repeat("0", 450))
    train, test, _ = SCALES["smoke"].load(None, False)
    settings = CurveSettings.read({"data": "digits", "learner": "mlp"})
    dataset = with_noise(train, "asymmetric", 0.3, 0.1, 0)
    fit_and_score = levels.as_published("dividemix")(Evaluator(settings, train, test))
    fit_and_score(NoisyDataset("asymmetric", 0.3, dataset))
    ((classifier, y, trusted),) = fitted
    assert not classifier.use_trusted
    assert classifier.asymmetric
    assert classifier.noise_rate == pytest.approx(0.3, abs=0.01)
    known = np.array([label is not None for label in trusted])
    assert (y[known] == trusted[known]).all()  # the overall level counts them as correct


@pytest.mark.usefixtures("brief_training")
def test_the_table_marks_methods_that_know_the_noise_level(tmp_path):
    finished = run(tmp_path, levels=[0.3], compared=["co_teaching_as_published"])
    assert "as published, told the noise level" in (finished.path / "table.md").read_text()
    assert "Co-teaching, told" in (finished.path / "figure.svg").read_text()


@pytest.mark.usefixtures("brief_training")
def test_several_seeds_have_a_spread(tmp_path):
    finished = run(tmp_path, levels=[0.3], compared=["cross_entropy"], n_seeds=2)
    (cell,) = pd.read_csv(finished.path / "cells.csv").itertuples()
    assert cell.seeds == 2
    assert cell.final_std > 0
    assert "±" in (finished.path / "table.md").read_text()


@pytest.mark.usefixtures("brief_training")
def test_an_interrupted_experiment_continues(tmp_path, monkeypatch):
    options = {"levels": [0.3], "compared": ["cross_entropy", "mixup"]}

    def stop(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(levels.PREPARE_COMPARED, "mixup", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, **options)
    folder = tmp_path / "units"
    before = {path.name for path in folder.iterdir()}
    assert before
    finished = run(tmp_path, **options)
    assert before < {path.name for path in folder.iterdir()}
    assert len(pd.read_csv(finished.path / "cells.csv")) == 2


@pytest.mark.usefixtures("brief_training")
def test_teachers_and_clean_sets_are_measured_on_test_samples(tmp_path):
    cells = pd.read_csv(run(tmp_path, "table1").path / "cells.csv")
    assert (cells.loc[cells["data"] == "Clothing1M", "status"] == "not run: no data").all()
    sizes = cells[cells["data"] != "Clothing1M"].set_index("class_name")["size"]
    assert sizes["overall"] == sizes.drop("overall").sum()
    teachers = pd.read_csv(run(tmp_path, "table2").path / "cells.csv").iloc[:6]
    assert list(teachers["min_confidence"]) == list(paper.TABLE_2["CIFAR-10"])
    assert teachers["size"].is_monotonic_increasing
    assert teachers["size"].iloc[-1] == 450
    assert "| 11,407 |" in (tmp_path / "table2-smoke" / "table.md").read_text()


def test_the_table_marks_systems_that_were_not_run(tmp_path):
    table = (run(tmp_path, "table3").path / "table.md").read_text()
    assert table.count("not run: no data") == len(paper.TABLE_3) + 1
    for title in ("MetaCleaner", "MLNT", "DeepSelf", "CleanNet"):
        assert title in table


def test_the_papers_tables_are_complete():
    assert all(len(row) == len(paper.LEVELS) for row in paper.TABLE_5.values())
    for _, sizes in paper.TABLE_1.values():
        assert sum(sizes[:-1]) == sizes[-1]  # the overall size
    assert set(paper.TUNED["symmetric"]) == set(paper.TUNED["asymmetric"]) == set(paper.LEVELS)
    assert set(EXPERIMENTS) == {*(f"table{n}" for n in range(1, 7)), "fig1", "fig2", "fig3"}


def test_cifar10_features_have_the_asymmetric_noise_of_cifar10(real_data):
    scale = SCALES["cpu"]
    train, test, _ = scale.load(real_data("cifar10-features").parent, False)
    assert (len(train), len(test)) == (50_000, 10_000)
    assert scale.class_map["9"] == "1"  # truck, automobile
    assert scale.class_map["3"] == "5"
    assert scale.class_map["5"] == "3"
    assert train.X.dtype == np.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experiment": "table9"}, "no experiment 'table9'.*table1"),
        ({"scale": "huge"}, "no scale 'huge'.*smoke"),
        ({"compared": ["dividemx"]}, "no method 'dividemx'.*dividemix"),
        ({"levels": [0.35]}, "no noise level 0.35: choose"),
        ({"scale": "cpu"}, "--data"),
        ({"scale": "full", "data": "."}, "no folder cifar10"),
        ({"levels": []}, "nothing to compare"),
        ({"compared": []}, "nothing to compare"),
        ({"n_seeds": 0}, "at least one seed"),
    ],
)
def test_wrong_options_are_named_and_leave_no_folder(tmp_path, options, message):
    options = {"experiment": "table5"} | options
    if "data" in options:
        options["data"] = Path(tmp_path)
    with pytest.raises(InputError, match=message):
        reproduce.reproduce(options.pop("experiment"), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("brief_training")
def test_clothing1m_is_measured_if_it_is_there(clothing, tiny_resnet, tmp_path, monkeypatch):
    (tmp_path / "resnet-50").symlink_to(tiny_resnet)
    monkeypatch.setattr(scales, "CLOTHING1M_SIZE", 32)
    quick = {"n_members": 2, "min_votes": 2, "max_iter": 1, "threshold": 0.5}
    monkeypatch.setattr(paper, "ON_CLOTHING1M", paper.ON_CLOTHING1M | quick)
    compared = ["cross_entropy", "co_teaching", "paper", "given_labels", "true_labels"]
    options = {"data": tmp_path, "compared": compared}
    table = pd.read_csv(run(tmp_path / "out", "table3", **options).path / "cells.csv")
    rows = table.set_index("method")
    assert rows.loc["PUDistill (paper)", "paper"] == 77.7
    measured = rows[rows["final"].notna()]
    ours = {"PUDistill (paper)", "trained on the given labels"}
    assert set(measured.index) == {"Cross Entropy", "Co-teaching", *ours}
    assert (measured["best"] >= measured["final"]).all()
    assert rows.loc["CleanNet", "status"] == "not run"
    assert rows.loc["CleanNet", "paper"] == 74.69
    assert rows.loc["PUDistill", "status"] == "not run"
    by_class = pd.read_csv(run(tmp_path / "out", "table1", **options).path / "cells.csv")
    clothes = by_class[by_class["data"] == "Clothing1M"].set_index("class_name")
    assert clothes.loc["overall", "size"] <= 9
    assert clothes.loc["T-Shirt", "paper_size"] == 298


def test_clothing1m_that_is_added_later_is_measured(clothing, tmp_path, monkeypatch):
    without = run(tmp_path / "out", "table3", data=tmp_path / "elsewhere", compared=["paper"])
    assert "not run: no data" in (without.path / "table.md").read_text()
    monkeypatch.setattr(scales, "CLOTHING1M_SIZE", 16)
    (clothing / "images/0/noisy_train-0.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 36 pictures are missing.*--skip-bad"):
        run(tmp_path / "out", "table3", data=tmp_path, compared=["paper"])


def test_damaged_features_are_named(tmp_path):
    folder = tmp_path / "cifar10-features"
    folder.mkdir()
    (folder / "features.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match=r"features.npz: .*cannot be read"):
        run(tmp_path / "out", scale="cpu", data=folder)
    X, y = np.zeros((5, 2)), np.zeros(4)
    np.savez(folder / "features.npz", X=X, y=y, X_test=X, y_test=y)
    with pytest.raises(InputError, match=r"features.npz: .*5 samples have 4 labels"):
        run(tmp_path / "out", scale="cpu", data=folder)


@pytest.mark.parametrize("n_rows", [100, pytest.param(50_000, marks=pytest.mark.slow)])
def test_cifar10_from_the_hub_says_that_it_was_compressed_again(real_data, n_rows, tmp_path):
    """The first rows of each table tell as much as all."""
    folder = real_data("cifar10")
    for file in folder.rglob("*.parquet"):
        part = tmp_path / "cifar10" / file.relative_to(folder)
        part.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pq.read_table(file).slice(0, n_rows), part)
    _, test, edition = SCALES["full"].load(tmp_path, False)
    assert edition == "CIFAR-10 (JPEG)"
    assert len(test) == min(n_rows, 10_000)


def test_fashion_mnist_can_be_unpacked_beside_its_archives(real_data, tmp_path):
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    for file in real_data("fashion-mnist").iterdir():
        (folder / file.name).symlink_to(file)
    for file in list(folder.glob("t10k*")):
        (folder / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    train, test, _ = SCALES["cpu-pictures"].load(folder, False)
    assert (len(train), len(test)) == (20_000, 10_000)


def test_records_of_methods_agree_with_their_parameters():
    for name, system in METHODS.items():
        params = load_class(name)().get_params()
        assert ("noise_rate" in params) == system.accepts_noise_level
        assert ("use_trusted" in params) != system.needs_trusted


@pytest.mark.usefixtures("brief_training")
def test_a_cell_that_diverges_does_not_affect_others(tmp_path, monkeypatch):
    def diverges(evaluator):
        def score(noisy):
            raise DivergedError("The training loss became nan.")

        return score

    monkeypatch.setitem(levels.PREPARE_COMPARED, "mixup", diverges)
    finished = run(tmp_path, levels=[0.3], compared=["cross_entropy", "mixup"])
    cells = pd.read_csv(finished.path / "cells.csv").set_index("method")
    assert np.isfinite(cells.loc["cross_entropy", "final"])
    assert np.isnan(cells.loc["mixup", "final"])
    assert "| Mixup | diverged |" in (finished.path / "table.md").read_text()
