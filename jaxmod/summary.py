"""What `results.json` says of the modules of a network: stacked arrays over runs become statistics."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from jaxmod import masks as mask_ops
from jaxmod.analysis.chance import Chance
from jaxmod.analysis.evaluate import Evaluation, Overlap
from jaxmod.analysis.evaluate import evaluate as evaluate_masks
from jaxmod.analysis.histogram import mask_mean_histogram
from jaxmod.analysis.inversion import half_masks
from jaxmod.analysis.sharing import remaining, weights_kept, weights_ratio
from jaxmod.find import Found
from jaxmod.reports import stat
from jaxmod.types import Batch, BinaryMask, Params

__all__ = ["check", "half_mask_drop", "summarise"]


def summarise(
    found: Mapping[str, Found],
    table: Evaluation,
    labels: Mapping[str, str],
    *,
    tasks: tuple[str, str],
    metric: str = "accuracy",
    control: str = "control",
) -> dict[str, Any]:
    """Returns the parts of `results.json` that every study of two tasks and a control shares.

    Args:
      found: the modules of the control and both tasks, with a leading runs axis.
      table: of `jaxmod.evaluate` with a key and the control.
      labels: mask path -> the name of the layer in figures, in order.
      tasks: the two tasks; `weights_ratio` is the second over the first.
      metric: the accuracy among the values of `table`.
      control: the name of the control mask.

    Raises:
      ValueError: `table` has no overlaps within the control mask.
    """
    first, second = tasks
    pairs = {first: (first, second), second: (second, first)}
    none = Overlap({}, {}, None)
    if any(table.overlaps.get(pair, none).chance_in_control is None for pair in pairs.values()):
        raise ValueError("table has no overlaps within the control: pass key and control to jm.evaluate.")
    overlaps = {task: table.overlaps[pair] for task, pair in pairs.items()}
    shared = {task: overlap.sharing for task, overlap in overlaps.items()}
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
            mask: {task: stat(values[metric]) for task, values in row.items()} for mask, row in table.items()
        },
        "density": _densities(found),
        "sharing": {task: per_layer({p: s.shared for p, s in shared[task].items()}) for task in tasks},
        "iou": per_layer({p: s.iou for p, s in shared[first].items()}),
        "io_min": per_layer({p: s.io_min for p, s in shared[first].items()}),
        "chance": {task: chance(overlaps[task].chance) for task in tasks},
        "chance_in_control": {task: chance(overlaps[task].chance_in_control) for task in tasks},
        "remaining": {
            task: per_layer(jax.vmap(remaining)(found[task].mask, found[control].mask)) for task in tasks
        },
        "weights": {name: per_layer(jax.vmap(weights_kept)(module.mask)) for name, module in found.items()},
        "weights_ratio": _ratio(found[first], found[second]),
        "histogram": _histogram(found[control]),
    }


def _densities(found: Mapping[str, Found]) -> dict[str, Any]:
    """The kept part of all masked weights, for the masks, their complements and random controls."""
    density = {name: np.asarray(jax.vmap(mask_ops.density)(module.mask)) for name, module in found.items()}
    inverse = {f"not {name}": 1 - values for name, values in density.items()}
    random = {f"random {name}": values for name, values in density.items()}
    return {name: stat(values) for name, values in (density | inverse | random).items()}


def _ratio(first: Found, second: Found) -> dict[str, Any]:
    """Weights of the second over those of the first: the ratio of the means over runs, as in Fig. 11."""
    counts = [np.asarray(jax.vmap(weights_kept)(module.mask)["total"]) for module in (first, second)]
    per_run = stat(jax.vmap(weights_ratio)(first.mask, second.mask))
    return per_run | {"mean": float(counts[1].mean() / max(counts[0].mean(), 1))}


def _histogram(module: Found) -> dict[str, Any]:
    """The mask means of all runs, normalised as a density (Fig. 7)."""
    runs = jax.jit(jax.vmap(mask_mean_histogram))(module.logits)
    density = np.asarray(runs.density)
    return {
        "edges": np.asarray(runs.edges)[0].tolist(),
        "mean": density.mean(0).tolist(),
        "std": density.std(0, ddof=1).tolist() if len(density) > 1 else None,
        "counts": np.asarray(runs.counts).sum(0).tolist(),
    }


def half_mask_drop(
    evaluate: Callable[[Params, Batch], dict[str, Array]],
    params: Params,
    control: BinaryMask,
    first_half: Sequence[str],
    examples: Batch,
    metric: str = "accuracy",
) -> dict[str, Any]:
    """Returns the points lost against the control mask when only half of the layers are masked.

    "early masked" keeps the control mask in the layers `first_half`, "late masked" in the others. If
    masks only leave out what is not needed, halves should work together; a large drop says that masking
    changed what the layers tell each other. Params and masks have a leading runs axis.
    """
    early, late = half_masks(control, first_half)
    rows = {"control": control, "early masked": early, "late masked": late}
    table = evaluate_masks(evaluate, params, rows, {"all": examples}, params_axis=0)
    accuracy = {name: row["all"][metric] for name, row in table.items()}
    return {name: stat(100 * (accuracy["control"] - accuracy[name])) for name in list(rows)[1:]}


def check(statement: str, paper: str, ours: str, holds: Any) -> dict[str, Any]:
    """Returns a row of the checks table: a statement of the paper beside what was measured."""
    return {"check": statement, "paper": paper, "ours": ours, "holds": bool(holds)}
