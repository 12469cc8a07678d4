"""The report of a run: one self-contained HTML file that opens offline."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from pudistill.distillation.sentences import most_involved
from pudistill.methods.registry import METHODS, OURS, SYSTEMS
from pudistill.runs.report import plots
from pudistill.runs.report.changes import Changes, as_json
from pudistill.runs.report.counts import LabelCounts
from pudistill.runs.report.pages import fill
from pudistill.runs.report.sections import (
    adapted_section,
    certificates_section,
    expectation_section,
    filter_section,
    noise_section,
    sources_section,
)
from pudistill.utils.formats import (
    LONGEST_SENTENCE,
    flatten,
    integer,
    joined_by_and,
    percent,
    shortened,
)

LABEL_COLUMNS = {
    "id": "The sample's id in the data, or its file name or row number.",
    "given": "The label in the data.",
    "trusted": "Whether the label was verified beforehand; then label is the verified one.",
    "label": "The corrected label: use this one.",
    "changed": "Whether label differs from given.",
    "source": "The source of the label: trusted (it was verified), filter (enough members of the "
    "filter voted for it), teacher (the teachers were sure enough), student (the student weighed "
    "the given label and found another one more likely), model (the classifier of another method "
    "predicts it), given (it was not changed).",
    "confidence": "Probability that the label is right, from 0 to 1; 1 if trusted.",
    "given_quality": "Probability that the given label is right, from 0 to 1; empty if there is "
    "none. Sort by it, the lowest first, to find wrong labels.",
    "outlier_score": "How unlike the trusted samples of every class the sample is, from 0 to 1: "
    "0.99 means farther from the nearest of them than 99 % of held-out trusted samples are.",
    "outlier": "Whether the sample is so far from them that it probably is of no class.",
    "votes": "How many members of the filter voted for the label; empty if voting stopped early.",
}

# Metrics that the page shows elsewhere, and ``unknown_noise``, an estimate that says nothing: the
# list of numbers leaves them out.
IN_SECTIONS = {
    "adapted",
    "certificates",
    "class_accuracy",
    "classes",
    "comparison",
    "expected_accuracy",
    "expected_label_accuracy",
    "filter_settings",
    "noise",
    "test_accuracy",
    "unknown_noise",
    "versions",
    "warnings",
}
HISTORY_COLUMNS = ["class_name", "iteration", "n_positives", "n_clean", "seconds"]
MAX_FLIPS = 12
SMALL_PICTURE = 64  # px; smaller pictures are enlarged without smoothing
MAX_TABLE_ROWS = 1000


@dataclass(frozen=True)
class RunSummary:
    """The contents of a report.

    Attributes
    ----------
    title : str
        Title of the page.
    labels : LabelCounts
        What the report shows of the label table.
    history : DataFrame
        One row per class and iteration of the filter: ``class_name``, ``iteration`` (from 1),
        ``n_positives``, ``n_clean`` (size of the clean set) and ``seconds``. Empty if the filter
        did not run.
    metrics : dict
        All metrics, shown by name. The following have sections of their own, if present:

        - ``test_accuracy``: accuracies in [0, 1] by name, a name in `SYSTEMS`.
        - ``expected_accuracy``: ``value``, ``interval`` ([low, high]), ``n``, the number of
          held-out trusted samples, and ``metric``.
        - ``expected_label_accuracy``: the same of the corrected labels.
        - ``class_accuracy``: a dict for each class, with ``class_name``, ``n`` (its verified
          samples), ``before`` and ``after`` (shares of their labels that are right as given and
          when corrected), ``low`` and ``high`` (95 % interval of ``after``), ``gained`` and
          ``lost`` (labels that became right, and wrong) and ``is_harmed``; see
          ``PUDistillClassifier.class_accuracy_``.
        - ``certificates``: ``n_samples``, ``by_max_error`` (for each ``max_error``: ``n_accepted``,
          ``n_verified``, ``n_wrong`` and ``more_verified``) and ``curve`` (lists ``share``,
          ``error``, ``low`` and ``high``); or only ``refused``, the reason.
        - ``comparison``: ``candidates`` (``name``, ``accuracy``, ``log_loss`` and ``score``),
          ``shipped`` (the name of the candidate that predicts), ``why`` (a sentence), ``target``
          and ``n`` (kind and number of the samples of the comparison).
        - ``noise``: ``rate``, ``rate_interval`` ([low, high]); by class, in the order of `classes`:
          ``class_rate``, ``class_rate_interval`` and ``class_prior``; ``transition_matrix`` (row:
          true class, column: given label) and ``transition_interval`` ([low, high], each a matrix);
          ``basis`` (what the estimate rests on), ``per_source`` (the noise of each of several
          sources, or None) and ``warnings``; see `NoiseEstimate.to_dict`.
        - ``adapted``: quantities that were fitted to the data; see
          ``PUDistillClassifier.adapted_``.
        - ``filter_settings``: a dict for each class, with ``class_name``, ``threshold``,
          ``min_votes``, ``n_members``, ``precision`` (or None) and ``n_clean``.
        - ``versions``: package and version.
    settings : dict
        The run's settings.
    classes : list of str
        Class names, in the order in which figures show them.
    pictures : dict of str to ndarray of shape (H, W) or (H, W, 3), uint8
        Pictures by id, for the gallery of changed samples. Without pictures, the changed samples
        are a table.
    notes : list of str
        Warnings at the top of the page.
    texts : dict of str to str, optional
        Texts by id, for the table of changed samples.
    changes : Changes, optional
        All changed samples, for a table that sorts, filters and collects corrections.
    """

    title: str
    labels: LabelCounts
    history: pd.DataFrame
    metrics: dict[str, Any]
    settings: dict[str, object]
    classes: list[str]
    pictures: dict[str, np.ndarray]
    notes: list[str]
    texts: dict[str, str] = field(default_factory=dict)
    changes: Changes | None = None


def render(summary: RunSummary) -> str:
    """Return the report of a run.

    Parameters
    ----------
    summary : RunSummary
        Contents of the report.

    Returns
    -------
    str
        HTML document without any external resource; text from the data is escaped. Its only script
        is that of the table of changed samples, and without it the surest of them are shown.

    Raises
    ------
    InputError
        If a picture is not uint8 of shape (H, W) or (H, W, 3).

    Examples
    --------
    >>> import pandas as pd
    >>> from pudistill.runs.report.counts import count_labels
    >>> from pudistill.runs.report.html import RunSummary, render
    >>> table = pd.DataFrame(
    ...     {"id": ["a.png", "b.png"], "given": ["cat", "cat"], "trusted": [True, False],
    ...      "label": ["cat", "dog"], "changed": [False, True], "source": ["trusted", "filter"],
    ...      "confidence": [1.0, 0.93], "votes": pd.array([None, 20], dtype="Int64")}
    ... )
    >>> labels = count_labels([table])
    >>> page = render(RunSummary("pets", labels, pd.DataFrame(), {}, {}, ["cat", "dog"], {}, []))
    >>> "1 of 2 given labels was changed (50&nbsp;%)" in page
    True
    """
    changes = _table_of_changes(summary)  # corrections name samples and classes in full
    summary = _with_short_names(summary)
    labels = summary.labels
    versions = summary.metrics.get("versions") or {}
    numbers = {name: value for name, value in summary.metrics.items() if name not in IN_SECTIONS}
    return fill(
        "report.html",
        title=summary.title,
        headline=_headline(labels),
        n_samples=labels.n_samples,
        n_trusted=labels.n_trusted,
        n_classes=len(summary.classes),
        sources=_source_counts(labels),
        notes=summary.notes,
        sections={name: prepare(summary) for name, prepare in SECTIONS.items()},
        changes=changes,
        settings=dict(flatten(summary.settings)),
        numbers=dict(flatten(numbers)),
        versions=dict(flatten(versions)),
    )


def _with_short_names(summary: RunSummary) -> RunSummary:
    """Shorten long texts, and give the history all of its columns."""
    metrics = shortened(summary.metrics, LONGEST_SENTENCE)
    metrics["filter_settings"] = shortened(metrics.get("filter_settings"))
    return replace(
        summary,
        history=shortened(summary.history)
        .reindex(columns=HISTORY_COLUMNS)
        .dropna(subset=["n_clean"]),
        metrics=metrics,
        classes=shortened(summary.classes),
        pictures={shortened(name): picture for name, picture in summary.pictures.items()},
        texts={shortened(name): text for name, text in summary.texts.items()},
        notes=shortened(summary.notes, LONGEST_SENTENCE),
    )


def _table_of_changes(summary: RunSummary) -> dict[str, Any] | None:
    """Prepare the table of all changed samples, if the run has it."""
    changes, none = summary.changes, summary.settings.get("no_class_label")
    if changes is None:
        return None
    rows = changes.rows()
    none = None if none is None else str(none)
    data = as_json(changes, rows, summary.classes, summary.texts, summary.pictures, none)
    return {
        "data": Markup(data),
        "n_rows": len(rows),
        "n_changed": changes.n_changed,
        "has_texts": bool(summary.texts),
        "n_pictures": rows["id"].astype(str).isin(summary.pictures).sum(),
        "no_class_label": none,
    }


def _headline(labels: LabelCounts) -> Markup:
    n_given, n_changed = labels.n_given, labels.n_changed
    if not labels.n_samples:
        return Markup("There are no labels to report")
    if not n_changed:
        return Markup("None of the {} given labels was changed").format(integer(n_given))
    share, verb = percent(n_changed / max(n_given, 1)), "was" if n_changed == 1 else "were"
    return Markup("{} of {} given labels {} changed ({})").format(
        integer(n_changed), integer(n_given), verb, share
    )


def _source_counts(labels: LabelCounts) -> list[dict[str, Any]]:
    """Count the labels that each source decided, and how many of them changed."""
    counts = {
        name: [labels.sources[name, changed] for changed in (False, True)] for name in plots.SOURCES
    }
    return [
        {"name": name, "count": sum(both), "changed": both[1]}
        for name, both in counts.items()
        if sum(both)
    ]


def accuracy_section(summary: RunSummary) -> dict[str, Any] | None:
    """Prepare the section on the test accuracy."""
    accuracy = _accuracies(summary.metrics.get("test_accuracy") or {})
    if not accuracy:
        return None
    method = str(summary.settings.get("method"))
    own = method if method in METHODS else OURS
    return {
        "accuracy": accuracy,
        "titles": {name: system.title for name, system in SYSTEMS.items()},
        "own": own,
        "comparison": _comparison(accuracy, own),
    }


def _accuracies(test_accuracy: Mapping[str, float]) -> dict[str, float]:
    """Return the known test accuracies in the order of `SYSTEMS`."""
    return {
        name: float(test_accuracy[name])
        for name in SYSTEMS
        if test_accuracy.get(name) is not None and np.isfinite(test_accuracy[name])
    }


def _comparison(accuracy: Mapping[str, float], own: str) -> Markup | None:
    """Compare the accuracy of the run's classifier with the others, in a sentence."""
    others = {name: value for name, value in accuracy.items() if name != own}
    if not others or len(others) == len(accuracy):
        return None
    ours = accuracy[own]
    parts = []
    for name, value in others.items():
        points = f"{abs(100 * (ours - value)):.1f} points {'above' if ours > value else 'below'}"
        distance = "level with" if points.startswith("0.0") else points
        title = SYSTEMS[name].title
        parts.append(f"{distance} {'one ' if title.startswith('trained') else ''}{title}")
    return Markup("The classifier of {} is {}.").format(SYSTEMS[own].title, joined_by_and(parts))


