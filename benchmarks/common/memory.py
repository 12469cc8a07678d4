"""Run a command in a session of its own and record the memory of all its processes."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import NamedTuple

SECONDS_BETWEEN_SAMPLES = 0.5


class Memory(NamedTuple):
    """Memory of a command at one time; pages shared by its processes are counted once."""

    time: float  # as `time.time()`
    mib: float
    # Without pages of files, which the system takes back when it needs memory.
    mib_without_files: float


def run_watched(command: Sequence[str]) -> tuple[str | None, list[Memory]]:
    """Run a command and record its memory.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments. If this process is interrupted, the program and all processes
        that it started are killed.

    Returns
    -------
    output : str or None
        What the command printed; None if it failed.
    memory : list of Memory
        The memory of all its processes, every half second.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    memory = [Memory(time.time(), 0.0, 0.0)]
    Thread(target=_record, args=(process, memory), daemon=True).start()
    try:
        output, _ = process.communicate()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return (None if process.returncode else output), memory


def _record(process: subprocess.Popen, memory: list[Memory]) -> None:
    while process.poll() is None:
        kib = {"Pss:": 0, "Pss_Anon:": 0}
        for line in _lines_of_session(process.pid):
            name, value, *_ = line.split()
            if name in kib:
                kib[name] += int(value)
        memory.append(Memory(time.time(), *(value / 1024 for value in kib.values())))
        time.sleep(SECONDS_BETWEEN_SAMPLES)


def _lines_of_session(session: int) -> Iterator[str]:
    """Yield the lines of ``smaps_rollup`` of each process of a session."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has just ended
            if os.getsid(int(folder.name)) == session:
                yield from (folder / "smaps_rollup").read_text().splitlines()[1:]
