"""`pudistill apply`: corrected copies of tables, arrays and folders of pictures."""

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets as hf
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from pudistill.data.loading import load_dataset
from pudistill.exceptions import InputError
from pudistill.runs.apply import apply_run, undo_run
from tests.helpers.pictures import write_picture
from tests.helpers.runs import finished_run, label_rows

IDS = ["a", "b", "c", "d"]
GIVEN, LABEL = ["cat", "dog", "cat", None], ["cat", "cat", "dog", "dog"]
CSV = 'id,note,label,size\na,"x, ""y""",cat,1.50\nb,=1+1,dog,007\nc,,cat,\nd,é,,2\n'


@pytest.fixture
def run(tmp_path):
    """Make a run of a file with the usual label table."""

    def make(data, table=None, **options):
        table = label_rows(IDS, GIVEN, LABEL) if table is None else table
        return finished_run(tmp_path / "run", data, table, **options)

    return make


def written(path, content, encoding="utf-8"):
    path.write_bytes(content.encode(encoding))
    return path


class TestText:
    def test_a_csv_keeps_all_that_is_not_corrected(self, run, tmp_path):
        finished = run(written(tmp_path / "data.csv", CSV))
        applied = apply_run(finished, tmp_path / "copy.csv")
        rows = list(csv.reader((tmp_path / "copy.csv").open(newline="", encoding="utf-8")))
        assert rows[0] == ["id", "note", "label", "size", "given", "confidence", "accepted"]
        assert [row[:4] for row in rows[1:]] == [
            ["a", 'x, "y"', "cat", "1.50"],
            ["b", "=1+1", "cat", "007"],
            ["c", "", "dog", ""],
            ["d", "é", "dog", "2"],
        ]
        assert [row[4] for row in rows[1:]] == ["cat", "dog", "cat", ""]
        assert rows[1][5:] == ["0.5", ""]
        assert applied.changes["id"].tolist() == ["b", "c", "d"]

    def test_separators_line_ends_encodings_and_compression_stay(self, run, tmp_path):
        content = CSV.replace(",", ";").replace("x; ", "x, ").replace("\n", "\r\n")
        path = tmp_path / "data.csv.gz"
        path.write_bytes(gzip.compress(content.encode("utf-8-sig")))
        apply_run(run(path), tmp_path / "copy.csv.gz")
        copy = gzip.decompress((tmp_path / "copy.csv.gz").read_bytes()).decode("utf-8-sig")
        assert copy.startswith("id;note;label;size;given;confidence;accepted\r\na;")
        assert "b;=1+1;cat;007;dog;" in copy

    def test_lines_within_values_and_sixteen_bits(self, run, tmp_path):
        content = CSV.replace('"x, ""y"""', '"x\r\ny\n\nz"')
        apply_run(run(written(tmp_path / "data.csv", content, "utf-16")), tmp_path / "copy.csv")
        copy = (tmp_path / "copy.csv").read_bytes().decode("utf-16")
        assert copy.startswith('id,note,label,size,given,confidence,accepted\na,"x\r\ny\n\nz",cat')
        assert copy.endswith("d,é,dog,2,,0.99,\n")

    def test_rows_without_ids_and_numbers_as_labels(self, run, tmp_path):
        path = written(tmp_path / "data.csv", "x,label\n1,1.0\n2,2.0\n\n3,\n4,1.0\n")
        finished = run(path, label_rows("0123", ["1", "2", None, "1"], ["1", "1", "2", "2"]))
        apply_run(finished, tmp_path / "copy.csv")
        copy = (tmp_path / "copy.csv").read_text().splitlines()
        assert [line.split(",")[1] for line in copy] == ["label", "1.0", "1.0", "2.0", "2.0"]

    @pytest.mark.parametrize("suffix", [".jsonl", ".json"])
    def test_json_keeps_types(self, run, tmp_path, suffix):
        rows = [
            {"id": name, "label": label, "deep": {"n": [1, 2.5]}, "no": None}
            for name, label in zip(IDS, [1, 2, 1, None], strict=True)
        ]
        text = json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows))
        path = written(tmp_path / f"data{suffix}", text)
        finished = run(path, label_rows(IDS, ["1", "2", "1", None], ["1", "1", "2", "3"]))
        copy = tmp_path / f"copy{suffix}"
        apply_run(finished, copy)
        content = copy.read_text()
        found = (
            json.loads(content)
            if suffix == ".json"
            else [*map(json.loads, content.split("\n")[:-1])]
        )
        assert [row["label"] for row in found] == [1, 1, 2, 3]
        assert [row["given"] for row in found] == [1, 2, 1, None]
        assert [*found[0]] == ["id", "label", "deep", "no", "given", "confidence", "accepted"]
        assert found[1]["deep"] == {"n": [1, 2.5]}


