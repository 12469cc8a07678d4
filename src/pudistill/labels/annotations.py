"""Checks of labels that several sources gave."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import issparse

from pudistill.data.annotations import Annotations
from pudistill.data.frames import as_frame
from pudistill.data.names import NO_CLASS_LABEL
from pudistill.exceptions import DataWarning, InputError, TrustedWarning, warn_user
from pudistill.labels.alignment import aligned
from pudistill.labels.checks import MISSING, Labels, check_labels
from pudistill.labels.sources import Sources
from pudistill.utils.shown import listed, shown

NO_NOISE_GROUPS = (
    "noise_groups are for labels of one source, and there are several, each with noise of its own: "
    "leave them out, or make a source of each group of a source."
)


def has_several_sources(y: Any) -> bool:
    """Return whether given labels are those of several sources, a column for each."""
    if isinstance(y, Annotations):
        return True
    if isinstance(y, list | tuple):
        shapes = {np.shape(row) for row in y}
        return len(shapes) == 1 and len(shape := shapes.pop()) == 1 and shape[0] > 1
    shape = getattr(y, "shape", ())
    return len(shape) == 2 and shape[1] > 1


def check_given(y: Any, trusted: Any = None, **options: Any) -> Labels:
    """Check labels of one source or of several, by `check_labels` or `check_annotations`."""
    check = check_annotations if has_several_sources(y) else check_labels
    return check(y, trusted, **options)


def check_annotations(
    y: Any,
    trusted: Any = None,
    *,
    index: pd.Index | None = None,
    every_class: bool = True,
    no_class_label: Any = NO_CLASS_LABEL,
) -> Labels:
    """Convert labels of several sources, and trusted samples, to codes.

    Parameters
    ----------
    y : Annotations, or array-like or DataFrame of shape (n_samples, n_sources)
        Labels of several sources. A source that contradicts itself on a sample counts as silent
        there, with a warning.
    trusted, index, every_class, no_class_label
        As for `check_labels`. A mask can only mark samples whose sources agree. ``None``: nothing
        is verified.

    Returns
    -------
    labels : Labels
        The labels; `given` is the majority vote of the sources, see `Annotations.vote`.

    Raises
    ------
    InputError
        If a source gives a label that is no class: neither verified nor the majority's for any
        sample; or as for `check_labels`.
    """
    if issparse(y):
        raise InputError(
            "y is a sparse matrix, in which silence and the class 0 are the same: pass Annotations."
        )
    if not isinstance(y, Annotations):
        y = aligned("y", as_frame(y), index, np.shape(y)[0] if index is None else len(index))
        y = Annotations.from_columns(y)
    y = _checked(y, no_class_label, index)
    given = y.vote()
    verified = pd.Series(np.asarray(trusted, dtype=object).ravel())
    if (verified[verified.notna()] == -1).any():
        raise InputError(
            "-1 is among the verified labels, but in labels of several sources -1 means that a "
            "source gave none: rename that class."
        )
    if trusted is None:
        has_vote = given != None  # noqa: E711 (of each entry)
        labels = check_labels(given, has_vote, for_fit=False, no_class_label=no_class_label)
        nothing = np.zeros(y.n_samples, dtype=bool)
        unknown = np.full(y.n_samples, MISSING)
        labels = replace(labels, trusted=nothing, verified=unknown, from_mask=False)
        if labels.n_classes < 2:
            raise InputError(
                f"There is only one class, {shown(labels.classes[0])}: a classifier needs two "
                "classes or more (-1 means that a source is silent)."
            )
    else:
        labels = check_labels(
            given, trusted, index=index, every_class=every_class, no_class_label=no_class_label
        )
        if labels.from_mask:
            _check_agreement(y, labels.trusted, index)
    codes, names = y.codes()
    known = {name: code for code, name in enumerate(labels.classes.tolist())}
    code_of = np.array([known.get(name, MISSING) for name in names.tolist()])
    if (unknown := code_of[codes] == MISSING).any():
        n = np.flatnonzero(unknown)[0]
        row = y.rows[n] if index is None else index[y.rows[n]]
        raise InputError(
            f"Source {shown(y.names[y.source[n]])} says {shown(y.label[n])} of sample {row}, which "
            "is no class: no sample was verified to be of it, and for none it has the majority. "
            "Correct the label, verify a sample of it, or remove it."
        )
    said = y.one_hot(code_of[codes], labels.n_classes)
    return replace(labels, sources=Sources(np.array(y.names, dtype=object), said))


def _checked(y: Annotations, no_class_label: Any, index: pd.Index | None) -> Annotations:
    """Leave out annotations that say nothing, and sources that are silent or said no class."""
    kept = np.arange(len(y.rows))
    is_text = isinstance(no_class_label, str)
    if no_class_label is not None and (not is_text or y.label.dtype.kind not in "iufb"):
        kept = np.flatnonzero([label != no_class_label for label in y.label.tolist()])
    if n := len(y.rows) - len(kept):
        warn_user(
            f"{n:,} labels of sources are {shown(no_class_label)}, which is not a class: these "
            "sources count as silent there.",
            TrustedWarning,
        )
    y = y.only(kept)
    once, is_torn = y.consistent()
    if is_torn.any():
        first = np.flatnonzero(is_torn)[0]
        row = y.rows[first]
        n = len({*zip(y.rows[is_torn].tolist(), y.source[is_torn].tolist(), strict=True)})
        warn_user(
            f"Sources contradict themselves {n:,} times, such as source "
            f"{shown(y.names[y.source[first]])} of sample {row if index is None else index[row]}: "
            "they are silent there.",
            DataWarning,
        )
    y = y.only(once)
    speaks = np.bincount(y.source, minlength=len(y.names)) > 0
    if not speaks.any():
        raise InputError("No source says anything of any sample: there are no given labels.")
    if not speaks.all():
        silent = [name for name, spoke in zip(y.names, speaks, strict=True) if not spoke]
        warn_user(f"These sources never speak and are left out: {listed(silent)}.", DataWarning)
        names = [name for name, spoke in zip(y.names, speaks, strict=True) if spoke]
        y = replace(y, names=names, source=(np.cumsum(speaks) - 1)[y.source])
    return y


def _check_agreement(y: Annotations, trusted: np.ndarray, index: pd.Index | None) -> None:
    """Raise an `InputError` if a sample is marked as right whose sources disagree."""
    (codes, _), is_marked = y.codes(), trusted[y.rows]
    said = pd.DataFrame({"row": y.rows[is_marked], "code": codes[is_marked]}).drop_duplicates()
    disagree = said["row"][said.duplicated("row")]
    if len(disagree):
        row = disagree.iloc[0]
        raise InputError(
            f"Sample {row if index is None else index[row]} is marked as right, but its sources "
            "disagree: pass the verified labels as `trusted` in place of marks."
        )
