"""Tar files of webdataset."""

import io
import json
import tarfile

import numpy as np
import pytest

from pudistill.data.loading import load_dataset
from pudistill.data.pictures import encode_picture
from pudistill.exceptions import DataWarning, InputError

PICTURES = np.random.default_rng(0).integers(0, 256, (4, 4, 5, 3), dtype=np.uint8)
PNG = [encode_picture(picture) for picture in PICTURES]


@pytest.fixture
def archive(tmp_path):
    def write(files, name="data.tar", **changes):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for member, content in files.items():
                info = tarfile.TarInfo(member)
                content = content if isinstance(content, bytes) else content.encode()
                info.size = len(content)
                for key, value in changes.items():
                    setattr(info, key, value)
                tar.addfile(info, io.BytesIO(content))
        return path

    return write


def samples(first=0, labels="abab"):
    files = {}
    for n, label in enumerate(labels):
        files |= {f"{first + n:06d}.png": PNG[n], f"{first + n:06d}.cls": f"{label}\n"}
    return files


class TestRead:
    def test_pictures_and_classes(self, archive):
        data = load_dataset(archive(samples()))
        np.testing.assert_array_equal(data.X, PICTURES)
        assert list(data.y) == ["a", "b", "a", "b"]
        assert list(data.ids) == ["000000", "000001", "000002", "000003"]
        lazy = load_dataset(archive(samples()), lazy=True, picture_cache=0)
        np.testing.assert_array_equal(np.asarray(lazy.X), PICTURES)

    def test_json_and_folders_and_other_files(self, archive):
        files = {"__pycache__": b"", ".hidden": b""}
        for n, label in enumerate(("cat", "dog")):
            about = {"label": label, "width": 5, "id": "no"}
            files |= {f"set/{n}.left.png": PNG[n], f"set/{n}.json": json.dumps(about)}
            files |= {f"set/{n}.npy": b"\x93NUMPY"}
        del files["__pycache__"]
        data = load_dataset(archive(files))
        assert list(data.y) == ["cat", "dog"]
        assert list(data.ids) == ["set/0", "set/1"]

    def test_texts(self, archive):
        files = {}
        for n in range(3):
            files |= {f"{n}.txt": f"text {n}", f"{n}.cls": str(n % 2)}
        data = load_dataset(archive(files))
        assert list(data.X) == ["text 0", "text 1", "text 2"]
        assert list(data.y) == ["0", "1", "0"]
        captions = {f"{n}.png": PNG[n] for n in range(2)} | {"0.txt": "a", "1.txt": "b"}
        data = load_dataset(archive(captions), label_column="text")
        assert data.is_pictures
        assert list(data.y) == ["a", "b"]

    def test_shards(self, archive, tmp_path):
        archive(samples(labels="ab"), "shards/train-000000.tar")
        archive(samples(first=2, labels="ba"), "shards/train-000001.tar")
        archive(samples(labels="a"), "shards/test-000000.tar")
        with pytest.warns(DataWarning, match="'train' is read"):
            data = load_dataset(tmp_path / "shards")
        assert list(data.ids) == ["000000", "000001", "000002", "000003"]
        assert list(data.y) == ["a", "b", "b", "a"]
        np.testing.assert_array_equal(data.X, PICTURES[[0, 1, 0, 1]])

    def test_shards_that_count_from_zero(self, archive, tmp_path):
        for n in range(2):
            archive(samples(labels="ab"), f"shards/00000{n}.tar")
        data = load_dataset(tmp_path / "shards")
        assert list(data.ids[1:3]) == ["000000/000001", "000001/000000"]

    def test_a_sample_without_its_picture(self, archive):
        path = archive(samples() | {"9.cls": "b"})
        with pytest.raises(InputError, match="id '9': this picture cannot be read"):
            load_dataset(path)
        data = load_dataset(path, skip_bad=True)
        assert len(data) == 4
        assert [name for name, _ in data.skipped] == ["9"]


class TestHostile:
    @pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "a/../../x.png", ".."])
    def test_names_that_lead_out(self, archive, name, tmp_path):
        with pytest.raises(InputError, match="leads out of the archive: make it again"):
            load_dataset(archive(samples() | {name: PNG[0]}))

    @pytest.mark.parametrize(
        "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
    )
    def test_links_and_devices(self, archive, kind):
        with pytest.raises(InputError, match="is a link or a special file"):
            load_dataset(archive({"0.png": b""}, type=kind, linkname="/etc/passwd"))

    def test_members_that_claim_to_be_huge(self, archive, tmp_path):
        path = archive(samples())
        info = tarfile.TarInfo("9.cls")
        info.size = 2**60
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 512)
        with pytest.raises(InputError, match=r"'9\.cls' is cut off"):
            load_dataset(path)

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ({"0.json": "[3]"}, r"0\.json is not a JSON object"),
            ({"0.json": "{oops"}, r"0\.json cannot be read"),
            ({"0.json": "[" * 100_000}, r"0\.json cannot be read"),
            ({"0.cls": b"\xff\xfe\xfd"}, r"0\.cls cannot be read"),
            ({"0.png": PNG[0], "0.jpg": PNG[1]}, "sample '0' has several pictures"),
            ({"a/": b""}, "no sample in this archive"),
            ({}, "no sample in this archive"),
        ],
    )
    def test_strange_members(self, archive, files, message):
        with pytest.raises(InputError, match=message):
            load_dataset(archive(files))

    def test_a_member_that_is_there_twice(self, archive):
        path = archive({"0.cls": "a"})
        with tarfile.open(path, "a") as tar:
            tar.addfile(tarfile.TarInfo("0.cls"))
        with pytest.raises(InputError, match=r"'0\.cls' is there twice"):
            load_dataset(path)

    def test_damaged_archives(self, archive):
        path = archive(samples())
        content = path.read_bytes()
        damages = [b"", b"x" * 2000, content[:700], content[:1300], b"\x1f\x8b" + content]
        for damaged in damages:
            path.write_bytes(damaged)
            with pytest.raises(InputError, match=r"data\.tar"):
                load_dataset(path)
