"""Run folders: everything that a command leaves behind, each piece written whole or not at all.

A run folder holds ``labels.csv`` and ``labels.parquet``, ``model/``, ``metrics.json``,
``config.toml``, ``history.csv`` and ``report.html``, and in ``units/`` finished stages under keys
that say what they were computed from, so that they need not be computed again.
"""

import inspect
import io
import json
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import joblib
import numpy as np
import pandas as pd
import tomli_w

from pudistill import __version__
from pudistill.atomic import write_atomic
from pudistill.calibration import Temperature
from pudistill.exceptions import InputError, torch_extra
from pudistill.learners import Mixture

FORMAT = 3

# What a stored scikit-learn learner may be made of besides what skops trusts on its own. These
# classes hold numbers and other learners; building one runs nothing that the file chose.
STORABLE_TYPES = [
    "numpy.dtype",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.link.MultinomialLogit",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn._loss.loss.HalfMultinomialLoss",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
]


class Run:
    """A run folder.

    Parameters
    ----------
    path : Path
        The folder, which exists; see `create` and `open`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from pudistill.runs import Run
    >>> run = Run.create(Path(tempfile.mkdtemp()) / "run", {"seed": 0})
    >>> run.write_json("metrics.json", {"test_accuracy": {"pudistill": 0.97}})
    >>> run.read_json("metrics.json")["test_accuracy"]
    {'pudistill': 0.97}
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def check_free(cls, path: Path, config: dict[str, Any]) -> None:
        """Refuse a path at which something exists, unless it is the same run, interrupted."""
        if not path.exists() or cls(path)._is_interrupted(config):
            return
        if (path / "run.json").exists():
            kind = "a run" if cls(path)._is_finished() else "an unfinished run with other settings"
            raise InputError(f"{path} already holds {kind}: choose another --output folder.")
        if not path.is_dir() or any(path.iterdir()):
            raise InputError(f"{path} already exists and is not empty: choose another --output.")

    @classmethod
    def create(cls, path: Path, config: dict[str, Any]) -> "Run":
        """Make a new run folder, or go on in that of the same run if it was interrupted.

        Parameters
        ----------
        path : Path
            The folder.
        config : dict
            What ``config.toml`` is to hold.

        Returns
        -------
        run : Run
            The run.

        Raises
        ------
        InputError
            If something else is in the way, or the folder cannot be written to.
        """
        cls.check_free(path, config)
        run = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            run.write_json("run.json", {"format": FORMAT})
            run.write_toml("config.toml", config)
        except OSError as error:
            raise InputError(f"Cannot write to {path}: {error.strerror}.") from error
        return run

    @classmethod
    @contextmanager
    def begin(cls, path: Path, config: dict[str, Any]) -> Iterator["Run"]:
        """Create a run; if the data or settings turn out wrong, a new one leaves no trace."""
        is_new = not (path / "run.json").exists()
        run = cls.create(path, config)
        try:
            yield run
        except InputError:
            if is_new and not run.units.folder.exists():  # what was finished is kept
                run.discard()
            raise

    def _is_interrupted(self, config: dict[str, Any]) -> bool:
        names = ("run.json", "config.toml")
        if not all((self.path / name).is_file() for name in names) or self._is_finished():
            return False
        return self.read_toml("config.toml") == config

    def _is_finished(self) -> bool:
        return (self.path / "metrics.json").is_file()

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Open a finished run folder; an `InputError` says why where it is none."""
        run = cls(Path(path))
        if not (run.path / "run.json").is_file():
            raise InputError(f"{path} holds no run: name a folder that `pudistill fit` wrote.")
        version = run.read_json("run.json").get("format")
        if version != FORMAT:
            raise InputError(
                f"{path} was written in format {version}, this version reads format {FORMAT}: "
                "install the version of pudistill that wrote it."
            )
        if not run._is_finished():
            raise InputError(f"The run in {path} did not finish: give the same command again.")
        return run

    def discard(self) -> None:
        """Remove a run that could not be finished."""
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def units(self) -> "Units":
        """Where finished stages are kept."""
        return Units(self.path / "units")

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file of the run."""
        write_atomic(self.path / name, content)

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file of the run."""
        self.write_bytes(name, json.dumps(content, indent=2).encode())

    def write_toml(self, name: str, content: dict) -> None:
        """Write a TOML file of the run."""
        self.write_bytes(name, tomli_w.dumps(content).encode())

    def write_table(self, stem: str, table: pd.DataFrame) -> None:
        """Write a table of the run as CSV and as parquet."""
        self.write_bytes(f"{stem}.csv", table.to_csv(index=False).encode())
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        self.write_bytes(f"{stem}.parquet", buffer.getvalue())

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Write arrays of the run."""
        self.write_bytes(name, _npz(arrays))

    def read_json(self, name: str) -> Any:
        """Read a JSON file of the run."""
        return self._read(name, lambda path: json.loads(path.read_bytes()))

    def read_toml(self, name: str) -> dict:
        """Read a TOML file of the run."""
        return self._read(name, lambda path: tomllib.loads(path.read_text()))

    def read_table(self, stem: str) -> pd.DataFrame:
        """Read a table of the run."""
        return self._read(f"{stem}.parquet", pd.read_parquet)

    def read_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Read arrays of the run."""
        return self._read(name, _load_npz)

    def _read(self, name: str, read: Callable[[Path], Any]) -> Any:
        path = self.path / name
        try:
            return read(path)
        except Exception as error:  # whatever a damaged file makes a reader raise
            raise InputError(f"{path} is missing or damaged ({error}): fit again.") from error

    def write_model(self, classifier: Any, feature_names: Sequence[str] | None = None) -> None:
        """Store what predicting needs: networks as safetensors, other learners by skops."""
        folder = Path(tempfile.mkdtemp(prefix=".model-", dir=self.path))
        student = getattr(classifier, _model_attribute(classifier))
        members = student.members if isinstance(student, Mixture) else [student]
        params = classifier.get_params(deep=False)
        meta = {
            "class": type(classifier).__name__,
            "params": {name: params[name] for name in params if _is_scalar(params[name])},
            "classes": classifier.classes_.tolist(),
            "n_features_in": getattr(classifier, "n_features_in_", None),
            "feature_names_in": list(getattr(classifier, "feature_names_in_", feature_names or [])),
            "picture_shape": getattr(classifier, "_picture_shape", None),
            "learners": [_write_learner(folder, n, member) for n, member in enumerate(members)],
        }
        if isinstance(student, Mixture):
            sharpness = [temperature.sharpness for temperature in student.temperatures]
            meta["mixture"] = {"weights": student.weights, "sharpness": sharpness}
        write_atomic(folder / "model.json", json.dumps(meta, indent=2).encode())
        folder.chmod(0o755)
        shutil.rmtree(self.path / "model", ignore_errors=True)  # of the same run, interrupted
        folder.rename(self.path / "model")

    def read_model(self, module: Any = None) -> Any:
        """Load the classifier; see `load`."""
        try:
            return self._build_classifier(self.read_json("model/model.json"), module)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self.path / 'model' / 'model.json'} is damaged ({error!r}): fit again."
            ) from error

    def _build_classifier(self, meta: dict[str, Any], module: Any) -> Any:
        classifier = _classifier_class(meta["class"])(**meta["params"])
        learners = [
            self._read_learner(n, learner, module) for n, learner in enumerate(meta["learners"])
        ]
        model = learners[0]
        if mixture := meta.get("mixture"):
            temperatures = [Temperature(sharpness) for sharpness in mixture["sharpness"]]
            model = Mixture(learners, mixture["weights"], temperatures, len(meta["classes"]))
        setattr(classifier, _model_attribute(classifier), model)
        names = all(isinstance(label, str) for label in meta["classes"])
        classifier.classes_ = np.array(meta["classes"], dtype=object if names else None)
        if meta["n_features_in"]:
            classifier.n_features_in_ = meta["n_features_in"]
        if meta["feature_names_in"]:
            classifier.feature_names_in_ = np.array(meta["feature_names_in"], dtype=object)
        classifier._fitted_on_frame = False
        classifier._picture_shape = meta["picture_shape"] and tuple(meta["picture_shape"])
        return classifier

    def _read_learner(self, n: int, network: dict | None, module: Any) -> Any:
        if network is None:
            return self._read(f"model/learner-{n}.skops", _load_skops)
        with torch_extra():
            import safetensors.numpy

            from pudistill.learners.torch_classifier import TorchClassifier

        arrays = self._read(f"model/learner-{n}.safetensors", safetensors.numpy.load_file)
        return TorchClassifier.from_state(arrays, network, module=module)


