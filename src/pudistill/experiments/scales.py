"""The sizes of experiments: data, learner and levels, from digits to CIFAR-10 on a GPU."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pyarrow.parquet import ParquetFile

from pudistill.data.clothing1m import lists_of
from pudistill.data.dataset import TrustedDataset
from pudistill.data.loading import load_dataset
from pudistill.exceptions import InputError
from pudistill.experiments import paper
from pudistill.labels.corruption import CIFAR10_CLASSES, CIFAR10_MAP, FASHION_MNIST_MAP
from pudistill.learners.networks.names import PRETRAINED


class TrainAndTest(NamedTuple):
    """Samples whose labels are all correct, except the training samples of Clothing1M."""

    train: TrustedDataset
    test: TrustedDataset
    edition: str | None = None  # name of the data in the tables, if it depends on the files


@dataclass(frozen=True)
class Scale:
    """The size of an experiment: its data, learner and levels.

    Attributes
    ----------
    load : callable
        Takes the folder of data sets or None, and whether to leave out bad pictures; returns
        `TrainAndTest`.
    edition : str
        Name of the data in the tables.
    levels : tuple of float
        Noise levels, as shares of the whole data set.
    settings : dict
        Values of `CurveSettings`: learner, recipe, size of the filter.
    class_map : dict or None
        The class that asymmetric noise mistakes each class for; ``None``: the next class.
    paper_settings : dict
        Further settings of the paper's method.
    reported_as : str or None
        Name of the data in the paper's tables; ``None`` if the paper has no numbers on them.
    seeds : int
        Number of seeds.
    """

    load: Callable[[Path | None, bool], TrainAndTest]
    edition: str
    levels: tuple[float, ...]
    settings: dict[str, Any]
    class_map: Mapping[Any, Any] | None = None
    paper_settings: Mapping[str, Any] = field(default_factory=dict)
    reported_as: str | None = None
    seeds: int = 1


def find_folder(data: Path | None, name: str) -> Path | None:
    """Find the folder of a data set: `data` itself or a folder in it; None if there is neither."""
    if data is None:
        return None
    folders = (data.resolve() / name, data.resolve())
    return next((path for path in folders if path.name == name and path.is_dir()), None)


def _require_folder(data: Path | None, name: str) -> Path:
    if data is None:
        raise InputError(f"This scale needs data: name the folder that holds {name}/ with --data.")
    folder = find_folder(data, name)
    if folder is None:
        raise InputError(f"There is no folder {name} in {data}: name the folder that holds it.")
    return folder


def _digits(_: Path | None, __: bool) -> TrainAndTest:
    return TrainAndTest(*load_dataset("digits").holdout(0.25, random_state=0))


def _cifar10_features(data: Path | None, _: bool) -> TrainAndTest:
    path = _require_folder(data, "cifar10-features") / "features.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            train, test = (
                _with_correct_labels(file[f"X{part}"].astype(np.float32), file[f"y{part}"])
                for part in ("", "_test")
            )
    except Exception as error:  # a damaged archive raises errors of many types
        raise InputError(
            f"{path}: the arrays X, y, X_test and y_test cannot be read ({error}): fetch it anew."
        ) from error
    return TrainAndTest(train, test)


def _with_correct_labels(X: np.ndarray, y: np.ndarray) -> TrustedDataset:
    if len(X) != len(y):
        raise ValueError(f"{len(X)} samples have {len(y)} labels")
    n = len(y)
    return TrustedDataset(
        X=X,
        y=y.astype(str).astype(object),
        trusted=np.zeros(n, dtype=bool),
        verified=np.full(n, None, dtype=object),
        ids=np.arange(n).astype(str).astype(object),
    )


def _fashion_mnist(data: Path | None, _: bool) -> TrainAndTest:
    folder = _require_folder(data, "fashion-mnist")
    train, test = (load_dataset(_only(folder, f"{part}-images*")) for part in ("train", "t10k"))
    return TrainAndTest(train.take(range(_FASHION_SIZE)), test)


def _cifar10(data: Path | None, skip_bad: bool) -> TrainAndTest:
    """Read the authors' batches, or one parquet file or folder for training and one for test."""
    folder = _require_folder(data, "cifar10")
    for batches in (folder, folder / "cifar-10-batches-py"):
        if (batches / "batches.meta").exists():
            return TrainAndTest(load_dataset(batches), load_dataset(batches / "test_batch"))
    paths = [_only(folder, f"{part}*") for part in ("train", "test")]
    train, test = (load_dataset(path, skip_bad=skip_bad) for path in paths)
    return TrainAndTest(train, test, "CIFAR-10 (JPEG)" if _holds_jpegs(paths[0]) else None)


