"""What a fit has learned, in sentences, so that a fact has the same words wherever it is shown.

Results are mappings as in ``metrics.json``; `NoiseEstimate.to_dict` and `dataclasses.asdict` make
them. Text from the data is escaped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from pudistill.distillation.metrics import METRICS
from pudistill.utils.formats import class_word, estimate, integer, joined_by_and, percent

CANDIDATE_NAMES = {
    "given_labels": "trained on the given labels",
    "fine_tuned": "trained on the given labels, then on the trusted ones",
    "pruned_labels": "trained on the given labels that are not doubted",
    "gold_loss_correction": "Gold Loss Correction",
    "trusted_only": "trained on the trusted labels only",
    "semi_supervised": "trained on the trusted labels and unlabelled pictures",
    "teacher": "the teachers",
    "student": "the student",
    "mixture": "the student in a mixture",
}
"""The names of the candidates in the report."""

# The headline names a confusion of a true class with a given label if it is large in two ways.
NOTABLE_SHARE = 0.2  # of the class, and
NOTABLE_EXCESS = 2  # times an even share of the class's wrong labels,
NOTABLE_MAJORITY = 0.75  # or, with few classes, this share of them
MAX_NOTABLE = 3
MAX_CLASSES_IN_HEAT_MAP = 50


def noise_sentence(noise: Mapping[str, Any]) -> Markup:
    """Say how many labels are wrong, and what that is based on.

    Parameters
    ----------
    noise : mapping
        ``rate`` (None if unknown), ``rate_interval`` and ``basis``, as in `NoiseEstimate`.

    Examples
    --------
    >>> from pudistill.distillation.sentences import noise_sentence
    >>> noise = {"rate": 0.47, "rate_interval": [0.44, 0.5], "basis": "verified originals"}
    >>> noise_sentence(noise).unescape().replace(chr(160), " ")
    'About 47 % of the labels that nobody verified are wrong (95 % interval: 44 to 50 %).'
    """
    if noise["rate"] is None:
        return Markup("How many of the labels that nobody verified are wrong cannot be told.")
    rate, interval = estimate(noise["rate"], noise["rate_interval"])
    if noise.get("basis") != "bound":
        what = "majority votes on samples" if noise.get("per_source") else "labels"
        return Markup(
            "About {} of the {} that nobody verified are wrong (95&nbsp;% interval: {})."
        ).format(rate, what, interval)
    if tuple(noise["rate_interval"]) == (0, 1):
        return Markup(
            "How many of the labels that nobody verified are wrong cannot be told: no verified "
            "sample was held out to measure the predictions. If these are right about their own "
            "error, it is about {}."
        ).format(rate)
    return Markup(
        "Of the labels that nobody verified, {} are wrong, whatever the noise; about {} if it "
        "depends on the class alone. Keep the given labels of verified samples, and pass the "
        "verified ones beside them: that tells more."
    ).format(interval, rate)


def label_accuracy_sentence(expected: Mapping[str, Any], basis: str | None) -> Markup:
    """Say how many corrected labels are right, and what that is based on.

    Parameters
    ----------
    expected : mapping
        ``value`` and ``interval``, as in `ExpectedAccuracy`.
    basis : str or None
        Basis of the noise estimate, as in `NoiseEstimate`; None if there is none.

    Examples
    --------
    >>> from pudistill.distillation.sentences import label_accuracy_sentence
    >>> expected = {"value": 0.9, "interval": [0.86, 0.93]}
    >>> sentence = label_accuracy_sentence(expected, "verified originals")
    >>> sentence.unescape().replace(chr(160), " ")
    'About 90 % of the corrected labels that nobody verified are right (95 % interval: 86 to 93 %).'
    """
    right, interval = estimate(expected["value"], expected["interval"])
    if basis == "verified originals":
        return Markup(
            "About {} of the corrected labels that nobody verified are right (95&nbsp;% interval: "
            "{})."
        ).format(right, interval)
    return Markup(
        "Of the corrected labels that nobody verified, {} are right, whatever the noise; about {} "
        "if it depends on the class alone."
    ).format(interval, right)


def noise_headline(noise: Mapping[str, Any], matrix: pd.DataFrame) -> Markup:
    """Say how many labels are wrong, and which confusions stand out.

    Parameters
    ----------
    noise : mapping
        As for `noise_sentence`.
    matrix : DataFrame of shape (C, C)
        The transition matrix; index and columns are the names of the classes.
    """
    sentence = noise_sentence(noise)
    notable = [
        Markup("{} of {} are labelled {}").format(
            percent(share), class_word(true), class_word(given)
        )
        for true, given, share in _notable_confusions(matrix)
    ]
    return Markup("{} {}.").format(sentence, joined_by_and(notable)) if notable else sentence


def _notable_confusions(matrix: pd.DataFrame) -> list[tuple[str, str, float]]:
    """Return confusions that stand out in their class: true class, given label and share."""
    shares = matrix.to_numpy()
    wrong = 1 - shares.diagonal()
    enough = min(NOTABLE_EXCESS / max(len(shares) - 1, 1), NOTABLE_MAJORITY) * wrong
    stands_out = (shares >= NOTABLE_SHARE) & (shares >= enough[:, None])
    np.fill_diagonal(stands_out, False)
    found = np.argwhere(stands_out)
    largest = np.argsort(-shares[stands_out], kind="stable")[:MAX_NOTABLE]
    return [
        (matrix.index[true], matrix.columns[given], shares[true, given])
        for true, given in found[largest]
    ]


def confusions(matrix: pd.DataFrame, prior: Sequence[float]) -> np.ndarray:
    """List pairs of different classes; the pair with the most wrong labels comes first."""
    wrong = matrix.to_numpy() * np.asarray(prior, dtype=float)[:, None]
    np.fill_diagonal(wrong, -np.inf)
    order = np.argsort(-wrong, axis=None, kind="stable")[: wrong.size - len(wrong)]
    names = np.asarray(matrix.index, dtype=object)
    return names[np.column_stack(np.unravel_index(order, wrong.shape))]


def most_involved(
    names: Sequence[str], pairs: np.ndarray, most: int = MAX_CLASSES_IN_HEAT_MAP
) -> list[str]:
    """Choose the classes of a heat map: all of them, or at most 50 from the first pairs.

    Parameters
    ----------
    names : sequence of str
        All classes, in the order in which they are drawn.
    pairs : ndarray of shape (n, 2)
        Pairs of confused class names; the most frequent pair comes first.
    most : int, default=50
        Largest number of classes.

    Returns
    -------
    list of str
        At most `most` of `names`, in their order.
    """
    if len(names) <= most:
        return list(names)
    by_frequency = dict.fromkeys(pairs.ravel())
    chosen = set(list(by_frequency)[:most])
    return [name for name in names if name in chosen]


def _value_and_interval(expected: Mapping[str, Any]) -> tuple[Markup, Markup]:
    metric = METRICS[expected.get("metric", "accuracy")]
    if metric.is_share:
        return estimate(expected["value"], expected["interval"])
    ends = metric.shown_interval(expected["interval"])
    return Markup.escape(metric.shown(expected["value"])), Markup("{} to {}").format(*ends)


def expectation_sentence(expected: Mapping[str, Any]) -> Markup:
    """Say how good the classifier is expected to be on new samples (see `ExpectedAccuracy`)."""
    metric = METRICS[expected.get("metric", "accuracy")]
    value, interval = _value_and_interval(expected)
    return Markup(
        "Expected {} on new samples: {} (95&nbsp;% interval: {}), measured on {} held-out "
        "trusted samples."
    ).format(metric.title, value, interval, integer(expected["n"]))


def corrected_share_sentence(expected: Mapping[str, Any]) -> Markup:
    """Say how many corrected labels are right, see `LabelAccuracy`."""
    value, interval = _value_and_interval(expected)
    return Markup(
        "Right among the corrected labels that nobody verified: {} (95&nbsp;% interval: {}), "
        "measured on {} held-out trusted samples."
    ).format(value, interval, integer(expected["n"]))


def measured_on(comparison: Mapping[str, Any]) -> str | None:
    """Say what the accuracies of candidates were measured on; None if it is unknown."""
    if not comparison.get("target"):
        return None
    n = f"{integer(comparison['n'])} " if comparison.get("n") else ""
    return f"Accuracy of the candidates on {n}{comparison['target']}."
