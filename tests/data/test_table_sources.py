"""Tables in folders: of Hugging Face, of other programs, of pictures with their metadata."""

import json
import os

import datasets as hf
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pudistill.data.loading import load_dataset
from pudistill.exceptions import DataWarning, InputError
from tests.helpers.pictures import write_picture

FRAME = pd.DataFrame({"u": [1.0, 2, 3], "label": ["a", "b", "a"]})
DATA = hf.Dataset.from_pandas(FRAME)


@pytest.fixture(autouse=True)
def _quiet():
    hf.disable_progress_bars()


def written(folder, *names):
    """Write the table under each of the names, with `u` raised by its position."""
    for n, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        frame = FRAME.assign(u=FRAME["u"] + 10 * n)
        if path.suffix == ".parquet":
            frame.to_parquet(path, index=False)
        elif path.suffix == ".jsonl":
            frame.to_json(path, orient="records", lines=True)
        else:
            frame.to_csv(path, index=False)
    return folder


class TestSavedToDisk:
    def test_a_dataset_in_shards(self, tmp_path):
        features = hf.Features(
            {
                "image": hf.Image(),
                "label": hf.ClassLabel(names=["cat", "dog"]),
                "e": hf.Array2D((1, 2), "int8"),
            }
        )
        pictures = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
        columns = {
            "image": [Image.fromarray(picture) for picture in pictures],
            "label": [1, 0, -1],
            "e": [[[1, 2]]] * 3,
        }
        data = hf.Dataset.from_dict(columns, features)
        data.select([2, 0, 1]).save_to_disk(tmp_path / "one", num_shards=2)
        read = load_dataset(tmp_path / "one")
        np.testing.assert_array_equal(read.X, pictures[[2, 0, 1]])
        assert list(read.y) == [None, "dog", "cat"]
        data.remove_columns("image").save_to_disk(tmp_path / "two")
        np.testing.assert_array_equal(load_dataset(tmp_path / "two").X, [[1, 2]] * 3)

    def test_the_training_split(self, tmp_path):
        hf.DatasetDict({"test": DATA.select([0, 1]), "train": DATA}).save_to_disk(tmp_path / "d")
        with pytest.warns(DataWarning, match="d: 'train' is read, and 'test' is not"):
            assert len(load_dataset(tmp_path / "d")) == 3
        assert len(load_dataset(tmp_path / "d" / "test")) == 2

    @pytest.mark.parametrize(
        "state",
        [
            "{oops",
            "[]",
            "{}",
            json.dumps({"_data_files": []}),
            json.dumps({"_data_files": [{"filename": "../secret.arrow"}]}),
            json.dumps({"_data_files": [{"filename": 3}]}),
            json.dumps(
                {
                    "_data_files": [{"filename": "a.arrow"}],
                    "_indices_data_files": [{"filename": "i"}],
                }
            ),
        ],
    )
    def test_a_strange_state_is_refused(self, tmp_path, state):
        DATA.save_to_disk(tmp_path)
        (tmp_path / "state.json").write_text(state)
        with pytest.raises(InputError, match=r"state\.json: this is not as `save_to_disk` writes"):
            load_dataset(tmp_path)

    def test_pipes_do_not_block(self, tmp_path):
        for name in ("state.json", "dataset_info.json", "d.csv"):
            os.mkfifo(tmp_path / name)
        with pytest.raises(InputError, match="this is not as `save_to_disk` writes"):
            load_dataset(tmp_path)
        with pytest.raises(InputError, match="this is not an ordinary file"):
            load_dataset(tmp_path / "d.csv")

    def test_damaged_and_missing_files(self, tmp_path):
        DATA.save_to_disk(tmp_path)
        (shard,) = tmp_path.glob("*.arrow")
        content = shard.read_bytes()
        for damaged in (b"", content[: len(content) // 2], b"ARROW1" + content, b"x" * 100):
            shard.write_bytes(damaged)
            with pytest.raises(InputError, match=r"cannot be read as a table|table is empty"):
                load_dataset(tmp_path)
        shard.unlink()
        with pytest.raises(InputError, match="No such file"):
            load_dataset(tmp_path)


class TestHubClones:
    def test_data_beside_a_card(self, tmp_path):
        written(tmp_path, "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet")
        (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
        (tmp_path / "loader.py").write_text("raise SystemExit('run')")
        with pytest.warns(DataWarning, match="'train' is read"):
            assert list(load_dataset(tmp_path).X[:, 0]) == [1, 2, 3]

    @pytest.mark.parametrize(
        ("names", "u"),
        [
            (["default/train/0000.parquet", "default/test/0000.parquet"], 1),
            (["train.csv", "test.csv"], 1),
            (["test.jsonl", "train.jsonl"], 11),
            (["data/validation.csv", "data/train.csv"], 11),
            (["all.csv"], 1),
            (["plain/train-00000-of-00001.parquet"], 1),
        ],
        ids=str,
    )
    @pytest.mark.filterwarnings("ignore::pudistill.exceptions.DataWarning")
    def test_layouts(self, tmp_path, names, u):
        (written(tmp_path, *names) / "README.md").write_text("")
        assert load_dataset(tmp_path).X[0, 0] == u

    def test_several_configurations_are_refused(self, tmp_path):
        (written(tmp_path, "en/train-0.parquet", "de/train-0.parquet") / "README.md").write_text("")
        with pytest.raises(
            InputError, match=r"several tables in it \('de', 'en'\): give one of them"
        ):
            load_dataset(tmp_path)
        assert len(load_dataset(tmp_path / "de")) == 3

    def test_a_clone_without_its_large_files(self, tmp_path):
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "train-00000-of-00001.parquet").write_text(pointer)
        with pytest.raises(InputError, match=r"pointer of git-lfs, .*: run `git lfs pull`"):
            load_dataset(tmp_path)


class TestShards:
    @pytest.mark.parametrize(
        "names",
        [
            ["part-{}.parquet"],
            ["part.{}.parquet"],
            ["part-0000{}-5f1e-c000.snappy.parquet"],
            ["{}.parquet"],
            ["train_{}.parquet"],
        ],
        ids=str,
    )
    def test_names_of_other_programs(self, tmp_path, names):
        numbers = [0, 2, 10] if "0000" not in names[0] else [0, 2, 3]
        written(tmp_path, *(names[0].format(n) for n in numbers))
        (tmp_path / "_SUCCESS").touch()
        (tmp_path / ".part-0.parquet.crc").touch()
        assert list(load_dataset(tmp_path).X[::3, 0]) == [1, 11, 21]

    def test_shards_of_two_versions_are_not_mixed(self, tmp_path):
        for names in (
            ["train-00000-of-00001.parquet", "train-00000-of-00002.parquet"],
            ["train-00000-of-00001.parquet", "train-0.parquet"],
        ):
            folder = tmp_path / names[1]
            with pytest.raises(InputError, match="there are several tables in it"):
                load_dataset(written(folder, *names))
        written(tmp_path / "old", "train-00000-of-00002-0123456789abcdef.parquet")
        with pytest.raises(InputError, match="split 'train' has 1 of its 2 files"):
            load_dataset(tmp_path / "old")

    def test_shards_with_other_columns_are_refused(self, tmp_path):
        written(tmp_path, "part-0.parquet")
        pq.write_table(pa.table({"u": [1.0]}), tmp_path / "part-1.parquet")
        with pytest.raises(
            InputError, match=r"part-1.parquet: the columns are not those of part-0"
        ):
            load_dataset(tmp_path)

    def test_a_delta_table_is_refused(self, tmp_path):
        written(tmp_path, "part-0.parquet", "_delta_log/0.json")
        with pytest.raises(InputError, match="Delta table, which can hold outdated rows"):
            load_dataset(tmp_path)

    def test_feather_and_arrow(self, tmp_path):
        FRAME.to_feather(tmp_path / "a.feather")
        pl.from_pandas(FRAME).write_ipc(tmp_path / "b.arrow", compression="zstd")
        pl.from_pandas(FRAME).write_ipc_stream(tmp_path / "c.arrow")
        pl.from_pandas(FRAME).write_ipc(tmp_path / "d.arrow", compat_level=pl.CompatLevel.newest())
        for path in sorted(tmp_path.iterdir()):
            data = load_dataset(path)
            assert list(data.X[:, 0]) == [1, 2, 3]
            assert list(data.y) == ["a", "b", "a"]

    def test_wrong_offsets_in_a_file_do_not_end_the_process(self, tmp_path):
        path = tmp_path / "a.arrow"
        table = pa.table({"label": ["aaaa", "bbbb"] * 4, "u": [1.0] * 8})
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
        content = path.read_bytes()
        offsets = np.arange(0, 36, 4, dtype=np.int32)
        wrong = offsets.copy()
        wrong[4:] += 2**30
        assert content.count(offsets.tobytes()) == 1
        path.write_bytes(content.replace(offsets.tobytes(), wrong.tobytes()))
        with pytest.raises(InputError, match="cannot be read as a table"):
            load_dataset(path)


class TestImageFolders:
    @pytest.fixture
    def folder(self, tmp_path):
        for n in range(4):
            write_picture(tmp_path / f"{n}.png", n)
        return tmp_path

    ROWS = pd.DataFrame({"file_name": ["2.png", "0.png"], "label": ["x", "y"], "size": [1, 2]})

    @pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
    def test_metadata(self, folder, name):
        if name.endswith("csv"):
            self.ROWS.to_csv(folder / name, index=False)
        elif name.endswith("jsonl"):
            self.ROWS.to_json(folder / name, orient="records", lines=True)
        else:
            self.ROWS.to_parquet(folder / name)
        data = load_dataset(folder)
        assert [picture[0, 0] for picture in data.X] == [2, 0]
        assert list(data.y) == ["x", "y"]

    def test_metadata_of_splits(self, folder):
        for split in ("train", "test"):
            for n in range(4):
                write_picture(folder / split / f"{n}.png", n)
            self.ROWS.iloc[: 1 + (split == "train")].to_csv(
                folder / split / "metadata.csv", index=False
            )
        with pytest.warns(DataWarning, match="'train/metadata.csv' is read"):
            assert len(load_dataset(folder)) == 2

    def test_folders_of_splits(self, tmp_path):
        for split in ("train", "test"):
            for n, label in enumerate(("cat", "dog")):
                write_picture(tmp_path / split / label / f"{n}.png", n)
        with pytest.warns(DataWarning, match="'train' is read, and 'test' is not"):
            data = load_dataset(tmp_path)
        assert list(data.ids) == ["cat/0.png", "dog/1.png"]

    def test_labels_that_are_called_like_splits(self, tmp_path):
        for label in ("train", "test"):
            write_picture(tmp_path / label / "0.png")
        assert list(load_dataset(tmp_path).y) == ["test", "train"]

    def test_tables_and_archives_beside_folders_of_labels_are_ignored(self, tmp_path):
        for label in ("cat", "dog"):
            write_picture(tmp_path / label / "0.png")
        for name in ("checked.csv", "photos.tar", "README.md"):
            (tmp_path / name).touch()
        assert list(load_dataset(tmp_path).y) == ["cat", "dog"]
