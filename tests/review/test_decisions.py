"""The log of decisions: nothing is lost, and nothing is there twice."""

import multiprocessing
import warnings
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pudistill.data.loading import load_dataset
from pudistill.exceptions import InputError, RecoveredWarning
from pudistill.review.decisions import COLUMNS, Decision, Decisions


def cat(n, **others):
    return Decision(f"s{n}", "label", "cat", **{"who": "Ann"} | others)


def test_a_decision_is_read_again(tmp_path):
    written = Decisions(tmp_path).append(cat(0, weight=0.25, part="chosen"))[0]
    again = Decisions(tmp_path)
    assert again.of("s0") == written
    assert (written.n, written.when[-1]) == (1, "Z")
    table = again.current()
    assert list(table) == list(COLUMNS)
    assert table[["id", "label", "weight", "who"]].to_numpy().tolist() == [
        ["s0", "cat", 0.25, "Ann"]
    ]


def test_the_last_decision_counts_and_undo_takes_all_back(tmp_path):
    decisions = Decisions(tmp_path)
    decisions.append(cat(0), cat(1))
    decisions.append(Decision("s0", "label", "dog", who="Ann"))
    assert decisions.current()["label"].tolist() == ["cat", "dog"]
    decisions.append(Decision("s0", "undo", who="Ann"), Decision("s1", "skip", who="Ann"))
    assert decisions.of("s0") is None
    assert decisions.current().empty
    assert decisions.skipped() == ["s1"]
    assert len(decisions.path.read_text().splitlines()) == 5  # nothing is ever removed


def test_what_a_page_repeats_is_written_once(tmp_path):
    decisions = Decisions(tmp_path)
    first, again = decisions.append(cat(0))[0], decisions.append(cat(0))[0]
    assert first == again
    decisions.append(Decision("s0", "undo", who="Ann"))
    assert decisions.append(Decision("s0", "undo", who="Ann")) == []
    assert len(decisions.path.read_text().splitlines()) == 2


def test_the_last_decision_of_a_page_is_its_own(tmp_path):
    decisions = Decisions(tmp_path)
    decisions.append(cat(0, session="a"), cat(1, session="b"), cat(2, session="a"))
    assert decisions.last_of("a").id == "s2"
    assert decisions.last_of("b").id == "s1"
    assert decisions.last_of("c") is None


@settings(max_examples=20)
@given(
    names=st.lists(st.text(min_size=1), min_size=1, max_size=5, unique=True),
    n_lost=st.integers(min_value=1, max_value=400),
)
def test_a_torn_line_is_dropped_and_nothing_before_it(tmp_path_factory, names, n_lost):
    folder = tmp_path_factory.mktemp("run")
    decisions = Decisions(folder)
    for name in names:
        decisions.append(Decision(name, "label", name, who=name))
    content = decisions.path.read_bytes()
    kept = content[: max(0, len(content) - n_lost)]
    decisions.path.write_bytes(kept)
    n_whole = kept.count(b"\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = Decisions(folder)
    assert again.current()["id"].tolist() == names[:n_whole]
    assert len(caught) == (not kept.endswith(b"\n") and bool(kept))
    again.append(Decision("one more", "skip", who="Ann"))
    assert Decisions(folder).current()["id"].tolist() == names[:n_whole]
    assert Decisions(folder).of("one more").n == n_whole + 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [lines[0].replace(b"cat", b"dog"), *lines[1:]],  # another checksum
        lambda lines: [b"{}\n", *lines[1:]],
        lambda lines: [b"\xff\n", *lines[1:]],
        lambda lines: [lines[0], lines[2]],  # a line is missing: its number tells
        lambda lines: [lines[0], lines[0], *lines[1:]],
    ],
)
def test_a_damaged_line_is_named(tmp_path, damage):
    path = Decisions(tmp_path).path
    Decisions(tmp_path).append(cat(0), cat(1), cat(2))
    lines = damage(path.read_bytes().splitlines(keepends=True))
    path.write_bytes(b"".join([*lines, Decision("s9", "skip", n=4).line]))
    with pytest.raises(InputError, match=r"line [12] is damaged .* restore a copy"):
        Decisions(tmp_path)


def test_a_log_that_becomes_shorter_is_an_error(tmp_path):
    decisions = Decisions(tmp_path)
    decisions.append(cat(0))
    decisions.path.write_bytes(b"")
    with pytest.raises(InputError, match="shorter"):
        decisions.append(cat(1))


@pytest.mark.parametrize("name", ["decisions.jsonl", "trusted.csv"])
def test_a_log_that_leads_out_of_the_run_is_refused(tmp_path, name):
    (tmp_path / "review").mkdir()
    (tmp_path / "review" / name).symlink_to(tmp_path / "private")
    with pytest.raises(InputError, match="is a link"):
        Decisions(tmp_path).write("trusted.csv", pd.DataFrame())


def append_many(folder, who):
    decisions = Decisions(folder)
    for n in range(50):
        decisions.append(Decision(f"{who}{n}", "label", "cat", who=who))


def test_two_processes_write_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=append_many, args=(tmp_path, who)) for who in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    everything = Decisions(tmp_path).in_force()
    assert [decision.n for decision in everything] == [*range(1, 101)]
    assert {decision.id for decision in everything} == {f"{w}{n}" for w in "ab" for n in range(50)}


def test_a_process_sees_what_another_one_has_decided(tmp_path):
    one, other = Decisions(tmp_path), Decisions(tmp_path)
    one.append(cat(0))
    with other.locked():
        assert other.of("s0").label == "cat"


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path, monkeypatch):
    decisions = Decisions(tmp_path)
    decisions.append(cat(0))

    def fail(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pudistill.review.decisions.os.fsync", fail)
        with pytest.raises(OSError, match="No space"):
            decisions.append(cat(1))
    decisions.append(cat(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RecoveredWarning)
        assert Decisions(tmp_path).current()["id"].tolist() == ["s0", "s2"]


def test_fit_reads_the_trusted_table(tmp_path):
    decisions = Decisions(tmp_path)
    decisions.append(
        Decision("3", "label", "dog", weight=0.5, who="=cmd()"), Decision("5", "skip", who="Ann")
    )
    path = decisions.write("trusted.csv", decisions.current())
    data = pd.DataFrame({"id": range(8), "x": range(8), "label": ["cat", "dog"] * 4})
    data.to_csv(tmp_path / "data.csv", index=False)
    read = load_dataset(Path(tmp_path / "data.csv"), trusted=path)
    assert read.trusted.tolist() == [n == 3 for n in range(8)]
    assert (read.verified[3], read.draws.weight[3]) == ("dog", 0.5)


@pytest.mark.parametrize("line", [b"{}\n", b"5\n", b'{"n": 2, "mood": "good"}\n'])
def test_a_last_line_that_is_complete_is_never_dropped(tmp_path, line):
    decisions = Decisions(tmp_path)
    decisions.append(cat(0))
    content = decisions.path.read_bytes() + line
    decisions.path.write_bytes(content)
    with pytest.raises(InputError, match=r"line 2 is damaged .* restore a copy"):
        Decisions(tmp_path)
    assert decisions.path.read_bytes() == content
