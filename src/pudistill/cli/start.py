"""The first moments of the command line, in which an interruption leaves no traceback."""

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line, which is imported here: that takes most of a short command's time."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
    if os.environ.get("COLUMNS") == "0":  # some terminals do not know their width: rich prints none
        del os.environ["COLUMNS"]
    try:
        from pudistill.cli.commands import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(130)


def _interrupt(_: int, frame: FrameType | None) -> None:
    """Raise `KeyboardInterrupt`, but leave at once if modules are being imported.

    Half-imported modules turn the exception into others. Nothing has to be cleaned up then.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, b"Interrupted.\n")
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt
