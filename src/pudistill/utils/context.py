"""Context variables that a caller sets for the duration of a ``with`` block.

They hold only values that cannot be arguments, mostly because scikit-learn's `fit(X, y)` lies
between the caller and the reader of the value. A comment at each variable gives the reason.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Value = TypeVar("Value")


@contextmanager
def installed(variable: ContextVar[Value], value: Value) -> Iterator[None]:
    """Set a context variable inside the ``with`` block, and restore its former value after it."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
