"""Sections of the report: noise, expected accuracy, the filter, quantities fitted to the data.

Each function takes a part of ``metrics.json`` and returns the values for the template, or None if
the run has no such part.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from pudistill.distillation.metrics import METRICS
from pudistill.distillation.sentences import (
    CANDIDATE_NAMES,
    confusions,
    expectation_sentence,
    label_accuracy_sentence,
    measured_on,
    most_involved,
    noise_headline,
    noise_sentence,
)
from pudistill.plots.drawing import LEAST_DRAWN_SHARE
from pudistill.runs.report import plots
from pudistill.utils.formats import (
    class_word,
    estimate,
    integer,
    joined_by_and,
    percent,
)

MAX_CLASSES_IN_TABLE = 20
# Sources in the table, and with their rates by class; classes of such a table; pairs of sources.
MAX_SOURCES, MAX_SOURCES_BY_CLASS, MAX_CLASSES_BY_SOURCE, MAX_ALIKE = 1000, 50, 12, 12


def noise_section(noise: Mapping[str, Any] | None, classes: list[str]) -> dict | None:
    """Prepare the section on the noise of the given labels.

    Parameters
    ----------
    noise : mapping or None
        ``metrics["noise"]``, see `RunSummary`.
    classes : list of str
        Class names, in the order of the matrix.

    Returns
    -------
    dict or None
        ``headline``, ``heat_map``, ``n_drawn`` (number of its classes), ``wide``, ``rows`` (one for
        each class), ``n_rows`` (number of rows shown at first) and ``warnings``.
    """
    if not noise:
        return None
    matrix = pd.DataFrame(
        np.asarray(noise["transition_matrix"], dtype=float), index=classes, columns=classes
    ).fillna(0.0)
    drawn = most_involved(classes, confusions(matrix, noise["class_prior"]))
    rows = _class_rows(noise, matrix)
    if len(rows) > MAX_CLASSES_IN_TABLE:
        rows = sorted(rows, key=lambda row: -np.nan_to_num(row["rate"]))
    return {
        "headline": noise_headline(noise, matrix),
        "heat_map": Markup(plots.transition_heat_map(matrix.loc[drawn, drawn])),
        "n_drawn": len(drawn),
        "wide": len(drawn) > 12,
        "rows": rows,
        "n_rows": min(len(rows), MAX_CLASSES_IN_TABLE),
        "warnings": list(noise.get("warnings") or []),
    }


def _class_rows(noise: Mapping[str, Any], matrix: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row for each class: its share of wrong labels and the most frequent wrong label."""
    lows, highs = np.asarray(noise["transition_interval"], dtype=float)
    others = matrix.to_numpy().copy()
    np.fill_diagonal(others, -1)
    rates = np.asarray(noise["class_rate"], dtype=float)
    rows = []
    for code, (low, high) in enumerate(np.asarray(noise["class_rate_interval"], dtype=float)):
        instead = int(others[code].argmax())
        shown_rate, rate_interval = estimate(rates[code], (low, high))
        share, share_interval = estimate(
            others[code, instead], (lows[code, instead], highs[code, instead])
        )
        is_any = others[code, instead] >= LEAST_DRAWN_SHARE
        rows.append(
            {
                "class_name": matrix.index[code],
                "rate": rates[code],
                "low": low,
                "high": high,
                "shown_rate": shown_rate,
                "rate_interval": rate_interval,
                "instead": matrix.columns[instead] if is_any else "–",
                "share": share if is_any else "",
                "share_interval": share_interval if is_any else "",
            }
        )
    return rows


