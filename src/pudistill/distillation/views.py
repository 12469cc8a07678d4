"""Views of the labels: with all trusted samples, and with some of them held out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np

from pudistill.labels.checks import MISSING, Labels
from pudistill.labels.pseudo_labels import one_hot

# Held-out trusted samples that suffice to compare candidates; more would cost time and add little.
ENOUGH_HELD_OUT = 400
Fitted = TypeVar("Fitted")


@dataclass(frozen=True)
class View:
    """The labels that are visible while some trusted samples are held out.

    Attributes
    ----------
    verified : ndarray of shape (n_samples,), int
        Codes of the samples that are trusted here, -1 elsewhere.
    given : ndarray of shape (n_samples,), int
        Given labels of all other samples; -1 if there is none or it is hidden.
    held_out : ndarray, int
        Rows of the trusted samples that are held out.
    groups : ndarray of shape (n_samples,), int, or None
        Codes of groups. All labels of the groups of held-out samples are hidden.
    unread : ndarray, int, or None
        Rows of samples that nobody verified whose given labels the network of this view does not
        read, so that it knows no more of them than of held-out samples. None: it reads all.
    """

    verified: np.ndarray
    given: np.ndarray
    held_out: np.ndarray
    groups: np.ndarray | None = None
    unread: np.ndarray | None = None

    @property
    def trusted(self) -> np.ndarray:
        """Rows of the samples that are trusted here."""
        return np.flatnonzero(self.verified != MISSING)

    @property
    def labelled(self) -> np.ndarray:
        """Rows of the other samples that have a given label."""
        return np.flatnonzero((self.verified == MISSING) & (self.given != MISSING))

    @property
    def has_several_labels(self) -> bool:
        """Whether given labels are of several classes."""
        return len(np.unique(self.given[self.labelled])) > 1

    @property
    def unseen(self) -> np.ndarray | None:
        """Rows that no model of this view may learn from; None if there are no groups.

        Without groups, held-out samples may be learned from without their labels, as noisy samples
        are. With groups this would be too much: the others of a group say what its label is.
        """
        if self.groups is None or len(self.held_out) == 0:
            return None
        return same_group(self.groups, self.held_out)

    @property
    def hidden(self) -> np.ndarray:
        """Rows whose labels no model of this view may learn: those held out, and their groups."""
        return self.held_out if self.unseen is None else self.unseen

    @property
    def unlearned(self) -> np.ndarray:
        """Rows whose labels the network of this view does not learn: held out, or unread."""
        return self.held_out if self.unread is None else np.append(self.held_out, self.unread)

    def holding_out(self, rows: np.ndarray, given: np.ndarray | None) -> "View":
        """Return the view that hides the verified labels of `rows`; it shows `given`, if any.

        All labels of other samples of their groups are hidden, too.
        """
        verified, others = self.verified.copy(), self.given.copy()
        hidden = rows if self.groups is None else same_group(self.groups, rows)
        verified[hidden] = others[hidden] = MISSING
        if given is not None:
            others[rows] = given[rows]
        return View(verified, others, rows, self.groups)


def same_group(groups: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return all rows that are in the groups of some rows, these included."""
    is_in = np.zeros(groups.max(initial=-1) + 1, dtype=bool)
    is_in[groups[rows]] = True
    return np.flatnonzero(is_in[groups])


def whole_view(labels: Labels) -> View:
    """Return the view that holds out no trusted sample."""
    given = np.where(labels.trusted, MISSING, labels.given)
    return View(labels.verified, given, np.arange(0), labels.groups)


