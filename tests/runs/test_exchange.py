"""`pudistill export` to other tools, read by their own packages where they are installed."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import exchange
from pudistill.data.loading import load_dataset
from pudistill.exceptions import InputError
from pudistill.runs.exchange.registry import TOOLS, export_labels
from pudistill.runs.folder import Run
from tests.helpers.pictures import write_picture
from tests.helpers.runs import finished_run, label_rows

PICTURES = ["cat/1.png", "cat/2.png", "dog/1.png", "dog/3.png"]
LABEL = ["dog", "cat", "dog", "cat"]
# Iris with 40 % noise.
IRIS = Path(__file__).parents[1] / "stored" / "0.1.0" / "logistic_regression"


@pytest.fixture
def of_photos(tmp_path):
    for shade, name in enumerate(PICTURES):
        write_picture(tmp_path / "photos" / name, shade)
    given = [name.split("/")[0] for name in PICTURES]
    table = label_rows(PICTURES, given, LABEL, trusted=[False, False, True, False])
    return finished_run(tmp_path / "run-photos", tmp_path / "photos", table, no_class_label="none")


@pytest.fixture
def of_texts(tmp_path):
    rows = pd.DataFrame({"id": list("abcd"), "text": "<b> & 'q'", "label": ["cat", "dog"] * 2})
    rows.to_csv(tmp_path / "texts.csv", index=False)
    table = label_rows("abcd", ["cat", "dog"] * 2, ["dog"] * 4)
    table.loc[0, "confidence"] = np.nan
    return finished_run(tmp_path / "run", tmp_path / "texts.csv", table)


def written(run, tool, output, **options):
    export_labels(run, tool, output, **options)
    return json.loads(output.read_text())


def test_label_studio(of_photos, of_texts, tmp_path):
    tasks = written(of_texts, "label-studio", tmp_path / "texts.json")
    by_id = {task["data"]["sample_id"]: task for task in tasks}
    assert {*by_id} == {*"abcd"}
    assert by_id["a"]["data"]["text"] == "<b> & 'q'"
    assert "score" not in by_id["a"]["predictions"][0]
    assert by_id["d"]["predictions"][0]["score"] == 0.99


def test_pictures_and_choices_of_label_studio(of_photos, tmp_path):
    tasks = written(of_photos, "label-studio", tmp_path / "tasks.json")
    assert {task["data"]["image"] for task in tasks} == {
        f"/data/local-files/?d={name}" for name in PICTURES if name != "dog/1.png"
    }
    config = (tmp_path / "tasks.xml").read_text()
    assert [line.strip() for line in config.splitlines() if "Choice v" in line] == [
        f'<Choice value="{name}"/>' for name in ("cat", "dog", "none")
    ]


def test_a_queue_is_exported_in_its_order_with_its_weights(of_texts, tmp_path):
    queue = tmp_path / "queue.csv"
    queue.write_text("id,weight,part,given\nc,1,random,cat\na,0.2,chosen,dog\n")
    tasks = written(of_texts, "label-studio", tmp_path / "tasks.json", only=queue)
    assert [task["data"]["sample_id"] for task in tasks] == ["c", "a"]
    assert [task["data"]["weight"] for task in tasks] == [1, 0.2]
    queue.write_text("id\nz\n")
    with pytest.raises(InputError, match="the run has no sample 'z'"):
        export_labels(of_texts, "csv", tmp_path / "c.csv", only=queue)


def test_samples_come_in_random_order(tmp_path):
    ids = [f"s{n:03}" for n in range(200)]
    rows = pd.DataFrame({"id": ids, "text": "t", "label": ["cat", "dog"] * 100})
    rows.to_csv(tmp_path / "texts.csv", index=False)
    table = label_rows(ids, ["cat", "dog"] * 100, ["cat"] * 200)
    run = finished_run(tmp_path / "run", tmp_path / "texts.csv", table, seed=7)
    export_labels(run, "csv", tmp_path / "a.csv")
    found = pd.read_csv(tmp_path / "a.csv")["id"].tolist()
    assert found != ids
    assert sorted(found) == ids
    export_labels(run, "csv", tmp_path / "b.csv")
    assert pd.read_csv(tmp_path / "b.csv")["id"].tolist() == found


def test_other_data_than_those_of_the_run_are_named(tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text("text,label\np,cat\nq,dog\n")
    run = finished_run(tmp_path / "run", path, label_rows("01", ["cat", "dog"], ["cat"] * 2))
    path.write_text("text,label\nq,dog\np,cat\n")
    with pytest.raises(InputError, match="the labels of 2 samples have changed since the fit"):
        export_labels(run, "csv", tmp_path / "x.csv")


def test_there_and_back(of_photos, of_texts, tmp_path):
    tasks = written(of_photos, "label-studio", tmp_path / "tasks.json")
    for task in tasks:
        result, is_cancelled = task["predictions"][0]["result"], "3.png" in task["data"]["image"]
        task["annotations"] = [{"completed_by": 1, "result": result, "was_cancelled": is_cancelled}]
    (tmp_path / "answered.json").write_text(json.dumps(tasks))
    data = load_dataset(tmp_path / "photos", trusted=tmp_path / "answered.json")
    assert list(data.verified) == ["dog", "cat", None, None]


def test_pictures_without_files_travel_inside(tmp_path):
    X = np.zeros((3, 4, 4), np.uint8)
    np.savez(tmp_path / "data.npz", X=X, y=["cat", "dog", "cat"])
    table = label_rows("012", ["cat", "dog", "cat"], ["dog", "dog", "cat"])
    run = finished_run(tmp_path / "run", tmp_path / "data.npz", table)
    tasks = written(run, "label-studio", tmp_path / "tasks.json")
    assert tasks[0]["data"]["image"].startswith("data:image/png;base64,")
    for tool, problem in {"fiftyone": "those of data.npz are none", "csv": "cannot show"}.items():
        with pytest.raises(InputError, match=problem):
            export_labels(run, tool, tmp_path / f"x{TOOLS[tool].suffixes[0]}")


def test_rows_of_a_table_are_texts(tmp_path):
    rows = pd.DataFrame({"id": ["a", "b"], "size": [1.5, 2], "home": ["x", None]})
    rows.assign(label=["cat", "dog"]).to_csv(tmp_path / "data.csv", index=False)
    run = finished_run(
        tmp_path / "run", tmp_path / "data.csv", label_rows("ab", ["cat", "dog"], ["cat"] * 2)
    )
    export_labels(run, "csv", tmp_path / "rows.csv")
    table = pd.read_csv(tmp_path / "rows.csv")
    assert {*table["text"]} == {"size: 1.5\nhome: x", "size: 2.0\nhome: None"}
    assert table["verified_label"].isna().all()


def test_probabilities_for_cleanlab(command):
    find_label_issues = pytest.importorskip("cleanlab.filter").find_label_issues
    code, _, err = command("export", IRIS, "--to", "cleanlab", "--output", "iris.npz")
    assert code == 0, err
    file = np.load("iris.npz")
    assert file["pred_probs"].shape == (len(file["labels"]), 3)
    labels = pd.read_parquet(IRIS / "labels.parquet").set_index("id").loc[file["ids"]]
    assert not labels["trusted"].any()
    assert (file["classes"][file["labels"]] == labels["given"]).all()
    truth = load_dataset("iris").y[file["ids"].astype(int)]
    found = find_label_issues(file["labels"], file["pred_probs"])
    assert (found == (labels["given"] != truth)).mean() > 0.75
    assert command("export", IRIS, "--to", "cleanlab", "--output", "iris.npz")[0] == 2
    assert command("export", IRIS, "--to", "cleanlab", "--output", "p.csv")[0] == 0
    assert [*pd.read_csv("p.csv")] == ["id", "label", *file["classes"]]


def test_messages_of_the_command(command, of_texts, tmp_path):
    for arguments, problem in {
        ("--to", "argila", "--output", "x.json"): "it is one of 'label-studio', 'argilla'",
        ("--to", "csv"): "--output is missing",
        ("--to", "csv", "--output", "x.json"): "let the file end in .csv",
        ("--to", "x.onnx", "--output", "x.json"): "leave --output and --only out",
    }.items():
        code, _, err = command("export", "run", *arguments)
        assert (code, problem in err.replace("\n", " ")) == (2, True), err
    assert command("export", "run", "--to", "csv", "--output", "x.csv")[0] == 0
    assert "already exists" in command("export", "run", "--to", "csv", "--output", "x.csv")[2]


# Each file read by the package of its tool


@pytest.mark.parametrize(
    ("tool", "package"), [("label-studio", "label_studio_sdk"), ("fiftyone", "fiftyone")]
)
def test_its_own_package_reads_pictures(tool, package, of_photos, tmp_path):
    pytest.importorskip(package)
    export_labels(of_photos, tool, tmp_path / "file.json")
    assert exchange.TOOLS[tool](tmp_path / "file.json", None, tmp_path / "photos") == 3


@pytest.mark.parametrize(
    ("tool", "package"), [("label-studio", "label_studio_sdk"), ("argilla", "argilla")]
)
def test_its_own_package_reads_texts(tool, package, of_texts, tmp_path):
    pytest.importorskip(package)
    export_labels(of_texts, tool, tmp_path / "file.json")
    assert exchange.TOOLS[tool](tmp_path / "file.json", None, None) == 4


def test_argilla_records_as_its_package_reads_them(of_texts, tmp_path):
    records = written(of_texts, "argilla", tmp_path / "records.json")
    (record,) = [record for record in records if record["id"] == "d"]
    suggestion = {"value": "dog", "agent": "pudistill", "score": 0.99}
    assert record["suggestions"] == {"label": suggestion}
    settings = json.loads(Path(tmp_path / "records-settings.json").read_text())
    options = settings["questions"][0]["settings"]["options"]
    assert [option["value"] for option in options] == ["dog"]


def test_fiftyone_labels_name_the_suggestion(of_photos, tmp_path):
    labels = written(of_photos, "fiftyone", tmp_path / "labels.json")
    assert labels["classes"] == ["cat", "dog", "none"]
    assert {*labels["labels"]} == {"cat/1", "cat/2", "dog/3"}
    assert labels["labels"]["cat/1"]["attributes"] == {
        "pudistill_suggestion": "dog",
        "given": "cat",
    }


def test_an_export_runs_no_module_that_only_the_run_names(of_texts, tmp_path):
    table, data = of_texts.read_table("labels"), Path(of_texts.read_config()["data"])
    run = finished_run(tmp_path / "run-own", data, table, learner="mine:Learner")
    with pytest.raises(InputError, match="whose module would be imported and run"):
        export_labels(run, "cleanlab", tmp_path / "p.npz")
    with pytest.raises(InputError, match="csv needs no learner"):
        export_labels(run, "csv", tmp_path / "p.csv", learner="mine:Learner")


def test_an_export_of_a_tracked_run_tracks_nothing_and_writes_one_file(tmp_path, monkeypatch):
    read = Run.read_config
    elsewhere = {"tracker": "wandb", "features_cache": str(tmp_path / "cache")}
    monkeypatch.setattr(Run, "read_config", lambda run: read(run) | elsewhere)
    export_labels(Run.open_with_data(IRIS), "cleanlab", tmp_path / "p.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["p.npz"]
