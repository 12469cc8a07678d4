"""A file with any content gives a result or an error of one sentence, soon, and harms nothing."""

import gzip
import pickle
import random
import signal
import struct
import warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.naive_bayes import GaussianNB

from pudistill import InputError, PUDistillClassifier, TorchClassifier, load, save
from pudistill.data.loading import load_dataset
from pudistill.data.writing import write_table
from pudistill.learners.cache import CHECKSUM_BYTES, StageCache
from pudistill.runs.fit import fit_run
from pudistill.runs.folder import SUMS, Run, to_csv
from pudistill.runs.predict import predict_run
from pudistill.runs.settings import Settings
from pudistill.runs.summary import write_report
from pudistill.utils.files import checksum_of
from tests.helpers.pictures import idx, saved
from tests.helpers.runs import sign

SEED = 0
N_CASES = {
    "csv": 1500,
    "tsv": 250,
    "jsonl": 1250,
    "parquet": 1000,
    "parquet pictures": 500,
    "npz": 1250,
    "trusted csv": 500,
    "cifar batch": 750,
    "cifar meta": 250,
    "idx images": 300,
    "idx labels": 200,
    "idx gzip": 250,
    "clothing1m": 250,
    "png": 300,
    "jpeg": 300,
    "gif": 200,
    "tiff": 200,
    "webp": 200,
    "bmp": 100,
    "config.toml": 100,
    "model.json": 200,
    "skops": 200,
    "safetensors": 200,
    "labels.parquet": 150,
    "log.jsonl": 100,
    "SHA256SUMS": 100,
    "stage": 400,
}
LONGEST = 60.0  # seconds that a case may take, on a busy machine
TOKENS = [
    *(b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"'", b",", b";", b"\t", b"\n", b"\r", b"\\"),
    *(b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 400, b"null", b"true", b"{", b"}", b"[" * 2000),
    *(b"=cmd()", b"<script>alert(1)</script>", b"../../../etc/passwd", b"/dev/zero", b"\xc3\xa9"),
    *(b"\xed\xa0\x80", b"\\ud800", b"A" * 100_000, b"\x80\x04cos\nsystem\n", b"%s%n"),
    *(struct.pack("<I", 2**31), struct.pack(">I", 2**32 - 1), struct.pack("<q", -1)),
]


class HangError(BaseException):
    """A case took too long. Code that catches any `Exception` does not catch this error."""


