"""Checkpoints of long work: the interface, and the checkpoint that a training saves to.

Networks save to `current_checkpoint`; `pudistill.learners.cache` implements `Checkpoint` by a file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pudistill.utils.context import installed


class Checkpoint:
    """The progress of a stage, from which it continues if interrupted; this one stores nothing."""

    @property
    def is_due(self) -> bool:
        """Whether enough has been done since the last `save` to save again."""
        return False

    def load(self) -> dict[str, Any] | None:
        """Return the parts that were saved last; None if there are none that can be read."""
        return None

    def save(self, **parts: Any) -> None:
        """Save arrays, fitted learners, and lists or dictionaries of these."""

    def remove(self) -> None:
        """Remove the checkpoint: the stage is finished."""


NOWHERE = Checkpoint()


# A context variable, as scikit-learn's `fit(X, y)` has no parameter for a checkpoint: the network
# that saves its training can be the last step of a user's pipeline.
_checkpoint: ContextVar[Checkpoint] = ContextVar("pudistill_checkpoint", default=NOWHERE)


@contextmanager
def saving_to(checkpoint: Checkpoint) -> Iterator[None]:
    """Let the training of a network inside the ``with`` block save its progress."""
    with installed(_checkpoint, checkpoint):
        yield


def current_checkpoint() -> Checkpoint:
    """Return the checkpoint that a network's training saves its progress to."""
    return _checkpoint.get()
