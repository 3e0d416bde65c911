"""Every named mask on every named task: the table that most questions about modules are read from."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Key, PyTree

from jaxmod import masks as mask_ops
from jaxmod import trees
from jaxmod.analysis.chance import Chance, chance_overlap
from jaxmod.analysis.sharing import Sharing, densities, remaining, sharing, weights_kept, weights_ratio
from jaxmod.analysis.variants import same_leaves, with_variants
from jaxmod.train.axes import Axes, over, resolve_axes
from jaxmod.train.randomness import check_keys
from jaxmod.train.tasks import check_rows, num_examples
from jaxmod.types import Batch, BinaryMask, Params

__all__ = ["Evaluation", "Overlap", "evaluate"]


class Overlap(NamedTuple):
    """How far a target mask is shared with a reference mask, and what chance would give."""

    sharing: dict[str, Sharing]
    chance: dict[str, Chance]
    """Against random masks of the same size in every layer."""
    chance_in_control: dict[str, Chance] | None
    """Against random subsets of the control mask; None without one over the same leaves."""
    weights_ratio: Array
    """The weights of the reference over those of the target, all layers together."""


class Evaluation(dict[str, dict[str, dict[str, Array]]]):
    """`table[mask][task][metric]`: means over the task's examples, [runs] if there are runs."""

    weights: dict[str, dict[str, Array]]
    """`weights[mask][path]`: how many weights a row's mask keeps in each layer and in `"total"`."""
    density: dict[str, dict[str, Array]]
    """`density[mask][path]`: the same as a part of the masked weights."""
    overlaps: dict[tuple[str, str], Overlap]
    """`(target, reference) -> Overlap` for all pairs of given masks but the control."""
    remaining: dict[str, dict[str, Array]]
    """`remaining[mask][path]`: the part of the control mask that each other given mask keeps."""

    def __init__(
        self,
        table: Mapping[str, dict[str, dict[str, Array]]],
        *,
        weights: dict[str, dict[str, Array]],
        density: dict[str, dict[str, Array]],
        overlaps: dict[tuple[str, str], Overlap],
        remaining: dict[str, dict[str, Array]],
    ):
        super().__init__(table)
        self.weights, self.density, self.overlaps, self.remaining = weights, density, overlaps, remaining


