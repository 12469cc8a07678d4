"""Model selection on verified labels only, because scores on noisy labels mislead."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import BaseCrossValidator, StratifiedKFold
from sklearn.utils import check_random_state

from pudistill.exceptions import InputError
from pudistill.labels.alignment import index_of
from pudistill.labels.checks import MISSING, Labels, check_labels
from pudistill.labels.groups import with_groups
from pudistill.utils.shown import shown


class TrustedKFold(BaseCrossValidator):
    """Cross-validation folds that are stratified by class and by trust, and split no group.

    Every training fold has trusted samples of each class, and every test fold has verified labels
    for scoring. The splitter requests `trusted` and `groups` by metadata routing.

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

    __metadata_request__split = {"trusted": True, "groups": True}

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
            Samples. Exact copies are in one fold.
        y : array-like of shape (n_samples,)
            Given labels.
        groups : array-like of shape (n_samples,), default=None
            The group of each sample, as for ``fit``. All samples of a group are in one fold.
        trusted : array-like of shape (n_samples,), default=None
            Mask or verified labels, as for ``fit``.

        Yields
        ------
        train, test : ndarrays, int
            Rows.

        Raises
        ------
        InputError
            If a class has fewer than `n_splits` trusted samples, or groups with such samples, or
            groups leave a fold without any trusted sample.
        """
        index = index_of(X)
        labels = check_labels(y, trusted, index=index)
        labels = with_groups(labels, X, groups, index, are_verified=trusted is not None, warn=False)
        units = labels.verified[labels.trusted]
        if labels.groups is not None:
            pairs = np.column_stack([labels.groups[labels.trusted], units])
            units = np.unique(pairs, axis=0)[:, 1]
        counts = np.bincount(units, minlength=labels.n_classes)
        if counts.min() < self.n_splits:
            name = shown(labels.classes[counts.argmin()])
            of = "trusted samples" if labels.groups is None else "groups with trusted samples"
            raise InputError(
                f"Class {name} has {counts.min()} {of}, too few for {self.n_splits} "
                "folds: verify more of it, or lower n_splits."
            )
        in_fold = self._deal(labels) if labels.groups is None else self._deal_groups(labels)
        for fold in range(self.n_splits):
            yield np.flatnonzero(in_fold != fold), np.flatnonzero(in_fold == fold)

    def _deal(self, labels: Labels) -> np.ndarray:
        """Return the fold of each sample."""
        random_state = self.random_state if self.shuffle else None
        folds = StratifiedKFold(self.n_splits, shuffle=self.shuffle, random_state=random_state)
        in_fold = np.empty(len(labels.given), dtype=int)
        for rows, classes in (
            (np.flatnonzero(labels.trusted), labels.verified),
            (np.flatnonzero(~labels.trusted), labels.given),
        ):
            in_fold[rows] = _spread(folds, classes[rows])
        return in_fold

    def _deal_groups(self, labels: Labels) -> np.ndarray:
        """Return the fold of each sample, the same for all samples of a group."""
        assert labels.groups is not None
        seed = check_random_state(self.random_state).randint(2**31 - 1) if self.shuffle else 0
        # Trusted samples of a class, other samples of a class, samples without a label.
        strata = np.where(labels.trusted, labels.verified, labels.n_classes + 1 + labels.given)
        fold_of = deal_groups(strata, self.n_splits, seed, labels.groups, n_outside=0)
        in_fold = fold_of[labels.groups]
        for fold in range(self.n_splits):
            learned = np.unique(labels.verified[labels.trusted & (in_fold != fold)])
            if len(learned) < labels.n_classes:
                name = shown(np.delete(labels.classes, learned)[0])
                raise InputError(
                    f"All trusted samples of class {name} are in groups of one fold: verify "
                    "samples of it in more groups, or lower n_splits."
                )
            if not labels.trusted[in_fold == fold].any():
                raise InputError(
                    f"Fold {fold + 1} of {self.n_splits} holds no trusted sample to score on: "
                    "verify samples in more groups, or lower n_splits."
                )
        return in_fold


def deal_folds(
    labels: np.ndarray, n_folds: int, seed: int, groups: np.ndarray | None = None
) -> np.ndarray:
    """Assign the samples of each class to folds.

    Parameters
    ----------
    labels : ndarray of shape (n_samples,), int
        Codes; -1 for samples without a label.
    n_folds : int
        Number of folds; with 1, no sample gets a fold.
    seed : int
        Decides which sample gets which fold.
    groups : ndarray of shape (n_samples,), int, default=None
        Codes of groups, each of which is dealt as a whole.

    Returns
    -------
    folds : ndarray of shape (n_samples,), int
        Fold of each sample; -1 for none. Without groups, samples without a label get no fold, and
        nor does the only sample of a class, because a learner needs a sample of each class. With
        groups, all samples of a group get its fold, whether they have a label or not; a group gets
        none if no sample of one of its classes would be left outside.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.labels.model_selection import deal_folds
    >>> labels = np.array([0, 0, 0, 0, 1, 1, 2, -1])
    >>> folds = deal_folds(labels, n_folds=2, seed=0)
    >>> sorted(folds[:4].tolist()), sorted(folds[4:6].tolist()), folds[6:].tolist()
    ([0, 0, 1, 1], [0, 1], [-1, -1])
    >>> groups = np.array([0, 0, 1, 1, 2, 2, 2, 0])
    >>> folds = deal_folds(labels, n_folds=2, seed=0, groups=groups)
    >>> bool(folds[0] == folds[1] == folds[7] != folds[2]), folds[4:7].tolist()
    (True, [-1, -1, -1])
    """
    if n_folds == 1:
        return np.full(len(labels), MISSING)
    if groups is not None:
        return deal_groups(labels, n_folds, seed, groups, n_outside=1)[groups]
    folds = np.full(len(labels), MISSING)
    rng = np.random.default_rng(seed)
    n_dealt = 0  # over all classes, so that folds are of equal size
    for c in range(labels.max(initial=-1) + 1):
        rows = rng.permutation(np.flatnonzero(labels == c))
        if len(rows) > 1:
            folds[rows] = (n_dealt + np.arange(len(rows))) % n_folds
            n_dealt += len(rows)
    return folds


def deal_groups(
    labels: np.ndarray, n_folds: int, seed: int, groups: np.ndarray, *, n_outside: int
) -> np.ndarray:
    """Assign groups to folds, so that each fold has about the same share of each class.

    Parameters
    ----------
    labels, n_folds, seed, groups
        As for `deal_folds`.
    n_outside : int
        Smallest number of samples of each class outside each fold. A group with samples of a class
        that would keep fewer gets no fold.

    Returns
    -------
    fold_of : ndarray of shape (n_groups,), int
        Fold of each group, without gaps from 0; -1 for none, as for groups without any label.
    """
    fold_of = np.full(groups.max(initial=-1) + 1, MISSING)
    labelled = labels != MISSING
    if not labelled.any():
        return fold_of
    pairs, sizes = np.unique(
        np.column_stack([groups[labelled], labels[labelled]]), axis=0, return_counts=True
    )
    group, c = pairs.T
    class_sizes = np.bincount(labels[labelled])
    # A group is dealt with the class of which it holds the largest share: rare classes go first.
    last = np.lexsort([sizes / class_sizes[c], group])
    last = last[np.append(np.diff(group[last]) > 0, True)]
    dealt, main = group[last], c[last]
    group_sizes = np.bincount(group, weights=sizes)
    rng, n_dealt = np.random.default_rng(seed), 0
    for code in range(len(class_sizes)):
        members = rng.permutation(dealt[main == code])
        members = members[np.argsort(-group_sizes[members], kind="stable")]  # large ones apart
        fold_of[members] = (n_dealt + np.arange(len(members))) % n_folds
        n_dealt += len(members)
    # Take groups out of their fold where too few samples of one of their classes are left.
    inside = np.zeros((n_folds, len(class_sizes)))
    np.add.at(inside, (fold_of[group], c), sizes)
    lacks = class_sizes[c] - inside[fold_of[group], c] < n_outside
    fold_of[group[lacks]] = MISSING
    used = fold_of != MISSING
    fold_of[used] = np.unique(fold_of[used], return_inverse=True)[1]
    return fold_of


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

    Returns
    -------
    scorer : callable
        ``scorer(classifier, X, y, trusted=...)`` returns the accuracy on trusted samples, a float
        in [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn import config_context
    >>> from sklearn.dummy import DummyClassifier
    >>> from pudistill import trusted_accuracy_scorer
    >>> X, y, trusted = np.zeros((4, 1)), [0, 0, 0, 1], [True, True, False, False]
    >>> with config_context(enable_metadata_routing=True):
    ...     trusted_accuracy_scorer()(DummyClassifier().fit(X, y), X, y, trusted=trusted)
    1.0
    """
    return make_scorer(trusted_accuracy).set_score_request(trusted=True)