def arrow_table(kind=None):
    labels = pa.array(GIVEN) if kind is None else pa.array(GIVEN).dictionary_encode()
    return pa.table({"id": IDS, "n": pa.array([1, 2, 3, 4], pa.int8()), "label": labels})


class TestArrow:
    @pytest.mark.parametrize("kind", [None, "dictionary"])
    @pytest.mark.parametrize("suffix", [".parquet", ".feather"])
    def test_types_and_order_stay(self, run, tmp_path, suffix, kind):
        table = arrow_table(kind)
        path = tmp_path / f"data{suffix}"
        (pq.write_table if suffix == ".parquet" else pa.feather.write_feather)(table, path)
        apply_run(run(path), tmp_path / f"copy{suffix}")
        read = pq.read_table if suffix == ".parquet" else pa.feather.read_table
        copy = read(tmp_path / f"copy{suffix}")
        assert copy.schema.names == ["id", "n", "label", "given", "confidence", "accepted"]
        assert copy.schema.types[:3] == read(path).schema.types
        assert copy["label"].to_pylist() == LABEL
        assert copy["given"].to_pylist() == GIVEN
        assert copy["accepted"].to_pylist() == [None] * 4

    def test_the_index_of_pandas_stays(self, run, tmp_path):
        frame = arrow_table().to_pandas().set_index("n")
        frame.to_parquet(tmp_path / "data.parquet")
        apply_run(run(tmp_path / "data.parquet"), tmp_path / "copy.parquet")
        copy = pd.read_parquet(tmp_path / "copy.parquet")
        assert copy.index.name == "n"
        assert copy["label"].tolist() == LABEL

    def test_class_labels_and_shards_of_hugging_face(self, run, tmp_path):
        features = hf.Features(
            {"id": hf.Value("string"), "label": hf.ClassLabel(names=["cat", "dog", "eel"])}
        )
        data = hf.Dataset.from_dict({"id": IDS, "label": [0, 1, 0, -1]}, features=features)
        folder = tmp_path / "data"
        folder.mkdir()
        data.select([0, 1]).to_parquet(folder / "train-00000-of-00002.parquet")
        data.select([2, 3]).to_parquet(folder / "train-00001-of-00002.parquet")
        table = label_rows(IDS, GIVEN, ["cat", "cat", "eel", "dog"])
        apply_run(run(folder, table), tmp_path / "copy")
        copy = hf.load_dataset(
            "parquet", data_dir=str(tmp_path / "copy"), cache_dir=str(tmp_path / "cache")
        )["train"]
        assert copy["label"][:] == [0, 0, 2, 1]
        assert copy.features["label"] == copy.features["given"] == features["label"]
        assert copy["given"][:] == [0, 1, 0, -1]

    def test_a_saved_dataset_keeps_its_other_splits(self, run, tmp_path):
        train = hf.Dataset.from_dict({"id": IDS, "label": GIVEN})
        test = hf.Dataset.from_dict({"id": ["t"], "label": ["cat"]})
        hf.DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / "data")
        apply_run(run(tmp_path / "data"), tmp_path / "copy")
        copy = hf.load_from_disk(str(tmp_path / "copy"))
        assert copy["train"]["label"][:] == LABEL
        assert copy["test"]["label"][:] == ["cat"]

    def test_a_class_that_a_column_of_numbers_cannot_hold(self, run, tmp_path):
        pq.write_table(pa.table({"id": IDS, "label": [1, 2, 1, None]}), tmp_path / "data.parquet")
        given = ["1", "2", "1", None]
        labels = ["1", "none of these", "2", "1"]
        apply_run(
            run(tmp_path / "data.parquet", label_rows(IDS, given, labels)),
            tmp_path / "copy.parquet",
        )
        assert pq.read_table(tmp_path / "copy.parquet")["label"].to_pylist() == [1, None, 2, 1]