def sources_section(noise: Mapping[str, Any] | None, classes: list[str]) -> dict | None:
    """Prepare the section on several sources of labels.

    Parameters
    ----------
    noise : mapping or None
        ``metrics["noise"]``, see `RunSummary`.
    classes : list of str
        Class names.

    Returns
    -------
    dict or None
        ``rows`` (one for each source, those with most labels first), ``n_rows`` (number of rows
        shown at first), ``by_class``, ``classes`` and ``alike``; None if there is one source.
    """
    found = (noise or {}).get("per_source")
    if not found:
        return None
    order = np.argsort(-np.asarray(found["n_labels"]), kind="stable")[:MAX_SOURCES]
    columns = ("n_labels", "n_verified", "n_decided", "copy_of")
    rows = []
    for s in order:
        low, high = found["rate_interval"][s]
        rate = found["rate"][s]
        shown_rate, interval = ("", "") if rate is None else estimate(rate, (low, high))
        row = {"name": found["names"][s], "shown_rate": shown_rate, "rate_interval": interval}
        row |= {"rate": rate or 0.0, "low": low, "high": high}
        rows.append(row | {name: found[name][s] for name in columns})
    by_class = []
    if found["class_rate"] and len(classes) <= MAX_CLASSES_BY_SOURCE:
        for s in order[:MAX_SOURCES_BY_CLASS]:
            pairs = zip(found["class_rate"][s], found["class_rate_interval"][s], strict=True)
            cells = [estimate(*pair) for pair in pairs]
            by_class.append({"name": found["names"][s], "cells": cells})
    return {
        "rows": rows,
        "n_rows": min(len(rows), MAX_CLASSES_IN_TABLE),
        "by_class": by_class,
        "classes": classes,
        "alike": found["alike"][:MAX_ALIKE],
    }


def expectation_section(metrics: Mapping[str, Any]) -> dict | None:
    """Prepare the section on the expected accuracies, of labels and of the classifier.

    Parameters
    ----------
    metrics : mapping
        ``metrics.json``, see `RunSummary`.

    Returns
    -------
    dict or None
        ``headlines``, ``classes`` (rows of class accuracies, harmed classes first),
        ``n_classes_shown``, ``candidates`` (which may be empty), ``measured_on`` and ``why``.
    """
    expected, comparison = metrics.get("expected_accuracy"), metrics.get("comparison")
    if not expected and not comparison:
        return None
    comparison = comparison or {}
    metric = METRICS[(expected or {}).get("metric", "accuracy")]
    is_shown = metric.title in ("accuracy", "log loss")  # of every candidate anyway
    shipped, noise = comparison.get("shipped"), metrics.get("noise")
    headlines = [noise_sentence(noise)] if noise else []  # to compare with what is right afterwards
    if of_labels := metrics.get("expected_label_accuracy"):
        basis = (noise or {}).get("basis")
        headlines.append(label_accuracy_sentence(of_labels, basis))
    if expected:
        headlines.append(expectation_sentence(expected))
    classes = [
        {
            **row,
            "before": percent(row["before"]),
            "after": estimate(row["after"], (row["low"], row["high"])),
        }
        for row in metrics.get("class_accuracy") or []
    ]
    is_long = len(classes) > MAX_CLASSES_IN_TABLE
    classes.sort(key=lambda row: (not row["is_harmed"], is_long and row["gained"] - row["lost"]))
    return {
        "headlines": headlines,
        "classes": classes,
        "n_classes_shown": min(len(classes), MAX_CLASSES_IN_TABLE),
        "candidates": [
            {
                "name": CANDIDATE_NAMES.get(candidate["name"], candidate["name"]),
                "accuracy": candidate["accuracy"],
                "log_loss": candidate.get("log_loss"),
                "score": None if is_shown else f"{metric.title} {metric.shown(candidate['score'])}",
                "is_shipped": candidate["name"] == shipped,
            }
            for candidate in comparison.get("candidates") or []
        ],
        "measured_on": measured_on(comparison),
        "why": comparison.get("why"),
    }


