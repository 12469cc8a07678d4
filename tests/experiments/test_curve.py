"""A sweep measures each method at each noise, computes nothing twice, and can be continued."""

import shutil
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from pudistill.classifier import PUDistillClassifier
from pudistill.data.loading import load_dataset
from pudistill.exceptions import InputError
from pudistill.experiments import evaluation
from pudistill.experiments.curve import accuracy_curve, curve_run, is_curve, write_curve_report
from pudistill.experiments.curve_settings import CurveSettings
from pudistill.experiments.measuring import measure
from pudistill.experiments.systems import PREPARE
from pudistill.learners.cache import StageCache
from pudistill.runs.classifiers import build_classifier
from pudistill.runs.folder import Run
from pudistill.runs.inputs import with_noise
from tests.helpers.pictures import write_picture

QUICK = {
    "data": "wine",
    "test_fraction": 0.3,
    "trusted_fraction": 0.2,
    "levels": [0.3, 0.7],
    "n_members": 3,
    "max_iter": 1,
    "threshold": 0.6,
    "min_votes": 2,
    "n_teachers": 1,
    "n_jobs": 1,
    "compare": False,
    "methods": ["given_labels", "trusted_only", "pudistill", "true_labels"],
}


def settings_of(**changes):
    return CurveSettings.read(QUICK | changes)


@pytest.fixture
def wine():
    return load_dataset("wine").holdout(0.3, random_state=0)


