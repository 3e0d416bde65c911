"""Every named mask on every named task: the table that most questions about modules are read from."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Key, PyTree

from jaxmod import masks as mask_ops
from jaxmod import trees
from jaxmod.analysis.chance import Chance, chance_overlap
from jaxmod.analysis.sharing import Sharing, sharing
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
    """Against random subsets of the control mask; None without one."""


class Evaluation(dict[str, dict[str, dict[str, Array]]]):
    """`table[mask][task][metric]`: means over the task's examples, [runs] if there are runs."""

    overlaps: dict[tuple[str, str], Overlap]
    """`(target, reference) -> Overlap` for all pairs of masks but the control."""


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
    batch_size: int = 2048,
) -> Evaluation:
    """Returns what every mask performs on every task, `table[mask][task][metric]`.

    `table.overlaps` tells what each pair of masks shares, beside what chance would give.

    Args:
      evaluate: `(params, batch) -> {name: per-example values}`.
      params: the frozen weights.
      masks: name -> binary mask, `None` for the network as it is; a leaf may have a leading runs axis.
      tasks: name -> a pytree of arrays, or an integer vector of rows of `data`.
      data: the pool of examples that index vectors read.
      params_axis: 0 if params are stacked along a runs axis.
      key: with a key, the controls are evaluated too: `unmasked`, and for every mask its complement
        `not NAME` and a random mask of the same size in every layer, `random NAME`.
      control: the name of the mask of the whole problem, for overlaps within it.
      batch_size: examples in one call of `evaluate`.

    Raises:
      ValueError: a mask does not mirror the params, runs disagree, a task is no arrays or has no
        examples, or the control is unknown. Nothing was evaluated.
    """
    if params_axis not in (None, 0):
        raise ValueError(f"params_axis must be 0 or None, got {params_axis!r}.")
    first = params if params_axis is None else jax.tree.map(lambda x: x[0], params)
    runs = _num_runs(first, params, masks, params_axis)
    named = {name: _with_runs(mask, first, runs) for name, mask in masks.items() if mask is not None}
    if control is not None and control not in named:
        raise ValueError(f"control={control!r} is not among the masks {list(named)}.")
    pools = {name: _examples(name, task, data) for name, task in tasks.items()}
    rows = {name: named.get(name) for name in masks}
    table = Evaluation()
    table.overlaps = _overlaps(named, control, runs)
    if key is not None:
        check_keys(key)
        rows = _with_controls(rows, key, runs)
    mode = resolve_axes(Axes()).runs or "vmap"
    unmasked = jax.tree.map(lambda w: None, first)
    for name, mask in rows.items():
        table[name] = {
            task: _evaluate_runs(
                evaluate,
                mode,
                params_axis == 0,
                runs,
                batch_size,
                params,
                unmasked if mask is None else mask,
                *pool,
            )
            for task, pool in pools.items()
        }
    return table


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _evaluate_runs(
    evaluate: Callable[[Params, Batch], dict[str, Array]],
    mode: Any,
    params_runs: bool,
    runs: int | None,
    batch_size: int,
    params: Params,
    mask: BinaryMask,
    examples: Batch,
    index: Array,
) -> dict[str, Array]:
    """Returns the means of `evaluate` over the examples at `index`, for all runs."""
    count = index.shape[0]
    size = min(batch_size, count)
    pieces = jnp.resize(index, (-(-count // size), size))

    def one(params: Params, mask: BinaryMask) -> dict[str, Array]:
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


def _num_runs(
    first: Params, params: Params, masks: Mapping[str, BinaryMask | None], params_axis: int | None
) -> int | None:
    """Returns the number of runs, None if nothing has a runs axis."""
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
    return next(iter(found.values()), None)


def _has_runs(mask: BinaryMask, first: Params) -> bool:
    shapes = dict(trees.paths_and_leaves(first))
    return any(
        path in shapes and np.ndim(m) == np.ndim(shapes[path]) + 1 for path, m in trees.paths_and_leaves(mask)
    )


def _with_runs(mask: BinaryMask, first: Params, runs: int | None) -> BinaryMask:
    if runs is None or _has_runs(mask, first):
        return mask
    return jax.tree.map(lambda m: jnp.broadcast_to(m, (runs, *m.shape)), mask)


def _with_controls(
    rows: Mapping[str, BinaryMask | None], key: Key[Array, ""], runs: int | None
) -> dict[str, BinaryMask | None]:
    """Returns the rows with the unmasked network, the complements and the random controls added."""
    named = {name: mask for name, mask in rows.items() if mask is not None}
    inverse = {f"not {name}": mask_ops.invert(mask) for name, mask in named.items()}
    # The same key for all masks, by run: a control depends neither on the others nor on their order.
    if runs is None:
        draw = functools.partial(mask_ops.random_mask_like, jax.random.fold_in(key, 0))
    else:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(runs))
        draw = functools.partial(jax.vmap(mask_ops.random_mask_like), keys)
    random = {f"random {name}": draw(mask) for name, mask in named.items()}
    if taken := sorted(rows.keys() & (inverse | random).keys()):
        raise ValueError(f"masks {taken} have names that the controls of other masks get; rename them.")
    return {"unmasked": None, **rows, **inverse, **random}


def _overlaps(
    named: Mapping[str, BinaryMask], control: str | None, runs: int | None
) -> dict[tuple[str, str], Overlap]:
    """Returns the overlaps of all pairs of masks over the same leaves, the control left out."""
    within = None if control is None else named[control]
    share = sharing if runs is None else jax.vmap(sharing)
    chance = functools.partial(chance_overlap, runs_axis=None if runs is None else 0)
    return {
        (t, r): Overlap(
            share(named[t], named[r]),
            chance(named[t], named[r]),
            None if within is None else chance(named[t], named[r], within),
        )
        for t in named
        for r in named
        if t != r and control not in (t, r) and trees.first_difference(named[t], named[r]) is None
    }
