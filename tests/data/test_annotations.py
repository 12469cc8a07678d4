"""Labels of several sources: their forms, and the majority vote."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pudistill import Annotations
from pudistill.data.loading import load_dataset
from pudistill.exceptions import DataWarning, InputError

WIDE = pd.DataFrame({"Ann": ["cat", "dog", None], "Bob": ["cat", None, None]})
LONG = pd.DataFrame(
    {"id": ["a", "a", "b"], "source": ["Ann", "Bob", "Ann"], "label": ["cat", "cat", "dog"]}
)


def said(annotations):
    names = annotations.names
    triples = zip(annotations.rows, annotations.source, annotations.label, strict=True)
    return {(int(row), names[source], label) for row, source, label in triples}


def test_columns_and_a_long_table_say_the_same():
    expected = {(0, "Ann", "cat"), (0, "Bob", "cat"), (1, "Ann", "dog")}
    assert said(Annotations.from_columns(WIDE)) == expected
    assert said(Annotations.from_table(LONG, ids=["a", "b", "c"])) == expected


def test_minus_one_and_missing_values_are_silence():
    codes = np.array([[0, -1], [1, 1]])
    assert said(Annotations.from_columns(codes)) == {(0, "0", 0), (1, "0", 1), (1, "1", 1)}
    assert said(Annotations.from_columns(pd.DataFrame({"a": [1.0, np.nan]}))) == {(0, "a", 1)}


def test_the_vote_is_that_of_most_sources():
    codes = np.array([[0, 0, 1], [1, -1, -1], [-1, -1, -1]])
    assert Annotations.from_columns(codes).vote().tolist() == [0, 1, None]


def test_of_equal_votes_those_of_reliable_sources_win():
    agreeing = [[0, 0, 1]] * 5 + [[1, 1, 0]] * 5  # the third source agrees with nobody
    vote = Annotations.from_columns(np.array([*agreeing, [0, -1, 1], [1, -1, 0]])).vote()
    assert vote[-2:].tolist() == [0, 1]


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.lists(st.lists(st.integers(-1, 2), min_size=n, max_size=n), min_size=1)
    )
)
@settings(max_examples=50)
def test_no_other_label_has_more_votes(codes):
    codes = np.array(codes)
    for row, label in zip(codes, Annotations.from_columns(codes).vote(), strict=True):
        votes = np.bincount(row[row >= 0], minlength=3)
        assert (label is None) if votes.sum() == 0 else votes[label] == votes.max()


def test_taken_samples_keep_their_annotations():
    annotations = Annotations.from_columns(WIDE)
    assert said(annotations.take(np.array([1, 0]))) == {
        *((0, "Ann", "dog"), (1, "Ann", "cat"), (1, "Bob", "cat"))
    }
    assert len(annotations.take(np.array([False, False, True]))) == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (LONG.drop(columns="source"), "no column 'source'"),
        (LONG.assign(id="z"), "not in the data: 'z'"),
        (LONG.assign(source=["Ann", None, "Ann"]), "sample 'a' names no source"),
    ],
)
def test_wrong_tables_are_refused(table, message):
    with pytest.raises(InputError, match=message):
        Annotations.from_table(table, ids=["a", "b", "c"])


@pytest.fixture
def files(tmp_path):
    samples = pd.DataFrame({"id": ["a", "b", "c"], "x": [1.0, 2.0, 3.0]})
    samples.to_csv(tmp_path / "plain.csv", index=False)
    wide = samples.join(WIDE.rename(columns="worker_{}".format))
    wide.to_csv(tmp_path / "wide.csv", index=False)
    LONG.rename(columns={"source": "worker"}).to_csv(tmp_path / "long.csv", index=False)
    return tmp_path


def test_a_pattern_names_the_columns_of_sources(files):
    found = load_dataset(files / "wide.csv", label_column="worker_*")
    assert found.feature_names == ("x",)
    assert found.y.tolist() == ["cat", "dog", None]
    assert found.annotations.names == ["worker_Ann", "worker_Bob"]
    assert found.take([1]).annotations.label.tolist() == ["dog"]


def test_a_file_holds_the_annotations(files):
    found = load_dataset(files / "plain.csv", annotations=files / "long.csv")
    assert found.y.tolist() == ["cat", "dog", None]
    assert said(found.annotations) == {(0, "Ann", "cat"), (0, "Bob", "cat"), (1, "Ann", "dog")}


def test_a_pattern_without_columns_is_refused(files):
    with pytest.raises(InputError, match=r"no column is called like 'rater_\*'"):
        load_dataset(files / "wide.csv", label_column="rater_*")


def test_annotations_lack_a_column(files):
    LONG.drop(columns="label").to_csv(files / "long.csv", index=False)
    with pytest.raises(InputError, match="no column of 'label'"):
        load_dataset(files / "plain.csv", annotations=files / "long.csv")


def test_labels_beside_annotations_are_pointed_out(files):
    table = pd.read_csv(files / "plain.csv").assign(label=["cat", "dog", "dog"])
    table.to_csv(files / "plain.csv", index=False)
    with pytest.warns(DataWarning, match="its own labels are not used"):
        found = load_dataset(files / "plain.csv", annotations=files / "long.csv")
    assert found.y.tolist() == ["cat", "dog", None]


def test_an_annotation_must_be_of_a_sample_and_a_source():
    with pytest.raises(InputError, match="rows must hold a whole number from 0 to 1"):
        Annotations(2, ["Ann"], [0, 2], [0, 0], ["cat", "dog"])


def test_an_empty_file_of_annotations_is_refused(files):
    LONG.head(0).to_csv(files / "long.csv", index=False)
    with pytest.raises(InputError, match="holds no label"):
        load_dataset(files / "plain.csv", annotations=files / "long.csv")


def test_columns_of_class_names_beside_annotations_are_pointed_out(files):
    table = pd.read_csv(files / "plain.csv").assign(worker=["cat", "dog", "dog"])
    table.to_csv(files / "plain.csv", index=False)
    with pytest.warns(DataWarning, match="'worker' hold names of classes only"):
        load_dataset(files / "plain.csv", annotations=files / "long.csv")


def test_what_contradicts_itself_has_no_vote():
    twice = Annotations(2, ["Ann"], [0, 0, 0, 1], [0, 0, 0, 0], ["cat", "cat", "dog", "dog"])
    assert twice.vote().tolist() == [None, "dog"]


def test_missing_labels_are_left_out():
    found = Annotations(2, ["Ann"], [0, 1, 1], [0, 0, 0], [np.nan, -1, 3])
    assert said(found) == {(1, "Ann", 3)}


def test_an_annotation_without_an_id_is_an_error(tmp_path):
    pd.DataFrame({"id": ["a", "b"], "x": [0.0, 1.0], "label": ["cat", "dog"]}).to_csv(
        tmp_path / "plain.csv", index=False
    )
    LONG.assign(id=["a", None, "b"]).to_csv(tmp_path / "long.csv", index=False)
    with pytest.raises(InputError, match=r"row 1 \(counted from 0\) has no id in column 'id'"):
        load_dataset(tmp_path / "plain.csv", annotations=tmp_path / "long.csv")
