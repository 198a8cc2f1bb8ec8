"""Rendered shapes: every combination is there once, where its factors say, and no two look alike."""

import numpy as np
import pytest

from minigen.data.shapes import FACTOR_NAMES, LEVELS, SHAPES, render

COUNTS = (3, 4, 12, 8, 8)


@pytest.fixture(scope="module")
def rendered():
    return render()


def test_every_combination_in_order(rendered):
    images, factors = rendered
    assert images.shape == (9216, 32, 32, 1)
    assert images.dtype == np.float32
    assert factors.shape == (9216, len(FACTOR_NAMES))
    np.testing.assert_array_equal(np.ravel_multi_index(tuple(factors.T), COUNTS), np.arange(9216))


def test_every_image_is_different(rendered):
    images, _ = rendered
    assert len({image.tobytes() for image in images}) == len(images)


def test_grey_levels(rendered):
    images, _ = rendered
    steps = images * (LEVELS - 1)
    np.testing.assert_array_equal(steps, np.rint(steps))
    assert steps.min() == 0
    assert steps.max() == LEVELS - 1


def test_nothing_is_cut_off(rendered):
    """All images of a shape, scale and rotation hold the same amount of white."""
    images, _ = rendered
    white = images.reshape(*COUNTS, -1).sum(axis=-1)
    np.testing.assert_array_equal(white, np.broadcast_to(white[..., :1, :1], white.shape))


def test_x_moves_right_and_y_moves_down(rendered):
    images, _ = rendered
    a = images.reshape(*COUNTS, 32, 32)
    np.testing.assert_array_equal(a[..., 1, 0, :, 2:], a[..., 0, 0, :, :-2])
    np.testing.assert_array_equal(a[..., 0, 1, 2:, :], a[..., 0, 0, :-2, :])


def test_rotation_is_counter_clockwise(rendered):
    """A quarter turn is rot90 of the image; the tile is even-sided, so this is exact up to subpixels on an edge."""
    images, _ = rendered
    tiles = images.reshape(*COUNTS, 32, 32)[:, :, :, 0, 0, :18, :18]
    for r in range(9):
        np.testing.assert_allclose(tiles[:, :, r + 3], np.rot90(tiles[:, :, r], axes=(2, 3)), atol=0.05)


def test_areas(rendered):
    """White area = analytic area of the shape, within what 1/8-pixel sampling allows."""
    images, _ = rendered
    white = images.reshape(*COUNTS, -1).sum(axis=-1)[:, :, :, 0, 0]  # (3, 4, 12)
    radius = 9 * np.linspace(0.45, 0.95, 4)
    triangle, half_disc, ell = 0.5 * 1.2 * 1.8, 0.5 * np.pi * 0.84, 3 * 0.7**2
    expected = np.array([triangle, half_disc, ell])[:, None] * radius**2
    np.testing.assert_allclose(white, np.broadcast_to(expected[..., None], white.shape), rtol=0.03)
    assert list(SHAPES) == ["triangle", "half disc", "ell"]


def test_other_grids_and_impossible_ones():
    images, factors = render(scales=2, rotations=3, positions=1, size=16)
    assert images.shape == (18, 16, 16, 1)
    assert factors.max(axis=0).tolist() == [2, 1, 2, 0, 0]
    for arguments in ({"positions": 14}, {"scales": 0}, {"rotations": 0}, {"positions": 0}):
        with pytest.raises(ValueError, match=r"window of -?[0-9]+ pixels"):
            render(**arguments)
