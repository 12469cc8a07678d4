"""Public figures; docstrings say what each shows, and where its numbers and intervals come from."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from pandas.api.types import is_integer

from pudistill.distillation.certified_labels import accepted_curve, held_out_shares
from pudistill.distillation.noise_estimate import NoiseEstimate
from pudistill.distillation.sentences import confusions, most_involved
from pudistill.estimates.shares import exact_interval
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
from pudistill.utils.formats import shorten

ROOMY = 52.0  # points: a cell this wide has room for an interval


def transition_matrix(classifier_or_noise: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the estimated transition matrix: given labels (columns) of each true class (rows).

    Parameters
    ----------
    classifier_or_noise : PUDistillClassifier or NoiseEstimate
        A fitted or loaded classifier, or its ``noise_``.
    ax : matplotlib Axes, default=None
        Where to draw; by default the axis of a new figure.

    Returns
    -------
    ax : matplotlib Axes
        The axis. Numbers are percentages of the true class; those below 0.5 % are left out. If
        cells have room, the 95 % interval of each number is below it; all intervals are in
        ``noise_.transition_interval``. Of more than 50 classes, only the 50 in the most frequent
        confusions are drawn.

    Raises
    ------
    InputError
        If the noise was not estimated.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill import PUDistillClassifier, plots
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 300)
    >>> X, trusted = 4 * y[:, None] + rng.normal(size=(300, 2)), np.arange(300) % 5 == 0
    >>> given = np.where(trusted | (rng.random(300) > 0.3), y, 1 - y)
    >>> classifier = PUDistillClassifier(random_state=0).fit(X, given, trusted=trusted)
    >>> plots.transition_matrix(classifier).get_ylabel()
    'true class'
    """
    noise = classifier_or_noise
    if not isinstance(noise, NoiseEstimate):
        noise = _learned(classifier_or_noise, "noise_", "no estimate of the noise")
    names = [str(name) for name in noise.classes]
    T = pd.DataFrame(noise.transition_matrix, names, names).fillna(0.0)
    shown = set(most_involved(names, confusions(T, noise.class_prior)))
    rows = np.flatnonzero([name in shown for name in names])
    T = T.iloc[rows, rows].where(lambda share: share >= LEAST_DRAWN_SHARE, 0.0)
    low, high = 100 * noise.transition_interval[:, rows][:, :, rows]
    shares = 100 * T.to_numpy()
    ax = _axis(ax)
    cell = _points(ax) / len(rows)

    def write(row: int, column: int) -> str:
        share = f"{shares[row, column]:.0f}"
        if cell < ROOMY:
            return share
        return f"{share} %\n({low[row, column]:.0f} to {high[row, column]:.0f})"

    short = [shorten(name, 14) for name in T.index]
    draw_heat_map(
        ax,
        T,
        short,
        Colours.of_style(),
        strength=T.to_numpy(),
        write=write,
        corner="",
        cell=min(cell, 24.0) if cell >= ROOMY else cell,  # two lines need smaller letters
        upright=7 * max(map(len, short)) > cell,
    )
    ax.tick_params(length=0)
    ax.set(xlabel="given label", ylabel="true class", aspect="equal")
    ax.xaxis.set_label_position("top")
    return ax


