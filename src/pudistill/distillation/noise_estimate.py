"""The noise in the given labels: shares of wrong labels and the transition matrix, with intervals.

Where verified samples have the labels that they were given, these are a random sample of all given
labels, and shares among them hold under any noise. Where they do not, no wrong label was ever seen:
then the disagreement of predictions with the given labels, and the error of the predictions, bound
the shares under any noise. The estimate in between holds if noise depends on the class alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup

from pudistill.distillation.clusters import sample_worth
from pudistill.distillation.predictions import Predictions
from pudistill.distillation.sentences import confusions, most_involved, noise_headline
from pudistill.distillation.source_estimate import SourceNoise, estimate_sources
from pudistill.distillation.transition import Originals
from pudistill.estimates.shares import (
    LEVEL,
    UNKNOWN,
    Share,
    exact_interval,
    mean_interval,
    possible_interval,
    rectified_share,
    weighted_mean,
    worth_of_weighted,
)
from pudistill.labels.checks import Labels
from pudistill.learners.linear import MANY_CLASSES
from pudistill.utils.arrays import without_nan
from pudistill.utils.formats import estimate, plain, shorten
from pudistill.utils.notebook import ShownAsText, shaded_table
from pudistill.utils.shown import listed, shown

# Samples of a class that are not verified, below which a warning says so.
MIN_CLASS_SIZE = 10


# What an estimate is based on.
ORIGINALS, BOUND, NOTHING = "verified originals", "bound", "nothing"

# Classes of a matrix that is shown; shares that it leaves out, because they would be 0 %.
MOST_CLASSES_SHOWN, LEAST_SHOWN_SHARE = 12, 0.005
MOST_CLASSES_WITH_INTERVALS = 5  # in the cells
CORNER = "true class ↓  given label →"

NO_EVIDENCE = (
    "The models predict held-out verified samples no better than guesses, so nothing is known of "
    "the given labels: they were kept. Verify labels and keep those that were given before, or "
    "find features that say more about the classes."
)


@dataclass(frozen=True, repr=False)
class NoiseEstimate(ShownAsText):
    """An estimate of the noise in the given labels of the samples that are not verified.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        Class labels; rows and columns below are in this order.
    basis : str
        "verified originals": intervals hold under any noise, as long as verified samples are a
        random sample. "bound": no verified sample has the label that it was given; intervals are
        bounds that hold under any noise, and the values in them assume that noise depends on the
        class alone. "nothing": there are no labels to estimate from, or the predictions say
        nothing, and no verified sample has the label that it was given.
    transition_matrix : ndarray of shape (n_classes, n_classes)
        `T[c, j] = P(given = j | true = c)`; rows sum to 1.
    transition_interval : ndarray of shape (2, n_classes, n_classes)
        Lower and upper ends of its 95 % intervals; (0, 1) everywhere with 129 classes or more.
    rate : float in [0, 1]
        Share of wrong labels; NaN if `basis` is "nothing". Then `transition_matrix` and
        `class_rate` are what the models guess, with the intervals (0, 1).
    rate_interval : tuple of two floats
        Its 95 % interval.
    class_rate : ndarray of shape (n_classes,)
        Share of wrong labels among the samples of each true class.
    class_rate_interval : ndarray of shape (n_classes, 2)
        Their 95 % intervals.
    class_prior : ndarray of shape (n_classes,)
        Share of the samples in each true class.
    warnings : list of str
        Reasons to doubt the estimate.
    per_source : SourceNoise or None
        With several sources, whose majority vote the given labels are: the noise of each.
    group_rate : ndarray of shape (n_groups,) or None
        Share of wrong labels in each noise group, in the order in which groups occur first; NaN
        where no sample of the group is verified. None without noise groups, or without originals.
    group_rate_interval : ndarray of shape (n_groups, 2) or None
        Their 95 % intervals, which hold under any noise.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill import correct_labels
    >>> y, rng = np.arange(1000) % 2, np.random.default_rng(0)
    >>> given = np.where(rng.random(1000) < 0.2, 1 - y, y)  # a fifth are wrong
    >>> verified = np.where(rng.random(1000) < 0.2, y, np.nan)
    >>> proba = np.where(y[:, None] == [0, 1], 0.9, 0.1)  # predictions of some model
    >>> noise = correct_labels(given, proba, verified).noise
    >>> noise.basis, round(noise.rate, 2), [round(end, 2) for end in noise.rate_interval]
    ('verified originals', 0.2, [0.19, 0.2])
    """

    classes: np.ndarray
    basis: str
    transition_matrix: np.ndarray
    transition_interval: np.ndarray
    rate: float
    rate_interval: tuple[float, float]
    class_rate: np.ndarray
    class_rate_interval: np.ndarray
    class_prior: np.ndarray
    warnings: list[str]
    per_source: SourceNoise | None = None
    group_rate: np.ndarray | None = None
    group_rate_interval: np.ndarray | None = None

    def _sentences(self) -> list[Markup]:
        return [noise_headline(self.to_dict(), self._matrix()), *map(Markup.escape, self.warnings)]

    def _matrix(self) -> pd.DataFrame:
        names = [str(name) for name in self.classes]
        return pd.DataFrame(self.transition_matrix, names, names).fillna(0.0)

    def _table(self) -> Markup:
        T = self._matrix()
        pairs = confusions(T, self.class_prior.tolist())
        drawn = most_involved(list(T.index), pairs, MOST_CLASSES_SHOWN)
        rows = T.index.get_indexer(pd.Index(drawn))
        shares, ends = T.to_numpy()[rows][:, rows], self.transition_interval[:, rows][:, :, rows]
        is_roomy = len(drawn) <= MOST_CLASSES_WITH_INTERVALS
        texts, hints = (np.full(shares.shape, Markup(), dtype=object) for _ in range(2))
        for i, j in np.argwhere(shares >= LEAST_SHOWN_SHARE):
            share, interval = estimate(shares[i, j], ends[:, i, j].tolist())
            below = Markup("<br><small>{}</small>").format(interval) if is_roomy else Markup()
            texts[i, j] = share + below
            hints[i, j] = Markup("{}, given as {}: {} ({})").format(
                drawn[i], drawn[j], share, interval
            )
        table = shaded_table(shares, list(map(shorten, drawn)), texts, hints, CORNER)
        where = "below it" if is_roomy else "under the mouse"
        about = Markup("The 95&nbsp;% interval of each number is {}.").format(where)
        if len(drawn) < len(self.classes):
            about = (
                Markup("Of {} classes, the {} in the most frequent confusions are shown. ").format(
                    len(self.classes), len(drawn)
                )
                + about
            )
        return table + Markup("<small>{}</small>").format(about)

    def _text_table(self) -> str:
        if len(self.classes) > MOST_CLASSES_SHOWN or self.basis == NOTHING:
            return ""
        pairs = zip(self.class_rate, self.class_rate_interval, strict=True)
        rows = [[plain(text) for text in estimate(rate, ends)] for rate, ends in pairs]
        names = pd.Index([shown(name) for name in self.classes], name="class")
        return pd.DataFrame(rows, names, ["wrong labels", "95% interval"]).to_string()

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as a dictionary for JSON, without the class labels."""
        values = {name: without_nan(v) for name, v in vars(self).items() if name != "classes"}
        if self.per_source is not None:
            values["per_source"] = self.per_source.to_dict()
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], classes: np.ndarray) -> "NoiseEstimate | None":
        """Return the estimate that `to_dict` has written.

        None if an earlier version wrote it, which did not say what its intervals hold for.
        """
        if "basis" not in values:
            return None
        found: dict[str, Any] = {
            field.name: np.array(values[field.name], dtype=float)
            if "ndarray" in str(field.type) and values[field.name] is not None
            else values[field.name]
            for field in fields(cls)
            if field.name in values
        }
        found["rate"] = np.nan if found["rate"] is None else found["rate"]
        found["rate_interval"] = tuple(found["rate_interval"])
        if found.get("per_source") is not None:
            found["per_source"] = SourceNoise.from_dict(found["per_source"], len(classes))
        return cls(classes=classes, **found)


