import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from jaxmod import plots
from jaxmod.reports import stat
from tests.results import make_results, make_study


@pytest.fixture
def ax():
    return Figure(layout="constrained").subplots()


def bars(ax):
    """The bars of every series, without error bars."""
    return [container for container in ax.containers if hasattr(container, "patches")]


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_accuracy_shows_control_masks_and_inverses_for_every_task(ax):
    assert plots.plot_accuracy(make_results(), ax) is ax
    assert [t.get_text() for t in ax.get_xticklabels()] == ["Full", "add", "not add", "mul", "not mul"]
    add, mul = bars(ax)
    assert [bar.get_height() for bar in add] == pytest.approx([98, 98, 2, 2, 10])
    assert [bar.get_height() for bar in mul] == pytest.approx([96, 0, 10, 95, 2])
    assert labels(ax) == ["on add", "on mul", "random mask of the same size"]


def test_accuracy_of_other_masks(ax):
    plots.plot_accuracy(make_results(), ax, masks=["unmasked", "control"])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["unmasked", "Full"]


def test_sharing_marks_chance_at_the_expected_overlap(ax):
    plots.plot_sharing(make_results(), ax)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["layer 1", "layer 2", "output", "total"]
    marks = [line for line in ax.lines if line.get_marker() == "D"]
    assert [line.get_ydata()[0] for line in marks] == pytest.approx([30, 10, 70, 25])
    add, _ = bars(ax)
    assert list(marks[0].get_xdata()) == pytest.approx([bar.get_x() + bar.get_width() / 2 for bar in add])
    assert labels(ax) == [
        "add mask", "mul mask", "random masks of the same sizes", "random parts of the control mask",
    ]  # fmt: skip


def test_nothing_shared_is_an_empty_plot_that_starts_at_zero(ax):
    results = make_results()
    results["sharing"] = {"add": dict.fromkeys(results["sharing"]["add"], stat([0.0, 0.0]))}
    results["chance"] = results["chance_in_control"] = {}
    plots.plot_sharing(results, ax)
    ax.figure.draw_without_rendering()
    assert ax.get_ylim()[0] == 0


def test_weights_are_counts_per_layer(ax):
    plots.plot_weights(make_results(), ax)
    assert [bar.get_height() for bar in bars(ax)[1]] == [6000, 6000, 6000]
    assert labels(ax) == ["add mask", "mul mask"]


@pytest.mark.parametrize("runs, corner", [(3, "98.0\n± 0.5"), (1, "98.0")])
def test_confusion_writes_its_numbers(ax, runs, corner):
    plots.plot_confusion(make_results(runs=runs)["confusion"]["control"], ax)
    texts = {text.get_position(): text for text in ax.texts}
    assert len(texts) == 6
    assert texts[0, 0].get_text() == corner
    assert texts[0, 0].get_color() == "white" and texts[1, 0].get_color() != "white"  # readable on the shade


def test_histogram_without_the_bin_at_zero(ax):
    plots.plot_histogram(make_results()["histogram"], ax, cut=0.0002)
    x, y = ax.lines[0].get_data()
    assert len(x) == 499 and max(y) == 50
    assert ax.get_yscale() == "linear"


def test_histogram_on_a_logarithmic_scale_has_empty_bins(ax):
    plots.plot_histogram(make_results(runs=1)["histogram"], ax, log=True)
    ax.figure.draw_without_rendering()
    assert len(ax.lines[0].get_xdata()) == 500
    assert ax.get_yscale() == "log"


def test_sensitivity_marks_the_chosen_beta(ax):
    points = make_study("beta")["points"]
    plots.plot_sensitivity(points, ax, "control accuracy", "total sharing", chosen=1e-4)
    star, dots = (np.asarray(c.get_offsets()) for c in ax.collections if isinstance(c, PathCollection))
    np.testing.assert_allclose(dots, [[1e-5, 98], [1e-3, 88]])
    np.testing.assert_allclose(star, [[1e-4, 93]])
    assert ax.get_xscale() == "log"
    assert len(ax.figure.axes) == 2  # a colour bar


def test_sensitivity_without_a_choice(ax):
    plots.plot_sensitivity(make_study("beta")["points"], ax, "control accuracy", "total sharing")
    ax.figure.draw_without_rendering()
    assert ax.get_legend() is None


@pytest.mark.parametrize(
    "parameter, scale", [("size", "linear"), ("temperature", "linear"), ("num_samples", "log")]
)
def test_points_show_means_and_runs(ax, parameter, scale):
    points = make_study(parameter)["points"]
    plots.plot_points(points, ax, ["control accuracy", "total sharing"], parameter)
    ax.figure.draw_without_rendering()
    assert ax.get_xscale() == scale
    assert labels(ax) == ["control accuracy", "total sharing"]
    means = [line for line in ax.lines if len(line.get_xdata()) == len(points) and line.get_marker() in "os"]
    assert means[0].get_ydata()[0] == pytest.approx(98)
    dots = [line for line in ax.lines if line.get_marker() == "."]
    assert len(dots) == 2 * len(points) and all(len(line.get_xdata()) == 3 for line in dots)


def test_a_share_s_error_bar_stays_between_0_and_100(ax):
    points = [
        {"value": 1, "accuracy": stat([0.9, 1.0, 1.0])},
        {"value": 2, "accuracy": stat([0.0, 0.1, 0.0])},
    ]
    plots.plot_points(points, ax, ["accuracy"], "seed")
    segments = ax.collections[0].get_segments()
    assert max(s[:, 1].max() for s in segments) <= 100 and min(s[:, 1].min() for s in segments) >= 0
