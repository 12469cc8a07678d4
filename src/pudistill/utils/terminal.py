"""Text for a terminal."""

import re

# Characters that move the cursor, run commands of the terminal, or turn the direction of text, and
# halves of characters, which cannot be printed.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return a text for a terminal: names of classes can hold characters that control it.

    Examples
    --------
    >>> from pudistill.utils.terminal import printable
    >>> print(printable("cat\x1b[2J"))
    cat\x1b[2J
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
