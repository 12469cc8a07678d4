"""Checks of a skops file, before skops builds anything from it."""

import io
import json
from collections.abc import Iterator
from typing import Any
from zipfile import ZipFile

from pudistill.utils.archives import array_header, check_archive

SKOPS_SCHEMA = "schema.json"  # the objects in a skops file, and the files of their arrays
# Loader and type of a tree, its arguments, its state, its number of outputs, and its arrays.
TREE_KINDS = [
    ("TreeNode", "Tree"),
    ("TupleNode", "tuple"),
    ("DictNode", "dict"),
    ("JsonNode", "str"),
    ("NdArrayNode", "ndarray"),
    ("NdArrayNode", "ndarray"),
]


def check_file(content: bytes) -> Any:
    """Check a skops file before skops builds anything from it.

    Parameters
    ----------
    content : bytes
        The file. pudistill writes it uncompressed: it takes as much memory as its size says.

    Returns
    -------
    schema : dict
        The objects in the file.

    Raises
    ------
    ValueError
        If a size in the file is not true, or an object cannot be checked once it is built.
    """
    with ZipFile(io.BytesIO(content)) as archive:
        check_archive(archive, len(content), is_stored=True)
        for name in archive.namelist():
            if name.endswith(".npz"):  # a sparse matrix
                inner = archive.read(name)
                with ZipFile(io.BytesIO(inner)) as matrix:
                    check_archive(matrix, len(inner), is_stored=True)
        schema = json.loads(archive.read(SKOPS_SCHEMA))
        _check_trees(schema, archive)
    return schema


def types_in(schema: Any) -> set[str]:
    """Return the full names of all types in the schema of a skops file."""
    nodes = [node for node in _nodes_of(schema) if "__class__" in node]
    return {f"{node.get('__module__')}.{node['__class__']}" for node in nodes}


def _check_trees(schema: Any, archive: ZipFile) -> None:
    """Check what a tree is built of: building it reads as many numbers as the file says.

    All other objects can be built whatever the file holds, and are checked afterwards.

    Raises
    ------
    ValueError
        If a tree has several outputs, or arrays with another number of axes.
    """
    checked: dict[Any, Any] = {}
    for node in _nodes_of(schema):
        if node.get("__class__") == "Tree" or node.get("__loader__") == "TreeNode":
            parts = _parts_of_tree(node, archive)
            checked |= {part["__id__"]: _without_numbers(part) for part in parts}
    # skops builds one object for all nodes of one number: the first one, which may be elsewhere.
    for node in _nodes_of(schema):
        number = node.get("__id__")
        known = checked.get(number) if isinstance(number, str | int | float) else None
        if known is not None and _without_numbers(node) != known:
            raise ValueError(f"its objects {number!r} differ")


def _parts_of_tree(node: dict[str, Any], archive: ZipFile) -> list[dict[str, Any]]:
    """Return the nodes that a tree is built of, after checking them."""
    arguments, state = node["__reduce__"]["args"], node["content"]
    n_outputs = arguments["content"][2]
    arrays = [state["content"]["nodes"], state["content"]["values"]]
    parts = [node, arguments, state, n_outputs, *arrays]
    kinds = [(part["__loader__"], part["__class__"]) for part in parts]
    if kinds != TREE_KINDS or json.loads(n_outputs["content"]) != 1:
        raise ValueError("a tree is not built as pudistill writes it")
    for array, n_axes in zip(arrays, (1, 3), strict=True):
        if array["type"] != "numpy":
            raise ValueError("an array of a tree is a list")
        with archive.open(array["file"]) as file:
            if len(array_header(file)[0]) != n_axes:
                raise ValueError("an array of a tree has another number of axes")
    return parts


def _without_numbers(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_numbers(part) for part in node]
    if not isinstance(node, dict):
        return node
    return {name: _without_numbers(part) for name, part in node.items() if name != "__id__"}


def _nodes_of(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield all dictionaries in a JSON value."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
