"""Tables of words, dates and gaps, and texts, become numbers."""

import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import issparse

from pudistill.data.encoding import TableEncoder, is_row_number, is_texts, needs_encoding
from pudistill.exceptions import DataWarning, InputError
from pudistill.learners.storage import dump, restore, unknown_types

N = 120


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": np.where(rng.random(N) < 0.1, np.nan, rng.integers(18, 80, N)),
            "home": rng.choice(["rent", "own", None], N),
            "since": pd.date_range("2020-01-01", periods=N, freq="29h"),
            "member": pd.array(rng.choice([True, False, None], N), dtype="boolean"),
            "size": pd.Categorical(rng.choice(["S", "M", "L"], N)),
        },
        index=[f"p{i}" for i in range(N)],
    )


def test_each_column_gets_its_kind(table):
    encoder = TableEncoder().fit(table)
    assert encoder.kinds_ == {
        "age": "number",
        "home": "category",
        "since": "date",
        "member": "number",
        "size": "category",
    }
    encoded = encoder.transform(table)
    assert encoded.dtype == np.float32
    assert np.isfinite(encoded).all()
    names = list(encoder.transformer_.get_feature_names_out())
    age = encoded[:, names.index("numbers__age")]
    # By hand: the median in place of gaps, then mean 0 and variance 1.
    filled = table["age"].fillna(table["age"].median())
    np.testing.assert_allclose(age, (filled - filled.mean()) / filled.std(ddof=0))
    gaps = encoded[:, names.index("missing__missingindicator_age")]
    np.testing.assert_array_equal(gaps, table["age"].isna())


def test_numbers_stay_missing_for_learners_that_accept_gaps(table):
    encoded = TableEncoder(impute=False).fit(table).transform(table)
    assert np.isnan(encoded).sum() == table[["age", "member"]].isna().sum().sum()


def test_tomorrows_table_may_have_other_columns_orders_categories_and_gaps(table):
    encoder = TableEncoder().fit(table)
    tomorrow = table.sample(frac=1, axis=1, random_state=1).assign(extra="x")
    np.testing.assert_array_equal(encoder.transform(tomorrow), encoder.transform(table))
    tomorrow = table.assign(home="castle", age=np.nan, since=pd.NaT)
    assert np.isfinite(encoder.transform(tomorrow)).all()


def test_missing_columns_are_named_in_one_sentence(table):
    encoder = TableEncoder().fit(table)
    with pytest.raises(InputError, match="lack the columns 'age', 'size'"):
        encoder.transform(table.drop(columns=["age", "size"]))


def test_a_word_among_numbers_is_named_with_its_row(table):
    encoder = TableEncoder().fit(table)
    wrong = table.astype({"age": object})
    wrong.loc["p7", "age"] = "forty"
    with pytest.raises(InputError, match="'age' holds 'forty' in row 'p7'"):
        encoder.transform(wrong)
    wrong = table.astype({"since": object})
    wrong.loc["p9", "since"] = "soon"
    with pytest.raises(InputError, match="'since' holds 'soon' in row 'p9'"):
        encoder.transform(wrong)
    with pytest.raises(InputError, match="'age' holds infinity in row 'p3'"):
        encoder.transform(table.assign(age=np.where(table.index == "p3", np.inf, 1)))


