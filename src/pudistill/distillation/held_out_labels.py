"""What models that have not seen a sample's verified label say of it, for every sample alike.

Each sample that nobody verified gets its label from the models of one view, drawn at random. So
verified samples, judged by the view that holds them out, are a random part of all samples that this
view judges, and what is true of them is true of the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pudistill.data.draws import Draws
from pudistill.distillation.clusters import sample_worth
from pudistill.distillation.comparison import LabelAccuracy
from pudistill.distillation.predictions import Predictions
from pudistill.distillation.random_sample import doubt_of_random_sample
from pudistill.distillation.readout import Readout
from pudistill.distillation.transition import Originals
from pudistill.estimates.shares import rectified_share
from pudistill.exceptions import TrustedWarning, warn_user
from pudistill.labels.checks import MISSING, Labels
from pudistill.labels.pseudo_labels import likeliest

UNFAIR = (
    "The verified samples came as a mask, and the network has learned all other given labels, so "
    "it is surer of those. Pass verified labels beside the given ones."
)


@dataclass(frozen=True, repr=False)
class HeldOutLabels:
    """A label and its score for every sample, by models that have not seen its verified label.

    Attributes
    ----------
    label : ndarray of shape (n_samples,), int
        Code of the label; -1 where there is none.
    score : ndarray of shape (n_samples,), float32
        Probability of the label according to these models, which may be too sure. NaN for verified
        samples that were not held out, or not drawn at random.
    worth : float in (0, 1]
        Number of independent samples that a verified sample is worth; 1 without groups.
    doubt : str or None
        Why no promise can rest on these labels, such as that the verified samples can be no random
        sample.
    given_score : ndarray of shape (n_samples,), float32, or None
        Probability that the given label is right, by the same models; NaN where there is none. None
        where no verified sample has the label that it was given.
    draw_weight, draw_order : ndarray of shape (n_samples,), or None
        How verified samples were drawn, see `Draws`; None: uniformly.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill import correct_labels
    >>> y, rng = np.arange(1000) % 2, np.random.default_rng(0)
    >>> given = np.where(rng.random(1000) < 0.2, 1 - y, y)  # a fifth are wrong
    >>> verified = np.where(rng.random(1000) < 0.2, y, np.nan)
    >>> proba = np.where(y[:, None] == [0, 1], 0.9, 0.1)  # predictions of some model
    >>> held_out = correct_labels(given, proba, verified).held_out_labels
    >>> float((held_out.label == y).mean())
    1.0
    """

    label: np.ndarray
    score: np.ndarray
    worth: float
    doubt: str | None
    draw_weight: np.ndarray | None = None
    draw_order: np.ndarray | None = None
    given_score: np.ndarray | None = None

    def __repr__(self) -> str:
        n_judged = int((self.label != MISSING).sum())
        about = f" {self.doubt}" if self.doubt else ""
        return f"Labels of {n_judged:,} samples by models that have not seen theirs.{about}"

    def drawn_as(self, draws: Draws | None) -> "HeldOutLabels":
        """Return the same labels with the draws of verified samples."""
        weight, order = (None, None) if draws is None else draws
        return replace(self, draw_weight=weight, draw_order=order)

    def counted(self, trusted: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the rows of verified samples that means are counted on, and their weights.

        These were held out, and drawn, if not all draws were uniform; None: all count alike.
        """
        is_judged = trusted & (self.label >= 0) & ~np.isnan(self.score)
        if self.draw_weight is None or self.draw_order is None:
            return np.flatnonzero(is_judged), None
        rows = np.flatnonzero(is_judged & ~np.isnan(self.draw_weight))
        draws = Draws(self.draw_weight, self.draw_order)
        return rows, draws.for_means(int((~trusted).sum()))[rows]

    def with_no_class(self, labels: Labels) -> "HeldOutLabels":
        """Add the samples that were verified to be of no class: any label of theirs is wrong."""
        if not labels.no_class.any():
            return self
        label = np.full(len(labels.given), MISSING, dtype=self.label.dtype)
        score = np.ones(len(labels.given), dtype=self.score.dtype)
        label[~labels.no_class], score[~labels.no_class] = self.label, self.score
        if labels.picked is not None:
            score[labels.no_class & labels.picked] = np.nan
        given_score = self.given_score
        if given_score is not None:
            given_score = np.full(len(label), np.nan, dtype=score.dtype)
            given_score[~labels.no_class] = self.given_score
        return replace(self, label=label, score=score, given_score=given_score).drawn_as(
            labels.draws
        )


