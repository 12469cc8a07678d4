"""Weights of draws: checks, order, and what each drawn sample stands for."""

import numpy as np
import pandas as pd
import pytest

from pudistill.data.draws import Draws
from pudistill.data.loading import load_dataset
from pudistill.exceptions import InputError
from pudistill.labels.checks import check_labels, with_draws
from pudistill.review.drawing import draw


@pytest.mark.parametrize("of_all", [False, True])
def test_weighted_means_are_unbiased(of_all):
    rng, n, n_draws = np.random.default_rng(0), 30, 12
    values, gain = np.arange(n) % 3 == 0, np.where(np.arange(n) % 3 == 0, 4.0, 1.0)
    errors = []
    for _ in range(4000):
        drawn = draw(gain, n_draws, 0.5, rng)
        weight, order = np.full(n, np.nan), np.full(n, -1)
        weight[drawn.rows], order[drawn.rows] = drawn.weight, np.arange(n_draws)
        stands_for = Draws(weight, order).for_means(n - n_draws, of_all=of_all)[drawn.rows]
        truth = values.mean() if of_all else np.delete(values, drawn.rows).mean()
        errors.append((stands_for * values[drawn.rows]).mean() - truth)
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(len(errors))


def test_by_hand():
    # Ten samples; the first draw was uniform, the second twice as likely as by chance.
    weight, order = np.full(10, np.nan), np.full(10, -1)
    weight[[3, 7]], order[[3, 7]] = [1, 0.5], [0, 1]
    stands_for = Draws(weight, order).for_means(n_rest=8)
    assert stands_for[3] == 1
    assert stands_for[7] == 1 + 10 / 8 * (0.5 - 1)
    assert Draws(weight, order).for_means(n_rest=8, of_all=True)[7] == 0.5
    assert np.isnan(stands_for[0])


def test_uniform_draws_are_none():
    assert Draws.of(np.array([1.0, np.nan, 1.0]), np.array([0, -1, 1])) is None


@pytest.mark.parametrize("wrong", [-1.0, np.inf])
def test_a_wrong_weight_is_an_error(wrong):
    with pytest.raises(InputError, match="draw weight of sample 1"):
        Draws.of(np.array([1.0, wrong]), np.arange(2))
    with pytest.raises(InputError, match="draw weight of sample 70 is"):
        Draws.of(np.array([1.0, wrong]), np.arange(2), np.array([60, 70]))


LABELS = check_labels(["a", "b", "a", "b"], [None, "b", "b", "a"])


def test_an_array_has_random_draws_first_and_a_series_its_own_order():
    of_array = with_draws(LABELS, np.array([np.nan, 0.5, 1.0, 0.2])).draws
    assert np.argsort(of_array.order[1:]).tolist() == [1, 0, 2]
    weights = pd.Series([0.2, 1.0, 0.5], index=["d", "c", "b"])
    of_series = with_draws(LABELS, weights, pd.Index(list("abcd"))).draws
    np.testing.assert_array_equal(of_series.weight, [np.nan, 0.5, 1.0, 0.2])
    assert of_series.order[1:].tolist() == [2, 1, 0]
    of_dict = with_draws(LABELS, {"d": 0.2, "c": 1.0}, pd.Index(list("abcd"))).draws
    assert of_dict.weight[1] == 1  # no weight: drawn uniformly, before all others
    assert np.argsort(of_dict.order[1:]).tolist() == [0, 2, 1]


@pytest.mark.parametrize("wrong", [np.ones(3), ["x"] * 4, [0.5, 0.5, -1, 1], pd.Series([1.0, 2.0])])
def test_wrong_draw_weights_are_an_error(wrong):
    with pytest.raises(InputError, match="draw"):
        with_draws(LABELS, wrong, None if isinstance(wrong, list) else pd.Index(list("abcd")))


@pytest.fixture
def table(tmp_path):
    def write(trusted, columns="id,label,x"):
        rows = [f"{n},{'ab'[n % 2]},{n}.5" for n in range(20)]
        (tmp_path / "data.csv").write_text("\n".join([columns, *rows]))
        (tmp_path / "trusted.csv").write_text(trusted)
        return load_dataset(tmp_path / "data.csv", trusted=tmp_path / "trusted.csv")

    return write


def test_a_trusted_table_has_weights_in_the_order_of_drawing(table):
    data = table("id,label,weight,when,who\n7,a,,,\n3,b,0.5,2026-01-01T00:00:00Z,Ann\n1,b,2,,\n")
    assert data.draws.weight[[7, 3, 1]].tolist() == [1, 0.5, 2]
    assert np.argsort(data.draws.order[[7, 3, 1]]).tolist() == [0, 1, 2]
    taken = data.take(np.arange(5))
    assert taken.draws.weight[3] == 0.5
    assert data.verified[7] == "a"


def test_a_trusted_table_of_ids_and_weights_marks_labels_as_right(table):
    data = table("id,weight\n7,0.5\n3,1\n")
    assert data.verified[7] == data.y[7]
    assert data.draws.weight[7] == 0.5


def test_weights_of_one_are_as_none(table):
    assert table("id,label,weight\n7,a,1\n3,b,1\n").draws is None


@pytest.mark.parametrize("wrong", ["-1", "x", "inf", "nan"])
def test_a_wrong_weight_in_a_table_is_an_error(table, wrong):
    with pytest.raises(InputError, match=r"trusted\.csv: the weight of trusted id '3'"):
        table(f"id,label,weight\n7,a,1\n3,b,{wrong}\n")


def test_a_column_of_the_data_is_no_weight_of_draws(table):
    with pytest.warns(UserWarning, match="rename the column 'weight' of the data"):
        data = table("id,label,weight\n7,a,7.5\n3,b,3.5\n", columns="id,label,weight")
    assert data.draws is None
