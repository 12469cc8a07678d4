"""What is promised now, as the rows of a small table."""

from typing import Any


def as_rows(promises: Any) -> dict[str, Any] | None:
    """Return promises as texts for a page; None if there are none."""
    return None if promises is None else {"rows": [], "n_verified": promises.n_verified}
