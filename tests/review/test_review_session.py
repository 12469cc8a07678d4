"""Which samples a review shows, to whom, and what becomes of the decisions."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pudistill.exceptions import InputError
from pudistill.review import session as session_module
from pudistill.review.decisions import Decision
from pudistill.review.filters import Filter
from pudistill.review.promised import as_rows
from pudistill.review.queue import Entry, read_queue, until_gap
from pudistill.review.run_table import RunTable
from pudistill.review.samples import _encoded, open_samples
from tests.review.conftest import CLASSES, write_queue, write_run

ALL = Filter()


def take(session, page="p", who="Ann", scope="queue", wanted=ALL, n=1):
    return [entry.row for entry in session.take(page, who, scope, wanted, n)]


def decide(session, row, action="given", label=None, who="Ann", **others):
    return session.decide([row], action, label, who, others.pop("of", "s"), **others)[0]


def test_a_queue_is_asked_in_its_order(text_run, start, mixed_queue):
    session = start(text_run, mixed_queue)
    rows = []
    while found := take(session):
        rows += found
        decide(session, found[0], page="p")
    assert rows == [5, 3, 8, 4]
    assert session.progress()["n_open"] == 0


def test_decisions_keep_weight_and_part(text_run, start, mixed_queue):
    session = start(text_run, mixed_queue)
    decision = decide(session, 5, "suggested", saw=True)
    assert (decision.id, decision.label, decision.weight) == ("t5", "cat", 0.5 + 0.3)
    assert (decision.part, decision.saw_suggestion) == ("chosen", True)
    assert decide(session, 3, saw=True).saw_suggestion is False  # it was not shown
    assert decide(session, 7).part == "picked"
    none = decide(session, 8, "none")
    assert (none.action, none.label) == ("none", "none of these")


def test_the_suggestion_of_a_random_sample_is_never_told(text_run, start, mixed_queue):
    session = start(text_run, mixed_queue, show_suggestion=True)
    assert session.show(mixed_queue[0])["suggestion"] == "cat"
    assert "suggestion" not in session.show(mixed_queue[1])
    with pytest.raises(InputError, match="drawn at random"):
        session.suggestion(3)
    with pytest.raises(InputError, match="drawn at random"):
        decide(session, 3, "suggested")
    cards = session.grid("p", "Ann", "queue", ALL)["samples"]
    assert [("suggestion" in card) for card in cards] == [True, False, True, False]
    # Nor is it told by a filter: without one the random samples are asked.
    assert take(session, wanted=Filter(given="cat")) == []
    assert 3 not in take(session, scope="all", n=12)
    assert take(session, wanted=Filter(changed=True), n=9) == [5, 8]


def test_no_sample_is_shown_to_two_at_once(text_run, start, mixed_queue):
    session = start(text_run, mixed_queue)
    assert take(session, "one") == [5]
    assert take(session, "other", "Bob") == [3]
    assert take(session, "one") == [5]  # as long as it is not decided
    assert session.keep("one", [5])
    assert not session.keep("other", [5])
    with pytest.raises(InputError, match="Somebody else is looking"):
        decide(session, 5, who="Bob", page="other")
    assert session.keep("one", [])  # its page was closed
    assert take(session, "other", "Bob") == [5]


def test_a_page_that_says_nothing_loses_its_sample(text_run, start, mixed_queue):
    session = start(text_run, mixed_queue)
    session.leases.seconds = -1
    assert take(session, "one") == [5]
    assert take(session, "other") == [5]


def test_two_processes_share_queue_and_decisions(text_run, start, mixed_queue):
    one, other = start(text_run, mixed_queue), start(text_run, who="Bob")
    assert take(one, "one") == [5]
    assert take(other, "other") == [3]
    decide(one, 5, page="one")
    decide(other, 3, page="other", who="Bob", of="t")
    assert take(one, "one") == [8]
    with pytest.raises(InputError, match=r"Bob has already decided about this sample \(cat\)"):
        decide(one, 3)
    assert one.progress()["n_verified"] == 2


def test_who_asks_for_it_decides_again(text_run, start, mixed_queue):
    decide(start(text_run, mixed_queue), 5)
    session = start(text_run, who="Bob", again=True)
    assert take(session, "one", "Bob") == take(session, "other", "Bob") == [5]
    decide(session, 5, "label", "dog", who="Bob")
    assert session.decisions.of("t5").label == "dog"
    assert take(session, "one", "Bob") == [3]


def test_undo_takes_back_what_the_same_page_decided(text_run, start, mixed_queue):
    session = start(text_run, mixed_queue)
    decide(session, 5, of="a")
    decide(session, 3, of="b", who="Bob")
    assert session.undo("a", "Ann", "p").row == 5
    assert session.decisions.of("t5") is None
    assert session.decisions.of("t3") is not None
    assert session.undo("a", "Ann", "p") is None


def test_a_new_class_is_offered_from_then_on(text_run, start):
    session = start(text_run)
    decide(session, 5, "label", "emu")
    assert session.about()["classes"] == ["cat", "dog", "owl", "emu"]


@pytest.mark.parametrize(
    ("row", "action", "label", "words"),
    [
        (99, "given", None, "no sample 100"),
        (-1, "given", None, "no sample 0"),
        (5, "burn", None, "no action 'burn'"),
        (5, "label", "", "no label"),
        (5, "label", " cat", "no label"),
        (5, "label", "x" * 1001, "no label"),
    ],
)
def test_a_wrong_decision_is_refused(text_run, start, row, action, label, words):
    session = start(text_run)
    with pytest.raises(InputError, match=words):
        decide(session, row, action, label)
    assert session.decisions.current().empty


def test_without_a_queue_samples_are_drawn_at_random_and_kept(text_run, start):
    session = start(text_run, budget=4)
    assert len(session.queue) == 4
    assert {entry.part for entry in session.queue} == {"random"}
    assert not {0, 1, 2} & {entry.row for entry in session.queue}  # verified before the fit
    assert [entry.row for entry in start(text_run).queue] == [entry.row for entry in session.queue]
    for entry in session.queue:
        decide(session, entry.row)
    session.more()
    assert len(session.queue) == 4
    assert not {entry.row for entry in session.queues[0]} & {entry.row for entry in session.queue}
    assert (text_run.path / "review" / "queue-2.csv").exists()


def test_only_the_beginning_of_the_queues_is_trusted(text_run, start, mixed_queue):
    assert until_gap([mixed_queue], {5, 3, 4}) == mixed_queue[:2]
    assert until_gap([mixed_queue[:1], mixed_queue[1:]], {5, 3, 8, 4}) == mixed_queue
    session = start(text_run, mixed_queue)

    def written():
        session.write_trusted()
        trusted, picked = (
            pd.read_csv(text_run.path / "review" / f"{name}.csv") for name in ("trusted", "picked")
        )
        return dict(zip(trusted["id"], trusted["weight"], strict=True)), picked["id"].tolist()

    decide(session, 8)
    decide(session, 7)  # picked by hand
    assert written() == ({}, ["t8", "t7"])
    decide(session, 5)
    decide(session, 3, "skip")
    assert written() == ({"t5": 0.8, "t8": 0.5}, ["t7"])


def test_a_sample_that_was_picked_counts_as_soon_as_it_is_drawn(text_run, start, mixed_queue):
    session = start(text_run, mixed_queue[:1])
    decide(session, 3)
    decide(session, 5)
    write_queue(text_run, mixed_queue)
    session = start(text_run)
    assert take(session) == [8]
    session.write_trusted()
    trusted = pd.read_csv(text_run.path / "review" / "trusted.csv")
    assert trusted[["id", "weight"]].to_numpy().tolist() == [["t5", 0.8], ["t3", 1.25]]


def test_promises_get_every_decision(text_run, start, mixed_queue, monkeypatch):
    session = start(text_run, mixed_queue)
    tables = []

    def promises(run, decided, **_):
        tables.append(decided.drop(columns=["when", "who"]))
        return SimpleNamespace(
            n_verified=11,
            n_skipped=1,
            n_at_look=12,
            n_next_look=15,
            confidence=0.97,
            rate=SimpleNamespace(value=np.nan, interval=(0, 1)),
            labels_right=SimpleNamespace(value=0.9, interval=(0.8, 0.95)),
            certified=[SimpleNamespace(max_error=0.02, n_accepted=6, share=0.5)],
            doubt=None,
        )

    monkeypatch.setattr(session_module, "promises", promises)
    for row, action in ((5, "given"), (3, "skip"), (7, "given")):
        decide(session, row, action)
    shown = as_rows(session.promises())
    assert tables[0].astype(object).where(tables[0].notna(), None).to_numpy().tolist() == [
        ["t5", "owl", 0.8], ["t3", None, 1.25], ["t7", "dog", None],
    ]  # fmt: skip
    assert [(row["name"], row["value"]) for row in shown["rows"]] == [
        ("Labels right after correction", "90\xa0%"),
        ("Usable, at most 2 % of them wrong", "6"),
    ]
    assert (session.promises().n_at_look, len(tables)) == (12, 1)  # as long as no look is due
    for row in (8, 4):
        decide(session, row)
    session.promises()
    decide(session, 9)
    session.promises()
    assert len(tables) == 1
    assert "80 to 95" in shown["rows"][0]["interval"]
    assert "The next look is at 15" in shown["note"]


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [
        (Filter(given="owl"), [2, 5, 8, 11]),
        (Filter(given="owl", label="cat"), [5, 8, 11]),
        (Filter(source="trusted"), [0, 1, 2]),
        (Filter(changed=False, low=0.8), [9, 10]),
        (Filter(high=0.1), [0, 1]),
        (Filter(search="T11"), [11]),
        (Filter(search="NUMBER 7"), [7]),
        (Filter(given="emu"), []),
        (Filter(source="nobody"), []),
    ],
)
def test_filters(text_run, start, wanted, rows):
    session = start(text_run)
    assert session._select(wanted).tolist() == rows


def test_pairs_of_classes_are_counted(text_run, start):
    assert start(text_run).about()["pairs"] == [("owl", "cat", 3)]


def test_decided_samples_are_listed_the_last_first(text_run, start, mixed_queue):
    session = start(text_run, mixed_queue)
    for row in (5, 3):
        decide(session, row)
    found = session.grid("p", "Ann", "decided", ALL)
    assert [(card["row"], card["decided"]) for card in found["samples"]] == [(3, "cat"), (5, "owl")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id,weight\nt4,1\nt99,1\n", "'t99', which the run does not have"),
        ("name\nt4\n", "no column id"),
        ("id,weight\nt4,-1\n", "row 2: the weight '-1' is not a number above 0"),
        ("id,weight\nt4,nan\n", "row 2: the weight 'nan'"),
        ("id\nt4\nt4\n", "'t4' twice"),
        ("", "cannot be read"),
    ],
)
def test_a_wrong_queue_is_refused(text_run, start, tmp_path, content, words):
    (tmp_path / "queue.csv").write_text(content)
    with pytest.raises(InputError, match=words):
        read_queue(tmp_path / "queue.csv", RunTable.read(text_run))


def test_a_queue_without_weights_counts_as_picked_by_hand(text_run, start, tmp_path):
    (tmp_path / "queue.csv").write_text("id\nt4\n")
    queue = read_queue(tmp_path / "queue.csv", start(text_run).table)
    assert queue == [Entry(4, None, "picked")]


def test_decisions_of_ids_that_are_gone_are_an_error(text_run, start):
    start(text_run).decisions.append(Decision("gone", "label", "cat"))
    with pytest.raises(InputError, match="'gone', which the run does not have"):
        start(text_run)


def test_pictures_in_a_folder_are_encoded_again(picture_run, start):
    samples = start(picture_run).samples
    assert (samples.dataset, len(samples.files)) == (None, 12)
    assert all(samples.picture(row).startswith(b"\x89PNG") for row in range(12))


@pytest.mark.parametrize("what", ["gone", "label", "all"])
def test_data_that_have_changed_are_named(picture_run, start, tmp_path, what):
    photos = tmp_path / "photos"
    if what == "gone":
        (photos / "cat" / "00.png").unlink()
        words = "1 of its samples are gone, such as 'cat/00.png'"
    elif what == "all":
        photos.rename(tmp_path / "elsewhere")
        words = "are not at .*photos any more"
    else:
        table = picture_run.read_table("labels")
        picture_run.write_table("labels", table.assign(given=["dog", *table["given"][1:]]))
        words = "the label of 'cat/00.png' is 'cat' and was 'dog'"
    with pytest.raises(InputError, match=words):
        start(picture_run)


def test_a_picture_that_has_changed_is_named(picture_run, start, tmp_path):
    path = tmp_path / "photos" / "cat" / "00.png"
    pixels = np.asarray(Image.open(path))
    picture_run.write_arrays("gallery.npz", {"ids": ["cat/00.png"], "pictures": pixels[None]})
    start(picture_run)
    Image.fromarray(255 - pixels).save(path)
    with pytest.raises(InputError, match=r"content of sample 'cat/00\.png' is another one"):
        start(picture_run)


def test_a_text_that_has_changed_is_named(text_run, start, tmp_path):
    gallery = {"ids": np.array(["t6"]), "texts": np.array(["text number 6"])}
    text_run.write_arrays("gallery.npz", gallery)
    start(text_run)
    table = pd.read_csv(tmp_path / "texts.csv")
    table.loc[6, "text"] = "another text"
    table.to_csv(tmp_path / "texts.csv", index=False)
    with pytest.raises(InputError, match="content of sample 't6' is another one"):
        start(text_run)


def test_rows_of_a_table_begin_with_what_tells_classes_apart(tmp_path, start):
    ids, given = [f"r{n}" for n in range(30)], [CLASSES[n % 3] for n in range(30)]
    pd.DataFrame(
        {
            "id": ids,
            "noise": np.random.default_rng(0).standard_normal(30).round(3),
            "word": [f"like {name}" if n else "odd" for n, name in enumerate(given)],
            "label": given,
            "trusted": [n < 3 for n in range(30)],
        }
    ).to_csv(tmp_path / "rows.csv", index=False)
    run = write_run(tmp_path / "run", tmp_path / "rows.csv", ids, given)
    content = start(run).samples.content(4)
    assert (content.kind, content.values[0]) == ("values", ("word", "like dog"))
    assert [name for name, _ in content.values] == ["word", "noise"]


def test_sources_are_shown_but_not_for_random_samples(tmp_path, start, mixed_queue):
    ids, given = [f"r{n}" for n in range(12)], [CLASSES[n % 3] for n in range(12)]
    table = pd.DataFrame({"id": ids, "x": range(12), "ann": given, "bob": given})
    table["bob"] = [None if n == 5 else name for n, name in enumerate(given)]
    table.rename(columns={"ann": "by_ann", "bob": "by_bob"}).assign(
        verified_label=[name if n < 3 else None for n, name in enumerate(given)]
    ).to_csv(tmp_path / "rows.csv", index=False)
    run = write_run(tmp_path / "run", tmp_path / "rows.csv", ids, given, label_column="by_*")
    session = start(run, mixed_queue)
    assert session.show(mixed_queue[0])["said"] == [("by_ann", "owl")]
    assert session.show(mixed_queue[2])["said"] == [("by_ann", "owl"), ("by_bob", "owl")]
    hidden = session.show(mixed_queue[1])
    assert (hidden["said"], hidden["hides_said"]) == ([], True)


def test_large_pictures_are_made_smaller(picture_run, tmp_path):
    path = tmp_path / "photos" / "cat" / "00.png"
    Image.new("RGB", (3000, 1500)).save(path)
    samples = open_samples(picture_run, picture_run.read_config(), RunTable.read(picture_run))
    assert samples.picture(0).startswith(b"\xff\xd8")  # JPEG
    path.write_bytes(b"<svg onload='alert(1)'/>")
    samples = open_samples(picture_run, picture_run.read_config(), RunTable.read(picture_run))
    _encoded.cache_clear()
    with pytest.raises(InputError, match="cannot be read"):
        samples.picture(0)
