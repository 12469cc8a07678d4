"""What Linux has and other systems lack is taken away here: everything works without it."""

import os
import re
import threading
from pathlib import Path

import pytest

import pudistill
from pudistill.review import decisions
from pudistill.utils import arrays, files, moving, threads

POSIX_ONLY = re.compile(
    r"\bos\.(?:fork|forkpty|get[eu]id|getgid|kill|killpg|mkfifo|nice|posix_\w+|preadv?|pwritev?|"
    r"sched_\w+|setsid|statvfs|sysconf|uname|wait\w*)\b|\bsignal\.(?:SIGALRM|SIGHUP|SIGKILL|SIGUSR\d)|"
    r"^\s*(?:import|from) (?:fcntl|grp|pwd|resource|termios|tty)\b",
    re.MULTILINE,
)
GUARDED = {("arrays.py", "os.posix_fallocate")}


def test_nothing_that_only_posix_has_is_called_unguarded():
    package = Path(pudistill.__file__).parent
    found = {
        (path.name, match)
        for path in package.rglob("*.py")
        for match in POSIX_ONLY.findall(path.read_text("utf-8"))
    }
    assert found == GUARDED


@pytest.mark.parametrize("lacking", [OSError, NotImplementedError])
def test_files_are_moved_where_there_are_no_hard_links(tmp_path, monkeypatch, lacking):
    def no_link(*_, **__):
        raise lacking

    monkeypatch.setattr(os, "link", no_link)
    (tmp_path / "old").write_bytes(b"picture")
    moving.move_all([(tmp_path / "old", tmp_path / "new")])
    assert (tmp_path / "new").read_bytes() == b"picture"
    assert not (tmp_path / "old").exists()


def test_large_arrays_are_in_memory_where_files_cannot_be_allocated(monkeypatch):
    monkeypatch.setattr(arrays, "MIN_FILE_BYTES", 1)
    monkeypatch.delattr(os, "posix_fallocate")
    assert arrays.in_file((4, 2)) is None
    assert arrays.empty((4, 2)).shape == (4, 2)


def test_folders_that_cannot_be_opened_are_not_synchronised(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError("a folder")

    monkeypatch.setattr(os, "open", refused)
    files.sync_folder(tmp_path)


def test_decisions_are_logged_without_flags_of_linux(tmp_path, monkeypatch):
    monkeypatch.setattr(decisions, "AS_IT_IS", 0)
    log = decisions.Decisions(tmp_path)
    log.append(decisions.Decision("a.png", "label", "cat", 1.0, who="Ann"))
    assert log.current()["id"].tolist() == ["a.png"]


def test_a_worker_ends_where_orphans_keep_the_number_of_their_parent(monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(os, "getppid", lambda: 2**22 + 1)  # no process has this number
    monkeypatch.setattr(os, "_exit", lambda _: ended.set())
    threads._exit_when_orphaned(2**22 + 1)
    assert ended.is_set()


@pytest.mark.parametrize(
    "name", ["con", "NUL.png", "com1", "9:30", "a|b", 'say "yes"', "end.", "end ", "a\nb", "<cat>"]
)
def test_names_that_windows_reads_as_something_else(name):
    assert files.can_name_folder(name, on_windows=False)
    assert not files.can_name_folder(name, on_windows=True)


def test_a_name_that_no_file_system_takes():
    assert files.can_name_folder("ä" * 127)
    assert not files.can_name_folder("ä" * 128)


@pytest.mark.parametrize("name", ["cat", "console", "none of these", "Größe", "a.b", "comet"])
def test_names_for_all_systems(name):
    assert files.can_name_folder(name, on_windows=True)
