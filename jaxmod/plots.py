"""The paper's figures from the numbers of `results.json`: each takes numbers and an Axes, returns the Axes.

No file is read or written and no global state is touched, so the functions serve in a notebook as well;
`jaxmod.figures` decides which of them an experiment's results give.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from jaxmod import reports
from jaxmod.reports import Results, Stat

__all__ = [
    "COLOURS",
    "INK",
    "RED",
    "STYLE",
    "grouped_bars",
    "legend_above",
    "plot_accuracy",
    "plot_confusion",
    "plot_histogram",
    "plot_points",
    "plot_sensitivity",
    "plot_sharing",
    "plot_weights",
]

# Okabe and Ito's palette: told apart with any colour vision, and dark and light in print.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
INK, RED = "#333333", "#D55E00"
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "savefig.dpi": 160,
}
"""For `matplotlib.rc_context`: what the report's figures look like."""


def plot_accuracy(results: Results, ax: Axes, masks: Sequence[str] | None = None) -> Axes:
    """Returns `ax` with the accuracy on every sub-function under each mask (figures 2, 10, 14).

    A diamond is what a random mask with as many weights in each layer reaches.

    Args:
      results: `accuracy` and `tasks` are read.
      ax: where to draw.
      masks: default: the control mask ("Full"), then every task's mask and its inverse.
    """
    accuracy, tasks = results["accuracy"], results["tasks"]
    if masks is None:
        wanted = ["control", *(name for task in tasks for name in (task, f"not {task}"))]
        masks = [name for name in wanted if name in accuracy]
    series = {f"on {task}": [accuracy[mask][task] for mask in masks] for task in tasks}
    centres = grouped_bars(ax, ["Full" if m == "control" else m for m in masks], series, 100)
    for x, task in zip(centres, tasks, strict=True):
        random = [accuracy.get(f"random {mask}", {}).get(task) for mask in masks]
        _mark(ax, x, random, INK, "random mask of the same size")
    ax.set(ylabel="accuracy (%)", ylim=(0, 104), xlabel="weights in use")
    return legend_above(ax)


def plot_sharing(results: Results, ax: Axes) -> Axes:
    """Returns `ax` with the part of each mask that the other has too, per layer (figures 1, 13).

    Chance is drawn onto the bars: two random masks of these sizes would share as much as the filled
    diamond says, two random parts of the control mask as much as the hollow one.

    Args:
      results: `sharing` and `layers`, and `chance` and `chance_in_control` if there.
      ax: where to draw.
    """
    layers = [*results["layers"], "total"]
    series = {f"{task} mask": [row[layer] for layer in layers] for task, row in results["sharing"].items()}
    centres = grouped_bars(ax, layers, series, 100)
    for source, face, label in (
        ("chance", INK, "random masks of the same sizes"),
        ("chance_in_control", "white", "random parts of the control mask"),
    ):
        for x, task in zip(centres, results["sharing"], strict=True):
            rows = results.get(source, {}).get(task, {})
            _mark(ax, x, [rows.get(layer, {}).get("expected") for layer in layers], face, label)
    ax.axvline(len(layers) - 1.5, color="#BBBBBB", linewidth=0.8, linestyle=":")
    ax.set(ylabel="shared with the other mask\n(% of own mask)", ylim=(0, None))
    return legend_above(ax)


def plot_weights(results: Results, ax: Axes) -> Axes:
    """Returns `ax` with the number of weights that each sub-function's mask keeps (figure 11)."""
    layers = results["layers"]
    series = {
        f"{task} mask": [results["weights"][task][layer] for layer in layers] for task in results["tasks"]
    }
    grouped_bars(ax, layers, series, 1)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    ax.set(ylabel="weights kept", ylim=(0, None))
    return legend_above(ax)