def estimate_noise(
    labels: Labels,
    by_view: Sequence[Predictions],
    originals: Originals | None,
    *,
    is_known: bool = True,
    is_outlier: np.ndarray | None = None,
    notes: Sequence[str] = (),
) -> NoiseEstimate:
    """Estimate the noise in the given labels, with 95 % intervals.

    Parameters
    ----------
    labels : Labels
        Given and verified labels.
    by_view : sequence of Predictions
        Those of all labels, then those of the views that hold verified samples out.
    originals : Originals or None
        Verified samples, a random sample, with the labels that they were given.
    is_known : bool, default=True
        Whether the predictions say anything about the classes.
    is_outlier : ndarray of shape (n_samples,), bool, default=None
        Samples that may be of no class, whose labels do not count.
    notes : sequence of str
        Warnings to put before those of the estimate.

    Returns
    -------
    estimate : NoiseEstimate
        The estimate.
    """
    whole, classes = by_view[0], labels.classes
    rows = whole.view.labelled
    if is_outlier is not None:
        rows = rows[~is_outlier[rows]]
    n, n_classes, given = len(rows), len(classes), whole.view.given[rows]
    # 1. What the models say, which holds if noise depends on the class alone.
    joint = whole.joint(rows, given) if n else np.full((n_classes, n_classes), np.nan)
    prior = joint.sum(axis=1) if n else np.full(n_classes, 1 / n_classes)
    # 2. What holds under any noise.
    notes = list(notes)
    if n == 0 or (originals is None and not is_known):
        notes += [NO_EVIDENCE] if n else []
        basis, shares = NOTHING, _Shares.unknown(n_classes)
    elif originals is not None:
        basis, shares = ORIGINALS, _of_originals(by_view, originals, rows, given, prior)
    else:
        basis, shares = BOUND, _bounds(labels, by_view, rows, given, joint)
    # 3. Of single classes little is known: their values are the models', if these are plausible.
    T = np.clip(whole.noise.T, *shares.plausible)
    T /= T.sum(axis=1, keepdims=True)
    group_rate, group_interval = None, None
    if originals is not None and basis == ORIGINALS and labels.noise_groups is not None:
        group_rate, group_interval = _of_groups(
            labels.noise_groups, by_view, originals, rows, given
        )
    class_rate = np.clip(1 - np.diagonal(T), *shares.class_rate)
    T = _with_rates(T, class_rate)
    return NoiseEstimate(
        classes=classes,
        basis=basis,
        transition_matrix=T,
        transition_interval=np.array(
            [np.minimum(shares.transition[0], T), np.maximum(shares.transition[1], T)]
        ),
        rate=shares.rate.value,
        rate_interval=shares.rate.interval,
        class_rate=class_rate,
        class_rate_interval=shares.class_rate.T,
        class_prior=prior,
        warnings=[*notes, *_thin_classes(classes, prior * n)],
        per_source=estimate_sources(labels, by_view, originals, is_known=is_known),
        group_rate=group_rate,
        group_rate_interval=group_interval,
    )


