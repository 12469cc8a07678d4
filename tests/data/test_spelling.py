"""Names of classes that look alike."""

import pytest

from pudistill.data.spelling import describe_look_alikes, look_alikes


@pytest.mark.parametrize(
    "names",
    [
        ["cat", "Cat", "CAT"],
        ["cat", " cat", "cat ", "cat\t"],
        ["ice cream", "ice  cream", "ice\u00a0cream", "ice cream\u200b", "\ufeffice cream"],
        ["caf\u00e9", "cafe\u0301"],
        ["A1", "\uff21\uff11"],
        ["1", "01", "1.0", "+1", "1.", "001.00"],
        ["-1", "-1.0", "-01"],
        ["0", "00", "0.0"],
        ["stra\u00dfe", "STRASSE"],
    ],
)
def test_alike(names):
    assert look_alikes(dict.fromkeys([*names, "other"], 1)) == [sorted(names)]


@pytest.mark.parametrize(
    "names", [["1", "-1"], ["1", "10"], ["1.5", "1"], ["a b", "ab"], ["C", "C#"], ["1.0.0", "1.0"]]
)
def test_not_alike(names):
    assert look_alikes(dict.fromkeys(names, 1)) == []
    assert describe_look_alikes(dict.fromkeys(names, 1)) is None


def test_the_sentence_shows_counts_and_what_cannot_be_seen():
    counts = {"caf\u00e9": 1_000, "cafe\u0301": 2, "a": 1, "a\u200b": 3}
    said = describe_look_alikes(counts)
    assert "'caf\u00e9' (1,000), 'cafe\\u0301' (2); 'a\\u200b' (3), 'a' (1): merge those" in said


def test_of_many_groups_the_first_are_shown():
    counts = {f"{letter}{n}": 1 for letter in "aA" for n in range(15)}
    assert "; and 5 more: merge" in describe_look_alikes(counts)
