"""Majority vote of several sources: the baseline of all methods that aggregate labels."""

from typing import Any

import numpy as np

from pudistill.labels.sources import Sources
from pudistill.methods.aggregation import AggregatingMethod, vote_shares
from pudistill.methods.base import LabelledSamples

# Added to the share of the label that decides a tie, so that it is the largest.
TIE = 1e-6


class MajorityVoteClassifier(AggregatingMethod):
    """Train on the label that most sources gave, with verified labels of trusted samples.

    A tie is decided by the sources that agree more often with others. `label_proba_` holds the
    shares of the votes; the learner is trained on the label itself.

    Parameters
    ----------
    estimator : classifier, default=None
        Any scikit-learn-compatible classifier, which learns from the aggregated labels; ``None``:
        logistic regression on scaled features, a `TorchClassifier` for pictures.
    use_trusted : bool, default=True
        Whether verified labels are used.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    label_proba_ : ndarray of shape (n_samples, n_classes)
        Probabilities of the aggregated labels, one-hot where verified; NaN for samples that are
        left out, as nobody says anything of them.
    source_names_ : ndarray of shape (n_sources,)
        Names of the sources, without those that never speak.
    model_ : fitted estimator
        The classifier, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    Notes
    -----
    The shares are those of crowd-kit 1.4.2's ``MajorityVote`` (``probas_``).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill import simulate_sources
    >>> from pudistill.methods import MajorityVoteClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> sources = simulate_sources(y, 5, level=0.4, random_state=0)
    >>> classifier = MajorityVoteClassifier(random_state=0).fit(X, sources)
    >>> float(np.mean(classifier.label_proba_.argmax(axis=1) == y)) > 0.8
    True
    """

    _learns_hard_labels = True

    def _aggregate(self, samples: LabelledSamples, sources: Sources, *_: Any) -> np.ndarray:
        return (vote_shares(sources) + TIE * samples.targets) / (1 + TIE)
