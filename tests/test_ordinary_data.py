"""Mixed tables, texts and sparse features go into every classifier as they are."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from pudistill import InputError, PUDistillClassifier, TieredPUFilter
from pudistill.labels.samples import check_features
from pudistill.learners.base import NoisyLabelClassifier
from pudistill.learners.defaults import default_learner
from pudistill.methods import GoldLossCorrectionClassifier

N = 300


@pytest.fixture(scope="module")
def problem():
    """A table, a text for each row, true and given labels, and a mask of trusted samples."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, N)
    kind = np.array(["red ant", "wild bee", "old cow"])
    seen = np.where(rng.random(N) < 0.1, rng.integers(0, 3, N), y)
    table = pd.DataFrame(
        {
            "length": np.where(rng.random(N) < 0.2, np.nan, y + 0.7 * rng.normal(size=N)),
            "kind": np.where(rng.random(N) < 0.1, None, kind[seen]),
            "wild": pd.array(y == 1, dtype="boolean"),
        },
        index=[f"row {n}" for n in range(N)],
    )
    texts = [f"{kind[c]} in field {n}" for n, c in enumerate(seen)]
    trusted = np.arange(N) % 6 == 0
    given = np.where((rng.random(N) < 0.4) & ~trusted, rng.integers(0, 3, N), y)
    return table, texts, y, given, trusted


def classifier(estimator=None, **params):
    return PUDistillClassifier(estimator, n_members=4, max_iter=2, random_state=0, **params)


def test_a_mixed_table_is_learned_and_predicted_in_any_order_of_columns(problem):
    table, _, y, given, trusted = problem
    fitted = classifier().fit(table, given, trusted=trusted)
    assert fitted.score(table, y) > 0.85
    assert list(fitted.label_table_.index) == list(table.index)
    assert list(fitted.feature_names_in_) == list(table.columns)
    shuffled = table[["wild", "kind", "length"]].assign(surplus=1)
    np.testing.assert_array_equal(fitted.predict_proba(shuffled), fitted.predict_proba(table))
    new = table.head(5).assign(kind="unheard of")
    assert np.isfinite(fitted.predict_proba(new)).all()
    with pytest.raises(InputError, match="0 samples: pass at least one"):
        fitted.predict(new.head(0))
    assert {"C_of_student", "C_of_noise_free_models"} <= fitted.adapted_.keys()


@pytest.mark.parametrize("kind", [list, np.array, pd.Series], ids=["list", "array", "series"])
def test_texts_are_learned_without_any_preparation(problem, kind):
    _, texts, y, given, trusted = problem
    fitted = classifier(compare=False).fit(kind(texts), given, trusted=trusted)
    assert fitted.score(kind(texts), y) > 0.85
    assert fitted.predict(["wild bee"]) == [1]


PIPELINE = make_pipeline(TfidfVectorizer(), LogisticRegression())
SEARCH = GridSearchCV(PIPELINE, {"logisticregression__C": [1, 10]}, cv=2)


@pytest.mark.parametrize("learner", [PIPELINE, pytest.param(SEARCH, marks=pytest.mark.slow)])
def test_a_pipeline_that_begins_with_a_vectoriser_gets_the_texts(problem, learner):
    _, texts, y, given, trusted = problem
    fitted = classifier(learner, compare=False).fit(pd.Series(texts), given, trusted=trusted)
    assert fitted.encoder_ is None
    assert fitted.score(texts, y) > 0.85


def test_a_pipeline_for_tables_gets_the_table(problem):
    table, _, y, given, trusted = problem
    pipeline = make_pipeline(
        ColumnTransformer([("words", OneHotEncoder(handle_unknown="ignore"), ["kind"])]),
        LogisticRegression(),
    )
    fitted = classifier(pipeline, compare=False).fit(table, given, trusted=trusted)
    assert fitted.encoder_ is None
    assert fitted.score(table, y) > 0.8


class SeesGaps(HistGradientBoostingClassifier):
    def fit(self, X, y, sample_weight=None):
        assert np.isnan(np.asarray(X)).any()
        return super().fit(X, y, sample_weight=sample_weight)


def test_learners_that_accept_gaps_receive_them(problem):
    table, _, y, given, trusted = problem
    learner = SeesGaps(max_iter=5, min_samples_leaf=3)
    fitted = classifier(learner, compare=False).fit(table, given, trusted=trusted)
    assert fitted.score(table, y) > 0.7


