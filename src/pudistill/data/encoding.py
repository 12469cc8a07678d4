"""Encoding of ordinary tables and texts as numbers, with scikit-learn's own transformers."""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from numbers import Real
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

from pudistill.exceptions import DataWarning, InputError, warn_user

NUMBER, DATE, CATEGORY, TEXT, VECTOR = "number", "date", "category", "text", "vector"

# A category of fewer samples counts as "other": it could not be learned.
MIN_CATEGORY_SIZE = 10


# A column of words is text, not categories, if more than this share of its values are distinct and
# they have this many words on average.
DISTINCT_TEXTS, WORDS_OF_A_TEXT = 0.2, 3.0


# A column of single words is a name of the sample if more than this share of them are distinct.
DISTINCT_IDS = 0.5


# Words that stand for a missing value in a column of numbers may be at most this share of it.
MARKERS_OF_MISSING = 0.1


# Largest number of character sequences of a text column: rarer ones cost time and add little.
MAX_CHARACTER_FEATURES = 10_000
NAME_OF_ID = re.compile(r"(^|[_\s.-])(id|uuid|guid|key|index|nr|no)$|[a-z]I[dD]$", re.IGNORECASE)
MAX_LISTED = 8
_BOOLEANS = {"true": 1, "false": 0}
LARGEST = 1e100  # of a number: the square of a larger one may overflow
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
    markers_ : dict of str to list of str
        Words that stand for a missing value in columns of numbers, such as "?".
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
        """Decide the kind of each column, and fit the transformer.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns), or sequence of str
            Samples.
        y : object
            Ignored.

        Returns
        -------
        self : TableEncoder

        Raises
        ------
        InputError
            If no column can be used; the message gives each column's reason.
        """
        del y
        table = _as_table(X)
        self.n_features_in_, self.columns_ = table.shape[1], [*table.columns]
        self.kinds_: dict[str, str] = {}
        self.left_out_: dict[str, str] = {}
        self.markers_: dict[str, list[str]] = {}
        self.n_entries_: dict[str, int] = {}
        if _is_table(X):
            for name in table.columns:
                self._decide(name, table[name])
        elif table["text"].str.strip().any():
            self.kinds_["text"] = TEXT
        else:
            self.left_out_["text"] = "no words"
        if not self.kinds_:
            raise InputError(
                f"No column can be used: {_reasons(self.left_out_)}. Give columns of numbers, "
                "categories, dates or texts."
            )
        self._warn()
        canonical = self._canonical(table)
        try:
            self.transformer_ = self._new_transformer(canonical, text_features).fit(canonical)
        except ValueError:  # no word or sequence of a column occurs in two texts
            self.transformer_ = self._new_transformer(canonical, _usable).fit(canonical)
        return self

    def transform(self, X: Any) -> Any:
        """Encode samples.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns), or sequence of str
            Samples. Columns can be in any order; further columns are ignored.

        Returns
        -------
        encoded : ndarray or sparse matrix of shape (n_samples, n_features), float64
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
                f"The samples lack {_columns(missing)}, which the model learned from: add "
                f"{'it' if len(missing) == 1 else 'them'}, with blanks where a value is unknown."
            )
        encoded = self.transformer_.transform(self._canonical(table))
        return encoded.tocsr() if issparse(encoded) else encoded

    def _as_known_table(self, X: Any) -> pd.DataFrame:
        """Return samples as a table; columns of an array have the names of the training data."""
        if isinstance(X, pd.DataFrame) or (is_texts(X) and [*self.kinds_] == ["text"]):
            return _as_table(X)
        if not _is_table(X):
            raise InputError(
                f"The model learned from a table with {_columns([*self.kinds_])}, and these "
                "samples are no table: give these columns."
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
        if types.is_complex_dtype(column) or known.head(100).map(types.is_list_like).any():
            if _vectors(column) is None:
                self.left_out_[name] = "lists or complex numbers"
            else:
                self.kinds_[name] = VECTOR
            return
        if known.nunique() == 1 and len(known) == len(column):
            self.left_out_[name] = "the same value in every row"
            return
        kind = _typed_kind(column)
        if kind is None and known.map(lambda value: isinstance(value, bool | np.bool_)).all():
            kind = NUMBER  # like complete booleans
        if kind is None:
            words = known.map(_text).str.strip()
            kind, markers = _kind_of_words(words)
            if markers:
                self.markers_[name] = markers
        if kind == NUMBER and len(set(as_numbers(name, column, self.markers_.get(name, [])))) == 1:
            self.left_out_[name] = "the same value in every row"  # as far as float64 can tell
            return
        if kind in (NUMBER, "id") and _is_row_number(name, column):
            kind = "id"
        if kind == "id":
            self.left_out_[name] = "a name or number of the sample"
        else:
            self.kinds_[name] = kind

    def _warn(self) -> None:
        """Tell in one warning which columns are left out, and which words count as missing."""
        notes = []
        if self.left_out_:
            notes.append(f"These columns are not used: {_reasons(self.left_out_)}.")
        notes += [
            f"Column {name!r} holds numbers; {', '.join(map(repr, markers))} counts as missing."
            for name, markers in self.markers_.items()
        ]
        if notes:
            warn_user(" ".join(notes), DataWarning)

    def _canonical(self, table: pd.DataFrame) -> pd.DataFrame:
        """Bring the used columns to their kinds: float64 with NaN, or str."""
        columns: dict[str, Any] = {}
        for name, kind in self.kinds_.items():
            column = table[name]
            if kind == NUMBER:
                columns[name] = as_numbers(name, column, self.markers_.get(name, []))
            elif kind == VECTOR:
                columns |= self._vector_columns(name, column)
            elif kind == DATE:
                columns |= _date_numbers(name, _as_dates(name, column))
            else:
                values = column.astype(object).where(column.notna(), "")
                columns[name] = values.map(_category if kind == CATEGORY else _text)
        return pd.DataFrame(columns, index=table.index)

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
        of_kind: Callable[[str], list[str]] = lambda kind: [  # noqa: E731
            name for name, found in self.kinds_.items() if found == kind
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
        if categories := of_kind(CATEGORY):
            one_hot = OneHotEncoder(
                handle_unknown="infrequent_if_exist",
                min_frequency=min(MIN_CATEGORY_SIZE, max(1, len(canonical) // 20)),
            )
            parts.append(("categories", one_hot, categories))
        parts += [
            (f"text {n}", features_of(canonical[name]), name)
            for n, name in enumerate(of_kind(TEXT))
        ]
        parts += [(f"vector {name}", StandardScaler(), names) for name, names in vectors.items()]
        weights = {f"vector {name}": len(names) ** -0.5 for name, names in vectors.items()}
        return ColumnTransformer(parts, transformer_weights=weights or None)


def text_features(_: Any = None) -> FeatureUnion:
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


def _usable(texts: pd.Series) -> Any:
    """Return the features that texts have: of single signs, if they share no word, as emoji do."""
    try:
        text_features().fit(texts)
    except ValueError:
        return TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True)
    return text_features()


def _text(value: Any) -> str:
    """Return a value as text that can be stored: half of a sign, as damaged JSON has, becomes ?."""
    return str(value).encode("utf-8", "replace").decode()


def _category(value: Any) -> str:
    """Return the name of a category, the same however a library stores it: 1, 1.0, True, "true"."""
    if isinstance(value, float | np.floating) and value.is_integer():
        value = int(value)
    name = _text(value).strip()
    return name.lower() if name in ("True", "False", "TRUE", "FALSE") else name


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


def is_real(kind: Any) -> bool:
    """Return whether a dtype is one of real numbers, which includes bool and nullable types."""
    return types.is_numeric_dtype(kind) and not types.is_complex_dtype(kind)


def _is_table(X: Any) -> bool:
    return isinstance(X, pd.DataFrame) or (isinstance(X, np.ndarray) and X.ndim == 2)


def _as_table(X: Any) -> pd.DataFrame:
    """Return a table with text as names of columns, and texts as a table of one column."""
    if _is_table(X):
        table = X if isinstance(X, pd.DataFrame) else pd.DataFrame(X).infer_objects()
        return table.set_axis([str(name) for name in table.columns], axis=1)
    return pd.DataFrame({"text": as_texts(X)})


def as_texts(X: Any) -> pd.Series:
    """Return texts as a Series of dtype object, in which a missing text is empty.

    Raises
    ------
    InputError
        If a sample is no text.
    """
    is_series = isinstance(X, pd.Series)
    texts = pd.Series(X if is_series else list(X), dtype=object)
    strange = texts[texts.notna() & ~texts.map(lambda text: isinstance(text, str))]
    if len(strange):
        raise InputError(
            f"Sample {_row(strange)} is {_shown(strange)}, not a text: give texts only."
        )
    return texts.where(texts.notna(), "")


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
    if types.is_datetime64_any_dtype(column.dtype) or isinstance(column.dtype, pd.PeriodDtype):
        return DATE
    if types.is_numeric_dtype(column.dtype) or types.is_timedelta64_dtype(column.dtype):
        return NUMBER  # includes bool and nullable types
    if isinstance(column.dtype, pd.CategoricalDtype):
        return CATEGORY
    return None


def _kind_of_words(words: pd.Series) -> tuple[str, list[str]]:
    """Return the kind of a column without gaps by its values, and markers of missing numbers."""
    distinct = words.nunique()
    if set(words.str.lower()) <= {"true", "false"}:
        return CATEGORY, []
    numbers = pd.to_numeric(words, errors="coerce")
    others = words[numbers.isna()]
    if others.empty:
        return NUMBER, []
    if len(others) <= MARKERS_OF_MISSING * len(words) and others.nunique() <= 2:
        return NUMBER, sorted(set(others))
    if words.str.match(r"\d{4}-\d{2}-\d{2}").all() and not _parsed_dates(words).isna().any():
        return DATE, []
    share, n_words = distinct / len(words), words.str.count(r"\S+").mean()
    if share > DISTINCT_TEXTS and n_words >= WORDS_OF_A_TEXT:
        return TEXT, []
    if share > DISTINCT_IDS and distinct > 2 * MIN_CATEGORY_SIZE:
        return "id", []
    return CATEGORY, []


def _is_row_number(name: str, column: pd.Series) -> bool:
    """Return whether whole numbers count the rows, or are unique and called an id."""
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.isna().any() or len(numbers) <= 2 * MIN_CATEGORY_SIZE or not numbers.is_unique:
        return False
    if not (numbers == numbers.round()).all():
        return False
    counts = numbers.is_monotonic_increasing and numbers.max() - numbers.min() == len(numbers) - 1
    return bool(counts) or NAME_OF_ID.search(name) is not None


def _parsed_dates(column: pd.Series) -> pd.Series:
    return pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")


def as_numbers(name: str, column: pd.Series, markers: Sequence[str] = ()) -> np.ndarray:
    """Convert a column to float64, NaN where a value is missing.

    Parameters
    ----------
    name : str
        Its name, for messages.
    column : Series of shape (n_samples,)
        Numbers, durations, or numbers written as text.
    markers : sequence of str, default=()
        Words that stand for a missing value.

    Returns
    -------
    numbers : ndarray of shape (n_samples,), float64
        Durations in days.

    Raises
    ------
    InputError
        If an entry is no number, or too large to compute with; the message names its row.
    """
    if types.is_timedelta64_dtype(column.dtype):
        column = column.dt.total_seconds() / SECONDS_OF_A_DAY
    if is_real(column.dtype):
        numbers = pd.Series(column.to_numpy(dtype=float, na_value=np.nan), index=column.index)
    else:
        words = column.astype(object)
        words = words.where(words.notna(), None)
        words = words.map(lambda value: value.strip() if isinstance(value, str) else value)
        words = words.map(lambda value: _BOOLEANS.get(str(value).lower(), value))
        words = words.mask(words.isin(["", *markers]), None).astype(object)
        # Not dates and lists, which pandas would make numbers.
        possible = [v if isinstance(v, str | Real | Decimal) else None for v in words]
        numbers = pd.to_numeric(pd.Series(possible, words.index, object), errors="coerce")
        numbers = numbers.astype(float)
        wrong = words[numbers.isna() & words.notna()]
        if len(wrong):
            raise InputError(
                f"Column {name!r} holds {_shown(wrong)} in row {_row(wrong)}, but the model "
                "learned numbers from it: correct the value, or leave it blank if it is unknown."
            )
    large = numbers[numbers.abs() > LARGEST]
    if len(large):
        value = "infinity" if np.isinf(large.iloc[0]) else f"{large.iloc[0]:g}, which is too large,"
        raise InputError(
            f"Column {name!r} holds {value} in row {_row(large)}: correct the value, or "
            "leave it blank if it is unknown."
        )
    return numbers.to_numpy()


def _as_dates(name: str, column: pd.Series) -> pd.Series:
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    values = column.astype(object).where(column.notna(), None)
    dates = _parsed_dates(values.where(values.map(lambda value: not isinstance(value, Real)), None))
    wrong = values[dates.isna() & column.notna()]
    if len(wrong):
        raise InputError(
            f"Column {name!r} holds {_shown(wrong)} in row {_row(wrong)}, but the model learned "
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


def _shown(rows: pd.Series) -> str:
    """Show the first of some values as the user wrote it."""
    value = rows.iloc[0]
    return repr(value.item() if isinstance(value, np.generic) else value)


def _row(rows: pd.Series) -> str:
    """Name the first of some rows by its index, in quotes if it is a name."""
    return repr(rows.index[0])


def _columns(names: list[str]) -> str:
    listed = ", ".join(map(repr, names[:MAX_LISTED]))
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"the column{'s' if len(names) > 1 else ''} {listed}{more}"


def _reasons(left_out: dict[str, str]) -> str:
    """List columns with the reason for which they are left out, grouped by reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        by_reason.setdefault(reason, []).append(name)
    return "; ".join(
        f"{_columns(names).removeprefix('the ')} ({reason})" for reason, names in by_reason.items()
    )
