"""The report of a sweep: the accuracy of each method at each noise level."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from pudistill.methods.registry import OURS, SYSTEMS, title_of
from pudistill.runs.report import plots
from pudistill.runs.report.pages import fill
from pudistill.utils.formats import flatten, percent, percent_range

SHOWN_ELSEWHERE = {"n_samples", "n_trusted", "n_classes", "n_test", "versions", "warnings"}


@dataclass(frozen=True)
class CurveSummary:
    """The contents of a sweep's report.

    Attributes
    ----------
    title : str
        Name of the data.
    results : DataFrame
        One row per noise setting and method, with the columns of `plots.accuracy_curve` and
        ``level``, the requested noise level.
    metrics : dict
        ``n_samples``, ``n_trusted``, ``n_classes``, ``n_test`` and ``versions``; all others are
        listed by name.
    settings : dict
        The run's settings.
    notes : list of str
        Warnings at the top of the page.
    """

    title: str
    results: pd.DataFrame
    metrics: dict[str, Any]
    settings: dict[str, Any]
    notes: list[str]


def render_curve(summary: CurveSummary) -> str:
    """Return the report of a sweep.

    Parameters
    ----------
    summary : CurveSummary
        The contents.

    Returns
    -------
    str
        HTML document without scripts or external resources; text from the data is escaped.

    Examples
    --------
    >>> import pandas as pd
    >>> from pudistill.runs.report.curve_page import CurveSummary, render_curve
    >>> results = pd.DataFrame(
    ...     {"noise": "symmetric", "level": [0.3, 0.6], "overall_level": [0.27, 0.54],
    ...      "method": "pudistill", "accuracy": [0.95, 0.94]}
    ... )
    >>> metrics = {"n_samples": 100, "n_trusted": 10, "n_classes": 10, "n_test": 50}
    >>> "94.0&nbsp;%" in render_curve(CurveSummary("digits", results, metrics, {}, []))
    True
    """
    metrics = summary.metrics
    numbers = {name: metrics[name] for name in metrics if name not in SHOWN_ELSEWHERE}
    return fill(
        "curve.html",
        title=summary.title,
        headline=_headline(summary.results),
        counts={name: metrics[name] for name in ("n_samples", "n_trusted", "n_classes", "n_test")},
        notes=summary.notes,
        figure=Markup(plots.accuracy_curve(summary.results)),
        tables=[
            _table(kind, results)
            for kind, results in summary.results.groupby("noise", sort=False, observed=True)
        ],
        settings=dict(flatten(summary.settings)),
        numbers=dict(flatten(numbers)),
        versions=dict(flatten(metrics.get("versions") or {})),
    )


def _headline(results: pd.DataFrame) -> Markup:
    """Return the range of pudistill's accuracy over all noise settings."""
    ours = results[results["method"] == OURS]
    if ours.empty:
        return Markup("Accuracy against noise level")
    accuracy, level = ours["accuracy"], ours["overall_level"]
    return Markup("{} accuracy with {} of the labels wrong").format(
        percent_range(accuracy.min(), accuracy.max(), 1), percent_range(level.min(), level.max())
    )


def _table(kind: Any, results: pd.DataFrame) -> dict[str, Any]:
    """Return the table of a kind of noise: a column for each level, a row for each method."""
    overall = results.groupby("level")["overall_level"].mean()
    accuracy = results.pivot_table(index="method", columns="level", values="accuracy")
    known = [method for method in SYSTEMS if method in accuracy.index]
    others = [method for method in accuracy.index if method not in SYSTEMS]
    accuracy = accuracy.loc[known + others]
    best = accuracy.drop(index="true_labels", errors="ignore").max()
    return {
        "kind": kind,
        "levels": [percent(level) for level in overall.index],
        "overall": [percent(share) for share in overall],
        "rows": [_row(str(method), values, best) for method, values in accuracy.iterrows()],
    }


def _row(method: str, accuracy: "pd.Series[float]", best: "pd.Series[float]") -> Mapping[str, Any]:
    is_ceiling = method == "true_labels"
    return {
        "name": title_of(method),
        "is_ours": method == OURS,
        "cells": [
            {"accuracy": percent(value, 1), "is_best": value == best.get(level) and not is_ceiling}
            for level, value in accuracy.items()
        ],
    }
