"""Edge-popup: the mask keeps the weights with the highest of all scores, and the scores are trained."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from jaxmod import trees
from jaxmod.topk import largest
from jaxmod.types import BinaryMask, Estimator, Logits, Mask, Params, Where

__all__ = ["edge_popup"]


def edge_popup(q: float = 0.05) -> Estimator:
    """Returns the estimator of Ramanujan et al. 2020 with one ranking for all layers (Bena & Goodman).

    Each weight has a score. The mask is that of the `round(q n)` highest scores of all `n` masked weights
    together, whatever their layer; of equal scores it takes those that come first. The gradient passes
    straight through the ranking to every score, kept or not:

        d loss / d score = d loss / d mask = w * d loss / d (w mask)

    Raw scores are ranked, not their magnitudes as in the original. Those of kernels start from
    U(-1, 1) / sqrt(fan_in), where fan_in is the product of all axes but the last one; those of biases and
    scalars from N(0, 0.01^2). So layers of many inputs start with the lowest scores, and with a small `q` may
    keep nothing, so that nothing is learnt: raise it then. The mask is fixed by the scores: there is nothing
    to sample and no penalty.

    Args:
      q: the part of all masked weights that is kept, above 0 and at most 1.

    Raises:
      ValueError: `q` is outside (0, 1]; from the functions: there are so few weights that none is kept.
    """
    if not 0 < q <= 1:
        raise ValueError(f"edge_popup: q must be above 0 and at most 1, got {q}.")
    return _edge_popup(float(q))


@functools.cache  # on a float, so that `1` and `q=1.0` give the same object
def _edge_popup(q: float) -> Estimator:
    def init_fn(key: Key[Array, ""], params: Params, where: Where = trees.DEFAULT_WHERE) -> Logits:
        chosen = jax.tree.map(lambda w, c: w if c else None, params, trees.select(params, where))
        _count(q, chosen)
        return jax.tree.map(_start, trees.split_keys(key, chosen), chosen)

    def sample_fn(key: Key[Array, ""], logits: Logits) -> Mask:
        del key  # the same mask for every key
        mask = jax.tree.map(lambda s, m: m.astype(s.dtype), logits, threshold_fn(logits))
        return jax.tree.map(_straight_through, logits, mask)

    def threshold_fn(logits: Logits) -> BinaryMask:
        leaves, treedef = jax.tree.flatten(logits)
        kept = largest(jnp.concatenate([lax.stop_gradient(x).ravel() for x in leaves]), _count(q, logits))
        ends = [0]
        for x in leaves:
            ends.append(ends[-1] + x.size)
        parts = [kept[a:b].reshape(x.shape) for a, b, x in zip(ends, ends[1:], leaves, strict=False)]
        return jax.tree.unflatten(treedef, parts)

    def penalty_fn(logits: Logits) -> Float[Array, ""]:
        del logits  # q alone says how many weights are kept
        return jnp.zeros(())

    return Estimator(f"edge_popup(q={q})", init_fn, sample_fn, threshold_fn, penalty_fn, stochastic=False)


def _count(q: float, masked: Logits) -> int:
    """Returns how many weights are kept."""
    total = sum(math.prod(jnp.shape(x)) for x in jax.tree.leaves(masked))
    count = round(q * total)
    if count == 0:
        raise ValueError(
            f"edge_popup: q={q} of {total} masked weights keeps none; "
            f"expected a q of {1 / max(total, 1):.2g} or more."
        )
    return count


def _start(key: Key[Array, ""], weights: Array) -> Float[Array, "..."]:
    shape = jnp.shape(weights)
    if len(shape) < 2:
        return 0.01 * jax.random.normal(key, shape)
    bound = 1 / math.sqrt(max(math.prod(shape[:-1]), 1))
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


@jax.custom_jvp
def _straight_through(scores: Float[Array, "..."], mask: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns `mask`, with the gradient of `scores`."""
    del scores
    return mask


@_straight_through.defjvp
def _tangent(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    return primals[1], tangents[0]
