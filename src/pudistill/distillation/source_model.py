"""How several sources of labels err: a transition matrix and a rate of silence for each.

The likelihood of a sample's labels is the product over its sources,
`P(y_1 ... y_S | c) = prod_s P(s speaks or is silent | c) T_s[c, y_s]`. Sources that copy each other
do not count twice.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.special import betaln, expit, logit

from pudistill.distillation.transition import shrink, smoothed
from pudistill.labels.pseudo_labels import bayes_rule, one_hot
from pudistill.labels.sources import BLOCK_VALUES, Sources, count_common, count_labels
from pudistill.utils.arrays import take_rows

# Two sources are copies if they give the same label to at least this share of the samples that
# either of them labels, and if these are at least so many.
SAME, FEWEST_SAME = 0.98, 10

# Number of verified labels of a source, and of verified samples, that all others together are
# worth. Copies own the posterior, and so seem right wherever nobody verified: verified labels
# decide.
WORTH = 20.0

# Expected disagreements of two sources from which their correlation is half believed.
HALF_BELIEVED = 20.0

# Steps of expectation-maximisation.
STEPS = 4

# Largest number of annotations that the model is fitted to; more are likely to add nothing.
MANY_ANNOTATIONS = 1_000_000

# Strengths, in samples, with which the silence of a source on samples of a class leans on its own
# rate of silence. The last means that silence says nothing of the class.
STRENGTHS_OF_SILENCE = np.array([*np.geomspace(1, 1e4, 17), 1e9])

# No probability is nearer to 0 or 1 than this.
RARE = 1e-6


class SourceModel(NamedTuple):
    """Noise of several sources.

    Attributes
    ----------
    sources : Sources
        What they say.
    matrices : ndarray of shape (n_sources, n_classes, n_classes)
        `matrices[s, c, j] = P(s says j | true = c, s speaks)`.
    speaks : ndarray of shape (n_sources, n_classes)
        `P(s speaks | true = c)`.
    correlation : ndarray of shape (n_sources, n_sources)
        How much two sources say the same, where both speak, beyond what their matrices explain;
        from 0 to 1.
    weight_of_silence : ndarray of shape (n_sources,)
        1 for a source that speaks and is silent independently of others; less for others.
    """

    sources: Sources
    matrices: np.ndarray
    speaks: np.ndarray
    correlation: np.ndarray
    weight_of_silence: np.ndarray

    def likelihood(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return the likelihood of what is said of the samples at `rows`, (n_rows, n_classes).

        The largest value of each row is 1; only ratios are meant.
        """
        said = csr_array(self.sources.said[rows])
        return _exp(self.log_likelihood(said, weighted(said, self.correlation)))

    def log_likelihood(self, said: csr_array, weighted_said: csr_array) -> np.ndarray:
        """Return the logarithm of the likelihood, (n_rows, n_classes), plus a constant.

        Parameters
        ----------
        said : csr_array of shape (n_rows, n_sources * n_classes)
            Rows of `sources.said`.
        weighted_said : csr_array of shape (n_rows, n_sources * n_classes)
            The same, from `weighted`.
        """
        return weighted_said @ self.of_labels + said @ self.of_speaking + self.of_silence

    @property
    def of_labels(self) -> np.ndarray:
        """What each label adds to the log-likelihood, (n_sources * n_classes, n_classes)."""
        logs = np.log(np.maximum(self.matrices, RARE)).transpose(0, 2, 1)
        return logs.reshape(-1, self.sources.n_classes)

    @property
    def of_speaking(self) -> np.ndarray:
        """What it adds that the source is not silent, (n_sources * n_classes, n_classes)."""
        odds = self.weight_of_silence[:, None] * logit(self.speaks)
        return np.repeat(odds, self.sources.n_classes, axis=0)

    @property
    def of_silence(self) -> np.ndarray:
        """The log-likelihood where all sources are silent, (n_classes,)."""
        return np.log1p(-self.speaks).T @ self.weight_of_silence


def _exp(logs: np.ndarray) -> np.ndarray:
    return np.exp(logs - logs.max(axis=1, keepdims=True))


