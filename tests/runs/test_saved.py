"""A saved classifier is whole or not there, and knows after loading what it knew before."""

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier

import pudistill
from pudistill import InputError, PUDistillClassifier
from pudistill.exceptions import DataNotice
from pudistill.methods import CrossEntropyClassifier
from pudistill.runs.fit import fit_run
from pudistill.runs.folder import Run
from pudistill.runs.settings import Settings

STORED = Path(__file__).parents[1] / "stored" / "0.1.0"
QUICK = {"n_members": 3, "max_iter": 2}
NAMES = np.array(["<script>", "no", "ünö"], dtype=object)
OF_NOISE = ("transition_matrix", "transition_interval", "rate", "rate_interval", "class_rate")


def data(classes):
    X, y = load_iris(return_X_y=True)
    index = pd.Index(3 * np.arange(150) + 7)
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"], index=index)
    given = classes[(y + (np.arange(150) % 3 == 0)) % 3]
    verified = pd.Series(classes[y], index=index, dtype=object).where(np.arange(150) % 4 == 0)
    return frame, given, verified


@pytest.fixture(scope="module")
def fitted():
    X, given, verified = data(NAMES)
    return PUDistillClassifier(random_state=0, **QUICK).fit(X, given, trusted=verified)


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory):
    return pudistill.save(fitted, tmp_path_factory.mktemp("saved") / "folder" / "run")


def test_a_loaded_classifier_knows_what_it_knew(fitted, saved):
    loaded = pudistill.load(saved)
    for name in OF_NOISE:
        np.testing.assert_array_equal(getattr(loaded.noise_, name), getattr(fitted.noise_, name))
    for name in ("comparison_", "expected_accuracy_", "label_accuracy_", "shipped_"):
        assert getattr(loaded, name) == getattr(fitted, name), name
    pd.testing.assert_frame_equal(loaded.label_table_, fitted.label_table_)
    assert loaded.classes_.dtype == fitted.classes_.dtype
    before, after = fitted.certify(0.2), loaded.certify(0.2)
    assert before.n_accepted > 0
    np.testing.assert_array_equal(after.accepted, before.accepted)
    np.testing.assert_array_equal(after.labels, before.labels)
    X, _, _ = data(fitted.classes_)
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


def test_a_noise_estimate_that_tells_nothing_is_restored_and_not_reported(fitted, tmp_path):
    unknown = copy.copy(fitted)
    unknown.noise_ = replace(fitted.noise_, basis="nothing", rate=np.nan, rate_interval=(0.0, 1.0))
    folder = pudistill.save(unknown, tmp_path / "run")
    assert repr(pudistill.load(folder).noise_) == repr(unknown.noise_)
    assert "How many labels are wrong" not in (folder / "report.html").read_text()


def test_an_update_can_start_from_a_loaded_classifier(fitted, saved):
    X, given, verified = data(fitted.classes_)
    y = fitted.classes_[load_iris().target]
    more = verified.where(np.arange(150) % 7 > 0, pd.Series(y, index=X.index))
    updated = pudistill.load(saved).set_params(warm_start=True).fit(X, given, more)
    assert updated.label_table_["trusted"].sum() > fitted.label_table_["trusted"].sum()
    assert updated.score(X, y) > 0.9


def test_a_saved_classifier_can_be_saved_again(saved, tmp_path):
    again = pudistill.save(pudistill.load(saved), tmp_path / "again")
    for name in ("labels.csv", "model/model.json", "held_out_labels.npz", "history.csv"):
        assert (again / name).read_bytes() == (saved / name).read_bytes(), name


def test_commands_work_on_it_or_say_why_not(command, saved, tmp_path):
    shutil.copytree(saved, "run")
    code, out, err = command("certify", "run", "--max-error", "0.2", "--output", "certified.csv")
    assert (code, "labels that nobody verified are accepted" in out + err) == (0, True)
    before = Path("run/report.html").read_text()
    assert command("report", "run")[0] == 0
    assert Path("run/report.html").read_text() == before
    data(NAMES)[0].to_csv("new.csv", index=False)
    code, out, _ = command("predict", "run", "new.csv")
    assert (code, len(out.splitlines())) == (0, 151)
    for refused in ("next run", "update run", "apply run --output a.csv", "review run --no-open"):
        code, _, err = command(*refused.split())
        assert (code, "which does not know where the data are" in err) == (2, True), refused
        assert "http" not in err
    assert "was written by pudistill.save" in command("resume", "run")[2]


