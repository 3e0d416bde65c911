"""Figures of specialization against structural modularity; `experiments.specialization` has the numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxmod.plans import Plan
from jaxmod.plots import COLOURS
from jaxmod.reports import Results, Stat

__all__ = ["plot_own_and_other", "plot_series", "specialization_plans"]

_NAMES = {"bottleneck": "bottleneck", "mask": "weight mask", "correlation": "correlation"}
_COLOURS = dict(zip([*_NAMES, "gumbel"], COLOURS, strict=False))
_SPARSE = "p, part of the links that exist"


def plot_series(x: Sequence[float], stats: Sequence[Stat | None], ax: Axes, label: str, colour: str) -> Axes:
    """Returns `ax` with means over networks, their standard deviations as a band and networks as dots.

    Args:
      x: where.
      stats: one for each x; None: there is nothing to show.
      ax: drawn on.
      label: in the legend.
      colour: of all three.
    """
    shown = sorted(((place, s) for place, s in zip(x, stats, strict=True) if s), key=lambda pair: pair[0])
    places, stats = [place for place, _ in shown], [s for _, s in shown]
    mean = np.array([s["mean"] for s in stats])
    std = np.array([s["std"] or 0.0 for s in stats])
    ax.plot(places, mean, color=colour, marker="o", markersize=3, label=label, zorder=3)
    ax.fill_between(places, mean - std, mean + std, color=colour, alpha=0.18, linewidth=0)
    for value, s in zip(places, stats, strict=True):
        ax.plot([value] * len(s["runs"]), s["runs"], ".", color=colour, alpha=0.3, markersize=3)
    return ax


def plot_own_and_other(x: Sequence[float], measure: Mapping[str, Any], ax: Axes) -> Axes:
    """Returns `ax` with a measure of the sub-networks on their own digit and on the other one, against p."""
    for side, label, colour in (("own", "own digit", COLOURS[0]), ("other", "other digit", COLOURS[1])):
        plot_series(x, measure[side], ax, label, colour)
    ax.set_xscale("log")
    ax.grid(axis="y")
    return ax


def specialization_plans(results: Results) -> list[Plan]:
    """Returns the figures of the paper, and the views that it does not have."""
    found = results["specialization"]
    return [_main(found), _raw(found), _accuracy(found), _beyond(found)]


def _main(found: Mapping[str, Any]) -> Plan:
    caption = (
        "Figure 3 of the paper: specialization of the sub-networks, (own - other) / (own + other) digit, by "
        "three measures, against the part p of the links that exist (left) and the modularity Q (right). "
        "Band: one standard deviation over networks; dots: networks."
    )

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        for name, label in _NAMES.items():
            stats = found["measures"][name]["contrast"]
            plot_series(found["density"], stats, left, label, _COLOURS[name])
            plot_series(found["modularity"], stats, right, label, _COLOURS[name])
        left.set(xscale="log", xlabel=_SPARSE, ylabel="specialization")
        right.set(xlabel="Q, directed modularity")
        for ax in (left, right):
            ax.grid(axis="y")
            ax.axhline(0, color="#888888", linewidth=0.8)
        left.legend(loc="upper right")

    return Plan("fig03_specialization", caption, (7.4, 3.4), draw)


def _raw(found: Mapping[str, Any]) -> Plan:
    caption = (
        "Figure 4 of the paper: the measures themselves, for each sub-network's own digit and the other one. "
        "Bottleneck: accuracy of a new readout; weight mask: share of the mask that lies in the sub-network; "
        "correlation of the states of pairs with a common digit; distance: 1 - linear CKA of these states."
    )
    panels = [*_NAMES, "cka"]

    def draw(figure: Figure) -> None:
        for name, ax in zip(panels, figure.subplots(2, 2, sharex=True).flat, strict=True):
            measure = found["measures"][name]
            if name == "cka":
                measure = {side: [_one_minus(s) for s in measure[side]] for side in ("own", "other")}
            plot_own_and_other(found["density"], measure, ax)
            ax.set_title({**_NAMES, "cka": "CKA distance"}[name])
        for ax in figure.axes[2:]:
            ax.set_xlabel(_SPARSE)
        figure.axes[0].legend()

    return Plan("fig04_measures", caption, (7.4, 5.2), draw)


def _one_minus(stat: Stat | None) -> Stat | None:
    return stat and {"mean": 1 - stat["mean"], "std": stat["std"], "runs": [1 - x for x in stat["runs"]]}


def _accuracy(found: Mapping[str, Any]) -> Plan:
    caption = (
        "Figure 5 of the paper: test accuracy of the task. Grey line: the most that two sub-networks reach "
        "which do not communicate; orange: trained networks whose links were cut."
    )

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        shown = (("plain", "networks"), ("links cut", "links cut"), ("bottleneck", "with bottleneck"))
        for (name, label), colour in zip(shown, COLOURS, strict=False):
            plot_series(found["density"], found["accuracy"][name], ax, label, colour)
        ax.axhline(0.75, color="#888888", linewidth=0.8, linestyle=":")
        ax.set(xscale="log", xlabel=_SPARSE, ylabel="accuracy", ylim=(0, 1.02))
        ax.grid(axis="y")
        ax.legend(loc="lower right")

    return Plan("fig05_accuracy", caption, (5, 3.4), draw)


def _beyond(found: Mapping[str, Any]) -> Plan:
    caption = (
        "In no paper: left, specialization by masks of the highest scores (the paper's) and by "
        "Gumbel-sigmoid masks; right, the n-cut of the same networks' recurrent weights and links, for the "
        "two sub-networks and for two clusters that spectral clustering finds. A link counts as one edge, "
        "also where it enters before the recurrent weights."
    )

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for name, label in (("mask", "highest scores"), ("gumbel", "Gumbel-sigmoid")):
            if name in found["measures"]:
                plot_series(
                    found["density"], found["measures"][name]["contrast"], left, label, _COLOURS[name]
                )
        for name, label, colour in (
            ("own", "sub-networks", COLOURS[0]),
            ("found", "clusters found", COLOURS[1]),
        ):
            plot_series(found["density"], found["n_cut"][name], right, label, colour)
        left.set(xscale="log", xlabel=_SPARSE, ylabel="specialization")
        right.set(xscale="log", xlabel=_SPARSE, ylabel="n-cut")
        for ax in (left, right):
            ax.grid(axis="y")
            ax.legend()

    return Plan("other_views", caption, (7.4, 3.4), draw)