def test_other_methods_and_the_filter_take_tables_and_texts(problem):
    table, texts, y, given, trusted = problem
    for X in (table, texts):
        assert (
            GoldLossCorrectionClassifier(random_state=0).fit(X, given, trusted=trusted).score(X, y)
            > 0.8
        )
        found = TieredPUFilter(n_members=4, max_iter=2, random_state=0)
        found.fit(X, given, trusted=trusted)
        assert len(found.clean_labels_) == N


def test_sparse_features_are_not_scaled_and_keep_up_with_plain_training():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    # Rare words tell nothing, but scaled to unit variance they outweigh the common words.
    words = np.where(rng.random(600) < 0.6, y, rng.integers(0, 3, 600))
    common = np.eye(3)[words]
    rare = rng.random((600, 1000)) < 0.002
    X = sp.csr_matrix(np.hstack([common, rare]))
    assert isinstance(default_learner(X), LogisticRegression)
    trusted = np.arange(600) % 10 == 0
    given = np.where((rng.random(600) < 0.4) & ~trusted, rng.integers(0, 3, 600), y)
    half = np.arange(600) < 400
    fitted = classifier(compare=False).fit(X[half], given[half], trusted=trusted[half])
    plain = LogisticRegression().fit(X[half], given[half])
    assert fitted.score(X[~half], y[~half]) > plain.score(X[~half], y[~half]) - 0.03


class TestSamples:
    """What `fit` and `predict` say about samples, with the least learning."""

    class Learner(NoisyLabelClassifier):
        def __init__(self, estimator=None):
            self.estimator = estimator

    def fitted(self, X, estimator=None):
        learner = self.Learner(estimator)
        return learner, check_features(learner, X, [estimator])

    def test_arrays_of_words_are_tables(self):
        for rows in (
            [[1.5, "a"], [2.0, "b"]] * 15,
            np.array([[1.5, "a"], [2.0, None]] * 15, object),
        ):
            learner, X = self.fitted(rows)
            assert learner.encoder_.kinds_ == {"0": "number", "1": "category"}
            assert check_features(learner, rows, [None], reset=False).shape == X.shape

    def test_a_learner_that_takes_words_gets_arrays_of_words(self):
        rows = np.array([["a"], ["b"]] * 15, dtype=object)
        learner, X = self.fitted(rows, make_pipeline(OneHotEncoder(), LogisticRegression()))
        assert learner.encoder_ is None
        assert X.tolist() == rows.tolist()

    def test_a_learner_that_takes_texts_gets_no_missing_text(self):
        pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression())
        assert self.fitted([None, "a b", "c d"], pipeline)[1].tolist() == ["", "a b", "c d"]

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (np.nan, "Column 'b' has no value in row 1 .NaN., but the model learned from complete"),
            ("word", "Column 'b' holds 'word' in row 1"),
            (np.inf, "Column 'b' holds infinity in row 1"),
            (1e200, "Column 'b' holds 1e.200, which is too large, in row 1"),
            (pd.Timestamp("2020-01-01"), "Column 'b' holds 2020-01-01 .* in row 1"),
        ],
    )
    def test_tomorrows_table_of_numbers_is_checked_by_column_and_row(self, value, message):
        table = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]})
        learner, _ = self.fitted(table)
        wrong = table.assign(b=pd.Series([4.0, value, 6.0], dtype=object).infer_objects())
        with pytest.raises(InputError, match=message):
            check_features(learner, wrong, [None], reset=False)

    @pytest.mark.parametrize(
        ("X", "message"),
        [
            (np.array([[1.0, np.nan]]), "X holds nan in row 0, column 1, .* missing value"),
            (np.array([[1.0, -np.inf]]), "X holds -inf in row 0, column 1"),
            (np.array([[1e200, 1.0]]), "X holds 1e.200 in row 0, column 0, .* too large"),
            (sp.csr_array([[np.nan]]), "X holds nan"),
            ([], "0 samples"),
            (pd.DataFrame(index=[0, 1]), "0 feature"),
            ("data.csv", "X is 'data.csv', not samples: .*load_dataset"),
            (None, "X is None, not samples"),
        ],
    )
    def test_samples_that_cannot_be_used_are_named(self, X, message):
        with pytest.raises(InputError, match=message):
            self.fitted(X)

    def test_learners_that_accept_gaps_get_arrays_with_gaps(self):
        X = np.array([[1.0, np.nan], [2.0, 3.0]])
        assert self.fitted(X, HistGradientBoostingClassifier())[1] is not None
        with pytest.raises(InputError, match="X holds inf in row 1, column 0"):
            self.fitted(np.array([[1.0, np.nan], [np.inf, 3.0]]), HistGradientBoostingClassifier())
