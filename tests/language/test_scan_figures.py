"""Figures of sequences: what is drawn is what was given."""

import numpy as np
from matplotlib.figure import Figure

from jaxmod.language import scan_figures
from jaxmod.reports import stat


def test_accuracy_by_length_skips_lengths_without_commands():
    lengths = {
        "bins": [[1, 2], [3, 4], [5, 6]],
        "accuracy": {"control": [stat([1.0, 0.8]), None, stat([0.5, 0.5])], "length": [stat([0.2])] * 3},
    }
    ax = scan_figures.plot_lengths(lengths, 4, Figure().subplots())
    control, length, cut = ax.lines
    np.testing.assert_allclose(control.get_xydata(), [[1.5, 90], [5.5, 50]])
    np.testing.assert_allclose(length.get_xydata(), [[1.5, 20], [3.5, 20], [5.5, 20]])
    assert list(cut.get_xdata()) == [4.5, 4.5]
    assert ax.get_legend_handles_labels()[1] == ["control", "length"]


def test_templates_are_a_table_in_percent():
    templates = {
        "first": ["X", "X D"],
        "second": ["alone", "X"],
        "accuracy": {"jump": [[stat([0.5, 0.25]), None], [stat([1.0]), stat([0.0])]]},
    }
    ax = scan_figures.plot_templates(templates, "jump", Figure().subplots())
    assert {text.get_position(): text.get_text() for text in ax.texts} == {
        (0, 0): "38", (0, 1): "100", (1, 1): "0",
    }  # fmt: skip
    assert [label.get_text() for label in ax.get_yticklabels()] == ["X", "X D"]
