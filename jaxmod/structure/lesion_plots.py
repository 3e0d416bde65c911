"""The figures of lesions (Filan et al. 2020, figures 5, 6 and A.6) from the numbers of `results.json`.

`singles` and `doubles` are the rows that `experiments.lesions` leaves: `Single` and `Double` as dicts. A
change of accuracy is in percentage points, below zero for harm.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Annotation

from jaxmod.plots import COLOURS, INK, RED
from jaxmod.structure.importance import HARM, P_DOUBLE, Double

__all__ = ["plot_dependencies", "plot_double", "plot_pairs", "plot_single"]

Rows = Sequence[Mapping[str, Any]]

_GREY = "#8A8A8A"
_CLASSES = {
    "important": (RED, "o"),
    "sig-but-not-diff": (COLOURS[0], "s"),
    "diff-but-not-sig": (COLOURS[4], "D"),
    "prunable": (COLOURS[2], "v"),
    "least_important": (COLOURS[2], "^"),
    "complete": (INK, "*"),
    "other": (COLOURS[1], "P"),
    "small": (_GREY, "."),
}
_NEEDS = {
    (True, True): ("both", COLOURS[0], "o"),
    (True, False): ("only X", COLOURS[1], "^"),
    (False, True): ("only Y", COLOURS[2], "v"),
    (False, False): ("neither", _GREY, "X"),
}
"""By whether X is important given Y, and Y given X."""
_SHORT = {
    "important": "IMP", "small": "SMA", "sig-but-not-diff": "SIG", "other": "OTH", "complete": "ALL",
    "diff-but-not-sig": "DIF", "prunable": "PRU", "least_important": "LEA",
}  # fmt: skip


def plot_single(singles: Rows, ax: Axes) -> Axes:
    """Returns `ax` with the change of accuracy against the part of the layer taken out (figure 5).

    Grey bars are the random lesions, their mean and standard deviation. Important ones have their name.
    """
    x = [100 * s["proportion"] for s in singles]
    ax.axhline(0, color="#BBBBBB", linewidth=0.8)
    ax.errorbar(
        x, [-100 * s["random_mean"] for s in singles], yerr=[100 * s["random_std"] for s in singles],
        fmt="_", color="#ABABAB", markersize=5, elinewidth=1, zorder=1, label="random lesions",
    )  # fmt: skip
    for kind, (colour, marker) in _CLASSES.items():
        points = [(100 * s["proportion"], -100 * s["drop"]) for s in singles if s["kind"] == kind]
        if points:
            ax.plot(*zip(*points, strict=True), marker, color=colour, markersize=6, linestyle="", label=kind)
    ax.set(xlabel="part of the layer's neurons (%)", ylabel="change of accuracy (points)")
    ax.grid(axis="y")
    ax.margins(x=0.06, y=0.08)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    _name(ax, singles)
    return ax


def _name(ax: Axes, singles: Rows) -> None:
    """Writes the names of important sub-modules, where they cover neither a point nor another name."""
    _lay_out(ax)
    places = {s["name"]: (100 * s["proportion"], -100 * s["drop"]) for s in singles}
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in ax.transData.transform(list(places.values()))]

    def covered(box: Sequence[float]) -> int:
        return sum(
            box[0] < x1 and x0 < box[2] and box[1] < y1 and y0 < box[3] for x0, y0, x1, y1 in taken
        )  # fmt: skip

    def write(name: str, distance: int, x: int, y: int, line: dict[str, Any] | None) -> Annotation:
        return ax.annotate(
            name, places[name], (distance * x, distance * y), textcoords="offset points", color=RED,
            ha=("center", "left", "right")[x], va=("center", "bottom", "top")[y], arrowprops=line,
        )  # fmt: skip

    sides = [(1, 0), (0, -1), (1, -1), (-1, 0), (-1, -1), (1, 1), (0, 1), (-1, 1)]
    options = [(distance, x, y) for distance in (6, 14, 22) for x, y in sides]
    line = {"arrowstyle": "-", "color": RED, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 0}
    for name in (s["name"] for s in singles if s["kind"] == "important"):
        tried = [write(name, *option, None) for option in options]
        boxes = [text.get_window_extent().extents for text in tried]
        best = int(np.argmin([covered(box) for box in boxes]))
        x0, y0, x1, y1 = boxes[best]
        taken.append((x0, y0, x1, y1))
        for text in tried:
            text.remove()
        write(name, *options[best], line if options[best][0] > 6 else None)


def plot_double(doubles: Rows, ax: Axes) -> Axes:
    """Returns `ax` with what each of a pair adds to the harm of the other (figure 6a).

    Dashed: one percentage point, below which nothing counts.
    """
    for line in (ax.axhline, ax.axvline):
        line(0, color="#BBBBBB", linewidth=0.8)
        line(100 * HARM, color=_GREY, linewidth=0.8, linestyle="--")
    for needs, (label, colour, marker) in _NEEDS.items():
        some = [d for d in _pairs(doubles) if (d.x_important, d.y_important) == needs]
        x, y = [100 * d.delta_x for d in some], [100 * d.delta_y for d in some]
        ax.plot(
            x, y, marker, color=colour, markersize=7, linestyle="", label=f"{label} ({len(some)})",
            markeredgecolor="white", markeredgewidth=0.6, alpha=0.9,
        )  # fmt: skip
    ax.set(xlabel="X adds to the drop once Y is gone (points)", ylabel="Y adds once X is gone (points)")
    ax.grid()
    ax.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, alignment="left",
        title="important once the other is gone",
    )  # fmt: skip
    return ax


def plot_dependencies(singles: Rows, doubles: Rows, ax: Axes) -> Axes:
    """Returns `ax` with the dependency graph: a column for each hidden layer (figure 6b).

    Args:
      singles: the sub-modules to show, with what their own lesion does.
      doubles: pairs of them.
      ax: where to draw.
    """
    columns: dict[int, list[str]] = {}
    for single in singles:
        columns.setdefault(int(single["name"].split("-")[0]), []).append(single["name"])
    place = {
        # Columns are shifted a little, so that an arrow past a layer misses its nodes.
        name: (float(layer), len(names) / 2 - i - 0.5 + 0.13 * (-1) ** layer)
        for layer, names in columns.items()
        for i, name in enumerate(names)
    }
    styles: dict[tuple[bool, bool], tuple[str, str, Any]] = {
        (False, True): ("all of X's output goes through Y", COLOURS[2], "-"),
        (True, False): ("all of Y's input comes from X", COLOURS[1], "-"),
        (False, False): ("neither important without the other", _GREY, "--"),
    }
    tallest = max((len(names) for names in columns.values()), default=1)
    layers = range(1, max(columns, default=1) + 1)
    ax.set(xlim=(0.6, layers[-1] + 0.4), ylim=(-tallest / 2 - 0.2, tallest / 2 + 0.2))
    ax.set_xticks(layers, [f"layer {layer}" for layer in layers])
    ax.set_yticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    handles = [
        Line2D([], [], color=colour, linestyle=line, label=label) for label, colour, line in styles.values()
    ]
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=1, borderaxespad=0.2)
    _lay_out(ax)
    for d in _pairs(doubles):
        style = styles.get((d.x_important, d.y_important))
        if style is not None:
            others = [at for name, at in place.items() if name not in (d.x, d.y)]
            bend = _bend(ax, place[d.x], place[d.y], others)
            ax.add_patch(
                FancyArrowPatch(
                    place[d.x],
                    place[d.y],
                    arrowstyle="-|>",
                    mutation_scale=11,
                    color=style[1],
                    linestyle=style[2],
                    linewidth=1.3,
                    shrinkA=15,
                    shrinkB=15,
                    zorder=1,
                    connectionstyle=f"arc3,rad={bend}",
                )  # fmt: skip
            )
    for single in singles:
        x, y = place[single["name"]]
        ax.plot(x, y, "o", markersize=30, color="white", markeredgecolor=INK, zorder=2)
        text = f"{single['name']}\n{-100 * single['drop']:.1f}"
        ax.text(x, y, text, ha="center", va="center", fontsize=7.5, zorder=3)
    return ax


_Point = tuple[float, float]


def _bend(ax: Axes, start: _Point, end: _Point, others: Sequence[_Point]) -> float:
    """Returns how much an arrow is bent, as little as it can be and still pass the other nodes."""
    a, b = ax.transData.transform([start, end])
    nodes = ax.transData.transform(others) if others else np.full((1, 2), np.inf)
    t = np.linspace(0, 1, 50)[:, None]

    def clearance(bend: float) -> float:
        # The middle point of matplotlib's arc3.
        middle = (a + b) / 2 + bend * np.array([b[1] - a[1], a[0] - b[0]])
        curve = (1 - t) ** 2 * a[None] + 2 * t * (1 - t) * middle[None] + t**2 * b[None]
        return float(np.min(np.linalg.norm(curve[:, None] - nodes[None], axis=2)))

    bends = sorted(np.linspace(-0.4, 0.4, 17), key=abs)
    radius = 28.0  # of a node, in dots, with some room
    return next((x for x in bends if clearance(x) > radius), max(bends, key=clearance))


def _lay_out(ax: Axes) -> None:
    """Gives the axes their place in the figure, so that distances can be told."""
    figure = ax.figure.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()


def plot_pairs(singles: Rows, doubles: Rows, ax: Axes) -> Axes:
    """Returns `ax` with a matrix of sub-modules (figure A.6), in percentage points of accuracy.

    On the diagonal, bold: the drop by a single lesion. Else: what the row adds to the drop once the column is
    gone; a star where p < 1/50, a question mark where p = 1. Pairs that were not taken out are empty.
    """
    at = {single["name"]: i for i, single in enumerate(singles)}
    values, marks = np.full((len(at), len(at)), np.nan), np.full((len(at), len(at)), "", object)
    for single in singles:
        values[at[single["name"]], at[single["name"]]] = 100 * single["drop"]
    for d in (turn for row in doubles for turn in (Double(**row), Double(**row).turned())):
        values[at[d.x], at[d.y]] = 100 * d.delta_x
        marks[at[d.x], at[d.y]] = "*" if d.p_x < P_DOUBLE else "?" if d.p_x >= 1 else ""
    most = float(np.nanmax(np.abs(values), initial=1.0))
    norm = SymLogNorm(linthresh=1, vmin=-most, vmax=most)
    image = ax.imshow(values, cmap="RdBu_r", norm=norm)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            ax.text(
                column, row, f"{value + 0.0:.1f}{marks[row, column]}".replace("-0.0", "0.0"),
                ha="center", va="center", fontsize=6, fontweight="bold" if row == column else "normal",
                color="white" if abs(float(norm(value)) - 0.5) > 0.3 else INK,
            )  # fmt: skip
    ends = [i - 0.5 for i, s in enumerate(singles) if i and s["name"][0] != singles[i - 1]["name"][0]]
    for end in ends:
        ax.axhline(end, color=INK, linewidth=0.8)
        ax.axvline(end, color=INK, linewidth=0.8)
    ax.set_yticks(range(len(at)), [f"{s['name']} {_SHORT[s['kind']]}" for s in singles], fontsize=7)
    ax.set_xticks(range(len(at)), list(at), fontsize=7, rotation=90)
    ax.tick_params(length=0)
    ax.set(ylabel="lesion of", xlabel="once this one is gone")
    ax.spines[:].set_visible(False)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.6, label="drop of accuracy (points)")
    ticks = [t for t in (-30, -10, -3, -1, 0, 1, 3, 10, 30) if abs(t) <= most]
    bar.set_ticks(ticks, labels=[str(t) for t in ticks])
    bar.minorticks_off()
    return ax


def _pairs(doubles: Rows) -> list[Double]:
    return [Double(**row) for row in doubles]
