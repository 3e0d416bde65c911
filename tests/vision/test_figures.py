"""Figures of single classes: what is drawn is what was given."""

import base64

import numpy as np
from matplotlib.figure import Figure

from jaxmod.reports import stat
from jaxmod.vision import figures


def test_a_difference_shows_what_is_a_point_or_more():
    ax = figures.plot_classes([[-40.2, 40.2], [0.4, -0.4]], ["cat", "dog"], Figure().subplots(), True)
    assert [text.get_text() for text in ax.texts] == ["-40", "40"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog"]


def test_bars_are_means_and_undefined_classes_have_none():
    ax = figures.plot_bars(["a", "b", "c"], [stat([10.0, 20.0]), None, stat([5.0])], Figure().subplots())
    assert [bar.get_height() for bar in ax.patches] == [15, 5]
    assert [bar.get_x() + bar.get_width() / 2 for bar in ax.patches] == [0, 2]
    assert len(ax.get_xticks()) == 3


def test_pixels_come_back_as_they_were():
    for shape in ((4, 4, 1), (4, 4, 3)):
        image = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        given = {"pixels": base64.b64encode(image.tobytes()).decode(), "shape": shape}
        np.testing.assert_array_equal(figures._pixels(given), image[..., 0] if shape[-1] == 1 else image)
