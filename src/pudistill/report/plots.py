"""The report's pictures: matplotlib figures as inline SVG, photographs as PNG data URIs.

Colours are CSS variables, so that a figure follows the page into dark mode; text stays text.
"""

import base64
import io
import re
import warnings
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from pudistill.exceptions import InputError

SOURCES = {"trusted": "--trusted", "filter": "--filter", "teacher": "--teacher", "given": "--given"}
"""Where a label can come from, and the CSS variable that holds its colour."""

SERIES = [f"--series-{n}" for n in range(10)]

# matplotlib has no notion of a CSS variable. Each one is drawn in a colour of its own that nothing
# else has, and replaced in the finished SVG.
_VARIABLES = ["--ink", "--muted", "--line", "--accent", "--on-accent", "--quiet"]
_PLACEHOLDER = {
    name: f"#0{n:02x}fe5" for n, name in enumerate([*_VARIABLES, *SOURCES.values(), *SERIES])
}
INK, MUTED, LINE, ACCENT, ON_ACCENT, QUIET = (_PLACEHOLDER[name] for name in _VARIABLES)

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # real text: small, selectable, in the page's font
    "text.parse_math": False,  # a class may be called "$x"
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

CHARACTER = 6.6  # average width of a character in px at 12 px
PAGE_WIDTH = 940
CORNER = "given ↓  new →"
MAX_NAMED_LINES = len(SERIES)


