"""A saved classifier is whole or not there, and knows after loading what it knew before."""

import copy
import json
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
from pudistill.runs.certificates import certify_run
from pudistill.runs.fit import fit_run
from pudistill.runs.folder import Run
from pudistill.runs.settings import Settings
from pudistill.utils.files import from_npz, to_npz
from tests.helpers.runs import sign

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
    assert "What to expect" in pudistill.report(loaded).html
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


def with_index(classifier, entries):
    """Return a classifier whose samples have another index, without another fit."""
    other = copy.copy(classifier)
    other.label_arrays_ = replace(classifier.label_arrays_, index=pd.Index(entries))
    other.__dict__.pop("label_table_", None)
    return other


@pytest.mark.parametrize(
    ("entries", "restored"),
    [
        (np.arange(150) - 50, np.arange(150) - 50),
        (np.arange(150, dtype=np.uint64) + 2**63, [str(2**63 + n) for n in range(150)]),
        ([str(10**25 + n) for n in range(150)], [str(10**25 + n) for n in range(150)]),
        (["١٢"] * 150, ["١٢"] * 150),
    ],
)
def test_an_index_of_any_numbers_can_be_read_again(fitted, tmp_path, entries, restored):
    loaded = pudistill.load(pudistill.save(with_index(fitted, entries), tmp_path / "run"))
    assert loaded.label_table_.index.tolist() == list(restored)


