"""What figures draw on an axis, for those of `pudistill.plots` and those of the report alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.ticker import MaxNLocator

from pudistill.methods.registry import OURS, SYSTEMS, title_of
from pudistill.utils.formats import compact, shorten

MAX_NAMED_LINES = 10
LONGEST_IN_LEGEND = 40  # characters
LEAST_DRAWN_SHARE = 0.005  # smaller shares would be written as 0 %

# Colours of methods without a colour in the registry; colours that the registry uses come last.
_UNASSIGNED_COLOURS = [f"series-{n}" for n in (5, 6, 7, 8, 9, 2, 0, 3)]


@dataclass(frozen=True)
class Colours:
    """The colours of a figure.

    Attributes
    ----------
    ink, muted : colour
        Of texts, and of texts that matter less.
    accent, on_accent : colour
        Of what the figure is about, and of text on it.
    quiet : colour
        Of areas in the background.
    series : sequence of colour
        Of lines.
    """

    ink: str
    muted: str
    accent: str
    on_accent: str
    quiet: str
    series: Sequence[str]

    @classmethod
    def of_style(cls) -> "Colours":
        """Return the colours of matplotlib's present style."""
        ink, page = mpl.rcParams["text.color"], mpl.rcParams["axes.facecolor"]
        page = "white" if page == "none" else page
        series = [to_hex(look.get("color", ink)) for look in mpl.rcParams["axes.prop_cycle"]]
        accent = series[1 % len(series)]
        is_bright = np.dot(to_rgb(accent), (0.299, 0.587, 0.114)) > 0.6
        pairs = zip(to_rgb(page), to_rgb(ink), strict=True)
        red, green, blue = (0.88 * light + 0.12 * dark for light, dark in pairs)
        quiet = to_hex((red, green, blue))
        on_accent = "black" if is_bright else "white"
        return cls(ink, mpl.rcParams["axes.labelcolor"], accent, on_accent, quiet, series)

    def named(self, name: str) -> str:
        """Return a colour by its name in the registry of methods."""
        if name.startswith("series-"):
            return self.series[int(name.removeprefix("series-")) % len(self.series)]
        return getattr(self, name)


def draw_heat_map(
    axes: Axes,
    table: pd.DataFrame,
    names: Sequence[str],
    colours: Colours,
    *,
    strength: np.ndarray,
    write: Callable[[int, int], str],
    corner: str,
    cell: float,
    upright: bool,
) -> None:
    """Draw a square table of confusions, coloured by `strength` off its diagonal.

    Parameters
    ----------
    axes : Axes
        Where to draw.
    table : DataFrame of shape (C, C)
        Counts or shares; those that are not 0 are written.
    names : sequence of str
        Names of rows and columns.
    colours : Colours
        The colours.
    strength : ndarray of shape (C, C)
        From 0 to 1.
    write : callable
        Takes row and column, and returns the text of the cell.
    corner : str
        What rows and columns are.
    cell : float
        Width of a cell in points.
    upright : bool
        Whether names of columns are turned by 90 degrees.
    """
    # 1. Names of the classes.
    values = table.to_numpy()
    n, is_kept = len(values), np.eye(len(values), dtype=bool)
    axes.set(xlim=(0, max(n, 1)), ylim=(max(n, 1), 0))
    axes.spines[:].set_visible(False)
    axes.xaxis.tick_top()
    axes.tick_params(labelcolor=colours.ink, labelsize=min(12, cell * 0.7))
    centres = np.arange(n) + 0.5
    axes.set_xticks(centres, names, rotation=90 if upright else 0)
    axes.set_yticks(centres, names)
    for label in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        label.set_parse_math(False)  # the name of a class can be "$x$"
    place: dict[str, Any] = {"textcoords": "offset points", "ha": "right"}
    axes.annotate(corner, (0, 0), (-4, 5), **place, color=colours.muted, size=11)
    # 2. A square for each cell.
    is_flip = (values > 0) & ~is_kept
    # The square root keeps rare flips visible beside the most frequent ones.
    opacity = np.where(is_kept, 1.0, 0.45)
    opacity[is_flip] = 0.08 + 0.92 * np.sqrt(strength[is_flip])
    fill = np.where(is_flip[..., None], to_rgb(colours.accent), to_rgb(colours.quiet))
    rows, columns = np.indices((n, n))
    corners = np.stack([columns, rows], axis=-1).reshape(-1, 1, 2)
    squares = corners + np.array([[0.03, 0.03], [0.97, 0.03], [0.97, 0.97], [0.03, 0.97]])
    fills = np.dstack([fill, opacity]).reshape(-1, 4)
    axes.add_collection(PolyCollection(squares, facecolors=fills, linewidths=0), autolim=False)
    # 3. The number in each cell that is not 0.
    for row, column in np.argwhere(values):
        is_strong = is_flip[row, column] and opacity[row, column] > 0.6
        of_change = colours.on_accent if is_strong else colours.ink
        axes.text(
            column + 0.5,
            row + 0.53,
            write(row, column),
            fontsize=min(12.0, cell * 0.42),
            color=colours.muted if is_kept[row, column] else of_change,
            ha="center",
            va="center",
        )


def in_legend(name: object) -> str:
    """Return the label of a line; matplotlib leaves lines out whose labels begin with a "_"."""
    label = shorten(name, LONGEST_IN_LEGEND)
    return f" {label}" if label.startswith("_") else label


