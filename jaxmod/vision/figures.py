"""Figures of the experiments on images: `class_removal`, `mask_stability`, `transfer`."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxmod.plans import Plan
from jaxmod.plots import COLOURS, INK
from jaxmod.reports import Results

__all__ = ["plot_bars", "plot_classes", "plot_reuse", "removal_plans", "stability_plans", "transfer_plans"]

_DIFFERENCES = {"cnn": 19, "cnn-no-dropout": 20, "resnet": 21}


def removal_plans(results: Results) -> list[Plan]:
    """Returns the figures of the paper, and images of each class that are no longer seen."""
    found, architecture = results["removal"], results["model"]
    plans = [_drops(found), _control(found), _differences(found, architecture)]
    return plans + ([_flips(found)] if any(found["flips"]) else [])


def stability_plans(results: Results) -> list[Plan]:
    """Returns what masks that are trained twice have in common, by what was changed."""
    found = results["stability"]
    caption = (
        "What two masks have in common that are trained on the same two classes (IoU, appendix B.1), by what "
        "differs between their trainings. Dots: networks and pairs of classes. Line: random masks with as "
        "many weights in each layer."
    )

    def draw(figure: Figure) -> None:
        ax = plot_bars(list(found), [of["IoU"] for of in found.values()], figure.subplots())
        for place, of in enumerate(found.values()):
            ax.plot([place - 0.35, place + 0.35], [of["chance"]["mean"]] * 2, color=COLOURS[1], linewidth=2)
        ax.set(ylabel="IoU", ylim=(0, 1))

    return [Plan("stability", caption, (4.4, 3.4), draw)]


def plot_bars(names: Sequence[str], stats: Sequence[Mapping[str, Any] | None], ax: Axes) -> Axes:
    """Returns `ax` with a bar for each Stat, the standard deviation over runs, and runs as dots.

    Args:
      names: of the bars.
      stats: a Stat each; None where there is none.
      ax: drawn on.
    """
    for place, s in enumerate(stats):
        if s is None:
            continue
        ax.bar(place, s["mean"], width=0.7, color=COLOURS[0], yerr=s["std"], ecolor=INK)
        if len(s["runs"]) > 1:
            ax.plot([place] * len(s["runs"]), s["runs"], ".", color=INK, alpha=0.4, markersize=3)
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right")
    ax.grid(axis="y")
    return ax


def plot_classes(matrix: Any, names: Sequence[str], ax: Axes, difference: bool = False) -> Axes:
    """Returns `ax` with a confusion matrix in percent, or a difference of two in points.

    Args:
      matrix: [true, seen].
      names: of the classes.
      ax: drawn on.
      difference: red is more, blue is less; numbers below a point are left out.
    """
    matrix = np.asarray(matrix, float)
    if difference:
        ax.imshow(matrix, cmap="RdBu_r", vmin=-100, vmax=100)
    else:
        ax.imshow(matrix, cmap="Blues", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(matrix):
        if abs(value) >= (1 if difference else 0.5):  # not NaN
            colour = "white" if abs(value) > 60 else INK
            ax.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=5.5)
    ax.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=6)
    ax.set_yticks(range(len(names)), names, fontsize=6)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def _drops(found: Mapping[str, Any]) -> Plan:
    caption = (
        "Figure 6 of the paper: left, by how much the accuracy on a class drops under the mask trained "
        "without it, in percent of that under the control mask; right, the largest drop of another class, in "
        "percent of the first. Dots: networks."
    )

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        plot_bars(found["classes"], found["drop"], left).set_ylabel("relative drop (%)")
        plot_bars(found["classes"], found["largest other drop"], right)
        right.set_ylabel("largest drop of another class\n(% of the class's own)")

    return Plan("fig06_drops", caption, (7.4, 3.2), draw)


def _control(found: Mapping[str, Any]) -> Plan:
    caption = (
        "Figure 18 of the paper: what classes are taken for under the control mask (%, mean over networks)."
    )

    def draw(figure: Figure) -> None:
        ax = plot_classes(found["control"]["mean"], found["classes"], figure.subplots())
        ax.set(xlabel="seen", ylabel="true")

    return Plan("fig18_control", caption, (4.4, 4.2), draw)


def _differences(found: Mapping[str, Any], architecture: str) -> Plan:
    number = _DIFFERENCES[architecture]
    caption = (
        f"Figure {number} of the paper: the change of the confusion matrix (points, mean over networks) when "
        "the weights go that only one class needs, named above each panel. Rows: true, columns: seen."
    )

    def draw(figure: Figure) -> None:
        names = found["classes"]
        axes = figure.subplots(5, 2).flat
        for name, of, ax in zip(names, found["differences"], axes, strict=True):
            plot_classes(of["mean"], names, ax, difference=True).set_title(f"without {name}")

    return Plan(f"fig{number}_differences", caption, (7.4, 17), draw)


def _flips(found: Mapping[str, Any]) -> Plan:
    most = max(map(len, found["flips"]))
    caption = (
        "Images of each class (row) that are seen right under the control mask, and what they are taken for "
        "when the class's weights are gone. First network."
    )

    def draw(figure: Figure) -> None:
        names = found["classes"]
        axes = figure.subplots(len(names), most, squeeze=False)
        for name, images, row in zip(names, found["flips"], axes, strict=True):
            for ax in row:
                ax.set_axis_off()
            for of, ax in zip(images, row, strict=False):
                ax.imshow(_pixels(of), cmap="gray", vmin=0, vmax=255)
                ax.set_title(f"{name} → {names[of['seen']]}", fontsize=6)

    return Plan("flips", caption, (1.5 * most + 0.4, 1.15 * len(found["classes"])), draw)


def _pixels(of: Mapping[str, Any]) -> np.ndarray:
    image = np.frombuffer(base64.b64decode(of["pixels"]), np.uint8).reshape(of["shape"])
    return image[..., 0] if image.shape[-1] == 1 else image


def transfer_plans(results: Results) -> list[Plan]:
    """Returns what tasks share with those before them, and how well each is solved after each."""
    found = results["transfer"]
    return [_reuse(found), _kept(found)]


def _reuse(found: Mapping[str, Any]) -> Plan:
    used, new = found["logits"]
    name, number = ("fig03", 3) if used == new else ("fig15", 15)
    caption = (
        f"Figure {number} of the paper: the part of a task's mask that masks of earlier tasks use, by layer. "
        f"Logits of a new mask start from {used:g} on used weights, from {new:g} on others."
    )

    def draw(figure: Figure) -> None:
        ax = plot_reuse(found, figure.subplots())
        ax.legend(ncols=len(found["tasks"]) - 1, loc="lower left", bbox_to_anchor=(0, 1))

    return Plan(f"{name}_sharing", caption, (6.4, 3.4), draw)


def plot_reuse(found: Mapping[str, Any], ax: Axes) -> Axes:
    """Returns `ax` with the part of each task's mask that earlier tasks use, by layer (figures 3, 15).

    Args:
      found: `tasks`, and `sharing`: of each task a Stat for each layer and for all.
      ax: where to draw.
    """
    rows = found["sharing"]
    layers, width = list(rows[1]), 0.8 / (len(rows) - 1)
    shades = np.linspace(0.3, 1, len(rows) - 1)
    for i, (task, row) in enumerate(zip(found["tasks"][1:], rows[1:], strict=True)):
        x = np.arange(len(layers)) - 0.4 + (i + 0.5) * width
        mean = [100 * row[layer]["mean"] for layer in layers]
        std = [100 * (row[layer]["std"] or 0) for layer in layers]
        ax.bar(x, mean, width, yerr=std, color=COLOURS[0], alpha=shades[i], ecolor=INK, label=task)
    ax.set_xticks(range(len(layers)), layers)
    ax.set(ylabel="shared with earlier tasks\n(% of own mask)", ylim=(0, 104))
    ax.grid(axis="y")
    return ax


def _kept(found: Mapping[str, Any]) -> Plan:
    caption = (
        "Accuracy (%) on each task (column) under its mask, after each task was learned (row). Columns that "
        "do not change: what is used stays."
    )
    names, count = found["tasks"], len(found["tasks"])

    def draw(figure: Figure) -> None:
        matrix = np.full((count, count), np.nan)
        for after, row in enumerate(found["accuracy"]):
            matrix[after, : len(row)] = [100 * s["mean"] for s in row]
        ax = plot_classes(matrix, names, figure.subplots())
        ax.set(xlabel="task", ylabel="after")

    return Plan("accuracy_of_tasks", caption, (4, 3.6), draw)
