"""A table for a spreadsheet, with an empty column for verified labels."""

from pathlib import Path

import pandas as pd

from pudistill.data.tables import VERIFIED_LABEL
from pudistill.exceptions import InputError
from pudistill.runs.exchange.samples import IMAGE, Samples
from pudistill.runs.folder import Run, to_csv
from pudistill.utils.files import write_atomic


def write(_: Run, samples: Samples, output: Path) -> str:
    """Write a row for each sample."""
    if samples.kind == IMAGE and samples.folder is None:
        raise InputError(
            f"A spreadsheet cannot show the pictures of {samples.name}, which have no files: use "
            "--to label-studio or --to argilla."
        )
    rows = [
        {
            "id": sample.id,
            samples.kind: sample.content if sample.file is None else str(sample.file.absolute()),
            "given": sample.given,
            "suggested": sample.label,
            "confidence": sample.confidence,
            **sample.draw,
            VERIFIED_LABEL: None,
        }
        for sample in samples
    ]
    write_atomic(output, to_csv(pd.DataFrame(rows)).encode())
    return f"Fill in the column {VERIFIED_LABEL}; rows that stay empty count as not verified."
