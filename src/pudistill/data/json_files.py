"""Tables in JSON: lines of objects, a list of objects, and the files of annotation tools."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from pudistill.data.memory import Budget
from pudistill.data.text_files import open_text
from pudistill.exceptions import InputError
from pudistill.utils.shown import listed

Row = dict[str, Any]
_COCO = {"images", "annotations", "categories"}
_CHOICES = '{"choices":'  # how Label Studio writes several choices into a column of text


def read_json_lines(file: Path, encoding: str | None = None) -> pa.Table:
    """Read a file with a JSON object on each line."""
    rows = []
    with open_text(file, encoding) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                row = _parsed(f"{file}, line {number}", line)
                if not isinstance(row, dict):
                    raise InputError(
                        f"{file}, line {number}: this is not a JSON object: write one on each line."
                    )
                rows.append(row)
    return table_of(file, rows)


def read_json(file: Path, encoding: str | None = None) -> pa.Table:
    """Read a list of JSON objects, an export of Label Studio, or lists of classes as in COCO."""
    with open_text(file, encoding) as text:
        # Hugging Face's `datasets` and others write lines of objects to .json files.
        first = next((line for line in text if line.strip()), "").strip()
        if first.startswith("{") and first.endswith("}") and any(line.strip() for line in text):
            return read_json_lines(file, encoding)
    with open_text(file, encoding) as text:
        content = _parsed(str(file), text.read())
    if isinstance(content, dict) and content.keys() >= _COCO:
        return table_of(file, _rows_of_coco(file, content))
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise InputError(
            f"{file}: this is not a list of JSON objects: write one object for each sample, an "
            "export of Label Studio, or images, annotations and categories as in COCO."
        )
    if content and all({"data", "annotations"} <= row.keys() for row in content):
        content = _rows_of_label_studio(file, content)
    for row in content:
        for name in [name for name, value in row.items() if _is_choice(value)]:
            row[name] = _only_choice(file, row.get("id"), row[name]["choices"])
    return table_of(file, content)


def _size_on_disk(path: Path) -> int:
    """Return the size of a file, or of the files of a folder."""
    files = path.glob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def table_of(file: Path, rows: list[Row]) -> pa.Table:
    """Return rows as a table; a value that a row lacks is missing."""
    columns = {}
    names = dict.fromkeys(name for row in rows for name in row)
    # Each row can bring a column of its own.
    Budget(file, _size_on_disk(file)).spend(8 * len(rows) * len(names))
    for name in names:
        try:
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowException, OverflowError) as error:
            raise InputError(
                f"{file}: column {name!r} mixes values of different kinds ({error}): give all "
                "rows the same kind."
            ) from error
    return pa.table(columns)


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", error)
        raise InputError(
            f"{where}: this is not JSON ({reason}): correct it or write it again."
        ) from error


def _rows_of_label_studio(file: Path, tasks: list[Row]) -> list[Row]:
    """Return the data of each task, and its choice as ``label`` if that name is free.

    The choice of an annotation that is a ground truth is a verified label.
    """
    rows: list[Row] = []
    all_choices: list[dict[tuple[str, bool], str]] = []
    for task in tasks:
        try:
            rows.append({"id": task.get("id")} | task["data"])
            all_choices.append(_choices_of(file, task))
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{file}: task {task.get('id')} is not as Label Studio writes it ({error!r}): "
                "export the tasks again."
            ) from error
    names = {name for choices in all_choices for name, _ in choices}
    if not names:
        raise InputError(
            f"{file}: no task has an annotation of type 'choices': each sample needs one class."
        )
    if len(names) == 1 and not any("label" in row for row in rows):
        renamed = dict.fromkeys(names, "label")
    else:
        renamed = {name: name for name in names}
    for row, choices in zip(rows, all_choices, strict=True):
        for (name, is_truth), label in choices.items():
            row[f"verified_{renamed[name]}" if is_truth else renamed[name]] = label
    return rows


def _choices_of(file: Path, task: Row) -> dict[tuple[str, bool], str]:
    """Return the choices of a task by the name of the question and whether it is ground truth."""
    found: dict[tuple[str, bool], str] = {}
    for annotation in task["annotations"]:
        if annotation.get("was_cancelled"):
            continue
        for part in annotation["result"]:
            if part["type"] != "choices":
                continue
            label = _only_choice(file, task.get("id"), part["value"]["choices"])
            key = part["from_name"], annotation.get("ground_truth") is True
            if found.setdefault(key, label) != label:
                raise InputError(
                    f"{file}: the annotations of task {task.get('id')} disagree "
                    f"({listed([found[key], label])}): keep one, or mark the right one as ground "
                    "truth."
                )
    return found


def refuse_choices(where: Any, column: str, labels: Iterable[str | None]) -> None:
    """Raise an `InputError` if a label stands for several choices, as in a CSV of Label Studio."""
    for label in labels:
        if label is not None and label.startswith(_CHOICES):
            raise InputError(
                f"{where}: column {column!r} holds {label}: each sample needs exactly one class."
            )


def _is_choice(value: Any) -> bool:
    """Return whether a value is Label Studio's form of several choices."""
    return isinstance(value, dict) and isinstance(value.get("choices"), list)


def _only_choice(file: Path, task: Any, choices: Any) -> str:
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], str):
        raise InputError(
            f"{file}: task {task} has the choices {choices!r}: each sample needs exactly one class."
        )
    return choices[0]


def _rows_of_coco(file: Path, content: Row) -> list[Row]:
    """Return id, file and class of each image; several boxes of one class are one class."""
    try:
        if not all(isinstance(content[part], list) for part in _COCO):
            raise TypeError("they are not lists")
        names = {category["id"]: str(category["name"]) for category in content["categories"]}
        label_of: dict[Any, str] = {}
        for annotation in content["annotations"]:
            image, label = annotation["image_id"], names[annotation["category_id"]]
            if label_of.setdefault(image, label) != label:
                raise InputError(
                    f"{file}: image {image} has the classes {listed([label_of[image], label])}: "
                    "each sample needs one class; crop the objects, or keep one annotation."
                )
        rows = [
            {"id": image["id"], "file_name": image["file_name"], "label": label_of.get(image["id"])}
            for image in content["images"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file}: images, annotations or categories are not as in COCO ({error!r}): give each "
            "image an id and a file_name, each annotation an image_id and a category_id."
        ) from error
    unknown = label_of.keys() - {row["id"] for row in rows}
    if unknown:
        raise InputError(
            f"{file}: there is no image {min(map(str, unknown))}, which an annotation names: add "
            "it, or remove the annotation."
        )
    return rows