def evaluate(
    evaluate: Callable[[Params, Batch], dict[str, Array]],
    params: Params,
    masks: Mapping[str, BinaryMask | None],
    tasks: Mapping[str, Any],
    *,
    data: PyTree | None = None,
    params_axis: int | None = None,
    key: Key[Array, ""] | None = None,
    control: str | None = None,
    io_layers: Sequence[str] = (),
    first_half: Sequence[str] = (),
    batch_size: int = 2048,
) -> Evaluation:
    """Returns what every mask performs on every task, `table[mask][task][metric]`.

    The table also holds the weights that each mask keeps and what each pair of masks shares, beside
    what chance would give.

    Args:
      evaluate: `(params, batch) -> {name: per-example values}`.
      params: the frozen weights.
      masks: name -> binary mask, `None` for the network as it is; a leaf may have a leading runs axis.
      tasks: name -> a pytree of arrays, or an integer vector of rows of `data`.
      data: the pool of examples that index vectors read.
      params_axis: 0 if params are stacked along a runs axis.
      key: adds the rows `unmasked` and, for every mask, its complement `not NAME` and `random NAME`, a
        random mask of the same size in every layer.
      control: the name of the mask of the whole task, for `remaining` and overlaps within it.
      io_layers: paths of the layers that read inputs and write outputs. Adds `not NAME, control I/O` and
        `not NAME, full I/O`: complements with the control mask, or every weight, in these layers.
      first_half: paths of the first half of the layers. Adds `early masked` and `late masked`: the
        control mask in this half alone, or in the other.
      batch_size: examples in one call of `evaluate`.

    Raises:
      ValueError: a mask does not mirror the params, runs disagree, a task is no arrays or has no
        examples, a layer or the control is unknown or missing. Nothing was evaluated.
    """
    given, runs = _with_runs(masks, params, params_axis)
    pools = {name: _examples(name, task, data) for name, task in tasks.items()}
    keys = None if key is None else _keys_of_runs(key, runs)
    rows = with_variants(given, keys, control, io_layers, first_half)
    settings = (evaluate, resolve_axes(Axes()).runs or "vmap", params_axis == 0, runs, batch_size)
    kept = {name: mask for name, mask in rows.items() if mask is not None}
    each_run = _each_run(runs)
    return Evaluation(
        {
            name: {task: _evaluate_runs(*settings, params, mask, *pool) for task, pool in pools.items()}
            for name, mask in rows.items()
        },
        weights={name: each_run(weights_kept)(mask) for name, mask in kept.items()},
        density={name: each_run(densities)(mask) for name, mask in kept.items()},
        overlaps=_overlaps(given, control, runs),
        remaining=_remaining(given, control, runs),
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _evaluate_runs(
    evaluate: Callable[[Params, Batch], dict[str, Array]],
    mode: Any,
    params_runs: bool,
    runs: int | None,
    batch_size: int,
    params: Params,
    mask: BinaryMask | None,
    examples: Batch,
    index: Array,
) -> dict[str, Array]:
    """Returns the means of `evaluate` over the examples at `index`, for all runs."""
    count = index.shape[0]
    size = min(batch_size, count)
    pieces = jnp.resize(index, (-(-count // size), size))

    def one(params: Params, mask: BinaryMask | None) -> dict[str, Array]:
        module = mask_ops.apply_mask(params, mask)
        values = lax.map(lambda rows: evaluate(module, jax.tree.map(lambda x: x[rows], examples)), pieces)
        for name, v in values.items():
            if v.shape[1:2] != (size,):
                raise ValueError(
                    f"evaluate gave {name!r} of shape {v.shape[1:]} for {size} examples, expected one value "
                    "per example; leave the mean to the caller."
                )
        return {
            name: jnp.mean(v.reshape(-1, *v.shape[2:])[:count].astype(jnp.float32), axis=0)
            for name, v in values.items()
        }

    if runs is None:
        return one(params, mask)
    if not params_runs and not jax.tree.leaves(mask):
        return jax.tree.map(lambda x: jnp.repeat(x[None], runs, axis=0), one(params, mask))
    return over(one, mode, (0 if params_runs else None, 0))(params, mask)


def _examples(name: str, task: Any, data: PyTree | None) -> tuple[PyTree, Array]:
    if callable(task):
        raise ValueError(f"task {name!r} is a function; draw a fixed batch from it to evaluate on.")
    if data is None:
        return jax.tree.map(jnp.asarray, task), jnp.arange(num_examples(task, name))
    rows = check_rows(name, task, num_examples(data, "data"))
    return jax.tree.map(jnp.asarray, data), jnp.asarray(rows)


def _with_runs(
    masks: Mapping[str, BinaryMask | None], params: Params, params_axis: int | None
) -> tuple[dict[str, BinaryMask | None], int | None]:
    """Returns the masks, checked, with a runs axis if anything has one, and the number of runs."""
    if params_axis not in (None, 0):
        raise ValueError(f"params_axis must be 0 or None, got {params_axis!r}.")
    first = params if params_axis is None else jax.tree.map(lambda x: x[0], params)
    found = {"params": jax.tree.leaves(params)[0].shape[0]} if params_axis == 0 else {}
    for name, mask in masks.items():
        if mask is None:
            continue
        one = mask
        if _has_runs(mask, first):
            found[f"mask {name!r}"] = jax.tree.leaves(mask)[0].shape[0]
            one = jax.tree.map(lambda m: m[0], mask)
        trees.check_mirrors(one, first, f"mask {name!r}")
    if len(set(found.values())) > 1:
        raise ValueError(f"the number of runs differs: {found}.")
    if not found:
        return dict(masks), None
    runs = next(iter(found.values()))

    def repeat(mask: BinaryMask) -> BinaryMask:
        return jax.tree.map(lambda m: jnp.broadcast_to(m, (runs, *m.shape)), mask)

    return {name: m if _has_runs(m, first) else repeat(m) for name, m in masks.items()}, runs


def _has_runs(mask: BinaryMask | None, first: Params) -> bool:
    shapes = dict(trees.paths_and_leaves(first))
    return any(
        path in shapes and np.ndim(m) == np.ndim(shapes[path]) + 1 for path, m in trees.paths_and_leaves(mask)
    )


def _each_run(runs: int | None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return jax.vmap if runs is not None else lambda f: f


def _keys_of_runs(key: Key[Array, ""], runs: int | None) -> Key[Array, "*runs"]:
    check_keys(key)
    if runs is None:
        return jax.random.fold_in(key, 0)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(runs))


def _overlaps(
    masks: Mapping[str, BinaryMask | None], control: str | None, runs: int | None
) -> dict[tuple[str, str], Overlap]:
    """Returns the overlaps of all pairs of masks over the same leaves, the control left out."""
    inside = [] if control is None else same_leaves(masks, control)
    share, ratio = map(_each_run(runs), (sharing, weights_ratio))
    chance = functools.partial(chance_overlap, runs_axis=None if runs is None else 0)
    return {
        (t, r): Overlap(
            share(masks[t], masks[r]),
            chance(masks[t], masks[r]),
            chance(masks[t], masks[r], masks[control]) if control is not None and t in inside else None,
            ratio(masks[t], masks[r]),
        )
        for t in masks
        for r in same_leaves(masks, t)
        if control not in (t, r)
    }


def _remaining(
    masks: Mapping[str, BinaryMask | None], control: str | None, runs: int | None
) -> dict[str, dict[str, Array]]:
    if control is None:
        return {}
    part = _each_run(runs)(remaining)
    return {name: part(masks[name], masks[control]) for name in same_leaves(masks, control)}
