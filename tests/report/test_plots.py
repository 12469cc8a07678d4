"""Figures hold the numbers they were given, as text, in the page's colours."""

import base64
import io
import re
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pudistill.report.plots import (
    compact,
    confidence_histograms,
    flip_heat_map,
    growth_lines,
    picture_uri,
    shorten,
)


def texts(svg):
    """All text of a figure; fails where it is not well-formed XML."""
    root = ElementTree.fromstring(svg)
    return [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]


def square(values, names):
    return pd.DataFrame(np.array(values), index=names, columns=names)


def growth(sizes):
    return pd.DataFrame(
        [(name, k, n) for name, line in sizes.items() for k, n in enumerate(line, start=1)],
        columns=["class_name", "iteration", "n_clean"],
    )


def test_heat_map_shows_every_count_and_class():
    shown = texts(flip_heat_map(square([[8, 3], [0, 12345]], ["cat", "dog"])))
    assert sorted(shown) == sorted(
        ["cat", "cat", "dog", "dog", "given ↓  new →", "8", "3", "12,345"]
    )


@pytest.mark.parametrize("n", [2, 10, 25, 50])
def test_heat_map_fits_the_page(n):
    names = [f"a rather long class name {k}" for k in range(n)]
    svg = flip_heat_map(square(np.arange(n * n).reshape(n, n), names))
    assert float(re.search(r'viewBox="0 0 (\d+)', svg).group(1)) <= 944
    assert len(texts(svg)) == n * n - 1 + 2 * n + 1


def test_no_colour_is_fixed():
    figures = [
        flip_heat_map(square([[8, 3], [0, 5]], ["cat", "dog"])),
        growth_lines(growth({"cat": [1, 2], "dog": [3]})),
        confidence_histograms(pd.DataFrame({"source": ["given"], "confidence": [0.5]})),
    ]
    for svg in figures:
        assert not re.search(r"#[0-9a-f]{6}", svg)
        assert "font-family" not in svg
        assert "var(--ink)" in svg or "var(--muted)" in svg


def test_growth_names_every_line_of_a_few():
    shown = texts(growth_lines(growth({"cat": [5, 9, 9], "dog": [4, 4], "$x": [0, 0, 0]})))
    assert {"cat", "dog", "$x"} <= set(shown)


def test_growth_names_the_extremes_of_many():
    sizes = {f"class {n}": [n, 10 * n] for n in range(40)}
    shown = [text for text in texts(growth_lines(growth(sizes))) if text.startswith("class")]
    assert sorted(shown) == sorted(f"class {n}" for n in (0, 1, 2, 37, 38, 39))


def test_growth_lines_run_through_iterations_in_order():
    straight = growth({"cat": [1, 2, 3]})
    assert growth_lines(straight) == growth_lines(straight.iloc[::-1])


def test_histograms_have_one_strip_per_source():
    labels = pd.DataFrame({"source": ["filter"] * 3 + ["given"], "confidence": [0, 0.5, 1, 0.2]})
    shown = texts(confidence_histograms(labels))
    assert {"filter", "3", "given", "1"} <= set(shown)
    assert "teacher" not in shown


def test_the_callers_matplotlib_settings_are_left_alone():
    before = dict(mpl.rcParams)
    growth_lines(growth({"cat": [1, 2]}))
    assert dict(mpl.rcParams) == before


def test_picture_round_trip():
    pixels = np.random.default_rng(0).integers(0, 256, size=(20, 30, 3), dtype=np.uint8)
    data = base64.b64decode(picture_uri(pixels).removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)


def test_large_pictures_are_made_smaller():
    data = base64.b64decode(picture_uri(np.zeros((400, 1000), dtype=np.uint8)).split(",")[1])
    assert Image.open(io.BytesIO(data)).size == (192, 77)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (1234, "1.2k"),
        (9949, "9.9k"),
        (9960, "10k"),
        (99_999, "100k"),
        (999_499, "999k"),
        (999_999, "1M"),
        (3_400_000, "3.4M"),
    ],
)
def test_compact(count, text):
    assert compact(count) == text


def test_shorten():
    assert shorten("x" * 30, 5) == "xxxx…"
    assert shorten(" two\n words ") == "two words"
    assert shorten("") == "(empty)"
