"""Encoding of ordinary tables and texts as numbers, with scikit-learn's own transformers."""

import re
from collections import Counter
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

from pudistill.data.number_words import number_in, number_styles
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
ROW_NUMBER = "a name or number of the sample"  # the reason to leave a column out
# Largest number of character sequences of a text column: rarer ones cost time and add little.
MAX_CHARACTER_FEATURES = 10_000
SECONDS_OF_A_DAY = 86_400


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
        encoded : ndarray or sparse matrix of shape (n_samples, n_features), float64
            As from `transform`.

        Raises
        ------
        InputError
            If no column can be used, or a column of numbers holds words; the message names each.
        """
        del y
        table = _as_table(X)
        self.n_features_in_ = table.shape[1]
        self.kinds_: dict[str, str] = {}
        self.left_out_: dict[str, str] = {}
        self.styles_: dict[str, str] = {}
        self.n_entries_: dict[str, int] = {}
        if isinstance(X, pd.DataFrame):
            self.styles_ = _styles(table)
            for name in table.columns:
                self._decide(name, table[name])
        else:
            self.kinds_["text"] = TEXT
        if not self.kinds_:
            raise InputError(
                f"No column can be used: {by_reason(self.left_out_)}. Give columns of numbers, "
                "categories, dates or texts."
            )
        if self.left_out_:
            warn_user(f"These columns are not used: {by_reason(self.left_out_)}.", DataWarning)
        canonical = self._canonical(table)
        self.transformer_ = self._new_transformer(canonical)
        return _as_rows(self.transformer_.fit_transform(canonical))

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
        table = _as_table(X)
        missing = [name for name in self.kinds_ if name not in table.columns]
        if missing:
            raise InputError(
                f"The samples lack the {name_columns(missing)}, which the model learned from: add "
                f"{'it' if len(missing) == 1 else 'them'}, with blanks where a value is unknown."
            )
        return _as_rows(self.transformer_.transform(self._canonical(table)))

    def _decide(self, name: str, column: pd.Series) -> None:
        """Decide the kind of a column, or why it is left out."""
        known = column.dropna()
        if known.empty:
            self.left_out_[name] = "no values"
            return
        if types.is_complex_dtype(column) or _holds_lists(known):
            if _vectors(column) is None:
                self.left_out_[name] = "lists or complex numbers"
            else:
                self.kinds_[name] = VECTOR
            return
        if known.nunique() == 1 and len(known) == len(column):
            self.left_out_[name] = "the same value in every row"
            return
        kind: str | None = NUMBER if name in self.styles_ else _typed_kind(column)
        if kind is None:
            kind = _kind_of_words(known.astype(str).str.strip())
        elif kind == NUMBER:
            is_text = name in self.styles_
            numbers = pd.Series(self._numbers(name, column)) if is_text else column
            kind = None if is_row_number(name, numbers) else NUMBER
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
                columns |= _date_numbers(name, _as_dates(name, column))
            else:
                columns[name] = column.astype(object).where(column.notna(), "").astype(str)
                if kind == CATEGORY:
                    columns[name] = columns[name].str.strip()
        return pd.DataFrame(columns, index=table.index)

    def _numbers(self, name: str, column: pd.Series) -> np.ndarray:
        return _as_numbers(name, column, self.styles_.get(name, "plain"))

    def _vector_columns(self, name: str, column: pd.Series) -> dict[str, np.ndarray]:
        """Return a column for each entry of the vectors, which must be as long as in `fit`."""
        vectors = _vectors(column)
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

    def _new_transformer(self, canonical: pd.DataFrame) -> ColumnTransformer:
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
            (f"text {n}", text_features(), name) for n, name in enumerate(self._columns_of(TEXT))
        ]
        parts += [(f"vector {name}", StandardScaler(), names) for name, names in vectors.items()]
        weights = {f"vector {name}": len(names) ** -0.5 for name, names in vectors.items()}
        return ColumnTransformer(parts, transformer_weights=weights or None)


def text_features() -> FeatureUnion:
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


def is_texts(X: Any) -> bool:
    """Return whether samples are texts: a one-dimensional sequence that begins with a str."""
    if isinstance(X, str | bytes | dict) or getattr(X, "ndim", 1) != 1 or not hasattr(X, "__len__"):
        return False
    known = (value for value in X if value is not None and value == value)
    return isinstance(next(known, None), str)


def needs_encoding(X: Any) -> bool:
    """Return whether samples are texts, or a table with words, dates or missing values."""
    if isinstance(X, pd.DataFrame):
        numeric = all(types.is_numeric_dtype(kind) for kind in X.dtypes)
        return bool(X.shape[1]) and (not numeric or bool(X.isna().any(axis=None)))
    return is_texts(X)


def _as_rows(encoded: Any) -> Any:
    """Return encoded samples in single precision: half the time of every fit."""
    encoded = encoded.astype(np.float32)
    return encoded.tocsr() if issparse(encoded) else encoded


def _as_table(X: Any) -> pd.DataFrame:
    """Return a table as it is, and texts as a table of one column."""
    if isinstance(X, pd.DataFrame):
        return X.rename(columns=str)
    index = X.index if isinstance(X, pd.Series) else None
    texts = pd.Series(X, dtype=object, index=index)
    strange = texts[texts.notna() & ~texts.map(lambda text: isinstance(text, str))]
    if len(strange):
        raise InputError(
            f"Sample {_row(strange)} is {strange.iloc[0]!r}, not a text: give texts only."
        )
    return pd.DataFrame({"text": texts})


def _vectors(column: pd.Series) -> np.ndarray | None:
    """Return vectors of the same length as rows of an array, None if they are anything else."""
    try:
        vectors = np.asarray(column.tolist(), dtype=float)
    except (TypeError, ValueError):
        return None
    is_matrix = vectors.ndim == 2 and vectors.shape[1] > 0
    return vectors if is_matrix and np.isfinite(vectors).all() else None


def _typed_kind(column: pd.Series) -> str | None:
    """Return the kind that the dtype of a column tells; None if its values must tell it."""
    if types.is_datetime64_any_dtype(column.dtype):
        return DATE
    if types.is_numeric_dtype(column.dtype) or types.is_timedelta64_dtype(column.dtype):
        return NUMBER  # includes bool and nullable types
    if isinstance(column.dtype, pd.CategoricalDtype):
        return CATEGORY
    return None


def _holds_lists(known: pd.Series) -> bool:
    return any(map(types.is_list_like, known.head(100)))  # map of a sparse column can fail


def _styles(table: pd.DataFrame) -> dict[str, str]:
    """Return how each column of text that holds numbers writes them."""
    texts: dict[str, pd.Series] = {}
    for name in table.columns:
        column, known = table[name], table[name].dropna()
        if _typed_kind(column) is None and not _holds_lists(known):
            texts[name] = known.astype(str).str.strip()

    def row_of(name: str, word: str) -> str:
        return f"row {_row(texts[name][texts[name] == word])}"

    counts = {name: Counter(known) for name, known in texts.items()}
    return number_styles("The samples", counts, row_of)


def _kind_of_words(words: pd.Series) -> str | None:
    """Return the kind of a column without gaps by its values; None if they name the samples."""
    if set(words.str.lower()) <= {"true", "false"}:
        return CATEGORY
    if words.str.match(r"\d{4}-\d{2}-\d{2}").all() and not _parsed_dates(words).isna().any():
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


def _parsed_dates(column: pd.Series) -> pd.Series:
    return pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")


def _as_numbers(name: str, column: pd.Series, style: str) -> np.ndarray:
    """Convert a column to float64, NaN where a value is missing; see `number_in` for the style."""
    if types.is_timedelta64_dtype(column.dtype):
        column = column.dt.total_seconds() / SECONDS_OF_A_DAY
    if not types.is_numeric_dtype(column.dtype):
        values = column.astype(object).where(column.notna(), np.nan)
        values = values.map(lambda v: number_in(v, style) if isinstance(v, str) else v)
        column = pd.to_numeric(values, errors="coerce")
        wrong = values[column.isna() & values.notna()]
        if len(wrong):
            raise InputError(
                f"Column {name!r} holds {wrong.iloc[0]!r} in row {_row(wrong)}, but the model "
                "learned numbers from it: correct the value, or leave it blank if it is unknown."
            )
    numbers = pd.Series(column.to_numpy(dtype=float, na_value=np.nan), index=column.index)
    infinite = numbers[np.isinf(numbers)]
    if len(infinite):
        raise InputError(
            f"Column {name!r} holds infinity in row {_row(infinite)}: correct the value, or leave "
            "it blank if it is unknown."
        )
    return numbers.to_numpy()


def _as_dates(name: str, column: pd.Series) -> pd.Series:
    dates = _parsed_dates(column.astype(object).where(column.notna(), None))
    wrong = column[dates.isna() & column.notna()]
    if len(wrong):
        raise InputError(
            f"Column {name!r} holds {wrong.iloc[0]!r} in row {_row(wrong)}, but the model learned "
            "dates from it: write dates as 2026-01-31, or leave unknown ones blank."
        )
    return dates


def _date_numbers(name: str, dates: pd.Series) -> dict[str, np.ndarray]:
    """Return a date as days since 1970, and its place in the year, the week and the day."""
    days = (dates - pd.Timestamp("1970-01-01", tz="UTC")) / pd.Timedelta(days=1)
    turns = {
        "year": dates.dt.day_of_year / 365.25,
        "week": dates.dt.day_of_week / 7,
        "day": days % 1,
    }
    parts = {f"{name} in days": days.to_numpy(dtype=float)}
    for period, turn in turns.items():
        angle = 2 * np.pi * turn.to_numpy(dtype=float)
        parts[f"{name} in {period} (sin)"] = np.sin(angle)
        parts[f"{name} in {period} (cos)"] = np.cos(angle)
    return parts


def _row(rows: pd.Series) -> str:
    """Name the first of some rows by its index, in quotes if it is a name."""
    return repr(rows.index[0])
