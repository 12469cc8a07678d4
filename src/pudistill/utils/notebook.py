"""How results show themselves: sentences and tables in notebooks, the same as text elsewhere.

The HTML takes colour and background from the notebook, so that it can be read on light and on dark
pages. It holds no script; text from the data is escaped.
"""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from pudistill.utils.formats import plain, with_code
from pudistill.utils.terminal import printable

ACCENT, QUIET = "234, 88, 12", "128, 128, 128"  # red, green and blue
MOST_SHADE = 0.75  # letters can be read on it, be they black or white
_CELL = "padding: 3px 8px; text-align: {}; background: {}; border: 1px solid transparent"
_TABLE = Markup(
    '<table style="border-collapse: separate; border-spacing: 1px; margin: 6px 0; width: auto">'
)


class ShownAsText:
    """A result that a notebook shows as sentences and a table, and a terminal as text."""

    def _sentences(self) -> Sequence[Markup]:
        """Return what there is to say."""
        raise NotImplementedError

    def _table(self) -> Markup:
        """Return a table below the sentences, for a notebook."""
        return Markup()

    def _text_table(self) -> str:
        """Return the same table as text; empty if it would be long."""
        return ""

    def __repr__(self) -> str:
        lines = [*map(plain, self._sentences()), self._text_table()]
        return printable("\n".join(filter(None, lines)))

    def _repr_html_(self) -> str:
        return block(self._sentences(), self._table())


def block(sentences: Sequence[Markup], *tables: Markup) -> str:
    """Return sentences and tables as a part of a page.

    Examples
    --------
    >>> from markupsafe import Markup
    >>> from pudistill.utils.notebook import block
    >>> block([Markup("{} is `fine`.").format("<b>")])
    '<div><p style="margin: 6px 0; max-width: 60em">&lt;b&gt; is <code>fine</code>.</p></div>'
    """
    paragraph = Markup('<p style="margin: 6px 0; max-width: 60em">{}</p>')
    parts = [*(paragraph.format(with_code(sentence)) for sentence in sentences), *tables]
    return str(Markup("<div>{}</div>").format(Markup("").join(parts)))


def shaded_table(
    shares: np.ndarray, names: Sequence[str], texts: np.ndarray, hints: np.ndarray, corner: str
) -> Markup:
    """Return a square table of shares whose cells are the darker, the larger the share.

    Parameters
    ----------
    shares : ndarray of shape (n, n)
        From 0 to 1; the diagonal is grey.
    names : sequence of str
        Names of rows and columns.
    texts, hints : ndarray of shape (n, n)
        What each cell holds, and what it says under the mouse.
    corner : str
        What rows and columns are.
    """
    head = [_cell("th", corner), *(_cell("th", name) for name in names)]
    rows = [Markup("<tr>{}</tr>").format(Markup("").join(head))]
    for i, name in enumerate(names):
        cells = [_cell("th", name, align="right")]
        for j, share in enumerate(shares[i]):
            strength = 0.25 if i == j else MOST_SHADE * np.sqrt(share)
            colour = f"rgba({QUIET if i == j else ACCENT}, {strength:.2f})"
            cells.append(_cell("td", texts[i, j], colour, hints[i, j], "center"))
        rows.append(Markup("<tr>{}</tr>").format(Markup("").join(cells)))
    return _TABLE + Markup("").join(rows) + Markup("</table>")


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """Return a table; the first column holds names, all others hold numbers.

    Without a header, the table has none.
    """
    lines = [
        Markup("").join(
            _cell(kind, text, align="right" if n else "left") for n, text in enumerate(row)
        )
        for kind, row in [*([("th", header)] if header else []), *(("td", row) for row in rows)]
    ]
    return _TABLE + Markup("").join(map(Markup("<tr>{}</tr>").format, lines)) + Markup("</table>")


def _cell(
    kind: str, text: str, colour: str = "transparent", hint: str = "", align: str = "left"
) -> Markup:
    style = _CELL.format(align, colour)
    hint = Markup(' title="{}"').format(hint) if hint else Markup()
    return Markup('<{0} style="{1}"{2}>{3}</{0}>').format(Markup(kind), style, hint, text)