def changes_section(summary: RunSummary) -> dict[str, Any] | None:
    """Prepare the section that counts changes by given and new label."""
    pairs = summary.labels.pairs
    flips = [(given, label, n) for (given, label, changed), n in pairs.items() if changed]
    if not flips:
        return None
    flips.sort(key=lambda flip: (-flip[2], flip[:2]))  # the most frequent pair comes first
    matrix = _flip_matrix(pairs, np.array([flip[:2] for flip in flips]), summary.classes)
    return {
        "heat_map": Markup(plots.flip_heat_map(matrix)),
        "wide": len(matrix) > 12,
        "n_drawn": len(matrix),
        "flips": [
            {"given": given, "label": label, "count": count}
            for given, label, count in flips[:MAX_FLIPS]
        ],
        "n_flips": len(flips),
    }


def _flip_matrix(pairs: Counter, flips: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """Count pairs of given and new labels; at most 50 classes, those in the most frequent flips."""
    found = [name for column in (0, 1) for name in (pair[column] for pair in pairs)]
    names = most_involved(list(dict.fromkeys([*map(str, classes), *found])), flips)
    position = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=int)
    for (given, label, _), count in pairs.items():
        if given in position and label in position:
            counts[position[given], position[label]] += count
    return pd.DataFrame(counts, names, names)


