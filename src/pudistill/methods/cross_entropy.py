"""Training on the given labels as they are: the baseline of all other methods."""

from typing import Any

import numpy as np

from pudistill.methods.base import LabelledSamples, Method, train_learner


class CrossEntropyClassifier(Method):
    """Train on the given labels as if all were correct, with verified labels of trusted samples.

    Parameters
    ----------
    estimator : classifier, default=None
        Any scikit-learn-compatible classifier; ``None``: logistic regression on scaled features, a
        `TorchClassifier` for pictures.
    use_trusted : bool, default=True
        Whether trusted samples have their verified labels. False: the paper's protocol, in which
        only the paper's own method knows which samples are trusted.
    random_state : int, RandomState instance or None, default=None
        Seeds all random numbers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    model_ : fitted estimator
        The classifier, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill.methods import CrossEntropyClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> trusted = np.arange(178) % 10 == 0
    >>> classifier = CrossEntropyClassifier(random_state=0).fit(X, y, trusted=trusted)
    >>> classifier.score(X, y) > 0.9
    True
    """

    _parameter_constraints: dict = {**Method._parameter_constraints, "use_trusted": ["boolean"]}

    def __init__(
        self,
        estimator: Any = None,
        *,
        use_trusted: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.use_trusted = use_trusted
        self.random_state = random_state

    def _learn(self, samples: LabelledSamples, seed: int) -> Any:
        learner = self._learner(samples.X)
        return train_learner(samples, learner, seed)
