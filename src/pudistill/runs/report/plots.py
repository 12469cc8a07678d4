"""Figures of the reports: matplotlib figures as inline SVG, pictures as PNG data URIs.

Colours are CSS variables, so that figures change with the page in dark mode.
"""

import base64
import io
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any
from unicodedata import east_asian_width

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from pudistill.exceptions import InputError
from pudistill.plots.drawing import (
    LEAST_DRAWN_SHARE,
    Colours,
    Growth,
    draw_curves,
    draw_error_curve,
    draw_growth,
    draw_heat_map,
    method_looks,
)
from pudistill.runs.report.palette import FONT, LIGHT
from pudistill.utils.formats import compact, shorten

SOURCES = {
    "trusted": "--trusted",
    "filter": "--filter",
    "teacher": "--teacher",
    "student": "--student",
    "model": "--model",
    "given": "--given",
}
"""The sources of a label, each with the CSS variable of its colour."""

SERIES = [f"--series-{n}" for n in range(10)]

# matplotlib cannot draw in a CSS variable. Each variable has a unique placeholder colour, and
# `_page_style` puts the variable in its place.
_VARIABLES = ["--ink", "--muted", "--line", "--accent", "--on-accent", "--quiet"]
_PLACEHOLDER = {
    name: f"#0{n:02x}fe5" for n, name in enumerate([*_VARIABLES, *SOURCES.values(), *SERIES])
}
INK, MUTED, LINE, ACCENT, ON_ACCENT, QUIET = (_PLACEHOLDER[name] for name in _VARIABLES)
COLOURS = Colours(INK, MUTED, ACCENT, ON_ACCENT, QUIET, [_PLACEHOLDER[name] for name in SERIES])

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # real text: small, selectable, in the page's font
    "text.parse_math": False,  # the name of a class can be "$x"
    "font.size": 12,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "figure.dpi": 72,  # one unit of the figure is one CSS pixel
}

CHARACTER, CAPITAL, EAST_ASIAN = 7.5, 8.8, 12.0  # mean width of a character in px at 12 px
PAGE_WIDTH = 940
MAX_METHOD_NAME = 28