@contextmanager
def limited(seconds):
    def stop(*_):
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def mutate(content, rng):
    """Damage the content of a file as disks, editors and attackers do."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
        end = min(end, at + rng.choice([1, 4, 64, len(content)]))
        match rng.randrange(8):
            case 0:
                for place in range(at, end)[:8]:
                    content[place] ^= 1 << rng.randrange(8)
            case 1:
                del content[at:]
            case 2:
                del content[at:end]
            case 3:
                content[at:at] = content[at:end]
            case 4:
                content[at:at] = rng.choice(TOKENS)
            case 5:
                token = rng.choice(TOKENS)
                content[at : at + len(token)] = token
            case 6:
                content[at:end] = rng.randbytes(end - at)
            case 7:
                other = rng.randrange(len(content) + 1)
                content[at:end] = content[other : other + end - at]
    return bytes(content)


class Target(NamedTuple):
    """An undamaged source, the name of its file to damage, and the function that reads it."""

    files: dict
    damaged: str
    read: object


def encoded_picture(kind, shape=(7, 5, 3)):
    return saved(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), kind)


def table_file(name, folder, dataset):
    write_table(dataset, folder / name)
    return (folder / name).read_bytes()


def as_pickle(content):
    return pickle.dumps(content, protocol=2)


def load_in(name, **options):
    return lambda folder: load_dataset(folder / name, **options)


def resealed(read):
    """Let a reader find right checksums of damaged files of a run, as an attacker would write."""
    return lambda folder: sign(folder) or read(folder)


class StageResult(NamedTuple):
    learner: object
    scores: np.ndarray


def example_stage() -> StageResult:
    X, y = np.arange(20.0).reshape(10, 2), np.arange(10) % 2
    return StageResult(GaussianNB().fit(X, y), np.zeros(3))


def read_stage(folder):
    (path,) = folder.glob("example_stage-*.npz")
    if (
        len(content := path.read_bytes()) % 2
    ):  # half of the cases: with a checksum, as an attacker would
        path.write_bytes(content + checksum_of(content).encode())
    return StageCache(folder).cache(example_stage)()


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    iris = load_dataset("iris").take(np.arange(0, 150, 8)).with_trusted(["0", "64", "120"])
    shown = write_pictures(folder)
    pictures = load_dataset(shown).with_trusted(["a/0.png", "b/0.png"])
    found = {
        name: Target({file: table_file(file, folder, iris)}, file, load_in(file))
        for name, file in {"csv": "t.csv", "parquet": "t.parquet", "npz": "t.npz"}.items()
    }
    frame = pd.DataFrame({"id": iris.ids, "label": iris.y, "x": iris.X[:, 0], "y2": iris.X[:, 1]})
    tsv, lines = frame.to_csv(sep="\t").encode(), frame.to_json(orient="records", lines=True)
    found["tsv"] = Target({"t.tsv": tsv}, "t.tsv", load_in("t.tsv"))
    found["jsonl"] = Target({"t.jsonl": lines.encode()}, "t.jsonl", load_in("t.jsonl"))
    content = table_file("p.parquet", folder, pictures)
    found["parquet pictures"] = Target({"p.parquet": content}, "p.parquet", load_in("p.parquet"))

    def read_trusted(place):
        return load_dataset("iris", trusted=place / "trusted.csv")

    trusted = to_csv(pd.DataFrame({"id": iris.ids, "label": iris.y})).encode()
    found["trusted csv"] = Target({"trusted.csv": trusted}, "trusted.csv", read_trusted)

    names = {b"label_names": [b"cat", b"dog"]}
    batch = {b"labels": [0, 1], b"data": np.zeros((2, 3072), np.uint8), b"filenames": [b"a", b"b"]}
    cifar = {"data_batch_1": as_pickle(batch), "batches.meta": as_pickle(names)}
    for name, file in {"cifar batch": "data_batch_1", "cifar meta": "batches.meta"}.items():
        found[name] = Target(cifar, file, load_in("data_batch_1"))
    files = {
        "train-images-idx3-ubyte": idx(np.zeros((6, 4, 3), np.uint8)),
        "train-labels-idx1-ubyte": idx(np.arange(6, dtype=np.uint8) % 3),
    }
    for name, file in zip(["idx images", "idx labels"], files, strict=True):
        found[name] = Target(files, file, load_dataset)
    packed = {f"{file}.gz": gzip.compress(content) for file, content in files.items()}
    found["idx gzip"] = Target(packed, "train-images-idx3-ubyte.gz", load_dataset)
    found["clothing1m"] = Target(clothing_files(), "noisy_label_kv.txt", read_clothing)
    for kind in ("png", "jpeg", "gif", "tiff", "webp", "bmp"):
        files = {f"a/0.{kind}": encoded_picture(kind), "b/0.png": encoded_picture("png")}
        found[kind] = Target(files, f"a/0.{kind}", load_in("", image_size=4))
    return found | run_targets(folder)


def write_pictures(folder):
    for label in ("a", "b"):
        (folder / "pictures" / label).mkdir(parents=True)
        (folder / "pictures" / label / "0.png").write_bytes(encoded_picture("png"))
    return folder / "pictures"


def clothing_files():
    keys = {"noisy_train": ["images/0.png", "images/1.png"], "clean_train": ["images/2.png"]}
    labels = "images/0.png 0\nimages/1.png 1\nimages/2.png 2\n"
    lists = {f"{part}_key_list.txt": "\n".join(keys.get(part, [])) + "\n" for part in LISTS}
    files = {name: text.encode() for name, text in lists.items()}
    files |= {f"{kind}_label_kv.txt": labels.encode() for kind in ("noisy", "clean")}
    return files | {f"images/{n}.png": encoded_picture("png") for n in range(3)}


LISTS = ("noisy_train", "clean_train", "clean_val", "clean_test")


def read_clothing(folder):
    return load_dataset(folder, image_size=4)


def run_targets(folder):
    values = {"data": "iris", "noise": "symmetric", "n_members": 2, "max_iter": 1, "compare": False}
    run = fit_run(Settings.read(values | {"trusted_fraction": 0.2}), folder / "run")
    files = files_of(run.path)
    X, y = load_digits(n_class=2, return_X_y=True)
    classifier = PUDistillClassifier(TorchClassifier(epochs=1), random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = save(classifier.fit(X[:20], y[:20]), folder / "network")

    def predict(place):
        return predict_run(Run.open_fit(place), "iris")

    def resume(place):
        return Settings.read(Run.begun(place)[1])

    def report(place):
        return write_report(Run.open(place))

    begun = {name: files[name] for name in ("run.json", "config.toml")}
    found = {
        "config.toml": Target(begun, "config.toml", resume),
        "model.json": Target(files, "model/model.json", resealed(predict)),
        "skops": Target(files, "model/learner-0.skops", resealed(predict)),
        "labels.parquet": Target(files, "labels.parquet", resealed(report)),
        "log.jsonl": Target(files, "log.jsonl", lambda place: Run(place).warnings()),
        SUMS: Target(files, SUMS, report),
        "safetensors": Target(files_of(network), "model/learner-0.safetensors", resealed(load)),
    }

    StageCache(folder / "units").cache(example_stage)()
    (stage,) = (folder / "units").iterdir()
    content = stage.read_bytes()[:-CHECKSUM_BYTES]
    return found | {"stage": Target({stage.name: content}, stage.name, read_stage)}


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "units" not in path.parts
    }


def test_there_are_enough_cases():
    assert sum(N_CASES.values()) >= 10_000


@pytest.mark.parametrize("name", N_CASES)
def test_undamaged_files_are_read(targets, name, tmp_path):
    whole = targets[name]._replace(damaged=None)
    assert outcome_of(whole, tmp_path / "case", random.Random(0), name) == "result"


@pytest.mark.parametrize("name", N_CASES)
@pytest.mark.parametrize("share", [0.08, pytest.param(1, marks=pytest.mark.slow)])
def test_every_damaged_file_ends_in_a_result_or_a_sentence(
    targets, name, share, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.fsync", lambda _: None)  # the power does not fail in this test
    rng = random.Random(f"{SEED} {name}")
    outcomes = Counter(
        outcome_of(targets[name], tmp_path / "case", rng, f"{name}, case {n} of seed {SEED}")
        for n in range(int(share * N_CASES[name]))
    )
    print(f"{name}: {dict(outcomes)}")
    assert outcomes.keys() <= {"result", "error"}
    assert [path.name for path in tmp_path.iterdir()] == ["case"]  # nothing is written elsewhere


def outcome_of(target, folder, rng, case):
    for name, content in target.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mutate(content, rng) if name == target.damaged else content)
    try:
        with limited(LONGEST), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(folder)
    except InputError as error:
        return "error" if len(str(error)) < 2100 else "endless error"
    except BaseException as error:
        raise AssertionError(f"{case}: {type(error).__name__}") from error
    return "result"


VALUES = {
    "whole numbers": st.integers(-(2**63), 2**63 - 1),
    "numbers": st.floats(width=64),
    "truths": st.booleans(),
    "texts": st.text(max_size=5),
    "bytes": st.binary(max_size=5),
    "days": st.dates(),
    "lists": st.lists(st.integers(0, 3), max_size=2),
    "pictures": st.fixed_dictionaries({"bytes": st.binary(max_size=9), "path": st.none()}),
    "nothing": st.none(),
}
NAMES = [
    "label",
    "y",
    "id",
    "trusted",
    "verified_label",
    "true_label",
    "image",
    "x",
    "",
    "Unnamed: 0",
]


@st.composite
def tables(draw):
    n_rows = draw(st.integers(0, 6))
    names = draw(st.lists(st.sampled_from(NAMES) | st.text(max_size=3), max_size=5, unique=True))
    columns = {}
    for name in names:
        values = draw(st.sampled_from(list(VALUES.values())))
        column = st.lists(values | st.none(), min_size=n_rows, max_size=n_rows)
        columns[name] = pa.array(draw(column))
    return pa.table(columns)


@pytest.mark.filterwarnings("ignore::pudistill.DataWarning")
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(tables(), st.sampled_from(["parquet", "csv"]))
def test_any_table_is_read_or_refused(tmp_path_factory, table, kind):
    path = tmp_path_factory.getbasetemp() / f"any.{kind}"
    try:
        (pq.write_table if kind == "parquet" else csv.write_csv)(table, path)
    except (pa.ArrowException, ValueError):  # CSV does not know all types
        return
    try:
        dataset = load_dataset(path)
    except InputError:
        return
    assert len(dataset) == table.num_rows
    if dataset.is_frame:  # with words, dates or gaps
        assert not np.isinf(dataset.X.select_dtypes("number")).any(axis=None)
        assert list(dataset.X.index) == list(dataset.ids)
    else:
        assert np.isfinite(dataset.X).all()


HOSTILE_NAMES = [
    *("../../../etc/passwd", "/tmp/x", "C:\\aux", "~", ".", "=cmd()|' /C calc'!A0", "@SUM(1)"),
    *("<script>alert(1)</script>", "</svg><b>", "{{ 7 * 7 }}", "$\\frac{", "%s%n", "a,b\n\"c'"),
    *("naïve ☃ 猫", "\u202eright to left", " ", "tab\there", "-1", "nan", "None", "A" * 100_000),
]


def test_hostile_class_names_are_only_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    codes = np.arange(8 * len(HOSTILE_NAMES)) % len(HOSTILE_NAMES)
    centres = rng.normal(size=(len(HOSTILE_NAMES), 6))
    names = np.array(HOSTILE_NAMES, dtype=object)
    frame = pd.DataFrame(centres[codes] + 0.1 * rng.normal(size=(len(codes), 6)))
    frame.columns = [f"x{n}" for n in range(6)]
    frame["id"] = [f"=HYPERLINK({n})" for n in range(len(codes))]
    frame["label"] = names[np.where(rng.random(len(codes)) < 0.2, codes[::-1], codes)]
    frame["verified_label"] = np.where(np.arange(len(codes)) < len(codes) // 2, names[codes], None)
    frame.to_parquet("noisy.parquet")
    options = {"data": "noisy.parquet", "n_members": 2, "max_iter": 1, "test_fraction": 0.3}
    options |= {"compare": False, "n_jobs": 1}
    run = fit_run(Settings.read(options), Path("run"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noisy.parquet", "run"]
    labels = run.read_table("labels")
    assert set(labels["label"]) <= set(HOSTILE_NAMES)
    assert set(load(run.path).classes_) == set(HOSTILE_NAMES)
    shown = pd.read_csv(run.path / "labels.csv", keep_default_na=False)
    assert shown["id"].str.startswith("'=HYPERLINK").all()
    for column in ("id", "given", "label"):
        assert not shown[column].str.startswith(("=", "@", "\t")).any()
    report = (run.path / "report.html").read_text()
    assert report.count("<script>") == 1  # its own
    assert "</svg><b>" not in report
    assert len(report) < 3_000_000
