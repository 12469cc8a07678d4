"""Features of pictures without a network."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pudistill import InputError, embed_dataset, load_dataset
from pudistill.learners.oriented_gradients import N_ORIENTATIONS, OrientedGradients

features_of = OrientedGradients()


def histograms(picture):
    return features_of(picture[None])[0, : 64 * N_ORIENTATIONS].reshape(8, 8, N_ORIENTATIONS)


def test_an_edge_counts_for_its_direction_and_its_place():
    picture = np.zeros((32, 32), dtype=np.uint8)
    picture[:, 16:] = 200
    upright, level = histograms(picture), histograms(picture.T)
    # Brightness changes to the right in the two columns of cells beside the edge.
    assert np.flatnonzero(upright.sum(axis=(0, 2))).tolist() == [3, 4]
    assert upright.sum(axis=(0, 1)).argmax() == 0
    # Downwards is 90 degrees: halfway between orientations of 80 and 100 degrees.
    assert np.flatnonzero(level.sum(axis=(1, 2))).tolist() == [3, 4]
    assert set(np.argsort(level.sum(axis=(0, 1)))[-2:]) == {4, 5}


def test_a_weak_edge_is_as_good_as_a_strong_one_and_opposite_directions_are_one():
    strong = np.zeros((32, 32), dtype=np.uint8)
    strong[:, 16:] = 200
    weak, negative = strong // 4, 255 - strong
    np.testing.assert_allclose(histograms(weak), histograms(strong), atol=0.05)
    np.testing.assert_allclose(histograms(negative), histograms(strong), atol=1e-5)


def test_colours_are_means():
    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    picture[..., 1] = 255
    colours = features_of(picture[None])[0, -48:].reshape(3, 16)
    assert colours.tolist() == [[0] * 16, [1] * 16, [0] * 16]


@given(st.integers(1, 40), st.integers(1, 40), st.booleans(), st.integers(0, 10**6))
def test_features_of_any_picture_are_finite_and_from_0_to_1(height, width, coloured, seed):
    shape = (3, height, width, 3) if coloured else (3, height, width)
    pictures = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    found = features_of(pictures)
    assert found.dtype == np.float32
    assert ((found >= 0) & (found <= 1 + 1e-6)).all()
    np.testing.assert_array_equal(features_of(pictures[1:2]), found[1:2])


def test_texts_have_none(tmp_path):
    (tmp_path / "texts.csv").write_text("id,text,label\n1,good food,a\n2,bad food,b\n")
    with pytest.raises(InputError, match=r"hog is for pictures: .* holds texts"):
        embed_dataset(load_dataset(tmp_path / "texts.csv"), "hog", cache=tmp_path)
