"""The figures of Filan et al. 2020 from the numbers of `results.json`: each takes numbers and an Axes.

`clusterings` is what `experiments.clusterability` leaves: an entry for each condition, phase and number of
clusters, with the n-cut of every network and those of its shuffles.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from scipy import stats

from jaxmod.plots import COLOURS, INK, RED

__all__ = ["plot_effect", "plot_initial", "plot_network", "plot_nulls", "plot_scatter", "plot_violins"]

_KINDS = {"layer": COLOURS[0], "layer-nonzero": COLOURS[1]}
_MARKERS = "os^D"
"""One for each round of the colours."""
_LABELS = {"layer": "layers shuffled", "layer-nonzero": "non-zero weights shuffled"}


def plot_scatter(clusterings: Sequence[Mapping[str, Any]], accuracy: Mapping[str, Any], ax: Axes) -> Axes:
    """Returns `ax` with n-cut against test accuracy, a point per network (figure 2).

    Args:
      clusterings: entries of one number of clusters.
      accuracy: `{condition: {phase: {"test": Stat}}}`.
      ax: where to draw.
    """
    conditions = list(dict.fromkeys(entry["condition"] for entry in clusterings))
    for entry in clusterings:
        name, phase = entry["condition"], entry["phase"]
        turn, place = divmod(conditions.index(name), len(COLOURS))
        colour = COLOURS[place]
        ax.scatter(
            entry["n_cut"]["runs"],
            [100 * x for x in accuracy[name][phase]["test"]["runs"]],
            s=26,
            marker=_MARKERS[turn % len(_MARKERS)],
            facecolors=colour if phase == "pruned" else "none",
            edgecolors=colour,
            linewidths=1.1,
            label=f"{name}, {phase}",
        )
    ax.set(xlabel="n-cut", ylabel="test accuracy (%)")
    ax.grid()
    ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def plot_initial(n_cuts: Sequence[float], ax: Axes) -> Axes:
    """Returns `ax` with the n-cuts of untrained networks, and their kernel density (figure 3)."""
    values = np.asarray(n_cuts)
    ax.hist(values, bins=min(25, max(5, len(values) // 6)), density=True, color=COLOURS[0], alpha=0.45)
    if len(values) > 2 and np.ptp(values) > 0:
        x = np.linspace(values.min() - 0.02, values.max() + 0.02, 200)
        ax.plot(x, stats.gaussian_kde(values)(x), color=COLOURS[0])
    ax.set(xlabel="n-cut of random initialisations", ylabel="density")
    return ax


def plot_nulls(entry: Mapping[str, Any], ax: Axes, run: int = -1) -> Axes:
    """Returns `ax` with the n-cuts of one network's shuffles and its own as a line (figure 4)."""
    own = entry["n_cut"]["runs"][run]
    every = np.concatenate([null["n_cuts"][run] for null in entry["nulls"].values()])
    bins = np.linspace(every.min(), every.max(), int(np.clip(len(every) // 8, 8, 40))).tolist()
    for kind, null in entry["nulls"].items():
        ax.hist(null["n_cuts"][run], bins=bins, color=_KINDS[kind], alpha=0.6, label=_LABELS[kind])
    ax.axvline(own, color=RED, linewidth=1.6, label="trained network")
    ax.set(xlabel="n-cut", ylabel="shuffles")
    return ax


def plot_violins(entry: Mapping[str, Any], ax: Axes) -> Axes:
    """Returns `ax` with every network's shuffles, `layer` to the left; a cross is the network (A.2-A.5)."""
    runs = len(entry["n_cut"]["runs"])
    for kind, null in entry["nulls"].items():
        side = "low" if kind == "layer" else "high"
        parts = ax.violinplot(null["n_cuts"], range(1, runs + 1), widths=0.8, side=side, showextrema=False)
        for body in parts["bodies"]:  # pyright: ignore[reportGeneralTypeIssues]
            body.set(facecolor=_KINDS[kind], alpha=0.7, edgecolor="none")
        ax.plot([], color=_KINDS[kind], linewidth=6, alpha=0.7, label=_LABELS[kind])
    ax.plot(range(1, runs + 1), entry["n_cut"]["runs"], "x", color=INK, label="trained network")
    ax.set(xlabel="network", ylabel="n-cut", xticks=range(1, runs + 1))
    return ax


def plot_effect(clusterings: Sequence[Mapping[str, Any]], ax: Axes) -> Axes:
    """Returns `ax` with Cohen's d of both kinds of shuffles, a dot per network, diamonds are means (A.1)."""
    entries = [entry for entry in clusterings if entry["cohens_d"]]
    for y, entry in enumerate(entries):
        effect = entry["cohens_d"]
        colour = COLOURS[0] if entry["phase"] == "pruned" else COLOURS[4]
        ax.plot(effect["runs"], [y] * len(effect["runs"]), "o", markersize=4, color=colour, alpha=0.6)
        ax.plot(effect["mean"], y, "D", markersize=7, color=colour, markeredgecolor=INK)
    ax.axvline(0, color="0.7", linewidth=0.8)
    ax.set_yticks(range(len(entries)), [f"{e['condition']}, {e['phase']}" for e in entries])
    ax.set(xlabel="Cohen's d, layer - layer-nonzero", ylim=(len(entries) - 0.5, -0.5))
    return ax


def plot_network(picture: Mapping[str, Any], ax: Axes) -> Axes:
    """Returns `ax` with a network whose neurons have the colours of their clusters (figure 1).

    Args:
      picture: `labels`, a list per layer of neurons (-1: not in the graph); `edges`, the strongest ones, as
        `[layer, from, to]`.
      ax: where to draw.
    """
    layers = [np.asarray(labels) for labels in picture["labels"]]
    heights = []
    for labels in layers:
        order = np.argsort(np.argsort(np.where(labels < 0, labels.max() + 1, labels), kind="stable"))
        heights.append((order + 0.5) / len(labels))
    edges = np.asarray(picture["edges"], int).reshape(-1, 3)
    lines = [[(layer, heights[layer][i]), (layer + 1, heights[layer + 1][j])] for layer, i, j in edges]
    same = [layers[layer][i] == layers[layer + 1][j] for layer, i, j in edges]
    tints = [
        COLOURS[layers[layer][i] % len(COLOURS)] if inside else "0.6"
        for (layer, i, _), inside in zip(edges, same, strict=True)
    ]
    ax.add_collection(LineCollection(lines, colors=tints, linewidths=0.35, alpha=0.45))
    for x, (labels, y) in enumerate(zip(layers, heights, strict=True)):
        inside = labels >= 0
        size = float(np.clip(2200 / len(labels), 3, 36))
        colours = [COLOURS[label % len(COLOURS)] for label in labels[inside]]
        ax.scatter(np.full(inside.sum(), x), y[inside], s=size, c=colours, zorder=2, linewidths=0)
    names = ["inputs", *(f"hidden {i}" for i in range(1, len(layers) - 1)), "outputs"]
    ax.set_xticks(range(len(layers)), names)
    ax.set(ylim=(1.02, -0.02), yticks=[])
    ax.spines["left"].set_visible(False)
    return ax
