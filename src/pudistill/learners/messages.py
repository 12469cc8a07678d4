"""What users read while learners are fitted: each warning once, and errors that name a class."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from pudistill.exceptions import InputError
from pudistill.labels.checks import Labels
from pudistill.utils.shown import shown
from pudistill.utils.warning_log import each_once


@contextmanager
def user_messages(learners: Sequence[Any], labels: Labels) -> Iterator[None]:
    """Show each warning of a learner once; say which class is too small for inner folds.

    Parameters
    ----------
    learners : sequence of classifiers or None
        The templates that are fitted inside the ``with`` block.
    labels : Labels
        The labels that they learn.

    Raises
    ------
    InputError
        If a learner with folds of its own, such as a ``GridSearchCV``, cannot be fitted.
    """
    try:
        with each_once():
            yield
    except InputError:
        raise
    except ValueError as error:
        folded = [learner for learner in learners if has_inner_folds(learner)]
        if not folded:
            raise
        sizes = np.bincount(labels.verified[labels.trusted], minlength=labels.n_classes)
        name = shown(labels.classes[sizes.argmin()])
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise InputError(
            f"{type(folded[0]).__name__} splits its training samples into folds, and could not be "
            f"fitted ({reason}): class {name} has only {sizes.min()} trusted samples, some of "
            "which are held out; verify more of it, or ask for fewer folds (cv), or use a learner "
            "without folds of its own."
        ) from error


def has_inner_folds(learner: Any) -> bool:
    """Whether a learner splits its training samples: whether it, or a part of it, has a ``cv``."""
    if learner is None:
        return False
    return any(name.split("__")[-1] == "cv" for name in learner.get_params())
