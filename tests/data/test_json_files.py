"""JSON of annotation tools: Label Studio and COCO; other shapes are refused."""

import json

import numpy as np
import pytest

from pudistill.data.loading import load_dataset
from pudistill.exceptions import InputError
from tests.helpers.pictures import write_picture


@pytest.fixture
def written(tmp_path):
    def write(content, name="data.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def task(number, *choices, ground_truth=False, name="sentiment", **data):
    result = [
        {
            "id": "a",
            "from_name": name,
            "to_name": "text",
            "type": "choices",
            "value": {"choices": [choice]},
        }
        for choice in choices
    ]
    annotation = {
        "id": 7,
        "completed_by": 1,
        "result": result,
        "was_cancelled": False,
        "ground_truth": ground_truth,
    }
    return {
        "id": number,
        "annotations": [annotation] if choices else [],
        "data": data or {"text": f"t {number}"},
        "predictions": [],
        "meta": {},
    }


class TestLabelStudio:
    def test_tasks_with_annotations(self, written):
        skipped = task(9, "good")
        skipped["annotations"][0]["was_cancelled"] = True
        tasks = [task(4, "good"), task(5, "bad"), task(6, "bad", "bad"), task(8), skipped]
        data = load_dataset(written(tasks))
        assert list(data.X) == ["t 4", "t 5", "t 6", "t 8", "t 9"]
        assert list(data.y) == ["good", "bad", "bad", None, None]
        assert list(data.ids) == ["4", "5", "6", "8", "9"]

    def test_ground_truths_are_verified_labels(self, written):
        both = task(1, "good")
        both["annotations"] += task(1, "bad", ground_truth=True)["annotations"]
        data = load_dataset(written([both, task(2, "bad"), task(3, "good")]))
        assert list(data.y) == ["good", "bad", "good"]
        assert list(data.verified) == ["bad", None, None]

    def test_several_questions_need_a_name(self, written):
        tasks = [task(n, "ab"[n % 2]) for n in range(4)]
        for n, one in enumerate(tasks):
            one["annotations"] += task(n, "pq"[n // 2], name="topic")["annotations"]
        path = written(tasks)
        with pytest.raises(InputError, match=r"no column of labels among .*'sentiment', 'topic'"):
            load_dataset(path)
        assert list(load_dataset(path, label_column="topic").y) == ["p", "p", "q", "q"]

    def test_json_min(self, written):
        rows = [
            {"id": n, "text": f"t {n}", "choice": "pq"[n % 2], "annotator": 1} for n in range(3)
        ]
        assert list(load_dataset(written(rows)).y) == ["p", "q", "p"]
        rows[2]["choice"] = {"choices": ["q"]}
        assert list(load_dataset(written(rows)).y) == ["p", "q", "q"]

    @pytest.mark.parametrize(
        "place",
        ["upload/3/0a1b2c3d-cat%d.png", "0a1b2c3d-cat%d.png", "cat%d.png", "images/cat%d.png"],
    )
    @pytest.mark.parametrize("kind", ["json", "csv"])
    def test_pictures_on_the_server_are_found_beside_the_export(
        self, written, tmp_path, place, kind
    ):
        names = [f"/data/upload/3/0a1b2c3d-cat{n}.png" for n in range(2)]
        for n in range(2):
            write_picture(tmp_path / (place % n), n)
        if kind == "json":
            data = load_dataset(written([task(n, "ab"[n], image=names[n]) for n in range(2)]))
        else:
            lines = [f"{n},{name},{'ab'[n]},1,2024-01-01" for n, name in enumerate(names)]
            text = "\n".join(["id,image,choice,annotator,created_at", *lines])
            data = load_dataset(written(text, "data.csv"))
        assert [picture[0, 0] for picture in data.X] == [0, 1]
        assert list(data.y) == ["a", "b"]

    def test_local_files(self, written, tmp_path):
        write_picture(tmp_path / "pets" / "a b.png")
        names = ["/data/local-files/?d=pets/a%20b.png"] * 2
        path = written([task(n, "ab"[n], image=names[n]) for n in range(2)])
        assert load_dataset(path).X.shape == (2, 4, 5)

    @pytest.mark.parametrize(
        ("tasks", "message"),
        [
            ([task(1, "a", "b")], r"annotations of task 1 disagree \('a', 'b'\): keep one"),
            ([task(1)], "no task has an annotation of type 'choices'"),
            ([{"id": 3, "data": [], "annotations": []}], "task 3 is not as Label Studio writes it"),
            ([{"data": {}, "annotations": [3]}], "task None is not as Label Studio writes it"),
            ([{"id": 3, "data": {}, "annotations": [{}]}], "task 3 is not as Label Studio"),
            ([{"id": 3, "choice": {"choices": ["a", "b"]}}], "exactly one class"),
            ([{"id": 3, "choice": {"choices": [["a"]]}}], "exactly one class"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_refused(self, written, tasks, message):
        with pytest.raises(InputError, match=rf"data\.json: .*{message}"):
            load_dataset(written(tasks))

    def test_several_choices_in_a_csv(self, written):
        text = 'id,text,choice\n1,a,"{""choices"": [""a"", ""b""]}"\n2,b,a\n'
        with pytest.raises(InputError, match=r"data\.csv: .*'choice'.* each sample needs exactly"):
            load_dataset(written(text, "data.csv"))


class TestCoco:
    def content(self):
        return {
            "info": {},
            "images": [{"id": 10 + n, "file_name": f"{n}.png", "width": 5} for n in range(3)],
            "annotations": [
                {"id": 1, "image_id": 12, "category_id": 2, "bbox": [0, 0, 1, 1]},
                {"id": 2, "image_id": 10, "category_id": 5},
                {"id": 3, "image_id": 12, "category_id": 2},
            ],
            "categories": [{"id": 2, "name": "cat"}, {"id": 5, "name": "dog"}],
        }

    @pytest.mark.parametrize("folder", [".", "images"])
    def test_classes_of_images(self, written, tmp_path, folder):
        for n in range(3):
            write_picture(tmp_path / folder / f"{n}.png", n)
        data = load_dataset(written(self.content(), "annotations.json"))
        np.testing.assert_array_equal(data.X[:, 0, 0], [0, 1, 2])
        assert list(data.y) == ["dog", None, "cat"]
        assert list(data.ids) == ["10", "11", "12"]

    @pytest.mark.parametrize(
        ("part", "value", "message"),
        [
            ("category_id", 5, "image 12 has the classes 'dog', 'cat': each sample needs one"),
            ("category_id", 9, r"are not as in COCO \(KeyError\(9\)\)"),
            ("category_id", [], "are not as in COCO"),
            ("image_id", 99, "there is no image 99, which an annotation names"),
        ],
    )
    def test_refused_annotations(self, written, part, value, message):
        content = self.content()
        content["annotations"][0][part] = value
        with pytest.raises(InputError, match=message):
            load_dataset(written(content))

    @pytest.mark.parametrize("part", ["images", "annotations", "categories"])
    @pytest.mark.parametrize("value", [3, None, {}, [3], [[]], {"a": 1}, "text"], ids=str)
    def test_other_shapes(self, written, part, value):
        with pytest.raises(InputError, match=r"data\.json"):
            load_dataset(written(self.content() | {part: value}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", "not a list of JSON objects"),
        ("[3, 4]", "not a list of JSON objects"),
        ('{"a": {"0": 1}}', "not a list of JSON objects"),
        ('{\n"a": 1\n}', "not a list of JSON objects"),
        ("[" * 100_000, "not JSON"),
        ('[{"a": 1}', "not JSON"),
        ('{"a": 1}\n[3]', "line 2: this is not a JSON object"),
        ("", "not JSON"),
        ("[]", "table is empty"),
        ('[{"label": ["a"], "u": 1}]', "'label' is of type list"),
    ],
)
def test_other_shapes(written, text, message):
    with pytest.raises(InputError, match=message):
        load_dataset(written(text))


def test_lines_of_objects_as_datasets_writes_them(written):
    text = '\n{"label": "a", "u": 1}\n{"label": "b", "u": 2}\n'
    assert list(load_dataset(written(text)).y) == ["a", "b"]
