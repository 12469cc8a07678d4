"""What an earlier fit of the same samples has learned, from which an update starts."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pudistill.exceptions import InputError
from pudistill.labels.checks import MISSING, Labels
from pudistill.pu_filter.estimator import TieredPUFilter
from pudistill.pu_filter.voting import STOPPED_EARLY
from pudistill.utils.arrays import rowwise
from pudistill.utils.shown import listed

# Attributes of a filter that hold a row for each sample, along their last or first axis.
OF_SAMPLES = ("folds_", "clean_labels_", "team_labels_", "votes_")


def can_be_updated(classifier: Any) -> bool:
    """Return whether a fit can start from what a classifier has learned.

    It must have been fitted by the default method. With a filter whose rule is given, there are no
    folds to keep: the earlier predictions of a view would know labels that the new view holds out.
    """
    if getattr(classifier, "cross_fitted_proba_", None) is None:
        return False
    return not classifier.held_out_proba_ or classifier.filter_.folds_.max() >= 0


@dataclass(frozen=True)
class EarlierFit:
    """What an earlier fit of the same samples has learned; some have been verified since.

    A view that holds a fold out starts from what the same view has learned before, which knows
    neither the verified labels of the fold nor those of samples that were verified since. So a
    sample keeps its fold for good.

    Attributes
    ----------
    filter : TieredPUFilter
        The filter, with its folds and clean sets.
    probas : list of ndarray of shape (n_samples, n_classes)
        For the view of all verified samples and for each view that held a fold out, predictions of
        each sample by models that have seen neither its given nor its verified label. NaN for
        samples that were added since.
    model : fitted estimator
        The model that was shipped. If it is a network, the student continues its training.
    C_of_noise_free_models, C_of_student : float or None
        The regularisation of the models that read no noisy label and of the student, if it was
        chosen.
    seed : int
        Seed of the student. It has decided which view's network reads which given labels.
    """

    filter: TieredPUFilter
    probas: list[np.ndarray]
    model: Any
    C_of_noise_free_models: float | None
    C_of_student: float | None
    seed: int

    @classmethod
    def of(cls, classifier: Any, labels: Labels) -> "EarlierFit":
        """Return what a classifier has learned.

        Parameters
        ----------
        classifier : PUDistillClassifier
            A fitted classifier, or one from `pudistill.load`, for which `can_be_updated` holds.
        labels : Labels
            The labels of the same samples in the same order; samples may have been added at the
            end.

        Raises
        ------
        InputError
            If there are fewer samples, other classes or other labels, or a sample that was verified
            is not verified any more.
        """
        is_same = np.array_equal(classifier.classes_, labels.classes)
        table = classifier.label_table_
        if not is_same or len(labels.given) < len(table):
            now = f"{len(labels.given):,} samples of the classes {listed(labels.classes)}"
            before = f"{len(table):,} of {listed(classifier.classes_)}"
            raise InputError(
                "The fit can only start from one of the same samples and classes: there are "
                f"{now}, and there were {before}. Fit anew, with warm_start=False."
            )
        _check_same_labels(labels, table)
        # Samples verified to be of no class were in no training.
        kept = np.flatnonzero((table["label"] != classifier.no_class_label).to_numpy())
        rows = np.full(len(labels.given), MISSING)
        rows[kept] = np.arange(len(kept))
        adapted = classifier.adapted_ or {}
        return cls(
            classifier.filter_,
            [classifier.cross_fitted_proba_, *classifier.held_out_proba_],
            classifier.student_,
            adapted.get("C_of_noise_free_models"),
            adapted.get("C_of_student"),
            classifier.student_seed_,
        )._take(rows[~labels.no_class])

    def _take(self, rows: np.ndarray) -> "EarlierFit":
        """Return the samples at `rows`; -1 stands for a sample that is new."""
        found, is_new = copy.copy(self.filter), rows == MISSING
        for name in OF_SAMPLES:
            values = getattr(found, name)
            empty = STOPPED_EARLY if name == "votes_" else MISSING
            if name == "team_labels_":
                values = np.where(is_new, empty, values[:, rows])
            else:
                values = values[rows]
                values[is_new] = empty
            setattr(found, name, values)
        probas = [
            rowwise(lambda at, p=proba: np.where(at[:, None] < 0, np.nan, p[at]), rows)
            for proba in self.probas
        ]
        return replace(self, filter=found, probas=probas)

    @property
    def n_folds(self) -> int:
        """Number of views that held a fold out."""
        return len(self.probas) - 1

    def predictions(self, guesses: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the predictions for each view; those of `guesses` for samples that are new."""
        return [
            rowwise(_filled, proba, guess)
            for proba, guess in zip(self.probas, guesses, strict=False)
        ]

    def filter_with(self, labels: Labels, seed: int) -> TieredPUFilter:
        """Return the filter as if it had found the samples that were verified since.

        They are dealt to the folds; all others keep theirs. A team that leaves a fold out does not
        learn the verified labels of the fold.
        """
        found = copy.copy(self.filter)
        found.folds_ = _with_new_samples(found.folds_, len(found.team_labels_), labels, seed)
        found.clean_labels_ = np.where(labels.trusted, labels.verified, found.clean_labels_)
        found.team_labels_ = np.where(labels.trusted, labels.verified, found.team_labels_)
        for fold, team_labels in enumerate(found.team_labels_):
            team_labels[labels.trusted & (found.folds_ == fold)] = MISSING
        return found