def certificates_section(certificates: Mapping[str, Any] | None) -> dict | None:
    """Prepare the section on the labels that can be used as they are.

    Parameters
    ----------
    certificates : mapping or None
        ``metrics["certificates"]``, see `RunSummary`.

    Returns
    -------
    dict or None
        ``refused`` (a sentence or None), ``rows`` (one for each largest error), ``n_samples``, and
        ``curve`` (an SVG element or None).
    """
    if not certificates:
        return None
    if refused := certificates.get("refused"):
        return {"refused": refused, "rows": [], "n_samples": 0, "curve": None}
    n_samples = certificates["n_samples"]
    rows = [
        {
            "max_error": percent(row["max_error"]),
            "n_accepted": row["n_accepted"],
            "share": percent(row["n_accepted"] / max(n_samples, 1)),
            "judged_by": f"{integer(row['n_verified'])}, of which {integer(row['n_wrong'])} wrong"
            if row["n_accepted"]
            else "–",
            "more": joined_by_and(
                [
                    Markup("{} more: {}").format(integer(more), percent(share))
                    for more, share in row["more_verified"]
                ]
            )
            if row["more_verified"]
            else ("" if row["n_accepted"] else "no number that helps"),
        }
        for row in certificates["by_max_error"]
    ]
    curve = pd.DataFrame(certificates["curve"])
    return {
        "refused": None,
        "rows": rows,
        "n_samples": n_samples,
        "curve": Markup(plots.error_curve(curve)) if len(curve) else None,
    }


def filter_section(settings: Sequence[Mapping[str, Any]] | None) -> dict | None:
    """Prepare the table of the settings that the filter chose for each class.

    Parameters
    ----------
    settings : sequence of mapping, or None
        ``metrics["filter_settings"]``, see `RunSummary`.

    Returns
    -------
    dict or None
        ``rows``, and ``empty``: sentences about classes whose clean set is empty.
    """
    if not settings:
        return None
    switched_off = [row for row in settings if row["min_votes"] > row["n_members"]]
    without_samples = [row for row in settings if row["n_clean"] == 0 and row not in switched_off]
    sentences = [
        Markup(sentence).format(joined_by_and([class_word(str(row["class_name"])) for row in rows]))
        for sentence, rows in (
            ("No setting was precise enough for {}.", switched_off),
            ("The filter found no sample of {} besides the trusted samples.", without_samples),
        )
        if rows
    ]
    if sentences:
        sentences.append(Markup("The teachers learn these classes from trusted samples only."))
    return {"rows": list(settings), "empty": Markup(" ").join(sentences) or None}


NOISE_FREE_MODELS = {
    "trusted_only": "training on the trusted labels only",
    "teacher": "the teachers",
    "self_trained": "self-training from the trusted labels",
    "self_trained_teacher": "self-training from the clean set",
    "semi_supervised": "training on the trusted labels and unlabelled pictures",
}


def adapted_section(adapted: Mapping[str, float] | None) -> dict | None:
    """Prepare the section on quantities that were fitted to the data.

    Parameters
    ----------
    adapted : mapping of str to float, or None
        ``metrics["adapted"]``, see `RunSummary`.

    Returns
    -------
    dict or None
        ``facts``: pairs of a quantity and its value; ``models``: for each noise-free model, its
        name, its share of the first guess and its sharpness.
    """
    if not adapted or "rounds" not in adapted:  # only what an update starts from is known
        return None
    shares = {
        "student_share": "the student",
        "given_labels_share": "training on the given labels",
        "pruned_labels_share": "training on the given labels that are not doubted",
        "gold_loss_correction_share": "Gold Loss Correction",
    }
    in_mixture = sum(adapted.get(key, 0.0) for key in shares)
    facts = [
        ("rounds of learning", integer(adapted["rounds"])),
        ("trusted samples held out in turn", integer(adapted["held_out_trusted_samples"])),
        *(
            (f"share of {model} in the mixture", percent(adapted[key]))
            for key, model in shares.items()
            if key in adapted
        ),
        *(
            [("share of the first guess in the mixture", percent(max(0.0, 1 - in_mixture)))]
            if in_mixture
            else []
        ),
        ("sharpness of the student", f"{adapted['sharpness_of_student']:.2f}"),
    ]
    models = [
        {
            "name": NOISE_FREE_MODELS[name],
            "share": percent(adapted[f"{name}_share_of_guess"]),
            "sharpness": f"{adapted[f'sharpness_of_{name}']:.2f}",
        }
        for name in NOISE_FREE_MODELS
        if f"{name}_share_of_guess" in adapted
    ]
    return {"facts": facts, "models": models}
