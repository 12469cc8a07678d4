"""Save a fitted classifier as a run folder, load it again, and make its report."""

import copy
import html
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from pudistill.classifier import PUDistillClassifier
from pudistill.data.columns import is_whole, object_array
from pudistill.data.options import ReadOptions, ReadSettings
from pudistill.data.results import Source
from pudistill.exceptions import DataNotice, InputError, warn_user
from pudistill.labels.table import LabelTable
from pudistill.learners.base import NoisyLabelClassifier
from pudistill.methods.registry import METHODS
from pudistill.pu_filter.one_class import HISTORY_COLUMNS
from pudistill.runs.certificates import MAX_ERRORS, accepted_at, write_held_out_labels
from pudistill.runs.environment import versions
from pudistill.runs.folder import ROWS_WRITTEN_AT_ONCE, SAVE, Run
from pudistill.runs.learned import restore_results, write_learned
from pudistill.runs.measures import own_metrics, table_metrics
from pudistill.runs.models import own_network_in
from pudistill.runs.report.changes import Changes
from pudistill.runs.report.counts import count_labels
from pudistill.runs.report.html import RunSummary, render
from pudistill.runs.settings import Settings
from pudistill.runs.summary import IN_PYTHON
from pudistill.utils.files import TEMPORARY, write_atomic
from pudistill.utils.shown import shown

if TYPE_CHECKING:
    from pudistill.learners.networks.architectures import NetworkFactory

PAGE_HEIGHT = 640  # px of a report in a notebook


def load(path: str | Path, *, module: "NetworkFactory | None" = None) -> NoisyLabelClassifier:
    """Load the classifier of a finished run, or one that `save` has written.

    Parameters
    ----------
    path : str or Path
        The folder.
    module : callable or nn.Module, default=None
        Your own network, or the class or function that builds it, if the run used one. You have to
        pass it, because code is never imported only because a file names it.

    Returns
    -------
    classifier : PUDistillClassifier, or the class of another method
        A classifier that can predict, with the label table. A `PUDistillClassifier` also has the
        attributes of its fit that the folder holds: ``noise_``, ``comparison_``, ``shipped_``,
        ``expected_accuracy_``, ``label_accuracy_``, ``held_out_labels_`` (so that `certify` works),
        ``filter_`` (without its members), ``n_iter_``, ``cut_short_``, and what ``warm_start``
        needs. ``teachers_`` and ``targets_`` are not stored, and neither are learners that were
        passed as parameters: pass them with ``set_params`` before you call ``fit`` again, which
        says so. Its method `to_datasets` returns the data of a run with the
        corrected labels. What `save` wrote has labels of the type that they had. Those of a run
        of the command line are texts, also if they are numbers in the data: ``classes_`` is then
        ``['0', '1', '10', '2']``, and predictions equal ``y.astype(str)``, not ``y``.

    Raises
    ------
    InputError
        If the folder holds no finished run, or a file is damaged.

    Warns
    -----
    DataNotice
        If labels of a run of the command line are whole numbers, which are texts here.

    See Also
    --------
    save : Write such a folder.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import pudistill
    >>> y = np.arange(60) % 2
    >>> X = y[:, None] + np.random.default_rng(0).normal(size=(60, 2)) / 5
    >>> classifier = pudistill.PUDistillClassifier(random_state=0, compare=False)
    >>> classifier = classifier.fit(X, y, trusted=np.arange(60) < 20)
    >>> folder = pudistill.save(classifier, Path(tempfile.mkdtemp()) / "pets")
    >>> loaded = pudistill.load(folder)
    >>> bool((loaded.predict(X) == y).all()), loaded.noise_.basis
    (True, 'bound')
    """
    run = Run.open_fit(_checked(path))
    classifier, config = run.read_model(module), run.read_config()
    _restore_results(run, classifier)
    settings = {name: config[name] for name in ReadSettings.model_fields if name in config}
    if "data" in config:
        _say_if_numbers_are_texts(path, classifier.classes_)
        classifier.source_ = Source(
            config["data"], ReadOptions.read(settings), "noise" not in config
        )
    return classifier


def _restore_results(run: Run, classifier: NoisyLabelClassifier) -> None:
    try:
        restore_results(run, classifier)
    except InputError:
        raise
    except Exception as error:  # what somebody else wrote can raise anything
        raise InputError(
            f"{run.path} holds results that cannot be read ({type(error).__name__}: {error}): "
            "restore a copy of it."
        ) from error


def _checked(path: str | Path) -> Path:
    if "\0" in str(path):
        raise InputError(f"{str(path)!r} is no path, because it holds a null character: remove it.")
    return Path(path)


