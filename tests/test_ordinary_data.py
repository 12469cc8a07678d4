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


def test_a_pipeline_that_begins_with_a_vectoriser_gets_the_texts(problem):
    _, texts, y, given, trusted = problem
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression())
    for learner in (pipeline, GridSearchCV(pipeline, {"logisticregression__C": [1, 10]}, cv=2)):
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
    rare = rng.random((600, 2000)) < 0.002
    X = sp.csr_matrix(np.hstack([common, rare]))
    assert isinstance(default_learner(X), LogisticRegression)
    trusted = np.arange(600) % 10 == 0
    given = np.where((rng.random(600) < 0.4) & ~trusted, rng.integers(0, 3, 600), y)
    half = np.arange(600) < 400
    fitted = classifier().fit(X[half], given[half], trusted=trusted[half])
    plain = LogisticRegression().fit(X[half], given[half])
    assert fitted.score(X[~half], y[~half]) > plain.score(X[~half], y[~half]) - 0.03
