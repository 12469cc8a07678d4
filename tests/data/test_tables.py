"""Tables: parquet, CSV, JSONL, and trusted files."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pudistill.data.loading import load_dataset
from pudistill.data.pictures import encode_picture
from pudistill.exceptions import DataWarning, InputError, TrustedWarning

PICTURES = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)


@pytest.fixture
def csv(tmp_path):
    def write(text, name="data.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_text(text, encoding=encoding, newline="")
        return path

    return write


@pytest.fixture
def parquet(tmp_path):
    def write(columns, name="data.parquet", names=None):
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        if names is not None:
            features = {"label": {"names": names, "_type": "ClassLabel"}}
            metadata = {"huggingface": json.dumps({"info": {"features": features}})}
            table = table.replace_schema_metadata(metadata)
        path = tmp_path / name
        pq.write_table(table, path)
        return path

    return write


class TestFeatures:
    def test_csv(self, csv):
        data = load_dataset(
            csv(
                "id,u,label,v,true_label,trusted\n007,1,01,0.1,1,true\n08,2,1,1e-3,01,0\n9,3,,5,1,False\n"
            )
        )
        np.testing.assert_array_equal(data.X, [[1, 0.1], [2, 1e-3], [3, 5]])
        assert data.X.dtype == np.float64
        assert data.feature_names == ("u", "v")
        assert list(data.ids) == ["007", "08", "9"]
        assert list(data.y) == ["01", "1", None]
        assert list(data.true_labels) == ["1", "01", "1"]
        assert list(data.trusted) == [True, False, False]
        assert list(data.verified) == ["01", None, None]
        assert data.name == "data"

    @pytest.mark.parametrize("line_end", ["\n", "\r\n"])
    def test_csv_of_a_spreadsheet(self, csv, line_end):
        text = line_end.join(["y,u", '"a, ""quoted""",1', '"two\nlines",2', " NA ,3", "NA,4", ""])
        data = load_dataset(csv(text, encoding="utf-8-sig"))
        assert list(data.y) == ['a, "quoted"', "two\nlines", " NA ", "NA"]
        assert list(data.ids) == ["0", "1", "2", "3"]

    def test_a_comma_at_the_end_of_each_line_makes_no_ids(self, csv):
        with pytest.warns(DataWarning, match="columns are not used: column ''"):
            dataset = load_dataset(csv("x,label,\n1,a,\n2,b,\n"))
        assert list(dataset.ids) == ["0", "1"]

    def test_tsv(self, csv):
        assert list(load_dataset(csv("label\tu\na,b\t1\nc\t2\n", "data.tsv")).y) == ["a,b", "c"]

    def test_jsonl(self, csv):
        lines = [
            {"id": 1, "label": "01", "u": 1, "v": 2.5},
            {"id": 2, "label": "2024-01-01", "v": 3, "u": 1e-9},
            {"id": 3, "label": None, "v": 3, "u": True and 1},
        ]
        text = "\n".join(map(json.dumps, lines)) + "\n\n"
        data = load_dataset(csv(text, "data.jsonl", encoding="utf-8-sig"))
        assert list(data.y) == ["01", "2024-01-01", None]
        assert list(data.ids) == ["1", "2", "3"]
        np.testing.assert_array_equal(data.X, [[1, 2.5], [1e-9, 3], [1, 3]])

    def test_parquet_types(self, parquet):
        columns = {
            "key": pa.array([5, 6]),
            "target": pa.array(["a", "b"]).dictionary_encode(),
            "f16": pa.array(np.array([1, 2], np.float16)),
            "f32": pa.array([0.5, 2], pa.float32()),
            "ok": pa.array([1, 0]),
        }
        data = load_dataset(
            parquet(columns), label_column="target", id_column="key", trusted_column="ok"
        )
        assert list(data.y) == ["a", "b"]
        assert list(data.ids) == ["5", "6"]
        assert list(data.verified) == ["a", None]
        assert data.X.dtype == np.float32
        np.testing.assert_array_equal(data.X, [[1, 0.5], [2, 2]])

    def test_integers_and_booleans_are_features(self, parquet):
        columns = {"label": [0.0, 1.0, None], "a": [1, 2, 3], "b": [True, False, True]}
        data = load_dataset(parquet(columns))
        np.testing.assert_array_equal(data.X, [[1, 1], [2, 0], [3, 1]])
        assert list(data.y) == ["0", "1", None]

    def test_the_index_of_a_data_frame_is_no_feature(self, tmp_path):
        frame = pd.DataFrame({"u": [1.0, 2.0], "label": ["a", "b"]}, index=[5, 3])
        frame.to_parquet(tmp_path / "data.parquet")
        assert "__index_level_0__" in pq.read_schema(tmp_path / "data.parquet").names
        assert load_dataset(tmp_path / "data.parquet").feature_names == ("u",)

    def test_verified_labels_beside_given_ones(self, csv):
        data = load_dataset(csv("label,verified_label,u\na,b,1\nb,,2\nb,b,3\n"))
        assert list(data.y) == ["a", "b", "b"]
        assert list(data.verified) == ["b", None, "b"]
        assert data.feature_names == ("u",)

    def test_labels_may_be_absent_where_none_are_required(self, csv):
        data = load_dataset(csv("u,v\n1,2\n"), labels_required=False)
        assert list(data.y) == [None]
        np.testing.assert_array_equal(data.X, [[1, 2]])

    def test_a_column_that_turns_out_to_be_text_far_down(self, csv):
        text = "label,u\n" + "".join(f"{'ab'[n % 2]},{n}\n" for n in range(200_000)) + "a,oops\n"
        with pytest.raises(InputError, match="column 'u' holds 'oops' in the row with id '200000'"):
            load_dataset(csv(text))


