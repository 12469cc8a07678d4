"""Recognise the format of a source, and read it."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from pudistill.data.dataset import TrustedDataset, validate
from pudistill.data.memory import release_unused
from pudistill.data.names import NO_CLASS_LABEL
from pudistill.data.options import COLUMN_OPTIONS, ReadOptions
from pudistill.data.readers import BUNDLED, FORMATS_HELP, find_format
from pudistill.exceptions import DataNotice, InputError, warn_user
from pudistill.utils.shown import first_few


def load_dataset(
    source: Any,
    *,
    image_column: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    trusted_column: str | None = None,
    group_column: str | None = None,
    noise_group_column: str | None = None,
    trusted: str | os.PathLike[str] | None = None,
    annotations: str | os.PathLike[str] | None = None,
    encoding: str | None = None,
    image_size: int | None = None,
    skip_bad: bool = False,
    lazy: bool = False,
    picture_cache: float | None = None,
    no_class_label: str | None = NO_CLASS_LABEL,
    labels_required: bool = True,
    columns_required: bool = True,
    samples_required: bool = True,
) -> TrustedDataset:
    """Read a data set.

    Parameters
    ----------
    source : str or path, or a table in memory
        One of

        - an image folder ``DIR/<label>/<file>``, or ``DIR/train/<label>/<file>``; ids are the paths
          below DIR or ``train``;
        - a table with a column of pictures (bytes, Hugging Face's ``{bytes, path}``, or paths
          relative to the table), a column of texts, or columns of numbers, lists of numbers, words,
          dates and booleans, with or without missing values. A column ``true_label`` is kept for
          experiments and ``verified_label`` holds labels of trusted samples; neither is a feature.
          A table is

          - a file: ``.csv``, ``.tsv``, ``.jsonl`` and ``.json``, also compressed (``.csv.gz``),
            ``.parquet``, ``.feather``, ``.arrow``. A ``.json`` file holds a list of objects, an
            export of Label Studio (also JSON-MIN; the choice of a ground truth is a verified
            label), or images, annotations and categories as in COCO, one category for each image;
          - a ``.tar`` of webdataset, with pictures beside ``.cls``, ``.txt`` or ``.json``;
          - a folder of such files: shards of one table, what ``save_to_disk`` of `datasets` wrote,
            a clone from the Hugging Face hub, or pictures with a ``metadata.csv`` or ``.jsonl``
            that has a column ``file_name``. Of several splits the training split is read, with a
            notice; name another one by its file or folder;
          - an object: a table of pandas, polars or pyarrow, a `datasets.Dataset`, or a
            `datasets.DatasetDict`, of which the training split is read;
        - ``.npz`` with arrays ``X``, ``y`` and optionally ``trusted``, ``verified``, ``ids``,
          ``true_labels``, ``feature_names``;
        - the folder ``cifar-10-batches-py`` (its training batches) or one batch of it;
        - the folder of Clothing1M (its training data, whose clean samples are trusted), or one of
          its lists of clean keys, such as ``clean_test_key_list.txt``;
        - an IDX file of images, such as those of MNIST and Fashion-MNIST, beside its file of
          labels, or the folder that holds them (the training pair);
        - a data set that comes with scikit-learn: digits, breast_cancer, wine, iris.
    image_column, text_column, label_column, id_column, trusted_column : str, optional
        Columns of a table. By default image, img, picture, photo or file_name; text, sentence,
        review, comment or document; label, labels, y, target, class or choice; id (otherwise
        row numbers); trusted. A pattern such as ``worker_*`` as `label_column` names the columns
        of several sources.
    group_column : str, optional
        Column of a table with the groups of samples that are alike, such as those of one patient.
    noise_group_column : str, optional
        Column of a table with groups whose given labels can have noise of their own, such as
        annotators, months or sources.
    trusted : str or path, optional
        A table with the ids of the verified samples and optionally their verified labels, in
        columns that are called as in the data, or ``id`` and ``label``. If the two columns that it
        shares with the data have other names, they say which columns of the data are ids and
        labels. `y` keeps the labels before verification.
    annotations : str or path, optional
        A table with the labels that several sources gave, such as people or rules: a row for each,
        with the columns ``id`` (called as in the data), ``source`` (or worker, annotator, rater)
        and ``label``.
    encoding : str, optional
        Encoding of text files that are neither UTF-8 nor begin with a byte order mark, such as
        ``latin-1``.
    image_size : int, optional
        Resize the shorter side of each picture to this many pixels and crop the middle square.
    skip_bad : bool
        Leave unreadable pictures out and list them in `skipped` instead of raising an error.
    lazy : bool
        Leave pictures of folders and tables, and an uncompressed `X` of a ``.npz``, on disk even
        if they fit into memory; those that do not fit stay there anyway. `X` is then a
        `LazyPictures` or a memory map. Results are the same.
    picture_cache : float, optional
        GiB of disk, in the folder for temporary files, for pictures that are decoded only once;
        other pictures are decoded whenever they are needed. By default half of the free space.
    no_class_label : str, optional
        The verified label of samples that are of no class; it is not a class.
    labels_required : bool
        Whether there must be labels of at least two classes. If False, labels can be missing.
    columns_required : bool
        Whether the named columns must exist. If False, a missing column is ignored.
    samples_required : bool
        Whether a table must hold samples. If False, it can hold labels only, and no samples are
        read except pictures: the features come from another source.

    Returns
    -------
    dataset : TrustedDataset
        Samples, given labels, the mask of trusted samples and their verified labels.

    Raises
    ------
    InputError
        If anything is wrong; the message names the file, row, class or value.

    Examples
    --------
    >>> from pudistill.data.loading import load_dataset
    >>> digits = load_dataset("digits")
    >>> digits.X.shape, digits.classes[:3]
    ((1797, 64), ('0', '1', '2'))
    """
    options = ReadOptions.read(
        {
            "image_column": image_column,
            "text_column": text_column,
            "label_column": label_column,
            "id_column": id_column,
            "trusted_column": trusted_column,
            "group_column": group_column,
            "noise_group_column": noise_group_column,
            "encoding": encoding,
            "image_size": image_size,
            "skip_bad": skip_bad,
            "lazy": lazy,
            "picture_cache": picture_cache,
            "no_class_label": no_class_label,
            "labels_required": labels_required and annotations is None,
            "columns_required": columns_required,
            "samples_required": samples_required,
        }
    )
    name = _name(source)
    if trusted is not None:
        from pudistill.data.trusted_files import read_trusted, with_shared_columns

        options = with_shared_columns(source, Path(trusted), options)
    try:
        dataset = replace(_read(source, options), no_class_label=no_class_label)
    except MemoryError as error:
        raise InputError(f"{name} does not fit into memory: give a part of it.") from error
    if image_size is not None and not dataset.is_pictures:
        raise InputError(f"{name} holds features, not pictures: leave --image-size out.")
    if annotations is not None:
        from pudistill.data.annotation_files import with_annotations

        validate(dataset, False, name, samples_required)
        dataset = with_annotations(dataset, Path(annotations), options)
    if trusted is not None:
        # Ids must be unique before samples can be found by them.
        validate(dataset, labels_required, name, samples_required)
        dataset = dataset.with_trusted(*read_trusted(Path(trusted), dataset, options))
    if dataset.skipped:
        files = [f"{file} ({why})" for file, why in dataset.skipped]
        warn_user(f"Left out of {name}: {first_few(files)}.", DataNotice)
    release_unused()
    return validate(dataset.without_minus_one(), labels_required, name, samples_required)


def _read(source: Any, options: ReadOptions) -> TrustedDataset:
    """Read a file, a folder or a bundled data set with the reader of its format; or a table."""
    if not isinstance(source, str | os.PathLike):
        from pudistill.data.table_sources import open_table
        from pudistill.data.tables import read_table

        return read_table(Path(_name(source)), open_table(source), options)
    path = Path(source)
    if not path.exists():
        if str(source) not in BUNDLED:
            raise InputError(
                f"{source}: there is no such file or folder, nor is it one of the bundled data "
                f"sets ({', '.join(BUNDLED)})."
            )
        from pudistill.data import bundled

        _refuse_columns(source, options)
        return bundled.read(str(source))
    found = find_format(path)
    if found is None:
        raise InputError(f"{path}: this is not a known kind of data: give {FORMATS_HELP}.")
    if not found.has_columns:
        _refuse_columns(source, options)
    return found.reader.read(path, options)


def _name(source: Any) -> str:
    """Return what messages call a source."""
    if isinstance(source, str | os.PathLike):
        return str(source)
    from pudistill.data.frames import name_of

    return name_of(source)


def _refuse_columns(source: str | os.PathLike[str], options: ReadOptions) -> None:
    """Raise an `InputError` if columns are named and required."""
    if not options.columns_required:
        return
    for option in COLUMN_OPTIONS:
        if getattr(options, option) is not None:
            flag = "--" + option.replace("_", "-")
            raise InputError(f"{source} is not a table and has no columns: leave {flag} out.")