def picture_uri(picture: np.ndarray, max_size: int = 192) -> str:
    """Encode a picture as a PNG data URI.

    Parameters
    ----------
    picture : ndarray of shape (H, W), (H, W, 1) or (H, W, 3), uint8
        Grey or RGB picture.
    max_size : int, default=192
        A picture with a longer side, in pixels, is made smaller.

    Returns
    -------
    str
        ``data:image/png;base64,...``

    Raises
    ------
    InputError
        If it is no such picture.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.report.plots import picture_uri
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
    """Draw how often each given label (row) became each new label (column).

    Parameters
    ----------
    counts : DataFrame of shape (C, C), int
        Number of samples; index and columns are the same class names in the same order. The
        diagonal holds unchanged labels, which are shown, but not coloured by their number.

    Returns
    -------
    str
        SVG element.
    """
    values = counts.to_numpy()
    n = len(values)
    names = [shorten(name) for name in counts.index]
    name_width = max(map(len, names), default=0) * CHARACTER
    left = max(name_width, len(CORNER) * CHARACTER) + 8
    cell = float(np.clip((PAGE_WIDTH - left) / max(n, 1), 15, 46))
    name_size = min(12, cell * 0.7)
    upright = name_width > cell - 4
    top = name_width + 12 if upright else 24
    is_roomy = cell > 40 and values.max(initial=0) < 100_000
    is_kept = np.eye(n, dtype=bool)
    most = max(values[~is_kept].max(initial=0), 1)

    with mpl.rc_context(_STYLE):
        figure = _figure(left + n * cell + 4, top + n * cell + 4)
        axes = _axes(figure, left=left, right=4, bottom=4, top=top)
        axes.set(xlim=(0, max(n, 1)), ylim=(max(n, 1), 0))
        axes.spines[:].set_visible(False)
        axes.xaxis.tick_top()
        axes.tick_params(labelcolor=INK, labelsize=name_size)
        centres = np.arange(n) + 0.5
        axes.set_xticks(centres, names, rotation=90 if upright else 0)
        axes.set_yticks(centres, names)
        axes.annotate(
            CORNER, (0, 0), (-4, 5), textcoords="offset points", ha="right", color=MUTED, size=11
        )
        is_flip = (values > 0) & ~is_kept
        # Square root: a few flips remain visible beside the most frequent ones.
        strength = np.where(is_flip, 0.08 + 0.92 * np.sqrt(values / most), 0)
        colours = np.where(is_flip[..., None], to_rgb(ACCENT), to_rgb(QUIET))
        opacity = np.where(is_flip, strength, np.where(is_kept, 1.0, 0.45))
        rows, columns = np.indices((n, n))
        corner = np.stack([columns, rows], axis=-1).reshape(-1, 1, 2)
        squares = corner + np.array([[0.03, 0.03], [0.97, 0.03], [0.97, 0.97], [0.03, 0.97]])
        fills = np.dstack([colours, opacity]).reshape(-1, 4)
        axes.add_collection(PolyCollection(squares, facecolors=fills, linewidths=0), autolim=False)
        for row, column in np.argwhere(values):
            kept, strong = is_kept[row, column], strength[row, column] > 0.6
            axes.text(
                column + 0.5,
                row + 0.53,
                f"{values[row, column]:,}" if is_roomy else compact(values[row, column]),
                fontsize=min(12.0, cell * 0.42),
                color=MUTED if kept else ON_ACCENT if strong else INK,
                ha="center",
                va="center",
            )
        return _to_svg(figure, "Heat map of given and new labels")


def growth_lines(history: pd.DataFrame) -> str:
    """Draw the size of each class's clean set over the filter's iterations.

    Parameters
    ----------
    history : DataFrame
        One row per class and iteration: ``class_name``, ``iteration``, ``n_clean``.

    Returns
    -------
    str
        SVG element. Up to ten classes get a colour and their name at the end of their line; of
        more, only the three that ended largest and the three that ended smallest are named.
    """
    history = history.sort_values("iteration", kind="stable")
    points = history[["iteration", "n_clean"]].to_numpy(dtype=float)
    by_class = history.groupby("class_name", sort=False, observed=True).indices
    lines = {name: points[rows] for name, rows in by_class.items()}
    ends = {name: line[-1, 1] for name, line in lines.items()}
    ranked = sorted(ends, key=lambda name: ends[name])
    few = len(lines) <= MAX_NAMED_LINES
    named = [name for name in lines if few or name in {*ranked[:3], *ranked[-3:]}]
    colour = {name: _PLACEHOLDER[series] for name, series in zip(named, SERIES, strict=False)}
    last = max(line[-1, 0] for line in lines.values())

    most = max(line[:, 1].max() for line in lines.values())
    name_width = max(len(shorten(name, 14)) for name in named) * CHARACTER
    with mpl.rc_context(_STYLE):
        figure = _figure(440, 300)
        axes = _axes(figure, left=44, right=name_width + 14, bottom=44, top=10)
        axes.grid(axis="y")
        axes.set(xlim=(0.95, last) if last > 1 else (0.5, 1.5), ylim=(0, max(most, 1) * 1.06))
        axes.set_xticks(range(1, int(last) + 1, max(1, int(last) // 10)))
        axes.set_xlabel("iteration of the filter")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_formatter(lambda value, _: compact(value))
        faint = [line for name, line in lines.items() if name not in colour]
        axes.add_collection(LineCollection(faint, colors=MUTED, linewidths=1, alpha=0.35))
        for name in named:
            line = lines[name]
            look: dict[str, Any] = {"color": colour[name], "linewidth": 2, "clip_on": False}
            axes.plot(*line.T, **look, marker="o", markersize=5, markeredgewidth=0)
            if line[-1, 0] < last:  # it had settled: nothing changed any more
                axes.plot([line[-1, 0], last], line[[-1, -1], 1], **look, linestyle=(0, (0.6, 2)))
        _label_ends(axes, {name: ends[name] for name in named}, colour)
        return _to_svg(figure, "Line chart of the clean set by class and iteration")


def confidence_histograms(labels: pd.DataFrame) -> str:
    """Draw how confident the label is, one strip per source of labels.

    Parameters
    ----------
    labels : DataFrame
        Columns ``source`` and ``confidence``, the latter in [0, 1]; without missing values.

    Returns
    -------
    str
        SVG element. Each strip has its own vertical scale: few teacher labels stay visible beside
        many filtered ones.
    """
    present = [source for source in SOURCES if (labels["source"] == source).any()]
    strip, below = 62, 50
    height = strip * len(present) + below
    with mpl.rc_context(_STYLE):
        figure = _figure(440, height)
        for row, source in enumerate(present):
            confidence = labels.loc[labels["source"] == source, "confidence"].to_numpy(dtype=float)
            lowest = row == len(present) - 1
            axes = _axes(
                figure,
                left=76,
                right=10,
                bottom=below - 4 + strip * (len(present) - 1 - row),
                top=strip * row + 14,
            )
            counts, edges = np.histogram(np.clip(confidence, 0, 1), bins=25, range=(0, 1))
            colour = _PLACEHOLDER[SOURCES[source]]
            axes.bar(edges[:-1] + 0.02, counts, width=0.034, color=colour, linewidth=0)
            axes.set(xlim=(0, 1), ylim=(0, counts.max() * 1.05), yticks=[])
            axes.set_xticks(np.linspace(0, 1, 6))
            axes.tick_params(labelbottom=lowest)
            place: dict[str, Any] = {
                "xy": (0, 0.42),
                "xycoords": "axes fraction",
                "textcoords": "offset points",
            }
            axes.annotate(source, xytext=(-10, 2), ha="right", va="bottom", **place)
            number = f"{len(confidence):,}"
            axes.annotate(number, xytext=(-10, 0), ha="right", va="top", color=MUTED, **place)
        if present:
            axes.set_xlabel("confidence in the label")
        return _to_svg(figure, "Histograms of confidence by source")


def shorten(name: object, length: int = 18) -> str:
    """Cut a name that is too long for a figure, and keep it on one line."""
    text = " ".join(str(name).split()) or "(empty)"
    return text if len(text) <= length else text[: length - 1] + "…"


def compact(count: float) -> str:
    """Write a count in at most four characters: 987, 1.2k, 15k, 3.4M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if count >= size * 0.9995:
            return f"{count / size:.{int(count < 9.95 * size)}f}".removesuffix(".0") + unit
    return f"{count:.0f}"


