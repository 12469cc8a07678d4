"""Encoding of ordinary tables and texts as numbers, with scikit-learn's own transformers."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.validation import check_is_fitted

from pudistill.data.column_values import (
    as_category,
    as_dates,
    as_numbers,
    as_text,
    as_texts,
    as_vectors,
    date_numbers,
    first_row,
    is_real,
    parsed_dates,
)
from pudistill.data.number_words import number_styles
from pudistill.exceptions import DataWarning, InputError, warn_user
from pudistill.utils.shown import by_reason, name_columns

NUMBER, DATE, CATEGORY, TEXT, VECTOR = "number", "date", "category", "text", "vector"

# A category of fewer samples counts as "other": it could not be learned.
MIN_CATEGORY_SIZE = 10
# A column of words is text, not categories, if more than this share of its values are distinct and
# they have this many words on average.
DISTINCT_TEXTS, WORDS_OF_A_TEXT = 0.2, 3.0
# A column of single words is a name of the sample if more than this share of them are distinct.
DISTINCT_IDS = 0.5
NAME_OF_ID = re.compile(r"(?i:(^|[_\s.-])(id|uuid|guid|key|index|nr|no)$)|[a-z]I[dD]$")
# Reasons to leave a column out.
ROW_NUMBER, _CONSTANT = "a name or number of the sample", "the same value in every row"
# Largest number of character sequences of a text column: rarer ones cost time and add little.
MAX_CHARACTER_FEATURES = 10_000
LARGEST_ENCODED = 1e19  # of an encoded number: single precision holds its square


class TableEncoder(TransformerMixin, BaseEstimator):
    """Encode a table of numbers, words, dates and texts, or a list of texts, as numbers.

    Missing numbers become the median, with a column that marks them; numbers are scaled to unit
    variance. Words become one column a category, texts TF-IDF features of words and characters,
    dates numbers. Columns that tell nothing (one value only, names of the samples, lists) are left
    out with a warning.

    No label is read, so that one encoder is fitted on all samples, trusted or not.

    Parameters
    ----------
    impute : bool, default=True
        Whether to replace missing numbers. False: they stay NaN, for learners that accept them.

    Attributes
    ----------
    kinds_ : dict of str to str
        Kind of each used column: "number", "date", "category", "text" or "vector".
    left_out_ : dict of str to str
        The reason for each column that is not used.
    styles_ : dict of str to str
        How columns of text write numbers, see `number_styles`.
    n_entries_ : dict of str to int
        Length of the vectors of a column.
    transformer_ : ColumnTransformer
        The fitted transformer of columns that were brought to their kinds.
    n_features_in_ : int
        Number of columns.
    columns_ : list of str
        Their names.

    Examples
    --------
    >>> import pandas as pd
    >>> from pudistill.data.encoding import TableEncoder
    >>> table = pd.DataFrame({"age": [30, None, 50] * 10, "home": ["rent", "own", None] * 10})
    >>> encoder = TableEncoder().fit(table)
    >>> encoder.kinds_
    {'age': 'number', 'home': 'category'}
    >>> encoder.transform(table[["home", "age"]]).shape
    (30, 5)
    """

    def __init__(self, *, impute: bool = True) -> None:
        self.impute = impute

    def fit(self, X: Any, y: Any = None) -> "TableEncoder":
        """Decide the kind of each column, and fit the transformer; see `fit_transform`."""
        self.fit_transform(X, y)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Decide the kind of each column, and encode the samples in the same pass.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns), or sequence of str
            Samples.
        y : object
            Ignored.

        Returns
        -------
        encoded : ndarray or sparse matrix of shape (n_samples, n_features), float32
            As from `transform`.

        Raises
        ------
        InputError
            If no column can be used, or a column of numbers holds words; the message names each.
        """
        del y
        table = _as_table(X)
        self.n_features_in_, self.columns_ = table.shape[1], [*table.columns]
        self.kinds_: dict[str, str] = {}
        self.left_out_: dict[str, str] = {}
        self.styles_: dict[str, str] = {}
        self.n_entries_: dict[str, int] = {}
        if _is_table(X):
            self.styles_ = _styles(table)
            for name in table.columns:
                self._decide(name, table[name])
        elif table["text"].str.strip().any():
            self.kinds_["text"] = TEXT
        else:
            self.left_out_["text"] = "no words"
        if not self.kinds_:
            raise InputError(
                f"No column can be used: {by_reason(self.left_out_)}. Give columns of numbers, "
                "categories, dates or texts."
            )
        if self.left_out_:
            warn_user(f"These columns are not used: {by_reason(self.left_out_)}.", DataWarning)
        canonical = self._canonical(table)
        try:
            self.transformer_ = self._new_transformer(canonical, _text_features)
            encoded = self.transformer_.fit_transform(canonical)
        except ValueError:  # no word or sequence of a column occurs in two texts
            self.transformer_ = self._new_transformer(canonical, _usable_features)
            encoded = self.transformer_.fit_transform(canonical)
        return _as_rows(encoded)

    def transform(self, X: Any) -> Any:
        """Encode samples.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns), or sequence of str
            Samples. Columns can be in any order; further columns are ignored.

        Returns
        -------
        encoded : ndarray or sparse matrix of shape (n_samples, n_features), float32
            Sparse if there are texts or many categories.

        Raises
        ------
        InputError
            If columns are missing, or a column of numbers or dates holds anything else.
        """
        check_is_fitted(self, "transformer_")
        table = self._as_known_table(X)
        missing = [name for name in self.kinds_ if name not in table.columns]
        if missing:
            raise InputError(
                f"The samples lack the {name_columns(missing)}, which the model learned from: add "
                f"{'it' if len(missing) == 1 else 'them'}, with blanks where a value is unknown."
            )
        return _as_rows(self.transformer_.transform(self._canonical(table)))

    def _as_known_table(self, X: Any) -> pd.DataFrame:
        """Return samples as a table; columns of an array have the names of the training data."""
        if isinstance(X, pd.DataFrame) or (is_texts(X) and [*self.kinds_] == ["text"]):
            return _as_table(X)
        if not _is_table(X):
            raise InputError(
                f"The model learned from a table with the {name_columns([*self.kinds_])}, and "
                "these samples are no table: give these columns."
            )
        if X.shape[1] != self.n_features_in_:
            raise InputError(
                f"The samples have {X.shape[1]} columns, but the model learned from "
                f"{self.n_features_in_}: give all columns in the same order, or a data frame."
            )
        return _as_table(X).set_axis(self.columns_, axis=1)

    def _decide(self, name: str, column: pd.Series) -> None:
        """Decide the kind of a column, or why it is left out."""
        known = column.dropna()
        if known.empty:
            self.left_out_[name] = "no values"
            return
        if types.is_complex_dtype(column) or _holds_lists(known):
            if as_vectors(column) is None:
                self.left_out_[name] = "lists or complex numbers"
            else:
                self.kinds_[name] = VECTOR
            return
        if known.nunique() == 1 and len(known) == len(column):
            self.left_out_[name] = _CONSTANT
            return
        typed = _typed_kind(column)
        kind = NUMBER if name in self.styles_ else typed or _kind_of_values(known)
        if kind == NUMBER:
            numbers = pd.Series(self._numbers(name, column))
            if numbers.nunique(dropna=False) == 1:  # as far as float64 can tell
                self.left_out_[name] = _CONSTANT
                return
            kind = None if is_row_number(name, numbers if typed is None else column) else NUMBER
        if kind is None:
            self.left_out_[name] = ROW_NUMBER
        else:
            self.kinds_[name] = kind

    def _canonical(self, table: pd.DataFrame) -> pd.DataFrame:
        """Bring the used columns to their kinds: float64 with NaN, or str."""
        columns: dict[str, Any] = {}
        for name, kind in self.kinds_.items():
            column = table[name]
            if kind == NUMBER:
                columns[name] = self._numbers(name, column)
            elif kind == VECTOR:
                columns |= self._vector_columns(name, column)
            elif kind == DATE:
                columns |= date_numbers(name, as_dates(name, column))
            else:
                values = column.astype(object).where(column.notna(), "")
                columns[name] = values.map(as_category if kind == CATEGORY else as_text)
        return pd.DataFrame(columns, index=table.index)

    def _numbers(self, name: str, column: pd.Series) -> np.ndarray:
        return as_numbers(name, column, self.styles_.get(name, "plain"))

    def _vector_columns(self, name: str, column: pd.Series) -> dict[str, np.ndarray]:
        """Return a column for each entry of the vectors, which must be as long as in `fit`."""
        vectors = as_vectors(column)
        n_entries = self.n_entries_.get(name, -1 if vectors is None else vectors.shape[1])
        if vectors is None or vectors.shape[1] != n_entries:
            raise InputError(
                f"Column {name!r} does not hold a vector of {n_entries} finite numbers in every "
                "row, as the samples that the model learned from do: correct it."
            )
        self.n_entries_[name] = n_entries
        return {f"{name} {n}": entry for n, entry in enumerate(vectors.T)}

    def _columns_of(self, kind: str) -> list[str]:
        return [name for name, found in self.kinds_.items() if found == kind]

    def _new_transformer(
        self, canonical: pd.DataFrame, features_of: Callable[[pd.Series], Any]
    ) -> ColumnTransformer:
        vectors = {
            name: [f"{name} {n}" for n in range(size)] for name, size in self.n_entries_.items()
        }
        entries = {entry for names in vectors.values() for entry in names}
        numbers = [
            name for name in canonical if canonical[name].dtype.kind == "f" and name not in entries
        ]
        parts: list[tuple[str, Any, Any]] = []
        if numbers and self.impute:
            imputed = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
            parts.append(("numbers", imputed, numbers))
            with_gaps = [name for name in numbers if canonical[name].isna().any()]
            if with_gaps:
                parts.append(("missing", MissingIndicator(features="all"), with_gaps))
        elif numbers:
            parts.append(("numbers", "passthrough", numbers))
        if categories := self._columns_of(CATEGORY):
            one_hot = OneHotEncoder(
                handle_unknown="infrequent_if_exist",
                min_frequency=min(MIN_CATEGORY_SIZE, max(1, len(canonical) // 20)),
            )
            parts.append(("categories", one_hot, categories))
        parts += [
            (f"text {n}", features_of(canonical[name]), name)
            for n, name in enumerate(self._columns_of(TEXT))
        ]
        parts += [(f"vector {name}", StandardScaler(), names) for name, names in vectors.items()]
        weights = {f"vector {name}": len(names) ** -0.5 for name, names in vectors.items()}
        return ColumnTransformer(parts, transformer_weights=weights or None)


def _text_features(_: Any = None) -> FeatureUnion:
    """Return TF-IDF features of words and of character sequences within words."""
    words = TfidfVectorizer(sublinear_tf=True, min_df=2, token_pattern=r"(?u)\b\w+\b")
    characters = TfidfVectorizer(
        sublinear_tf=True,
        min_df=2,
        analyzer="char_wb",
        ngram_range=(3, 5),
        max_features=MAX_CHARACTER_FEATURES,
    )
    return FeatureUnion([("words", words), ("characters", characters)])


def _usable_features(texts: pd.Series) -> Any:
    """Return the features that texts have: of single signs, if they share no word, as emoji do."""
    try:
        _text_features().fit(texts)
    except ValueError:
        return TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True)
    return _text_features()


def is_texts(X: Any) -> bool:
    """Return whether samples are texts: a one-dimensional sequence that begins with a str."""
    if isinstance(X, str | bytes | dict) or getattr(X, "ndim", 1) != 1 or not hasattr(X, "__len__"):
        return False
    known = (value for value in X if value is not None and value == value)
    return isinstance(next(known, None), str)


def needs_encoding(X: Any) -> bool:
    """Return whether samples are texts, or a table with words, dates or missing values.

    NaN in an array of numbers counts as an error, as in scikit-learn.
    """
    if isinstance(X, pd.DataFrame):
        numeric = all(is_real(kind) for kind in X.dtypes)
        return bool(X.shape[1]) and (not numeric or bool(X.isna().any(axis=None)))
    if isinstance(X, np.ndarray) and X.ndim == 2:
        if X.dtype.kind == "O":
            return any(isinstance(value, str | None) or value is pd.NA for value in X.flat)
        return X.dtype.kind in "US"
    return is_texts(X)


def _as_rows(encoded: Any) -> Any:
    """Return encoded samples in single precision: half the time of every fit."""
    with np.errstate(over="ignore"):
        encoded = encoded.astype(np.float32)
    encoded = encoded.tocsr() if issparse(encoded) else encoded
    values = encoded.data if issparse(encoded) else encoded
    np.clip(values, -LARGEST_ENCODED, LARGEST_ENCODED, out=values)
    return encoded


def _is_table(X: Any) -> bool:
    return isinstance(X, pd.DataFrame) or (isinstance(X, np.ndarray) and X.ndim == 2)


def _as_table(X: Any) -> pd.DataFrame:
    """Return a table with text as names of columns, and texts as a table of one column."""
    if not _is_table(X):
        return pd.DataFrame({"text": as_texts(X)})
    table = X if isinstance(X, pd.DataFrame) else pd.DataFrame(X).infer_objects()
    return table.set_axis([str(name) for name in table.columns], axis=1)


def _typed_kind(column: pd.Series) -> str | None:
    """Return the kind that the dtype of a column tells; None if its values must tell it."""
    if types.is_datetime64_any_dtype(column.dtype) or isinstance(column.dtype, pd.PeriodDtype):
        return DATE
    if types.is_numeric_dtype(column.dtype) or types.is_timedelta64_dtype(column.dtype):
        return NUMBER  # includes bool and nullable types
    if isinstance(column.dtype, pd.CategoricalDtype):
        return CATEGORY
    return None


def _holds_lists(known: pd.Series) -> bool:
    some = known if known.dtype == object else known.head(100)
    return any(map(types.is_list_like, some))  # map of a sparse column can fail


def _styles(table: pd.DataFrame) -> dict[str, str]:
    """Return how each column of text that holds numbers writes them."""
    texts: dict[str, pd.Series] = {}
    for name in table.columns:
        column, known = table[name], table[name].dropna()
        if _typed_kind(column) is None and not _holds_lists(known):
            texts[name] = known.map(as_text).str.strip()

    def row_of(name: str, word: str) -> str:
        return f"row {first_row(texts[name][texts[name] == word])}"

    counts = {name: Counter(known) for name, known in texts.items()}
    return number_styles("The samples", counts, row_of)


def _kind_of_values(known: pd.Series) -> str | None:
    """Return the kind of a column without gaps by its values; None if they name the samples."""
    if known.map(lambda value: isinstance(value, bool | np.bool_)).all():
        return NUMBER  # like complete booleans
    words = known.map(as_text).str.strip()
    if set(words.str.lower()) <= {"true", "false"}:
        return CATEGORY
    if words.str.match(r"\d{4}-\d{2}-\d{2}").all() and not parsed_dates(words).isna().any():
        return DATE
    distinct = words.nunique()
    share, n_words = distinct / len(words), words.str.count(r"\S+").mean()
    if share > DISTINCT_TEXTS and n_words >= WORDS_OF_A_TEXT:
        return TEXT
    if share > DISTINCT_IDS and distinct > 2 * MIN_CATEGORY_SIZE:
        return None
    return CATEGORY


def is_row_number(name: str, column: pd.Series) -> bool:
    """Return whether whole numbers count the rows, or are unique and called an id.

    Examples
    --------
    >>> import pandas as pd
    >>> from pudistill.data.encoding import is_row_number
    >>> even = pd.Series(range(0, 80, 2))
    >>> is_row_number("a", even / 2), is_row_number("a", even), is_row_number("user_id", even)
    (True, False, True)
    """
    numbers = pd.to_numeric(column)
    if numbers.isna().any() or len(numbers) <= 2 * MIN_CATEGORY_SIZE or not numbers.is_unique:
        return False
    if not (numbers == numbers.round()).all():
        return False
    span = float(numbers.max()) - float(numbers.min())  # of int8, the difference could overflow
    counts = numbers.is_monotonic_increasing and span == len(numbers) - 1
    return bool(counts) or NAME_OF_ID.search(name) is not None
