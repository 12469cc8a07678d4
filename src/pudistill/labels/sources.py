"""The labels of several sources as codes, in a sparse matrix."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from pudistill.data.annotations import add_up_votes

# Largest number of values in a dense block of samples and sources.
BLOCK_VALUES = 2**22

# Share of samples that a source labels, on average, from which dense products are quicker.
DENSE = 0.1


@dataclass(frozen=True, eq=False)
class Sources:
    """What each source says of each sample.

    Attributes
    ----------
    names : ndarray of shape (n_sources,)
        Names of the sources.
    said : csr_array of shape (n_samples, n_sources * n_classes), float32
        1 in column ``s * n_classes + j`` where source `s` says class `j`; empty where it is silent.
    """

    names: np.ndarray
    said: csr_array

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of_one(cls, given: np.ndarray, n_classes: int) -> "Sources":
        """Return the labels of a single source: codes, negative where it is silent."""
        rows = np.flatnonzero(given >= 0)
        said = csr_array(
            (np.ones(len(rows), dtype=np.float32), (rows, given[rows])),
            shape=(len(given), n_classes),
        )
        return cls(np.array(["given"], dtype=object), said)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.said.shape[1] // len(self.names)

    @property
    def spoke(self) -> csr_array:
        """1 where a source speaks: csr_array of shape (n_samples, n_sources)."""
        said = self.said
        shape = (said.shape[0], len(self.names))
        return csr_array((said.data, said.indices // self.n_classes, said.indptr), shape=shape)

    @property
    def all_silent(self) -> np.ndarray:
        """Whether all sources are silent: (n_samples,), bool."""
        return np.diff(self.said.indptr) == 0

    def of_class(self, code: int) -> csr_array:
        """1 where a source says that class: csr_array of shape (n_samples, n_sources)."""
        columns = np.arange(len(self.names)) * self.n_classes + code
        return csr_array(self.said[:, columns])

    def silent_on(self, rows: np.ndarray) -> "Sources":
        """Forget what is said of the samples of a mask, (n_samples,)."""
        said = csr_array(self.said.multiply(~rows[:, None]))
        said.eliminate_zeros()
        return replace(self, said=said)

    def votes(self) -> np.ndarray:
        """Count the sources that say each class: (n_samples, n_classes)."""
        return add_up_votes(self.said, self.n_classes)

    def count_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Count the samples on which two sources speak, and on which they say the same.

        Returns
        -------
        n_common, n_same : ndarray of shape (n_sources, n_sources)
            The numbers.
        """
        n_same = sum(count_common(self.of_class(code)) for code in range(self.n_classes))
        return count_common(self.spoke), np.asarray(n_same)

    def take(self, rows: np.ndarray | slice) -> "Sources":
        """Return what is said of the samples at `rows`."""
        return replace(self, said=csr_array(self.said[rows]))

    def recoded(self, codes: np.ndarray, n_classes: int) -> "Sources":
        """Return the same with other codes of classes; `codes` has the new one of each."""
        source, code = np.divmod(self.said.indices, self.n_classes)
        shape = (self.said.shape[0], len(self.names) * n_classes)
        cells = source * n_classes + codes[code]
        return replace(self, said=csr_array((self.said.data, cells, self.said.indptr), shape=shape))

    def only(self, kept: np.ndarray) -> "Sources":
        """Return some sources, by their positions."""
        n_classes = self.n_classes
        columns = (kept[:, None] * n_classes + np.arange(n_classes)).ravel()
        return Sources(self.names[kept], csr_array(self.said[:, columns]))


def count_labels(said: csr_array, proba: np.ndarray) -> np.ndarray:
    """Count labels by source, true class and label.

    Parameters
    ----------
    said : csr_array of shape (n_samples, n_sources * n_classes)
        As in `Sources`.
    proba : ndarray of shape (n_samples, n_classes)
        Probabilities of the true classes.

    Returns
    -------
    counts : ndarray of shape (n_sources, n_classes, n_classes)
        `counts[s, c, j]`: how often source `s` says `j` of samples of class `c`.
    """
    n_classes = proba.shape[1]
    return (said.T @ proba).reshape(-1, n_classes, n_classes).transpose(0, 2, 1)


def count_common(spoke: csr_array, weights: np.ndarray | None = None) -> np.ndarray:
    """Add up the weights of the samples on which two sources speak, (n_sources, n_sources)."""
    if spoke.nnz < DENSE * np.prod(spoke.shape):
        of_samples = spoke if weights is None else csr_array(spoke * weights[:, None])
        return (spoke.T @ of_samples).toarray()
    total = np.zeros((spoke.shape[1], spoke.shape[1]))
    step = max(1, BLOCK_VALUES // spoke.shape[1])
    for start in range(0, spoke.shape[0], step):
        part = slice(start, start + step)
        block = spoke[part].toarray()
        total += block.T @ (block if weights is None else block * weights[part, None])
    return total