@pytest.fixture
def calls(monkeypatch):
    """Record the calls of functions that do real work."""
    done = []

    def counted(owner, name):
        original = getattr(owner, name)

        def count(*args, **kwargs):
            done.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, count)

    counted(PUDistillClassifier, "fit_teachers")
    counted(PUDistillClassifier, "fit_student")
    counted(evaluation, "reference_accuracy")
    return done


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run folder of a whole sweep, which no test changes."""
    return curve_run(settings_of(), tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def results(whole):
    """The table of a whole sweep."""
    return whole.read_table("curve")


def test_each_method_is_measured_at_each_noise(results):
    assert list(results) == ["noise", "level", "overall_level", "method", "accuracy"]
    assert len(results) == 2 * 2 * 4
    assert not results.duplicated(["noise", "level", "method"]).any()
    assert set(results["method"]) == {"given_labels", "trusted_only", "pudistill", "true_labels"}
    assert results["accuracy"].between(0, 1).all()


@pytest.mark.workers
@pytest.mark.parametrize(
    "compared",
    [
        ["pudistill", "gold_loss_correction", "true_labels"],
        pytest.param(
            [name for name in PREPARE if name != "semi_supervised"], marks=pytest.mark.slow
        ),
    ],
)
def test_methods_can_be_measured_in_parallel(wine, compared):
    settings = settings_of(methods=compared, noises=["symmetric"], levels=[0.5], n_jobs=2)
    results = accuracy_curve(*wine, settings)
    assert set(results["method"]) == set(compared)
    alone = accuracy_curve(*wine, settings.model_copy(update={"n_jobs": 1}))
    pd.testing.assert_frame_equal(results, alone)


def test_tables_have_no_semi_supervised_network(wine):
    with pytest.raises(InputError, match="needs pictures and a network"):
        accuracy_curve(*wine, settings_of(methods=["semi_supervised"]))


@pytest.mark.slow
def test_a_semi_supervised_network_reads_no_noisy_label():
    data = load_dataset("digits").take(range(300))
    pictures = replace(data, X=(data.X.reshape(-1, 8, 8, 1) * 15).astype(np.uint8))
    settings = settings_of(methods=["semi_supervised"], learner="small_cnn", levels=[0.3, 0.7])
    results = accuracy_curve(pictures, pictures, settings)
    assert results["accuracy"].nunique() == 1
    assert results["accuracy"].iloc[0] > 0.5


def test_levels_are_those_of_the_whole_data_set(wine):
    results = accuracy_curve(*wine, settings_of(methods=["true_labels"]))
    overall = results.set_index(["noise", "level"])["overall_level"]
    # Every class is mistaken for another one, so each chosen label becomes wrong.
    assert overall["asymmetric", 0.3] == pytest.approx(0.3, abs=0.02)
    assert overall["asymmetric", 0.7] == pytest.approx(0.7, abs=0.02)
    # One of three labels drawn at random is correct.
    assert overall["symmetric", 0.7] == pytest.approx(0.7 * 2 / 3, abs=0.08)


def test_noise_hurts_only_systems_that_read_noisy_labels(results):
    accuracy = results.pivot_table(index="method", columns=["noise", "level"], values="accuracy")
    for method in ("trusted_only", "true_labels"):
        assert accuracy.loc[method].nunique() == 1
    assert accuracy.loc["given_labels", ("asymmetric", 0.7)] < 0.5
    assert accuracy.loc["true_labels"].min() > 0.9


def test_work_that_reads_no_noisy_label_is_done_once(wine, calls):
    accuracy_curve(*wine, settings_of())
    n_noises = 4
    assert calls.count("fit_teachers") == 1
    assert calls.count("fit_student") == n_noises
    assert calls.count("reference_accuracy") == n_noises + 2  # trusted_only, true_labels


def test_only_requested_methods_are_prepared(wine, calls):
    accuracy_curve(*wine, settings_of(methods=["trusted_only"]))
    assert calls == ["reference_accuracy"]


def test_the_accuracies_are_those_of_the_classifier(wine):
    train, test = wine
    settings = settings_of(levels=[0.5], noises=["pair"], methods=["pudistill"])
    (accuracy,) = accuracy_curve(train, test, settings)["accuracy"]
    noisy = with_noise(train, "pair", 0.5, settings.trusted_fraction, settings.seed)
    classifier = build_classifier(settings, train.X).fit(noisy.X, noisy.y, noisy.verified)
    assert accuracy == np.mean(classifier.predict(test.X) == test.y)


def test_given_labels_do_not_matter_if_true_labels_are_known(wine):
    train, test = wine
    spoilt = with_noise(train, "pair", 0.6, 0.1, 7)
    settings = settings_of(methods=["given_labels", "true_labels"])
    pd.testing.assert_frame_equal(
        accuracy_curve(spoilt, test, settings), accuracy_curve(train, test, settings)
    )


def test_methods_can_be_added(wine, monkeypatch):
    def majority(evaluator):
        names, counts = np.unique(evaluator.clean.true_labels, return_counts=True)
        return lambda noisy: np.mean(evaluator.test.y == names[counts.argmax()])

    monkeypatch.setitem(PREPARE, "majority", majority)
    results = accuracy_curve(*wine, settings_of(methods=["majority"]))
    assert results["accuracy"].nunique() == 1


# The run folder


def test_a_run_folder_is_complete(tmp_path):
    run = curve_run(settings_of(levels=[0.3, 0.5, 0.9]), tmp_path / "run")
    assert Run.open(run.path).path == run.path
    assert is_curve(run)
    table = run.read_table("curve")
    pd.testing.assert_frame_equal(pd.read_csv(run.path / "curve.csv"), table)
    assert sorted(set(table["level"])) == [0.3, 0.5]  # 90 % do not fit beside 20 % trusted
    metrics = run.read_json("metrics.json")
    assert metrics["n_samples"] + metrics["n_test"] == 178
    assert metrics["n_trusted"] == pytest.approx(0.2 * metrics["n_samples"], abs=2)
    assert "numpy" in metrics["versions"]
    ElementTree.fromstring((run.path / "curve.svg").read_text())
    page = (run.path / "report.html").read_text()
    assert "Left out: a noise level of 0.9" in page
    assert "trusted_fraction" in page


def test_the_config_repeats_the_run(whole, tmp_path):
    settings = CurveSettings.read(whole.read_config())
    second = curve_run(settings, tmp_path / "second")
    assert second.read_config() == whole.read_config()
    pd.testing.assert_frame_equal(second.read_table("curve"), whole.read_table("curve"))


@pytest.mark.workers  # which hand over each cell when it is finished
def test_an_interrupted_run_continues(whole, tmp_path, monkeypatch, calls):
    score = PUDistillClassifier.predict

    def interrupt(*args):
        if calls.count("fit_student") == 3:
            raise KeyboardInterrupt
        return score(*args)

    with monkeypatch.context() as patch:
        patch.setattr(PUDistillClassifier, "predict", interrupt)
        with pytest.raises(KeyboardInterrupt):
            curve_run(settings_of(), tmp_path / "run")
    calls.clear()
    run = curve_run(settings_of(), tmp_path / "run")
    assert calls.count("fit_student") == 2  # two of four were finished
    assert calls.count("reference_accuracy") == 1  # the ceiling, which comes last
    pd.testing.assert_frame_equal(run.read_table("curve"), whole.read_table("curve"))


def test_a_run_without_its_last_file_is_finished_without_computing(whole, tmp_path, calls):
    shutil.copytree(whole.path, tmp_path / "run")
    (tmp_path / "run" / "SHA256SUMS").unlink()
    curve_run(settings_of(), tmp_path / "run")
    assert calls == []


def test_the_report_can_be_written_again(tmp_path):
    run = curve_run(settings_of(methods=["trusted_only"]), tmp_path / "run")
    page, figure = ((run.path / name).read_bytes() for name in ("report.html", "curve.svg"))
    (run.path / "report.html").unlink()
    (run.path / "curve.svg").write_text("damaged")
    assert write_curve_report(run).read_bytes() == page
    assert (run.path / "curve.svg").read_bytes() == figure


def test_a_folder_in_use_is_left_alone(tmp_path):
    curve_run(settings_of(methods=["trusted_only"]), tmp_path / "run")
    with pytest.raises(InputError, match="already holds a run"):
        curve_run(settings_of(), tmp_path / "run")


# What can be wrong


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": "pair"}, "give `noises` and `levels`"),
        ({"test_fraction": None}, "needs samples to test on"),
        ({"methods": ["magic"]}, "no method 'magic': choose some of given_labels"),
        ({"levels": [-0.1]}, "from 0 to 1"),
        ({"levels": [0.9]}, "no level can be more than 0.8"),
        ({"n_members": 0}, "n_members"),
        ({"methods": ["trusted_only", "semi_supervised"]}, "semi_supervised needs pictures"),
    ],
)
def test_wrong_settings_are_named_and_leave_no_folder(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        curve_run(settings_of(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noises": ["white"]}, "noises .*some of symmetric, asymmetric"),
        ({"noises": []}, "noises"),
        ({"levels": "high"}, "levels .*a list of noise levels"),
    ],
)
def test_settings_of_the_wrong_type_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        settings_of(**changes)


def test_neither_curves_nor_methods_import_torch():
    code = "import sys, pudistill.experiments.curve, pudistill.methods as m; "
    code += "m.CrossEntropyClassifier; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_noises_that_give_the_same_labels_are_computed_once(wine, tmp_path, calls):
    """At level 0 all kinds of noise are the same."""
    train, test = wine
    settings = settings_of(levels=[0.0, 0.7], methods=["given_labels"])
    alone = accuracy_curve(train, test, settings)
    n_before = len(calls)
    kept = accuracy_curve(train, test, settings, stages=StageCache(tmp_path / "units"))
    pd.testing.assert_frame_equal(kept, alone)
    assert len(calls) - n_before == 3
    again = accuracy_curve(train, test, settings, stages=StageCache(tmp_path / "units"))
    pd.testing.assert_frame_equal(again, alone)


def test_a_cell_that_another_process_stored_meanwhile_shifts_no_other_cell(wine, tmp_path):
    levels, stages = [0.1, 0.2, 0.3], StageCache(tmp_path / "units")
    settings = settings_of(levels=levels, noises=["symmetric"], methods=["trusted_only"])

    def returns_its_level(evaluator):
        return lambda noisy: noisy.level

    def is_overtaken(evaluator):
        def score(noisy):
            if noisy.level == levels[0]:
                second = settings.model_copy(update={"levels": levels[1:2]})
                measure(*wine, second, {"new": returns_its_level}, stages=stages)
            return noisy.level

        return score

    for _ in range(2):  # measured, then read
        results = measure(*wine, settings, {"new": is_overtaken}, stages=stages)
        assert list(results["accuracy"]) == levels


def test_pictures_on_disk_have_the_same_fingerprint_in_each_process(tmp_path):
    folder = tmp_path / "pictures"
    for name in ("a", "b"):
        write_picture(folder / name / "1.png")
    settings = settings_of(learner="small_cnn")
    loads = (load_dataset(folder, lazy=True) for _ in range(2))
    prints = {evaluation.Evaluator(settings, data, data).fingerprint() for data in loads}
    assert len(prints) == 1


def test_finished_cells_survive_a_method_that_fails(tmp_path, monkeypatch):
    def fails(_):
        raise InputError("The training loss became nan.")

    monkeypatch.setitem(PREPARE, "pudistill", fails)
    with pytest.raises(InputError, match="nan"):
        curve_run(settings_of(methods=["given_labels", "pudistill"]), tmp_path / "run")
    assert list((tmp_path / "run" / "units").iterdir())


def test_a_learner_that_a_method_cannot_use_is_named_before_any_work(tmp_path, calls):
    settings = settings_of(learner="svm", methods=["given_labels", "co_teaching"])
    with pytest.raises(InputError, match=r"co_teaching needs a network.*svm.*small_cnn"):
        curve_run(settings, tmp_path / "run")
    assert not calls
    assert not (tmp_path / "run").exists()
