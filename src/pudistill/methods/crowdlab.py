"""CROWDLAB: sources and a classifier, weighted by how often they agree with the consensus."""

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from pudistill.data.annotations import add_up_votes, count_agreements
from pudistill.labels.sources import Sources
from pudistill.learners.cross_fitting import cross_fit_proba
from pudistill.methods.aggregation import AggregatingMethod
from pudistill.methods.base import LabelledSamples

N_FOLDS = 5
# No weight and no rate of errors is below this.
LEAST = 1e-6


class CrowdlabClassifier(AggregatingMethod):
    """Average a classifier's prediction and the labels of the sources, and train on the result.

    The classifier learns the majority vote and predicts samples that it has not seen. Its weight,
    and that of each source, is how much less often it errs than the most frequent class does:
    sources against each other, the classifier against the consensus, which is the majority vote
    with ties decided by the classifier, or the verified label. If no sample has two labels, those
    with one stand in.

    Parameters
    ----------
    estimator : classifier, default=None
        Any scikit-learn-compatible classifier, which learns from the aggregated labels; ``None``:
        logistic regression on scaled features, a `TorchClassifier` for pictures.
    use_trusted : bool, default=True
        Whether verified labels are used.
    n_jobs : int, default=None
        Number of models trained at the same time, as in joblib.
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
    source_weight_ : ndarray of shape (n_sources,)
        Weight of each source.
    model_weight_ : float
        Weight of the classifier.
    model_ : fitted estimator
        The classifier, for classes 0 … C - 1.
    n_features_in_ : int
        Number of features.

    Notes
    -----
    With the same predictions, and no verified label, probabilities and weights are those of
    cleanlab 2.9.0's ``get_label_quality_multiannotator`` with ``consensus_method="majority_vote"``,
    to rounding. Its default then computes the weights once more, from its own labels.

    References
    ----------
    H. W. Goh, U. Tkachenko, J. Mueller, "CROWDLAB: Supervised learning to infer consensus labels
    and quality scores for data with multiple annotators", 2022 (arXiv:2210.06812), section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from pudistill import simulate_sources
    >>> from pudistill.methods import CrowdlabClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> sources = simulate_sources(y, 5, level=0.4, random_state=0)
    >>> classifier = CrowdlabClassifier(random_state=0).fit(X, sources)
    >>> float(np.mean(classifier.label_proba_.argmax(axis=1) == y)) > 0.8
    True
    """

    _parameter_constraints: dict = {
        **AggregatingMethod._parameter_constraints,
        "n_jobs": [int, None],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        use_trusted: bool = True,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(estimator, use_trusted=use_trusted, random_state=random_state)
        self.n_jobs = n_jobs

    def _aggregate(self, samples: LabelledSamples, sources: Sources, seed: int) -> np.ndarray:
        predicted = cross_fit_proba(
            self._learner(samples.X),
            samples.X,
            samples.targets,
            n_folds=N_FOLDS,
            n_jobs=self.n_jobs,
            seed=seed,
            groups=samples.groups,
        )
        consensus = (sources.votes() + predicted / 2).argmax(axis=1)
        consensus[samples.trusted] = samples.labels[samples.trusted]
        proba, self.source_weight_, self.model_weight_ = weighted_consensus(
            sources, predicted, consensus
        )
        return proba


def weighted_consensus(
    sources: Sources, predicted: np.ndarray, consensus: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Average predictions and labels with CROWDLAB's weights.

    Parameters
    ----------
    sources : Sources
        What each source says.
    predicted : ndarray of shape (n_samples, n_classes)
        Predictions of a classifier for samples that it has not seen.
    consensus : ndarray of shape (n_samples,), int
        One label for each sample, by which the classifier is judged.

    Returns
    -------
    proba : ndarray of shape (n_samples, n_classes)
        The weighted averages.
    source_weight : ndarray of shape (n_sources,)
        Weights of the sources.
    model_weight : float
        Weight of the classifier.
    """
    said, votes, n_classes = sources.said, sources.votes(), sources.n_classes
    n_votes = votes.sum(axis=1)
    several = n_votes > 1 if (n_votes > 1).any() else n_votes > 0
    agreed = np.take_along_axis(votes, consensus[:, None], axis=1)[:, 0]
    # 1. How often a label is the consensus, and the most frequent class is not: P and 1 - A_MLC.
    right = _mean(agreed[several] / n_votes[several])
    most_frequent = np.bincount(consensus[several], minlength=n_classes).argmax()
    baseline_error = max(_mean(consensus[several] != most_frequent), LEAST)
    # 2. How often the other labels of its samples agree with a source: s_j.
    n_agreed, n_others = count_agreements(said, votes)
    has_others = n_others > 0
    agreement = n_agreed / np.maximum(n_others, 1)
    agreement[~has_others] = agreement[has_others].mean() if has_others.any() else 1.0
    # 3. The weights.
    source_weight = np.maximum(1 - (1 - agreement) / baseline_error, LEAST)
    model_error = _mean(predicted[several].argmax(axis=1) != consensus[several])
    model_weight = max(1 - model_error / baseline_error, LEAST) * np.sqrt(max(_mean(n_votes), 1))
    # 4. A label gives its class the probability P, and the others equal parts of the rest.
    weights = source_weight[said.indices // n_classes]
    of_class = add_up_votes(
        csr_array((weights, said.indices, said.indptr), shape=said.shape), n_classes
    )
    total = of_class.sum(axis=1, keepdims=True)
    wrong = (1 - right) / (n_classes - 1)
    labels = right * of_class + wrong * (total - of_class)
    proba = (model_weight * predicted + labels) / (model_weight + total)
    return proba, source_weight, model_weight


def _mean(values: np.ndarray) -> float:
    """Return the mean; 0 of nothing, where no source speaks and all samples are verified."""
    return float(values.mean()) if len(values) else 0.0
