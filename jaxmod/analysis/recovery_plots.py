"""Figure of how well methods find known modules; `experiments.planted` has the numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxmod.plans import Plan
from jaxmod.plots import COLOURS, INK
from jaxmod.reports import Results

__all__ = ["plot_recovery", "recovery_plans"]

_SHOWN = ("precision", "recall", "accuracy")


def plot_recovery(methods: Mapping[str, Mapping[str, Any]], ax: Axes) -> Axes:
    """Returns `ax` with precision, recall and accuracy of each method, and their confidence intervals.

    Args:
      methods: name -> measure -> `mean`, `low` and `high`.
      ax: where to draw.
    """
    width = 0.8 / len(_SHOWN)
    for i, (measure, colour) in enumerate(zip(_SHOWN, COLOURS, strict=False)):
        x = np.arange(len(methods)) + (i - (len(_SHOWN) - 1) / 2) * width
        mean, low, high = (
            np.array([values[measure][end] for values in methods.values()]) for end in ("mean", "low", "high")
        )
        ax.bar(x, mean, 0.92 * width, color=colour, label=measure)
        # The interval of a share may reach beyond what a share can be.
        error = np.stack([mean - np.maximum(low, 0), np.minimum(high, 1) - mean])
        ax.errorbar(x, mean, yerr=np.maximum(error, 0), fmt="none", ecolor=INK, elinewidth=1, capsize=2)
    ax.set_xticks(range(len(methods)), [name.replace("_", "\n") for name in methods])
    ax.tick_params(axis="x", length=0)
    ax.set_ylim(0, 1.02)
    ax.grid(axis="y")
    return ax


def recovery_plans(results: Results) -> list[Plan]:
    """Returns the bars of all methods, a panel for each kind of circuit."""
    found = results["recovery"]
    caption = (
        "How well each method finds the planted modules: precision and recall of the found weights, and the "
        f"accuracy under the mask; mean and 95% confidence interval over {results['runs']} networks. "
        "Magnitude and random masks have as many weights of each layer as the module has."
    )

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(found), 1, squeeze=False, sharex=True)[:, 0]
        for ax, (name, of) in zip(axes, found.items(), strict=True):
            plot_recovery(of["methods"], ax).set_title(f"{name} circuits")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=len(_SHOWN))

    return [Plan("recovery", caption, (7, 2.5 * len(found) + 0.6), draw)]
