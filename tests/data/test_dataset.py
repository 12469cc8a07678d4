"""What a TrustedDataset promises, and which data it refuses."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pudistill.data.dataset import TrustedDataset, validate
from pudistill.data.loading import load_dataset
from pudistill.exceptions import DataWarning, InputError, TrustedWarning


def make(labels, trusted=(), X=None, **parts):
    """Return a data set of samples s0, s1, ..., of which those at `trusted` are trusted."""
    y = np.array(labels, dtype=object)
    mask = np.zeros(len(y), dtype=bool)
    mask[list(trusted)] = True
    values = {
        "X": np.arange(2.0 * len(y)).reshape(-1, 2) if X is None else X,
        "y": y,
        "trusted": mask,
        "verified": np.where(mask, y, np.full(len(y), None)),
        "ids": np.array([f"s{row}" for row in range(len(y))], dtype=object),
        "name": "toy",
    }
    return TrustedDataset(**(values | parts))


def test_classes_are_given_and_verified_names_in_order():
    assert make(["b", None, "a"]).classes == ("a", "b")
    assert make(["10", "9", "-1"]).classes == ("-1", "9", "10")
    assert make(["10", "9", "x"]).classes == ("10", "9", "x")
    assert make(["9" * 5_000, "x"]).classes == ("9" * 5_000, "x")
    assert make(["9" * 5_000, "1"]).classes == ("1", "9" * 5_000)
    with pytest.warns(TrustedWarning, match=r"'c' occurs nowhere .*\(see sample 's0'\)"):
        assert make(["b", "a"]).with_trusted(["s0"], ["c"]).classes == ("a", "b", "c")


def test_take_selects_by_position_and_by_mask():
    data = make(["a", "b", "c"], trusted=[2], true_labels=np.array(["a", "b", "b"], object))
    picked = data.take([2, 0])
    assert list(picked.ids) == ["s2", "s0"]
    assert list(picked.verified) == ["c", None]
    assert list(picked.true_labels) == ["b", "a"]
    np.testing.assert_array_equal(picked.X, [[4, 5], [0, 1]])
    assert list(data.take(data.trusted).ids) == ["s2"]
    assert len(data.take([])) == 0


def test_ids_are_strings_of_arrow_that_work_as_an_array():
    ids = make(["a", "b", "c"]).ids
    assert pa.array(ids).nbytes < 100
    assert (ids == np.array(["s0", "x", "s2"])).tolist() == [True, False, True]
    assert (ids[1], *ids[[2, 0]], *ids[np.array([False, True, False])]) == ("s1", "s2", "s0", "s1")
    assert np.asarray(ids).tolist() == ids.tolist() == ["s0", "s1", "s2"]


def test_a_text_that_arrow_cannot_hold_is_refused():
    ids = np.array(["a", "\ud800"], dtype=object)
    with pytest.raises(InputError, match="among the ids is not valid text"):
        validate(make(["a", "b"], ids=ids))


class TestHoldout:
    def test_draws_from_trusted_samples_and_uses_their_verified_labels(self):
        data = make(["a", "b"] * 50).with_trusted(
            [f"s{row}" for row in range(20)], ["a"] * 5 + ["b"] * 15
        )
        train, test = data.holdout(0.2, random_state=0)
        assert test.trusted.all()
        assert sorted(test.y) == ["a"] + ["b"] * 3  # a fifth of 5 and of 15
        assert list(test.y) == list(test.verified)
        assert set(train.ids) | set(test.ids) == set(data.ids)
        assert len(train) + len(test) == len(data)

    def test_draws_from_all_labelled_samples_where_none_is_trusted(self):
        train, test = make(["a"] * 10 + ["b"] * 20 + [None]).holdout(0.3, random_state=1)
        assert sorted(test.y) == ["a"] * 3 + ["b"] * 6
        assert None in train.y

    def test_is_repeatable(self):
        data = load_dataset("iris")
        first, second = (data.holdout(0.25, random_state=7)[1].ids for _ in range(2))
        assert list(first) == list(second)
        assert list(first) != list(data.holdout(0.25, random_state=8)[1].ids)

    @given(
        st.lists(st.sampled_from("abc"), min_size=1).map(lambda labels: labels + list("abc") * 2),
        st.floats(0.01, 0.99),
    )
    def test_every_class_is_on_both_sides(self, labels, fraction):
        train, test = make(labels, trusted=range(len(labels))).holdout(fraction, random_state=0)
        assert set(train.verified) == set(test.y) == set(labels)

    def test_refuses_a_class_with_one_trusted_sample(self):
        with pytest.raises(InputError, match="only one of class 'b', 'c': verify more"):
            make(list("aabc"), trusted=range(4)).holdout(0.5)

    @pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
    def test_refuses_a_fraction_out_of_range(self, fraction):
        with pytest.raises(InputError, match="between 0 and 1"):
            make(list("aabb")).holdout(fraction)


class TestWithTrusted:
    def test_keeps_the_given_label_beside_the_verified_one(self):
        data = make(["a", "b", "b"]).with_trusted(["s2", "s0"], ["a", "a"])
        assert list(data.y) == ["a", "b", "b"]
        assert list(data.verified) == ["a", None, "a"]
        assert list(data.trusted) == [True, False, True]

    def test_without_labels_the_given_labels_are_verified(self):
        assert list(make(["a", "b"]).with_trusted(["s1"]).verified) == [None, "b"]

    def test_adds_to_what_was_trusted_before(self):
        data = make(["a", "b", "b"], trusted=[0]).with_trusted(["s0", "s1"])
        assert list(data.verified) == ["a", "b", None]

    def test_ignores_skipped_pictures(self):
        data = make(["a", "b"], skipped=(("broken.png", "truncated"),))
        assert data.with_trusted(["broken.png", "s0"], ["b", "a"]).trusted.sum() == 1

    @pytest.mark.parametrize(
        ("ids", "labels", "message"),
        [
            (["s0", "x1", "x2"], None, "2 of 3 .* not exist in toy .*'s0'.*the first is 'x1'"),
            (["s0", "s1", "s0"], None, "'s0' occurs 2 times"),
            (
                ["s0", "s0", "s1", "s1"],
                ["a", "b", "b", "a"],
                r"2 trusted ids .*contradictory labels: 's0' \('a', 'b'\), 's1' \('a', 'b'\): keep",
            ),
            (["s0", "s0"], ["a", "b"], r"'s0' occurs 2 times .*contradictory labels \('a', 'b'\)"),
            (["s2"], None, "'s2' has no label"),
            (["s0"], [None], "'s0' has no label"),
            (["s1"], ["a"], "'s1' is labelled 'b' in the data but 'a'"),
            (["s0", "s1"], ["a"], "2 trusted ids but 1 verified labels"),
        ],
    )
    def test_refuses(self, ids, labels, message):
        with pytest.raises(InputError, match=message):
            make(["a", "b", None], trusted=[1]).with_trusted(ids, labels)


class TestRequireTrusted:
    def test_accepts_one_trusted_sample_of_each_class(self):
        make(["a", "b", "a", None], trusted=[0, 1]).require_trusted()

    def test_refuses_data_without_trusted_samples(self):
        with pytest.raises(InputError, match="no trusted sample at all"):
            make(["a", "b"]).require_trusted()

    def test_names_all_classes_without_trusted_samples(self):
        with pytest.raises(InputError, match=r"'b', 'c': verify some .* merge .* or drop it"):
            make(["a", "b", "c"], trusted=[0]).require_trusted()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (make([]), "no samples"),
        (make(["a", "b"], y=np.array(["a"], object)), "2 samples but 1 entries in y"),
        (make(["a", "b"], ids=np.array(["i", "i"], object)), "id 'i' occurs 2 times"),
        (make([None, None]), "all labels are empty"),
        (make(["a", None, "a"]), "only one class, 'a'"),
        (make(["a", "b", None], trusted=[2]), "'s2' has no label"),
        (make(["a", "b"], X=np.array([[0, 1], [2, np.nan]])), "'s1', column 1 holds nan"),
        (
            make(["a", "b"], X=np.array([[0, np.inf], [2, 3]]), feature_names=("u", "v")),
            "'s0', column 'v' holds inf",
        ),
        (make(["a", "b"], X=np.empty((2, 0))), "no feature, picture or text"),
    ],
)
def test_validate_refuses(data, message):
    with pytest.raises(InputError, match=message):
        validate(data)


def test_labels_can_be_missing_where_none_are_required():
    assert len(validate(make([None, None]), labels_required=False)) == 2


def test_a_broken_value_far_down_is_found():
    X = np.zeros((70_000, 1))
    X[69_999] = np.nan
    labels = ["a", "b"] * 35_000
    with pytest.raises(InputError, match="'s69999'"):
        validate(make(labels, X=X))
    assert validate(replace(make(labels), X=np.zeros((70_000, 1)))) is not None


class TestForFit:
    def test_marked_samples_are_a_mask(self):
        y, trusted = make(["a", "b", "a"]).with_trusted(["s0", "s1"]).for_fit()
        assert trusted.tolist() == [True, True, False]
        assert y.tolist() == ["a", "b", "a"]

    def test_verified_labels_stay_beside_given_labels(self):
        y, trusted = make(["a", "b", "a"]).with_trusted(["s0", "s1"], ["b", "b"]).for_fit()
        assert trusted.tolist() == ["b", "b", None]
        assert y.tolist() == ["a", "b", "a"]

    def test_marked_samples_beside_verified_labels_lose_their_given_label(self):
        data = make(["a", "b", "a"]).with_trusted(["s0"]).with_trusted(["s1"], ["a"])
        y, trusted = data.for_fit()
        assert trusted.tolist() == ["a", "a", None]
        assert y.tolist() == [None, "b", "a"]


def test_minus_one_is_a_missing_label_among_whole_numbers():
    assert list(make(["0", "-1", "1"]).without_minus_one().y) == ["0", None, "1"]
    assert list(make(["a", "-1", "1"]).without_minus_one().y) == ["a", "-1", "1"]
    as_class = make(["0", "-1", "1"]).with_trusted(["s1"])
    assert list(as_class.without_minus_one().y) == ["0", "-1", "1"]


class TestGroups:
    """Samples of a group, such as a patient, are never split."""

    def make(self, n_groups=12, size=4):
        group = np.repeat([f"g{n}" for n in range(n_groups)], size).astype(object)
        labels = np.repeat(["a", "b"], n_groups * size // 2)
        data = make(labels, trusted=range(0, len(labels), 2))
        return replace(data, groups=group)

    def test_whole_groups_are_held_out(self):
        data = self.make()
        train, test = data.holdout(0.25, random_state=0)
        assert not {*train.groups} & {*test.groups}
        assert test.trusted.all()
        assert list(test.y) == list(test.verified)
        assert len(test) == 2 * 4  # of each class 3 of 12 trusted samples, in groups of two
        assert len(train) == len(data) - 4 * 4  # what is not trusted in these groups is left out

    def test_samples_without_a_group_stand_alone(self):
        data = self.make()
        alone = replace(data, groups=np.full(len(data), None, dtype=object))
        ids = [list(part.ids) for part in alone.holdout(0.25, random_state=3)]
        assert ids == [list(part.ids) for part in replace(data, groups=None).holdout(0.25, 3)]

    def test_classes_of_one_group_are_named(self):
        with pytest.raises(InputError, match=r"in different groups, .* one of class 'b'"):
            self.make(n_groups=3, size=2).holdout(0.5)

    def test_they_are_taken_with_their_samples(self):
        assert list(self.make().take([4, 0]).groups) == ["g1", "g0"]


@pytest.mark.parametrize("code", ["-1", "-1.0"])
def test_minus_one_beside_names_is_a_missing_label(code):
    data = make(["a", code, "b", code], trusted=[0])
    with pytest.warns(DataWarning, match="the label -1 of 2 samples stands beside names"):
        assert list(data.without_minus_one().y) == ["a", None, "b", None]
    verified = make(["a", code, "b", code], trusted=[0, 1])
    assert list(verified.without_minus_one().y) == ["a", code, "b", code]


def test_classes_without_trusted_samples_that_look_like_others_are_told():
    data = make(["cat", "Cat", "dog", "cat"], trusted=[0, 2])
    with pytest.raises(InputError, match=r"class 'Cat': .*'cat' \(3\), 'Cat' \(1\): merge"):
        data.require_trusted()