def picture_uri(picture: np.ndarray, max_size: int = 192) -> str:
    """Encode a picture as a PNG data URI.

    Parameters
    ----------
    picture : ndarray of shape (H, W), (H, W, 1) or (H, W, 3), uint8
        Grey or RGB picture.
    max_size : int, default=192
        Longest side in pixels; larger pictures are scaled down.

    Returns
    -------
    str
        ``data:image/png;base64,...``

    Raises
    ------
    InputError
        If the array has another shape or type.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.runs.report.plots import picture_uri
    >>> picture_uri(np.zeros((8, 8), dtype=np.uint8))[:22]
    'data:image/png;base64,'
    """
    pixels = picture[..., 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture
    is_picture = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if not is_picture or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise InputError(
            f"A picture must be uint8 of shape (H, W) or (H, W, 3), not {picture.dtype} of shape "
            f"{picture.shape}: convert it for the report."
        )
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((max_size, max_size))
    file = io.BytesIO()
    image.save(file, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def flip_heat_map(counts: pd.DataFrame) -> str:
    """Draw the number of samples by given label (row) and new label (column).

    Parameters
    ----------
    counts : DataFrame of shape (C, C), int
        Number of samples; index and columns are the same class names in the same order. The
        diagonal holds unchanged labels: its numbers are written, but not coloured.

    Returns
    -------
    str
        SVG element.
    """
    values = counts.to_numpy()
    most = max(values[~np.eye(len(values), dtype=bool)].max(initial=0), 1)
    in_full = values.max(initial=0) < 100_000
    return _heat_map(
        counts,
        strength=values / most,
        write=lambda count, is_roomy: f"{count:,}" if is_roomy and in_full else compact(count),
        corner="given ↓  new →",
        title="Heat map of given and new labels",
    )


def transition_heat_map(matrix: pd.DataFrame) -> str:
    """Draw the share of each true class (row) that has each given label (column).

    Parameters
    ----------
    matrix : DataFrame of shape (C, C)
        Shares in [0, 1]; index and columns are the same class names in the same order. The diagonal
        holds correct labels: its shares are written, but not coloured. Shares below 0.5 % are left
        out.

    Returns
    -------
    str
        SVG element.
    """
    drawn = matrix.where(matrix >= LEAST_DRAWN_SHARE, 0.0)
    return _heat_map(
        drawn,
        strength=drawn.to_numpy(),
        write=lambda share, is_roomy: f"{100 * share:.0f}" + (" %" if is_roomy else ""),
        corner="true ↓  given →",
        title="Heat map of true and given labels",
    )


def _heat_map(
    table: pd.DataFrame,
    *,
    strength: np.ndarray,
    write: Callable[[Any, bool], str],
    corner: str,
    title: str,
) -> str:
    """Draw a square table of confusions, coloured by `strength` off its diagonal.

    `write` takes a value and whether a long text has room, and returns the text.
    """
    values = table.to_numpy()
    n = len(values)
    names = [shorten(name) for name in table.index]
    name_width = max(map(_width, names), default=0)
    left = max(name_width, _width(corner)) + 8
    cell = float(np.clip((PAGE_WIDTH - left) / max(n, 1), 15, 46))
    upright = name_width > cell - 4
    top = name_width + 12 if upright else 24

    with mpl.rc_context(_STYLE):
        figure = _figure(left + n * cell + 4, top + n * cell + 4)
        axes = _axes(figure, left=left, right=4, bottom=4, top=top)
        draw_heat_map(
            axes,
            table,
            names,
            COLOURS,
            strength=strength,
            write=lambda row, column: write(values[row, column], cell > 40),
            corner=corner,
            cell=cell,
            upright=upright,
        )
        return _to_svg(figure, title)


def growth_lines(history: pd.DataFrame) -> str:
    """Draw the size of each class's clean set over the filter's iterations.

    Parameters
    ----------
    history : DataFrame
        One row per class and iteration: ``class_name``, ``iteration``, ``n_clean``.

    Returns
    -------
    str
        SVG element. Up to ten lines have a colour and a name at their end. Of more lines, only
        those of the three largest and the three smallest final sets have.
    """
    growth = Growth.of(history)
    name_width = max(_width(shorten(name, 14)) for name in growth.named)
    with mpl.rc_context(_STYLE):
        figure = _figure(440, 300)
        axes = _axes(figure, left=44, right=name_width + 14, bottom=44, top=10)
        colour = draw_growth(axes, growth, COLOURS)
        _label_ends(axes, {name: growth.lines[name][-1, 1] for name in growth.named}, colour)
        return _to_svg(figure, "Line chart of the clean set by class and iteration")


def error_curve(curve: pd.DataFrame) -> str:
    """Draw the share of wrong labels against the share of labels that are accepted.

    Parameters
    ----------
    curve : DataFrame
        Columns ``share``, ``error``, ``low`` and ``high``, all from 0 to 1; at least one row.

    Returns
    -------
    str
        SVG element.
    """
    with mpl.rc_context(_STYLE):
        figure = _figure(440, 260)
        axes = _axes(figure, left=48, right=28, bottom=44, top=10)
        draw_error_curve(axes, curve, COLOURS)
        return _to_svg(figure, "Line chart of wrong labels by the share of labels accepted")


def confidence_histograms(confidence: Mapping[str, np.ndarray]) -> str:
    """Draw the confidence of the labels as histograms, one per source.

    Parameters
    ----------
    confidence : mapping of str to ndarray of int
        By source: the number of labels in each of equal parts of [0, 1].

    Returns
    -------
    str
        SVG element. Each histogram has its own vertical scale, so that rare sources are visible.
    """
    present = [source for source in SOURCES if source in confidence]
    strip, below = 62, 50
    height = strip * len(present) + below
    with mpl.rc_context(_STYLE):
        figure = _figure(440, height)
        for row, source in enumerate(present):
            counts = confidence[source]
            lowest = row == len(present) - 1
            axes = _axes(
                figure,
                left=76,
                right=10,
                bottom=below - 4 + strip * (len(present) - 1 - row),
                top=strip * row + 14,
            )
            colour, n_bins = _PLACEHOLDER[SOURCES[source]], len(counts)
            centres = (np.arange(n_bins) + 0.5) / n_bins
            axes.bar(centres, counts, width=0.85 / n_bins, color=colour, linewidth=0)
            axes.set(xlim=(0, 1), ylim=(0, counts.max() * 1.05), yticks=[])
            axes.set_xticks(np.linspace(0, 1, 6))
            axes.tick_params(labelbottom=lowest)
            position: dict[str, Any] = {
                "xy": (0, 0.42),
                "xycoords": "axes fraction",
                "textcoords": "offset points",
            }
            axes.annotate(source, xytext=(-10, 2), ha="right", va="bottom", **position)
            number = f"{counts.sum():,}"
            axes.annotate(number, xytext=(-10, 0), ha="right", va="top", color=MUTED, **position)
        if present:
            axes.set_xlabel("confidence in the label")
        return _to_svg(figure, "Histograms of confidence by source")


def accuracy_curve(
    results: pd.DataFrame, names: Mapping[str, str] | None = None, caption: str = ""
) -> str:
    """Draw test accuracy against the share of wrong labels, one panel per kind of noise.

    Parameters
    ----------
    results : DataFrame
        One row per method and noise setting: ``noise`` (its kind), ``overall_level`` (share of
        wrong labels in the whole data set, in [0, 1]), ``method`` and ``accuracy`` (in [0, 1]).
        Methods that read no noisy label (``trusted_only``, ``true_labels``) are horizontal lines.
    names : mapping of str to str, default=None
        Names of methods, where they differ from the titles in the registry.
    caption : str, default=""
        A line below the panels.

    Returns
    -------
    str
        SVG element; `standalone` turns it into a file.

    Examples
    --------
    >>> import pandas as pd
    >>> from pudistill.runs.report.plots import accuracy_curve
    >>> results = pd.DataFrame(
    ...     {"noise": "symmetric", "overall_level": [0.3, 0.6], "method": "pudistill",
    ...      "accuracy": [0.95, 0.94]}
    ... )
    >>> accuracy_curve(results)[:4]
    '<svg'
    """
    looks = method_looks(list(results["method"].unique()), COLOURS, names or {})
    kinds = list(results["noise"].unique())
    shown = {method: shorten(look.name, MAX_METHOD_NAME) for method, look in looks.items()}
    left, top, bottom, gap, height = 44, 30, 72 if caption else 50, 28, 300
    right = max(map(_width, shown.values())) + 18
    panel = np.clip((PAGE_WIDTH - left - right + gap) / len(kinds) - gap, 260, 520)
    width = left + len(kinds) * (panel + gap) - gap + right
    lowest = results["accuracy"].min()
    span = max(results["accuracy"].max() - lowest, 0.05)
    with mpl.rc_context(_STYLE):
        figure = _figure(width, top + height + bottom)
        for position, kind in enumerate(kinds):
            start = left + position * (panel + gap)
            axes = _axes(figure, left=start, right=width - start - panel, bottom=bottom, top=top)
            axes.set_ylim(lowest - 0.06 * span, lowest + 1.06 * span)
            ends = draw_curves(axes, results[results["noise"] == kind], looks)
            axes.set_title(f"{kind} noise", loc="left", fontsize=12, color=INK, pad=12)
            axes.tick_params(labelleft=position == 0)
        _label_ends(
            axes,
            {shown[method]: end for method, end in ends.items()},
            {shown[method]: looks[method].colour for method in ends},
            length=MAX_METHOD_NAME,
        )
        figure.text(left / width, 8 / (top + height + bottom), caption, color=MUTED)
        return _to_svg(figure, "Line chart of test accuracy by share of wrong labels")


def standalone(svg: str) -> str:
    """Turn an SVG element into a document with its own colours, font and background.

    Parameters
    ----------
    svg : str
        SVG element that another function of this module returned.

    Returns
    -------
    str
        SVG document, in the colours of a light page.

    Examples
    --------
    >>> from pudistill.runs.report.plots import standalone
    >>> page_figure = '<svg viewBox="0 0 9 6" style="width: 9px"><path fill="var(--ink)"/></svg>'
    >>> "var(" in standalone(page_figure)
    False
    """
    opening, rest = svg.split(">", 1)
    width, height = re.findall(r"[\d.]+", opening.split("viewBox=")[1])[2:4]
    opening = re.sub(
        r' style="[^"]*"',
        f' width="{width}" height="{height}" style="font-family: {FONT}"',
        opening,
    )
    background = '<rect width="100%" height="100%" fill="var(--page)"/>'
    document = f'<?xml version="1.0" encoding="utf-8"?>\n{opening}>{background}{rest}\n'
    return re.sub(r"var\(--([\w-]+)\)", lambda match: LIGHT[match[1]], document)


def _width(text: str) -> float:
    """Estimate the width of text in px at a size of 12 px; the browser's font is unknown."""
    narrow = [character for character in text if east_asian_width(character) not in "WF"]
    n_capitals = sum(map(str.isupper, narrow))
    width = n_capitals * CAPITAL + (len(narrow) - n_capitals) * CHARACTER
    return width + (len(text) - len(narrow)) * EAST_ASIAN


def _figure(width: float, height: float) -> Figure:
    """Make an empty figure; the size is in px."""
    return Figure(figsize=(width / 72, height / 72), facecolor="none")


def _axes(figure: Figure, *, left: float, right: float, bottom: float, top: float) -> Axes:
    """Add axes to a figure; the margins are in px."""
    width, height = figure.get_size_inches() * 72
    return figure.add_axes(
        (
            left / width,
            bottom / height,
            (width - left - right) / width,
            (height - bottom - top) / height,
        )
    )


def _label_ends(
    axes: Axes, ends: Mapping[Any, float], colour: Mapping[Any, str], length: int = 14
) -> None:
    """Write the name of each line at its end; names that would overlap are moved apart."""
    low, high = axes.get_ylim()
    line_height = 14.5 / axes.get_window_extent().height
    names = sorted(ends, key=lambda name: ends[name])
    heights = np.array([(ends[name] - low) / (high - low) for name in names])
    # Push names up until none overlaps, then down again from the top of the axes.
    for n in range(1, len(heights)):
        heights[n] = max(heights[n], heights[n - 1] + line_height)
    heights[-1] = min(heights[-1], 1.0)
    for n in range(len(heights) - 2, -1, -1):
        heights[n] = min(heights[n], heights[n + 1] - line_height)
    for name, height in zip(names, heights, strict=True):
        axes.annotate(
            shorten(name, length),
            (1, height),
            (10, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=colour[name],
            va="center",
        )


def _to_svg(figure: Figure, title: str) -> str:
    """Write a figure as an SVG element that takes its colours and font from the page."""
    file = io.StringIO()
    nothing = dict.fromkeys(["Creator", "Date", "Format", "Type"])
    with mpl.rc_context({"svg.hashsalt": title}), warnings.catch_warnings():
        # The browser draws the text, in a font with more glyphs; matplotlib only measures it.
        warnings.filterwarnings("ignore", message="Glyph .* missing|.* not support .* natively")
        figure.savefig(file, format="svg", metadata=nothing)
    width, height = figure.get_size_inches() * 72
    opening = (
        f'<svg role="img" aria-label="{title}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'style="width: {width:.0f}px" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    svg = file.getvalue()
    svg = opening + svg[svg.index(">", svg.index("<svg")) + 1 :]
    # A style element, even inside an SVG, would style the whole page.
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)
    return re.sub(r"<[^>]+>", lambda tag: _page_style(tag.group()), svg)


def _page_style(tag: str) -> str:
    """Replace colours by CSS variables, and drop fonts and ids, in an SVG tag."""
    for name, placeholder in _PLACEHOLDER.items():
        tag = tag.replace(placeholder, f"var({name})")
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    # Drop the ids of a figure's parts: nothing refers to them, and all figures have the same ids.
    return re.sub(r' id="[a-z0-9.]+_\d+"', "", tag)
