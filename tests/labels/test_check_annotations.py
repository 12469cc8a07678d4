"""Checks of labels that several sources gave."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from pudistill.exceptions import DataWarning, InputError, TrustedWarning
from pudistill.labels.annotations import check_annotations, has_several_sources

Y = np.array([["cat", "cat"], ["dog", None], ["dog", "cat"]], dtype=object)
VERIFIED = np.array(["cat", "dog", None], dtype=object)


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (np.zeros((3, 2)), True),
        (np.zeros((3, 1)), False),
        (np.zeros(3), False),
        ([["a", "b"], ["a", None]], True),
        (["ab", "cd"], False),
        (pd.DataFrame({"a": [1], "b": [2]}), True),
        (pd.Series(["ab"]), False),
    ],
)
def test_several_columns_are_several_sources(y, expected):
    assert has_several_sources(y) is expected


def test_sources_are_codes_in_a_sparse_matrix():
    labels = check_annotations(Y, VERIFIED)
    assert labels.classes.tolist() == ["cat", "dog"]
    assert labels.given[:2].tolist() == [0, 1]
    assert labels.verified.tolist() == [0, 1, -1]
    assert labels.sources.said.toarray().tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [0, 1, 1, 0]]
    assert labels.take(np.array([1])).sources.said.toarray().tolist() == [[0, 1, 0, 0]]


def test_without_verified_labels_nothing_is_trusted():
    labels = check_annotations(Y)
    assert not labels.trusted.any()
    assert labels.given[:2].tolist() == [0, 1]


def test_a_frame_is_aligned_with_the_samples():
    y = pd.DataFrame(Y, index=["a", "b", "c"], columns=["Ann", "Bob"]).iloc[::-1]
    labels = check_annotations(y, VERIFIED, index=pd.Index(["a", "b", "c"]))
    assert labels.sources.names.tolist() == ["Ann", "Bob"]
    assert labels.given[:2].tolist() == [0, 1]


def test_the_label_of_no_class_is_silence():
    y = Y.copy()
    y[0, 1] = "none of these"
    assert check_annotations(y, VERIFIED).sources.spoke.toarray()[0].tolist() == [1, 0]


def test_a_source_that_contradicts_itself_is_silent_there():
    from pudistill import Annotations

    rows = np.array([0, 0, 1, 1, 2])
    y = Annotations(3, ["Ann"], rows, np.zeros(5, int), np.array([0, 1, 1, 1, 0]))
    with pytest.warns(DataWarning, match="contradict themselves 1 times, such as source 'Ann'"):
        labels = check_annotations(y)
    assert labels.given.tolist() == [-1, 1, 0]
    with pytest.warns(DataWarning, match="source 'Ann' of sample p0: they are silent"):
        check_annotations(y, index=pd.Index(["p0", "p1", "p2"]))


def test_a_silent_source_is_left_out():
    with pytest.warns(DataWarning, match="never speak and are left out: '?2"):
        labels = check_annotations(np.column_stack([Y, [None] * 3]), VERIFIED)
    assert len(labels.sources) == 2


def test_a_label_that_is_no_class_is_named_by_source_and_row():
    y = np.array([["cat", "cat", "cat"], ["dog", "dog", "dgo"]], dtype=object)
    with pytest.raises(InputError, match="Source '2' says 'dgo' of sample 1, which is no class"):
        check_annotations(y, np.array(["cat", "dog"], dtype=object))


def test_a_mask_cannot_mark_a_sample_whose_sources_disagree():
    with pytest.raises(InputError, match="Sample 2 is marked as right, but its sources disagree"):
        check_annotations(Y, np.array([True, True, True]))
    assert check_annotations(Y, np.array([True, True, False])).from_mask


def test_silent_sources_are_no_labels():
    with pytest.raises(InputError, match="No source says anything"):
        check_annotations(np.full((3, 2), -1))


def test_a_number_can_be_the_label_of_no_class():
    y, verified = np.array([[0, 0], [1, 9], [9, 9]]), np.array([0, 1, 9], dtype=object)
    with pytest.warns(TrustedWarning, match="3 labels of sources are 9, which is not a class"):
        labels = check_annotations(y, verified, no_class_label=9)
    assert labels.no_class.tolist() == [False, False, True]
    assert labels.given.tolist() == [0, 1, -1]


def test_a_sparse_matrix_is_refused():
    with pytest.raises(InputError, match="pass Annotations"):
        check_annotations(csr_array(np.eye(3)))


def test_minus_one_cannot_be_a_class():
    y = np.array([[-1, 1], [1, 1], [-1, -1]])
    with pytest.raises(InputError, match="-1 is among the verified labels, but in labels of"):
        check_annotations(y, np.array([-1, 1, np.nan]))
    with pytest.raises(InputError, match=r"only one class, 1: .*-1 means that a source is"):
        check_annotations(y)


def test_verified_labels_can_be_missing_in_every_way():
    verified = pd.Series(["cat", "dog", pd.NA], dtype="string")
    assert check_annotations(Y, verified).verified.tolist() == [0, 1, -1]