def weighted(said: csr_array, correlation: np.ndarray) -> csr_array:
    """Divide each annotation by the sum of its correlations with the sample's annotations.

    Parameters
    ----------
    said : csr_array of shape (n_samples, n_sources * n_classes)
        As in `Sources`.
    correlation : ndarray of shape (n_sources, n_sources)
        As in `SourceModel`.

    Returns
    -------
    said : csr_array of shape (n_samples, n_sources * n_classes)
        The same entries; `k` copies count as one source.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import csr_array
    >>> from pudistill.distillation.source_model import weighted
    >>> said = csr_array(np.array([[1, 0, 1, 0], [0, 1, 0, 0]]))  # two copies of two classes
    >>> weighted(said, np.ones((2, 2))).toarray().tolist()
    [[0.5, 0.0, 0.5, 0.0], [0.0, 1.0, 0.0, 0.0]]
    """
    n_sources = len(correlation)
    n_classes = said.shape[1] // n_sources
    values = np.empty(said.nnz)
    step = max(1, BLOCK_VALUES // n_sources)
    for start in range(0, said.shape[0], step):
        ends = said.indptr[start : start + step + 1]
        part = slice(ends[0], ends[-1])
        source = said.indices[part] // n_classes
        shape = (len(ends) - 1, n_sources)
        spoke = csr_array((np.ones(len(source)), source, ends - ends[0]), shape=shape)
        row = np.repeat(np.arange(shape[0]), np.diff(ends))
        values[part] = 1 / (spoke @ correlation)[row, source]
    return csr_array((values, said.indices, said.indptr), shape=said.shape)


def without_copies(sources: Sources) -> Sources:
    """Leave out all but one of the sources that copy each other."""
    return sources.only(np.unique(representatives(sources)))


def representatives(sources: Sources) -> np.ndarray:
    """Find copies, see `SAME`; return the first source that each source copies, itself or another.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import csr_array
    >>> from pudistill.distillation.source_model import representatives
    >>> from pudistill.labels.sources import Sources
    >>> said = np.eye(2)[np.tile([0, 1], 10)]
    >>> sources = Sources(np.array(["a", "b", "c"]), csr_array(np.hstack([said, 1 - said, said])))
    >>> representatives(sources).tolist()
    [0, 1, 0]
    """
    n_common, n_same = sources.count_pairs()
    n_spoke = np.diagonal(n_common)
    either = n_spoke[:, None] + n_spoke - n_common
    are_copies = (n_same >= SAME * either) & (either >= FEWEST_SAME)
    _, group = connected_components(csr_array(are_copies), directed=False)
    _, first = np.unique(group, return_index=True)
    return first[group]


def fit_source_model(
    sources: Sources,
    proba: np.ndarray,
    rows: np.ndarray,
    verified: tuple[np.ndarray, np.ndarray],
    start: SourceModel | None = None,
    weight: np.ndarray | None = None,
) -> SourceModel:
    """Fit the noise of several sources by expectation-maximisation.

    The matrix of a source leans on how often the source is right, and this on the matrix of all
    sources together, with the strengths that make all counts likeliest.

    Parameters
    ----------
    sources : Sources
        What they say, without copies.
    proba : ndarray of shape (n_samples, n_classes)
        Calibrated predictions of the true classes.
    rows : ndarray, int
        Samples that count and are not verified, those included on which all sources are silent.
    verified : tuple of two ndarrays of shape (n_verified,), int
        Further rows, and their verified labels.
    start : SourceModel, default=None
        The model under earlier predictions.
    weight : ndarray of shape (n_verified,), default=None
        As how many verified samples each counts; one by default.

    Returns
    -------
    model : SourceModel
        The model.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import csr_array
    >>> from pudistill.distillation.source_model import fit_source_model
    >>> from pudistill.labels.sources import Sources
    >>> classes, nothing = np.tile([0, 1], 500), np.arange(0)
    >>> said = np.hstack([np.eye(2)[classes], np.eye(2)[1 - classes]])  # right, and always wrong
    >>> sources = Sources(np.array(["a", "b"]), csr_array(said))
    >>> model = fit_source_model(sources, np.eye(2)[classes], np.arange(1000), (nothing, nothing))
    >>> model.matrices.round(1).tolist()
    [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]
    """
    if (n := sources.said.nnz) > MANY_ANNOTATIONS:
        rows = rows[:: -(-n // MANY_ANNOTATIONS)]
    # Verified labels are predictions that are certain.
    known = one_hot(verified[1], sources.n_classes)
    said = csr_array(sources.said[np.concatenate([rows, verified[0]])])
    proba = np.concatenate([take_rows(proba, rows), known])
    counts = np.ones(len(known)) if weight is None else weight
    if start is None:
        # Twice from the predictions alone: copies that count in full lead the first model astray.
        first = SourceModel(
            sources,
            *_estimated(said, proba, counts),
            np.eye(len(sources)),
            np.ones(len(sources)),
        )
        model = _after_steps(first, said, proba, counts)
        start = first._replace(
            correlation=_correlation(model, said, proba),
            weight_of_silence=_weight_of_silence(model, said, proba),
        )
    return _after_steps(start, said, proba, counts)


def _after_steps(
    model: SourceModel, said: csr_array, proba: np.ndarray, of_verified: np.ndarray
) -> SourceModel:
    """Run steps of expectation-maximisation."""
    weighted_said = weighted(said, model.correlation)
    for _ in range(STEPS):
        posterior = bayes_rule(proba, _exp(model.log_likelihood(said, weighted_said)))
        matrices, speaks = _estimated(said, posterior, of_verified)
        model = model._replace(matrices=matrices, speaks=speaks)
    return model


def _estimated(
    said: csr_array, posterior: np.ndarray, of_verified: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate matrices and how often sources speak; the last rows are verified, and weighted."""
    n_classes, first = posterior.shape[1], len(posterior) - len(of_verified)
    guessed, verified = posterior[:first], posterior[first:] * of_verified[:, None]
    counts, seen = count_labels(said[:first], guessed), count_labels(said[first:], verified)
    # 1. The matrix of each source leans on that of a source which is right as often.
    matrices = shrink(
        counts.reshape(-1, n_classes), _of_similar_sources(counts).reshape(-1, n_classes)
    )
    matrices = matrices.reshape(counts.shape)
    # 2. How often a source speaks leans on its own rate.
    spoke = counts.sum(axis=2)
    of_class = np.broadcast_to(guessed.sum(axis=0), spoke.shape)
    rate = (spoke.sum(axis=1) + 0.5) / (first + 1)
    a, b = (STRENGTHS_OF_SILENCE[:, None, None] * share[:, None] for share in (rate, 1 - rate))
    evidence = betaln(a + spoke, b + of_class - spoke) - betaln(a, b)
    strength = STRENGTHS_OF_SILENCE[evidence.sum(axis=(1, 2)).argmax()]
    speaks = (spoke + strength * rate[:, None]) / (of_class + strength)
    # 3. Verified samples outweigh both: see `WORTH`.
    n_seen = seen.sum(axis=2)
    matrices = (WORTH * matrices + seen) / (WORTH + n_seen)[:, :, None]
    if strength < STRENGTHS_OF_SILENCE[-1]:
        speaks = (WORTH * speaks + n_seen) / (WORTH + verified.sum(axis=0))
    return matrices, np.clip(speaks, RARE, 1 - RARE)


def _of_similar_sources(counts: np.ndarray) -> np.ndarray:
    """Return the matrix of all sources, changed for each source to be right as often as it is."""
    n_classes = counts.shape[1]
    common = smoothed(counts.sum(axis=0))
    of_all = np.diagonal(common)
    # 1. How often each source is right, and an average source on the same classes.
    n_right, n = np.trace(counts, axis1=1, axis2=2), counts.sum(axis=2)
    total = n.sum(axis=1)
    expected = np.where(total > 0, n @ of_all / np.maximum(total, 1e-12), of_all.mean())
    pairs = np.column_stack([n_right, total - n_right])
    right = shrink(pairs, np.column_stack([expected, 1 - expected]))[:, 0]
    # 2. Move the logits of all classes by the difference; wrong labels are as those of all sources.
    right, expected, of_all = (
        np.clip(share, RARE, 1 - RARE) for share in (right, expected, of_all)
    )
    diagonal = expit(logit(of_all) + (logit(right) - logit(expected))[:, None])
    others = common * (1 - np.eye(n_classes))
    others /= others.sum(axis=1, keepdims=True)
    return (1 - diagonal)[:, :, None] * others + diagonal[:, :, None] * np.eye(n_classes)


def _correlation(model: SourceModel, said: csr_array, proba: np.ndarray) -> np.ndarray:
    """Measure how much sources say the same, beyond what their matrices explain.

    The classes are those of the predictions, which do not know the sources: copies own a posterior,
    and would explain each other away.
    """
    sources = Sources(model.sources.names, said)
    spoke, (n_common, n_same) = sources.spoke, sources.count_pairs()
    expected = np.zeros(n_same.shape)
    for code in range(sources.n_classes):
        same_label = model.matrices[:, code] @ model.matrices[:, code].T
        expected += count_common(spoke, proba[:, code]) * same_label
    correlation = np.clip((n_same - expected) / (n_common - expected + HALF_BELIEVED), 0, 1)
    np.fill_diagonal(correlation, 1)
    return correlation


def _weight_of_silence(model: SourceModel, said: csr_array, proba: np.ndarray) -> np.ndarray:
    """Weigh sources by how much they speak on the same samples, beyond what classes explain."""
    sources = Sources(model.sources.names, said)
    spoke, n_sources = sources.spoke, len(sources)
    together, variance = np.zeros((n_sources, n_sources)), np.zeros(n_sources)
    for code in range(sources.n_classes):
        speaks, n = model.speaks[:, code], proba[:, code].sum()
        together += count_common(spoke, proba[:, code]) - n * np.outer(speaks, speaks)
        variance += n * speaks * (1 - speaks)
    correlation = np.clip(together / np.sqrt(np.outer(variance, variance)), 0, 1)
    np.fill_diagonal(correlation, 1)
    return 1 / correlation.sum(axis=1)