def judge_all(
    labels: Labels,
    by_view: Sequence[Predictions],
    originals: Originals | None,
    targets: np.ndarray,
    seed: int,
    doubt: str | None = None,
) -> tuple[HeldOutLabels, LabelAccuracy | None]:
    """Judge all samples by views that hold verified samples out.

    Parameters
    ----------
    labels : Labels
        Verified labels.
    by_view : sequence of Predictions
        Those of the views that hold verified samples out.
    originals : Originals or None
        Verified samples with the labels that they were given.
    targets : ndarray of shape (n_samples, n_classes)
        Posterior labels; the likeliest class of each is the corrected label.
    seed : int
        Decides which view judges which of the samples that nobody verified.
    doubt : str, default=None
        A reason that is known already why no promise can be made.

    Returns
    -------
    held_out : HeldOutLabels
        The labels.
    accuracy : LabelAccuracy or None
        Share of the corrected labels of samples that nobody verified that are right. Its interval
        holds under any noise, if verified samples are a random sample, and if models that have seen
        all verified labels are no worse than those that have seen most of them. None if no verified
        sample was held out.
    """
    n, rest, view_of = len(labels.given), ~labels.trusted, np.full(len(labels.given), MISSING)
    label, score = np.full(n, MISSING), np.full(n, np.nan, dtype=np.float32)
    given_score = np.full(n, np.nan, dtype=np.float32)
    sizes = np.array([len(predictions.view.held_out) for predictions in by_view])
    unread = [
        predictions.view.unread for predictions in by_view if predictions.view.unread is not None
    ]
    is_dealt = len(unread) == len(by_view)
    is_fair = (
        originals is not None or is_dealt or all(predictions.is_blind for predictions in by_view)
    )
    if sizes.sum() == 0 or not is_fair:
        reason = None if is_fair else UNFAIR
        return HeldOutLabels(label, score, 1.0, reason), None
    if is_dealt:  # each view judges what it has not read
        for number, rows in enumerate(unread):
            view_of[rows] = number
    else:
        rng = np.random.default_rng(seed)
        view_of[rest] = rng.choice(len(by_view), int(rest.sum()), p=sizes / sizes.sum())
    # Control of each held-out sample: its score, less the mean of the others' by the same view.
    controls = np.full(n, np.nan)
    for number, predictions in enumerate(by_view):
        held_out = predictions.view.held_out[labels.drawn[predictions.view.held_out]]
        others = np.flatnonzero(view_of == number)
        rows = np.concatenate([held_out, others])
        proba = predictions.proba[rows]
        if originals is not None:
            # Not even the exponents have seen the labels that are judged.
            readout = Readout.fit([*by_view[:number], *by_view[number + 1 :]], originals)
            given = predictions.view.given[rows]
            proba = readout.posterior(proba, predictions.noise.likelihood(given, rows=rows))
            known = given != MISSING
            given_score[rows[known]] = proba[known, given[known]]
        label[rows], score[rows] = proba.argmax(axis=1), proba.max(axis=1)
        if len(others):
            controls[held_out] = score[held_out] - score[others].mean()
    judged = np.flatnonzero(labels.trusted & (label != MISSING))
    is_right = label[judged] == labels.verified[judged]
    worth = sample_worth(is_right, None if labels.groups is None else labels.groups[judged])
    if doubt is None and (doubt := doubt_of_random_sample(labels, label, score)) is not None:
        warn_user(doubt, TrustedWarning)
    held_out = HeldOutLabels(label, score, worth, doubt).drawn_as(labels.draws)
    if originals is not None:
        held_out = replace(held_out, given_score=given_score)
    weight = labels.drawn_weight()
    if len(judged) == 0 or not rest.any():
        return held_out, None
    share = rectified_share(
        is_right,
        controls[judged],
        rest.sum(),
        worth=worth,
        weight=None if weight is None else weight[judged],
    )
    value, (low, high) = share.value, share.interval
    if originals is None:
        # Corrected labels have read the given ones, too: where they differ from these labels, they
        # can be right or wrong. The value in between assumes that noise depends on the class.
        corrected, claimed = likeliest(targets)
        differ = float((label[rest] != corrected[rest]).mean())
        low, high = max(0.0, low - differ), min(1.0, high + differ)
        value = float(np.clip(claimed[rest].mean(), low, high))
    return held_out, LabelAccuracy(value, (low, high), len(judged))