def test_an_npz_file(run, tmp_path):
    X = np.arange(8.0).reshape(4, 2)
    np.savez(tmp_path / "data.npz", X=X, y=np.array(["cat", "dog", "cat", ""]), ids=IDS, extra=[7])
    apply_run(
        run(tmp_path / "data.npz", label_rows(IDS, GIVEN, ["cat", "cat", "giraffe", "dog"])),
        tmp_path / "copy.npz",
    )
    copy = np.load(tmp_path / "copy.npz")
    assert copy["y"].tolist() == ["cat", "cat", "giraffe", "dog"]
    assert copy["given"].tolist() == ["cat", "dog", "cat", ""]
    assert copy["extra"].tolist() == [7]
    np.testing.assert_array_equal(copy["X"], X)


class TestWhatIsChanged:
    def test_outliers_keep_their_given_label_and_are_listed(self, run, tmp_path):
        table = label_rows(IDS, GIVEN, LABEL, outlier=[False, True, False, False])
        finished = run(written(tmp_path / "data.csv", CSV), table)
        applied = apply_run(finished, tmp_path / "copy.csv")
        copy = pd.read_csv(tmp_path / "copy.csv")
        assert copy["label"].tolist() == ["cat", "dog", "dog", "dog"]
        review = pd.read_csv(tmp_path / "copy-review.csv")
        assert review[["id", "given", "label"]].values.tolist() == [["b", "dog", "cat"]]
        assert applied.review_file == tmp_path / "copy-review.csv"

    def test_only_certified_changes(self, run, tmp_path):
        n = 600
        rng = np.random.default_rng(0)
        truth = rng.integers(0, 2, n)
        names = np.array(["cat", "dog"])
        given = np.where(np.arange(n) % 3 == 0, 1 - truth, truth)
        trusted = np.arange(n) % 2 == 0
        score = np.where(np.arange(n) % 5 == 0, 0.5, 0.99)
        wrong = score == 0.5
        predicted = np.where(wrong & (rng.random(n) < 0.5), 1 - truth, truth)
        label = np.where(trusted, truth, predicted)
        ids = [f"s{i}" for i in range(n)]
        lines = [f"{name},{names[code]}" for name, code in zip(ids, given, strict=True)]
        path = written(tmp_path / "data.csv", "\n".join(["id,label", *lines]))
        table = label_rows(ids, names[given], names[label], trusted=trusted)
        finished = run(path, table, held_out=(predicted, score))
        applied = apply_run(finished, tmp_path / "copy.csv", certified=True, max_error=0.05)
        copy = pd.read_csv(tmp_path / "copy.csv")
        sure = trusted | ~wrong
        assert copy["label"].tolist() == names[np.where(sure, label, given)].tolist()
        assert copy["accepted"].tolist() == sure.tolist()
        expected = ~sure & (label != given)
        assert applied.review["id"].tolist() == [ids[i] for i in np.flatnonzero(expected)]
        # Without --certified, the column says what would have been certified.
        apply_run(finished, tmp_path / "all.csv", max_error=0.05)
        every = pd.read_csv(tmp_path / "all.csv")
        assert every["label"].tolist() == names[label].tolist()
        assert every["accepted"].tolist() == sure.tolist()

    def test_rows_that_took_no_part_stay(self, run, tmp_path):
        path = written(tmp_path / "data.csv", CSV + "e,held out,eel,1\n")
        apply_run(run(path, test_fraction=0.2), tmp_path / "copy.csv")
        last = (tmp_path / "copy.csv").read_text().splitlines()[-1]
        assert last == "e,held out,eel,1,eel,,"

    def test_labels_of_annotations_become_a_column(self, run, tmp_path):
        path = written(tmp_path / "data.csv", "id,text\na,p\nb,q\nc,r\nd,s\n")
        apply_run(run(path, annotations="annotations.csv"), tmp_path / "copy.csv")
        assert pd.read_csv(tmp_path / "copy.csv")["label"].tolist() == LABEL

    def test_labels_of_several_sources_become_one_column(self, run, tmp_path):
        path = written(tmp_path / "data.csv", "id,w_1,w_2\na,cat,cat\nb,dog,dog\nc,cat,cat\nd,,\n")
        apply_run(run(path, label_column="w_*"), tmp_path / "copy.csv")
        copy = pd.read_csv(tmp_path / "copy.csv", keep_default_na=False)
        assert [*copy] == ["id", "w_1", "w_2", "label", "given", "confidence", "accepted"]
        assert copy["label"].tolist() == LABEL
        assert copy["given"].tolist() == ["cat", "dog", "cat", ""]


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (CSV.replace("b,=1+1,dog", "b,=1+1,cat"), "that of 'b' was 'dog' and is 'cat'"),
            (CSV.replace("\nc,", "\nz,"), "1 of 4 samples of the run are not there any more"),
            (CSV + "e,,cat,1\n", "1 samples were not there when it was fitted, such as 'e'"),
            (CSV.replace("note", "given"), "has a column 'given' already"),
        ],
    )
    def test_other_data_than_those_of_the_run(self, run, tmp_path, content, problem):
        finished = run(written(tmp_path / "data.csv", content))
        before = {*tmp_path.iterdir()}
        with pytest.raises(InputError, match=problem):
            apply_run(finished, tmp_path / "copy.csv")
        assert {*tmp_path.iterdir()} == before

    def test_places_and_formats(self, run, tmp_path):
        finished = run(written(tmp_path / "data.csv", CSV))
        for output, problem in {
            "data.csv": "already exists",
            "copy.parquet": r"let it end in \.csv",
            "none/copy.csv": "is not a folder",
        }.items():
            with pytest.raises(InputError, match=problem):
                apply_run(finished, tmp_path / output)
        with pytest.raises(InputError, match="no folder of pictures"):
            apply_run(finished, tmp_path / "copy.csv", link="move")
        with pytest.raises(InputError, match="can be certified"):
            apply_run(finished, tmp_path / "copy.csv", certified=True)
        (tmp_path / "data.csv").unlink()
        with pytest.raises(InputError, match="not there any more"):
            apply_run(finished, tmp_path / "copy.csv")

    def test_data_without_real_labels(self, run, tmp_path):
        with pytest.raises(InputError, match="artificial noise"):
            apply_run(run("digits", noise="symmetric"), tmp_path / "copy.csv")

    def test_a_table_whose_pictures_lie_beside_it(self, run, tmp_path):
        path = written(tmp_path / "data.csv", CSV.replace("note", "image").replace("=1+1", "b.png"))
        finished = run(path)
        (tmp_path / "other").mkdir()
        with pytest.raises(InputError, match="names its pictures by paths beside it"):
            apply_run(finished, tmp_path / "other" / "copy.csv")
        apply_run(finished, tmp_path / "copy.csv")