class Growth(NamedTuple):
    """The lines of a figure of growing clean sets.

    Attributes
    ----------
    lines : dict of str to ndarray of shape (n_iterations, 2)
        Iterations and sizes by class.
    named : list of str
        Classes whose lines have a colour and a name: all, or, of more than ten, the three with the
        largest and the three with the smallest final sets.
    """

    lines: dict[str, np.ndarray]
    named: list[str]

    @classmethod
    def of(cls, history: pd.DataFrame) -> "Growth":
        """Sort the history of a filter by class: ``class_name``, ``iteration`` and ``n_clean``."""
        history = history.sort_values("iteration", kind="stable")
        points = history[["iteration", "n_clean"]].to_numpy(dtype=float)
        by_class = history.groupby("class_name", sort=False, observed=True).indices
        lines = {str(name): points[rows] for name, rows in by_class.items()}
        ranked = sorted(lines, key=lambda name: lines[name][-1, 1])
        few = len(lines) <= MAX_NAMED_LINES
        return cls(lines, [n for n in lines if few or n in {*ranked[:3], *ranked[-3:]}])


def draw_growth(axes: Axes, growth: Growth, colours: Colours) -> dict[str, str]:
    """Draw the size of each class's clean set by iteration; return the colours of the lines."""
    lines = growth.lines
    colour = dict(zip(growth.named, cycle(colours.series), strict=False))
    last = max(line[-1, 0] for line in lines.values())
    most = max(line[:, 1].max() for line in lines.values())
    axes.grid(axis="y")
    axes.set(xlim=(0.95, last) if last > 1 else (0.5, 1.5), ylim=(0, max(most, 1) * 1.06))
    axes.set_xticks(range(1, int(last) + 1, max(1, int(last) // 10)))
    axes.set_xlabel("iteration of the filter")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: compact(value))
    faint = [line for name, line in lines.items() if name not in colour]
    axes.add_collection(LineCollection(faint, colors=colours.muted, linewidths=1, alpha=0.35))
    for name in growth.named:
        line = lines[name]
        look: dict[str, Any] = {"color": colour[name], "linewidth": 2, "clip_on": False}
        axes.plot(
            *line.T, **look, marker="o", markersize=5, markeredgewidth=0, label=in_legend(name)
        )
        if line[-1, 0] < last:  # the filter stopped for the class: the set stays the same
            axes.plot([line[-1, 0], last], line[[-1, -1], 1], **look, linestyle=(0, (0.6, 2)))
    return colour


def draw_error_curve(axes: Axes, curve: pd.DataFrame, colours: Colours) -> None:
    """Draw the share of wrong labels, with its interval, against the share that is accepted.

    Parameters
    ----------
    axes : Axes
        Where to draw.
    curve : DataFrame
        Columns ``share``, ``error``, ``low`` and ``high``, all from 0 to 1; at least one row.
    colours : Colours
        The colours.
    """
    share, error, colour = curve["share"], curve["error"], colours.series[0]
    axes.grid(axis="y")
    axes.fill_between(share, curve["low"], curve["high"], color=colour, alpha=0.2, linewidth=0)
    axes.plot(share, error, color=colour, linewidth=2)
    most = min(1.0, max(0.05, 1.05 * curve["high"].max()))  # the whole band
    axes.set(xlim=(0, 1), ylim=(0, most), xlabel="share of the labels that is accepted")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda share, _: f"{100 * share:g} %")


class Look(NamedTuple):
    """How the line of a method looks."""

    name: str
    colour: str
    dashes: tuple | str


def method_looks(
    methods: Sequence[str], colours: Colours, names: Mapping[str, str]
) -> dict[str, Look]:
    """Choose name, colour and line of each method; methods with a registered colour come first."""
    looks = {
        method: Look(names.get(method, system.short_title), colours.named(system.colour), "-")
        for method, system in SYSTEMS.items()
        if method in methods and system.colour is not None
    }
    others = [method for method in methods if method not in looks]
    for n, method in enumerate(others):
        colour = colours.named(_UNASSIGNED_COLOURS[n % len(_UNASSIGNED_COLOURS)])
        # When the colours are used up, the next methods get dashed lines.
        dashes = "-" if n < len(_UNASSIGNED_COLOURS) else (0, (4, 1.5))
        looks[method] = Look(names.get(method, title_of(method)), colour, dashes)
    return looks


def draw_curves(axes: Axes, results: pd.DataFrame, looks: Mapping[str, Look]) -> dict[str, float]:
    """Draw one line per method; return the accuracy at the end of each line.

    `results` is that of `accuracy_curve` in `pudistill.plots`, of one kind of noise.
    """
    ends = {}
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    axes.set_xlabel("wrong labels in the whole data set")
    levels = results["overall_level"]
    margin = 0.02 * max(levels.max() - levels.min(), 0.05)
    axes.set_xlim(levels.min() - margin, levels.max() + margin)
    for method, look in looks.items():
        line = results.loc[results["method"] == method, ["overall_level", "accuracy"]]
        if line.empty:
            continue
        level, accuracy = line.groupby("overall_level").mean().reset_index().to_numpy().T
        if method in SYSTEMS and not SYSTEMS[method].reads_noisy_labels:
            ends[method] = accuracy.mean()
            axes.axhline(
                ends[method],
                color=look.colour,
                linewidth=1.5,
                linestyle=(0, (4, 3)),
                label=in_legend(look.name),
            )
        else:
            ends[method] = accuracy[-1]
            is_ours = method == OURS
            axes.plot(
                level,
                accuracy,
                label=in_legend(look.name),
                color=look.colour,
                linestyle=look.dashes,
                linewidth=2.6 if is_ours else 1.8,
                marker="o",
                markersize=6 if is_ours else 4.5,
                markeredgewidth=0,
                clip_on=False,
                zorder=3 if is_ours else 2,
            )
    return ends