def _with_rates(T: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Return a matrix whose classes have these shares of wrong labels, in the same proportions."""
    even = 1 - np.eye(len(T))
    off = T * even
    off = np.where(off.sum(axis=1, keepdims=True) > 0, off, even)
    off *= (rate / np.maximum(off.sum(axis=1), np.finfo(float).tiny))[:, None]
    return off + np.diag(1 - rate)


class _Shares(NamedTuple):
    """The rate, and the ends of intervals."""

    rate: Share
    class_rate: np.ndarray  # (2, n_classes)
    transition: np.ndarray  # (2, n_classes, n_classes)
    plausible: np.ndarray  # (2, n_classes, n_classes): the middle halves of intervals of T

    @classmethod
    def unknown(cls, n_classes: int) -> "_Shares":
        ends = np.array([0.0, 1.0])
        return cls(
            UNKNOWN,
            np.repeat(ends[:, None], n_classes, axis=1),
            *np.tile(ends[:, None, None], (2, 1, n_classes, n_classes)),
        )


class _HeldOutPart(NamedTuple):
    """Verified samples that a view holds out, and what it says of them."""

    predictions: Predictions
    held_out: np.ndarray  # (n_held_out,): positions among the originals
    posterior: np.ndarray  # (n_held_out, n_classes)
    alike: np.ndarray  # (n_rows,), bool: rows that the view knows no more of


def _held_out_parts(
    by_view: Sequence[Predictions], originals: Originals, rows: np.ndarray
) -> Iterator[_HeldOutPart]:
    """Yield a part for each view that holds verified samples out."""
    for predictions in by_view[1:]:
        held_out = np.flatnonzero(np.isin(originals.rows, predictions.view.held_out))
        if len(held_out) == 0:
            continue
        posterior = predictions.posterior(originals.rows[held_out], originals.given[held_out])
        # A network has read neither the given labels that it holds out, nor those of these samples.
        alike = np.ones(len(rows), dtype=bool)
        if predictions.view.unread is not None:
            alike = np.isin(rows, predictions.view.unread)
        yield _HeldOutPart(predictions, held_out, posterior, alike)


def _of_originals(
    by_view: Sequence[Predictions],
    originals: Originals,
    rows: np.ndarray,
    given: np.ndarray,
    prior: np.ndarray,
) -> _Shares:
    """Estimate shares from the originals, rectified by predictions that have not seen them."""
    n, n_classes = len(originals.given), len(prior)
    is_wrong = originals.given != originals.verified
    worth = sample_worth(is_wrong, originals.groups)
    # Predicted shares: of each verified sample by the view that holds it out, less their mean over
    # the samples that are not verified.
    posterior = np.full((n, n_classes), np.nan)
    view_of, joints = np.zeros(n, dtype=int), np.zeros((len(by_view), n_classes, n_classes))
    for number, part in enumerate(_held_out_parts(by_view, originals, rows), start=1):
        held_out, alike = part.held_out, part.alike
        posterior[held_out] = part.posterior
        view_of[held_out] = number
        joints[number] = part.predictions.joint(rows[alike], given[alike])
    right = posterior[np.arange(n), originals.given]
    mean_right = np.trace(joints, axis1=1, axis2=2)[view_of]
    drawn: dict[str, Any] = {"worth": worth, "weight": originals.weight}
    rate = rectified_share(is_wrong, mean_right - right, len(rows), **drawn)
    shares = _Shares.unknown(n_classes)
    for c in range(n_classes):
        among, means = originals.verified == c, joints[:, c][view_of]
        of_class = {
            "n_rest": len(rows) * prior[c],
            "among": among,
            "among_controls": posterior[:, c] - means.sum(axis=1),
            **drawn,
        }
        for j in range(n_classes) if n_classes < MANY_CLASSES else ():
            given_j = originals.given == j
            controls = posterior[:, c] * given_j - means[:, j]
            share = rectified_share(given_j, controls, **of_class)
            shares.transition[:, c, j], shares.plausible[:, c, j] = share.interval, share.middle
        is_right = originals.given == c
        controls = posterior[:, c] * ~is_right - (means.sum(axis=1) - means[:, c])
        shares.class_rate[:, c] = rectified_share(~is_right, controls, **of_class).interval
    return shares._replace(rate=rate)


def _of_groups(
    groups: np.ndarray,
    by_view: Sequence[Predictions],
    originals: Originals,
    rows: np.ndarray,
    given: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the share of wrong labels in each noise group, and its interval."""
    n_groups = int(groups.max()) + 1
    is_wrong, group = originals.given != originals.verified, groups[originals.rows]
    controls = np.full(len(is_wrong), np.nan)
    for predictions, held_out, posterior, alike in _held_out_parts(by_view, originals, rows):
        right = posterior[np.arange(len(held_out)), originals.given[held_out]]
        for g in np.unique(group[held_out]):
            in_group, of_group = alike & (groups[rows] == g), group[held_out] == g
            if in_group.any():
                mean_right = np.trace(predictions.joint(rows[in_group], given[in_group]))
                controls[held_out[of_group]] = mean_right - right[of_group]
    rate, interval = np.full(n_groups, np.nan), np.tile([0.0, 1.0], (n_groups, 1))
    for g in range(n_groups):
        among, n_rest = group == g, int((groups[rows] == g).sum())
        groups_among = None if originals.groups is None else originals.groups[among]
        worth = sample_worth(is_wrong[among], groups_among)
        weight = None if originals.weight is None else originals.weight[among]
        share = rectified_share(
            is_wrong[among], controls[among], n_rest, worth=worth, weight=weight
        )
        rate[g], interval[g] = share.value, share.interval
    return rate, interval


def _bounds(
    labels: Labels,
    by_view: Sequence[Predictions],
    rows: np.ndarray,
    given: np.ndarray,
    joint: np.ndarray,
) -> _Shares:
    """Bound shares by the disagreement of predictions and labels, and the error of predictions.

    A wrong label that the prediction agrees with is an error of the prediction, and so is a right
    label that it disagrees with. So the share of wrong labels differs from that of disagreements by
    at most the error.
    """
    n_classes = len(joint)
    judging = [predictions for predictions in by_view[1:] if len(predictions.view.held_out)]
    shares, rate = _Shares.unknown(n_classes), float(1 - np.trace(joint))
    if not judging:
        return shares._replace(rate=Share(rate, (0.0, 1.0)))
    verified = by_view[0].view.verified
    sizes = np.array([len(predictions.view.held_out) for predictions in judging])
    held_out = np.concatenate([predictions.view.held_out for predictions in judging])
    truth = verified[held_out]
    predicted = np.concatenate(
        [predictions.proba[predictions.view.held_out].argmax(axis=1) for predictions in judging]
    )
    # A network that has learned the given labels agrees with them: then two others, each of which
    # has learned one half, stand in for it.
    blind = judging if judging[0].is_blind else [by_view[0]] * len(judging)
    counted = np.average(
        [predictions.counted(rows, given) for predictions in blind], axis=0, weights=sizes
    )
    groups, weight = labels.groups, labels.drawn_weight()

    def most(is_error: np.ndarray, level: float) -> float:
        """Return the upper bound of the share of errors among the samples at `rows`."""
        worth = sample_worth(is_error, None if groups is None else groups[held_out])
        share, size = is_error.mean(), worth * len(held_out)
        if weight is not None:
            stands_for = weight[held_out]
            share = weighted_mean(is_error, stands_for)
            size = worth * worth_of_weighted(is_error, stands_for)[1]
        return exact_interval(share, 1 / (1 / size + 1 / len(rows)), 2 * level - 1)[1]

    disagreement, error = 1 - float(np.trace(counted)), most(predicted != truth, LEVEL)
    interval = max(0.0, disagreement - error), min(1.0, disagreement + error)
    low, high = possible_interval(interval, len(rows))
    # The same by class: three bounds that hold together.
    level = 1 - (1 - LEVEL) / 3
    drawn = verified[labels.drawn]
    of_drawn = None if weight is None else weight[labels.drawn]
    for c in range(n_classes):
        missed = most((truth == c) & (predicted != c), level)
        mistaken = most((truth != c) & (predicted == c), level)
        least, largest = mean_interval(drawn == c, of_drawn, len(rows), level)
        wrong = counted[c].sum() - counted[c, c]
        for ends, count in [
            (shares.class_rate[:, c], wrong),
            *zip(shares.transition[:, c].T, counted[c], strict=True),
        ]:
            ends[0] = max(0.0, count - mistaken) / max(largest, 1e-12)
            ends[1] = min(1.0, (count + missed) / max(least, 1e-12))
    rate = float(np.clip(rate, low, high))
    return shares._replace(rate=Share(rate, (low, high)), plausible=shares.transition)


def _thin_classes(classes: np.ndarray, sizes: np.ndarray) -> list[str]:
    """Return a warning if classes have too few samples that are not verified."""
    thin = np.flatnonzero(sizes < MIN_CLASS_SIZE)
    if len(thin) == 0:
        return []
    if len(thin) == 1:
        return [
            f"Only about {sizes[thin[0]]:.0f} of the samples that are not trusted seem to be of "
            f"class {shown(classes[thin[0]])}: too few to estimate how noisy its labels are."
        ]
    return [
        f"{len(thin):,} classes seem to have fewer than {MIN_CLASS_SIZE} samples each that are not "
        f"trusted, too few to estimate how noisy their labels are: {listed(classes[thin])}."
    ]