class TestPictures:
    def test_real_parquet(self, real_data):
        data = load_dataset(real_data("cifar10/test-00000-of-00001.parquet"))
        assert data.X.shape == (10_000, 32, 32, 3)
        assert list(data.y[:4]) == ["cat", "ship", "ship", "airplane"]
        assert list(data.ids[:2]) == ["0", "1"]
        assert {int((data.y == name).sum()) for name in data.classes} == {1_000}

    def test_written_by_hugging_face(self, tmp_path):
        hf = pytest.importorskip("datasets")
        features = hf.Features(
            {
                "image": hf.Image(),
                "label": hf.ClassLabel(names=["cat", "dog"]),
                "note": hf.Value("string"),
            }
        )
        columns = {
            "image": [Image.fromarray(picture) for picture in PICTURES],
            "label": [1, 0, -1],
            "note": ["x"] * 3,
        }
        hf.Dataset.from_dict(columns, features).to_parquet(tmp_path / "hf.parquet")
        data = load_dataset(tmp_path / "hf.parquet")
        np.testing.assert_array_equal(data.X, PICTURES)
        assert list(data.y) == ["dog", "cat", None]

    @pytest.mark.parametrize("layout", ["struct", "bytes", "path", "struct of path"])
    def test_layouts(self, tmp_path, parquet, layout):
        encoded = [encode_picture(picture) for picture in PICTURES]
        (tmp_path / "files").mkdir()
        paths = [f"files/{row}.png" for row in range(3)]
        for path, content in zip(paths, encoded, strict=True):
            (tmp_path / path).write_bytes(content)
        values = {
            "struct": [{"bytes": content, "path": "x.png"} for content in encoded],
            "bytes": encoded,
            "path": paths,
            "struct of path": [{"bytes": None, "path": path} for path in paths],
        }[layout]
        data = load_dataset(parquet({"img": values, "label": [0, 1, 2], "size": [1, 2, 3]}))
        np.testing.assert_array_equal(data.X, PICTURES)
        assert list(data.y) == ["0", "1", "2"]
        assert data.feature_names is None

    def test_paths_in_csv_and_jsonl(self, tmp_path, csv):
        for row, picture in enumerate(PICTURES):
            (tmp_path / f"{row}.png").write_bytes(encode_picture(picture))
        table = csv("scan,label\n0.png,a\n1.png,b\n2.png,a\n")
        np.testing.assert_array_equal(load_dataset(table, image_column="scan").X, PICTURES)
        lines = [{"image": {"path": f"{row}.png"}, "label": "ab"[row % 2]} for row in range(3)]
        table = csv("\n".join(map(json.dumps, lines)), "data.jsonl")
        np.testing.assert_array_equal(load_dataset(table).X, PICTURES)

    def test_only_pictures_where_no_labels_are_required(self, parquet):
        path = parquet({"image": [encode_picture(picture) for picture in PICTURES]})
        data = load_dataset(path, labels_required=False)
        np.testing.assert_array_equal(data.X, PICTURES)
        assert list(data.ids) == ["0", "1", "2"]

    def test_bad_pictures_are_named_or_skipped(self, parquet):
        good = [encode_picture(picture) for picture in PICTURES]
        columns = {
            "id": ["p", "q", "r", "s"],
            "image": [good[0], b"oops", good[1], None],
            "label": ["a", "b", "c", "b"],
            "trusted": [True, True, True, False],
            "true_label": ["a", "b", "d", "b"],
        }
        path = parquet(columns)
        with pytest.raises(InputError, match=r"data\.parquet, id 'q': this picture cannot be read"):
            load_dataset(path)
        data = load_dataset(path, skip_bad=True)
        assert [name for name, _ in data.skipped] == ["q", "s"]
        assert list(data.ids) == ["p", "r"]
        assert list(data.verified) == ["a", "c"]
        assert list(data.true_labels) == ["a", "d"]
        np.testing.assert_array_equal(data.X, PICTURES[:2])

    def test_class_number_out_of_range(self, parquet):
        image = [encode_picture(PICTURES[0])] * 2
        path = parquet({"image": image, "label": [0, 2]}, names=["a", "b"])
        with pytest.raises(InputError, match="column 'label' holds 2, but there are 2 classes"):
            load_dataset(path)


