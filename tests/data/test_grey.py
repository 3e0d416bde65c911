"""The grey images against a loop over pixels, and against the steps of the paper's library."""

import math

import numpy as np
import pytest
from scipy import ndimage

from jaxmod.data.grey import grey_28


@pytest.fixture(scope="module")
def colour():
    return np.random.default_rng(3).integers(256, size=(3, 32, 32, 3), dtype=np.uint8)


def test_it_is_a_loop_over_pixels(colour):
    got = grey_28(colour[:1])[0]
    assert got.shape == (28, 28)
    assert got.dtype == np.uint8
    for i in range(28):
        for j in range(28):
            row, column = (i + 0.5) * 32 / 28 - 0.5, (j + 0.5) * 32 / 28 - 0.5
            (a, r), (b, c) = divmod(row, 1), divmod(column, 1)
            value = 0.0
            for y, x, weight in (
                (0, 0, (1 - r) * (1 - c)),
                (0, 1, (1 - r) * c),
                (1, 0, r * (1 - c)),
                (1, 1, r * c),
            ):
                red, green, blue = colour[0, int(a) + y, int(b) + x].tolist()
                value += weight * (0.2125 * red + 0.7154 * green + 0.0721 * blue)
            assert math.isclose(got[i, j], value, abs_tol=0.5 + 1e-9)


def test_the_smoothing_of_the_paper_has_no_effect(colour):
    # scikit-image's route: floats, smoothing, each channel resized, then the luminance.
    x = colour.astype(float) / 255
    smooth = ndimage.gaussian_filter(x, (0, (32 / 28 - 1) / 2, (32 / 28 - 1) / 2, 0), mode="mirror")
    np.testing.assert_array_equal(smooth, x)
    small = ndimage.zoom(smooth, (1, 28 / 32, 28 / 32, 1), order=1, mode="mirror", grid_mode=True)
    expected = small @ np.array([0.2125, 0.7154, 0.0721])
    assert np.abs(grey_28(colour) - 255 * expected).max() <= 0.5 + 1e-9


def test_plain_colours():
    flat = np.zeros((4, 32, 32, 3), np.uint8)
    for i in range(3):
        flat[i, ..., i] = 255
    flat[3] = 255
    assert grey_28(flat)[:, 0, 0].tolist() == [54, 182, 18, 255]
    assert (grey_28(flat) == grey_28(flat)[:, :1, :1]).all()


def test_many_images_are_each_as_alone(colour):
    many = np.tile(colour, (667, 1, 1, 1))  # over two of the chunks in which they are done
    np.testing.assert_array_equal(grey_28(many), np.tile(grey_28(colour), (667, 1, 1)))


@pytest.mark.parametrize("shape", [(2, 28, 28, 3), (2, 32, 32, 1)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"x has shape \[2, .*expected \[N, 32, 32, 3\]"):
        grey_28(np.zeros(shape, np.uint8))
