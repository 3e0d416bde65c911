"""The figures of clusterings, from the numbers alone: what is drawn is what was given."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from jaxmod.plots import COLOURS
from jaxmod.reports import stat
from jaxmod.structure import cluster_plots


@pytest.fixture
def ax():
    return Figure().subplots()


def entry(condition="one", phase="pruned", n_cuts=(2.0, 1.8), effect=(1.0, 3.0)):
    drawn = np.random.default_rng(0).normal(2.1, 0.1, (2, len(n_cuts), 40))
    nulls = {kind: {"n_cuts": x.tolist()} for kind, x in zip(("layer", "layer-nonzero"), drawn, strict=True)}
    return {
        "condition": condition, "phase": phase, "k": 4, "n_cut": stat(list(n_cuts)), "nulls": nulls,
        "cohens_d": None if effect is None else stat(list(effect)),
    }  # fmt: skip


def offsets(ax):
    return [np.asarray(points.get_offsets()).tolist() for points in ax.collections]


def test_a_point_is_a_network_and_hollow_before_pruning(ax):
    entries = [entry("one", "unpruned", (2.4, 2.3)), entry("one", "pruned"), entry("two", "pruned", (1.7,))]
    accuracy = {
        "one": {"unpruned": {"test": stat([0.9, 0.8])}, "pruned": {"test": stat([0.7, 0.6])}},
        "two": {"pruned": {"test": stat([0.5])}},
    }
    cluster_plots.plot_scatter(entries, accuracy, ax)
    assert offsets(ax) == [[[2.4, 90], [2.3, 80]], [[2.0, 70], [1.8, 60]], [[1.7, 50]]]
    hollow, filled, other = ax.collections
    assert len(hollow.get_facecolors()) == 0
    assert [to_rgba(COLOURS[0])] == [tuple(hollow.get_edgecolors()[0])] == [tuple(filled.get_facecolors()[0])]
    assert tuple(other.get_facecolors()[0]) == to_rgba(COLOURS[1])


def test_conditions_of_one_colour_have_other_markers(ax):
    names = [f"condition {i}" for i in range(len(COLOURS) + 1)]
    accuracy = {name: {"pruned": {"test": stat([0.5])}} for name in names}
    cluster_plots.plot_scatter([entry(name, n_cuts=(2.0,)) for name in names], accuracy, ax)
    first, *_, last = ax.collections
    assert tuple(first.get_facecolors()[0]) == tuple(last.get_facecolors()[0])
    shapes = [points.get_paths()[0].vertices for points in (first, last)]
    assert shapes[0].shape != shapes[1].shape


def test_a_histogram_and_a_density_of_untrained_networks_both_have_area_one(ax):
    cluster_plots.plot_initial(np.random.default_rng(0).normal(2.35, 0.02, 60), ax)
    assert sum(bar.get_width() * bar.get_height() for bar in ax.patches) == pytest.approx(1)
    (density,) = ax.lines
    assert np.trapezoid(density.get_ydata(), density.get_xdata()) == pytest.approx(1, abs=0.05)


def test_equal_n_cuts_have_no_density(ax):
    cluster_plots.plot_initial([2.0, 2.0, 2.0], ax)
    assert len(ax.lines) == 0 and len(ax.patches) > 0


def test_shuffles_of_both_kinds_are_counted_in_the_same_bins_and_the_network_is_a_line(ax):
    given = entry()
    cluster_plots.plot_nulls(given, ax, run=1)
    (line,) = ax.lines
    assert line.get_xdata() == [1.8, 1.8]
    bars = len(ax.patches) // 2
    for bins, null in zip((ax.patches[:bars], ax.patches[bars:]), given["nulls"].values(), strict=True):
        edges = [bar.get_x() for bar in bins] + [bins[-1].get_x() + bins[-1].get_width()]
        counted, _ = np.histogram(null["n_cuts"][1], edges)
        assert [bar.get_height() for bar in bins] == counted.tolist() and counted.sum() == 40


def test_violins_have_the_layer_shuffles_to_the_left_and_crosses_are_networks(ax):
    cluster_plots.plot_violins(entry(), ax)
    *_, crosses = ax.lines
    assert crosses.get_xydata().tolist() == [[1, 2.0], [2, 1.8]] and crosses.get_marker() == "x"
    left, right = ax.collections[:2], ax.collections[2:]
    for bodies, side in ((left, -1), (right, 1)):
        for at, body in enumerate(bodies, start=1):
            x = body.get_paths()[0].vertices[:, 0] - at
            assert (side * x >= -1e-9).all() and (side * x).max() == pytest.approx(0.4)


def test_effects_have_a_row_for_each_entry_that_has_any(ax):
    cluster_plots.plot_effect([entry(effect=None), entry("two"), entry("three", effect=(-1.0, 0.0))], ax)
    rows = [line.get_xydata().tolist() for line in ax.lines[:-1]]
    assert rows == [[[1, 0], [3, 0]], [[2, 0]], [[-1, 1], [0, 1]], [[-0.5, 1]]]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["two, pruned", "three, pruned"]


def test_neurons_are_sorted_and_coloured_by_cluster_and_edges_join_them(ax):
    picture = {"labels": [[1, 0, 1], [0, -1], [1]], "edges": [[0, 0, 0], [0, 1, 0], [1, 0, 0]]}
    cluster_plots.plot_network(picture, ax)
    edges, *layers = ax.collections
    inputs, hidden, outputs = (np.asarray(points.get_offsets()) for points in layers)
    np.testing.assert_allclose(inputs, [[0, 0.5], [0, 1 / 6], [0, 5 / 6]])  # the one of cluster 0 is first
    np.testing.assert_allclose(hidden, [[1, 0.25]])  # the other is not in the graph
    np.testing.assert_allclose(outputs, [[2, 0.5]])
    colours = [tuple(c) for c in layers[0].get_facecolors()]
    assert colours == [to_rgba(COLOURS[label]) for label in (1, 0, 1)]
    ends = [[[0, 0.5], [1, 0.25]], [[0, 1 / 6], [1, 0.25]], [[1, 0.25], [2, 0.5]]]
    np.testing.assert_allclose(edges.get_segments(), ends)
    tints = [tuple(c[:3]) for c in edges.get_colors()]
    assert tints == [to_rgba("0.6")[:3], to_rgba(COLOURS[0])[:3], to_rgba("0.6")[:3]]
