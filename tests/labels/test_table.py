"""The label table as arrays is the label table as a data frame."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pudistill.exceptions import TrustedWarning
from pudistill.labels.checks import check_labels
from pudistill.labels.table import Outliers, label_table, model_label_table

GIVEN = ["cat", "dog", None, "cat", "dog", "cat"]
VERIFIED = ["cat", "dog", None, None, None, None]
PROBA = np.array([[1, 0], [0, 1], [0.25, 0.75], [0.5, 0.5], [0.75, 0.25], [1, 0]])
VOTES = np.array([[3, 0], [1, 2], [-1, -1], [2, 1], [0, -1], [3, 0]])


@pytest.fixture
def table():
    labels = check_labels(GIVEN, VERIFIED)
    outliers = Outliers(np.linspace(0, 1, 6), np.arange(6) == 5, np.where(np.arange(6) < 5, 1, 0.1))
    return replace(label_table(labels, PROBA, VOTES, outliers), ids=np.array(list("abcdef")))


def test_the_frame_holds_names_and_missing_values(table):
    expected = pd.DataFrame(
        {
            "id": list("abcdef"),
            "given": GIVEN,
            "trusted": [True, True, False, False, False, False],
            "label": ["cat", "dog", "dog", "cat", "cat", "cat"],
            "changed": [False, False, False, False, True, False],
            "source": ["trusted", "trusted", "student", "given", "student", "given"],
            "confidence": [1, 1, 0.75, 0.5, 0.75, 0.1],
            "given_quality": [1, 1, np.nan, 0.5, 0.25, 0.1],
            "votes": pd.array([3, 2, None, 2, 0, 3], dtype="Int16"),
            "outlier_score": np.linspace(0, 1, 6),
            "outlier": [False] * 5 + [True],
        }
    )
    pd.testing.assert_frame_equal(table.frame(), expected)


@pytest.mark.parametrize("n_rows", [1, 2, 6])
def test_blocks_have_the_types_of_the_whole(table, n_rows):
    parts = [table.frame(slice(start, start + n_rows)) for start in range(0, 6, n_rows)]
    assert {tuple(part.dtypes) for part in parts} == {tuple(table.frame().dtypes)}
    pd.testing.assert_frame_equal(pd.concat(parts), table.frame())


def test_a_given_label_can_be_the_name_of_no_class_of_the_fit(table):
    rows = np.arange(6) < 2
    changed = table.with_given(rows, np.array(["eel", None, *"xxxx"], dtype=object)).frame()
    assert changed["given"].tolist()[:1] + changed["given"].tolist()[3:] == [
        *("eel", "cat", "dog", "cat")
    ]
    assert changed["given"].isna().tolist() == [False, True, True, False, False, False]
    assert changed["label"].tolist() == table.frame()["label"].tolist()


def test_samples_of_no_class_are_in_their_rows():
    labels = check_labels(
        ["cat", "dog", "cat"], ["cat", "dog", "nothing"], no_class_label="nothing"
    )
    of_classes = labels.take(~labels.no_class)
    table = model_label_table(of_classes, np.eye(2), Outliers.unknown(2))
    frame = table.with_no_class(labels, "nothing").frame()
    assert frame["label"].tolist() == ["cat", "dog", "nothing"]
    assert frame["given"].tolist() == ["cat", "dog", "cat"]
    assert frame["outlier_score"].iloc[2] == 1
    assert frame["votes"].isna().all()


def test_a_class_that_is_lost_is_named_with_what_to_do():
    given, verified = ["cat", "dog", "eel", "eel"], ["cat", "dog", None, None]
    proba = np.eye(3)[[0, 1, 0, 0]]
    labels = check_labels(given, verified, every_class=False)
    with pytest.warns(TrustedWarning, match=r"no sample has the label 'eel' \(2\): verify some"):
        model_label_table(labels, proba, Outliers.unknown(4))
    labels = check_labels(given, ["cat", "dog", "eel", None])
    with pytest.warns(TrustedWarning, match=r"only trusted samples have the label 'eel' \(1\)"):
        model_label_table(labels, proba, Outliers.unknown(4))
