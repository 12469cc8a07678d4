"""Texts of tables: encodings, and files that are compressed."""

import bz2
import gzip
import json

import polars as pl
import pyarrow as pa
import pytest

from pudistill.data.loading import load_dataset
from pudistill.exceptions import InputError

CSV = "label,u\nä,1\nb,2\n"
LINES = '{"label": "ä", "u": 1}\n{"label": "b", "u": 2}\n'
LIST = json.dumps([{"label": "ä", "u": 1}, {"label": "b", "u": 2}], ensure_ascii=False)
TEXTS = {"d.csv": CSV, "d.tsv": CSV.replace(",", "\t"), "d.jsonl": LINES, "d.json": LIST}


@pytest.mark.parametrize("name", TEXTS)
class TestEncoding:
    def read(self, tmp_path, name, written_as, **options):
        (tmp_path / name).write_bytes(TEXTS[name].encode(written_as))
        data = load_dataset(tmp_path / name, **options)
        assert data.X.tolist() == [[1], [2]]
        return list(data.y)

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
    @pytest.mark.parametrize("options", [{}, {"encoding": "latin-1"}], ids=str)
    def test_utf_8_and_byte_order_marks_need_no_name(self, tmp_path, name, encoding, options):
        assert self.read(tmp_path, name, encoding, **options) == ["ä", "b"]

    @pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-7"])
    def test_others_are_named(self, tmp_path, name, encoding):
        assert self.read(tmp_path, name, encoding, encoding=encoding) == ["ä", "b"]

    def test_a_hint_names_the_line_and_the_setting(self, tmp_path, name):
        line = 1 if name == "d.jsonl" or name == "d.json" else 2
        with pytest.raises(
            InputError, match=rf"{name}, line {line}: this text is not UTF-8: .*--encoding latin-1"
        ):
            self.read(tmp_path, name, "latin-1")

    def test_a_wrong_name(self, tmp_path, name):
        with pytest.raises(InputError, match="cannot be read as a table"):
            self.read(tmp_path, name, "latin-1", encoding="ascii")
        for encoding in ("nonsense", "zip", "hex", ""):
            with pytest.raises(InputError, match=r"setting encoding cannot be .* such as latin-1"):
                self.read(tmp_path, name, "latin-1", encoding=encoding)


def test_the_trusted_file_can_have_another_encoding(tmp_path):
    (tmp_path / "d.csv").write_bytes(
        CSV.replace("label", "id,label")
        .replace("\n", "\n1,", 1)
        .replace("\nb", "\n2,b")
        .encode("latin-1")
    )
    (tmp_path / "t.csv").write_text("id,label\n2,ä\n", encoding="utf-8")
    data = load_dataset(tmp_path / "d.csv", trusted=tmp_path / "t.csv", encoding="latin-1")
    assert list(data.verified) == [None, "ä"]


class TestCompressed:
    @pytest.mark.parametrize("name", TEXTS)
    @pytest.mark.parametrize("suffix", [".gz", ".GZ", ".bz2", ".zst", ".lz4"])
    def test_by_suffix(self, tmp_path, name, suffix):
        path = tmp_path / (name + suffix)
        compression = pa.Codec.detect(path.name.lower()).name
        with pa.output_stream(str(path), compression=compression) as file:
            file.write(TEXTS[name].encode())
        assert list(load_dataset(path).y) == ["ä", "b"]

    @pytest.mark.parametrize("name", TEXTS)
    @pytest.mark.parametrize("suffix", ["gz", "bz2"])
    def test_damaged(self, tmp_path, name, suffix):
        path = tmp_path / f"{name}.{suffix}"
        content = {"gz": gzip, "bz2": bz2}[suffix].compress(TEXTS[name].encode() * 50)
        for damaged in (b"", content[:-9], content[:20] + b"xxxx" + content[24:], b"plain text"):
            path.write_bytes(damaged)
            with pytest.raises(
                InputError, match=r"d\..*: (cannot be read as|.* empty|.* not JSON)"
            ):
                load_dataset(path)

    def test_what_does_not_fit_into_memory(self, tmp_path, monkeypatch):
        class Memory:
            available = 3 * 2**20

        monkeypatch.setattr("psutil.virtual_memory", Memory)
        path = tmp_path / "d.csv.gz"
        path.write_bytes(gzip.compress(b"label,u\n" + b"a,1\n" * 2**20))
        with pytest.raises(InputError, match=r"the decompressed texts take .* give a part"):
            load_dataset(path)

    def test_written_by_polars(self, tmp_path):
        frame = pl.DataFrame({"label": ["ä", "b"], "u": [1, 2]})
        frame.write_csv(tmp_path / "d.csv.gz", compression="gzip")
        assert list(load_dataset(tmp_path / "d.csv.gz").y) == ["ä", "b"]