class TestShards:
    def test_all_files_of_the_training_split(self, tmp_path, parquet):
        parquet({"u": [3.0], "label": ["c"]}, "train-00001-of-00002.parquet")
        parquet({"u": [1.0, 2.0], "label": ["a", "b"]}, "train-00000-of-00002.parquet")
        parquet({"u": [9.0], "label": ["z"]}, "test-00000-of-00001.parquet")
        with pytest.warns(DataWarning, match="'train' is read, and 'test' is not"):
            data = load_dataset(tmp_path)
        assert list(data.y) == ["a", "b", "c"]
        assert list(data.ids) == ["0", "1", "2"]

    def test_pictures(self, tmp_path, parquet):
        for shard, picture in enumerate(PICTURES):
            parquet({"image": [encode_picture(picture)]}, f"train-0000{shard}-of-00003.parquet")
        np.testing.assert_array_equal(load_dataset(tmp_path, labels_required=False).X, PICTURES)

    def test_refuses_missing_and_ambiguous_files(self, tmp_path, parquet):
        columns = {"u": [1.0, 2.0], "label": ["a", "b"]}
        first = parquet(columns, "train-00000-of-00002.parquet")
        with pytest.raises(InputError, match="split 'train' has 1 of its 2 files"):
            load_dataset(tmp_path)
        first.rename(tmp_path / "dev-00000-of-00001.parquet")
        parquet(columns, "test-00000-of-00001.parquet")
        with pytest.raises(
            InputError, match=r"several tables in it \('dev', 'test'\): give one of them"
        ):
            load_dataset(tmp_path)
        parquet(columns, "more.parquet")
        with pytest.raises(
            InputError, match=r"several tables in it \('dev', 'more', 'test'\): give one of them"
        ):
            load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("u,v\n1,2\n", {}, "no column of labels among 'u', 'v': name it with --label-column"),
        (
            "u,label\n1,a\n",
            {"label_column": "x"},
            "no column 'x' for --label-column; .*'u', 'label'",
        ),
        ("u,label\n1,a\n", {"id_column": "x"}, "no column 'x' for --id-column"),
        ("u,label\n1,a\n", {"trusted_column": "x"}, "no column 'x' for --trusted-column"),
        ("u,label\n1,a\n", {"image_column": "x"}, "no column 'x' for --image-column"),
        ("u,label\n1,a\n", {"image_column": "u"}, "'u' is of type int64, not pictures"),
        ("u,label\n1,a\n", {"id_column": "label", "label_column": "label"}, "two meanings"),
        ("u,label\n1,a\ninf,b\n", {}, "id '1', column 'u' holds inf"),
        ("u,v,label\n1,inf,a\n-inf,2,b\n", {}, "'1', column 'u' holds -inf; .* 'v' holds inf"),
        ("u,v,label\n,,a\n,,b\n", {}, "no feature, picture or text"),
        ("u,label\n1,\n2,\n", {}, "all labels are empty"),
        ("u,label\n1,a\n2,a\n", {}, "only one class, 'a'"),
        (
            "u,label,trusted\n1,a,1\n2,b,maybe\n",
            {},
            "'trusted' holds 'maybe' in the row with id '1'",
        ),
        ("u,label,trusted\n1,a,1\n2,,1\n3,b,0\n", {}, "^Trusted sample '1' has no label"),
        ("id,u,label\ni,1,a\ni,2,b\n", {}, "id 'i' occurs 2 times"),
        ("id,u,label\ni,1,a\n,2,b\n", {}, "row 1 .* has no id in column 'id'"),
        ("u,u,label\n1,2,a\n", {}, "several columns 'u'"),
        (
            "u,label\n1,a\n2,b,c\n",
            {},
            "cannot be read as a table .*Row #3: Expected 2 columns, got 3",
        ),
        ("u,label\n", {}, "no samples"),
        ("", {}, "cannot be read as a table"),
        ("id,label\ni,a\nj,b\n", {}, "no feature, picture or text"),
    ],
)
def test_refused_tables(csv, text, options, message):
    with pytest.raises(
        InputError, match=message if message[0] == "^" else rf"data\.csv: .*{message}"
    ):
        load_dataset(csv(text), **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"u": 1}\n{oops', "line 2: this is not JSON"),
        ('{"u": 1}\n[2]', "line 2: this is not a JSON object"),
        ('{"u": 1, "label": "a"}\n{"u": "x", "label": "b"}', "column 'u' mixes values"),
        ('{"u": 1, "label": ["a"]}', "column 'label' is of type list.*: give names"),
        ("", "the table is empty"),
    ],
)
def test_refused_json(csv, text, message):
    with pytest.raises(InputError, match=r"data\.jsonl.*" + message):
        load_dataset(csv(text, "data.jsonl"))