def _say_if_numbers_are_texts(path: str | Path, classes: np.ndarray) -> None:
    """Issue a notice, because numbers equal no text, and so all predictions would seem wrong."""
    if all(isinstance(name, str) and is_whole(name) for name in classes.tolist()):
        warn_user(
            f"The labels of {path} are texts, such as {shown(classes[0])}, also if they are "
            "numbers in the data: compare its predictions with y.astype(str).",
            DataNotice,
        )


def save(classifier: NoisyLabelClassifier, folder: str | Path) -> Path:
    """Write a fitted classifier as a run folder, which `load` and the command line read.

    Parameters
    ----------
    classifier : PUDistillClassifier, or an object of another class of `pudistill.methods`
        A fitted classifier.
    folder : str or Path
        The folder, which must not exist. It is written completely or not at all.

    Returns
    -------
    folder : Path
        The folder. It holds the files of `pudistill fit`, except what only the command line knows:
        where the data are, and its log. ``pudistill predict``, ``certify`` and ``report`` work on
        it; commands that read the data again, such as ``review`` and ``apply``, say that they
        cannot. In its tables, labels are texts, and ids are the index of the samples as texts.
        After `load`, an index is one of whole numbers if all of its entries look like such, also if
        they were texts; dates and all other entries are texts. Methods other than
        `PUDistillClassifier` keep no label table: only their model is stored.

    Raises
    ------
    InputError
        If the folder exists or cannot be written, or the classifier is of a class of your own or
        contains a type that cannot be stored safely.
    NotFittedError
        If the classifier is not fitted.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import pudistill
    >>> y = np.arange(60) % 2
    >>> X = y[:, None] + np.random.default_rng(0).normal(size=(60, 2)) / 5
    >>> classifier = pudistill.PUDistillClassifier(random_state=0, compare=False)
    >>> classifier = classifier.fit(X, y, trusted=np.arange(60) < 20)
    >>> folder = pudistill.save(classifier, Path(tempfile.mkdtemp()) / "pets")
    >>> bool(pudistill.load(folder).noise_.rate == classifier.noise_.rate)
    True
    """
    path, results = _checked(folder), _results_of(classifier)
    if not type(classifier).__module__.startswith("pudistill."):
        raise InputError(
            f"{type(classifier).__name__} is a class of your own, which no folder can hold: fit "
            "and save an object of the class of pudistill that it extends."
        )
    if os.path.lexists(path):
        raise InputError(f"{path} already exists: choose another folder.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(TEMPORARY, f".{path.name}-", path.parent))
        try:
            _write(Run.create(temporary, results.settings, SAVE), classifier, results)
            temporary.chmod(0o755)
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise InputError(f"Cannot write to {path}: {error.strerror or error}.") from error
    return path


@dataclass(frozen=True, repr=False)
class Report:
    """The report of a classifier, which a notebook displays.

    Attributes
    ----------
    html : str
        The page: one HTML document without any external resource.
    path : Path or None
        The file that it was written to.

    Examples
    --------
    >>> from pudistill.runs.saved import Report
    >>> Report("<p>As expected.</p>")
    Report of 19 characters, not written to a file
    """

    html: str
    path: Path | None = None

    def __repr__(self) -> str:
        where = "not written to a file" if self.path is None else f"in {self.path}"
        return f"Report of {len(self.html):,} characters, {where}"

    def _repr_html_(self) -> str:
        # The page has styles and a script of its own, which must not reach those of the notebook.
        return (
            f'<iframe title="pudistill report" srcdoc="{html.escape(self.html)}" '
            'sandbox="allow-scripts allow-downloads" style="width: 100%; border: 0; height: '
            f'{PAGE_HEIGHT}px"></iframe>'
        )


def report(classifier: NoisyLabelClassifier, path: str | Path | None = None) -> Report:
    """Make the report of a fitted classifier, the one that `pudistill fit` writes.

    Parameters
    ----------
    classifier : PUDistillClassifier
        A fitted or loaded classifier. What only a run knows, such as the samples themselves and
        the accuracy on test samples, is left out of the report.
    path : str or Path, default=None
        An HTML file to write, which must not exist.

    Returns
    -------
    report : Report
        A notebook displays it; its ``html`` is the page.

    Raises
    ------
    InputError
        If the file exists, cannot be written or is not called .html, or the classifier keeps no
        label table.

    Examples
    --------
    >>> import numpy as np
    >>> import pudistill
    >>> y = np.arange(60) % 2
    >>> X = y[:, None] + np.random.default_rng(0).normal(size=(60, 2)) / 5
    >>> classifier = pudistill.PUDistillClassifier(random_state=0, compare=False)
    >>> classifier = classifier.fit(X, y, trusted=np.arange(60) < 20)
    >>> "given labels" in pudistill.report(classifier).html
    True
    """
    results, target = _results_of(classifier), None if path is None else _checked(path)
    if results.table is None:
        raise InputError(
            f"A {type(classifier).__name__} keeps no labels to report: use a PUDistillClassifier, "
            "or `pudistill fit --method`, which writes a report for every method."
        )
    if target is not None and target.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{target} is no name of an HTML file: let it end in .html.")
    if target is not None and os.path.lexists(target):
        raise InputError(f"{target} already exists: choose another file.")
    page = _page(classifier, results)
    if target is not None:
        try:
            write_atomic(target, page.encode())
        except OSError as error:
            raise InputError(f"Cannot write to {target}: {error.strerror or error}.") from error
    return Report(page, target)


@dataclass(frozen=True)
class _Results:
    """What a classifier in memory knows of the files of a run."""

    table: LabelTable | None  # with names and ids as texts
    history: pd.DataFrame
    metrics: dict[str, Any]
    settings: dict[str, Any]


def _results_of(classifier: NoisyLabelClassifier) -> _Results:
    if not isinstance(classifier, NoisyLabelClassifier):
        raise InputError(
            "Only a PUDistillClassifier or an object of another class of pudistill.methods is "
            f"stored and reported, and this is a {type(classifier).__name__}: pass one of those."
        )
    check_is_fitted(classifier, classifier._model_name)
    classes, table = [str(name) for name in classifier.classes_], None
    metrics: dict[str, Any] = {"n_classes": len(classes), "classes": classes}
    if hasattr(classifier, "label_arrays_"):
        arrays = classifier.label_arrays_
        ids = arrays.ids
        if ids is None:
            index = pd.RangeIndex(len(arrays)) if arrays.index is None else arrays.index
            ids = object_array(map(str, index))
        names = object_array(str(name) for name in arrays.names)
        table = replace(arrays, names=names, ids=ids, index=None)
        metrics = table_metrics(table, classes)
    history = pd.DataFrame(columns=["class_name", *HISTORY_COLUMNS])
    if isinstance(classifier, PUDistillClassifier):
        metrics |= own_metrics(classifier)
        history = getattr(getattr(classifier, "filter_", None), "history_", history)
    metrics |= {"versions": versions(), "warnings": []}
    return _Results(table, history, metrics, _settings_of(classifier))


def _settings_of(classifier: NoisyLabelClassifier) -> dict[str, Any]:
    """Return the settings of a run that are known: parameters of the same names."""
    params = {**classifier.get_params(deep=False), "no_class_label": classifier.no_class_label}
    seed, no_class_label = params.get("random_state"), params["no_class_label"]
    params |= {
        "seed": seed,
        "no_class_label": None if no_class_label is None else str(no_class_label),
    }
    if not isinstance(classifier, PUDistillClassifier):
        names = {system.class_name: name for name, system in METHODS.items()}
        params["method"] = names.get(type(classifier).__name__)
    return {
        name: params[name]
        for name in Settings.model_fields
        if isinstance(params.get(name), bool | int | float | str)
    }


def _page(classifier: NoisyLabelClassifier, results: _Results) -> str:
    """Return the report."""
    table, held_out = results.table, getattr(classifier, "held_out_labels_", None)
    assert table is not None  # callers have checked it
    accepted = None if held_out is None else accepted_at(table.label, table.trusted, held_out)
    changes = Changes(accepted, MAX_ERRORS)
    starts = range(0, max(len(table), 1), ROWS_WRITTEN_AT_ONCE)
    parts = (table.frame(slice(start, start + ROWS_WRITTEN_AT_ONCE)) for start in starts)
    labels = count_labels(changes.watch(parts))
    return render(
        RunSummary(
            title=IN_PYTHON,
            labels=labels,
            history=results.history,
            metrics=results.metrics,
            settings=results.settings,
            classes=results.metrics["classes"],
            pictures={},
            notes=[],
            changes=changes,
        )
    )


def _write(run: Run, classifier: NoisyLabelClassifier, results: _Results) -> None:
    """Write the files of a run."""
    if results.table is not None:
        run.write_table("labels", results.table)
        run.write_table("history", results.history)
        run.write_arrays("gallery.npz", {})
        run.write_bytes("report.html", _page(classifier, results).encode())
    if isinstance(classifier, PUDistillClassifier):
        write_held_out_labels(run, classifier)
        write_learned(run, classifier)
    run.write_model(classifier)
    run.finish(results.metrics)
    # What could not be read again must not be found out later.
    loaded = copy.copy(classifier)
    if own_network_in(run.read_json("model/model.json")) is None:
        try:
            loaded = run.read_model()
        except InputError as error:
            raise InputError(
                f"This {type(classifier).__name__} cannot be stored safely ({error}): choose "
                "another learner."
            ) from error
    _restore_results(run, loaded)
