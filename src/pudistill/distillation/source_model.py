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

from pudistill.distillation.transition import Originals, shrink, smoothed
from pudistill.labels.pseudo_labels import bayes_rule, one_hot
from pudistill.labels.sources import Sources
from pudistill.utils.arrays import BLOCK_SIZE, take_rows

# Sources are merged if they say the same, or are silent together, on this share of the samples on
# which either speaks, of at least so many: then they are copies.
SAME, FEWEST_SAME = 0.98, 10

# Number of verified labels of a source that its other labels are worth at most. Copies own the
# posterior, and so seem right wherever nobody verified: verified labels decide.
WORTH = 20.0

# Expected disagreements of two sources from which their correlation is half believed.
HALF_BELIEVED = 20.0

# Steps of expectation-maximisation.
STEPS = 4

# Largest number of annotations that the model is fitted to; more are likely to add nothing.
MANY_ANNOTATIONS = 2_000_000

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
        How much two sources agree beyond what their matrices say, from 0 to 1.
    """

    sources: Sources
    matrices: np.ndarray
    speaks: np.ndarray
    correlation: np.ndarray

    def likelihood(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return the likelihood of what is said of the samples at `rows`, (n_rows, n_classes).

        The largest value of each row is 1; only ratios are meant.
        """
        table, silent = self.tables()
        said = weighted(csr_array(self.sources.said[rows]), self.correlation)
        return _exp(said @ table + silent)

    def log_likelihood(self, rows: np.ndarray | slice) -> tuple[np.ndarray, tuple]:
        """Return the logarithm of the likelihood, and what each annotation adds to it.

        Returns
        -------
        logs : ndarray of shape (n_rows, n_classes)
            The logarithm.
        annotations : tuple of three ndarrays
            Position in `rows`, source, and addition, of shape (n_annotations, n_classes).
        """
        said = weighted(csr_array(self.sources.said[rows]), self.correlation)
        table, silent = self.tables()
        row = np.repeat(np.arange(said.shape[0]), np.diff(said.indptr))
        source = said.indices // self.sources.n_classes
        added = said.data[:, None] * table[said.indices]
        return said @ table + silent, (row, source, added)

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what each annotation adds to the log-likelihood, and what total silence has.

        Returns
        -------
        said : ndarray of shape (n_sources * n_classes, n_classes)
            In the order of the columns of `Sources.said`.
        silent : ndarray of shape (n_classes,)
            The logarithm of the likelihood where nobody speaks.
        """
        n_sources, n_classes = self.speaks.shape
        odds = np.log(self.speaks) - np.log1p(-self.speaks)
        said = np.log(np.maximum(self.matrices, RARE)) + odds[:, :, None]
        silent = np.log1p(-self.speaks).T @ (1 / self.correlation.sum(axis=1))
        return said.transpose(0, 2, 1).reshape(n_sources * n_classes, n_classes), silent


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
    for start in range(0, said.shape[0], BLOCK_SIZE):
        ends = said.indptr[start : start + BLOCK_SIZE + 1]
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
    spoke = sources.spoke
    n_spoke = spoke.sum(axis=0)
    same = np.zeros((len(sources), len(sources)))
    for code in range(sources.n_classes):
        of_class = sources.of_class(code)
        same += (of_class.T @ of_class).toarray()
    either = n_spoke[:, None] + n_spoke - (spoke.T @ spoke).toarray()
    are_copies = (same >= SAME * either) & (either >= FEWEST_SAME)
    _, group = connected_components(csr_array(are_copies), directed=False)
    _, first = np.unique(group, return_index=True)
    return first[group]


def fit_source_model(
    sources: Sources,
    proba: np.ndarray,
    rows: np.ndarray,
    originals: Originals | None = None,
    start: SourceModel | None = None,
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
        Samples with labels that count, and are not verified.
    originals : Originals, default=None
        Verified samples of which the sources say something.
    start : SourceModel, default=None
        The model under earlier predictions.

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
    >>> classes = np.tile([0, 1], 500)
    >>> said = np.hstack([np.eye(2)[classes], np.eye(2)[1 - classes]])  # right, and always wrong
    >>> sources = Sources(np.array(["a", "b"]), csr_array(said))
    >>> model = fit_source_model(sources, np.eye(2)[classes], np.arange(1000))
    >>> model.matrices.round(1).tolist()
    [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]
    """
    if (n := sources.said.nnz) > MANY_ANNOTATIONS:
        step = -(-n // MANY_ANNOTATIONS)
        rows = rows[::step]
    said, of_rows = csr_array(sources.said[rows]), take_rows(proba, rows)
    seen = _Counts.of_originals(sources, originals)
    if start is None:
        # Twice from the predictions alone: copies that count in full lead the first model astray.
        first = SourceModel(sources, *_estimated(said, of_rows, seen), np.eye(len(sources)))
        model = _after_steps(first, said, of_rows, seen)
        start = first._replace(correlation=_correlation(model, said, of_rows, originals))
    return _after_steps(start, said, of_rows, seen)


class _Counts(NamedTuple):
    """Labels of verified samples, counted."""

    said: np.ndarray  # (n_sources, n_classes, n_classes): source, true class, label
    n: np.ndarray  # (n_classes,): samples

    @classmethod
    def of_originals(cls, sources: Sources, originals: Originals | None) -> "_Counts":
        n_classes = sources.n_classes
        if originals is None:
            return cls(np.zeros((len(sources), n_classes, n_classes)), np.zeros(n_classes))
        truth = one_hot(originals.verified, n_classes)
        return cls(_counted(sources.said[originals.rows], truth), truth.sum(axis=0))


def _counted(said: csr_array, posterior: np.ndarray) -> np.ndarray:
    n_classes = posterior.shape[1]
    return (said.T @ posterior).reshape(-1, n_classes, n_classes).transpose(0, 2, 1)


def _after_steps(
    model: SourceModel, said: csr_array, proba: np.ndarray, seen: _Counts
) -> SourceModel:
    """Run steps of expectation-maximisation."""
    for_posterior = weighted(said, model.correlation)
    for _ in range(STEPS):
        table, silent = model.tables()
        posterior = bayes_rule(proba, _exp(for_posterior @ table + silent))
        matrices, speaks = _estimated(said, posterior, seen)
        model = model._replace(matrices=matrices, speaks=speaks)
    return model


def _estimated(
    said: csr_array, posterior: np.ndarray, seen: _Counts
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the matrices, and how often sources speak, from classes that are known so well."""
    counts = _counted(said, posterior) + seen.said
    n_classes = counts.shape[1]
    # 1. The matrix of each source leans on that of a source which is right as often.
    matrices = shrink(
        counts.reshape(-1, n_classes), _of_similar_sources(counts).reshape(-1, n_classes)
    )
    matrices = matrices.reshape(counts.shape)
    # 2. Verified labels outweigh it: see `WORTH`.
    n_seen = seen.said.sum(axis=2)
    matrices = (WORTH * matrices + seen.said) / (WORTH + n_seen)[:, :, None]
    # 3. How often a source speaks leans on its own rate.
    spoke, n = counts.sum(axis=2), posterior.sum(axis=0) + seen.n
    rate = (spoke.sum(axis=1) + 0.5) / (n.sum() + 1)
    n = np.broadcast_to(n, spoke.shape)
    a, b = (STRENGTHS_OF_SILENCE[:, None, None] * share[:, None] for share in (rate, 1 - rate))
    evidence = betaln(a + spoke, b + n - spoke) - betaln(a, b)
    strength = STRENGTHS_OF_SILENCE[evidence.sum(axis=(1, 2)).argmax()]
    speaks = (spoke + strength * rate[:, None]) / (n + strength)
    return matrices, np.clip(speaks, RARE, 1 - RARE)


def _of_similar_sources(counts: np.ndarray) -> np.ndarray:
    """Return the matrix of all sources, changed for each source to be right as often as it is."""
    n_classes = counts.shape[1]
    common = smoothed(counts.sum(axis=0))
    of_all = np.diagonal(common)
    # 1. How often each source is right, and how often sources are that label the same classes.
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


def _correlation(
    model: SourceModel,
    said: csr_array,
    proba: np.ndarray,
    originals: Originals | None,
) -> np.ndarray:
    """Measure how much sources agree beyond what their matrices say.

    The classes are those of the predictions, which do not know the sources: copies own a posterior,
    and would explain each other away.
    """
    sources = model.sources
    if originals is not None:
        said = _stacked(said, csr_array(sources.said[originals.rows]))
        proba = np.concatenate([proba, one_hot(originals.verified, sources.n_classes)])
    of_rows = Sources(sources.names, said)
    spoke, n_sources = of_rows.spoke, len(sources)
    n_common = (spoke.T @ spoke).toarray().astype(float)
    agreed, expected = np.zeros((2, n_sources, n_sources))
    for code in range(sources.n_classes):
        of_class = of_rows.of_class(code)
        agreed += (of_class.T @ of_class).toarray()
        same_label = model.matrices[:, code] @ model.matrices[:, code].T
        expected += (spoke.T @ csr_array(spoke * proba[:, [code]])).toarray() * same_label
    beyond = (agreed - expected) / (n_common - expected + HALF_BELIEVED)
    correlation = np.clip(beyond, 0, 1)
    np.fill_diagonal(correlation, 1)
    return correlation


def _stacked(first: csr_array, second: csr_array) -> csr_array:
    data, indices = (
        np.concatenate([getattr(part, name) for part in (first, second)])
        for name in ("data", "indices")
    )
    indptr = np.concatenate([first.indptr, first.indptr[-1] + second.indptr[1:]])
    shape = (first.shape[0] + second.shape[0], first.shape[1])
    return csr_array((data, indices, indptr), shape=shape)
