"""The errors and warnings that are meant for the person at the keyboard."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_MESSAGE = 2000  # characters
# Packages whose frames stand between the user's line and ours: `fit` of a scikit-learn estimator
# is wrapped by scikit-learn, and parallel work is called by joblib.
NOT_THE_USERS = {"pudistill", "sklearn", "joblib"}


def readable(message: str) -> str:
    """Leave out the middle of a message that quotes endless text."""
    half = LONGEST_MESSAGE // 2
    if len(message) <= LONGEST_MESSAGE:
        return message
    return f"{message[:half]} [...] {message[-half:]}"


class InputError(ValueError):
    """Something in the user's data, files or settings is wrong.

    The message is one sentence that names the file, row, class or value and says what to do. The
    command line prints it without a traceback and exits with code 2. What it quotes may be of any
    length; of a long message the middle is left out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(readable(message))


class DivergedError(InputError):
    """The loss of a training stopped being a finite number."""


class TrustedWarning(UserWarning):
    """What was said, or not said, about trusted samples deserves a second look."""


class RecoveredWarning(UserWarning):
    """Something went wrong on the way and was put right; the message names it."""


class DamagedWarning(RecoveredWarning):
    """A file could not be read, and what it held is computed again."""


def warn_user(message: str, category: type[Warning]) -> None:
    """Issue a warning that points at the user's line, however deep the call inside pudistill."""
    frame, stacklevel = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in NOT_THE_USERS:
        frame, stacklevel = frame.f_back, stacklevel + 1
    warnings.warn(message, category, stacklevel=stacklevel)


@contextmanager
def torch_extra() -> Iterator[None]:
    """Say what to install where an import of the extra ``torch`` fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(
            f"Networks and pictures need {error.name}, which is not installed: pip install "
            "-c constraints.txt '.[torch]' in pudistill's folder, or pip install "
            "'pudistill[torch]'."
        ) from error


@contextmanager
def as_input_error() -> Iterator[None]:
    """Pass on what scikit-learn or a learner says about settings or data as an `InputError`."""
    try:
        yield
    except ValueError as error:
        raise InputError(str(error)) from error
