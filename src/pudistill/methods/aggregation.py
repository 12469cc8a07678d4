"""The base of methods that turn the labels of several sources into one, and learn from it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import softmax

from pudistill.labels.sources import Sources
from pudistill.methods.base import LabelledSamples, Method, train_learner

# Expectation-maximisation ends when no probability changes by more than this, or after so many
# steps.
TOLERANCE, MAX_STEPS = 1e-5, 100


class AggregatingMethod(Method):
    """A method for labels of several sources; subclasses implement `_aggregate`.

    Labels of shape (n_samples,) count as one source. Samples of which no source says anything, and
    which are not verified, are left out.

    Attributes
    ----------
    label_proba_ : ndarray of shape (n_samples, n_classes)
        Probabilities of the aggregated labels, one-hot where verified; NaN for samples that are
        left out.
    source_names_ : ndarray of shape (n_sources,)
        Names of the sources, without those that never speak.
    """

    _learns_hard_labels = False
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
        sources = _sources_of(samples)
        proba = self._aggregate(samples, sources, seed)
        proba[samples.trusted] = samples.targets[samples.trusted]
        self.source_names_ = sources.names
        self.label_proba_ = np.full((len(self.learned_from_), samples.n_classes), np.nan)
        self.label_proba_[self.learned_from_] = proba
        targets = samples.targets if self._learns_hard_labels else proba
        return train_learner(samples, self._learner(samples.X), seed, targets)

    def _aggregate(self, samples: LabelledSamples, sources: Sources, seed: int) -> np.ndarray:
        """Return probabilities of shape (n_samples, n_classes); those of verified ones are free."""
        raise NotImplementedError


def _sources_of(samples: LabelledSamples) -> Sources:
    """Return what each source says of the samples."""
    labels = samples.checked
    sources = labels.sources
    if sources is None:
        sources = Sources.of_one(labels.given, labels.n_classes)
    # A mask marks samples of which all that was said is right, and so tells nothing of errors.
    return sources.silent_on(samples.trusted) if labels.from_mask else sources


def vote_shares(sources: Sources) -> np.ndarray:
    """Return the share of each class among a sample's labels, the same for all if it has none.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.labels.sources import Sources
    >>> from pudistill.methods.aggregation import vote_shares
    >>> vote_shares(Sources.of_one(np.array([1, -1]), 2)).tolist()
    [[0.0, 1.0], [0.5, 0.5]]
    """
    votes = sources.votes()
    n_votes = votes.sum(axis=1, keepdims=True)
    return np.where(n_votes > 0, votes / np.maximum(n_votes, 1), 1 / sources.n_classes)


def maximise_expectation(
    samples: LabelledSamples,
    sources: Sources,
    estimate: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
    """Run expectation-maximisation from the shares of votes, in logarithms.

    Parameters
    ----------
    samples : LabelledSamples
        Samples. The classes of trusted ones stay fixed.
    sources : Sources
        What each source says of them.
    estimate : callable
        The maximisation: from the probabilities of the true classes, of shape (n_samples,
        n_classes), to the prior of shape (n_classes,) and `P(source says j | true = c)`, of shape
        (n_sources, n_classes, n_classes) as `[source, c, j]`.

    Returns
    -------
    proba : ndarray of shape (n_samples, n_classes)
        Probabilities of the true classes.
    """
    known = samples.targets[samples.trusted]
    proba = vote_shares(sources)
    proba[samples.trusted] = known
    for _ in range(MAX_STEPS):
        before = proba
        prior, matrices = estimate(before)
        proba = posterior(sources, prior, matrices)
        proba[samples.trusted] = known
        if np.abs(proba - before).max() <= TOLERANCE:
            break
    return proba


def posterior(sources: Sources, prior: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Combine independent sources by Bayes' rule, in logarithms; silence says nothing.

    Parameters
    ----------
    sources : Sources
        What each source says.
    prior : ndarray of shape (n_classes,)
        Frequencies of the true classes.
    matrices : ndarray of shape (n_sources, n_classes, n_classes)
        `[s, c, j]`: `P(s says j | true = c, s speaks)`.

    Returns
    -------
    proba : ndarray of shape (n_samples, n_classes)
        Probabilities of the true classes.

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.labels.sources import Sources
    >>> from pudistill.methods.aggregation import posterior
    >>> matrix = np.array([[0.9, 0.1], [0.4, 0.6]])
    >>> said = Sources.of_one(np.array([1, -1]), 2)
    >>> posterior(said, np.array([0.8, 0.2]), matrix[None]).round(2).tolist()
    [[0.4, 0.6], [0.8, 0.2]]
    """
    table = np.log(matrices).transpose(0, 2, 1).reshape(-1, len(prior))
    return softmax(sources.said @ table + np.log(np.maximum(prior, 1e-12)), axis=1)
