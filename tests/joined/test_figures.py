"""The figures of specialization, from the numbers alone."""

import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from jaxmod import plots
from jaxmod.joined import figures
from jaxmod.reports import stat


def _results():
    random = np.random.default_rng(0)

    def stats():
        return [stat(random.random(3)) for _ in range(4)]

    measures = ("bottleneck", "mask", "correlation", "cka")
    return {
        "specialization": {
            "density": [1.0, 1e-4, 1e-2, 0.1],
            "modularity": [0.0, 0.49, 0.4, 0.3],
            "measures": {n: {s: stats() for s in ("own", "other", "contrast")} for n in measures},
            "accuracy": {name: stats() for name in ("plain", "bottleneck", "links cut", "masked")},
            "n_cut": {name: stats() for name in ("own", "found", "agree")},
        }
    }


def test_lines_go_through_the_means_from_left_to_right():
    ax = Figure().subplots()
    values = [stat([3.0, 5.0]), stat([1.0]), stat([2.0, 2.0])]
    figures.plot_series([10, 1, 5], values, ax, "label", "black")
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 5, 10])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [1, 2, 4])


def test_every_plan_draws():
    plans = figures.specialization_plans(_results())
    assert [plan.name for plan in plans] == [
        "fig03_specialization", "fig04_measures", "fig05_accuracy", "other_views",
    ]  # fmt: skip
    with matplotlib.rc_context(plots.STYLE):
        for plan in plans:
            figure = Figure(figsize=plan.size, layout="constrained")
            plan.draw(figure)
            figure.savefig(io.BytesIO(), format="png")
            assert all(ax.lines for ax in figure.axes)


def test_distances_are_one_minus_the_similarity():
    results = _results()
    figure = Figure()
    _, raw, *_ = figures.specialization_plans(results)
    raw.draw(figure)
    means = [s["mean"] for s in results["specialization"]["measures"]["cka"]["own"]]
    order = np.argsort(results["specialization"]["density"])
    np.testing.assert_allclose(figure.axes[3].lines[0].get_ydata(), 1 - np.array(means)[order])
