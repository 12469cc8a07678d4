"""Verified labels in the files that annotation tools export: Label Studio, Argilla, FiftyOne.

Samples that nobody answered, cancelled and discarded answers are left out. Where several people
answered, the majority decides; a tie is left out with a warning.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa

from pudistill.data.table_files import ArrowTable, as_table_error
from pudistill.data.table_sources import open_table
from pudistill.data.text_files import open_text, suffix_of
from pudistill.exceptions import DataWarning, InputError, warn_user
from pudistill.utils.shown import first_few, listed, shown

QUESTION = "label"  # the name of the question in files that pudistill writes
SAMPLE_ID = "sample_id"  # in tasks, which have an ``id`` of their own
SUGGESTED = "pudistill_suggestion"
_TO_FILL = ("suggested", "verified_label")  # columns of a table that `pudistill export` writes


class Answer(NamedTuple):
    """What one person said of a sample."""

    id: str
    label: str
    who: str = ""
    when: str = ""
    weight: str | None = None


def is_tool_export(path: Path, encoding: str | None = None) -> bool:
    """Return whether a file is the export of a tool; its content decides."""
    return path.is_file() and _reader_of(path, encoding) is not None


def read_tool_export(
    path: Path, ids: Iterable[str], encoding: str | None = None
) -> ArrowTable | None:
    """Read verified labels from the export of an annotation tool.

    Parameters
    ----------
    path : Path
        The file.
    ids : iterable of str
        Ids of the data.
    encoding : str, optional
        Encoding of a text that is not UTF-8.

    Returns
    -------
    table : ArrowTable or None
        Columns ``id``, ``label``, ``weight``, ``when`` and ``who``, a row for each verified sample;
        None if the file is no such export.

    Raises
    ------
    InputError
        If the file is damaged, or holds no answer.
    """
    found = _reader_of(path, encoding) if path.is_file() else None
    if found is None:
        return None
    read, content = found
    try:
        answers = list(read(path, content, ids))
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: an entry is not as the tool writes it ({error!r}): export it again."
        ) from error
    verified = _majority(path, answers)
    if not verified:
        raise InputError(f"{path}: nobody has answered yet: verify some samples there first.")
    columns = {
        "id": pa.array([answer.id for answer in verified], pa.string()),
        "label": pa.array([answer.label for answer in verified], pa.string()),
        "weight": pa.array([answer.weight for answer in verified], pa.string()),
        "when": pa.array([answer.when for answer in verified], pa.string()),
        "who": pa.array([answer.who for answer in verified], pa.string()),
    }
    return ArrowTable(pa.table(columns), path.parent)


Reader = Callable[[Path, Any, Iterable[str]], Iterator[Answer]]


def _reader_of(path: Path, encoding: str | None) -> tuple[Reader, Any] | None:
    """Return the function that reads a file, and the content that it takes."""
    if suffix_of(path) == ".csv":
        with as_table_error(path):
            table = open_table(path, encoding)
        return (_spreadsheet, table) if {*_TO_FILL} <= {*table.schema.names} else None
    if suffix_of(path) != ".json":
        return None
    with open_text(path, encoding) as text:
        try:
            content = json.loads(text.read())
        except (ValueError, RecursionError):
            return None  # lines of objects, or damaged: read as a table
    if isinstance(content, dict):
        has_labels = isinstance(content.get("labels"), dict) and "classes" in content
        return (_fiftyone, content) if has_labels else None
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        return None
    names = {name for row in content for name in row}
    for needed, read in _LISTS.items():
        if {*needed} <= names:
            return read, content
    if any(name.endswith(".suggestion") or name.endswith(".responses") for name in names):
        return _flat_argilla, content
    return None


def _label_studio(path: Path, tasks: Any, _: Iterable[str]) -> Iterator[Answer]:
    """Read tasks with annotations; those marked as ground truth outweigh all others."""
    question = _one_question(
        path,
        (
            part["from_name"]
            for task in tasks
            for annotation in task["annotations"]
            for part in annotation["result"]
            if part.get("type") == "choices"
        ),
    )
    for task in tasks:
        data = task["data"]
        name = str(data.get(SAMPLE_ID, data.get("id", task.get("id"))))
        given = [one for one in task["annotations"] if not one.get("was_cancelled")]
        truths = [one for one in given if one.get("ground_truth") is True]
        for annotation in truths or given:
            for part in annotation["result"]:
                if part.get("type") == "choices" and part["from_name"] == question:
                    yield Answer(
                        name,
                        _only(path, name, part["value"]["choices"]),
                        _person(annotation.get("completed_by")),
                        str(annotation.get("updated_at") or annotation.get("created_at") or ""),
                        _weight(data),
                    )


def _small_label_studio(path: Path, rows: Any, _: Iterable[str]) -> Iterator[Answer]:
    """Read JSON-MIN: a row for each annotation, with the choice under the name of the question."""
    known = {"id", "annotation_id", "annotator", "created_at", "updated_at", "lead_time"}
    names = {name for row in rows for name in row} - known
    question = next((name for name in (QUESTION, "choice") if name in names), None)
    if question is None:
        raise InputError(
            f"{path}: no question is called {QUESTION!r} among {listed(sorted(names))}: call the "
            "choices so in the labelling interface."
        )
    for row in rows:
        if choices := row.get(question):
            choices = choices["choices"] if isinstance(choices, dict) else [choices]
            name = str(row.get(SAMPLE_ID, row["id"]))
            when = str(row.get("updated_at") or row.get("created_at") or "")
            label = _only(path, name, choices)
            yield Answer(name, label, _person(row.get("annotator")), when, _weight(row))


def _argilla(path: Path, records: Any, _: Iterable[str]) -> Iterator[Answer]:
    """Read records as ``records.to_json`` writes them.

    It does not say which responses are drafts or discarded, so only completed records count.
    """
    question = _one_question(path, (name for one in records for name in one["responses"] or ()))
    n_pending = 0
    for record in records:
        for response in (record["responses"] or {}).get(question, ()):
            status = response.get("status")
            if status is None and record.get("status") != "completed":
                n_pending += 1
            elif status in (None, "submitted") and response["value"] is not None:
                label = _only(path, record["id"], [response["value"]])
                who = str(response.get("user_id") or "")
                yield Answer(
                    str(record["id"]), label, who, "", _weight(record.get("metadata") or {})
                )
    if n_pending:
        warn_user(
            f"{path}: {n_pending:,} responses to records that are not completed are left out, as "
            "the file does not say whether they were submitted; records.to_list(flatten=True) "
            "does.",
            DataWarning,
        )


def _flat_argilla(path: Path, records: Any, _: Iterable[str]) -> Iterator[Answer]:
    """Read records as ``records.to_list(flatten=True)`` writes them."""
    ending = ".responses"
    names = (key.removesuffix(ending) for one in records for key in one if key.endswith(ending))
    question = _one_question(path, names)
    for record in records:
        key = f"{question}{ending}"
        values = record.get(key) or []
        statuses = record.get(f"{key}.status") or [None] * len(values)
        users = record.get(f"{key}.users") or [""] * len(values)
        for value, status, user in zip(values, statuses, users, strict=True):
            if value is not None and status in (None, "submitted"):
                label = _only(path, record["id"], [value])
                yield Answer(str(record["id"]), label, str(user), "", _weight(record))


def _fiftyone(path: Path, content: Any, ids: Iterable[str]) -> Iterator[Answer]:
    """Read labels of pictures, which are named without their suffix.

    A label that is still the suggestion of `pudistill export` is nobody's answer.
    """
    by_stem: dict[str, list[str]] = {}
    for name in ids:
        by_stem.setdefault(PurePosixPath(name).with_suffix("").as_posix(), []).append(name)
    classes = content["classes"]
    n_untouched = 0
    for stem, value in content["labels"].items():
        entry = value if isinstance(value, dict) else {"label": value}
        label, attributes = entry["label"], entry.get("attributes") or {}
        if isinstance(label, int) and classes is not None:
            label = classes[label]
        if attributes.get(SUGGESTED) == label:
            n_untouched += 1
            continue
        names = by_stem.get(stem, [stem])
        if len(names) > 1:
            raise InputError(f"{path}: {shown(stem)} can be {listed(names)}: rename the pictures.")
        if label is not None:
            yield Answer(names[0], str(label), weight=_weight(attributes))
    if n_untouched:
        warn_user(
            f"{path}: {n_untouched:,} labels are still those that pudistill suggested, and count "
            "as not verified: export verified ones without attributes.",
            DataWarning,
        )


def _spreadsheet(path: Path, table: Any, _: Iterable[str]) -> Iterator[Answer]:
    """Read a table that `pudistill export --to csv` wrote and a person filled in."""
    names = [name for name in ("id", "verified_label", "weight") if name in table.schema.names]
    with as_table_error(path):
        rows = table.read(names, names).to_pylist()
    for row in rows:
        if row["verified_label"]:
            yield Answer(row["id"], row["verified_label"], weight=_weight(row))


_LISTS: dict[tuple[str, ...], Reader] = {
    ("data", "annotations"): _label_studio,
    ("annotation_id", "annotator"): _small_label_studio,
    ("fields", "responses"): _argilla,
}


def _one_question(path: Path, names: Iterable[str]) -> str:
    found = [*dict.fromkeys(names)]
    if QUESTION in found or not found:
        return QUESTION
    if len(found) > 1:
        raise InputError(
            f"{path}: there are several questions, {listed(found)}: name the one about the class "
            f"{QUESTION!r}."
        )
    return found[0]


def _only(path: Path, name: Any, choices: Any) -> str:
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], str):
        raise InputError(
            f"{path}: the answer for {shown(name)} is {choices!r}: each sample needs one class."
        )
    return choices[0]


def _person(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("email") or value.get("id")
    return "" if value is None else str(value)


def _weight(values: Any) -> str | None:
    weight = values.get("weight")
    return None if weight is None else str(weight)


def _majority(path: Path, answers: list[Answer]) -> list[Answer]:
    """Return one answer for each sample: that of most people; ties are left out with a warning."""
    of_sample: dict[str, list[Answer]] = {}
    for answer in answers:
        of_sample.setdefault(answer.id, []).append(answer)
    verified, ties = [], []
    for name, given in of_sample.items():
        (label, most), *others = Counter(answer.label for answer in given).most_common()
        if others and others[0][1] == most:
            ties.append(name)
            continue
        agreeing = [answer for answer in given if answer.label == label]
        people = dict.fromkeys(answer.who for answer in agreeing if answer.who)
        verified.append(agreeing[-1]._replace(who=" ".join(people)))
    if ties:
        warn_user(
            f"{path}: people disagree on {len(ties):,} samples without a majority, which are left "
            f"out: {first_few(map(shown, ties))}.",
            DataWarning,
        )
    return verified
