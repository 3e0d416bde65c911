"""Figures of `experiments.mathematics`, which has the numbers."""

import textwrap
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from jaxmod.plans import Plan
from jaxmod.plots import INK, RED, grouped_bars, legend_above
from jaxmod.reports import Results

__all__ = ["mathematics_plans"]

_MASKS = {"no mask": "no mask", "control": "control mask", "easy": "mask from easy questions"}
_NAMES = {
    "add_or_sub": "add or sub",
    "linear_1d": "linear 1D",
    "differentiate": "differentiate",
    "sort": "sort",
    "collect": "poly. collect",
}
"""What the paper calls the tasks."""
_WIDTH = 58
"""Characters of a line."""


def mathematics_plans(results: Results) -> list[Plan]:
    """Returns figures 5 and 17 of the paper, accuracies by difficulty, what remains, and what breaks."""
    found = results["mathematics"]
    plans = [_hard(found), _levels(found), _remaining(found), _examples(found)]
    return plans + ([_broken(found)] if any(of["broken"] for of in found["tasks"].values()) else [])


def _hard(found: Mapping[str, Any]) -> Plan:
    caption = (
        "Figure 5 of the paper: accuracy on hard questions without a mask, under the control mask, which was "
        "trained on all questions, and under the mask that was trained on easy questions alone."
    )

    def draw(figure: Figure) -> None:
        ax, tasks = figure.subplots(), found["tasks"]
        series = {
            label: [of["accuracy"][name]["hard"] for of in tasks.values()] for name, label in _MASKS.items()
        }
        grouped_bars(ax, [_NAMES[task] for task in tasks], series, 100)
        ax.set(ylabel="accuracy on hard questions (%)", ylim=(0, 104))
        legend_above(ax)

    return Plan("fig05_hard", caption, (max(5.6, 1.4 * len(found["tasks"])), 3.2), draw)


def _levels(found: Mapping[str, Any]) -> Plan:
    tasks = found["tasks"]
    caption = (
        "Accuracy by difficulty. Hard beyond easy: hard questions with more digits than 95% of the easy ones."
    )

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(tasks), 1, squeeze=False).flat
        for (task, of), ax in zip(tasks.items(), axes, strict=True):
            groups = list(of["accuracy"]["no mask"])
            series = {
                label: [of["accuracy"][name][group] for group in groups] for name, label in _MASKS.items()
            }
            grouped_bars(ax, groups, series, 100)
            ax.set(ylabel=f"{_NAMES[task]}\naccuracy (%)", ylim=(0, 104))
        legend_above(axes[0])

    return Plan("levels", caption, (5.6, 2.3 * len(tasks) + 0.5), draw)


def _remaining(found: Mapping[str, Any]) -> Plan:
    tasks = found["tasks"]
    caption = (
        "The part of the control mask that the mask from easy questions has too, in each layer, and what "
        "random masks of these sizes would have."
    )

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(tasks), 1, sharex=True, squeeze=False).flat
        for (task, of), ax in zip(tasks.items(), axes, strict=True):
            layers = [*of["layers"], "total"]
            series = {
                label: [of["sharing"]["remaining"][layer][field] for layer in layers]
                for label, field in (("remaining", "shared"), ("by chance", "expected"))
            }
            grouped_bars(ax, layers, series, 100)
            ax.set(ylabel=f"{_NAMES[task]}\nremaining (%)", ylim=(0, 104))
            for label in ax.get_xticklabels():
                label.set(rotation=60 if len(layers) > 12 else 30, ha="right", rotation_mode="anchor")
        legend_above(axes[0])

    return Plan("remaining", caption, (7.4, 1.9 * len(tasks) + 1.7), draw)


def _examples(found: Mapping[str, Any]) -> Plan:
    examples = found["examples"]
    lines = {task: textwrap.wrap(question, _WIDTH) for task, (question, _) in examples.items()}
    caption = "Figure 17 of the paper: a hard question of each task, and its answer."

    def draw(figure: Figure) -> None:
        rows = [
            [(_NAMES[task], INK), (question, INK), (answer, INK)]
            for task, (question, answer) in examples.items()
        ]
        _text_table(figure, ("task", "question", "answer"), (0.0, 0.17, 0.76), rows)

    return Plan(
        "fig17_examples", caption, (7.4, 0.4 + 0.16 * sum(len(of) + 0.6 for of in lines.values())), draw
    )


def _broken(found: Mapping[str, Any]) -> Plan:
    rows = [(task, row) for task, of in found["tasks"].items() for row in of["broken"]]
    caption = (
        "Hard questions that the control mask answers right and the mask from easy questions does not. First "
        "network."
    )
    height = sum(len(textwrap.wrap(row["question"], _WIDTH)) + 0.6 for _, row in rows)

    def draw(figure: Figure) -> None:
        cells = [
            [(row["question"], INK), (row["expected"], INK), (row["easy mask"] or "(nothing)", RED)]
            for _, row in rows
        ]
        _text_table(figure, ("question", "expected", "under the easy mask"), (0.0, 0.5, 0.75), cells)

    return Plan("broken", caption, (7.4, 0.4 + 0.16 * height), draw)


def _text_table(figure: Figure, header: tuple[str, ...], places: tuple[float, ...], rows: Any) -> None:
    """Draws rows of (text, colour), long texts on several lines."""
    ax = figure.subplots()
    ax.set_axis_off()
    wrapped = [[("\n".join(textwrap.wrap(text, _WIDTH)), colour) for text, colour in row] for row in rows]
    heights = [max(text.count("\n") + 1 for text, _ in row) + 0.6 for row in wrapped]
    ax.set(xlim=(0, 1), ylim=(sum(heights) + 1.2, 0))
    for x, title in zip(places, header, strict=True):
        ax.text(x, 0, title, va="top", fontweight="bold", fontsize=8)
    y = 1.2
    for row, height in zip(wrapped, heights, strict=True):
        for x, (text, colour) in zip(places, row, strict=True):
            ax.text(x, y, text, va="top", fontsize=7, color=colour, family="monospace")
        y += height
