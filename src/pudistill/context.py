"""What callers install for everything that runs inside a ``with`` block of theirs."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Value = TypeVar("Value")


@contextmanager
def installed(variable: ContextVar[Value], value: Value) -> Iterator[None]:
    """Give a context variable a value inside the ``with`` block, and its former one after."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
