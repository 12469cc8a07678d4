"""Certified labels of a run: what its report shows, and the command `pudistill certify`."""

from typing import Any

import numpy as np
import pandas as pd

from pudistill.classifier import PUDistillClassifier
from pudistill.distillation.certified_labels import CertifiedLabels, certify, judged_curve
from pudistill.distillation.held_out_labels import HeldOutLabels
from pudistill.estimates.certificates import accept
from pudistill.exceptions import InputError
from pudistill.labels.checks import MISSING
from pudistill.runs.folder import Run

FILE = "held_out_labels.npz"
ROUNDING = 1e-6  # of single precision, in which scores are stored
MAX_ERRORS = (0.01, 0.02, 0.05, 0.1)  # of which the report says how many labels can be used


def write_held_out_labels(run: Run, classifier: PUDistillClassifier) -> None:
    """Write what labels of a run are certified by."""
    held_out = classifier.held_out_labels_
    if held_out is None:
        return
    names = np.array([str(name) for name in classifier.label_arrays_.names])
    arrays = {
        name: np.array("" if value is None else value)
        for name, value in vars(held_out).items()
        if value is not None or name == "doubt"
    }
    run.write_arrays(FILE, arrays | {"names": names})


def read_held_out_labels(run: Run) -> tuple[HeldOutLabels, np.ndarray]:
    """Read what labels of a run are certified by, and the names of the labels.

    Raises
    ------
    InputError
        If the file is damaged, or an array cannot be what its name says.
    """
    stored = run.read_arrays(FILE)
    if (wrong := _implausible(stored)) is not None:
        raise InputError(
            f"{run.path / FILE} is damaged, because its array {wrong!r} is missing or holds values "
            "that cannot be: restore a copy of it."
        )
    held_out = HeldOutLabels(
        label=stored["label"],
        score=stored["score"],
        worth=float(stored["worth"]),
        doubt=str(stored["doubt"]) or None,
        draw_weight=stored.get("draw_weight"),
        draw_order=stored.get("draw_order"),
        given_score=stored.get("given_score"),
    )
    return held_out, stored["names"].astype(object)


def _implausible(stored: dict[str, np.ndarray]) -> str | None:
    """Return the name of an array that cannot be what `write_held_out_labels` has written."""
    missing = {"label", "names", "score", "worth", "doubt"} - stored.keys()
    if missing:
        return min(missing)
    n, n_names = len(np.atleast_1d(stored["label"])), stored["names"].size
    types = {"label": "i", "draw_order": "iuf", "names": "U", "doubt": "U"}
    shapes: dict[str, tuple[int, ...]] = {"names": (n_names,), "worth": (), "doubt": ()}
    ranges = {
        "label": (MISSING, n_names - 1),
        "score": (0, 1 + ROUNDING),
        "given_score": (0, 1 + ROUNDING),
        "worth": (np.nextafter(0, 1), 1 + ROUNDING),
        "draw_weight": (0, np.finfo(float).max),
    }
    for name, values in stored.items():
        if values.dtype.kind not in types.get(name, "f") or values.shape != shapes.get(name, (n,)):
            return name
        if name in ranges:
            low, high = ranges[name]
            if ((values < low) | (values > high)).any():  # a missing score is NaN
                return name
    return "worth" if np.isnan(stored["worth"]) else None


def certify_run(
    run: Run, max_error: float, confidence: float
) -> tuple[CertifiedLabels, pd.DataFrame]:
    """Certify the labels of a finished run.

    Parameters
    ----------
    run : Run
        A run of `pudistill fit`.
    max_error, confidence : float in (0, 1)
        See `CertifiedLabels`.

    Returns
    -------
    certified : CertifiedLabels
        The result.
    table : DataFrame
        The label table with the certified labels, and the column ``accepted``.

    Raises
    ------
    InputError
        If the run has nothing that a promise could rest on, or a number is out of range.
    """
    if not run.has(FILE):
        raise InputError(
            f"No label of {run.path} can be certified: it has no {FILE}, which `pudistill fit` "
            "writes with --method default and without verified labels for all samples."
        )
    held_out, names = read_held_out_labels(run)
    table = run.read_table("labels")
    codes = pd.Categorical(table["label"], categories=names).codes.astype(int)
    certified = certify(names, codes, table["trusted"].to_numpy(), held_out, max_error, confidence)
    differs = (table["label"] != certified.labels).to_numpy()
    table.loc[differs, "source"], table.loc[differs, "confidence"] = (
        "student",
        held_out.score[differs],
    )
    table["label"] = certified.labels
    table["changed"] = (table["label"] != table["given"]) & table["given"].notna()
    table["accepted"] = certified.accepted
    return certified, table


def accepted_at(
    label: np.ndarray, trusted: np.ndarray, held_out: HeldOutLabels
) -> np.ndarray | None:
    """Return at which error each corrected label is certified; for the parameters see `certify`.

    Returns
    -------
    position : ndarray of shape (n_samples,), uint8, or None
        Position in `MAX_ERRORS` of the smallest share at which the label is accepted; their
        number if at none. Of verified labels it says nothing. None if no label can be certified.
    """
    try:
        curve = judged_curve(label, trusted, held_out)
    except InputError:
        return None
    position = np.full(len(label), len(MAX_ERRORS), np.uint8)
    for number, max_error in reversed([*enumerate(MAX_ERRORS)]):
        position[held_out.score >= accept(curve, max_error).threshold] = number
    position[held_out.label != label] = len(MAX_ERRORS)
    return position


def accepted_in(run: Run) -> np.ndarray | None:
    """Return `accepted_at` of a run's labels; None if none of them can be certified."""
    if not run.has(FILE):
        return None
    held_out, names = read_held_out_labels(run)

    def read(parts: Any) -> tuple[np.ndarray, np.ndarray]:
        label, trusted = [], []
        for part in parts:
            found = pd.Categorical(part.column("label").to_pandas(), categories=names)
            label.append(found.codes.astype(np.int32))
            trusted.append(part.column("trusted").to_numpy(zero_copy_only=False).astype(bool))
        return np.concatenate(label), np.concatenate(trusted)

    label, trusted = run.read_in_parts("labels", read)
    return accepted_at(label, trusted, held_out)


def certificate_metrics(classifier: PUDistillClassifier) -> dict[str, Any] | None:
    """Return what the report says of certified labels; None without held-out verified samples."""
    table, held_out = classifier.label_arrays_, classifier.held_out_labels_
    if held_out is None:
        return None
    try:
        curve = judged_curve(table.label, table.trusted, held_out)
    except InputError as error:
        return {"refused": str(error)}
    results = []
    for max_error in MAX_ERRORS:
        found = accept(curve, max_error)
        results.append(
            {
                "max_error": max_error,
                "n_accepted": found.n_accepted,
                "n_verified": found.n_verified,
                "n_wrong": found.n_wrong,
                "more_verified": found.more_verified[:3],
            }
        )
    shown = {name: [round(x, 5) for x in column] for name, column in curve.frame().items()}
    return {"n_samples": curve.n_samples, "by_max_error": results, "curve": shown}
