"""Bars of recovery are the numbers that were given, a group for each method."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxmod import figures
from jaxmod.analysis.recovery_plots import plot_recovery

MEASURES = ("precision", "recall", "accuracy")


def interval(mean, half=0.1):
    return {"mean": mean, "low": mean - half, "high": mean + half}


METHODS = {
    "gumbel_sigmoid": dict(zip(MEASURES, map(interval, (0.5, 0.75, 0.95)), strict=True)),
    "random": dict(zip(MEASURES, map(interval, (0.05, 0.25, 0.5)), strict=True)),
}


def test_bars_have_the_means_and_error_bars_the_intervals_within_what_a_share_can_be():
    ax = plot_recovery(METHODS, Figure().subplots())
    bars = ax.containers[::2]
    assert [group.get_label() for group in bars] == list(MEASURES)
    heights = [[bar.get_height() for bar in group] for group in bars]
    assert heights == [[METHODS[name][m]["mean"] for name in METHODS] for m in MEASURES]
    middles = np.array([[bar.get_x() + bar.get_width() / 2 for bar in group] for group in bars])
    np.testing.assert_allclose(middles.mean(axis=0), [0, 1], atol=1e-9)
    assert (np.diff(middles, axis=0) > 0).all()
    ends = [[ends[:, 1].tolist() for ends in lines.get_segments()] for lines in ax.collections]
    np.testing.assert_allclose(ends[0], [[0.4, 0.6], [0, 0.15]])
    np.testing.assert_allclose(ends[2], [[0.85, 1], [0.4, 0.6]])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["gumbel\nsigmoid", "random"]


@pytest.mark.parametrize("kinds", [("dense",), ("dense", "sparse")])
def test_a_panel_for_each_kind_of_circuit(kinds, tmp_path):
    results = {"runs": 3, "recovery": {kind: {"methods": METHODS} for kind in kinds}}
    (path,) = figures.draw_all({"experiment": "planted"} | results, tmp_path).values()
    assert path.name == "recovery.png" and path.stat().st_size > 5000
