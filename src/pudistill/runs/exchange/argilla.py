"""Records for Argilla, with the corrected labels as suggestions.

The file is what ``dataset.records.from_json`` reads; the settings of the data set lie beside it, as
``Settings.from_json`` reads them. Format: https://docs.argilla.io/latest/how_to_guides/record/
"""

import json
import math
from pathlib import Path
from typing import Any

from pudistill.data.tool_exports import QUESTION
from pudistill.runs.exchange.samples import IMAGE, SUGGESTED_BY, Sample, Samples, beside
from pudistill.runs.folder import Run
from pudistill.utils.files import write_atomic


def write(_: Run, samples: Samples, output: Path) -> str:
    """Write records as JSON, and the settings of their data set beside them."""
    records = [_record(sample, samples) for sample in samples]
    settings = beside(output, f"{output.stem}-settings.json")
    write_atomic(settings, json.dumps(settings_of(samples), indent=1).encode())
    write_atomic(output, json.dumps(records, ensure_ascii=False, indent=1).encode())
    return (
        f"rg.Settings.from_json({str(settings)!r}) are the settings of the data set; "
        f"dataset.records.from_json({str(output)!r}) adds the records."
    )


def settings_of(samples: Samples) -> dict[str, Any]:
    """Return the settings of a data set that shows the samples and asks for one class."""
    options = [{"value": name, "text": name, "description": None} for name in samples.choices]
    question = {
        "type": "label_selection",
        "options": options,
        "visible_options": len(options) if len(options) >= 3 else None,
    }
    field = {"type": samples.kind} | ({"use_markdown": False} if samples.kind != IMAGE else {})
    metadata = {"given": "terms", "part": "terms", "weight": "float", "confidence": "float"}
    return {
        "guidelines": "Which class is right?",
        "allow_extra_metadata": True,
        "distribution": {"strategy": "overlap", "min_submitted": 1},
        "fields": [
            {"name": samples.kind, "title": samples.kind, "required": True, "settings": field}
        ],
        "questions": [
            {
                "name": QUESTION,
                "title": "Which class is right?",
                "description": None,
                "required": True,
                "settings": question,
            }
        ],
        "vectors": [],
        "metadata": [
            {
                "name": name,
                "title": name,
                "settings": {"type": kind},
                "visible_for_annotators": name == "given",
            }
            for name, kind in metadata.items()
        ],
    }


def _record(sample: Sample, samples: Samples) -> dict[str, Any]:
    suggestion: dict[str, Any] = {"value": sample.label, "agent": SUGGESTED_BY}
    metadata = dict(sample.draw)
    if sample.given is not None:
        metadata["given"] = sample.given
    if not math.isnan(sample.confidence):
        suggestion["score"] = metadata["confidence"] = round(sample.confidence, 6)
    content = sample.content if sample.file is None else str(sample.file.absolute())
    return {
        "id": sample.id,
        "fields": {samples.kind: content},
        "metadata": metadata,
        "suggestions": {QUESTION: suggestion},
        "responses": {},
        "vectors": {},
        "status": "pending",
    }
