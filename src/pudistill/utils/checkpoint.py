"""Checkpoints of long work: the interface, and the checkpoint that a training saves to.

Networks save to `current_checkpoint`; `pudistill.learners.cache` implements it by a file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pudistill.utils.context import installed


class Checkpoint:
    """How far a stage is, so that an interrupted one goes on there; this one stores nothing."""

    @property
    def is_due(self) -> bool:
        """Whether enough has been done since the last `save`."""
        return False

    def load(self) -> dict[str, Any] | None:
        """Return what was saved last; None if nothing that can be read was saved."""
        return None

    def save(self, **parts: Any) -> None:
        """Save arrays, fitted learners, and lists or dictionaries of these."""

    def remove(self) -> None:
        """Remove the checkpoint: the stage is finished."""


NOWHERE = Checkpoint()


# A context variable, as scikit-learn's `fit(X, y)` has no parameter for it: the network that saves
# its training may be the last step of a user's pipeline.
_checkpoint: ContextVar[Checkpoint] = ContextVar("pudistill_checkpoint", default=NOWHERE)


@contextmanager
def saving_to(checkpoint: Checkpoint) -> Iterator[None]:
    """Let the training of a network inside the ``with`` block save its progress."""
    with installed(_checkpoint, checkpoint):
        yield


def current_checkpoint() -> Checkpoint:
    """Return the checkpoint that a network's training saves its progress to."""
    return _checkpoint.get()