def load(path: str | Path, *, module: Any = None) -> Any:
    """Load the classifier of a finished run.

    Parameters
    ----------
    path : str or Path
        A run folder, as written by ``pudistill fit``.
    module : callable, default=None
        The network's factory, where the run was made with one of your own: code is never
        imported because a file names it.

    Returns
    -------
    classifier : PUDistillClassifier
        Fitted, with `label_table_` as in ``labels.parquet``.

    Raises
    ------
    InputError
        If the folder holds no finished run or one of its files is damaged.
    """
    run = Run.open(Path(path))
    classifier = run.read_model(module)
    classifier.label_table_ = run.read_table("labels")
    return classifier


def check_storable(learner: Any, X: Any, codes: np.ndarray) -> None:
    """Refuse a learner that cannot be stored, before hours are spent on it.

    Parameters
    ----------
    learner : classifier
        The student.
    X : samples
        Samples to fit a copy on.
    codes : ndarray of shape (n_samples,), int
        Their classes.

    Raises
    ------
    InputError
        If neither safetensors nor skops can hold it; the message names the type.
    """
    if _is_network(learner):
        from pudistill.learners import torch_classifier

        torch_classifier.check_storable(learner)
        return
    from pudistill.learners import Training, train
    from pudistill.pseudo_labels import one_hot

    skops_io = _skops_io()
    name = type(learner).__name__
    targets = one_hot(codes, int(codes.max()) + 1)
    try:
        fitted = train(Training(learner, X, targets, role="student", seed=0))
    except Exception as error:  # whatever a learner of the user's choice raises
        raise InputError(
            f"{name} cannot be fitted on the trusted samples ({error}): choose another learner."
        ) from error
    try:
        content = skops_io.dumps(fitted)
        unknown = skops_io.get_untrusted_types(data=content)
    except Exception as error:  # skops raises whatever the object's own state makes it raise
        raise InputError(
            f"{name} cannot be stored by skops ({error}): choose another learner."
        ) from error
    unknown = sorted(set(unknown) - set(STORABLE_TYPES))
    if unknown:
        raise InputError(
            f"{name} cannot be stored safely, because it holds "
            f"{', '.join(unknown[:3])}: choose another learner."
        )