def test_columns_that_tell_nothing_are_left_out_in_one_warning(table):
    table = table.assign(
        row=np.arange(N),
        customer_id=np.random.default_rng(0).permutation(10 * N)[:N],
        name=[f"user{i}" for i in range(N)],
        same="x",
        empty=None,
        lists=[[1, 2], [3]] * (N // 2),
    )
    with pytest.warns(DataWarning) as told:
        encoder = TableEncoder().fit(table)
    (message,) = [str(warning.message) for warning in told]
    assert set(encoder.left_out_) == {"row", "customer_id", "name", "same", "empty", "lists"}
    assert all(repr(name) in message for name in encoder.left_out_)


class TestNumbersInText:
    """The rules are those of files, see `number_words`."""

    def test_signs_for_a_missing_value_and_decimal_commas(self):
        price, length = ["?", "3.5", "2", "-"] * 5, ["1.234,5", "7", "n/a", "0,25"] * 5
        encoder = TableEncoder(impute=False).fit(pd.DataFrame({"price": price, "length": length}))
        assert encoder.styles_ == {"price": "plain", "length": "decimal comma"}
        tomorrow = pd.DataFrame({"price": ["unknown", 2, True], "length": ["2,5", 3, None]})
        expected = [[np.nan, 2.5], [2, 3], [1, np.nan]]
        np.testing.assert_array_equal(encoder.transform(tomorrow), expected)
        with pytest.raises(InputError, match="'price' holds infinity in row 1"):
            encoder.transform(tomorrow.assign(price=["1", "inf", "2"]))

    def test_words_among_numbers_are_told_and_categories_may_look_like_numbers(self):
        numbers = [str(n / 7) for n in range(40)]
        table = pd.DataFrame({"u": [*numbers, "oops"], "rooms": [*["1", "2", "3", "4"] * 10, "5+"]})
        with pytest.raises(
            InputError, match="words among numbers, column 'u' holds 'oops' in row 40:"
        ):
            TableEncoder().fit(table)
        assert TableEncoder().fit(table[["rooms"]]).kinds_ == {"rooms": "category"}


def test_unique_numbers_are_ids_only_if_they_are_called_so():
    numbers = pd.Series(np.random.default_rng(0).permutation(1_000)[:50])
    names = ["id", "ID", "case_id", "caseId", "Order No", "paid", "grid", "PAID", "index_of_price"]
    assert [name for name in names if is_row_number(name, numbers)] == names[:5]
    assert is_row_number("a", pd.Series(np.arange(-128, 128, dtype=np.int8)))
    assert not is_row_number("a", pd.Series([*range(30), np.inf]))


def test_sparse_columns_are_numbers():
    table = pd.DataFrame({"a": pd.arrays.SparseArray([0.0, 0, 2] * 20), "b": ["x", "y"] * 30})
    assert TableEncoder().fit(table).kinds_ == {"a": "number", "b": "category"}


def test_a_table_without_any_usable_column_is_refused():
    with pytest.raises(InputError, match=r"No column can be used: column 'a' \(the same value"):
        TableEncoder().fit(pd.DataFrame({"a": ["x"] * 5}))


def test_texts_become_sparse_tf_idf():
    texts = ["a red ant", "a wild bee", "an old cow", None] * 5
    encoded = TableEncoder().fit(texts).transform(texts)
    assert issparse(encoded)
    assert encoded[3].nnz == 0
    assert encoded.shape[0] == 20
    with pytest.raises(InputError, match="Sample 1 is 7, not a text"):
        TableEncoder().fit(["a", 7])


def test_a_column_of_texts_stands_beside_numbers(table):
    table = table.assign(
        note=[
            f"the {word} number {i} of many"
            for i, word in enumerate(np.random.default_rng(0).choice(["cat", "dog"], N))
        ]
    )
    encoder = TableEncoder().fit(table)
    assert encoder.kinds_["note"] == "text"
    assert (
        encoder.transform(table).shape[1]
        > TableEncoder().fit(table[["age"]]).transform(table).shape[1]
    )


def test_vectors_count_as_much_as_a_text():
    rng = np.random.default_rng(0)
    vectors = rng.normal(3, 20, (N, 50))
    texts = [f"text {i % 5} of number {i}" for i in range(N)]
    table = pd.DataFrame({"text": texts, "features": list(vectors)})
    encoder = TableEncoder().fit(table)
    assert encoder.kinds_ == {"text": "text", "features": "vector"}
    encoded = encoder.transform(table)[:, -50:]
    scaled = (vectors - vectors.mean(axis=0)) / vectors.std(axis=0)
    np.testing.assert_allclose(encoded, scaled / np.sqrt(50))
    assert np.isclose((encoded**2).sum(axis=1).mean(), 1)
    with pytest.raises(InputError, match="'features' does not hold a vector of 50 finite numbers"):
        encoder.transform(table.assign(features=list(vectors[:, :3])))


def test_a_stored_encoder_gives_the_same_numbers_and_holds_no_foreign_type(table):
    table = table.assign(note=[f"note {i} on the {i % 7} days" for i in range(N)])
    encoder = TableEncoder().fit(table)
    stored = dump(encoder)
    assert unknown_types(stored.content) == []
    difference = restore(stored).transform(table) - encoder.transform(table)
    assert abs(difference).max() == 0


@settings(max_examples=30)
@given(
    columns=st.lists(
        st.sampled_from(["float", "Int64", "boolean", "string", "category", "date", "object"]),
        min_size=1,
        max_size=5,
    ),
    seed=st.integers(0, 1000),
)
def test_any_table_is_encoded_to_finite_numbers_or_refused(columns, seed):
    rng = np.random.default_rng(seed)
    made = {
        "float": lambda: rng.normal(size=40),
        "Int64": lambda: pd.array(rng.integers(0, 9, 40), dtype="Int64"),
        "boolean": lambda: pd.array(rng.random(40) < 0.5, dtype="boolean"),
        "string": lambda: pd.array(rng.choice(["a", "b b b"], 40), dtype="string"),
        "category": lambda: pd.Categorical(rng.choice(["x", "y"], 40)),
        "date": lambda: pd.to_datetime(rng.integers(0, 2**40, 40)),
        "object": lambda: rng.choice(np.array(["a", 1, 2.5, True, None], object), 40),
    }
    table = pd.DataFrame({f"{kind} {n}": made[kind]() for n, kind in enumerate(columns)})
    table = table.mask(rng.random(table.shape) < 0.2)
    encoder = TableEncoder()
    encoded = encoder.fit_transform(table)
    assert issparse(encoded) == issparse(encoder.transform(table))
    encoded, again = (
        part.toarray() if issparse(part) else part for part in (encoded, encoder.transform(table))
    )
    np.testing.assert_array_equal(encoded, again)
    assert np.isfinite(encoded).all()
    one_row = encoder.transform(table.iloc[[3]])
    one_row = one_row.toarray() if issparse(one_row) else one_row
    np.testing.assert_allclose(one_row[0], encoded[3])


def test_only_texts_and_tables_with_words_or_gaps_need_encoding():
    assert is_texts(["a", "b"])
    assert is_texts(np.array([None, "a"], dtype=object))
    assert not is_texts([1.0, 2.0])
    assert not is_texts([["a"], ["b"]])
    numbers = pd.DataFrame({"a": [1.0, 2.0]})
    assert not needs_encoding(numbers)
    assert needs_encoding(numbers.assign(b="x"))
    assert needs_encoding(pd.DataFrame({"a": [1.0, None]}))
    assert not needs_encoding(np.array([[1.0, np.nan]]))


CATEGORIES = pd.DataFrame({"number": [1.0, np.nan] * 30, "flag": ["true", None, "false"] * 20})
CATEGORIES["class"] = pd.Categorical([1, None, 2] * 20)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("class", [1.0, np.nan, 2.0] * 20),
        ("class", ["1", None, "2"] * 20),
        ("class", pd.array([1, None, 2] * 20, dtype="Int64")),
        ("flag", [True, None, False] * 20),
    ],
)
def test_a_category_is_the_same_however_it_is_stored(column, values):
    encoder = TableEncoder().fit(CATEGORIES)
    changed = CATEGORIES.assign(**{column: values})
    assert np.array_equal(encoder.transform(changed), encoder.transform(CATEGORIES))


