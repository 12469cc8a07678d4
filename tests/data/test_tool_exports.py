"""Verified labels from the files of annotation tools, written by the tools' own packages.

`benchmarks/exchange.py` made the files in ``tool_exports``.
"""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from pudistill.data.loading import load_dataset
from pudistill.data.tool_exports import is_tool_export, read_tool_export
from pudistill.exceptions import DataWarning, InputError

FILES = Path(__file__).parent / "tool_exports"
PICTURES = ["cat/1.png", "cat/2.png", "dog/1.png", "dog/3.png", "dog/4.png"]


@pytest.fixture
def answers(tmp_path):
    """Read a file, or content that is written to one first."""

    def read(content, ids=PICTURES, name="export.json"):
        path = tmp_path / name
        if isinstance(content, str):
            shutil.copy(FILES / content, path)
        else:
            path.write_text(json.dumps(content))
        table = read_tool_export(path, ids)
        return None if table is None else table.table.to_pandas().set_index("id")

    return read


def content_of(name):
    return json.loads((FILES / name).read_text())


@pytest.mark.parametrize("name", ["label_studio.json", "label_studio_min.json"])
def test_label_studio(answers, name):
    table = answers(name)
    # The second task was cancelled, and the fifth has no annotation.
    assert table["label"].to_dict() == {"cat/1.png": "dog", "dog/1.png": "dog", "dog/3.png": "cat"}
    assert {*table["who"]} == {"1"}
    assert {*table["when"]} == {"2026-01-05T10:00:05Z"}
    assert table["weight"].isna().all()


def test_weights_of_a_queue_come_back(answers):
    tasks = content_of("label_studio.json")
    tasks[0]["data"]["weight"] = 0.2
    assert answers(tasks)["weight"].to_dict()["cat/1.png"] == "0.2"


def annotation(label, who, **about):
    result = {"from_name": "label", "type": "choices", "value": {"choices": [label]}}
    return {"completed_by": {"id": who, "email": f"{who}@x"}, "result": [result]} | about


def test_the_majority_decides_and_ties_are_named(answers):
    two_to_one = [annotation("dog", 1), annotation("cat", 2), annotation("dog", 3)]
    truth = [annotation("dog", 1), annotation("dog", 2), annotation("cat", 3, ground_truth=True)]
    tie = [annotation("dog", 1), annotation("cat", 2)]
    tasks = [
        {"id": number, "data": {"sample_id": name}, "annotations": given}
        for number, (name, given) in enumerate(
            {"a": two_to_one, "b": truth, "c": tie, "d": [annotation("cat", 1)]}.items()
        )
    ]
    with pytest.warns(DataWarning, match="disagree on 1 samples .* left out: 'c'"):
        table = answers(tasks)
    assert table["label"].to_dict() == {"a": "dog", "b": "cat", "d": "cat"}
    assert table["who"]["a"] == "1@x 3@x"


def test_argilla_with_the_status_of_each_response(answers):
    table = answers("argilla_flat.json", "abcd")
    assert table["label"].to_dict() == {"a": "cat", "b": "dog"}  # c is a draft, d unanswered
    assert table["who"]["b"] == "00000000-0000-0000-0000-000000000001"  # the other one discarded it


def test_argilla_without_a_status_counts_completed_records_only(answers):
    records = content_of("argilla.json")
    records[0]["status"] = "completed"  # as the server sets it
    with pytest.warns(DataWarning, match="3 responses to records that are not completed"):
        table = answers(records, "abcd")
    assert table["label"].to_dict() == {"a": "cat"}


def test_fiftyone_names_pictures_without_their_suffix(answers):
    table = answers("fiftyone.json")
    assert table["label"].to_dict() == {
        "cat/1.png": "cat",
        "cat/2.png": "dog",
        "dog/1.png": "none of these",
        "dog/3.png": "cat",
    }
    with pytest.raises(InputError, match=r"'cat/1' can be 'cat/1\.png', 'cat/1\.jpg'"):
        answers("fiftyone.json", [*PICTURES, "cat/1.jpg"])


def test_suggestions_of_pudistill_are_no_answers(answers):
    def label(name):
        return {"label": name, "attributes": {"pudistill_suggestion": "dog", "given": "cat"}}

    content = {"classes": None, "labels": {"cat/1": label("dog"), "cat/2": label("cat")}}
    with pytest.warns(DataWarning, match="1 labels are still those that pudistill suggested"):
        table = answers(content)
    assert table["label"].to_dict() == {"cat/2.png": "cat"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([{"id": 1, "data": {}, "annotations": []}], "nobody has answered yet"),
        (
            [{"id": 1, "data": {}, "annotations": [{"result": [{"type": "choices"}]}]}],
            "'from_name'",
        ),
        ([{"id": 1, "data": {}, "annotations": 7}], "is not as the tool writes it"),
        ([{"id": 1, "annotation_id": 1, "annotator": 1, "mood": "x"}], "no question is called"),
        (
            [{"id": "a", "fields": {}, "responses": {"p": [], "q": []}}],
            "several questions, 'p', 'q'",
        ),
        ({"classes": ["cat"], "labels": {"cat/1": 7}}, "is not as the tool writes it"),
    ],
)
def test_what_no_tool_writes(answers, content, problem):
    with pytest.raises(InputError, match=problem):
        answers(content)


def test_several_choices_are_no_class(answers):
    tasks = content_of("label_studio.json")
    tasks[0]["annotations"][0]["result"][0]["value"]["choices"] = ["cat", "dog"]
    with pytest.raises(InputError, match="each sample needs one class"):
        answers(tasks)


@pytest.mark.parametrize("content", [[], [{"id": "a", "label": "cat"}], {"id": 1}, 7])
def test_other_json_is_left_to_the_reader_of_tables(answers, content):
    assert answers(content) is None


def test_fit_reads_them_as_verified_labels(tmp_path):
    rows = pd.DataFrame({"id": list("abcd"), "text": "t", "label": ["cat", "dog"] * 2})
    rows.to_csv(tmp_path / "texts.csv", index=False)
    assert is_tool_export(FILES / "argilla_flat.json")
    data = load_dataset(tmp_path / "texts.csv", trusted=FILES / "argilla_flat.json")
    assert list(data.verified) == ["cat", "dog", None, None]


def test_a_spreadsheet_that_is_filled_in_partly(tmp_path):
    rows = pd.DataFrame({"id": list("abcd"), "text": "t", "label": ["cat", "dog"] * 2})
    rows.to_csv(tmp_path / "texts.csv", index=False)
    filled = rows.drop(columns="label").assign(given="cat", suggested="dog", confidence=0.5)
    filled["verified_label"] = ["cat", None, None, "dog"]
    filled.to_csv(tmp_path / "filled.csv", index=False)
    data = load_dataset(tmp_path / "texts.csv", trusted=tmp_path / "filled.csv")
    assert list(data.verified) == ["cat", None, None, "dog"]
