"""The noise models meet their definitions, exactly where possible and else statistically."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import confusion_matrix

from pudistill.exceptions import InputError
from pudistill.labels.corruption import (
    CIFAR10_MAP,
    corrupt_labels,
    cyclic_map,
    simulate_sources,
    transition_matrix,
)

KINDS = ["symmetric", "asymmetric", "pair", "instance"]


def labels(n_classes=4, per_class=250):
    return np.tile(np.arange(n_classes), per_class)


def features(n, width=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width))


def every(n, size):
    """Return a mask of trusted samples: every n-th of `size` samples."""
    return np.arange(size) % n == 0


def assert_close_share(hits, probability):
    """Assert that the share of hits is within five standard errors of `probability`."""
    tolerance = 5 * np.sqrt(probability * (1 - probability) / len(hits)) + 1e-12
    assert np.mean(hits) == pytest.approx(probability, abs=tolerance)


# Exact counts and levels


@pytest.mark.parametrize(("level", "share_of", "chosen"), [(0.3, "all", 300), (0.3, "noisy", 240)])
def test_pair_level_is_an_exact_count(level, share_of, chosen):
    y = labels()
    trusted = np.repeat(every(5, 250), 4)  # a fifth of each class
    result = corrupt_labels(y, "pair", level, trusted=trusted, share_of=share_of, random_state=0)
    assert np.count_nonzero(result.y != y) == chosen
    assert result.noise_rate == chosen / 800
    np.testing.assert_allclose(np.diag(result.transition_matrix), 1 - chosen / 800)


def test_symmetric_chooses_an_exact_count_and_includes_the_right_class():
    y = np.zeros(1000, dtype=int)
    y[500:] = 1
    # Of two classes, half of the chosen samples keep their label by chance.
    wrong = [
        np.count_nonzero(corrupt_labels(y, level=0.4, random_state=seed).y != y)
        for seed in range(50)
    ]
    # The number of chosen samples is fixed, so this is Binomial(400, 1/2) exactly.
    assert np.mean(wrong) == pytest.approx(200, abs=5 * 10 / np.sqrt(50))
    assert max(wrong) <= 400


def test_symmetric_at_full_level_is_uniform():
    y = labels(4, 5000)
    result = corrupt_labels(y, level=1, random_state=0)
    np.testing.assert_allclose(result.transition_matrix, 0.25, atol=0.035)
    assert_close_share(result.y != y, 0.75)


def test_asymmetric_is_stratified_by_true_class():
    y = np.repeat(["cat", "dog", "eel"], [100, 40, 60])
    result = corrupt_labels(y, "asymmetric", 0.25, class_map={"cat": "eel", "dog": "cat"})
    np.testing.assert_allclose(
        result.transition_matrix, [[0.75, 0, 0.25], [0.25, 0.75, 0], [0, 0, 1]]
    )


def test_full_level_beside_trusted_share_corrupts_every_noisy_sample():
    y = labels()
    trusted = every(10, len(y))
    result = corrupt_labels(y, "pair", 0.9, trusted=trusted, random_state=0)
    assert result.noise_rate == 1
    assert (result.y[trusted] == y[trusted]).all()


def test_level_out_of_reach_names_the_largest_possible_level():
    y = labels()
    trusted = every(8, len(y))
    with pytest.raises(InputError, match=r"possible is 0\.875"):
        corrupt_labels(y, "pair", 0.9, trusted=trusted)
    assert corrupt_labels(y, "pair", 0.875, trusted=trusted).noise_rate == 1
    assert corrupt_labels(y, "pair", 1, trusted=trusted, share_of="noisy").noise_rate == 1


@pytest.mark.parametrize("n", [3, 7, 11, 13, 1001])
def test_the_named_largest_level_is_possible(n):
    y = np.arange(n) % 2
    trusted = np.arange(n) < n // 3
    with pytest.raises(InputError) as error:
        corrupt_labels(y, level=1, trusted=trusted)
    largest = float(str(error.value).split("possible is ")[1].rstrip("."))
    corrupt_labels(y, level=largest, trusted=trusted)


# Class maps


def test_cifar10_names_get_the_papers_map_in_any_case():
    names = np.array(["Airplane", "AUTOMOBILE", "bird", "cat", "deer", "dog", "frog", "horse"])
    y = np.repeat([*names, "ship", "truck"], 100)
    result = corrupt_labels(y, "asymmetric", 0.4, random_state=0)
    lower = np.char.lower(result.classes)
    for row, name in enumerate(lower):
        expected = np.zeros(10)
        expected[row] = 1 if name not in CIFAR10_MAP else 0.6
        if name in CIFAR10_MAP:
            expected[np.flatnonzero(lower == CIFAR10_MAP[name])] = 0.4
        np.testing.assert_allclose(result.transition_matrix[row], expected)
    assert result.noise_rate == pytest.approx(0.2)  # five of ten classes: 0.5 r


def test_other_names_get_the_cyclic_map():
    y = np.repeat(["b", "a", "c"], 10)
    cyclic = corrupt_labels(y, "asymmetric", 1)
    np.testing.assert_array_equal(cyclic.y, np.repeat(["c", "b", "a"], 10))
    np.testing.assert_array_equal(cyclic.y, corrupt_labels(y, "pair", 1).y)


def test_cyclic_map():
    assert cyclic_map([2, 0, 1, 1]) == {0: 1, 1: 2, 2: 0}


# Instance-dependent noise


@pytest.mark.parametrize("level", [0.02, 0.3, 0.95])
def test_instance_noise_meets_its_level(level):
    y = labels(5, 2000)
    result = corrupt_labels(y, "instance", level, X=features(len(y)), random_state=0)
    assert_close_share(result.y != y, level)


@pytest.mark.parametrize(("level", "expected"), [(0, 0), (1, 1)])
def test_instance_noise_is_exact_at_its_ends(level, expected):
    y = labels()
    result = corrupt_labels(y, "instance", level, X=features(len(y)), random_state=0)
    assert result.noise_rate == expected


def test_instance_noise_depends_on_the_features():
    """Similar samples get the same wrong class far more often than under random flips."""
    X = np.repeat(features(5, width=50), 200, axis=0)
    y = np.repeat(np.arange(5), 200)
    result = corrupt_labels(y, "instance", 1, X=X, random_state=0)
    assert (result.transition_matrix.max(axis=1) > 0.9).all()


def test_instance_noise_reads_pictures_frames_and_sparse_matrices_alike_in_any_blocks(monkeypatch):
    y = labels(3, 40)
    pictures = np.random.default_rng(0).integers(0, 255, size=(120, 4, 3), dtype=np.uint8)
    flat = pictures.reshape(120, 12)
    first = corrupt_labels(y, "instance", 0.5, X=pictures, random_state=1).y
    monkeypatch.setattr("pudistill.labels.corruption.BLOCK_VALUES", 12 * 7)
    for X in (pictures, flat.tolist(), sparse.csr_array(flat), pd.DataFrame(flat)):
        # Blocks change the order of draws, so only the set of flipped samples is the same.
        again = corrupt_labels(y, "instance", 0.5, X=X, random_state=1).y
        np.testing.assert_array_equal(again == y, first == y)


# What holds for all kinds


@settings(max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    level=st.floats(0, 1),
    n_classes=st.integers(2, 6),
    n=st.integers(20, 200),
    trusted_share=st.floats(0, 1),
    seed=st.integers(0, 2**31 - 1),
    as_text=st.booleans(),
)
def test_properties(kind, level, n_classes, n, trusted_share, seed, as_text):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(n_classes), rng.integers(n_classes, size=n)])
    y = np.array([f"class {label}" for label in y]) if as_text else y
    trusted = rng.random(len(y)) < trusted_share
    result = corrupt_labels(
        y, kind, level, trusted=trusted, share_of="noisy", X=features(len(y)), random_state=seed
    )
    assert (result.y[trusted] == y[trusted]).all()
    assert (result.would_be[~trusted] == result.y[~trusted]).all()
    assert result.y.dtype == y.dtype
    assert set(result.y) | set(result.would_be) <= set(result.classes)

    seen = np.isin(result.classes, y[~trusted])
    matrix = result.transition_matrix
    np.testing.assert_allclose(matrix[seen].sum(axis=1), 1)
    assert np.isnan(matrix[~seen]).all()
    if not trusted.all():
        counted = confusion_matrix(
            y[~trusted], result.y[~trusted], labels=result.classes, normalize="true"
        )
        np.testing.assert_allclose(matrix[seen], counted[seen])
    if level == 0:
        assert (result.would_be == y).all()
    if kind in ("asymmetric", "pair"):
        for name in result.classes:
            members = ~trusted & (y == name)
            assert np.count_nonzero(result.y[members] != name) == round(level * members.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_the_would_be_labels_of_trusted_samples_have_the_same_noise(kind):
    y = labels(4, 5000)
    trusted = np.repeat(every(2, 5000), 4)
    result = corrupt_labels(y, kind, 0.25, trusted=trusted, X=features(len(y)), random_state=0)
    assert_close_share(
        result.would_be[trusted] != y[trusted],
        {"symmetric": 0.5 * 0.75}.get(kind, 0.5),
    )
    would_be = transition_matrix(y[trusted], result.would_be[trusted], result.classes)
    np.testing.assert_allclose(would_be, result.transition_matrix, atol=0.07)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_repeats_and_another_one_does_not(kind):
    y = labels()
    first, again, other = (
        corrupt_labels(y, kind, 0.5, X=features(len(y)), random_state=seed).y for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_without_trusted_samples_every_label_may_change():
    result = corrupt_labels(labels(), "pair", 1)
    assert result.noise_rate == 1
    np.testing.assert_array_equal(result.y, result.would_be)


def test_all_trusted():
    y = labels()
    trusted = np.ones(len(y), dtype=bool)
    result = corrupt_labels(y, "pair", 1, trusted=trusted, share_of="noisy")
    assert result.noise_rate == 0
    assert (result.would_be != y).all()
    assert np.isnan(result.transition_matrix).all()
    with pytest.raises(InputError, match="possible is 0"):
        corrupt_labels(y, "pair", 0.5, trusted=trusted)


# transition_matrix


def test_transition_matrix_by_hand():
    matrix = transition_matrix([0, 0, 0, 0, 2], [0, 0, 0, 2, 1], [0, 1, 2])
    np.testing.assert_array_equal(matrix, [[0.75, 0, 0.25], [np.nan] * 3, [0, 1, 0]])


def test_transition_matrix_keeps_the_order_of_classes():
    np.testing.assert_array_equal(transition_matrix(["a"], ["b"], ["b", "a"])[1], [1, 0])


@pytest.mark.parametrize(
    ("true", "observed", "classes", "message"),
    [
        (["a"], ["a", "b"], ["a", "b"], "1 true labels, but 2 given"),
        (["a"], ["x"], ["a", "b"], "'x' is a label but not a class"),
        (["a"], ["a"], ["a", "a"], "listed twice"),
    ],
)
def test_transition_matrix_refuses(true, observed, classes, message):
    with pytest.raises(InputError, match=message):
        transition_matrix(true, observed, classes)


# Bad input


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("kind='salt' is not a noise model", {"kind": "salt"}),
        ("Noise level 1.2 is not a share", {"level": 1.2}),
        ("Noise level nan is not a share", {"level": float("nan")}),
        ("share_of='some' is unknown", {"share_of": "some"}),
        ("not int64 of shape", {"trusted": np.array([0, 1, 0, 1])}),
        (r"not bool of shape \(3,\)", {"trusted": np.array([True, False, True])}),
        (
            "'x' is in the class map but not a class",
            {"kind": "asymmetric", "class_map": {"x": "a"}},
        ),
        (
            "'x' is in the class map but not a class",
            {"kind": "asymmetric", "class_map": {"a": "x"}},
        ),
        ("class_map belongs to asymmetric", {"kind": "pair", "class_map": {"a": "b"}}),
        ("pass them as X", {"kind": "instance"}),
        ("X has 3 rows, but there are 4", {"kind": "instance", "X": np.ones((3, 2))}),
        ("first in row 2", {"kind": "instance", "X": [[1.0], [2.0], [np.nan], [3.0]]}),
        ("X must be numbers", {"kind": "instance", "X": [["u"], ["v"], ["w"], ["x"]]}),
        ("row 1 is missing", {"y": ["a", None, "b", "b"]}),
        ("row 1 is missing", {"y": pd.Series(["a", pd.NA, "b", "b"], dtype="string")}),
        ("row 3 is missing", {"y": [0.0, 1.0, 1.0, np.nan]}),
        ("mix types", {"y": np.array(["a", 1, "b", 2], dtype=object)}),
        ("at least two classes", {"y": ["a", "a", "a", "a"]}),
        ("must be a vector", {"y": [["a", "b"]]}),
    ],
)
def test_bad_input_gets_one_sentence(message, arguments):
    arguments = {"y": ["a", "b", "a", "b"]} | arguments
    with pytest.raises(InputError, match=message):
        corrupt_labels(**arguments)


# Several sources


def test_sources_differ_abstain_copy_and_mislead():
    y = labels()
    sources = simulate_sources(
        y, 6, level=0.4, abstain=0.6, copies=2, adversarial=1, random_state=0
    )
    assert list(sources) == [f"source_{n}" for n in range(1, 7)]
    for _, said in sources.items():
        assert_close_share(said.isna(), 0.6)
    shares = [np.mean(said[said.notna()] == y[said.notna()]) for _, said in sources.items()]
    # Of four classes, three quarters of the chosen labels are wrong; levels vary around 0.4.
    assert np.mean(shares[:3]) == pytest.approx(0.7, abs=0.15)
    assert len(set(shares[:3])) == 3
    for copy in ("source_4", "source_5"):
        pd.testing.assert_series_equal(sources[copy], sources["source_1"], check_names=False)
    spoken = sources["source_6"].notna()
    assert_close_share(sources["source_6"][spoken] == (y[spoken] + 1) % 4, 0.9)


def test_sources_are_reproducible_and_depend_on_the_seed():
    y = np.repeat(["cat", "dog"], 50)
    first, same, other = (simulate_sources(y, 2, "pair", random_state=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, same)
    assert not first.equals(other)
    assert not first["source_1"].equals(first["source_2"])


def test_sources_without_noise_are_right_and_instance_noise_reads_features():
    y = labels()
    right = simulate_sources(y, 2, level=0, random_state=0)
    assert (right.to_numpy() == y[:, None]).all()
    by_features = simulate_sources(y, 2, "instance", level=0.3, X=features(len(y)), random_state=0)
    assert 0.1 < (by_features.to_numpy() != y[:, None]).mean() < 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_sources": 3, "copies": 2, "adversarial": 1}, "3 sources cannot hold"),
        ({"n_sources": 0}, "0 sources cannot hold"),
        ({"copies": -1}, "-1 copies"),
        ({"abstain": 1.0}, "from 0 to below 1"),
        ({"abstain": float("nan")}, "from 0 to below 1"),
        ({"level": 2}, "is not a share"),
        ({"kind": "instance"}, "pass them as X"),
        ({"kind": "rare"}, "is not a noise model"),
    ],
)
def test_impossible_sources_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        simulate_sources(labels(), **options)
