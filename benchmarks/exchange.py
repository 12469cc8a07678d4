"""Load exported labels with the libraries of the tools themselves, and answer as the tools do.

``pudistill export`` writes the files; then, in an environment with the tool's package alone::

    python benchmarks/exchange.py label-studio tasks.json     # label-studio-sdk
    python benchmarks/exchange.py argilla records.json        # argilla
    python benchmarks/exchange.py fiftyone labels.json --pictures photos  # fiftyone
    python benchmarks/exchange.py cleanlab labels.npz         # cleanlab

``--answers FILE`` lets the library write answers for the first samples: files such as those that
``pudistill fit --trusted`` reads, of which the tests keep a few in ``tests/data/tool_exports``.
"""

import argparse
import json
import uuid
from pathlib import Path


def label_studio(path: Path, answers: Path | None, _: Path | None) -> int:
    """Check tasks against the labelling interface; convert annotations to JSON-MIN."""
    from label_studio_sdk.converter import Converter
    from label_studio_sdk.label_interface import LabelInterface

    config = path.with_suffix(".xml").read_text()
    interface = LabelInterface(config)
    interface.validate()
    tasks = json.loads(path.read_text())
    for task in tasks:
        assert interface.validate_task({"data": task["data"]}), task
        for prediction in task["predictions"]:
            errors = interface.validate_prediction(prediction, return_errors=True)
            assert not errors, errors
    if answers is not None:
        annotated = [_annotated(task, number) for number, task in enumerate(tasks[:5], start=1)]
        for task in annotated:
            for annotation in task["annotations"]:
                assert interface.validate_annotation(annotation), annotation
        answers.write_text(json.dumps(annotated, indent=1))
        folder = answers.parent / "converted"
        converter = Converter(config, str(answers.parent), download_resources=False)
        converter.convert_to_json_min(str(answers), str(folder), is_dir=False)
        answers.with_name("label_studio_min.json").write_text((folder / "result.json").read_text())
    return len(tasks)


def _annotated(task: dict, number: int) -> dict:
    """Return a task with the annotations that a server stores: of two people, one cancelled."""
    result = {"id": uuid.UUID(int=number).hex[:10], "origin": "manual"}
    result |= task["predictions"][0]["result"][0]
    annotation = {"id": number, "completed_by": 1, "result": [result], "was_cancelled": number == 2}
    annotation |= {"ground_truth": False, "lead_time": 2.5, "result_count": 1, "task": number}
    annotation |= {"created_at": "2026-01-05T10:00:00Z", "updated_at": "2026-01-05T10:00:05Z"}
    annotations = [annotation] if number < 5 else []
    return task | {"id": number, "annotations": annotations}


def argilla(path: Path, answers: Path | None, _: Path | None) -> int:
    """Read settings and records; add responses of two people."""
    from unittest.mock import MagicMock

    import argilla as rg
    from argilla.records._io import GenericIO
    from argilla.records._io._json import JsonIO

    rg.Argilla._get_default = MagicMock()  # a server, of which nothing is asked here
    settings = rg.Settings.from_json(path.with_name(f"{path.stem}-settings.json"))
    settings.validate()
    labels = settings.questions["label"].labels
    records = JsonIO._records_from_json(path)
    for record in records:
        assert record.suggestions["label"].value in labels
        assert {*record.fields} == {field.name for field in settings.fields}
    if answers is not None:
        people = [uuid.UUID(int=number) for number in (1, 2)]
        given = [("submitted", "submitted"), ("submitted", "discarded"), ("draft",), ()]
        for number, (record, statuses) in enumerate(zip(records, given, strict=False)):
            for person, status in zip(people, statuses, strict=False):
                label = labels[number % len(labels)]
                response = rg.Response("label", label, user_id=person, status=status)
                record.responses.add(response)
        flat = GenericIO.to_list(records[:4], flatten=True)
        answers.with_name("argilla_flat.json").write_text(json.dumps(flat, indent=1))
        JsonIO.to_json(records[:4], answers)
    return len(records)


def fiftyone(path: Path, answers: Path | None, pictures: Path | None) -> int:
    """Import and export labels of pictures, which needs no database."""
    import fiftyone as fo
    from fiftyone.utils import data

    assert pictures is not None, "name the folder of the pictures"
    importer = data.FiftyOneImageClassificationDatasetImporter(
        data_path=str(pictures.resolve()), labels_path=str(path.resolve())
    )
    with importer:
        found = list(importer)
    for file, _, label in found:
        assert Path(file).is_file()
        assert label.label in importer._classes
        assert label.confidence is None or 0 <= label.confidence <= 1
    if answers is not None:
        exporter = data.FiftyOneImageClassificationDatasetExporter(
            labels_path=str(answers.resolve()),
            rel_dir=str(pictures.resolve()),
            export_media=False,
            classes=importer._classes,
        )
        with exporter:
            for number, (file, _, _) in enumerate(found[:4]):
                label = importer._classes[number % len(importer._classes)]
                exporter.export_sample(file, fo.Classification(label=label))
    return len(found)


def cleanlab(path: Path, _: Path | None, __: Path | None) -> int:
    """Find label issues."""
    import numpy as np
    import pandas as pd
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    if path.suffix == ".npz":
        file = np.load(path, allow_pickle=False)
        labels, proba = file["labels"], file["pred_probs"]
    else:
        table = pd.read_csv(path)
        labels, proba = table.pop("label").to_numpy(), table.drop(columns="id").to_numpy()
    issues = find_label_issues(labels, proba)
    assert get_label_quality_scores(labels, proba).shape == labels.shape
    print(f"{issues.mean():.1%} of the labels are issues")
    return len(labels)


TOOLS = {
    "label-studio": label_studio,
    "argilla": argilla,
    "fiftyone": fiftyone,
    "cleanlab": cleanlab,
}


def main() -> None:
    """Load a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("file", type=Path)
    parser.add_argument("--answers", type=Path)
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    n_samples = TOOLS[options.tool](options.file, options.answers, options.pictures)
    print(f"{options.tool}: {n_samples:,} samples read by its own package")


if __name__ == "__main__":
    main()
