"""Figures of finished runs of the image experiments side by side: `experiments.compare`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxmod.analysis.class_agreement import left_out_rows, off_diagonal
from jaxmod.plans import Plan
from jaxmod.plots import COLOURS, INK, grouped_bars, legend_above
from jaxmod.reports import Results
from jaxmod.vision.figures import plot_reuse

__all__ = ["comparison_plans", "plot_agreement", "plot_groups"]


def comparison_plans(results: Results) -> list[Plan]:
    """Returns the figures of a comparison: of what depends on the experiment that is compared."""
    compared = results["compared"]
    return {"removal": _removal, "stability": _stability, "transfer": _transfer}[compared["what"]](compared)


def plot_groups(
    groups: Sequence[str], series: Mapping[str, Sequence[Mapping[str, Any] | None]], ax: Axes
) -> Axes:
    """Returns `ax` with a group of bars for each name, one bar of each series, and runs as dots.

    Args:
      groups: what the bars of a group have in common.
      series: name -> a Stat for each group; None where there is none.
      ax: where to draw.
    """
    nothing = {"mean": None, "std": None, "runs": []}
    bars = {name: [s or nothing for s in stats] for name, stats in series.items()}
    for x, stats in zip(grouped_bars(ax, groups, bars, 1), bars.values(), strict=True):
        for at, s in zip(x, stats, strict=True):
            if len(s["runs"]) > 1:
                ax.plot([at] * len(s["runs"]), s["runs"], ".", color=INK, alpha=0.4, markersize=2)
    ax.set_xticks(range(len(groups)), groups, rotation=45, ha="right")
    return ax


def plot_agreement(first: Any, second: Any, ax: Axes) -> Axes:
    """Returns `ax` with a dot for each entry off the diagonal of the confusion differences of two networks.

    Args:
      first: differences in points, [left out, true, seen].
      second: those of another network.
      ax: where to draw.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    for entries, colour, label in (
        (off_diagonal, "#999999", "examples of other classes"),
        (left_out_rows, COLOURS[1], "of the class left out"),
    ):
        ax.plot(entries(first), entries(second), ".", color=colour, markersize=4, label=label)
    ends = [min(ax.get_xlim()[0], ax.get_ylim()[0]), max(ax.get_xlim()[1], ax.get_ylim()[1])]
    ax.plot(ends, ends, color="#BBBBBB", linewidth=0.8, zorder=0)
    ax.set_aspect("equal")
    return ax


def _removal(compared: Mapping[str, Any]) -> list[Plan]:
    of = compared["networks"]

    def drops(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True)
        for ax, key in ((upper, "drop"), (lower, "largest other drop")):
            plot_groups(compared["classes"], {name: found[key] for name, found in of.items()}, ax)
        upper.set_ylabel("relative drop (%)")
        lower.set_ylabel("largest drop of another class\n(% of the class's own)")
        lower.set_ylim(bottom=0)  # it is never below
        legend_above(upper)

    def agreement(figure: Figure) -> None:
        pairs = compared["agreement"]
        axes = figure.subplots(1, len(pairs), squeeze=False)[0]
        for ax, pair in zip(axes, pairs, strict=True):
            a, b = pair["networks"]
            plot_agreement(of[a]["differences"], of[b]["differences"], ax)
            ax.set(xlabel=a, ylabel=b)
            r = pair["off the diagonal"]
            if r is not None:
                ax.set_title(f"r = {r['correlation']:.2f}, by chance {r['chance']:.2f}", pad=34, fontsize=9)
        axes[0].legend(loc="lower left", bbox_to_anchor=(-0.1, 1.0), fontsize=7.5)

    caption = (
        "Figure 6 of the paper, architectures side by side: above, by how much the accuracy on a class drops "
        "under the mask trained without it, in percent of that under the control mask; below, the largest "
        "drop of another class, in percent of the first. Dots: networks."
    )
    other = (
        "Do architectures take a class for the same others? Changes of the confusion matrices off the "
        "diagonal (points, mean over networks) in two of them: a dot for each class left out, true class and "
        "class seen."
    )
    panels = len(compared["agreement"])
    return [
        Plan("fig06_networks", caption, (7.4, 5.6), drops),
        Plan("agreement", other, (3.2 * panels + 0.6, 3.9), agreement),
    ]


def _stability(compared: Mapping[str, Any]) -> list[Plan]:
    of = compared["networks"]
    changes = list(next(iter(of.values())))

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        plot_groups(changes, {name: [rows[c]["IoU"] for c in changes] for name, rows in of.items()}, ax)
        width = 0.8 / len(of)
        for i, rows in enumerate(of.values()):
            for group, change in enumerate(changes):
                left = group - 0.4 + i * width
                ax.plot([left, left + width], [rows[change]["chance"]["mean"]] * 2, color=INK, linewidth=2)
        ax.set(ylabel="IoU", ylim=(0, 1))
        legend_above(ax)

    caption = (
        "What two masks have in common that are trained on the same two classes (IoU), by what differs "
        "between their trainings and by the network. Dots: networks and pairs of classes. Lines: random "
        "masks with as many weights in each layer."
    )
    return [Plan("stability", caption, (5.6, 3.8), draw)]


def _transfer(compared: Mapping[str, Any]) -> list[Plan]:
    variants = compared["variants"]

    def bars(figure: Figure) -> None:
        across = min(len(variants), 2)
        axes = figure.subplots(math.ceil(len(variants) / across), across, squeeze=False, sharey=True)
        for ax in axes.flat[len(variants) :]:
            ax.set_axis_off()
        for ax, (name, found) in zip(axes.flat, variants.items(), strict=False):
            plot_reuse(found, ax).set_title(name)
            ax.label_outer()
            ax.tick_params(axis="x", labelsize=8, labelbottom=True)
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))

    def lines(figure: Figure) -> None:
        ax = figure.subplots()
        for i, (name, found) in enumerate(variants.items()):
            tasks, colour = found["tasks"][1:], COLOURS[i % len(COLOURS)]
            total = [100 * row["total"]["mean"] for row in found["sharing"][1:]]
            ax.plot(tasks, total, "o-", color=colour, markersize=4, label=name)
            chance = [100 * s["mean"] for s in found["chance"][1:]]
            ax.plot(tasks, chance, ":", color=colour, linewidth=1.2)
        ax.set(ylabel="shared with earlier tasks\n(% of own mask)", ylim=(0, 104))
        ax.grid(axis="y")
        legend_above(ax)

    caption = (
        "Figures 3 and 15 of the paper: the part of a task's mask that masks of earlier tasks use, by layer, "
        "for each variant."
    )
    over = "The same in total over tasks. Dotted: random masks with as many weights in each layer."
    height = 2.5 * math.ceil(len(variants) / 2) + 0.6
    return [
        Plan("fig03_fig15_variants", caption, (7.6, height), bars),
        Plan("sharing_over_tasks", over, (5.6, 3.6), lines),
    ]
