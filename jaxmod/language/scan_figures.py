"""Figures of `experiments.scan`."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxmod.plans import Plan
from jaxmod.plots import COLOURS, INK, grouped_bars, legend_above
from jaxmod.reports import Results

__all__ = ["plot_lengths", "plot_templates", "scan_comparison_plans", "scan_plans"]

_UNDEFINED = {"mean": None, "std": None, "runs": []}


def scan_plans(results: Results) -> list[Plan]:
    """Returns the figures of the paper and its talk, and where masks break by length and template."""
    found, model = results["scan"], _model(results)
    plans = [_gap(found, model), _removed(found, model)]
    if any(name.startswith("direct") for name in found["accuracy"]):
        plans.append(_direct(found, model))
    return [*plans, _exclusive(found, model), _lengths(found, model), _templates(found, model)]


def scan_comparison_plans(results: Results) -> list[Plan]:
    """Returns the figures of the paper that have several networks, of `experiments.compare`."""
    found = results["compared_scan"]
    splits, of = found["splits"], {name: x["accuracy"] for name, x in found["networks"].items()}

    def bars(series: Mapping[str, str], figure: Figure) -> None:
        groups = [f"{split}\n{name}" for split in splits for name in of]
        rows = {
            label: [accuracy[key.format(split)][split] for split in splits for accuracy in of.values()]
            for label, key in series.items()
        }
        _accuracies(figure.subplots(), groups, rows)

    width = 1.4 + 0.75 * len(splits) * len(of)
    gap = {"control mask": "control", "mask of the split": "{}"}
    caption = (
        "Figure 4a of the paper: accuracy on the test part of each split, under the control mask and under "
        "the mask that was trained on the training part of the split."
    )
    plans = [Plan("fig04a_networks", caption, (width, 3.4), functools.partial(bars, gap))]
    if all(f"direct {split}" in accuracy for accuracy in of.values() for split in splits):
        caption = (
            "Figure 16 of the paper: accuracy on the test part of each split of networks trained on its "
            "training part alone, without masks, beside masks of the network that was trained on all kinds "
            "of commands."
        )
        series = {"trained on the split": "direct {}", "mask of the split": "{}", "control mask": "control"}
        plans.append(Plan("fig16_networks", caption, (width, 3.4), functools.partial(bars, series)))
    return plans


def _model(results: Results) -> str:
    return {"lstm": "LSTM", "transformer": "Transformer"}[results["model"]]


def _gap(found: Mapping[str, Any], model: str) -> Plan:
    caption = (
        f"Figure 4a of the paper, {model}: accuracy on the test part of each split, under the control mask "
        "and under the mask that was trained on the training part of the split."
    )

    def draw(figure: Figure) -> None:
        splits = found["splits"]
        series = {
            "control mask": [found["accuracy"]["control"][split] for split in splits],
            "mask of the split": [found["accuracy"][split][split] for split in splits],
        }
        _accuracies(figure.subplots(), splits, series)

    return Plan("fig04a_splits", caption, (4.6, 3.2), draw)


def _direct(found: Mapping[str, Any], model: str) -> Plan:
    caption = (
        f"Figure 16 of the paper, {model}: accuracy on the test part of each split of networks trained on "
        "its training part alone, without masks, beside masks of the network that was trained on all kinds "
        "of commands."
    )

    def draw(figure: Figure) -> None:
        splits = found["splits"]
        series = {
            "trained on the split": [found["accuracy"][f"direct {split}"][split] for split in splits],
            "mask of the split": [found["accuracy"][split][split] for split in splits],
            "control mask": [found["accuracy"]["control"][split] for split in splits],
        }
        _accuracies(figure.subplots(), splits, series)

    return Plan("fig16_direct", caption, (5.4, 3.2), draw)


def _accuracies(ax: Axes, groups: Sequence[str], series: Mapping[str, Any]) -> None:
    grouped_bars(ax, [group.replace("_", " ") for group in groups], series, 100)
    ax.set(ylabel="test accuracy (%)", ylim=(0, 104))
    legend_above(ax)


def _removed(found: Mapping[str, Any], model: str) -> Plan:
    caption = (
        f"Figure 4b of the paper, {model}: the output weights of each token that the control mask keeps and "
        "the mask of a split does not. END ends a sequence."
    )

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        tokens = [token.removeprefix("I_").replace("_", "\n") for token in found["tokens"]]
        series = {
            f"{split.replace('_', ' ')} mask": [of or _UNDEFINED for of in row]
            for split, row in found["removed"].items()
        }
        grouped_bars(ax, tokens, series, 1)
        ax.set(ylabel="removed (%)", ylim=(0, None))
        legend_above(ax)

    return Plan("fig04b_removed", caption, (6.4, 3.2), draw)


def _exclusive(found: Mapping[str, Any], model: str) -> Plan:
    caption = (
        f"{model}: the part of the control mask that is exclusive to it, in each layer, against the mask of "
        "each split: what longer samples, or commands with the primitive, need alone."
    )

    def draw(figure: Figure) -> None:
        ax, layers = figure.subplots(), [*found["layers"], "total"]
        series = {
            f"against {split.replace('_', ' ')}": [row[layer] for layer in layers]
            for split, row in found["exclusive"].items()
        }
        grouped_bars(ax, layers, series, 100)
        ax.set(ylabel="exclusive to the control mask (%)", ylim=(0, None))
        angle = 60 if len(layers) > 12 else 30
        ax.set_xticks(range(len(layers)), layers, rotation=angle, ha="right", rotation_mode="anchor")
        legend_above(ax)

    return Plan("exclusive", caption, (7.4, 3.8), draw)


def _lengths(found: Mapping[str, Any], model: str) -> Plan:
    caption = (
        f"{model}: accuracy on all commands by the number of their actions, under each mask. Dashed: the "
        f"longest that the length split trains on, {found['length_cut']}."
    )

    def draw(figure: Figure) -> None:
        plot_lengths(found["lengths"], found["length_cut"], figure.subplots())

    return Plan("lengths", caption, (6.4, 3.4), draw)


def plot_lengths(lengths: Mapping[str, Any], cut: float, ax: Axes) -> Axes:
    """Returns `ax` with the accuracy by length under each mask, and a line at the longest trained on.

    Args:
      lengths: `bins` of `[first, last]`, and `accuracy`: mask -> a Stat for each, or None.
      cut: where the line is.
      ax: drawn on.
    """
    x = [(first + last) / 2 for first, last in lengths["bins"]]
    for (name, stats), colour in zip(lengths["accuracy"].items(), (INK, *COLOURS), strict=False):
        there = [(at, s) for at, s in zip(x, stats, strict=True) if s is not None]
        mean = np.array([100 * s["mean"] for _, s in there])
        std = np.array([100 * (s["std"] or 0) for _, s in there])
        places = [at for at, _ in there]
        ax.plot(places, mean, marker="o", markersize=3, color=colour, label=name.replace("_", " "))
        ax.fill_between(
            places,
            np.maximum(mean - std, 0),
            np.minimum(mean + std, 100),
            color=colour,
            alpha=0.18,
            linewidth=0,
        )
    ax.axvline(cut + 0.5, color="#888888", linestyle="--", linewidth=0.8)
    ax.set(xlabel="actions of a command", ylabel="accuracy (%)", ylim=(-2, 104))
    ax.grid(axis="y")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=5, columnspacing=1.2, handletextpad=0.5)
    return ax


def _templates(found: Mapping[str, Any], model: str) -> Plan:
    templates = found["templates"]
    caption = (
        f"{model}: accuracy (%) on all commands by their template, under each mask: rows the first phrase, "
        "columns the second. X: a verb, D: a direction; 'twice' and 'thrice' are not told apart. Mean over "
        "networks."
    )

    def draw(figure: Figure) -> None:
        names = list(templates["accuracy"])
        axes = figure.subplots(1, len(names), sharey=True, squeeze=False).flat
        for name, ax in zip(names, axes, strict=True):
            plot_templates(templates, name, ax).set_title(name.replace("_", " "))

    return Plan("templates", caption, (1.9 * len(templates["accuracy"]) + 0.9, 3.0), draw)


def plot_templates(templates: Mapping[str, Any], mask: str, ax: Axes) -> Axes:
    """Returns `ax` with the accuracy under a mask by first and second phrase, in percent.

    Args:
      templates: `first` and `second`, the kinds of phrases, and `accuracy`: mask -> rows of Stats or None.
      mask: one of them.
      ax: drawn on.
    """
    mean = np.array(
        [[np.nan if s is None else 100 * s["mean"] for s in row] for row in templates["accuracy"][mask]]
    )
    ax.imshow(mean, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(mean):
        if np.isfinite(value):
            colour = "white" if value > 60 else INK
            ax.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=7)
    ax.set_xticks(range(len(templates["second"])), templates["second"], rotation=60, ha="right")
    ax.set_yticks(range(len(templates["first"])), templates["first"])
    ax.tick_params(length=0, labelsize=7)
    ax.spines[:].set_visible(False)
    return ax
