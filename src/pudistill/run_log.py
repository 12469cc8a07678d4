"""The log of a run: a JSON object a line, for people and programs to search."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

from pythonjsonlogger.json import JsonFormatter

from pudistill.recording import OWN_CATEGORIES, Told, listening

LOG = "log.jsonl"
LARGEST, N_OLDER = 5_000_000, 3  # bytes of a file, and files that are kept besides the last one
_package = logging.getLogger("pudistill")


@contextmanager
def logged_to(folder: Path) -> Iterator[None]:
    """Append what happens inside the ``with`` block, warnings too, to the log of a run."""
    handler = RotatingFileHandler(
        folder / LOG, maxBytes=LARGEST, backupCount=N_OLDER, encoding="utf-8"
    )
    handler.setFormatter(
        JsonFormatter(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger", "message": "event"},
            timestamp="time",
            json_ensure_ascii=False,
        )
    )
    # A full disk stops a run where it writes results, not where it talks of them.
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # noqa: ARG005
    level = _package.level
    _package.addHandler(handler)
    _package.setLevel(logging.INFO)
    try:
        with listening(_note):
            yield
    finally:
        _package.setLevel(level)
        _package.removeHandler(handler)
        with suppress(OSError):  # what the full disk had no room for
            handler.close()


def _note(told: Told) -> None:
    _package.warning(told.message, extra={"category": told.category})


def warnings_in(folder: Path) -> list[str]:
    """Return our own warnings in the log of a run, each once, however often it was resumed."""
    names = [f"{LOG}.{n}" for n in range(N_OLDER, 0, -1)] + [LOG]
    found: dict[str, None] = {}
    for path in (folder / name for name in names):
        if not path.exists():
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                record = json.loads(line)
                if record["category"] in OWN_CATEGORIES:
                    found[str(record["event"])] = None
            except (ValueError, TypeError, KeyError, RecursionError):  # a line that a crash has cut
                continue
    return list(found)