def plot_confusion(confusion: Mapping[str, Any], ax: Axes) -> Axes:
    """Returns `ax` with which operation is performed, whatever was asked for (figure 12).

    Args:
      confusion: one mask's `rows` (requested), `columns` (performed) and `percent`.
      ax: where to draw.
    """
    mean = np.asarray(confusion["percent"]["mean"], float)
    std = confusion["percent"]["std"]
    ax.imshow(mean, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(mean):
        text = f"{value:.1f}" if std is None else f"{value:.1f}\n± {std[row][column]:.1f}"
        shade = "white" if value > 55 else INK
        ax.text(column, row, text, ha="center", va="center", color=shade)
    ax.set_xticks(range(len(confusion["columns"])), confusion["columns"])
    ax.set_yticks(range(len(confusion["rows"])), confusion["rows"])
    ax.set(xlabel="performed (%)", ylabel="requested")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def plot_histogram(
    histogram: Mapping[str, Any], ax: Axes, log: bool = False, cut: float | None = None
) -> Axes:
    """Returns `ax` with the density of the probabilities that weights are kept (figure 7).

    Args:
      histogram: `edges`, and `mean` and `std` of the density in each bin.
      ax: where to draw.
      log: a logarithmic scale (figure 7b).
      cut: leaves out bins that begin below it (figure 7a: 0.0002, so the first of 500).
    """
    edges, mean = np.asarray(histogram["edges"], float), np.asarray(histogram["mean"], float)
    std = np.zeros_like(mean) if histogram["std"] is None else np.asarray(histogram["std"], float)
    kept = np.full(mean.shape, True) if cut is None else edges[:-1] >= cut
    floor = 0.5 * mean[mean > 0].min(initial=1.0) if log else 0.0
    low, high = np.maximum(mean - std, floor)[kept], np.maximum(mean + std, floor)[kept]
    middle = 0.5 * (edges[:-1] + edges[1:])[kept]
    ax.fill_between(middle, low, high, step="mid", alpha=0.3, linewidth=0)
    ax.step(middle, np.maximum(mean, floor)[kept], where="mid", linewidth=1)
    if log:
        ax.set_yscale("log")
    ax.set_ylim(floor, None)  # an empty bin lies on the axis
    ax.set(xlabel="probability that a weight is kept", ylabel="density", xlim=(-0.02, 1.02))
    ax.grid(axis="y")
    return ax


def plot_sensitivity(
    points: Sequence[Mapping[str, Any]], ax: Axes, accuracy: str, sharing: str, chosen: float | None = None
) -> Axes:
    """Returns `ax` with the control mask's accuracy against beta, coloured by sharing (figure 8).

    Args:
      points: each has a `value` (beta) and Stats.
      ax: where to draw.
      accuracy: the name of the Stat on the y axis.
      sharing: the name of the Stat that gives the colour.
      chosen: the beta of the experiments, marked with a line and a star.
    """
    beta = [point["value"] for point in points]
    y, error = _numbers([point[accuracy] for point in points], 100)
    colour, _ = _numbers([point[sharing] for point in points], 100)
    ax.errorbar(beta, y, yerr=error, fmt="none", ecolor="#999999", elinewidth=1, capsize=2, zorder=1)
    if chosen is not None:
        ax.axvline(chosen, color=RED, linewidth=1.2, linestyle="--", zorder=0, label="chosen")
    star = [chosen is not None and math.isclose(b, chosen) for b in beta]
    norm = Normalize(np.nanmin(colour), np.nanmax(colour))
    for marker, size, which in (("*", 190, np.asarray(star)), ("o", 46, np.logical_not(star))):
        ax.scatter(
            np.asarray(beta)[which], y[which], c=colour[which], marker=marker, s=size, norm=norm,
            edgecolors=INK, linewidths=0.6, zorder=2,
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set(xlabel="beta", ylabel="accuracy of the control mask (%)")
    ax.grid(axis="y")
    ax.figure.colorbar(ax.collections[-1], ax=ax, label=f"{sharing} (%)")
    return legend_above(ax)


def plot_points(
    points: Sequence[Mapping[str, Any]], ax: Axes, statistics: Sequence[str], parameter: str
) -> Axes:
    """Returns `ax` with Stats against a setting: mean, standard deviation and every run (e.g. figure 9).

    Args:
      points: each has a `value`, a number or a name, and Stats.
      ax: where to draw.
      statistics: which Stats; shares such as accuracies are shown in percent.
      parameter: the name of what varies.
    """
    values = [point["value"] for point in points]
    numeric = all(isinstance(value, int | float) for value in values)
    x = np.asarray(values, float) if numeric else np.arange(len(values), dtype=float)
    for i, name in enumerate(statistics):
        colour, scale = COLOURS[i % len(COLOURS)], 100 if reports.is_share(name) else 1
        mean, error = _numbers([point[name] for point in points], scale)
        for at, point in zip(x, points, strict=True):
            runs = scale * np.asarray(point[name]["runs"], float)
            ax.plot(np.full(runs.shape, at), runs, ".", color=colour, alpha=0.35, markersize=4, zorder=1)
        ax.errorbar(
            x, mean, yerr=error, color=colour, marker="osD^vP"[i % 6], markersize=5, capsize=2,
            linewidth=1.2, linestyle="-" if numeric else "none", label=name,
        )  # fmt: skip
    if not numeric:
        ax.set_xticks(x, [reports.format_value(value) for value in values])
        ax.set_xlim(-0.5, len(values) - 0.5)
    elif min(values) > 0 and max(values) >= 8 * min(values):
        ax.set_xscale("log")
        if len(values) <= 8:  # room for every value's own label
            ax.set_xticks(x, [f"{value:g}" for value in values])
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.tick_params(axis="x", which="minor", length=0)
    ax.set_xlabel(parameter.replace("_", " "))
    ax.grid(axis="y")
    if len(statistics) > 1:
        ax.set_ylabel("%" if all(map(reports.is_share, statistics)) else "")
        return legend_above(ax)
    ax.set_ylabel(f"{statistics[0]} (%)" if reports.is_share(statistics[0]) else statistics[0])
    return ax


def _numbers(stats: Sequence[Stat], scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns means, and error bars down and up; one run has none, and no share's leaves 0 to 100 %."""
    mean = np.array([math.nan if stat["mean"] is None else scale * stat["mean"] for stat in stats])
    std = np.array([scale * (stat["std"] or 0.0) for stat in stats])
    if scale == 100:
        return mean, np.stack([np.minimum(std, mean), np.minimum(std, np.maximum(100 - mean, 0))])
    return mean, np.stack([std, std])


def grouped_bars(
    ax: Axes, groups: Sequence[str], series: Mapping[str, Sequence[Stat]], scale: float
) -> list[np.ndarray]:
    """Draws a bar of every series in each of `groups`, Stats times `scale`; returns the x of their bars."""
    width = 0.8 / len(series)
    centres = []
    for i, (label, stats) in enumerate(series.items()):
        x = np.arange(len(groups)) + (i - (len(series) - 1) / 2) * width
        mean, error = _numbers(stats, scale)
        ax.bar(x, mean, 0.92 * width, color=COLOURS[i % len(COLOURS)], label=label)
        shown = error.max(axis=0) > 0
        ax.errorbar(
            x[shown], mean[shown], yerr=error[:, shown], fmt="none", ecolor=INK, elinewidth=1, capsize=2.5
        )
        centres.append(x)
    ax.set_xticks(range(len(groups)), groups)
    ax.tick_params(axis="x", length=0)
    ax.grid(axis="y")
    return centres


def _mark(ax: Axes, x: np.ndarray, stats: Sequence[Stat | None], face: str, label: str) -> None:
    """Puts a diamond at the means of the Stats that are there; the legend names them once."""
    there = [(at, 100 * stat["mean"]) for at, stat in zip(x, stats, strict=True) if stat is not None]
    if not there:
        return
    known = label in ax.get_legend_handles_labels()[1]
    edge = "white" if face == INK else INK
    ax.plot(
        *zip(*there, strict=True), "D", markersize=5, markerfacecolor=face, markeredgecolor=edge,
        markeredgewidth=0.8, linestyle="none", clip_on=False, label=None if known else label,
    )  # fmt: skip


def legend_above(ax: Axes) -> Axes:
    """Returns `ax` with its legend above the axes, where it covers nothing; bars come first."""
    entries = sorted(
        zip(*ax.get_legend_handles_labels(), strict=True), key=lambda x: isinstance(x[0], Line2D)
    )
    if entries:
        ax.legend(
            *zip(*entries, strict=True), loc="lower left", bbox_to_anchor=(0, 1.0), borderpad=0.2,
            ncols=len(entries) if len(entries) < 4 else 2, borderaxespad=0.2, handlelength=1.4,
            columnspacing=1.6, handletextpad=0.5,
        )  # fmt: skip
    return ax
