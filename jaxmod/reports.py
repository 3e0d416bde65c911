"""Numbers over runs, and the tables of `results.json` as plain text.

A Stat is a number over runs, `{"mean": x, "std": s or None (one run), "runs": [x, ...]}`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

__all__ = [
    "Results",
    "Stat",
    "Table",
    "array_stat",
    "format_stat",
    "format_value",
    "is_share",
    "percent",
    "stat",
    "stat_names",
    "summary",
    "tables",
]

Results: TypeAlias = Mapping[str, Any]
Stat: TypeAlias = Mapping[str, Any]


def stat(values: Any) -> dict[str, Any]:
    """Returns the Stat of one number per run; the standard deviation has n - 1 in its denominator.

    >>> stat([1.0, 3.0])["mean"]
    2.0

    Raises:
      ValueError: `values` is not one number per run, or there is no run.
    """
    runs = np.atleast_1d(np.asarray(values, np.float64))
    if runs.ndim != 1 or not runs.size:
        raise ValueError(f"values must be one number per run, got shape {np.shape(values)}.")
    std = float(np.std(runs, ddof=1)) if runs.size > 1 else None
    return {"mean": float(np.mean(runs)), "std": std, "runs": runs.tolist()}


def percent(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Returns the Stat of 100 times the runs of a Stat; None of None.

    >>> percent(stat([0.25, 0.75]))["mean"]
    50.0
    """
    return None if given is None else stat([100 * x for x in given["runs"]])


def array_stat(runs: np.ndarray) -> dict[str, Any]:
    """Returns `{"mean": [...], "std": [...] or None (one run)}` of one array per run, `[runs, ...]`."""
    return {
        "mean": runs.mean(0).tolist(),
        "std": runs.std(0, ddof=1).tolist() if len(runs) > 1 else None,
    }


def format_stat(stat: Stat | None, percent: bool = False, digits: int | None = 1) -> str:
    """Returns the Stat as text, `"98.1 ± 0.4"`, or `"98.1"` for one run; a missing one is `"-"`.

    Args:
      stat: see above.
      percent: multiplies by 100; the sign is left to the heading.
      digits: after the decimal point; `None` keeps four significant ones, whatever the magnitude.

    >>> format_stat({"mean": 0.981, "std": 0.004, "runs": [0.978, 0.984]}, percent=True)
    '98.1 ± 0.4'
    """
    if stat is None or stat["mean"] is None:
        return "-"
    form = ",.4g" if digits is None else f",.{digits}f"
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    shown = [
        format((100 * x if percent else x) + 0.0, form if i == 0 or digits is not None else ".2g")
        for i, x in enumerate((stat["mean"], stat["std"]))
        if x is not None
    ]
    return " ± ".join(shown)


def format_value(value: Any) -> str:
    """Returns a setting as it is written on the command line.

    >>> format_value((400, 400, 200))
    '400,400,200'
    """
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def is_share(name: str) -> bool:
    """Returns whether a Stat of this name lies in [0, 1] and is shown in percent, as accuracies are."""
    return any(word in name.lower() for word in ("accuracy", "sharing", "density", "iou"))


