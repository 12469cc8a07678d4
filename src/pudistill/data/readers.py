"""The data formats, one record each. A reader is imported only when it is needed.

To add a format, write a module with the two functions of a `Reader` and add it to `FORMATS`.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from pudistill.data.dataset import TrustedDataset
    from pudistill.data.options import ReadOptions

# The data sets of scikit-learn, by name.
BUNDLED = ("digits", "breast_cancer", "wine", "iris")


class Reader(Protocol):
    """The interface of the module of a format."""

    def accepts(self, path: Path, /) -> bool:
        """Return whether an existing file or folder has this format, judging by names alone.

        A damaged file is accepted, so that `read` can say what is wrong.
        """
        ...

    def read(self, path: Path, /, options: "ReadOptions") -> "TrustedDataset":
        """Read a file or folder that was accepted.

        Raises
        ------
        InputError
            If anything is wrong; the message names the file, row, class or value, and says what to
            do. Except for a `MemoryError`, nothing else may be raised, whatever the file holds.
        """
        ...


class Format(NamedTuple):
    """A format of data."""

    name: str  # with an article, for a list in a sentence
    module: str  # name of its `Reader` in `pudistill.data`
    has_columns: bool = False  # whether the user can name columns

    @property
    def reader(self) -> Reader:
        """The module of the format; its import loads pyarrow or Pillow, which is slow."""
        return cast(Reader, import_module(f"pudistill.data.{self.module}"))


# The first format that accepts a path reads it. The last one accepts any folder.
FORMATS = (
    Format(
        "a table (.csv, .tsv, .parquet, .jsonl, .json, .feather, .arrow, a webdataset .tar, or a "
        "folder of such files, also as Hugging Face's datasets writes it)",
        "tables",
        has_columns=True,
    ),
    Format("an .npz file", "npz"),
    Format("CIFAR-10 batches", "cifar"),
    Format("Clothing1M", "clothing1m"),
    Format("IDX images", "idx"),
    Format("an image folder (DIR/label/file)", "image_folder"),
)

_names = ", ".join(data_format.name for data_format in FORMATS)
FORMATS_HELP = f"{_names}, or a scikit-learn data set ({', '.join(BUNDLED)})"
"""All formats, as part of a sentence."""


def find_format(path: Path) -> Format | None:
    """Return the format of an existing file or folder; None if no format accepts it."""
    return next((found for found in FORMATS if found.reader.accepts(path)), None)