def test_a_folder_with_a_table_takes_its_pictures_along(run, tmp_path):
    folder = tmp_path / "data"
    for name in IDS:
        write_picture(folder / "images" / f"{name}.png", ord(name))
    rows = [f"images/{name}.png,{label or ''}" for name, label in zip(IDS, GIVEN, strict=True)]
    written(folder / "metadata.csv", "\n".join(["file_name,label", *rows]))
    apply_run(run(folder, label_rows("0123", GIVEN, LABEL)), tmp_path / "copy")
    again = load_dataset(tmp_path / "copy")
    assert list(again.y) == LABEL
    np.testing.assert_array_equal(again.X, load_dataset(folder).X)


def test_an_object_of_json_is_named(run, tmp_path):
    coco = {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(2)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"image_id": n, "category_id": n + 1} for n in range(2)],
    }
    path = written(tmp_path / "data.json", json.dumps(coco, indent=1))
    finished = run(path, label_rows("01", ["cat", "dog"], ["dog", "dog"]))
    with pytest.raises(InputError, match="a list of objects, or lines"):
        apply_run(finished, tmp_path / "copy.json")


PICTURES = ["cat/1.png", "cat/2.png", "dog/1.png", "dog/3.png"]


@pytest.fixture
def photos(tmp_path):
    for shade, name in enumerate(PICTURES):
        write_picture(tmp_path / "photos" / name, 10 * shade)
    (tmp_path / "photos" / "cat" / "notes.txt").write_text("mine")
    return tmp_path / "photos"


