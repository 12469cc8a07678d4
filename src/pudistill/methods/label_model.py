"""The label model of data programming: one accuracy for each source that may abstain."""

from typing import Any

import numpy as np

from pudistill.labels.sources import Sources
from pudistill.methods.aggregation import (
    AggregatingMethod,
    counted_labels,
    maximise_expectation,
)
from pudistill.methods.base import LabelledSamples, Method

# The accuracy that a source seems to have in one label before it speaks.
FIRST_ACCURACY = 0.7


class LabelModelClassifier(AggregatingMethod):
    """Weigh each source by its accuracy, and train on the probabilities of the classes.

    This is the generative model of data programming, on which Snorkel was built: given the true
    class, sources are independent, each is right with one probability for all classes, its wrong
    labels are spread evenly over the other classes, and whether it speaks does not depend on the
    class. The likelihood is maximised by expectation-maximisation instead of stochastic gradients.
    Classes are equally frequent, as in the paper, or as frequent as among verified samples, which
    fix the classes of their samples.

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
    accuracy_ : ndarray of shape (n_sources,)
        How often each source is right when it speaks.
    model_ : fitted estimator
        The classifier, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    References
    ----------
    A. Ratner, C. De Sa, S. Wu, D. Selsam, C. Ré, "Data Programming: Creating Large Training Sets,
    Quickly", NeurIPS 2016: the independent model of section 3, here for any number of classes.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill import simulate_sources
    >>> from pudistill.methods import LabelModelClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> sources = simulate_sources(y, 5, level=0.4, random_state=0)
    >>> classifier = LabelModelClassifier(random_state=0).fit(X, sources)
    >>> float(np.mean(classifier.label_proba_.argmax(axis=1) == y)) > 0.8
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

    def _aggregate(self, samples: LabelledSamples, sources: Sources, *_: Any) -> np.ndarray:
        n_classes = samples.n_classes
        # One more sample of each class: no class is impossible.
        prior = samples.targets[samples.trusted].sum(axis=0) + 1
        prior /= prior.sum()

        def estimate(proba: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            counts = counted_labels(sources, proba)
            n_right = np.trace(counts, axis1=1, axis2=2)
            self.accuracy_ = (n_right + FIRST_ACCURACY) / (counts.sum(axis=(1, 2)) + 1)
            right = self.accuracy_[:, None, None]
            return prior, np.where(np.eye(n_classes), right, (1 - right) / (n_classes - 1))

        return maximise_expectation(samples, sources, estimate)
