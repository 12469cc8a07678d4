"""Text for shares, counts, settings and names, as the report writes them."""

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from pudistill.utils.shown import shown

MAX_LISTED = 12
LONGEST_NAME, LONGEST_SENTENCE = 300, 2000  # characters
_IN_BACKTICKS = re.compile("`([^`<]+)`")
NARROW = 0.02  # an interval narrower than this is written with a decimal


def percent(share: float, digits: int | None = None) -> Markup:
    """Write a share as a percentage: a whole number, unless that would round it to 0 or 100.

    Examples
    --------
    >>> from pudistill.utils.formats import percent
    >>> [str(percent(share)).replace("&nbsp;", " ") for share in (0.5, 0.996, 0.0001, float("nan"))]
    ['50 %', '99.6 %', '&lt;0.1 %', '–']
    """
    if pd.isna(share):
        return Markup("–")
    percentage = 100 * share
    if digits is None:
        digits = 1 if 0 < percentage < 1 or 99 < percentage < 100 else 0
        if 0 < percentage < 0.05:
            return Markup("&lt;0.1&nbsp;%")
        if 99.95 <= percentage < 100:
            return Markup("&gt;99.9&nbsp;%")
    return Markup("{}&nbsp;%").format(f"{percentage:.{digits}f}")


def estimate(value: float, interval: Sequence[float]) -> tuple[Markup, Markup]:
    """Write an estimated share and its interval to the same number of decimals.

    Examples
    --------
    >>> from pudistill.utils.formats import estimate
    >>> [text.unescape().replace(chr(160), " ") for text in estimate(0.47, [0.44, 0.5])]
    ['47 %', '44 to 50 %']
    >>> [text.unescape().replace(chr(160), " ") for text in estimate(0.031, [0.026, 0.038])]
    ['3.1 %', '2.6 to 3.8 %']
    >>> [text.unescape().replace(chr(160), " ") for text in estimate(0.997, [0.97, 1])]
    ['99.7 %', '97.0 to 100.0 %']
    """
    low, high = interval
    if pd.isna(low) or pd.isna(high):
        return percent(value), Markup("–")
    is_close = 0 < value < 0.005 or 0.995 <= value < 1  # no share is written as none or all
    digits = int(high - low < NARROW or is_close)
    return percent(value, digits), percent_range(low, high, digits)


def percent_range(low: float, high: float, digits: int = 0) -> Markup:
    """Write two shares as a range of percentages: 44 to 50 %."""
    return Markup("{} to {}").format(f"{100 * low:.{digits}f}", percent(high, digits))


def plain(sentence: Markup) -> str:
    """Return a sentence for a terminal, without entities, and with percentages as in 47%.

    Examples
    --------
    >>> from markupsafe import Markup
    >>> from pudistill.utils.formats import plain
    >>> plain(Markup("57&nbsp;% of class&nbsp;8 are wrong."))
    '57% of class 8 are wrong.'
    """
    return (
        sentence.unescape().replace("\N{NO-BREAK SPACE}%", "%").replace("\N{NO-BREAK SPACE}", " ")
    )


def integer(number: float) -> str:
    """Write a count with commas between thousands."""
    return "–" if pd.isna(number) else f"{int(number):,}"


def value(content: Any) -> str:
    """Write a setting or a metric for a reader."""
    if content is None or (isinstance(content, Sequence) and not len(content)):
        return "none"
    if isinstance(content, bool | np.bool_):
        return "yes" if content else "no"
    if isinstance(content, int | np.integer):
        return str(content)
    if isinstance(content, float | np.floating):
        return "–" if np.isnan(content) else f"{content:.4g}"
    if isinstance(content, list | tuple):
        more = f", … ({len(content):,} in all)" if len(content) > MAX_LISTED else ""
        return ", ".join(map(value, content[:MAX_LISTED])) + more
    return str(content)


def joined_by_and(parts: Sequence[str | Markup]) -> Markup:
    """Join parts of a sentence: a, b and c.

    Examples
    --------
    >>> from pudistill.utils.formats import joined_by_and
    >>> str(joined_by_and(["cat", "dog", "eel"]))
    'cat, dog and eel'
    """
    *most, last = parts
    return Markup(" and ").join([Markup(", ").join(most), last] if most else [last])


def class_word(name: str) -> str:
    """Name a class in a sentence: in quotes, and a number after the word "class".

    Examples
    --------
    >>> from pudistill.utils.formats import class_word
    >>> class_word("wrong size"), class_word("3").split()
    ("'wrong size'", ['class', '3'])
    """
    return shown(name) if any(map(str.isalpha, name)) else f"class\N{NO-BREAK SPACE}{name}"


def with_code(sentence: str) -> Markup:
    """Escape a sentence for HTML, and mark up what stands between backticks as code.

    Examples
    --------
    >>> from pudistill.utils.formats import with_code
    >>> str(with_code("Drawn by `pudistill next`, < 5%."))
    'Drawn by <code>pudistill next</code>, &lt; 5%.'
    """
    return Markup(_IN_BACKTICKS.sub(r"<code>\1</code>", str(Markup.escape(sentence))))


def shortened(content: Any, longest: int = LONGEST_NAME) -> Any:
    """Shorten each long text in nested content, so that no name fills the page.

    Examples
    --------
    >>> from pudistill.utils.formats import shortened
    >>> shortened({"classes": ["cat", 500 * "A" + 500 * "B"]})["classes"][1][-47:]
    'BBBBBBBBBBBBBBBBBB (1,000 characters, 472e92d8)'
    """
    if isinstance(content, Mapping):
        return {name: shortened(part, longest) for name, part in content.items()}
    if isinstance(content, list | tuple):
        return [shortened(part, longest) for part in content]
    if isinstance(content, pd.DataFrame):
        return content.map(shortened, longest=longest) if len(content) else content
    if isinstance(content, str) and len(content) > longest:
        mark = zlib.crc32(content.encode())  # names that differ in the middle stay different
        return f"{content[:30]} … {content[-30:]} ({len(content):,} characters, {mark:08x})"
    return content


def flatten(settings: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested settings, with names such as ``filter.C``."""
    for name, content in settings.items():
        if isinstance(content, Mapping):
            yield from flatten(content, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", content


def shorten(name: object, length: int = 18) -> str:
    """Put a name on one line, and cut its middle if it is too long for a figure."""
    text = " ".join(str(name).split()) or "(empty)"
    n_end = min(5, (length - 1) // 2)
    return text if len(text) <= length else f"{text[: length - 1 - n_end]}…{text[-n_end:]}"


def compact(count: float) -> str:
    """Write a count in at most four characters: 987, 1.2k, 15k, 3.4M, 2G."""
    for suffix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size * 0.9995:
            return f"{count / size:.{int(count < 9.95 * size)}f}".removesuffix(".0") + suffix
    return f"{count:.0f}"