def held_out_rows(folds: np.ndarray, *, one_or_all: bool = False) -> list[np.ndarray]:
    """Return the rows of as many folds as are needed to hold out enough trusted samples.

    Parameters
    ----------
    folds : ndarray of shape (n_samples,), int
        Fold of each trusted sample; -1 for all others.
    one_or_all : bool, default=False
        Whether to return all folds if one is not enough.

    Returns
    -------
    rows : list of ndarray of int
        Rows of each fold.
    """
    rows = [np.flatnonzero(folds == fold) for fold in range(folds.max(initial=-1) + 1)]
    n_held_out = np.cumsum([len(fold) for fold in rows])
    enough = int(np.searchsorted(n_held_out, ENOUGH_HELD_OUT)) + 1
    return rows if one_or_all and enough > 1 else rows[:enough]


def deal_unread(views: list[View], seed: int) -> list[View]:
    """Deal the samples that nobody verified to the views that hold samples out.

    The network of a view neither reads the verified labels that it holds out nor the given labels
    dealt to it. So one training serves two purposes: to judge held-out samples, and to predict
    other samples without their given labels. With groups, whole groups are dealt, those of held-out
    samples to the view that hides them. A single view is returned as it is.
    """
    whole, n_parts = views[0], len(views) - 1
    if n_parts < 2:
        return views
    part = deal(whole, n_parts, seed)
    for number, view in enumerate(views[1:]):
        part[view.hidden] = number
    part[whole.trusted] = MISSING
    dealt = [replace(view, unread=np.flatnonzero(part == n)) for n, view in enumerate(views[1:])]
    return [whole, *dealt]


def deal(whole: View, n_parts: int, seed: int) -> np.ndarray:
    """Deal samples, or with groups whole groups, into parts: (n_samples,), int."""
    rng = np.random.default_rng(seed)
    if whole.groups is None:
        return rng.integers(n_parts, size=len(whole.given))
    return (rng.permutation(whole.groups.max() + 1) % n_parts)[whole.groups]


def held_out_proba(predictions: list[np.ndarray], views: list[View]) -> np.ndarray:
    """Collect each view's predictions for the samples that it holds out."""
    parts = [proba[view.held_out] for proba, view in zip(predictions, views, strict=True)]
    return np.concatenate(parts)


def held_out_groups(views: list[View]) -> np.ndarray | None:
    """Collect the groups of held-out samples; None if there are no groups."""
    groups = views[0].groups
    return None if groups is None else np.concatenate([groups[view.held_out] for view in views])


def held_out_weight(weight: np.ndarray | None, views: list[View]) -> np.ndarray | None:
    """Collect the weights of held-out samples; None if all weigh the same."""
    return None if weight is None else np.concatenate([weight[view.held_out] for view in views])


def held_out_truth(views: list[View], n_classes: int) -> np.ndarray:
    """Collect the verified labels of held-out samples as one-hot rows; `views[0]` has them."""
    codes = np.concatenate([views[0].verified[view.held_out] for view in views])
    return one_hot(codes, n_classes)


def fit_for_each_view(fit: Callable[[np.ndarray], Fitted], views: Sequence[View]) -> list[Fitted]:
    """Fit, for each view, on the held-out samples of the other views.

    What was fitted on some samples makes predictions for these look better than they are. If one
    view holds samples out, all share what is fitted on them: so many that it hardly matters.

    Parameters
    ----------
    fit : callable
        Gets positions among the held-out samples of all views, in their order, int; returns what
        was fitted on these.
    views : sequence of View
        All labels; then the same labels with some trusted samples held out.

    Returns
    -------
    fitted : list
        What was fitted for each view; for the first on all held-out samples.
    """
    rows = np.arange(sum(len(view.held_out) for view in views))
    of_all = fit(rows)
    if len(views) <= 2:
        return [of_all] * len(views)
    return [of_all, *(fit(np.delete(rows, part)) for part in held_out_slices(views[1:]))]


def held_out_slices(views: Sequence[View]) -> list[slice]:
    """Return where the samples of each view are among the held-out samples of all views."""
    ends = np.cumsum([0, *(len(view.held_out) for view in views)]).tolist()
    return [slice(*part) for part in pairwise(ends)]
