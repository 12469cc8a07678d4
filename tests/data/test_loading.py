"""`load_dataset`: how a source is recognised, and the bundled data sets."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn import datasets

from pudistill.data.loading import load_dataset
from pudistill.data.readers import FORMATS, FORMATS_HELP
from pudistill.exceptions import InputError


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "wine", "iris"])
def test_bundled_sets(name):
    bunch = getattr(datasets, f"load_{name}")()
    data = load_dataset(name)
    np.testing.assert_array_equal(data.X, bunch.data)
    assert list(data.y) == [str(bunch.target_names[target]) for target in bunch.target]
    assert list(data.true_labels) == list(data.y)
    assert len(data.feature_names) == data.X.shape[1]
    assert not data.trusted.any()
    assert data.name == name


def test_a_path_goes_before_a_bundled_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "iris").mkdir()
    with pytest.raises(InputError, match="no picture in this folder"):
        load_dataset("iris")


def test_every_format_is_listed_and_has_a_reader(tmp_path):
    for data_format in FORMATS:
        assert data_format.name in FORMATS_HELP
        assert not data_format.reader.accepts(tmp_path / "notes.txt")
        assert callable(data_format.reader.read)


def test_unknown_sources(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: there is no such file .*digits"):
        load_dataset("nowhere")
    text = tmp_path / "data.txt"
    text.write_text("hello")
    with pytest.raises(InputError, match=r"data\.txt: this is not a known kind .*\.parquet"):
        load_dataset(text)
    with pytest.raises(InputError, match=r"iris is not a table .*leave --id-column out"):
        load_dataset("iris", id_column="id")
    with pytest.raises(InputError, match="image_size cannot be 0: it should be at least 1 pixel"):
        load_dataset("iris", image_size=0)


def test_pillow_is_loaded_only_for_pictures():
    code = (
        "import sys; from pudistill.data.readers import FORMATS_HELP; "
        "assert 'numpy' not in sys.modules; "
        "import pudistill as p; p.load_dataset('iris'); assert 'PIL' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