def _holds_jpegs(table: Path) -> bool:
    """Return whether the pictures of a table are JPEGs, whose compression changed them."""
    file = next(iter(sorted(table.glob("*.parquet"))), table)
    if file.suffix != ".parquet":  # a folder of pictures
        return False
    for batch in ParquetFile(file).iter_batches(1):
        pictures = [value for value in batch.to_pylist()[0].values() if isinstance(value, dict)]
        return bool(pictures) and (pictures[0].get("bytes") or b"").startswith(b"\xff\xd8")
    return False


def _only(folder: Path, pattern: str) -> Path:
    """Find the one file or folder that matches, compressed or not."""
    found = {path.name.removesuffix(".gz"): path for path in sorted(folder.glob(pattern))}
    if not found:
        raise InputError(f"There is no {pattern} in {folder}: fetch the data set anew.")
    if len(found) > 1:
        raise InputError(
            f"{len(found)} files or folders in {folder} match {pattern}: put shards into a folder "
            f"of their own, {pattern.rstrip('*')}/."
        )
    return next(iter(found.values()))


_CODES = {
    str(CIFAR10_CLASSES.index(name)): str(CIFAR10_CLASSES.index(wrong))
    for name, wrong in CIFAR10_MAP.items()
}
_FASHION_SIZE = 20_000  # so that two cores finish all methods within an hour or two
SCALES = {
    "smoke": Scale(
        _digits,
        "scikit-learn's digits",
        (0.3, 0.7),
        {"learner": "mlp", "n_members": 5, "max_iter": 2},
    ),
    "cpu": Scale(
        _cifar10_features,
        "CIFAR-10 (JPEG), features of an ImageNet network",
        (0.3, 0.5, 0.7, 0.9),
        {"learner": "mlp"},
        _CODES,
        reported_as=paper.CIFAR10,
    ),
    "cpu-pictures": Scale(
        _fashion_mnist,
        f"Fashion-MNIST, the first {_FASHION_SIZE:,} training pictures",
        (0.5,),
        {"learner": "small_cnn", "n_members": 10, "max_iter": 3},
        FASHION_MNIST_MAP,
    ),
    "cpu-network": Scale(
        _cifar10,
        "CIFAR-10",
        (0.3, 0.5, 0.7, 0.9),
        {"learner": "slim_airbench", "recipe": "slim", "n_members": 10, "max_iter": 3},
        CIFAR10_MAP,
        reported_as=paper.CIFAR10,
    ),
    "full": Scale(
        _cifar10,
        "CIFAR-10",
        (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        {"learner": "preact_resnet18", "recipe": "paper"},
        CIFAR10_MAP,
        reported_as=paper.CIFAR10,
    ),
}


CLOTHING1M_SIZE = 256  # side of the pictures in pixels; the middle 224 x 224 are used


def clothing1m(data: Path | None, held_out: str) -> Scale | None:
    """Find Clothing1M, whose given labels are noisy by themselves.

    Parameters
    ----------
    data : Path or None
        The folder that holds clothing1m/ and perhaps resnet-50/, the network as the Hugging Face
        hub stores it; without the latter the network is downloaded from the hub.
    held_out : {"val", "test"}
        The part of the clean samples to test on.

    Returns
    -------
    scale : Scale or None
        None if the data are not there.
    """
    folder = find_folder(data, "clothing1m")
    if folder is None:
        return None
    network = find_folder(data, "resnet-50") or "microsoft/resnet-50"

    def load(_: Path | None, skip_bad: bool) -> TrainAndTest:
        parts = (folder, lists_of(folder) / f"clean_{held_out}_key_list.txt")
        options: dict[str, Any] = {"image_size": CLOTHING1M_SIZE, "skip_bad": skip_bad}
        train, test = (load_dataset(part, **options) for part in parts)
        return TrainAndTest(train, test)

    return Scale(
        load,
        paper.CLOTHING1M,
        (),
        {"learner": f"{PRETRAINED}{network}", "recipe": "clothing1m"},
        paper_settings=paper.ON_CLOTHING1M,
        reported_as=paper.CLOTHING1M,
    )
