"""The log of a run: one JSON object per line, for people and programs to search."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from pudistill.utils.warning_log import OWN_CATEGORIES, RecordedWarning, record_warnings

LOG = "log.jsonl"
MAX_BYTES = 5_000_000  # of a log file
N_OLDER = 3  # log files that are kept beside the current one
_package = logging.getLogger("pudistill")


@contextmanager
def logged_to(folder: Path) -> Iterator[None]:
    """Append all events and warnings inside the ``with`` block to the log of a run."""
    handler = RotatingFileHandler(
        folder / LOG, maxBytes=MAX_BYTES, backupCount=N_OLDER, encoding="utf-8"
    )
    handler.setFormatter(
        JsonFormatter(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger", "message": "event"},
            timestamp="time",
            json_ensure_ascii=False,
        )
    )
    # A full disk must stop a run when it writes results, not when it logs.
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # noqa: ARG005
    level = _package.level
    _package.addHandler(handler)
    _package.setLevel(logging.INFO)
    try:
        with record_warnings(_log_warning):
            yield
    finally:
        _package.setLevel(level)
        _package.removeHandler(handler)
        with suppress(OSError):  # on a full disk
            handler.close()


def _log_warning(warning: RecordedWarning) -> None:
    _package.warning(warning.message, extra={"category": warning.category})


def warnings_in(folder: Path) -> list[str]:
    """Return the package's warnings in the log of a run, in order and without repetitions."""
    own = (record for record in records_in(folder) if str(record.get("category")) in OWN_CATEGORIES)
    return list(dict.fromkeys(str(record.get("event")) for record in own))


def records_in(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the records in the log of a run, in order; lines that cannot be read are left out."""
    names = [f"{LOG}.{n}" for n in range(N_OLDER, 0, -1)] + [LOG]
    for path in (folder / name for name in names):
        if not path.is_file() or path.stat().st_size > 2 * MAX_BYTES:  # not a log of ours
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            with suppress(ValueError, RecursionError):  # a crash cut the line short
                record = json.loads(line)
                if isinstance(record, dict):
                    yield record