@pytest.fixture
def of_photos(run, photos):
    given = [name.split("/")[0] for name in PICTURES]
    return run(
        photos, label_rows(PICTURES, given, ["dog", "none of these", "dog", "dog"]), skip_bad=True
    )


PLACES = {
    "cat/1.png": "dog/1-cat.png",
    "cat/2.png": "none of these/2.png",
    "dog/1.png": "dog/1.png",
    "dog/3.png": "dog/3.png",
}


def content_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


class TestPictures:
    @pytest.mark.parametrize("link", ["copy", "hardlink", "symlink"])
    def test_they_get_into_the_folder_of_their_class(self, of_photos, photos, tmp_path, link):
        before = content_of(photos)
        apply_run(of_photos, tmp_path / "sorted", link=link)
        assert content_of(photos) == before
        expected = {place: before[name] for name, place in PLACES.items()}
        assert content_of(tmp_path / "sorted") == expected
        again = load_dataset(tmp_path / "sorted", labels_required=False)
        assert list(again.y) == ["dog", "dog", "dog", "none of these"]

    def test_of_several_splits_the_training_split_is_sorted(self, run, photos, tmp_path):
        write_picture(tmp_path / "all" / "test" / "cat" / "9.png")
        before = content_of(photos)
        photos.rename(tmp_path / "all" / "train")
        given = [name.split("/")[0] for name in PICTURES]
        table = label_rows(PICTURES, given, ["dog", "none of these", "dog", "dog"])
        finished = run(tmp_path / "all", table, skip_bad=True)
        undo_list = apply_run(finished, tmp_path / "sorted", link="move").undo_list
        assert (tmp_path / "sorted" / "dog" / "1-cat.png").exists()
        assert (tmp_path / "all" / "test" / "cat" / "9.png").exists()
        undo_run(finished, undo_list)
        assert content_of(tmp_path / "all" / "train") == before

    def test_options_that_cannot_be_are_refused(self, of_photos, tmp_path, command):
        code, _, err = command("apply", of_photos.path, "--undo", "undo.csv", "--dry-run")
        assert (code, "leave --dry-run" in err) == (2, True)
        for error in ("0", "5"):
            code, _, err = command("apply", of_photos.path, "--output", "new", "--max-error", error)
            assert (code, f"max_error is {float(error)}" in err) == (2, True)

    def test_a_move_can_be_undone(self, of_photos, photos, tmp_path):
        before = content_of(photos)
        applied = apply_run(of_photos, tmp_path / "sorted", link="move")
        assert content_of(photos) == {"cat/notes.txt": b"mine"}
        moved = content_of(tmp_path / "sorted")
        moved.pop("undo.csv")
        assert moved == {place: before[name] for name, place in PLACES.items()}
        with pytest.raises(InputError, match="already exists"):
            apply_run(of_photos, tmp_path / "sorted", link="move")
        assert undo_run(of_photos, applied.undo_list) == 4
        assert content_of(photos) == before
        assert not (tmp_path / "sorted").exists()

    def test_a_dry_run_writes_nothing(self, of_photos, photos, tmp_path):
        before = {*tmp_path.rglob("*")}
        applied = apply_run(of_photos, tmp_path / "sorted", link="move", dry_run=True)
        assert {*tmp_path.rglob("*")} == before
        assert applied.changes[["id", "file"]].values.tolist() == [
            ["cat/1.png", "dog/1-cat.png"],
            ["cat/2.png", "none of these/2.png"],
        ]

    @pytest.mark.parametrize("label", ["..", "a/b", "", ".hidden"])
    def test_a_class_that_is_no_name_of_a_folder(self, run, photos, tmp_path, label):
        given = [name.split("/")[0] for name in PICTURES]
        finished = run(photos, label_rows(PICTURES, given, [label, *given[1:]]))
        with pytest.raises(InputError, match="cannot be the name of a folder"):
            apply_run(finished, tmp_path / "sorted")

    def test_an_undo_list_that_leads_elsewhere(self, of_photos, photos, tmp_path):
        undo_list = apply_run(of_photos, tmp_path / "sorted", link="move").undo_list
        text = undo_list.read_text()
        undo_list.write_text(text.replace("cat/1.png,", "../elsewhere.png,"))
        with pytest.raises(InputError, match="was changed"):
            undo_run(of_photos, undo_list)
        undo_list.write_text(text.replace(str(photos), "/home"))
        with pytest.raises(InputError, match="is about /home"):
            undo_run(of_photos, undo_list)

    def test_nothing_is_overwritten(self, of_photos, photos, tmp_path):
        undo_list = apply_run(of_photos, tmp_path / "sorted", link="move").undo_list
        written(photos / "cat" / "1.png", "a new picture")
        with pytest.raises(InputError, match="exists again and differs"):
            undo_run(of_photos, undo_list)
        assert (photos / "cat" / "1.png").read_text() == "a new picture"
        assert (tmp_path / "sorted" / "dog" / "1-cat.png").exists()


