"""Magnitude pruning during training (Zhu and Gupta 2017), as an optimizer around another one.

Each layer keeps its largest weights; how many is a schedule over the steps. The pruned weights are zero after
every step, and the mask is looked at anew every few steps.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from jaxmod import topk, trees
from jaxmod.types import BinaryMask, Params, Where

__all__ = ["PrunedState", "Sparsity", "magnitude_mask", "polynomial_sparsity", "pruned"]

Sparsity = Callable[[Int[Array, ""]], Float[Array, ""]]
"""`sparsity(step)`: the part of the weights that is zero, a number in [0, 1]."""


def polynomial_sparsity(*, steps: int, start: float = 0.5, end: float = 0.9) -> Sparsity:
    """Returns `s(t) = end + (start - end) (1 - t / steps)^3`, and `end` from then on.

    The defaults are those of Filan et al. 2020. Equal arguments give the same function.

    Raises:
      ValueError: `steps` is no positive integer, or a sparsity outside [0, 1).

    >>> sparsity = polynomial_sparsity(steps=100)
    >>> [round(float(sparsity(t)), 3) for t in (0, 50, 100, 200)]
    [0.5, 0.85, 0.9, 0.9]
    """
    _check_positive_integer("polynomial_sparsity: steps", steps)
    for name, value in (("start", start), ("end", end)):
        if not 0 <= value < 1:
            raise ValueError(f"polynomial_sparsity: {name} must be in [0, 1), got {value}.")
    return _polynomial_sparsity(int(steps), float(start), float(end))


@functools.cache
def _polynomial_sparsity(steps: int, start: float, end: float) -> Sparsity:
    def sparsity(step: Int[Array, ""]) -> Float[Array, ""]:
        left = (1 - jnp.minimum(jnp.asarray(step, jnp.float32) / steps, 1)) ** 3.0
        return left * start + (1 - left) * end  # exact at both ends

    return sparsity


def magnitude_mask(params: Params, sparsity: ArrayLike, where: Where = trees.DEFAULT_WHERE) -> BinaryMask:
    """Returns the mask of the largest weights of each leaf: `|w| >= |w|` of the one at rank `keep`.

    `keep = round(size * (1 - sparsity))`, each leaf by itself (Filan et al. 2020). Equal magnitudes at the
    threshold are all kept, so that a leaf of equal weights is never pruned; nothing is kept if `keep` is 0.
    NaN counts as the largest: it stays, and whoever looks for it finds it. Floats of 64 bits are compared
    as 32.

    Args:
      params: any pytree of arrays.
      sparsity: in [0, 1]; may be traced.
      where: the leaves to prune: a regex on paths, or `(path, leaf) -> bool`. Elsewhere the mask is `None`.

    Raises:
      ValueError: a sparsity outside [0, 1]; `where` selects nothing, or what is no float.

    >>> mask = magnitude_mask({"w": jnp.array([0.1, -3.0, 2.0, 0.0]), "b": jnp.zeros(2)}, 0.5)
    >>> mask["w"].tolist(), mask["b"]
    ([False, True, True, False], None)
    """
    if isinstance(sparsity, (int, float)) and not 0 <= sparsity <= 1:
        raise ValueError(f"magnitude_mask: sparsity must be in [0, 1], got {sparsity}.")

    def mask(weights: Array, chosen: bool) -> Array | None:
        if not chosen:
            return None
        keep = jnp.round(weights.size * (1 - jnp.asarray(sparsity, jnp.float32)))
        order = topk.ordered(jnp.abs(weights))
        return order >= topk.kth_largest(order, keep)

    return jax.tree.map(mask, params, trees.select(params, where))


class PrunedState(NamedTuple):
    """What `pruned` carries: the state of the optimizer inside, and the mask."""

    inner: Any
    mask: BinaryMask


def pruned(
    optimizer: optax.GradientTransformation,
    sparsity: Sparsity,
    where: Where = trees.DEFAULT_WHERE,
    every: int = 10,
) -> optax.GradientTransformationExtraArgs:
    """Returns an optimizer whose updates leave pruned weights at exactly zero.

    Its `update(grads, state, params, *, step)` lets `optimizer` step. At the steps 0, `every`, 2 `every`, ...
    the mask becomes that of the largest weights (`magnitude_mask`) after this step, before they are masked.
    Then it is applied. Neither the gradients nor the moments of `optimizer` are masked: a pruned weight takes
    a step from zero each time, and comes back if it is large enough after this one step when the mask is
    looked at.

    Args:
      optimizer: any optax transformation.
      sparsity: `step -> part of the weights that is zero`, e.g. `polynomial_sparsity(steps=9380)`.
      where: the leaves to prune: a regex on paths, or `(path, leaf) -> bool`.
      every: steps between two looks at the mask. Under `vmap` over runs, `step` should be one number for
        all of them: only then is the work left out in between.

    Raises:
      ValueError: `every` is no positive integer; from `update`: no params.
    """
    _check_positive_integer("pruned: every", every)
    tx = optax.with_extra_args_support(optimizer)

    def init_fn(params: Params) -> PrunedState:
        def whole(weights: Array, chosen: bool) -> Array | None:
            return jnp.ones(weights.shape, bool) if chosen else None

        return PrunedState(tx.init(params), jax.tree.map(whole, params, trees.select(params, where)))

    def update_fn(updates, state, params=None, *, step, **extra_args):
        if params is None:
            raise ValueError(
                "pruned: update needs the params, as in update(grads, state, params, step=step)."
            )
        updates, inner = tx.update(updates, state.inner, params, step=step, **extra_args)
        unmasked = optax.apply_updates(params, updates)
        mask = lax.cond(
            step % every == 0,
            lambda: magnitude_mask(unmasked, sparsity(step), where),
            lambda: state.mask,
        )
        # w + (0 - w) is exactly 0.
        updates = jax.tree.map(lambda u, w, m: u if m is None else jnp.where(m, u, -w), updates, params, mask)
        return updates, PrunedState(inner, mask)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]


def _check_positive_integer(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}.")
