"""The labels of several sources as codes, in a sparse matrix."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from pudistill.utils.arrays import rowwise


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

    def of_class(self, code: int) -> csr_array:
        """1 where a source says that class: csr_array of shape (n_samples, n_sources)."""
        columns = np.arange(len(self.names)) * self.n_classes + code
        return csr_array(self.said[:, columns])

    def votes(self) -> np.ndarray:
        """Count the sources that say each class: (n_samples, n_classes)."""
        classes = np.tile(np.eye(self.n_classes), (len(self.names), 1))
        return rowwise(lambda rows: self.said[rows] @ classes, np.arange(self.said.shape[0]))

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
