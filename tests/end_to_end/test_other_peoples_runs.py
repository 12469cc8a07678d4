"""Run folders of other people: nothing in them is run; nothing outside is read or written."""

import json
import os
import shutil
import struct
import sys
import tomllib
import warnings
import zlib
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w
from sklearn.datasets import load_iris

from pudistill import InputError, TorchClassifier, load, load_dataset
from pudistill.cli.commands import main
from pudistill.cli.console import printable
from pudistill.data.table_sources import open_table
from pudistill.methods.registry import load_class
from pudistill.runs.fit import fit_run
from pudistill.runs.folder import SUMS, Run
from pudistill.runs.predict import predict_run
from pudistill.runs.settings import Settings
from pudistill.utils.files import checksum_of, from_npz, to_npz
from tests.helpers.runs import sign

SMALL = {"data": "iris", "noise": "symmetric", "n_members": 2, "max_iter": 1, "compare": False}
SMALL |= {"n_jobs": 1, "trusted_fraction": 0.2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit_run(Settings.read(SMALL), tmp_path_factory.mktemp("runs") / "run").path


@pytest.fixture(scope="module")
def finished_network(tmp_path_factory):
    run = Run.create(tmp_path_factory.mktemp("runs") / "network", {})
    X, y = load_iris(return_X_y=True)
    classifier = load_class("cross_entropy")(TorchClassifier("mlp", epochs=1), random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.write_model(classifier.fit(X[::5], y[::5]))
    run.finish({})
    return run.path


@pytest.fixture
def others(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "others")


def edit_json(run, name, change):
    content = json.loads((run / name).read_text())
    change(content)
    (run / name).write_text(json.dumps(content))
    sign(run)


def unfinished(run, settings):
    """Turn a folder into an unfinished run of other settings."""
    (run / SUMS).unlink()
    config = tomli_w.dumps(tomllib.loads((run / "config.toml").read_text()) | settings)
    (run / "config.toml").write_text(config)
    about = json.loads((run / "run.json").read_text())
    about["config"] = checksum_of(config.encode())
    (run / "run.json").write_text(json.dumps(about))


def run_command(monkeypatch, *arguments):
    """Run a command, and return its exit code."""
    monkeypatch.setattr("sys.argv", ["pudistill", *map(str, arguments)])
    try:
        main()
    except SystemExit as stopped:
        return stopped.code or 0
    return 0


ARCHITECTURES = [
    {"model_type": "bert", "hidden_size": 4, "auto_map": {"AutoModel": "other.Other"}},
    {"model_type": "timm_wrapper", "architecture": "resnet18"},
    {"model_type": "resnet", "depths": [10**9] * 4},
    {"model_type": "resnet", "hidden_sizes": [10**6] * 4, "embedding_size": 10**6},
    {"model_type": "vit", "num_hidden_layers": 10**6, "hidden_size": 12},
    {"model_type": "vit", "hidden_act": "../../other"},
    {"model_type": 7},
]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_stored_network_is_one_that_is_known(finished_network, tmp_path, architecture):
    pytest.importorskip("transformers")
    run = shutil.copytree(finished_network, tmp_path / "run")

    def change(model):
        model["learners"][0]["architecture"] = architecture

    edit_json(run, "model/model.json", change)
    with pytest.raises(InputError):
        Run.open_fit(run).read_model()


@pytest.mark.parametrize("shape", [[10**9], [4, 10**6, 10**6], [], ["x"], [-1]])
def test_a_stored_network_has_the_sizes_of_its_weights(finished_network, tmp_path, shape):
    run = shutil.copytree(finished_network, tmp_path / "run")
    edit_json(run, "model/model.json", lambda model: model["learners"][0].update(in_shape=shape))
    with pytest.raises(InputError):
        Run.open_fit(run).read_model()


def test_a_compressed_learner_is_refused(others):
    stored = next(others.glob("model/*.skops"))
    with ZipFile(stored) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with ZipFile(stored, "w", ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    sign(others)
    with pytest.raises(InputError, match="uncompressed"):
        load(others)


@pytest.mark.parametrize("name", ["labels.parquet", "log.jsonl", ".lock", "model", "units"])
def test_links_in_a_run_are_refused(others, tmp_path, name):
    mine = tmp_path / "mine"
    path = others / name
    if path.is_dir():
        path.rename(mine)
    else:
        mine.write_text("mine")
        path.unlink(missing_ok=True)
    path.symlink_to(mine)
    for use in (load, Run.begun, lambda run: predict_run(Run.open_fit(run), "iris")):
        with pytest.raises(InputError, match="link"):
            use(others)
    assert mine.is_dir() or mine.read_text() == "mine"


def test_a_pipe_in_a_run_is_refused(others):
    (others / "labels.parquet").unlink()
    os.mkfifo(others / "labels.parquet")
    with pytest.raises(InputError, match="no file"):
        load(others)


@pytest.mark.parametrize("name", ["../mine", "/etc/passwd", "model/../../mine", "model/.."])
def test_checksums_name_files_of_the_run_only(others, name):
    with (others / SUMS).open("a") as file:
        file.write(f"{'0' * 64}  {name}\n")
    with pytest.raises(InputError, match="damaged"):
        load(others)


@pytest.mark.parametrize("command", ["resume", "fit"])
def test_a_module_is_imported_only_if_the_user_names_it(others, command, monkeypatch, capsys):
    (others / "evil.py").write_text("open('ran', 'w').close()\nclass Other: pass\n")
    monkeypatch.chdir(others)
    monkeypatch.syspath_prepend(str(others))
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    unfinished(others, {"learner": "evil:Other"})
    arguments = ["resume", "."] if command == "resume" else ["fit", "--config", "config.toml"]
    arguments += [] if command == "resume" else ["--output", "new"]
    assert run_command(monkeypatch, *arguments) == 2
    assert "--learner evil:Other" in " ".join(capsys.readouterr().err.split())
    assert not (others / "ran").exists()
    assert run_command(monkeypatch, *arguments, "--learner", "evil:Other") == 2
    assert (others / "ran").exists()  # its class is no learner, but the user wanted it


@pytest.mark.parametrize(
    "learner",
    ["sklearn.datasets:fetch_olivetti_faces", "sklearn.utils._show_versions:show_versions"],
)
def test_of_scikit_learn_only_learners_are_called(others, learner, monkeypatch, capsys):
    unfinished(others, {"learner": learner})
    assert run_command(monkeypatch, "resume", others) == 2
    assert "cannot be used" in capsys.readouterr().err


def test_nothing_is_written_to_a_folder_that_the_user_does_not_name(others, monkeypatch, capsys):
    elsewhere = others.parent / "elsewhere"
    unfinished(others, {"features_cache": str(elsewhere)})
    assert run_command(monkeypatch, "resume", others) == 2
    assert f"--features-cache {elsewhere}" in " ".join(capsys.readouterr().err.split())
    assert not elsewhere.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda metrics: metrics.update(classes=7),
        lambda metrics: metrics.update(n_samples="<script>alert(1)</script>"),
        lambda metrics: metrics.clear(),
        lambda metrics: metrics.update(warnings=["<script>alert(1)</script>"]),
    ],
)
def test_a_report_of_senseless_results_is_refused_or_escaped(others, change, monkeypatch):
    edit_json(others, "metrics.json", change)
    assert run_command(monkeypatch, "report", others) in (0, 2)
    assert "<script>alert" not in (others / "report.html").read_text()


def test_stages_of_others_end_in_a_sentence(others, monkeypatch, capsys):
    (others / SUMS).unlink()
    for stage in (others / "units").glob("*.npz"):
        arrays = from_npz(stage.read_bytes()[:-64])
        changed = {
            name: array if name == "about" or array.dtype.kind == "V" else array[:1]
            for name, array in arrays.items()
            if array.ndim
        }
        content = to_npz(changed)
        stage.write_bytes(content + checksum_of(content).encode())
    assert run_command(monkeypatch, "resume", others) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_an_archive_that_claims_too_much_is_refused(monkeypatch):
    monkeypatch.setattr("pudistill.utils.archives.ALWAYS_ALLOWED", 2**16)
    content = to_npz({"a": np.zeros(1000)}).replace(b"(1000,)", b"(9999,)")
    with pytest.raises(ValueError, match="claims the shape"):
        from_npz(content)
    bomb = to_npz({"a": np.zeros(10**6, np.uint8)})
    with pytest.raises(ValueError, match="claim to hold"):
        from_npz(bomb)


class TestTables:
    def write(self, path, n_rows, text):
        texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n_rows, np.int32)), [text])
        table = pa.table({"a": np.ones(n_rows), "label": texts})
        pq.write_table(table, path, compression="zstd")

    @pytest.mark.parametrize(("n_rows", "length"), [(3_000, 10**6), (10**7, 4), (300, 10**6)])
    def test_a_parquet_bomb_is_refused(self, tmp_path, n_rows, length):
        self.write(tmp_path / "t.parquet", n_rows, "x" * length)
        assert (tmp_path / "t.parquet").stat().st_size < 100_000
        with pytest.raises(InputError, match="unpack to more"):
            load_dataset(tmp_path / "t.parquet")

    def test_dictionaries_are_read_as_texts(self, tmp_path):
        frame = pd.DataFrame({"label": pd.Categorical(["b", "a", None] * 5), "x": np.arange(15.0)})
        frame.to_parquet(tmp_path / "t.parquet")
        read = open_table(tmp_path / "t.parquet").read(["x", "label"], as_text=["label"])
        assert read["label"].type == pa.string()
        assert read["label"].to_pylist() == ["b", "a", None] * 5
        assert read["x"].to_pylist() == list(range(15))

    def test_jsonl_with_a_column_a_row(self, tmp_path):
        rows = "".join(json.dumps({f"c{n}": 1}) + "\n" for n in range(7_000))
        (tmp_path / "t.jsonl").write_text(rows)
        with pytest.raises(InputError, match="unpack to more"):
            load_dataset(tmp_path / "t.jsonl")

    def test_a_compressed_idx_file(self, tmp_path):
        header = struct.pack(">4B3I", 0, 0, 8, 3, 10**6, 28, 28)
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(
            packer.compress(header + bytes(10**6)) + packer.flush()
        )
        with pytest.raises(InputError, match="unpack to more"):
            load_dataset(tmp_path)

    def test_a_compressed_npz_file(self, tmp_path, monkeypatch):
        monkeypatch.setattr("pudistill.utils.archives.ALWAYS_ALLOWED", 2**16)
        np.savez_compressed(tmp_path / "t.npz", X=np.zeros((4_000, 100)), y=np.zeros(4_000, int))
        with pytest.raises(InputError, match="unpack to more"):
            load_dataset(tmp_path / "t.npz")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat\x1b[2J", "cat\\x1b[2J"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb", "a\\u202eb"),
        ("a\udcffb", "a\\udcffb"),
        ("a\rb\x08", "a\\rb\\x08"),
        ("naïve ☃\n\t", "naïve ☃\n\t"),
    ],
)
def test_names_cannot_control_the_terminal(text, shown):
    assert printable(text) == shown


def test_messages_and_tables_show_control_characters(capsys):
    from rich.table import Table

    from pudistill.cli.console import complain, messages, results, show_warning

    table = Table(title="a\x1b]0;title")
    table.add_column("b\x1b[2J")
    table.add_row("c\x9b2J")
    complain("Error:", "bold red", "d\x1b[2J")
    show_warning("e\x1b[2J")
    messages.print("f\x1b[2J")
    results.print(table)
    out, err = capsys.readouterr()
    assert not {"\x1b", "\x9b"} & {*(out + err)}
    for letter in "bdef":
        assert f"{letter}\\x1b" in out + err
