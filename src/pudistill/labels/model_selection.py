"""Model selection on verified labels only, because scores on noisy labels mislead."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import BaseCrossValidator, StratifiedKFold
from sklearn.utils.validation import _num_samples

from pudistill.exceptions import InputError
from pudistill.labels.checks import MISSING, check_labels


class TrustedKFold(BaseCrossValidator):
    """Cross-validation folds that are stratified by class and by trust.

    Every training fold has trusted samples of each class, and every test fold has verified labels
    for scoring. The splitter requests `trusted` by metadata routing.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds. Each class needs at least this many trusted samples.
    shuffle : bool, default=True
        Whether to shuffle before splitting.
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffling.

    See Also
    --------
    trusted_accuracy_scorer : Accuracy on verified labels.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn import config_context
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_val_score
    >>> from pudistill import PUDistillClassifier, TrustedKFold, trusted_accuracy_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> trusted = np.arange(150) % 5 == 0
    >>> with config_context(enable_metadata_routing=True):
    ...     scores = cross_val_score(
    ...         PUDistillClassifier(method="paper", n_members=5, random_state=0),
    ...         X,
    ...         y,
    ...         cv=TrustedKFold(3, random_state=0),
    ...         scoring=trusted_accuracy_scorer(),
    ...         params={"trusted": trusted},
    ...     )
    >>> len(scores)
    3
    """

    __metadata_request__split = {"trusted": True}

    def __init__(
        self,
        n_splits: int = 5,
        *,
        shuffle: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_splits = n_splits
        self.shuffle = shuffle
        self.random_state = random_state

    def get_n_splits(
        self, X: Any = None, y: Any = None, groups: Any = None, *, trusted: Any = None
    ) -> int:
        """Return the number of folds; arguments are ignored."""
        del X, y, groups, trusted
        return self.n_splits

    def split(
        self, X: Any, y: Any, groups: Any = None, *, trusted: Any = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield training and test rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples; only their number matters.
        y : array-like of shape (n_samples,)
            Given labels.
        groups : object
            Ignored.
        trusted : array-like of shape (n_samples,), default=None
            Mask or verified labels, as for ``fit``.

        Yields
        ------
        train, test : ndarrays, int
            Rows.

        Raises
        ------
        InputError
            If a class has fewer than `n_splits` trusted samples.
        """
        del groups
        labels = check_labels(y, trusted)
        counts = np.bincount(labels.verified[labels.trusted], minlength=labels.n_classes)
        if counts.min() < self.n_splits:
            name = labels.classes.tolist()[counts.argmin()]
            raise InputError(
                f"Class {name!r} has {counts.min()} trusted samples, too few for {self.n_splits} "
                "folds: verify more of it, or lower n_splits."
            )
        random_state = self.random_state if self.shuffle else None
        folds = StratifiedKFold(self.n_splits, shuffle=self.shuffle, random_state=random_state)
        in_fold = np.empty(_num_samples(X), dtype=int)
        for rows, classes in (
            (np.flatnonzero(labels.trusted), labels.verified),
            (np.flatnonzero(~labels.trusted), labels.given),
        ):
            in_fold[rows] = _spread(folds, classes[rows])
        for fold in range(self.n_splits):
            yield np.flatnonzero(in_fold != fold), np.flatnonzero(in_fold == fold)


def deal_folds(labels: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Assign the samples of each class to folds.

    Parameters
    ----------
    labels : ndarray of shape (n_samples,), int
        Codes; -1 for samples without a fold.
    n_folds : int
        Number of folds; with 1, no sample gets a fold.
    seed : int
        Decides which sample gets which fold.

    Returns
    -------
    folds : ndarray of shape (n_samples,), int
        Fold of each sample; -1 for none. A class with a single sample gets no fold, because a
        learner needs a sample of each class.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.labels.model_selection import deal_folds
    >>> folds = deal_folds(np.array([0, 0, 0, 0, 1, 1, 2, -1]), n_folds=2, seed=0)
    >>> sorted(folds[:4].tolist()), sorted(folds[4:6].tolist()), folds[6:].tolist()
    ([0, 0, 1, 1], [0, 1], [-1, -1])
    """
    folds = np.full(len(labels), MISSING)
    if n_folds == 1:
        return folds
    rng = np.random.default_rng(seed)
    n_dealt = 0  # over all classes, so that folds are of equal size
    for c in range(labels.max(initial=-1) + 1):
        rows = rng.permutation(np.flatnonzero(labels == c))
        if len(rows) > 1:
            folds[rows] = (n_dealt + np.arange(len(rows))) % n_folds
            n_dealt += len(rows)
    return folds


def _spread(folds: StratifiedKFold, classes: np.ndarray) -> np.ndarray:
    """Return the fold of each sample; classes with fewer samples than folds count as one class."""
    rare = np.isin(classes, np.flatnonzero(np.bincount(classes + 1) < folds.n_splits) - 1)
    strata = np.where(rare, classes.max(initial=0) + 1, classes)
    if len(strata) < folds.n_splits or np.unique(strata, return_counts=True)[1].min() < 2:
        strata = np.zeros_like(strata)
    if len(strata) < folds.n_splits:
        return np.arange(len(strata))
    in_fold = np.empty(len(strata), dtype=int)
    for fold, (_, test) in enumerate(folds.split(strata, strata)):
        in_fold[test] = fold
    return in_fold


def trusted_accuracy(y: Any, prediction: Any, trusted: Any = None) -> float:
    """Return the share of right predictions among samples with a verified label.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Given labels.
    prediction : array-like of shape (n_samples,)
        Predicted labels.
    trusted : array-like of shape (n_samples,), default=None
        Mask or verified labels, as for ``fit``.

    Returns
    -------
    accuracy : float in [0, 1]
        Accuracy on the trusted samples.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill import trusted_accuracy
    >>> trusted_accuracy([0, 1, 1], [0, 1, 0], np.array([True, True, False]))
    1.0
    """
    labels = check_labels(y, trusted, for_fit=False)
    mask = labels.trusted
    verified = labels.classes[labels.verified[mask]]
    return float(accuracy_score(verified, np.asarray(prediction)[mask]))


def trusted_accuracy_scorer() -> Any:
    """Return a scorer of `trusted_accuracy` that requests `trusted` by metadata routing.

    Call it inside ``config_context(enable_metadata_routing=True)``; see `TrustedKFold`.
    """
    return make_scorer(trusted_accuracy).set_score_request(trusted=True)
