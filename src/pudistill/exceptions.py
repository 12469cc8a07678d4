"""Errors and warnings whose messages are written for the user."""

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_MESSAGE = 2000  # characters
# Packages whose frames are skipped to find the user's line: scikit-learn wraps `fit` of its
# estimators, and joblib calls parallel work.
LIBRARIES = {"pudistill", "sklearn", "joblib", "contextlib"}


def without_middle(message: str) -> str:
    """Return a message, without its middle if it is too long because of a text that it quotes."""
    half = LONGEST_MESSAGE // 2
    if len(message) <= LONGEST_MESSAGE:
        return message
    return f"{message[:half]} [...] {message[-half:]}"


class InputError(ValueError):
    """Something in the user's data, files or settings is wrong.

    The message is one sentence that names the file, row, class or value and says what to do. The
    command line prints it without a traceback and exits with code 2. The middle of a long message
    is cut out, as a message can quote text of any length.

    Parameters
    ----------
    message : str
        What is wrong, where, and what to do.

    Examples
    --------
    >>> from pudistill import InputError, corrupt_labels
    >>> try:
    ...     corrupt_labels([0, 1], "symmetric", 2)
    ... except InputError as error:
    ...     print(error)
    Noise level 2 is not a share: use a number from 0 to 1.
    """

    def __init__(self, message: str) -> None:
        on_one_line = re.sub(r"\s*\n\s*", " ", message)  # other libraries' messages have several
        super().__init__(without_middle(on_one_line.strip()))


class OwnModuleError(InputError):
    """The network that the user passes for stored weights is not the one that they belong to.

    Examples
    --------
    >>> from pudistill.exceptions import InputError, OwnModuleError
    >>> issubclass(OwnModuleError, InputError)  # it is not the file that is damaged
    True
    """


class DivergedError(InputError):
    """The loss of a training stopped being a finite number.

    Attributes
    ----------
    was_repeated : bool
        Whether a training at a smaller learning rate has ended like this, too.

    Examples
    --------
    >>> from pudistill.exceptions import DivergedError, InputError
    >>> issubclass(DivergedError, InputError)  # whoever catches that catches this
    True
    """

    was_repeated = False


class TrustedWarning(UserWarning):
    """The user should check the choice of trusted samples, or their labels.

    Examples
    --------
    >>> import warnings
    >>> from pudistill import TrustedWarning
    >>> with warnings.catch_warnings():  # stop where one would be issued
    ...     warnings.simplefilter("error", TrustedWarning)
    """


class DataWarning(UserWarning):
    """Part of the data is not used, or was understood in a way that the user should check.

    Examples
    --------
    >>> import warnings
    >>> from pudistill import DataWarning
    >>> with warnings.catch_warnings():  # stop where one would be issued
    ...     warnings.simplefilter("error", DataWarning)
    """


class DataNotice(DataWarning):
    """Data were understood in one of several ways, which the message names; nothing seems wrong.

    The command line prints it as a note.

    Examples
    --------
    >>> from pudistill.exceptions import DataNotice, DataWarning
    >>> issubclass(DataNotice, DataWarning)  # a filter for those meets these, too
    True
    """


class RecoveredWarning(UserWarning):
    """Something went wrong and was put right; the message names it.

    Examples
    --------
    >>> import warnings
    >>> from pudistill.exceptions import RecoveredWarning
    >>> with warnings.catch_warnings():  # stop where one would be issued
    ...     warnings.simplefilter("error", RecoveredWarning)
    """


class DamagedWarning(RecoveredWarning):
    """A file could not be read, and its content is computed again.

    Examples
    --------
    >>> import warnings
    >>> from pudistill.exceptions import DamagedWarning
    >>> with warnings.catch_warnings():  # stop where one would be issued
    ...     warnings.simplefilter("error", DamagedWarning)
    """


class TimeLimitWarning(UserWarning):
    """A time limit cut a fit short, or is too short.

    Examples
    --------
    >>> import warnings
    >>> from pudistill import TimeLimitWarning
    >>> with warnings.catch_warnings():  # stop where one would be issued
    ...     warnings.simplefilter("error", TimeLimitWarning)
    """


def warn_user(message: str, category: type[Warning]) -> None:
    """Issue a warning that points at the user's line, however deep the call inside pudistill."""
    frame, stacklevel = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in LIBRARIES:
        frame, stacklevel = frame.f_back, stacklevel + 1
    warnings.warn(message, category, stacklevel=stacklevel)


@contextmanager
def torch_extra() -> Iterator[None]:
    """Raise an `InputError` that names the package to install if an import of PyTorch fails."""
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
    """Raise a ValueError of scikit-learn or of a learner as an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from error
