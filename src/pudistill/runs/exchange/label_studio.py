"""Tasks for Label Studio, with the corrected labels as predictions.

Formats: https://labelstud.io/guide/predictions, and https://labelstud.io/guide/storage of files.
"""

import json
import math
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from pudistill.data.tool_exports import QUESTION, SAMPLE_ID
from pudistill.runs.exchange.samples import IMAGE, SUGGESTED_BY, Sample, Samples, beside
from pudistill.runs.folder import Run
from pudistill.utils.files import write_atomic


def write(_: Run, samples: Samples, output: Path) -> str:
    """Write tasks as JSON, and the labelling interface beside them as XML."""
    tasks = [_task(sample, samples) for sample in samples]
    config = beside(output, f"{output.stem}.xml")
    write_atomic(config, labelling_interface(samples).encode())
    write_atomic(output, json.dumps(tasks, ensure_ascii=False, indent=1).encode())
    hint = ""
    if samples.folder is not None:
        hint = f" Serve the pictures with LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={samples.folder}."
    return f"Paste {config} as the labelling interface of the project.{hint}"


def labelling_interface(samples: Samples) -> str:
    """Return the XML of a project that shows the samples and asks for one class."""
    shows = "Image" if samples.kind == IMAGE else "Text"
    choices = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in samples.choices)
    return (
        f'<View>\n  <{shows} name="{samples.kind}" value="${samples.kind}"/>\n'
        f'  <Choices name="{QUESTION}" toName="{samples.kind}" choice="single" showInline="true">\n'
        f"{choices}  </Choices>\n</View>\n"
    )


def _task(sample: Sample, samples: Samples) -> dict[str, Any]:
    place = sample.content
    if samples.folder is not None:
        place = f"/data/local-files/?d={quote(sample.id)}"
    data = {samples.kind: place, SAMPLE_ID: sample.id, "given": sample.given} | sample.draw
    choice = {
        "from_name": QUESTION,
        "to_name": samples.kind,
        "type": "choices",
        "value": {"choices": [sample.label]},
    }
    prediction: dict[str, Any] = {"model_version": SUGGESTED_BY, "result": [choice]}
    if not math.isnan(sample.confidence):
        prediction["score"] = round(sample.confidence, 6)
    return {"data": data, "predictions": [prediction]}