def test_booleans_with_gaps_are_numbers_in_any_spelling():
    table = pd.DataFrame({"flag": [True, None, False] * 20})
    encoder = TableEncoder().fit(table)
    for values in (["true", None, "False"], [1, None, 0]):
        same = encoder.transform(pd.DataFrame({"flag": values * 20}))
        assert np.array_equal(same, encoder.transform(table))


@pytest.mark.parametrize("value", [pd.Timestamp("2020-01-01"), 1j, [1], "inf", 1e200])
def test_what_is_no_ordinary_number_is_named_in_a_column_of_numbers(value):
    encoder = TableEncoder().fit(pd.DataFrame({"a": [1.0, 2.0, np.nan] * 10}))
    with pytest.raises(InputError, match=r"Column 'a' holds .* in row 0"):
        encoder.transform(pd.DataFrame({"a": pd.Series([value, value])}))


@pytest.mark.parametrize("impute", [True, False])
def test_large_numbers_stay_finite_in_single_precision(impute):
    table = pd.DataFrame({"a": [1.0, -2.0, np.nan] * 10, "b": [*"xyz"] * 10})
    encoder = TableEncoder(impute=impute).fit(table)
    for large in (1e30, -1e90):
        encoded = encoder.transform(table.assign(a=large))
        assert np.isfinite(np.square(encoded)).all()
        assert np.all(np.sign(encoded[:, 0]) == np.sign(large))


