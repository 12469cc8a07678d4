"""What an earlier fit of the same samples has learned, from which an update starts."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from pudistill.labels.checks import MISSING, Labels
from pudistill.pu_filter.estimator import TieredPUFilter


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
        each sample by models that have seen neither its given nor its verified label.
    student : fitted estimator
        The student; a network is trained further.
    C_of_noise_free_models, C_of_student : float or None
        The regularisation of the models that read no noisy label and of the student, if it was
        chosen.
    """

    filter: TieredPUFilter
    probas: list[np.ndarray]
    student: Any
    C_of_noise_free_models: float | None
    C_of_student: float | None

    @property
    def n_folds(self) -> int:
        """Number of views that held a fold out."""
        return len(self.probas) - 1

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


def _with_new_samples(
    folds: np.ndarray, n_folds: int, labels: Labels, seed: int
) -> np.ndarray:
    """Deal verified samples that have no fold, or with groups their groups, to the folds."""
    groups = np.arange(len(folds)) if labels.groups is None else labels.groups
    is_new = labels.drawn & (folds == MISSING)
    new_groups = np.random.default_rng(seed).permutation(np.unique(groups[is_new]))
    fold_of_group = np.full(groups.max() + 1, MISSING)
    fold_of_group[new_groups] = np.arange(len(new_groups)) % n_folds
    dealt = np.where(folds == MISSING, fold_of_group[groups], folds)
    # A learner needs a verified sample of each class outside each fold.
    for c in range(labels.n_classes):
        is_of_class = labels.drawn & (labels.verified == c)
        if len(np.unique(dealt[is_of_class])) == 1:
            dealt[is_of_class & is_new] = MISSING
    return dealt