def curves_section(summary: RunSummary) -> dict[str, Any] | None:
    """Prepare the figures of the clean set's growth and of the labels' confidence."""
    history = summary.history
    confidence = summary.labels.confidence
    if history.empty and not confidence:
        return None
    return {
        "growth": Markup(plots.growth_lines(history)) if len(history) else None,
        "clean_sets": _clean_sets(history).head(MAX_TABLE_ROWS).to_dict("records"),
        "histograms": Markup(plots.confidence_histograms(confidence)) if confidence else None,
    }


def _clean_sets(history: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each class: its iterations, final sizes and seconds."""
    return (
        history.sort_values("iteration")
        .groupby("class_name", sort=False, observed=True)
        .agg(
            iterations=("iteration", "max"),
            n_positives=("n_positives", "last"),
            n_clean=("n_clean", "last"),
            seconds=("seconds", "sum"),
        )
        .reset_index()
    )


def samples_section(summary: RunSummary) -> dict[str, Any] | None:
    """Prepare the changed samples to show: those with a picture or text, if there are any.

    Verified samples are left out, because nobody needs to check them again.
    """
    labels = summary.labels
    if labels.surest.empty:
        return None
    parts = {"The surest changes": labels.surest}
    if len(labels.least_sure):
        parts["The least sure changes"] = labels.least_sure.iloc[::-1]
    galleries = [
        {"title": title, "samples": [_sample(row, summary) for row in rows.to_dict("records")]}
        for title, rows in parts.items()
    ]
    return {"galleries": galleries}


def unlike_section(summary: RunSummary) -> dict[str, Any] | None:
    """Prepare the list of the samples that are most unlike the trusted samples of every class."""
    unlike = summary.labels.unlike
    if unlike.empty:
        return None
    return {
        "n_outliers": summary.labels.n_outliers,
        "samples": [_sample(row, summary) for row in unlike.to_dict("records")],
        "no_class_label": summary.settings.get("no_class_label"),
    }


def _sample(row: Mapping[Any, Any], summary: RunSummary) -> dict[str, Any]:
    name = str(row["id"])
    picture, shown = summary.pictures.get(name), {"picture": None, "text": summary.texts.get(name)}
    if picture is not None:
        shown["picture"] = plots.picture_uri(picture)
        shown["is_small"] = max(picture.shape[:2]) <= SMALL_PICTURE
    return {**row, **shown}


SECTIONS: dict[str, Callable[[RunSummary], Mapping[str, Any] | None]] = {
    "expectation": lambda summary: expectation_section(summary.metrics),
    "certificates": lambda summary: certificates_section(summary.metrics.get("certificates")),
    "noise": lambda summary: noise_section(summary.metrics.get("noise"), summary.classes),
    "sources": lambda summary: sources_section(summary.metrics.get("noise"), summary.classes),
    "accuracy": accuracy_section,
    "changes": changes_section,
    "curves": curves_section,
    "filter": lambda summary: filter_section(summary.metrics.get("filter_settings")),
    "adapted": lambda summary: adapted_section(summary.metrics.get("adapted")),
    "samples": samples_section,
    "unlike": unlike_section,
    "columns": lambda _: {"meanings": LABEL_COLUMNS},
}
"""The sections of the report in their order.

Each function returns the variable ``section`` of the template ``section_NAME.html``, or None if the
run has nothing to show there.
"""
