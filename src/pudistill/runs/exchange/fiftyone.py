"""Labels for FiftyOne, in the format of its `FiftyOneImageClassificationDataset`.

Format: https://docs.voxel51.com/user_guide/import_datasets.html#fiftyoneimageclassificationdataset
"""

import json
import math
from pathlib import Path, PurePosixPath
from typing import Any

from pudistill.data.tool_exports import SUGGESTED
from pudistill.exceptions import InputError
from pudistill.runs.exchange.samples import Sample, Samples
from pudistill.runs.folder import Run
from pudistill.utils.files import write_atomic
from pudistill.utils.shown import shown


def write(_: Run, samples: Samples, output: Path) -> str:
    """Write the labels as JSON; the pictures stay where they are."""
    if samples.folder is None:
        raise InputError(
            f"FiftyOne reads pictures from files, and those of {samples.name} are none: use "
            "--to label-studio or --to argilla."
        )
    labels: dict[str, Any] = {}
    for sample in samples:
        name = PurePosixPath(sample.id).with_suffix("").as_posix()
        if name in labels:
            raise InputError(
                f"FiftyOne names pictures without their suffix, and there are several "
                f"{shown(name)}: rename one of them."
            )
        labels[name] = _label(sample)
    content = {"classes": samples.choices, "labels": labels}
    write_atomic(output, json.dumps(content, ensure_ascii=False, indent=1).encode())
    return (
        "Load it with fo.Dataset.from_dir(dataset_type=fo.types.FiftyOneImageClassificationDataset,"
        f" data_path={str(samples.folder)!r}, labels_path={str(output)!r})."
    )


def _label(sample: Sample) -> dict[str, Any]:
    attributes = {SUGGESTED: sample.label, "given": sample.given} | sample.draw
    label: dict[str, Any] = {"label": sample.label, "attributes": attributes}
    if not math.isnan(sample.confidence):
        label["confidence"] = round(sample.confidence, 6)
    return label
