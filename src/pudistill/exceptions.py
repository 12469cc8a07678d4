"""The errors and warnings that are meant for the person at the keyboard."""


class InputError(ValueError):
    """Something in the user's data, files or settings is wrong.

    The message is one sentence that names the file, row, class or value and says what to do. The
    command line prints it without a traceback and exits with code 2.
    """


class TrustedWarning(UserWarning):
    """What was said, or not said, about trusted samples deserves a second look."""
