"""Estimators of binary masks: how a mask is parametrised, sampled and made definite.

The one of Csordas et al. 2021 is here; `edge_popup` and `hard_concrete` have modules of their own.
"""

import functools
import math
from typing import get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from jaxmod import trees
from jaxmod.noise import Generator, Seed, leaf_seeds, uniform
from jaxmod.types import BinaryMask, Estimator, Logits, Mask, Params, Where

__all__ = ["constant_start", "gumbel_sigmoid"]


def gumbel_sigmoid(
    temperature: float = 1.0,
    init: float = 2.0,
    noise: Generator = "mix32",
    rao_blackwell: bool = False,
) -> Estimator:
    """Returns the estimator of Csordas et al. 2021, section 3: hard Gumbel-sigmoid samples.

    A weight with logit `l` is kept with probability `sigmoid(l)`, whatever the temperature:

        s = sigmoid((l + log(u) - log(1 - u)) / temperature),  u ~ U(0, 1)
        b = 1[s > 1/2],  with the gradient of s (straight-through)

    The difference of two Gumbel variates is one logistic variate, hence the single `u`. The mask is
    `l > 0`; the penalty is the sum of the raw logits.

    Args:
      temperature: scales the gradient only; 1 in the paper.
      init: the initial logit. 2.0 keeps a weight with probability 0.88.
      noise: `"mix32"`, cheap bits that fuse into the product with the weights, or `"jax"`, the bits of
        `jax.random` for the generator of the key (`jaxmod.noise`).
      rao_blackwell: replaces the slope ds/dl = s (1 - s) by its mean given `b`. What follows the mask sees
        `b` alone, so the gradient has the same mean and never more variance (Rao-Blackwell).

    Raises:
      ValueError: the temperature is not positive and finite, or not 1 with `rao_blackwell`; the initial
        logit is not finite; there is no such noise.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature}.")
    if not math.isfinite(init):
        raise ValueError(f"init must be a finite logit, got {init}.")
    if noise not in get_args(Generator):
        raise ValueError(f"noise must be one of {', '.join(get_args(Generator))}, got {noise!r}.")
    if rao_blackwell and temperature != 1:
        raise ValueError(f"rao_blackwell has a closed form for temperature 1 only, got {temperature}.")
    return _gumbel_sigmoid(float(temperature), float(init), noise, bool(rao_blackwell))


@functools.cache  # on floats by position, so that `1` and `temperature=1.0` give the same object
def _gumbel_sigmoid(temperature: float, init: float, generator: Generator, rao_blackwell: bool) -> Estimator:
    def init_fn(key: Key[Array, ""], params: Params, where: Where = trees.DEFAULT_WHERE) -> Logits:
        del key  # every logit starts at the same constant
        return constant_start(params, where, init)

    def sample_fn(key: Key[Array, ""], logits: Logits) -> Mask:
        one = functools.partial(_straight_through, None if rao_blackwell else temperature, generator)
        leaves, treedef = jax.tree.flatten(logits)
        seeds = leaf_seeds(key, len(leaves), generator)
        return jax.tree.unflatten(treedef, map(one, seeds, leaves))

    def threshold_fn(logits: Logits) -> BinaryMask:
        return jax.tree.map(lambda x: x > 0, logits)

    def penalty_fn(logits: Logits) -> Float[Array, ""]:
        return trees.tree_sum(jnp.sum, logits)

    mean = ", rao_blackwell=True" if rao_blackwell else ""
    name = f"gumbel_sigmoid(temperature={temperature}, init={init}, noise={generator!r}{mean})"
    return Estimator(name, init_fn, sample_fn, threshold_fn, penalty_fn)


def constant_start(params: Params, where: Where, value: float) -> Logits:
    """Returns the same logit for every weight that `where` selects, `None` elsewhere."""
    return jax.tree.map(
        lambda w, chosen: jnp.full(jnp.shape(w), value, jnp.float32) if chosen else None,
        params,
        trees.select(params, where),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _straight_through(
    temperature: float | None, generator: Generator, seed: Seed, logits: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Returns the hard sample, with the soft one's gradient; the mean gradient if temperature is None."""
    del temperature
    return _kept(uniform(seed, logits.shape, generator), logits).astype(logits.dtype)


def _kept(u: Float[Array, "..."], logits: Float[Array, "..."]) -> Bool[Array, "..."]:
    # s > 1/2 is u > sigmoid(-l): no logarithm, and sigmoid(-l) serves all samples of a step.
    return u > jax.nn.sigmoid(-logits)


def _forward(
    temperature: float | None, generator: Generator, seed: Seed, logits: Float[Array, "..."]
) -> tuple[Float[Array, "..."], tuple[Seed, Float[Array, "..."]]]:
    # The noise is not kept but drawn again in the backward pass: arithmetic is cheaper than memory.
    return _straight_through(temperature, generator, seed, logits), (seed, logits)


def _backward(
    temperature: float | None,
    generator: Generator,
    residuals: tuple[Seed, Float[Array, "..."]],
    grad: Float[Array, "..."],
) -> tuple[None, Float[Array, "..."]]:
    seed, logits = residuals
    u = uniform(seed, logits.shape, generator)
    if temperature is None:
        slope = jnp.where(_kept(u, logits), _mean_slope(logits), _mean_slope(-logits))
    elif temperature == 1:
        # s (1 - s) without logarithms: with e = exp(-|l|), and v = u or 1 - u by the sign of l,
        # it is e v (1 - v) / (v + e (1 - v))^2, accurate to rounding for every l.
        v = jnp.where(logits > 0, u, 1 - u)
        w = jnp.exp(-jnp.abs(logits)) * (1 - v)
        slope = v * w / jnp.square(v + w)
    else:
        x = (logits + jnp.log(u) - jnp.log1p(-u)) / temperature
        slope = jax.nn.sigmoid(x) * jax.nn.sigmoid(-x) / temperature
    return None, (grad * slope).astype(logits.dtype)


_straight_through.defvjp(_forward, _backward)


def _mean_slope(logits: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns E[s (1 - s) | b = 1] for temperature 1; given b = 0 it is that of `-logits`.

    Integrating sigmoid'(x) over the logistic density around `l` from 0 on, by partial fractions, gives, with
    y = tanh(l / 2),

        sigmoid(-l) (-log(1 - y) - y - y^2 / 2) / y^3  =  sigmoid(-l) (1/3 + y/4 + y^2/5 + ...).
    """
    y = jnp.tanh(logits / 2)
    small = jnp.abs(y) < 0.4  # where the closed form cancels; 15 terms leave less than float32 shows
    series = jnp.zeros_like(y)
    for term in range(17, 2, -1):
        series = series * y + 1 / term
    safe = jnp.where(small, 1.0, y)
    closed = (jax.nn.softplus(logits) - math.log(2) - safe - jnp.square(safe) / 2) / safe**3
    return jax.nn.sigmoid(-logits) * jnp.where(small, series, closed)
