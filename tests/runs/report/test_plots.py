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

from pudistill.runs.report.plots import (
    accuracy_curve,
    confidence_histograms,
    flip_heat_map,
    growth_lines,
    picture_uri,
    standalone,
    transition_heat_map,
)
from pudistill.utils.formats import compact, shorten


def texts(svg):
    """All text of a figure; fails where it is not well-formed XML."""
    root = ElementTree.fromstring(svg)
    return [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]


def square(values, names):
    return pd.DataFrame(np.array(values), index=names, columns=names)


def curve(accuracies, noise="symmetric"):
    """Results of a sweep from each method's accuracies, one a level from 30 % on."""
    return pd.DataFrame(
        [
            (noise, 0.3 + 0.1 * n, method, accuracy)
            for method, line in accuracies.items()
            for n, accuracy in enumerate(line)
        ],
        columns=["noise", "overall_level", "method", "accuracy"],
    )


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
        confidence_histograms({"given": np.array([0, 1])}),
        transition_heat_map(square([[0.7, 0.3], [0, 1]], ["cat", "dog"])),
        accuracy_curve(curve({"pudistill": [0.9, 0.8], "true_labels": [1, 1], "own": [0, 1]})),
    ]
    for svg in figures:
        assert not re.search(r"#[0-9a-f]{6}", svg)
        assert "font-family" not in svg
        assert "var(--ink)" in svg or "var(--muted)" in svg


def test_transition_heat_map_shows_shares_but_not_the_smallest():
    names = ["cat", "dog", "eel"]
    matrix = square([[0.7, 0.296, 0.004], [0.006, 0.99, 0.004], [0, 0, 1]], names)
    shown = texts(transition_heat_map(matrix))
    assert sorted(shown) == sorted(
        [*names, *names, "true ↓  given →", "70 %", "30 %", "1 %", "99 %", "100 %"]
    )


def test_the_larger_a_share_the_stronger_its_colour():
    def strongest(share):
        svg = transition_heat_map(square([[1 - share, share], [0, 1]], ["cat", "dog"]))
        opacities = re.findall(r"fill: var\(--accent\)[^\"]*fill-opacity: ([\d.]+)", svg)
        return max(float(opacity) for opacity in opacities)

    assert strongest(0.05) < strongest(0.5) < strongest(0.9)


@pytest.mark.parametrize(
    ("name", "width"), [("AUTOMOBILE WWWWW", 16 * 8), ("自動車とＴ" * 3, 15 * 12)]
)
def test_wide_characters_have_room(name, width):
    svg = flip_heat_map(square(np.ones((2, 2), dtype=int), [name, "B"]))
    assert float(re.search(r'viewBox="0 0 [\d.]+ (\d+)', svg).group(1)) > 2 * 46 + width


def test_curve_names_noises_methods_and_levels():
    accuracies = {"given_labels": [0.8, 0.4], "pudistill": [0.9, 0.8], "my_own": [0.5, 0.5]}
    both = pd.concat([curve(accuracies), curve(accuracies, "asymmetric")])
    shown = texts(accuracy_curve(both))
    for text in ("symmetric noise", "asymmetric noise", "30 %", "40 %", "80 %"):
        assert text in shown
    for method in ("given labels", "pudistill", "my own"):
        assert shown.count(method) == 1  # beside the last panel


@pytest.mark.parametrize("n_noises", [1, 2])
def test_curve_fits_the_page(n_noises):
    methods = ["given_labels", "gold_loss_correction", "pudistill"]
    accuracies = {method: [0.9, 0.8] for method in methods}
    parts = [curve(accuracies, f"kind {n} of") for n in range(n_noises)]
    width = re.search(r'viewBox="0 0 (\d+)', accuracy_curve(pd.concat(parts))).group(1)
    assert float(width) <= 944


def test_a_method_that_reads_no_noisy_label_is_a_dashed_horizontal_line():
    def dashed(accuracies):
        return accuracy_curve(curve(accuracies)).count("stroke-dasharray")

    assert dashed({"given_labels": [0.9, 0.7], "pudistill": [0.9, 0.8]}) == 0
    assert dashed({"pudistill": [0.9, 0.8], "trusted_only": [0.7] * 2, "true_labels": [1, 1]}) == 2


def test_a_single_level_is_drawn_too():
    assert "pudistill" in texts(accuracy_curve(curve({"pudistill": [0.9]})))


def test_a_standalone_figure_has_its_own_colours_font_and_size():
    figure = accuracy_curve(curve({"pudistill": [0.9, 0.8], "given_labels": [0.9, 0.2]}))
    document = standalone(figure)
    root = ElementTree.fromstring(document)
    width, height = root.get("viewBox").split()[2:]
    assert (root.get("width"), root.get("height")) == (width, height)
    assert "sans-serif" in root.get("style")
    assert root[0].get("fill").startswith("#")  # a background: ink is for a light page
    assert "var(" not in document
    assert texts(document) == texts(figure)


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
    confidence = {"filter": np.array([1, 2]), "given": np.array([1, 0])}
    shown = texts(confidence_histograms(confidence))
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
    assert shorten("class number 12", 14) == "class nu…er 12"
    assert shorten("x" * 30, 5) == "xx…xx"
    assert shorten(" two\n words ") == "two words"
    assert shorten("") == "(empty)"
