"""Which of the figures of Filan et al. 2020 an experiment's results give."""

import math
from typing import Any

from matplotlib.figure import Figure

from jaxmod.plans import Plan
from jaxmod.reports import Results
from jaxmod.structure import cluster_plots

__all__ = ["cluster_plans"]


def cluster_plans(results: Results) -> list[Plan]:
    """Returns the figures of clusterings, in the order of the paper."""
    entries = results["clusterings"]
    plans = [_network(results["picture"])] if results.get("picture") else []
    first = entries[0]["k"] if entries else None
    with_nulls = [entry for entry in entries if entry["nulls"]]
    if entries:
        plans.append(
            _scatter([entry for entry in entries if entry["k"] == first], results["accuracy_by_phase"])
        )
    if results.get("initial"):
        plans.append(_initial(results["initial"]))
    shown = [entry for entry in with_nulls if entry["k"] == first]
    if shown:
        plans.append(_nulls(shown))
    both = [entry for entry in shown if entry["cohens_d"]]
    if both:
        plans.append(_effect(both))
    return plans + [_violins(entry) for entry in both]


def _name(entry: Any) -> str:
    return f"{entry['condition']}, {entry['phase']}"


def _network(picture: Any) -> Plan:
    caption = (
        f"Figure 1 of the paper: a pruned network ({picture['condition']}), its neurons coloured by cluster "
        "and sorted by it in each layer, with its strongest weights. Grey weights join two clusters."
    )

    def draw(figure: Figure) -> None:
        cluster_plots.plot_network(picture, figure.subplots())

    return Plan("fig01_network", caption, (7, 4.5), draw)


def _scatter(entries: list[Any], accuracy: Any) -> Plan:
    caption = (
        f"Figure 2 of the paper: n-cut ({entries[0]['k']} clusters) and test accuracy of every network. "
        "Filled: pruned; hollow: before pruning."
    )

    def draw(figure: Figure) -> None:
        cluster_plots.plot_scatter(entries, accuracy, figure.subplots())

    return Plan("fig02_n_cut_and_accuracy", caption, (7.5, 3.6), draw)


def _initial(initial: Any) -> Plan:
    caption = (
        f"Figure 3 of the paper: the n-cuts ({initial['k']} clusters) of {len(initial['n_cuts'])} networks "
        "that were not trained, and their density by a Gaussian kernel."
    )

    def draw(figure: Figure) -> None:
        cluster_plots.plot_initial(initial["n_cuts"], figure.subplots())

    return Plan("fig03_initial", caption, (5, 3), draw)


def _nulls(entries: list[Any]) -> Plan:
    caption = (
        "Figure 4 of the paper: the n-cuts of the shuffles of one network of each condition, and its own "
        "(red line)."
    )
    across = min(2, len(entries))
    down = math.ceil(len(entries) / across)

    def draw(figure: Figure) -> None:
        axes = list(figure.subplots(down, across, squeeze=False).flat)
        for ax, entry in zip(axes, entries, strict=False):
            cluster_plots.plot_nulls(entry, ax).set_title(_name(entry))
        for ax in axes[len(entries) :]:
            ax.set_axis_off()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))

    return Plan("fig04_shuffles", caption, (3.6 * across + 0.4, 2.3 * down + 0.4), draw)


def _effect(entries: list[Any]) -> Plan:
    caption = (
        "Figure A.1 of the paper: Cohen's d between the two kinds of shuffles. Above 0: the shuffles that "
        "keep the topology have the lower n-cuts. A dot per network, diamonds are means."
    )

    def draw(figure: Figure) -> None:
        cluster_plots.plot_effect(entries, figure.subplots())

    return Plan("figA1_cohens_d", caption, (6, 0.8 + 0.4 * len(entries)), draw)


_VIOLINS = {
    ("mnist", "unpruned"): 2, ("mnist-dropout", "unpruned"): 3,
    ("mnist", "pruned"): 4, ("mnist-dropout", "pruned"): 5,
}  # fmt: skip
"""The figures of the paper, which has none of other conditions."""


def _violins(entry: Any) -> Plan:
    number = _VIOLINS.get((entry["condition"], entry["phase"]))
    name = f"violins_{entry['condition']}_{entry['phase']}" if number is None else f"figA{number}_violins"
    which = "As figures A.2 to A.5" if number is None else f"Figure A.{number}"
    caption = (
        f"{which} of the paper, {_name(entry)}: the n-cuts of each network's shuffles, and its own (crosses)."
    )

    def draw(figure: Figure) -> None:
        ax = cluster_plots.plot_violins(entry, figure.subplots())
        ax.set_title(_name(entry))
        ax.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)

    return Plan(name, caption, (7, 3.2), draw)
