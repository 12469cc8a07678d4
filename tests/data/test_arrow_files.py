"""Arrow and feather files: all writers' files are read, those that fill the memory are not."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import feather

from pudistill.data.loading import load_dataset
from pudistill.exceptions import InputError

TABLE = pa.table(
    {
        "x": np.arange(8.0),
        "c": pa.array(["u", "u", "v", "v"] * 2).dictionary_encode(),
        "label": ["a", "b"] * 4,
    }
)


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_files_of_all_writers_are_read(tmp_path, compression):
    feather.write_feather(TABLE, tmp_path / "a.feather", compression=compression)
    pl.from_arrow(TABLE).write_ipc(tmp_path / "b.arrow", compression=compression)
    pl.from_arrow(TABLE).write_ipc_stream(tmp_path / "c.arrow", compression=compression)
    for name in ("a.feather", "b.arrow", "c.arrow"):
        assert load_dataset(tmp_path / name).X["c"].tolist() == ["u", "u", "v", "v"] * 2


def test_files_that_unpack_to_gigabytes_are_refused(tmp_path):
    nothing = pa.nulls(2 * 10**9)
    long_text = pa.DictionaryArray.from_arrays(np.zeros(1000, np.int8), ["q" * 10**6])
    zeros = pa.array(np.zeros(4 * 10**7))  # 320 MB, in 10 kB
    for n, column in enumerate((nothing, long_text, zeros)):
        table = pa.table({"x": column, "label": pa.nulls(len(column))})
        file = tmp_path / f"{n}.feather"
        feather.write_feather(table, file, compression="zstd", chunksize=len(column))
        with pytest.raises(InputError, match="unpack to more than"):
            load_dataset(file, labels_required=False)


def test_damaged_files_are_named(tmp_path):
    feather.write_feather(TABLE, tmp_path / "a.feather", compression="zstd")
    content = (tmp_path / "a.feather").read_bytes()
    rng = np.random.default_rng(0)
    file, n_refused = tmp_path / "b.feather", 0
    for _ in range(100):
        damaged = bytearray(content)
        for place in rng.integers(len(content), size=3):
            damaged[place] = rng.integers(256)
        file.write_bytes(damaged)
        try:
            load_dataset(file)
        except InputError as error:
            assert "b.feather" in str(error)  # noqa: PT017
            n_refused += 1
    assert n_refused > 50