def _figure(width: float, height: float) -> Figure:
    """Make an empty figure of a size in px."""
    return Figure(figsize=(width / 72, height / 72), facecolor="none")


def _axes(figure: Figure, *, left: float, right: float, bottom: float, top: float) -> Axes:
    """Put axes into a figure, with margins in px."""
    width, height = figure.get_size_inches() * 72
    return figure.add_axes(
        (
            left / width,
            bottom / height,
            (width - left - right) / width,
            (height - bottom - top) / height,
        )
    )


def _label_ends(axes: Axes, ends: Mapping[Any, float], colour: Mapping[Any, str]) -> None:
    """Write each line's name at its end, moved apart where names would overlap."""
    low, high = axes.get_ylim()
    line_height = 14.5 / axes.get_window_extent().height
    names = sorted(ends, key=lambda name: ends[name])
    place = np.array([(ends[name] - low) / (high - low) for name in names])
    # Pushed up to stand one above the other, then down again from the top.
    for n in range(1, len(place)):
        place[n] = max(place[n], place[n - 1] + line_height)
    place[-1] = min(place[-1], 1.0)
    for n in range(len(place) - 2, -1, -1):
        place[n] = min(place[n], place[n + 1] - line_height)
    for name, height in zip(names, place, strict=True):
        axes.annotate(
            shorten(name, 14),
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
        # matplotlib measures text in its own font; the browser draws it, and knows more scripts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
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
    """Replace what matplotlib fixes in an SVG tag and the page shall decide."""
    for name, placeholder in _PLACEHOLDER.items():
        tag = tag.replace(placeholder, f"var({name})")
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    # Names of a figure's parts: nothing refers to them, and they repeat in every figure.
    return re.sub(r' id="[a-z0-9.]+_\d+"', "", tag)