def test_a_number_is_no_date():
    encoder = TableEncoder().fit(pd.DataFrame({"a": pd.date_range("2020-01-01", periods=30)}))
    with pytest.raises(InputError, match=r"Column 'a' holds 5 in row 0, .* dates"):
        encoder.transform(pd.DataFrame({"a": [5]}))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pd.period_range("2020-01", periods=30, freq="M"), "date"),
        ([datetime.date(2020, 1, 1 + day) for day in range(30)], "date"),
        (["\ud83d", "b", "c"] * 10, "category"),
    ],
)
def test_periods_dates_and_half_signs_are_encoded(values, kind):
    table = pd.DataFrame({"a": pd.Series(values, dtype=None if kind == "date" else object)})
    encoder = TableEncoder().fit(table)
    assert encoder.kinds_ == {"a": kind}
    assert encoder.transform(table).shape[0] == 30


def test_numbers_that_float64_cannot_tell_apart_are_left_out():
    table = pd.DataFrame({"a": [10**30 + n for n in range(30)], "b": ["x", "y"] * 15})
    with pytest.warns(DataWarning, match=r"'a' .the same value in every row"):
        assert TableEncoder().fit(table).kinds_ == {"b": "category"}


def test_complex_numbers_are_left_out():
    table = pd.DataFrame({"a": [1j, 2j] * 15, "b": [1.0, 2.0] * 15})
    assert needs_encoding(table)
    with pytest.warns(DataWarning, match="complex"):
        assert TableEncoder().fit(table).kinds_ == {"b": "number"}


@pytest.mark.parametrize("texts", [["😀", "😡"] * 10, [f"w{n}x" for n in range(20)]])
def test_texts_that_share_no_word_become_signs(texts):
    encoder = TableEncoder().fit(texts)
    assert (encoder.transform(texts) != 0).sum() > 0


def test_empty_texts_are_refused():
    with pytest.raises(InputError, match="no words"):
        TableEncoder().fit(["", " ", ""])


def test_an_array_has_the_columns_of_the_training_data():
    table = pd.DataFrame({"a": [1.5, None, 2.5] * 10, "b": ["x", "y", "z"] * 10})
    encoder = TableEncoder().fit(table)
    assert np.array_equal(encoder.transform(table.to_numpy()), encoder.transform(table))
    with pytest.raises(InputError, match="1 columns, but the model learned from 2"):
        encoder.transform(np.zeros((3, 1)))
    with pytest.raises(InputError, match="learned from a table with the columns 'a', 'b'"):
        encoder.transform(["some", "texts"])