def clean_set_growth(classifier: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the size of each class's clean set over the iterations of the filter.

    Parameters
    ----------
    classifier : PUDistillClassifier or TieredPUFilter
        A fitted or loaded classifier.
    ax : matplotlib Axes, default=None
        Where to draw; by default the axis of a new figure.

    Returns
    -------
    ax : matplotlib Axes
        The axis. A dotted line follows after the filter has stopped for a class. Of more than ten
        classes, the three with the largest and the three with the smallest final sets are named.
        Sizes are counts, not estimates: they have no interval.

    Raises
    ------
    InputError
        If no filter has run.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill import TieredPUFilter, plots
    >>> y = np.arange(200) % 2
    >>> X = 4.0 * y[:, None] + np.random.default_rng(0).normal(size=(200, 2))
    >>> filter = TieredPUFilter(random_state=0).fit(X, y, trusted=np.arange(200) % 10 < 2)
    >>> plots.clean_set_growth(filter).get_xlabel()
    'iteration of the filter'
    """
    of_filter = getattr(classifier, "filter_", classifier)
    history = _learned(of_filter, "history_", "no filter that has run")
    if not len(history):
        raise InputError("The filter has not run: there was nothing to filter, or it was left out.")
    ax, growth = _axis(ax), Growth.of(history)
    draw_growth(ax, growth, Colours.of_style())
    ax.set_ylabel("samples in the clean set")
    _legend_beside(ax)
    return ax


def accepted_share(classifier: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the share of wrong labels among the accepted ones, by the share that is accepted.

    Parameters
    ----------
    classifier : PUDistillClassifier
        A fitted or loaded classifier.
    ax : matplotlib Axes, default=None
        Where to draw; by default the axis of a new figure.

    Returns
    -------
    ax : matplotlib Axes
        The axis. The surest labels are accepted first. The line is the share of wrong labels among
        the held-out verified samples that are at least as sure; the band is its 95 % interval at
        each point by itself. For a promise about a set of labels, use `certify`.

    Raises
    ------
    InputError
        If no verified sample was held out, or the verified samples cannot be a random sample.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill import PUDistillClassifier, plots
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 300)
    >>> X, trusted = 4 * y[:, None] + rng.normal(size=(300, 2)), np.arange(300) % 5 == 0
    >>> given = np.where(trusted | (rng.random(300) > 0.3), y, 1 - y)
    >>> classifier = PUDistillClassifier(random_state=0).fit(X, given, trusted=trusted)
    >>> plots.accepted_share(classifier).get_xlabel()
    'share of the labels that is accepted'
    """
    curve = accepted_curve(classifier).frame()
    ax = _axis(ax)
    draw_error_curve(ax, curve, Colours.of_style())
    ax.set_ylabel("share of wrong labels among them (95 % interval)")
    return ax


def calibration(classifier: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the share of labels that is right against the probability that models give them.

    Parameters
    ----------
    classifier : PUDistillClassifier
        A fitted or loaded classifier.
    ax : matplotlib Axes, default=None
        Where to draw; by default the axis of a new figure.

    Returns
    -------
    ax : matplotlib Axes
        The axis. Each point is a bin of held-out verified samples, all bins of about the same
        size. Its x is the mean probability of their labels by models that have not seen the
        verified labels, its y the share that is right, with the exact (Clopper-Pearson) 95 %
        interval. On the dashed line, probabilities are right. The ``confidence`` in the label
        table comes from models that have seen all verified labels; this figure is about models
        that have not.

    Raises
    ------
    InputError
        If no verified sample was held out, or the verified samples cannot be a random sample.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill import PUDistillClassifier, plots
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 300)
    >>> X, trusted = 4 * y[:, None] + rng.normal(size=(300, 2)), np.arange(300) % 5 == 0
    >>> given = np.where(trusted | (rng.random(300) > 0.3), y, 1 - y)
    >>> classifier = PUDistillClassifier(random_state=0).fit(X, given, trusted=trusted)
    >>> plots.calibration(classifier).get_xlabel()
    'probability of the label'
    """
    bins = held_out_shares(classifier)
    ax, colours = _axis(ax), Colours.of_style()
    ax.plot([0, 1], [0, 1], color=colours.muted, linewidth=1, linestyle=(0, (4, 3)))
    ends = [bins["right"] - bins["low"], bins["high"] - bins["right"]]
    ax.errorbar(bins["probability"], bins["right"], yerr=ends, color=colours.series[0], fmt="o-")
    least = max(0.0, min(bins["probability"].min(), bins["low"].min()) - 0.03)
    ax.set(xlim=(least, 1.01), ylim=(least, 1.01))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    ax.set(xlabel="probability of the label", ylabel="share that is right (95 % interval)")
    return ax


def accuracy_curve(
    results: pd.DataFrame,
    *,
    n_test: int | None = None,
    names: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the test accuracy of methods against the share of wrong labels.

    Parameters
    ----------
    results : DataFrame
        One row per method and noise level, as in ``curve.parquet`` from `pudistill sweep`:
        ``method``, ``overall_level`` (share of wrong labels in the whole data set, in [0, 1]) and
        ``accuracy`` (in [0, 1]); of one kind of noise, if there is a column ``noise``. Methods that
        read no noisy label (``trusted_only``, ``true_labels``) are horizontal lines, at the mean of
        their rows.
    n_test : int, default=None
        Number of test samples. With it, each point gets the exact (Clopper-Pearson) 95 % interval
        of the accuracy of this one fitted classifier on new samples; it does not include how much
        the accuracy varies with the seed.
    names : mapping of str to str, default=None
        Names of methods in the legend, where they differ from the usual ones.
    ax : matplotlib Axes, default=None
        Where to draw; by default the axis of a new figure.

    Returns
    -------
    ax : matplotlib Axes
        The axis.

    Raises
    ------
    InputError
        If columns are missing or hold no shares, there are several kinds of noise, or `n_test` is
        no count.

    Examples
    --------
    >>> import pandas as pd
    >>> from pudistill import plots
    >>> results = pd.DataFrame(
    ...     {"overall_level": [0.3, 0.6], "method": "pudistill", "accuracy": [0.95, 0.94]}
    ... )
    >>> plots.accuracy_curve(results, n_test=500).get_xlabel()
    'wrong labels in the whole data set'
    """
    if not isinstance(results, pd.DataFrame):
        raise InputError(f"The results are of type {type(results).__name__}: pass a DataFrame.")
    missing = {"method", "overall_level", "accuracy"} - set(results)
    if missing or results.empty:
        what = f"the columns {', '.join(sorted(missing))}" if missing else "rows"
        raise InputError(f"The results lack {what}: pass those of `pudistill sweep`.")
    results = results.assign(method=results["method"].astype(str))
    for name in ("overall_level", "accuracy"):
        is_missing = results[name].isna() if name == "accuracy" else False  # a training diverged
        results[name] = pd.to_numeric(results[name], errors="coerce")
        if not (results[name].between(0, 1) | is_missing).all():
            raise InputError(f"The column {name} must hold shares from 0 to 1: write 0.95, not 95.")
    results = results[results["accuracy"].notna()]
    if results.empty:
        raise InputError("No result has an accuracy: every training diverged.")
    if n_test is not None and not (is_integer(n_test) and n_test >= 1):
        raise InputError(f"n_test is {n_test!r}: pass the number of test samples, at least 1.")
    if "noise" in results and (kinds := list(results["noise"].unique()))[1:]:
        raise InputError(
            f"The results are of {len(kinds)} kinds of noise, {', '.join(map(str, kinds))}: draw "
            f'each on an axis of its own, as in results[results["noise"] == {kinds[0]!r}].'
        )
    ax, methods = _axis(ax), list(results["method"].unique())
    looks = method_looks(methods, Colours.of_style(), names or {})
    draw_curves(ax, results, looks)
    if n_test is not None:
        for method, look in looks.items():
            _draw_ends(ax, results[results["method"] == method], n_test, look.colour)
    ax.set_ylabel("accuracy on test samples" + (" (95 % interval)" if n_test else ""))
    _legend_beside(ax)
    return ax


def _draw_ends(ax: Axes, rows: pd.DataFrame, n_test: int, colour: str) -> None:
    """Draw the intervals of one method's accuracies."""
    # Of several runs on the same test samples the mean is drawn.
    level, accuracy = rows.groupby("overall_level")["accuracy"].mean().reset_index().to_numpy().T
    ends = np.array([exact_interval(value, n_test) for value in accuracy])
    ax.vlines(level, ends[:, 0], ends[:, 1], color=colour, linewidth=1, alpha=0.7)


def _axis(ax: Axes | None) -> Axes:
    if ax is None:
        from matplotlib import pyplot as plt

        ax = plt.subplots(layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise InputError(
            f"ax is of type {type(ax).__name__}: pass one axis, such as plt.subplots()[1] or an "
            "element of an array of axes."
        )
    return ax


def _legend_beside(ax: Axes) -> None:
    """Put the legend where it hides no line."""
    legend = ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # the name of a class can be "$x$"


def _points(ax: Axes) -> float:
    """Return the smaller side of an axis in points."""
    box = ax.get_window_extent()
    return 72 * min(box.width, box.height) / ax.get_figure(root=True).dpi  # type: ignore[union-attr]


def _learned(of: Any, name: str, missing: str) -> Any:
    """Return what a fit has learned; `InputError` if it has not."""
    if (found := getattr(of, name, None)) is None:
        raise InputError(
            f"This {type(of).__name__} has {missing}: fit a PUDistillClassifier with "
            'method="default" first, or load one with pudistill.load.'
        )
    return found
