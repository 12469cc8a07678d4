"""Names of classes that look alike: the same name in several spellings."""

import re
import unicodedata
from collections.abc import Mapping

from pudistill.utils.shown import first_few

_NUMBER = re.compile(r"([+-]?)0*([0-9]+)(?:\.0*)?")


def look_alikes(counts: Mapping[str, int]) -> list[list[str]]:
    """Return groups of names that differ in case, spaces, invisible signs or zeros of a number.

    Parameters
    ----------
    counts : mapping of str to int
        Names, and how often each occurs.

    Returns
    -------
    groups : list of list of str
        Groups of two names or more, in each the most frequent name first.

    Examples
    --------
    >>> from pudistill.data.spelling import look_alikes
    >>> look_alikes({"cat": 5, "Cat ": 9, "dog": 3, "1": 4, "01": 2, "1.0": 1})
    [['Cat ', 'cat'], ['1', '01', '1.0']]
    """
    groups: dict[str, list[str]] = {}
    for name in counts:
        groups.setdefault(_plainest(name), []).append(name)
    ordered = (sorted(group, key=lambda name: (-counts[name], name)) for group in groups.values())
    return [group for group in ordered if len(group) > 1]


def describe_look_alikes(counts: Mapping[str, int]) -> str | None:
    """Return a clause on names that look alike, for a message; None if there are none."""
    groups = look_alikes(counts)
    if not groups:
        return None
    shown = (
        ", ".join(f"{_visible(name)} ({counts[name]:,})" for name in group) for group in groups
    )
    return (
        f"some labels look like one class in several spellings, {first_few(shown, '; ')}: merge "
        "those that are one class, in your file or with "
        "y.str.normalize('NFKC').str.strip().str.lower() in pandas"
    )


def _plainest(name: str) -> str:
    """Return a name in lower case, without what cannot be seen and without needless zeros."""
    text = unicodedata.normalize("NFKC", name).casefold()
    text = "".join(sign for sign in text if unicodedata.category(sign) != "Cf")
    text = " ".join(text.split())
    number = _NUMBER.fullmatch(text)
    return text if number is None else number[1].replace("+", "") + number[2]


def _visible(name: str) -> str:
    """Return a name in quotes, with codes for signs that look like others."""
    return repr(name) if name == unicodedata.normalize("NFKC", name) else ascii(name)
