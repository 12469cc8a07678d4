"""How given labels come from true classes, and how likely they are for each class."""

from typing import NamedTuple

import numpy as np

from pudistill.distillation.source_model import SourceModel
from pudistill.labels.checks import MISSING
from pudistill.labels.pseudo_labels import likelihood, one_hot
from pudistill.utils.arrays import rowwise


class NoiseModel(NamedTuple):
    """How given labels come from true classes.

    Attributes
    ----------
    T : ndarray of shape (n_classes, n_classes)
        The transition matrix of all samples together.
    by_group : ndarray of shape (n_groups, n_classes, n_classes), or None
        A transition matrix for each noise group; None: `T` is that of all.
    groups : ndarray of shape (n_samples,), int, or None
        The noise group of each sample.
    by_source : SourceModel or None
        Noise of several sources, whose majority vote the given labels are.
    """

    T: np.ndarray
    by_group: np.ndarray | None = None
    groups: np.ndarray | None = None
    by_source: SourceModel | None = None

    def likelihood(
        self,
        given: np.ndarray,
        verified: np.ndarray | None = None,
        rows: np.ndarray | slice = slice(None),
    ) -> np.ndarray:
        """Return the likelihood of labels of the samples at `rows` for each true class.

        Parameters and result are those of `labels.pseudo_labels.likelihood`.
        """
        labels = (given,) if verified is None else (given, verified)
        if (model := self.by_source) is not None:
            numbers = np.arange(model.sources.said.shape[0])[rows]
            return rowwise(lambda *part: _likelihood_by_source(model, *part), numbers, *labels)
        if (by_group := self.by_group) is None or self.groups is None:
            return rowwise(lambda *part: likelihood(self.T, *part), *labels)
        return rowwise(
            lambda *part: _likelihood_by_group(by_group, *part), self.groups[rows], *labels
        )


def _likelihood_by_group(
    by_group: np.ndarray, groups: np.ndarray, given: np.ndarray, verified: np.ndarray | None = None
) -> np.ndarray:
    return _where_known(by_group[groups, :, given], given, verified)


def _likelihood_by_source(
    model: SourceModel, rows: np.ndarray, given: np.ndarray, verified: np.ndarray | None = None
) -> np.ndarray:
    # Where all sources are silent there is no label to hide, and their silence counts.
    shown = np.where(model.sources.all_silent[rows], 0, given)
    return _where_known(model.likelihood(rows), shown, verified)


def _where_known(
    of_labels: np.ndarray, given: np.ndarray, verified: np.ndarray | None
) -> np.ndarray:
    """Set the likelihood to 1 where no label is shown, and to that of verified labels."""
    of_labels[given == MISSING] = 1.0
    if verified is not None:
        is_known = verified != MISSING
        of_labels[is_known] = one_hot(verified[is_known], of_labels.shape[1])
    return of_labels
