"""Exact copies share their verified label; equal rows that chance explains are no copies."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine, make_blobs
from sklearn.preprocessing import StandardScaler

from pudistill import InputError, PUDistillClassifier, TrustedWarning
from pudistill.labels.checks import check_labels
from pudistill.labels.copies import find_repeats
from pudistill.labels.groups import with_groups
from pudistill.labels.near_copies import share_of_near_copies
from pudistill.labels.samples import check_samples

RNG = np.random.default_rng(0)


def n_copies(X):
    copies = find_repeats(X).copies
    return 0 if copies is None else len(copies) - len(np.unique(copies))


def one_hot_table(n_columns, n_values, n=2000):
    values = RNG.integers(n_values, size=(n, n_columns))
    return np.eye(n_values)[values].reshape(n, -1)


MEASURED = RNG.normal(size=(100, 5))
COUNTED = sparse.random(200, 300, density=0.05, format="csr", random_state=0)
PICTURES = RNG.integers(256, size=(50, 6, 6, 3), dtype=np.uint8)
TABLE = pd.DataFrame(MEASURED, columns=list("abcde")).assign(word=RNG.choice(list("xyz"), 100))
TEXTS = np.array([f"this is the text with the number {n}" for n in range(30)], dtype=object)


@pytest.mark.parametrize(
    "X",
    [
        np.vstack([MEASURED, MEASURED[:7]]),
        np.vstack([MEASURED, MEASURED[:7]]).astype(np.float32),
        sparse.vstack([COUNTED, COUNTED[:7]]).tocsr(),
        np.concatenate([PICTURES, PICTURES[:7]]),
        pd.concat([TABLE, TABLE[:7]]),
        np.concatenate([TEXTS, TEXTS[:7]]),
        pd.Series(np.concatenate([TEXTS, TEXTS[:7]])),
        pd.DataFrame({"text": np.concatenate([TEXTS, TEXTS[:7]])}),
    ],
    ids=["array", "float32", "sparse", "pictures", "frame", "texts", "series", "column"],
)
def test_copies_are_found_in_every_form_of_samples(X):
    copies = find_repeats(X).copies
    n = len(copies)
    assert (copies[:7] == copies[-7:]).all()
    assert len(np.unique(copies)) == n - 7


def test_zeros_of_either_sign_and_their_storage_do_not_matter():
    X = np.where(RNG.random((100, 10)) < 0.2, 0.0, RNG.normal(size=(100, 10)))
    assert n_copies(np.vstack([X, np.where(X == 0, -0.0, X)])) == 100
    explicit = sparse.csr_array((np.zeros(3), ([0, 1, 2], [0, 1, 2])), shape=(200, 300))
    assert n_copies(sparse.vstack([COUNTED, COUNTED + explicit]).tocsr()) == 200


@pytest.mark.parametrize(
    "load", [load_wine, load_breast_cancer, load_digits], ids=lambda load: load.__name__
)
def test_real_samples_are_no_copies_until_they_are_copied(load):
    X = load().data
    assert n_copies(X) == 0
    assert n_copies(np.vstack([X, X[:20]])) == 20


@pytest.mark.parametrize(
    "X",
    [
        np.ones((200, 6)),
        RNG.integers(2, size=(200, 2)),
        one_hot_table(3, 5),
        one_hot_table(8, 3),
        StandardScaler().fit_transform(one_hot_table(5, 4)),
        RNG.choice(6, size=(1000, 10), p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05]),
        np.repeat(RNG.integers(20, 80, size=(500, 1)), 2, axis=1),
        np.where(RNG.random((300, 1)) < 0.3, 0, RNG.normal(size=(300, 6))),
        (RNG.random((500, 40)) < 0.05).astype(float),
        load_iris().data,
    ],
    ids=[
        "constant",
        "two binary columns",
        "one-hot",
        "wide one-hot",
        "scaled one-hot",
        "skewed categories",
        "age and year of birth",
        "many empty rows",
        "rare marks",
        "iris",
    ],
)
def test_equal_rows_that_chance_explains_are_no_copies(X):
    assert len(find_repeats(X).distinct) < len(X)  # there are equal rows
    assert n_copies(X) == 0


def test_short_texts_are_no_copies():
    assert n_copies(np.array(["very good", "bad", "very good"], dtype=object)) == 0


def labelled(y, trusted, X, **kwargs):
    return with_groups(check_labels(y, trusted), X, None, **kwargs)


def test_a_verified_label_is_that_of_all_copies():
    X = np.vstack([MEASURED, MEASURED[:3], MEASURED[:2]])
    y = RNG.permutation(np.arange(105) % 2)
    for trusted in (np.arange(105) < 20, np.where(np.arange(105) < 20, 1 - y, np.nan)):
        labels = labelled(y, trusted, X)
        assert labels.verified[100:].tolist() == labels.verified[[0, 1, 2, 0, 1]].tolist()
        assert labels.trusted[100:].all()
        assert np.flatnonzero(labels.copied).tolist() == [100, 101, 102, 103, 104]
        # Only samples that the user verified count as evidence.
        assert np.flatnonzero(labels.drawn).tolist() == list(range(20))
        assert labels.groups[100] == labels.groups[0] == labels.groups[103]
        assert labels.given.tolist() == y.tolist()


def test_copies_that_are_verified_differently_are_listed():
    X = np.vstack([MEASURED, MEASURED[:14]])
    y = np.arange(114) % 2
    verified = np.where((np.arange(114) < 20) | (np.arange(114) >= 100), y, np.nan)
    verified[100:112] = 1 - y[:12]
    index = pd.Index([f"p{n}" for n in range(114)])
    with pytest.raises(InputError) as error:
        labelled(y, verified, X, index=index)
    message = str(error.value)
    assert "p0 as 0 and p100 as 1; p1 as 1 and p101 as 0" in message
    assert "p9 as 1 and p109 as 0; and 2 more" in message
    assert "p110" not in message


def test_a_copy_of_a_sample_of_no_class_is_not_of_a_class():
    X = np.vstack([MEASURED, MEASURED[:2]])
    y = np.arange(102) % 2
    verified = np.where(np.arange(102) < 20, y, None)
    verified[100] = "none of these"
    index = pd.Index([f"p{n}" for n in range(102)])
    message = "Sample 'p100' was verified to be of no class, .* has the verified label 0: correct"
    with pytest.raises(InputError, match=message):
        labelled(y, verified, X, index=index)
    verified[0] = None
    labels = labelled(y, verified, X)
    assert np.flatnonzero(labels.no_class).tolist() == [100]  # and not its copy
    assert labels.verified[[0, 100, 101]].tolist() == [-1, -1, 1]


def test_labels_that_nobody_verified_may_differ():
    X, y = np.vstack([MEASURED, MEASURED]), np.arange(200) // 100
    with pytest.warns(TrustedWarning):
        labels = check_labels(y)
    labels = with_groups(labels, X, None, are_verified=False)
    assert labels.verified.tolist() == y.tolist()
    assert labels.groups is not None


def test_groups_that_share_a_copy_become_one():
    X = np.vstack([MEASURED, MEASURED[:1]])
    y = np.arange(101) % 2
    groups = np.r_[np.arange(100) // 10, 7]
    found = with_groups(check_labels(y, np.arange(101) < 50), X, groups).groups
    assert len(np.unique(found)) == 9
    assert found[0] == found[75] == found[100]


# Near copies


def near_copies(X, share=0.2):
    n = X.shape[0]
    return share_of_near_copies(X, RNG.random(n) < share, find_repeats(X).distinct)


@pytest.mark.parametrize(
    "X",
    [
        load_iris().data,
        load_wine().data,
        load_breast_cancer().data,
        load_digits().data,
        make_blobs(300, centers=3, cluster_std=0.05, random_state=0)[0],
        make_blobs(2000, centers=20, n_features=5, random_state=0)[0],
        RNG.normal(size=(500, 1)),
        RNG.standard_cauchy(size=(500, 1)),
        one_hot_table(3, 5),
        np.column_stack([one_hot_table(3, 5), RNG.normal(size=2000)]),
        np.column_stack([one_hot_table(1, 300), RNG.normal(size=2000)]),
        RNG.poisson(0.3, size=(1000, 20)),
        np.where(RNG.random((500, 5)) < 0.2, np.nan, RNG.normal(size=(500, 5))),
        np.ones((200, 3)),
        COUNTED,
    ],
)
def test_ordinary_samples_are_not_near_copies(X):
    assert near_copies(X) < 0.45


@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array, pd.DataFrame])
def test_rows_of_one_source_are_near_copies(size, form):
    patients = np.repeat(RNG.normal(size=(60, 10)), size, axis=0)
    assert near_copies(form(patients + 0.03 * RNG.normal(size=patients.shape)), 0.5) > 0.9


def test_near_copies_are_pointed_out_unless_there_are_groups():
    patients = np.repeat(np.arange(60), 4)
    X = RNG.normal(size=(60, 10))[patients] + 0.01 * RNG.normal(size=(240, 10))
    labels = check_labels(patients % 2, np.arange(240) % 3 == 0)
    with pytest.warns(TrustedWarning, match="100% of the trusted samples are nearly the same"):
        assert with_groups(labels, X, None).groups is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with_groups(labels, X, patients)


def test_codes_follow_the_rows_and_not_their_hashes():
    X = np.random.default_rng(0).normal(size=(100, 5))
    repeats = find_repeats(np.vstack([X, X[::-1]]))
    assert repeats.copies[:100].tolist() == list(range(100))
    assert repeats.distinct.tolist() == list(range(100))


def test_texts_that_differ_in_a_rare_word_are_no_copies():
    # "tf" and "tf2" occur once each, so the features of the two texts are equal.
    kinds = ("robots", "stars", "rivers", "birds")
    texts = [f"A library of {kind} for Python, part {n}" for kind in kinds for n in range(10)]
    texts += ["The tf transform library for Python", "The tf2 transform library for Python"]
    texts += [texts[0]]
    y = np.arange(43) // 10 % 4
    trusted = pd.Series(y[[0, 1, 10, 11, 20, 21, 30, 31, 41]], [0, 1, 10, 11, 20, 21, 30, 31, 41])
    labels = check_samples(PUDistillClassifier(), texts, y, trusted, [None])[1]
    assert np.flatnonzero(labels.copied).tolist() == [42]
