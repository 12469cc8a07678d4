"""The errors and warnings that are meant for the person at the keyboard."""

from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_MESSAGE = 2000  # characters


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
