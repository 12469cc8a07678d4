"""Batched augmentation and mixup, against plain Python and hand-computed values."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pudistill.learners.networks.augmentation import (
    LARGEST_CHANGE_OF_LIGHT,
    LARGEST_ZOOM,
    mixup,
    random_affine,
    random_crop,
    random_cutout,
    random_flip,
    random_light,
    random_shift,
    strong_augment,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n, height=16, width=16, channels=3, dtype=torch.uint8):
    return torch.randint(1, 256, (n, height, width, channels), generator=seeded()).to(dtype)


def test_flip_mirrors_about_half():
    before = pictures(400)
    after = random_flip(before, seeded())
    mirrored = torch.tensor([torch.equal(a, b.flip(1)) for a, b in zip(after, before, strict=True)])
    unchanged = torch.tensor([torch.equal(a, b) for a, b in zip(after, before, strict=True)])
    assert bool((mirrored ^ unchanged).all())
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize(
    ("change", "divisor", "mode"), [(random_crop, 8, "constant"), (random_shift, 16, "reflect")]
)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.integers(0, 2**31))
def test_pictures_are_moved_and_gaps_filled(change, divisor, mode, height, width, channels, seed):
    before = pictures(3, height, width, channels)
    after = change(before, seeded(seed))
    up, left = round(height / divisor), round(width / divisor)
    padded = torch.from_numpy(np.pad(before, ((0, 0), (up, up), (left, left), (0, 0)), mode=mode))
    for old, new in zip(padded, after, strict=True):
        places = [
            torch.equal(new, old[y : y + height, x : x + width])
            for y in range(2 * up + 1)
            for x in range(2 * left + 1)
        ]
        assert any(places)


def test_crop_of_32_pixels_reaches_4_in_every_direction():
    dot = torch.zeros(4000, 32, 32, 1)
    dot[:, 16, 16] = 1
    _, rows, columns, _ = random_crop(dot, seeded()).nonzero(as_tuple=True)
    for place in (rows, columns):
        assert sorted(place.unique().tolist()) == list(range(12, 21))
        assert place.bincount()[12:].min() > 4000 / 9 * 0.8


def test_results_are_laid_out_for_channels_last():
    batch = random_crop(random_flip(pictures(5), seeded()), seeded())
    assert batch.permute(0, 3, 1, 2).is_contiguous(memory_format=torch.channels_last)


def test_augmentation_is_decided_by_the_generator():
    state = torch.get_rng_state()
    assert torch.equal(random_crop(pictures(9), seeded(1)), random_crop(pictures(9), seeded(1)))
    assert not torch.equal(random_crop(pictures(9), seeded(1)), random_crop(pictures(9), seeded(2)))
    assert torch.equal(state, torch.get_rng_state())


@given(
    st.integers(2, 40),
    st.integers(2, 40),
    st.sampled_from([1, 3]),
    st.sampled_from([torch.uint8, torch.float32, torch.float64]),
)
def test_strong_augmentation_keeps_shape_dtype_and_layout(height, width, channels, dtype):
    before = pictures(3, height, width, channels, dtype)
    original = before.clone()
    after = strong_augment(before, seeded())
    assert (after.shape, after.dtype) == (before.shape, before.dtype)
    assert after.is_contiguous()
    assert torch.equal(before, original), "the weak view is still needed"
    assert torch.isfinite(after.float()).all()


def test_strong_augmentation_is_decided_by_the_generator():
    state = torch.get_rng_state()
    first, again, other = (strong_augment(pictures(9), seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("change", [random_affine, random_light, random_cutout, strong_augment])
def test_every_picture_is_changed_differently(change):
    same = pictures(1, dtype=torch.float32).expand(20, -1, -1, -1)
    changed = change(same, seeded())
    assert len({tuple(picture.ravel().tolist()) for picture in changed}) > 15


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 96)])
def test_affine_turns_about_the_centre_and_limits_zoom(height, width):
    dots = torch.zeros(500, height, width, 1)
    dots[:, height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2] = 1
    turned = random_affine(dots, seeded())
    rows, columns = torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    mass = turned.sum((1, 2, 3))
    assert ((turned.sum((2, 3)) @ rows) / mass).abs().max() < 0.2
    assert ((turned.sum((1, 3)) @ columns) / mass).abs().max() < 0.2
    # Only the two zooms change areas in pixels, whatever the aspect ratio.
    largest = LARGEST_ZOOM**2
    assert 16 / largest * 0.95 < mass.min() < 16 / largest**0.6
    assert 16 * largest**0.6 < mass.max() < 16 * largest * 1.05


def test_light_changes_brightness_and_contrast_within_bounds():
    before = pictures(300, dtype=torch.float64)
    after = random_light(before, seeded())
    for measure in (torch.mean, torch.std):
        ratio = measure(after, (1, 2, 3)) / measure(before, (1, 2, 3))
        assert 0 <= ratio.min() - (1 - LARGEST_CHANGE_OF_LIGHT) < 0.02
        assert 0 <= (1 + LARGEST_CHANGE_OF_LIGHT) - ratio.max() < 0.02


def test_cutout_hides_a_rectangle_of_at_most_half_a_side():
    hidden = random_cutout(torch.ones(400, 16, 16, 2), seeded())[..., 0] == 0
    rows, columns = hidden.any(2).sum(1), hidden.any(1).sum(1)
    assert torch.equal(hidden.sum((1, 2)), rows * columns), "rectangles"
    assert rows.max() <= 9
    assert columns.max() <= 9
    assert hidden.any(0).all(), "anywhere"
    assert 0.02 < hidden.float().mean() < 0.15


def test_mixup_by_hand():
    inputs = torch.tensor([[0.0, 10.0], [4.0, 20.0], [8.0, 60.0]])
    mixed, targets = mixup(inputs, torch.eye(3), beta=0.75)
    assert mixed.tolist() == [[2.0, 22.5], [3.0, 17.5], [7.0, 50.0]]
    assert targets.tolist() == [[0.75, 0, 0.25], [0.25, 0.75, 0], [0, 0.25, 0.75]]


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_mixup_keeps_means(beta):
    inputs, targets = torch.randn(16, 2, 4, 4, generator=seeded()), torch.eye(16)
    mixed, mixed_targets = mixup(inputs, targets, beta)
    torch.testing.assert_close(mixed.mean(0), inputs.mean(0))
    torch.testing.assert_close(mixed_targets.sum(1), torch.ones(16))