def stat_names(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the names of the Stats that every point has, in the first point's order."""
    first, *rest = [
        [k for k, v in point.items() if isinstance(v, Mapping) and "mean" in v] for point in points
    ]
    return [name for name in first if all(name in other for other in rest)]


class Table(NamedTuple):
    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    words: int = 1
    """How many of the first columns hold words; the others hold numbers."""
    detail: bool = False
    """For who wants to know more: in the report it stands behind the figures."""


def tables(results: Results) -> list[Table]:
    """Returns every table that `results` gives, the most important first."""
    makers = {
        "checks": _checks,
        "points": _points,
        "accuracy": _accuracy,
        "sharing": _sharing,
        "chance": _chance,
        "weights": _weights,
        "remaining": _remaining,
        "half_mask": _half_mask,
    }
    made = [make(results) for key, make in makers.items() if results.get(key)]
    return made + [_own_table(table) for table in results.get("tables", [])]


def _own_table(table: Mapping[str, Any]) -> Table:
    """Returns an experiment's own table: `title`, `header`, `rows` of words, numbers and Stats."""
    digits = table.get("digits", 3)

    def cell(value: Any) -> str:
        if isinstance(value, Mapping):
            return format_stat(value, digits=digits)
        if isinstance(value, float):
            return format(value + 0.0, f",.{digits}f")
        return "-" if value is None else str(value)

    rows = [[cell(value) for value in row] for row in table["rows"]]
    options = {key: table[key] for key in ("note", "words", "detail") if key in table}
    return Table(table["title"], list(table["header"]), rows, **options)


def _per_layer(results: Results, columns: Collection[Mapping[str, Stat]], **form: Any) -> list[list[str]]:
    """Returns a row per layer, and one for all; a Stat that a column lacks is `"-"`."""
    return [
        [layer, *(format_stat(column.get(layer), **form) for column in columns)]
        for layer in [*results["layers"], "total"]
    ]


def _accuracy(results: Results) -> Table:
    masks = results["accuracy"]
    columns = list(dict.fromkeys(task for row in masks.values() for task in row))
    densities = results.get("density", {})
    rows = [
        [
            mask,
            *(format_stat(row.get(c), percent=True) for c in columns),
            format_stat(densities.get(mask), True),
        ]
        for mask, row in masks.items()
    ]
    note = "A random mask keeps as many weights of each layer as the mask it is named after."
    return Table("Accuracy and weights kept (%)", ["weights in use", *columns, "kept"], rows, note)


def _sharing(results: Results) -> Table:
    header, columns = ["layer"], []
    for task, shares in results["sharing"].items():
        header += [f"{task} shared", "by chance"]
        columns += [shares, {k: v["expected"] for k, v in results.get("chance", {}).get(task, {}).items()}]
    columns.append(results.get("iou", {}))
    rows = _per_layer(results, columns, percent=True)
    note = (
        "Shared: the part of a mask that the other mask has too. By chance: random masks of the same sizes."
    )
    return Table("Sharing (%)", [*header, "IoU"], rows, note)


def _chance(results: Results) -> Table:
    sources = [
        (title, results[key])
        for key, title in (("chance", "all weights"), ("chance_in_control", "control mask"))
        if key in results
    ]
    rows = [
        [
            task,
            layer,
            title,
            format_stat(row[layer]["expected"], percent=True),
            format_stat(row[layer]["z"]),
            format_stat(row[layer]["log10_p"]),
        ]
        for task in results["sharing"]
        for layer in [*results["layers"], "total"]
        for title, source in sources
        if layer in (row := source.get(task, {}))
    ]
    note = (
        "Random masks of the same size in each layer, drawn from all weights or from those of the control "
        "mask. z > 0: more is shared than by chance. log10 p: of an overlap at least as far out on that side."
    )
    header = ["mask", "layer", "drawn from", "shared by chance (%)", "z", "log10 p"]
    return Table("Overlap against chance", header, rows, note, words=3, detail=True)


def _weights(results: Results) -> Table:
    masks = results["weights"]
    rows = _per_layer(results, masks.values(), digits=0)
    note = ""
    if "weights_ratio" in results:
        first, second = results["tasks"]
        note = f"{second} / {first}, total: {format_stat(results['weights_ratio'], digits=2)}."
    return Table("Weights kept", ["layer", *masks], rows, note, detail=True)


def _remaining(results: Results) -> Table:
    masks = results["remaining"]
    rows = _per_layer(results, masks.values(), percent=True)
    return Table("Part of the control mask that a mask keeps (%)", ["layer", *masks], rows, detail=True)


def _half_mask(results: Results) -> Table:
    rows = [[half, format_stat(drop)] for half, drop in results["half_mask"].items()]
    note = "The control mask on one half of the layers, the other half unmasked."
    return Table("Half-mask test", ["half", "drop of accuracy (points)"], rows, note, detail=True)


def _checks(results: Results) -> Table:
    rows = [
        [row["check"], row["paper"], row["ours"], "yes" if row["holds"] else "NO"]
        for row in results["checks"]
    ]
    return Table("The paper's statements and ours", ["check", "paper", "ours", "holds"], rows, words=4)


def _points(results: Results) -> Table:
    names = stat_names(results["points"])
    header = [results["parameter"], *(f"{name} (%)" if is_share(name) else name for name in names)]
    rows = [
        [
            format_value(point["value"]),
            *(
                format_stat(point[name], percent=is_share(name), digits=1 if is_share(name) else None)
                for name in names
            ),
        ]
        for point in results["points"]
    ]
    return Table(f"Results for each {results['parameter']}", header, rows)


def _text(table: Table) -> str:
    """Returns the table for a terminal: words to the left, numbers to the right."""
    lines = [table.header, *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.header))]

    def one(line: list[str]) -> str:
        cells = [
            cell.ljust(width) if i < table.words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([table.title, one(table.header), rule, *map(one, table.rows)])


def _check_text(table: Table) -> str:
    """Returns the checks for a terminal: they are sentences, so lines and no columns."""
    lines = [
        f"{holds:3}  {check}\n     paper: {paper}; ours: {ours}" for check, paper, ours, holds in table.rows
    ]
    return "\n".join([table.title, *lines])


def summary(results: Results) -> str:
    """Returns what an experiment prints at its end: the tables without details, the most important last."""
    shown = [table for table in reversed(tables(results)) if not table.detail]
    return "\n\n".join(_check_text(t) if "holds" in t.header else _text(t) for t in shown)
