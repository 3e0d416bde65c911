"""Dropout whose bits cost next to nothing."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxmod import noise

__all__ = ["dropout"]


def dropout(module: nn.Module, x: Float[Array, "..."], rate: float, train: bool) -> Float[Array, "..."]:
    """Returns `x / (1 - rate)` with each value set to 0 with probability `rate`; `x` if not `train`.

    Args:
      module: the Linen module that calls; its rng "dropout" is used.
      x: any floats.
      rate: below 1.
      train: whether anything is dropped.
    """
    if not train or not rate:
        return x
    # Bits that fuse: those of `nn.Dropout` would take as long as the rest of the step on a CPU.
    kept = noise.uniform(module.make_rng("dropout"), x.shape) >= rate
    return jnp.where(kept, x / (1 - rate), 0)
