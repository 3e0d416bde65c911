"""Figures of how clusters of neurons and their classes agree; `experiments.agreement` has the numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

from jaxmod.plans import Plan
from jaxmod.plots import COLOURS, INK
from jaxmod.reports import Results

__all__ = ["agreement_plans", "matched_rows", "plot_agreement", "plot_contingency"]

_SERIES = (("classes twice", COLOURS[1], "s"), ("clusters and classes", COLOURS[0], "o"))
_LABELS = {
    "classes twice": "classes, masks trained twice",
    "clusters and classes": "clusters and classes",
}


def plot_contingency(counts: Int[np.ndarray, "clusters classes"], ax: Axes, rows: Sequence[int]) -> Axes:
    """Returns `ax` with how many neurons of a layer each cluster and class have in common.

    The colour says which part of its class lies in the cluster, so that large and small classes read alike.

    Args:
      counts: of neurons.
      ax: where to draw.
      rows: the clusters to show, from the top.
    """
    counts = np.asarray(counts)
    shown = counts[list(rows)]
    part = shown / np.maximum(counts.sum(axis=0, keepdims=True), 1)
    ax.imshow(part, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(shown):
        if count:
            shade = "white" if part[row, column] > 0.55 else INK
            ax.text(column, row, str(count), ha="center", va="center", color=shade, fontsize=7)
    ax.set_xticks(range(counts.shape[1]))
    ax.set_yticks(range(len(rows)), [str(row) for row in rows])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xticks(np.arange(counts.shape[1] - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(len(rows) - 1) + 0.5, minor=True)
    ax.grid(which="minor", color="#EEEEEE", linewidth=0.6)
    ax.tick_params(which="minor", length=0)
    return ax


def matched_rows(counts: Int[np.ndarray, "clusters classes"]) -> list[int]:
    """Returns the clusters that have neurons, in the order that puts as many as possible on the diagonal."""
    counts = np.asarray(counts)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    beside = {int(row): int(column) for row, column in zip(rows, columns, strict=True)}
    filled = [row for row in range(len(counts)) if counts[row].sum()]
    return sorted(filled, key=lambda row: (beside.get(row, len(counts[row])), row))


def plot_agreement(of: Mapping[str, Any], ax: Axes) -> Axes:
    """Returns `ax` with the AMI of every network and layer, beside that of shuffled labels.

    Args:
      of: a condition's `layers`, and for `clusters and classes` and `classes twice` a row per network
        with an agreement per layer and one for all.
      ax: where to draw.
    """
    layers = [*of["layers"], "all"]
    for offset, (key, colour, marker) in zip((0.14, -0.14), _SERIES, strict=True):
        networks = of[key]
        spread = np.linspace(-0.05, 0.05, len(networks)) if len(networks) > 1 else np.zeros(1)
        for i, (network, shift) in enumerate(zip(networks, spread, strict=True)):
            x = np.arange(len(layers)) + offset + shift
            ax.plot(
                x, [row["ami"] for row in network], marker, color=colour, markersize=4.5, alpha=0.85,
                linestyle="none", zorder=3, label=_LABELS[key] if i == 0 else None,
            )  # fmt: skip
    for i, x in enumerate(np.arange(len(layers)) - 0.14):
        rows = [network[i] for network in of["clusters and classes"]]
        low = min(row["shuffles_mean"] - 2 * row["shuffles_std"] for row in rows)
        high = max(row["shuffles_mean"] + 2 * row["shuffles_std"] for row in rows)
        ax.fill_between(
            [x - 0.12, x + 0.12], low, high, color="#BBBBBB", linewidth=0, zorder=1,
            label="shuffled within the layer" if i == 0 else None,
        )  # fmt: skip
        most = float(np.mean([row["at_most"] for row in rows]))
        ax.plot(
            [x - 0.12, x + 0.12], [most, most], color=COLOURS[0], linewidth=1.2,
            label="at most, with these groups" if i == 0 else None,
        )  # fmt: skip
    ax.axhline(0, color="#888888", linewidth=0.8, zorder=0)
    ax.axvline(len(layers) - 1.5, color="#BBBBBB", linewidth=0.8, linestyle=":")
    ax.set_xticks(range(len(layers)), layers)
    ax.tick_params(axis="x", length=0)
    ax.set(ylabel="adjusted mutual information", xlim=(-0.5, len(layers) - 0.5))
    ax.set_ylim(min(ax.get_ylim()[0], -0.05), 1.02)
    ax.grid(axis="y")
    return ax


def agreement_plans(results: Results) -> list[Plan]:
    """Returns the AMI of all conditions, then a table of clusters and classes for each."""
    found = results["agreement"]
    return [_ami(found), *(_contingency(name, of) for name, of in found.items())]


def _ami(found: Mapping[str, Any]) -> Plan:
    caption = (
        "How far the clusters of the weights agree with the classes that masks give the neurons (blue; 1: "
        "the same groups, 0: unrelated), in each hidden layer and in all. Grey: classes shuffled within the "
        "layer, mean ± 2 standard deviations. Orange: the classes of masks trained twice, which is how much "
        "there is to agree with. A dot is a network; the blue line is what groups "
        "of these sizes could reach at most."
    )

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
        for ax, (name, of) in zip(axes, found.items(), strict=True):
            plot_agreement(of, ax).set_title(name)
        for ax in axes[1:]:
            ax.set_ylabel("")
        entries = axes[0].get_legend_handles_labels()
        figure.legend(*entries, loc="outside upper left", ncols=2)

    return Plan("agreement", caption, (max(6.6, 4 * len(found)), 3.6), draw)


def _contingency(name: str, of: Mapping[str, Any]) -> Plan:
    caption = (
        f"Clusters (rows) and classes (columns) of the hidden neurons of the first network ({name}): how "
        "many neurons have both; the colour is the part of the class's neurons of this layer. Clusters "
        "stand in the order that puts as many neurons as possible on the diagonal, all layers together. "
        "Were clusters and classes the same, each row and column would have one dark cell."
    )
    tables = [np.asarray(agreement["counts"]) for agreement in of["clusters and classes"][0]]
    rows = matched_rows(tables[-1])

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(of["layers"]), sharey=True, squeeze=False)[0]
        for ax, layer, counts, agreement in zip(
            axes, of["layers"], tables[:-1], of["clusters and classes"][0], strict=False
        ):
            plot_contingency(counts, ax, rows).set_title(f"{layer}: AMI {agreement['ami']:.2f}")
            ax.set_xlabel("class")
        axes[0].set_ylabel("cluster")

    size = (2.6 * len(of["layers"]) + 0.4, 0.24 * len(rows) + 1.0)
    return Plan(f"agreement_{name}", caption, size, draw)
