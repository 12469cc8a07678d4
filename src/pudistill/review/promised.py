"""What is promised now, as the rows of a small table."""

from collections.abc import Iterator, Sequence
from typing import Any

from pudistill.runs.report.formats import estimate


def as_rows(promises: Any) -> dict[str, Any] | None:
    """Return promises as texts for a page.

    Parameters
    ----------
    promises : Promises or None
        With `rate`, `labels_right` (each with `value` and `interval`) and `certified`, one for each
        `max_error`, with `share`, `count` and `interval`.

    Returns
    -------
    content : dict or None
        ``rows`` with ``name``, ``value`` and ``interval``; ``note``. None if there are no promises.
    """
    if promises is None:
        return None
    rows = list(_rows(promises))
    look = getattr(promises, "look", None)
    note = f"From {promises.n_verified:,} samples that were drawn with known probabilities."
    if look is not None:
        note += f" Look number {look}: the intervals hold however often you look."
    return {"rows": rows, "note": note}


def _rows(promises: Any) -> Iterator[dict[str, str]]:
    for name, words in {
        "labels_right": "Labels right after correction",
        "rate": "Given labels wrong",
    }.items():
        if (found := getattr(promises, name, None)) is not None:
            yield _row(words, found.value, found.interval)
    for found in promises.certified or ():
        words = f"Usable with at most {100 * found.max_error:g} % wrong"
        yield _row(words, found.share, found.interval, f" ({found.count:,})")


def _row(name: str, value: float, interval: Sequence[float], more: str = "") -> dict[str, str]:
    shown, between = (text.unescape() for text in estimate(value, interval))
    return {"name": name, "value": f"{shown}{more}", "interval": between}