def _check_same_labels(labels: Labels, table: pd.DataFrame) -> None:
    """Raise an `InputError` unless the labels begin with those of an earlier label table."""
    n = len(table)
    verified = (labels.trusted | labels.no_class)[:n]
    given = np.array([*labels.classes, None], dtype=object)[labels.given[:n]]
    before = table["given"].astype(object).to_numpy(copy=True)
    before[table["given"].isna().to_numpy()] = None
    is_lost = table["trusted"].to_numpy(bool) & ~verified
    for is_other, what in (
        (is_lost, "was verified before, and is not now"),
        (~verified & (given != before), "has another given label than before"),
    ):
        if is_other.any():
            raise InputError(
                f"Sample {np.flatnonzero(is_other)[0]} {what}: pass the same samples in the same "
                "order, or fit anew, with warm_start=False."
            )


def _filled(proba: np.ndarray, guess: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(proba), guess, proba)


def _with_new_samples(folds: np.ndarray, n_folds: int, labels: Labels, seed: int) -> np.ndarray:
    """Deal verified samples that have no fold, or with groups their groups, to the folds.

    A group that has a fold keeps it, also for samples that were added since. One that has several,
    because there were other groups before, loses them: what holds one fold out knows the others.
    """
    groups = np.arange(len(folds)) if labels.groups is None else labels.groups
    n_groups, has_fold = groups.max() + 1, folds != MISSING
    last_of_group = np.full(n_groups, MISSING)
    np.maximum.at(last_of_group, groups, folds)
    first_of_group = np.full(n_groups, n_folds)
    np.minimum.at(first_of_group, groups[has_fold], folds[has_fold])
    is_split = (last_of_group > first_of_group)[groups]
    is_new = labels.drawn & ~has_fold
    new_groups = np.random.default_rng(seed).permutation(
        np.unique(groups[is_new & (last_of_group[groups] == MISSING)])
    )
    fold_of_group = last_of_group
    fold_of_group[new_groups] = np.arange(len(new_groups)) % n_folds
    dealt = np.where(is_split, MISSING, fold_of_group[groups])
    # A learner needs a verified sample of each class outside each fold.
    for c in range(labels.n_classes):
        is_of_class = labels.drawn & (labels.verified == c)
        if len(np.unique(dealt[is_of_class])) == 1:
            dealt[is_of_class & is_new] = MISSING
    return dealt
