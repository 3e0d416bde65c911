"""Figures of runs side by side: what is drawn is what was given."""

import numpy as np
from matplotlib.figure import Figure

from jaxmod.analysis.class_agreement import left_out_rows, off_diagonal
from jaxmod.reports import stat
from jaxmod.vision import comparison_figures as figures


def test_groups_have_a_bar_of_each_series_and_a_dot_for_each_run():
    series = {"a": [stat([10.0, 20.0]), None], "b": [stat([5.0]), stat([1.0, 3.0])]}
    ax = figures.plot_groups(["cat", "dog"], series, Figure().subplots())
    heights = [bar.get_height() for bar in ax.patches]
    assert np.array_equal(heights, [15, np.nan, 5, 2], equal_nan=True)
    centres = [bar.get_x() + bar.get_width() / 2 for bar in ax.patches]
    np.testing.assert_allclose(centres, [-0.2, 0.8, 0.2, 1.2])
    dots = [line for line in ax.lines if line.get_marker() == "."]
    assert [list(line.get_ydata()) for line in dots] == [[10, 20], [1, 3]]
    np.testing.assert_allclose([np.asarray(line.get_xdata())[0] for line in dots], [-0.2, 1.2])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["cat", "dog"]


def test_agreement_has_a_dot_for_each_entry_off_the_diagonal():
    first, second = np.random.default_rng(0).normal(size=(2, 3, 3, 3))
    ax = figures.plot_agreement(first, second, Figure().subplots())
    for line, entries in zip(ax.lines, (off_diagonal, left_out_rows), strict=False):
        np.testing.assert_array_equal(line.get_xydata(), np.stack([entries(first), entries(second)], axis=1))
