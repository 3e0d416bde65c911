"""Hard concrete gates: samples between 0 and 1, many of them exactly 0 or 1."""

import functools
import math
from typing import get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxmod import trees
from jaxmod.estimators import constant_start
from jaxmod.noise import Generator, Seed, leaf_seeds, uniform
from jaxmod.types import BinaryMask, Estimator, Logits, Mask, Params, Where

__all__ = ["hard_concrete"]


def hard_concrete(
    temperature: float = 2 / 3,
    init: float = 2.0,
    stretch: float = 0.1,
    noise: Generator = "mix32",
) -> Estimator:
    """Returns the estimator of Louizos et al. 2018, equations (10) to (12).

    With logit `l` (log alpha there) and temperature `t` (beta there), a gate is a concrete sample, stretched
    beyond both ends of [0, 1] and cut there:

        s = sigmoid((l + log(u) - log(1 - u)) / t),  u ~ U(0, 1)
        z = min(1, max(0, s (1 + 2 stretch) - stretch))

    It is exactly 0 or 1 with a probability above zero, and the gradient is that of `z` itself. The penalty
    is the expected number of gates that are not 0, the sum of `sigmoid(l - t log(stretch / (1 + stretch)))`.
    The mask has the gates whose value without noise, with `sigmoid(l)` for `s`, is above 1/2: those with
    `l > 0`.

    Args:
      temperature: the lower, the more gates are exactly 0 or 1; 2/3 in the paper.
      init: the initial logit. A gate is above 1/2 with probability `sigmoid(l)`, whatever temperature and
        stretch. So 2.0 is the start of `gumbel_sigmoid`: 0.88.
      stretch: how far beyond 0 and 1; 0.1 in the paper (gamma = -0.1, zeta = 1.1).
      noise: as in `gumbel_sigmoid`.

    Raises:
      ValueError: temperature or stretch is not positive and finite; the initial logit is not finite; there
        is no such noise.
    """
    for name, value in (("temperature", temperature), ("stretch", stretch)):
        if not 0 < value < math.inf:
            raise ValueError(f"hard_concrete: {name} must be positive and finite, got {value}.")
    if not math.isfinite(init):
        raise ValueError(f"hard_concrete: init must be a finite logit, got {init}.")
    if noise not in get_args(Generator):
        raise ValueError(
            f"hard_concrete: noise must be one of {', '.join(get_args(Generator))}, got {noise!r}."
        )
    return _hard_concrete(float(temperature), float(init), float(stretch), noise)


@functools.cache  # on floats by position, so that `1` and `temperature=1.0` give the same object
def _hard_concrete(temperature: float, init: float, stretch: float, generator: Generator) -> Estimator:
    def init_fn(key: Key[Array, ""], params: Params, where: Where = trees.DEFAULT_WHERE) -> Logits:
        del key  # every logit starts at the same constant
        return constant_start(params, where, init)

    def sample_fn(key: Key[Array, ""], logits: Logits) -> Mask:
        leaves, treedef = jax.tree.flatten(logits)
        seeds = leaf_seeds(key, len(leaves), generator)
        one = functools.partial(_gate, temperature, stretch, generator)
        return jax.tree.unflatten(treedef, map(one, seeds, leaves))

    def threshold_fn(logits: Logits) -> BinaryMask:
        # The stretch is the same on both sides, so that the middle stays where it is.
        return jax.tree.map(lambda x: x > 0, logits)

    def penalty_fn(logits: Logits) -> Float[Array, ""]:
        shift = temperature * math.log(stretch / (1 + stretch))
        return trees.tree_sum(lambda x: jnp.sum(jax.nn.sigmoid(x - shift)), logits)

    name = f"hard_concrete(temperature={temperature}, init={init}, stretch={stretch}, noise={generator!r})"
    return Estimator(name, init_fn, sample_fn, threshold_fn, penalty_fn)


def _stretched(
    temperature: float, stretch: float, generator: Generator, seed: Seed, logits: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Returns the concrete sample before and after it is stretched."""
    u = uniform(seed, logits.shape, generator)
    s = jax.nn.sigmoid((logits + jnp.log(u) - jnp.log1p(-u)) / temperature)
    return s, s * (1 + 2 * stretch) - stretch


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _gate(
    temperature: float, stretch: float, generator: Generator, seed: Seed, logits: Float[Array, "..."]
) -> Float[Array, "..."]:
    _, z = _stretched(temperature, stretch, generator, seed, logits)
    return jnp.clip(z, 0, 1).astype(logits.dtype)


def _forward(
    temperature: float, stretch: float, generator: Generator, seed: Seed, logits: Float[Array, "..."]
) -> tuple[Float[Array, "..."], tuple[Seed, Float[Array, "..."]]]:
    # The noise is not kept but drawn again in the backward pass, as in gumbel_sigmoid.
    return _gate(temperature, stretch, generator, seed, logits), (seed, logits)


def _backward(
    temperature: float,
    stretch: float,
    generator: Generator,
    residuals: tuple[Seed, Float[Array, "..."]],
    grad: Float[Array, "..."],
) -> tuple[None, Float[Array, "..."]]:
    seed, logits = residuals
    s, z = _stretched(temperature, stretch, generator, seed, logits)
    slope = jnp.where((z > 0) & (z < 1), s * (1 - s) * (1 + 2 * stretch) / temperature, 0.0)
    return None, (grad * slope).astype(logits.dtype)


_gate.defvjp(_forward, _backward)
