"""Views of the labels: with all trusted samples, and with some of them held out."""

from dataclasses import dataclass

import numpy as np

from pudistill.labels.checks import MISSING, Labels
from pudistill.labels.pseudo_labels import one_hot

# Held-out trusted samples that suffice to compare candidates; more would cost time and add little.
ENOUGH_HELD_OUT = 400


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
    """

    verified: np.ndarray
    given: np.ndarray
    held_out: np.ndarray
    groups: np.ndarray | None = None

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


def held_out_rows(folds: np.ndarray, *, at_most: int | None = None) -> list[np.ndarray]:
    """Return the rows of as many folds as are needed to hold out enough trusted samples.

    Parameters
    ----------
    folds : ndarray of shape (n_samples,), int
        Fold of each trusted sample; -1 for all others.
    at_most : int, default=None
        Largest number of folds.

    Returns
    -------
    rows : list of ndarray of int
        Rows of each fold.
    """
    rows = [np.flatnonzero(folds == fold) for fold in range(folds.max(initial=-1) + 1)]
    n_held_out = np.cumsum([len(fold) for fold in rows])
    enough = int(np.searchsorted(n_held_out, ENOUGH_HELD_OUT)) + 1
    return rows[: enough if at_most is None else min(enough, at_most)]


def held_out_proba(predictions: list[np.ndarray], views: list[View]) -> np.ndarray:
    """Collect each view's predictions for the samples that it holds out."""
    parts = [proba[view.held_out] for proba, view in zip(predictions, views, strict=True)]
    return np.concatenate(parts)


def held_out_groups(views: list[View]) -> np.ndarray | None:
    """Collect the groups of held-out samples; None if there are no groups."""
    groups = views[0].groups
    return None if groups is None else np.concatenate([groups[view.held_out] for view in views])


def held_out_truth(views: list[View], n_classes: int) -> np.ndarray:
    """Collect the verified labels of held-out samples as one-hot rows; `views[0]` has them."""
    codes = np.concatenate([views[0].verified[view.held_out] for view in views])
    return one_hot(codes, n_classes)
