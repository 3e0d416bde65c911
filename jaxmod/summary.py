"""What `results.json` says of the modules of a network: stacked arrays over runs become statistics."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from jaxmod.analysis.chance import Chance
from jaxmod.analysis.evaluate import Evaluation
from jaxmod.analysis.histogram import mask_mean_histogram
from jaxmod.analysis.variants import HALVES
from jaxmod.find import Found
from jaxmod.reports import array_stat, stat

__all__ = ["check", "summarise"]


def summarise(
    found: Mapping[str, Found],
    table: Evaluation,
    labels: Mapping[str, str],
    *,
    tasks: tuple[str, str],
    histogram: bool = True,
) -> dict[str, Any]:
    """Returns the parts of `results.json` that every study of two tasks and a control shares.

    Args:
      found: the modules of both tasks and of the whole, `control`, with a leading runs axis.
      table: their accuracy on both tasks and on the whole, `iid`, by `jaxmod.evaluate` with a key, the
        control and the first half of the layers.
      labels: mask path -> the name of the layer in figures, in order.
      tasks: the two tasks; `weights_ratio` is the second over the first.
      histogram: of the probabilities that the control mask keeps its weights, which are the sigmoids of the
        logits of `gumbel_sigmoid` alone. Without it, this part is None.

    Raises:
      ValueError: `table` was made without key, control or half.
    """
    if not (table.remaining.keys() >= {*tasks} and table.keys() >= {"unmasked", *HALVES}):
        raise ValueError("table is incomplete: pass key, control and first_half to jm.evaluate.")
    first, second = tasks
    overlaps = {first: table.overlaps[first, second], second: table.overlaps[second, first]}
    shared = {task: overlap.sharing for task, overlap in overlaps.items()}
    rows = {mask: row for mask, row in table.items() if mask not in HALVES}
    names = {**labels, "total": "total"}

    def per_layer(values: Mapping[str, Array]) -> dict[str, Any]:
        return {label: stat(values[path]) for path, label in names.items()}

    def chance(values: Mapping[str, Chance] | None) -> dict[str, Any]:
        assert values is not None
        return {
            label: {field: stat(getattr(values[path], field)) for field in ("expected", "z", "log10_p")}
            for path, label in names.items()
        }

    return {
        "layers": list(labels.values()),
        "tasks": list(tasks),
        "accuracy": {
            mask: {task: stat(x["accuracy"]) for task, x in row.items()} for mask, row in rows.items()
        },
        "density": {mask: stat(table.density[mask]["total"]) for mask in rows if mask in table.density},
        "sharing": {task: per_layer({p: s.shared for p, s in shared[task].items()}) for task in tasks},
        "iou": per_layer({p: s.iou for p, s in shared[first].items()}),
        "io_min": per_layer({p: s.io_min for p, s in shared[first].items()}),
        "chance": {task: chance(overlaps[task].chance) for task in tasks},
        "chance_in_control": {task: chance(overlaps[task].chance_in_control) for task in tasks},
        "remaining": {task: per_layer(table.remaining[task]) for task in tasks},
        "weights": {name: per_layer(table.weights[name]) for name in found},
        "weights_ratio": stat(table.overlaps[first, second].weights_ratio),
        "half_mask": {half: _points_lost(table, half) for half in HALVES},
        "histogram": _histogram(found["control"]) if histogram else None,
    }


def _points_lost(table: Evaluation, half: str) -> dict[str, Any]:
    return stat(100 * (table["control"]["iid"]["accuracy"] - table[half]["iid"]["accuracy"]))


def _histogram(module: Found) -> dict[str, Any]:
    """The mask means of all runs, normalised as a density (Fig. 7)."""
    runs = jax.jit(jax.vmap(mask_mean_histogram))(module.logits)
    density = np.asarray(runs.density)
    return {
        "edges": np.asarray(runs.edges)[0].tolist(),
        **array_stat(density),
        "counts": np.asarray(runs.counts).sum(0).tolist(),
    }


def check(statement: str, paper: str, ours: str, holds: Any) -> dict[str, Any]:
    """Returns a row of the checks table: a statement of the paper beside what was measured."""
    return {"check": statement, "paper": paper, "ours": ours, "holds": bool(holds)}