def _write_learner(folder: Path, n: int, learner: Any) -> dict | None:
    """Store one learner; what else a network needs to be built again is returned."""
    if not _is_network(learner):
        write_atomic(folder / f"learner-{n}.skops", _skops_io().dumps(learner))
        return None
    with torch_extra():
        import safetensors.numpy

    arrays, network = learner.to_state()
    write_atomic(folder / f"learner-{n}.safetensors", safetensors.numpy.save(arrays))
    return network


def _classifier_class(name: str) -> type:
    """Find a classifier of the package by its name: nothing else that a file names is used."""
    from pudistill import methods
    from pudistill.classifier import PUDistillClassifier

    if name == PUDistillClassifier.__name__:
        return PUDistillClassifier
    if name not in methods.METHODS.values():
        raise KeyError(name)
    return getattr(methods, name)


def _model_attribute(classifier: Any) -> str:
    return "student_" if hasattr(type(classifier), "fit_student") else "model_"


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _is_network(learner: Any) -> bool:
    return hasattr(learner, "to_state")


def _load_skops(path: Path) -> Any:
    return _skops_io().load(path, trusted=STORABLE_TYPES)


def _skops_io() -> ModuleType:
    """Import skops, but not PyTorch with it.

    skops walks through all of scikit-learn, whose bridge to PyTorch it imports on the way where
    PyTorch is installed: three quarters of the time, for nothing.
    """
    hides = "torch" not in sys.modules and "skops.io" not in sys.modules
    if hides:
        sys.modules["torch"] = None  # type: ignore[assignment]  # so that importing it fails
    try:
        import skops.io
    finally:
        if hides:
            del sys.modules["torch"]
    return skops.io


class Units:
    """Finished stages, kept as arrays under a hash of everything they were computed from.

    It has joblib.Memory's interface, as far as an estimator's `memory` needs it, without pickles.

    Parameters
    ----------
    folder : Path
        Where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()  # workers may have another working directory

    def cache(self, func: Callable, ignore: Sequence[str] = ()) -> Callable:
        """Wrap a function that returns a NamedTuple of arrays, so that it runs once per input.

        Parameters
        ----------
        func : callable
            Its return annotation is the NamedTuple.
        ignore : sequence of str
            Parameters that do not change the result.

        Returns
        -------
        cached : callable
            The same function.
        """
        signature = inspect.signature(func)
        result_type = get_type_hints(func)["return"]

        def cached(*args: Any, **kwargs: Any) -> Any:
            inputs = signature.bind(*args, **kwargs).arguments
            for name in ignore:
                inputs.pop(name, None)
            key = joblib.hash((__version__, func.__module__, func.__qualname__, inputs))
            path = self.folder / f"{func.__name__.strip('_')}-{key}.npz"
            try:
                return result_type(**_load_npz(path))
            except Exception:  # missing or damaged: it is computed, again
                result = func(*args, **kwargs)
                self.folder.mkdir(exist_ok=True)
                write_atomic(path, _npz(result._asdict()))
                return result

        return cached


def _npz(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _load_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