def test_the_report_is_that_of_the_folder_and_shows_in_a_notebook(fitted, saved, tmp_path):
    made = pudistill.report(fitted, tmp_path / "report.html")
    assert made.html == (saved / "report.html").read_text() == made.path.read_text()
    assert pudistill.report(pudistill.load(saved)).html == made.html
    assert "<script>" not in made._repr_html_()
    assert made._repr_html_().startswith("<iframe")
    assert len(repr(made)) < 300
    with pytest.raises(InputError, match=r"report\.html already exists: choose another file"):
        pudistill.report(fitted, tmp_path / "report.html")
    with pytest.raises(InputError, match=r"report\.pdf is no name of an HTML file"):
        pudistill.report(fitted, tmp_path / "report.pdf")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_save_leaves_nothing(fitted, tmp_path, monkeypatch, error):
    def stop(*_):
        raise error

    monkeypatch.setattr(Run, "write_model", stop)
    with pytest.raises((KeyboardInterrupt, InputError)):
        pudistill.save(fitted, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_and_nothing_unsafe_is_stored(fitted, tmp_path):
    with pytest.raises(InputError, match="already exists: choose another folder"):
        pudistill.save(fitted, tmp_path)
    with pytest.raises(ValueError, match="not fitted"):
        pudistill.save(PUDistillClassifier(), tmp_path / "run")
    X, given, verified = data(NAMES)
    own = CrossEntropyClassifier(_Own(), random_state=0).fit(X, given, verified)
    with pytest.raises(InputError, match="cannot be stored safely"):
        pudistill.save(own, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


class _Own(ClassifierMixin, BaseEstimator):
    def fit(self, X, y, sample_weight=None):
        self.classes_, self.inner_ = np.unique(y), DummyClassifier().fit(X, y)
        return self

    def predict_proba(self, X):
        return self.inner_.predict_proba(X)


def test_of_another_method_the_model_is_stored(tmp_path):
    X, given, verified = data(NAMES)
    method = CrossEntropyClassifier(random_state=0).fit(X, given, verified)
    loaded = pudistill.load(pudistill.save(method, tmp_path / "run"))
    assert (loaded.predict(X) == method.predict(X)).all()
    with pytest.raises(InputError, match="A CrossEntropyClassifier keeps no labels to report"):
        pudistill.report(method)


def test_runs_of_earlier_versions_still_load():
    loaded = pudistill.load(STORED / "logistic_regression")
    assert len(loaded.label_table_) == len(loaded.label_arrays_) == 150
    assert loaded.noise_ is None  # its intervals did not say what they hold for
    assert loaded.expected_accuracy_.n == 30
    with pytest.raises(InputError, match="No label can be certified"):
        loaded.certify()


def test_classes_and_samples_of_no_class_keep_their_types(tmp_path):
    X, given, verified = data(np.arange(3))
    verified.iloc[:8:4] = -9
    classifier = PUDistillClassifier(random_state=0, no_class_label=-9, **QUICK)
    classifier.fit(X, given, trusted=verified)
    loaded = pudistill.load(pudistill.save(classifier, tmp_path / "run"))
    pd.testing.assert_frame_equal(loaded.label_table_, classifier.label_table_)
    assert loaded.classes_.dtype == classifier.classes_.dtype
    assert str(loaded.certify(0.2)) == str(classifier.certify(0.2))


def test_a_run_of_the_command_line_loads_whole(tmp_path):
    noise = {"noise": "symmetric", "level": 0.4, "trusted_fraction": 0.2}
    fit_run(Settings.read({"data": "iris", **noise, **QUICK}), tmp_path / "run")
    loaded = pudistill.load(tmp_path / "run")
    certified = loaded.certify(0.5)
    assert certified.n_samples == (~loaded.label_table_["trusted"]).sum()
    assert loaded.noise_.basis in ("verified originals", "bound")
    assert len(loaded.filter_.history_) > 0
    assert loaded.comparison_.expected_accuracy == loaded.expected_accuracy_
    (tmp_path / "run" / "metrics.json").write_text("{}")
    with pytest.raises(InputError, match="missing or damaged"):
        pudistill.load(tmp_path / "run")


def test_numbers_that_a_run_keeps_as_texts_are_no_surprise(tmp_path):
    X, y = load_iris(return_X_y=True)
    np.savez(tmp_path / "data.npz", X=X, y=y, trusted=np.arange(150) % 3 == 0)
    fit_run(Settings.read({"data": str(tmp_path / "data.npz"), **QUICK}), tmp_path / "run")
    with pytest.warns(DataNotice, match="are texts, such as '0'.*y.astype"):
        loaded = pudistill.load(tmp_path / "run")
    assert loaded.score(X, y.astype(str)) > 0.9
    pudistill.save(PUDistillClassifier(**QUICK).fit(X, y, np.arange(150) < 150), tmp_path / "saved")
    assert pudistill.load(tmp_path / "saved").score(X, y) > 0.9
