"""The errors and warnings that are meant for the person at the keyboard."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Something in the user's data, files or settings is wrong.

    The message is one sentence that names the file, row, class or value and says what to do. The
    command line prints it without a traceback and exits with code 2.
    """


class DivergedError(InputError):
    """The loss of a training stopped being a finite number."""


class TrustedWarning(UserWarning):
    """What was said, or not said, about trusted samples deserves a second look."""


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