def test_damaged_files(tmp_path, csv):
    path = tmp_path / "data.parquet"
    path.write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(InputError, match=r"data\.parquet: cannot be read as a table"):
        load_dataset(path)
    with pytest.raises(InputError, match=r"data\.csv, line 2: this text is not UTF-8"):
        load_dataset(csv("u,label\n1,ä\n2,b\n", encoding="latin-1"))


class TestTrustedFile:
    @pytest.fixture
    def data(self, csv):
        return csv("id,u,label\n01,1,a\n02,2,b\n03,3,b\n04,4,\n")

    def test_with_verified_labels(self, data, csv):
        trusted = csv("label,id,by\nb,01,me\nb,02,me\na,04,me\n", "trusted.csv")
        read = load_dataset(data, trusted=trusted)
        assert list(read.y) == ["a", "b", "b", None]
        assert list(read.verified) == ["b", "b", None, "a"]

    def test_ids_alone_verify_the_given_labels(self, data, csv):
        read = load_dataset(data, trusted=csv("id\n02\n01\n", "trusted.csv"))
        assert list(read.verified) == ["a", "b", None, None]

    def test_parquet_and_jsonl(self, data, csv, parquet):
        columns = pa.table({"id": ["01"], "label": [1]})
        trusted = parquet(columns, "trusted.parquet", names=["a", "b"])
        assert list(load_dataset(data, trusted=trusted).verified) == ["b", None, None, None]
        trusted = csv('{"id": "01", "label": "b"}\n', "trusted.jsonl")
        assert list(load_dataset(data, trusted=trusted).verified) == ["b", None, None, None]

    def test_a_class_without_given_labels_is_accepted_with_a_warning(self, data, csv):
        trusted = csv("id,label\n01,c\n", "trusted.csv")
        with pytest.warns(TrustedWarning, match="'c' occurs nowhere among the given labels"):
            assert load_dataset(data, trusted=trusted).classes == ("a", "b", "c")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("id\n1\n", "1 of 1 trusted ids do not exist in data .*look like '01'.*first is '1'"),
            ("id\n01\n02\n01\n", "Trusted id '01' occurs 2 times"),
            ("id,label\n01,a\n01,b\n", r"contradictory labels \('a', 'b'\)"),
            ("id,label\n01,a\n02,\n", r"trusted\.csv: trusted id '02' has no label"),
            ("id\n04\n", "Trusted sample '04' has no label"),
            ("name\n1\n", r"trusted\.csv: there is no column 'id' among 'name'"),
            ("id,truth\n01,c\n", r"trusted\.csv: there is no column 'label' among 'id', 'truth'"),
            ("id,label\n,a\n", r"trusted\.csv: row 0 .* has no id"),
            ("", r"trusted\.csv: cannot be read as a table"),
        ],
    )
    def test_refuses(self, data, csv, text, message):
        with pytest.raises(InputError, match=message):
            load_dataset(data, trusted=csv(text, "trusted.csv"))

    def test_refuses_other_files(self, data, tmp_path):
        with pytest.raises(InputError, match="no such file of trusted samples"):
            load_dataset(data, trusted=tmp_path / "nowhere.csv")
        (tmp_path / "trusted.txt").write_text("01")
        with pytest.raises(InputError, match=r"give trusted samples as \.csv"):
            load_dataset(data, trusted=tmp_path / "trusted.txt")


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int8(), pa.string()), pa.int64()])
def test_equal_labels_are_one_object(kind, tmp_path):
    labels = pa.array([10, None, 20, 10, 20] * 2).cast(pa.string()).cast(kind)
    table = pa.table({"x": np.arange(10.0), "label": labels})
    pq.write_table(table, tmp_path / "data.parquet", row_group_size=3)
    y = load_dataset(tmp_path / "data.parquet").y
    assert y.tolist() == ["10", None, "20", "10", "20"] * 2
    assert len({id(name) for name in y}) == 3


def test_a_feature_called_like_a_label_is_a_feature_of_new_samples(csv):
    new = {"labels_required": False, "columns_required": False}
    path = csv("id,x,y\na,1,2\nb,3,4\n")
    found = load_dataset(path, **new)
    assert found.feature_names == ("x", "y")
    named = load_dataset(path, label_column="species", **new)
    assert named.feature_names == ("x", "y")
    fitted = csv("id,x,y,label\na,1,2,cat\nb,3,4,dog\n", "fitted.csv")
    assert load_dataset(fitted).feature_names == ("x", "y")


def test_decimal_commas_and_thousands_in_two_columns(csv):
    path = csv('id;a;b;label\nx;1,5;"1,234.5";cat\ny;2,5;"2,000.5";dog\n')
    X = np.asarray(load_dataset(path).X, float)
    np.testing.assert_allclose(X, [[1.5, 1234.5], [2.5, 2000.5]])
