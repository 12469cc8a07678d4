"""Comparison of all candidates on held-out trusted samples, and the choice of the best.

The chosen candidate is shipped: it is the model that `predict` uses.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TypedDict

import numpy as np
import pandas as pd
from markupsafe import Markup

from pudistill.distillation.clusters import draw_rows, group_sums
from pudistill.distillation.metrics import METRICS
from pudistill.distillation.sentences import (
    CANDIDATE_NAMES,
    corrected_share_sentence,
    expectation_sentence,
    measured_on,
)
from pudistill.estimates.shares import weighted_mean
from pudistill.utils.notebook import ShownAsText, plain_table
from pudistill.utils.shown import listed

# The first of these candidates that exists is shipped, unless another candidate is clearly better.
FAVOURITES = ("mixture", "student")
# Standard errors of the difference by which another candidate must lead.
LEAD = 2.0
BOOTSTRAPS = 500
DESCRIPTIONS = {
    "mixture": "the student in a mixture",
    "student": "the student",
    "teacher": "the teachers",
    "trusted_only": "training on the trusted labels only",
    "semi_supervised": "training on the trusted labels and unlabelled pictures",
    "given_labels": "training on the given labels",
    "fine_tuned": "training on the given labels, then on the trusted ones",
    "pruned_labels": "training on the given labels that are not doubted",
    "gold_loss_correction": "Gold Loss Correction",
}


class Candidate(TypedDict):
    """Results of a candidate on the held-out samples.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.distillation.comparison import compare
    >>> labels = np.repeat([0, 1], 50)
    >>> compare({"student": np.eye(2)[labels]}, labels, seed=0).candidates[0]["name"]
    'student'
    """

    name: str
    accuracy: float
    log_loss: float
    score: float  # value of the metric that decides


@dataclass(frozen=True, repr=False)
class ExpectedAccuracy(ShownAsText):
    """Expected accuracy, or another metric, on new samples.

    Attributes
    ----------
    value : float
        Estimate, corrected for choosing the best of several candidates on the same samples.
    interval : tuple of two floats
        Its 95 % interval. With groups it is that of new groups, and as wide as the errors of
        samples in one group are alike.
    n : int
        Number of held-out trusted samples that it was measured on.
    metric : str, default="accuracy"
        The metric, by the name of scikit-learn's scorer.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill import correct_labels
    >>> y, rng = np.arange(1000) % 2, np.random.default_rng(0)
    >>> given = np.where(rng.random(1000) < 0.2, 1 - y, y)  # a fifth are wrong
    >>> verified = np.where(rng.random(1000) < 0.2, y, np.nan)
    >>> proba = np.where(y[:, None] == [0, 1], 0.9, 0.1)  # predictions of some model
    >>> correct_labels(given, proba, verified).label_accuracy.n  # verified samples that it rests on
    226
    """

    value: float
    interval: tuple[float, float]
    n: int
    metric: str = "accuracy"

    def _sentences(self) -> list[Markup]:
        return [expectation_sentence(asdict(self))]


class LabelAccuracy(ExpectedAccuracy):
    """Share of the corrected labels of samples that nobody verified that are right.

    Attributes
    ----------
    value : float
        Estimate of the share.
    interval : tuple of two floats
        Its 95 % interval.
    n : int
        Number of held-out trusted samples that it was measured on.
    metric : str
        Always "accuracy".

    Examples
    --------
    >>> from pudistill.distillation.comparison import LabelAccuracy
    >>> LabelAccuracy(0.93, (0.9, 0.95), 200)  # doctest: +NORMALIZE_WHITESPACE
    Right among the corrected labels that nobody verified: 93% (95% interval: 90 to 95%), measured
    on 200 held-out trusted samples.
    """

    def _sentences(self) -> list[Markup]:
        return [corrected_share_sentence(asdict(self))]


@dataclass(frozen=True, repr=False)
class Comparison(ShownAsText):
    """Results of all candidates, and the choice of the candidate that is shipped.

    Attributes
    ----------
    shipped : str
        Name of the candidate that is shipped.
    why : str
        The reason for the choice, and warnings about it, in sentences.
    candidates : list of dict
        ``name``, ``accuracy``, ``log_loss`` and ``score`` (the value of the metric that decides) of
        each candidate, on the held-out samples.
    expected_accuracy : ExpectedAccuracy or None
        Expected value of the metric for the candidate that is shipped; None if nothing was held
        out.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.distillation.comparison import compare
    >>> labels = np.repeat([0, 1], 50)
    >>> right, constant = np.eye(2)[labels], np.tile([0.9, 0.1], (100, 1))
    >>> comparison = compare({"student": constant, "given_labels": right}, labels, seed=0)
    >>> comparison.shipped, [candidate["accuracy"] for candidate in comparison.candidates]
    ('given_labels', [0.5, 1.0])
    """

    shipped: str
    why: str
    candidates: list[Candidate]
    expected_accuracy: ExpectedAccuracy | None

    def _sentences(self) -> list[Markup]:
        expected = self.expected_accuracy
        sentences = [Markup.escape(self.why)]
        if expected is not None:
            sentences.insert(0, expectation_sentence(asdict(expected)))
            about = {"n": expected.n, "target": "held-out trusted samples"}
            sentences.append(Markup.escape(measured_on(about)))
        return sentences

    def _rows(self) -> tuple[list[str], list[list[str]]]:
        metric = METRICS[
            "accuracy" if self.expected_accuracy is None else self.expected_accuracy.metric
        ]
        is_shown = metric.title in ("accuracy", "log loss")  # of every candidate anyway
        header = ["candidate", "accuracy", "log loss", *([] if is_shown else [metric.title]), ""]
        rows = [
            [
                CANDIDATE_NAMES.get(candidate["name"], candidate["name"]),
                f"{candidate['accuracy']:.1%}",
                f"{candidate['log_loss']:.2f}",
                *([] if is_shown else [metric.shown(candidate["score"])]),
                "kept" if candidate["name"] == self.shipped else "",
            ]
            for candidate in self.candidates
        ]
        return header, rows

    def _table(self) -> Markup:
        return plain_table(*self._rows()) if self.candidates else Markup()

    def _text_table(self) -> str:
        header, rows = self._rows()
        return pd.DataFrame(rows, columns=header).to_string(index=False) if rows else ""


def compare(
    proba: dict[str, np.ndarray],
    labels: np.ndarray,
    *,
    metric: str = "accuracy",
    groups: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    seed: int,
) -> Comparison:
    """Choose among candidates by their predictions for held-out trusted samples.

    The student, or its mixture with other models, is shipped unless another candidate is better by
    more than two standard errors of the paired difference: chance differences on a few trusted
    samples must not decide.

    Parameters
    ----------
    proba : dict of str to ndarray of shape (n_held_out, n_classes)
        Predictions of each candidate, by models that were not trained on these samples.
    labels : ndarray of shape (n_held_out,), int
        Verified labels.
    metric : str, default="accuracy"
        The metric that decides, one of `METRICS`.
    groups : ndarray of shape (n_held_out,), int, default=None
        Groups of these samples, which count as a whole in all errors.
    weight : ndarray of shape (n_held_out,), default=None
        How many samples each stands for, up to a factor; None: all for as many.
    seed : int
        Decides the bootstrap.

    Returns
    -------
    comparison : Comparison
        The decision.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.distillation.comparison import compare
    >>> labels = np.repeat([0, 1], 50)
    >>> right, constant = np.eye(2)[labels], np.tile([0.9, 0.1], (100, 1))
    >>> compare({"student": constant, "given_labels": right}, labels, seed=0).shipped
    'given_labels'
    """
    if len(labels) == 0:
        return Comparison(
            favourite(proba), "No trusted sample could be held out to compare.", [], None
        )
    measure = METRICS[metric]
    scores = {name: measure.scores(p, labels, weight) for name, p in proba.items()}
    candidates: list[Candidate] = [
        {
            "name": name,
            "accuracy": weighted_mean(METRICS["accuracy"].scores(p, labels, weight), weight),
            "log_loss": -weighted_mean(METRICS["neg_log_loss"].scores(p, labels, weight), weight),
            "score": weighted_mean(scores[name], weight),
        }
        for name, p in proba.items()
    ]
    shipped = choose(scores, groups, weight)
    value = _corrected_value(scores, groups, weight, np.random.default_rng(seed))
    value = float(np.clip(value, 0, 1)) if measure.is_share else min(value, 0.0)
    interval = measure.interval(value, proba[shipped], labels, groups, weight)
    expected = ExpectedAccuracy(value, interval, len(labels), metric)
    return Comparison(shipped, _why(shipped, candidates, metric), candidates, expected)


def unjudged(classes: np.ndarray, held_out: np.ndarray) -> str | None:
    """Return a warning about classes that have no held-out sample.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        Class labels.
    held_out : ndarray of shape (n_held_out,), int
        Codes of the held-out samples.

    Returns
    -------
    warning : str or None
        None if there is no such class, or if nothing was held out at all.
    """
    names = np.delete(classes, np.unique(held_out))
    if len(held_out) == 0 or len(names) == 0:
        return None
    return (
        f"No trusted sample of class {listed(names)} could be held out: the expected accuracy says "
        "nothing about it. Verify more of its samples, at least two."
    )


def favourite(candidates: Iterable[str]) -> str:
    """Return the candidate that is shipped unless another candidate is clearly better."""
    return next(name for name in FAVOURITES if name in candidates)


def choose(
    scores: dict[str, np.ndarray],
    groups: np.ndarray | None = None,
    weight: np.ndarray | None = None,
) -> str:
    """Return the candidate to ship, by the scores that each has for the held-out samples."""
    default = favourite(scores)
    best = max(scores, key=lambda name: weighted_mean(scores[name], weight))
    return best if leads(scores[best], scores[default], groups, weight) else default


def leads(
    first: np.ndarray,
    second: np.ndarray,
    groups: np.ndarray | None = None,
    weight: np.ndarray | None = None,
) -> bool:
    """Return whether the first scores of held-out samples are clearly better than the second."""
    lead = first.astype(float) - second
    if weight is not None:
        lead = weight * lead
    if groups is not None:
        lead = group_sums(lead, groups)
    return bool(lead.sum() > LEAD * np.sqrt((lead**2).sum()))


def _corrected_value(
    scores: dict[str, np.ndarray],
    groups: np.ndarray | None,
    weight: np.ndarray | None,
    rng: np.random.Generator,
) -> float:
    """Estimate the metric of the chosen candidate on samples that were not used to choose it.

    I. Tsamardinos, E. Greasidou, G. Borboudakis, "Bootstrapping the out-of-sample predictions for
    efficient and accurate cross-validation", Machine Learning 107 (2018).
    """
    n = len(scores[favourite(scores)])
    values = []
    for _ in range(BOOTSTRAPS):
        drawn = draw_rows(n, groups, rng)
        others = np.setdiff1d(np.arange(n), drawn)
        if len(others):
            drawn_groups = None if groups is None else groups[drawn]
            of_drawn, of_others = (
                None if weight is None else weight[rows] for rows in (drawn, others)
            )
            chosen = choose(
                {name: score[drawn] for name, score in scores.items()}, drawn_groups, of_drawn
            )
            values.append(weighted_mean(scores[chosen][others], of_others))
    if values:
        return float(np.mean(values))
    return weighted_mean(scores[choose(scores, groups, weight)], weight)


def _why(shipped: str, candidates: list[Candidate], metric: str) -> str:
    """Give the reason for the choice: a comparison with the best of the other candidates."""
    score = {candidate["name"]: candidate["score"] for candidate in candidates}
    others = {
        name: value
        for name, value in score.items()
        if name != shipped and not {name, shipped} <= set(FAVOURITES)
    }
    if not others:
        return f"There was nothing to compare {DESCRIPTIONS[shipped]} with."
    best = max(others, key=lambda name: others[name])
    measure = METRICS[metric]
    values = measure.shown(score[shipped]), measure.shown(others[best])
    if metric == "accuracy":
        got, what = "got", "of the held-out trusted samples right"
    else:
        got, what = f"had a {measure.title} of", "on the held-out trusted samples"
    sentence = f"{DESCRIPTIONS[shipped]} {got} {values[0]} {what}, {DESCRIPTIONS[best]} {values[1]}"
    sentence = sentence[0].upper() + sentence[1:]
    if others[best] > score[shipped]:
        return f"{sentence}: a lead that chance explains, so the former was kept."
    if others[best] == score[shipped]:
        return f"{sentence}: no difference."
    return f"{sentence}."