def test_what_cannot_be_read_again_is_not_left_behind(fitted, tmp_path, monkeypatch):
    def fail(*_):
        raise OverflowError("too large")

    monkeypatch.setattr("pudistill.runs.saved.restore_results", fail)
    with pytest.raises(InputError, match="OverflowError"):
        pudistill.save(fitted, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_learner_that_is_not_stored_is_not_replaced_by_another(fitted, tmp_path):
    own = copy.copy(fitted).set_params(
        student=DummyClassifier(),
        transition_matrix=pd.DataFrame(np.eye(3)),
        random_state=np.int64(7),
        warm_start=True,
    )
    loaded = pudistill.load(pudistill.save(own, tmp_path / "run"))
    assert loaded.transition_matrix == np.eye(3).tolist()
    assert loaded.random_state == 7
    X, given, verified = data(NAMES)
    with pytest.raises(InputError, match=r"`student` .* is not stored: pass it with set_params"):
        loaded.fit(X, given, verified)
    assert "student is not stored" in repr(loaded)
    again = pudistill.load(pudistill.save(loaded, tmp_path / "again"))
    assert again.set_params(student=None).fit(X, given, verified).score(X, given) > 0.3


def test_each_result_is_kept_also_without_the_others(fitted, tmp_path):
    alone = copy.copy(fitted)
    alone.noise_, alone.adapted_, alone.cut_short_ = None, None, ["the filter"]
    loaded = pudistill.load(pudistill.save(alone, tmp_path / "run"))
    assert loaded.noise_ is None
    for name in ("comparison_", "expected_accuracy_", "label_accuracy_", "cut_short_", "n_iter_"):
        assert getattr(loaded, name) == getattr(alone, name), name
    assert pudistill.report(loaded).html == pudistill.report(alone).html
    assert "What to expect" in pudistill.report(loaded).html


def test_classes_keep_their_type(fitted, tmp_path):
    for classes in (np.array(["a", "bb", "c"]), np.array([1, 3, 5], dtype=np.int8)):
        other = copy.copy(fitted)
        other.classes_ = classes
        other.label_arrays_ = replace(fitted.label_arrays_, names=classes)
        loaded = pudistill.load(pudistill.save(other, tmp_path / classes.dtype.name))
        assert loaded.classes_.dtype == loaded.predict(data(NAMES)[0]).dtype == classes.dtype


@pytest.mark.parametrize("name", ["labels.parquet", "held_out_labels.npz", "metrics.json"])
def test_a_file_that_is_missing_is_named(saved, tmp_path, name):
    run = shutil.copytree(saved, tmp_path / "run")
    (run / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing or damaged"):
        pudistill.load(run)


class _Extended(PUDistillClassifier):
    pass


def test_what_cannot_be_saved_is_one_sentence(fitted, tmp_path):
    dates = copy.copy(fitted)
    dates.classes_ = np.array(["2020-01-01", "2020-01-02", "2020-01-03"], dtype="datetime64[D]")
    own = copy.copy(fitted)
    own.__class__ = _Extended
    X, y = load_iris(return_X_y=True)
    for other, message in (
        (DummyClassifier().fit(X, y), "this is a DummyClassifier: pass one of those"),
        (own, "_Extended is a class of your own"),
        (dates, "Class labels of the type datetime64.*cannot be stored: fit with texts"),
    ):
        with pytest.raises(InputError, match=message):
            pudistill.save(other, tmp_path / "run")
    for act in (pudistill.save, pudistill.report):
        with pytest.raises(InputError, match="holds a null character"):
            act(fitted, f"{tmp_path}/a\0b")
    with pytest.raises(InputError, match="holds a null character"):
        pudistill.load("a\0b")
    with pytest.raises(InputError, match="this is a DummyClassifier"):
        pudistill.report(DummyClassifier().fit(X, y))
    assert pudistill.report(own).html == pudistill.report(fitted).html
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def tampered(saved, tmp_path_factory):
    return shutil.copytree(saved, tmp_path_factory.mktemp("tampered") / "run")


def rewrite(run, name, content):
    """Write a file and its checksum, as whoever tampered with it would."""
    (run / name).write_bytes(content)
    sign(run)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("noise.rate", "<b>"),
        ("noise.rate", 1.5),
        ("noise.rate", 10**400),
        ("noise.rate_interval", [0.1]),
        ("noise.basis", {"a": 1}),
        ("noise.transition_matrix", [[1.0]]),
        ("noise.class_rate", [0.1, 0.2, -1e308]),
        ("noise.class_rate_interval", [[0.1]]),
        ("expected_accuracy.value", None),
        ("expected_accuracy", {"value": -1e308, "interval": [0.1, 1.0], "n": 9}),
        ("expected_accuracy.metric", "<b>"),
        ("expected_accuracy.n", -1),
        ("expected_label_accuracy.interval", [0.1, "1"]),
        ("comparison.candidates", [{"name": "student"}]),
        ("comparison.why", 1),
        ("adapted", {"a": "<b>"}),
        ("adapted", {"rounds": 1.0}),
        ("filter_settings", [{}]),
        ("n_conflicts", "1"),
        ("cut_short", "all"),
    ],
)
def test_metrics_that_were_tampered_with_are_refused(saved, tampered, place, value):
    metrics = json.loads((saved / "metrics.json").read_text())
    *holders, last = place.split(".")
    holder = metrics
    for name in holders:
        holder = holder[name]
    holder[last] = value
    rewrite(tampered, "metrics.json", json.dumps(metrics).encode())
    with pytest.raises(InputError) as refused:
        pudistill.load(tampered)
    assert last in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("score", lambda score: score + 1),
        ("score", lambda score: score[:-1]),
        ("worth", lambda worth: worth * 0),
        ("worth", lambda worth: worth * np.nan),
        ("label", lambda label: label + 100),
        ("label", lambda label: label.astype(float)),
        ("names", lambda names: names[:, None]),
    ],
)
def test_held_out_labels_that_were_tampered_with_are_refused(saved, tmp_path, name, change):
    run = shutil.copytree(saved, tmp_path / "run")
    arrays = from_npz((saved / "held_out_labels.npz").read_bytes())
    arrays[name] = change(arrays[name])
    rewrite(run, "held_out_labels.npz", to_npz(arrays))
    for act in (pudistill.load, lambda run: certify_run(Run.open_fit(run), 0.1, 0.95)):
        with pytest.raises(InputError, match=f"damaged, because its array '{name}'"):
            act(run)


def test_a_report_does_without_what_was_not_kept(saved, tampered):
    metrics = json.loads((saved / "metrics.json").read_text())
    for name in ("noise", "adapted", "comparison", "expected_accuracy", "expected_label_accuracy"):
        rest = {key: value for key, value in metrics.items() if key != name}
        rewrite(tampered, "metrics.json", json.dumps(rest).encode())
        assert "given labels" in pudistill.report(pudistill.load(tampered)).html, name