MOVE = """
import sys, time, os
from pathlib import Path
from pudistill.utils import moving
if sys.argv[1] == "copy":
    def no_links(*_, **__):
        raise OSError("no links here")
    os.link = no_links
from pudistill.runs.apply import apply_run, undo_run
from pudistill.runs.folder import Run
run = Run.open_fit(Path("run"))
print("begins", flush=True)
if sys.argv[2] == "undo":
    undo_run(run, Path("sorted/undo.csv"))
else:
    apply_run(run, Path("sorted"), link="move")
"""


@pytest.mark.slow  # each attempt starts a process
@pytest.mark.parametrize("way", ["link", "copy"])
def test_a_move_that_is_killed_loses_nothing(way, tmp_path, run):
    rng = np.random.default_rng(0)
    names = [f"c{i % 7}/{i}.png" for i in range(2000)]
    for name in names:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 50)
    given = [name.split("/")[0] for name in names]
    label = [f"c{rng.integers(7)}" for _ in names]
    finished = run(tmp_path / "photos", label_rows(names, given, label))
    before = content_of(tmp_path / "photos")

    def attempt(step, seconds=None):
        process = subprocess.Popen(
            [sys.executable, "-c", MOVE, way, step], cwd=tmp_path, stdout=subprocess.PIPE
        )
        process.stdout.readline()
        if seconds is not None:
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
        process.communicate()
        return process.returncode

    def all_there():
        found = [*content_of(tmp_path / "photos").values()]
        if (tmp_path / "sorted").exists():
            moved = content_of(tmp_path / "sorted")
            moved.pop("undo.csv", None)
            found += moved.values()
        return {*before.values()} <= {*found}

    n_killed = 0
    for _ in range(8):
        n_killed += attempt("apply", rng.uniform(0, 0.5)) != 0
        assert all_there()
        if (tmp_path / "sorted" / "undo.csv").exists() and rng.random() < 0.5:
            attempt("undo", rng.uniform(0, 0.5))
            assert all_there()
    if (tmp_path / "sorted").exists():
        assert attempt("undo") == 0
    assert content_of(tmp_path / "photos") == before
    assert n_killed
    assert apply_run(finished, tmp_path / "sorted", link="move").n_samples == 2000


def test_the_command_line(command, run, tmp_path):
    run(written(tmp_path / "data.csv", CSV))
    code, out, err = command("apply", "run", "--output", "copy.csv", "--dry-run")
    assert (code, Path("copy.csv").exists()) == (0, False)
    assert out.splitlines()[:2] == ["id,given,label,confidence", "b,dog,cat,0.6633333333333333"]
    assert "3 of 4 labels would be changed" in err
    code, _, err = command("apply", "run", "--output", "copy.csv")
    assert code == 0
    assert "3 of 4 labels are changed" in err
    assert command("apply", "run")[0] == 2
    assert "one of 'copy'" in command("apply", "run", "--output", "x", "--link", "steal")[2]


def test_the_list_is_on_the_disk_before_the_first_picture_moves(of_photos, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", stop)
    with pytest.raises(KeyboardInterrupt):
        apply_run(of_photos, tmp_path / "sorted", link="move")
    lines = (tmp_path / "sorted" / "undo.csv").read_text().splitlines()
    assert lines[1:4] == ["from,to", "cat/1.png,dog/1-cat.png", "cat/2.png,none of these/2.png"]
    monkeypatch.undo()
    apply_run(of_photos, tmp_path / "sorted", link="move")  # goes on
    assert (tmp_path / "sorted" / "dog" / "1-cat.png").exists()
