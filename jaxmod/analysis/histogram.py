"""How decided a mask is: the histogram of the probabilities that its weights are kept."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmod.types import Logits

__all__ = ["Histogram", "mask_mean_histogram"]


class Histogram(NamedTuple):
    edges: Float[Array, " bins+1"]
    counts: Int[Array, " bins"]
    density: Float[Array, " bins"]
    """Counts normalised so that the integral over [0, 1] is 1."""


def mask_mean_histogram(logits: Logits, bins: int = 500) -> Histogram:
    """Returns the histogram of `sigmoid(l)` over all masked weights (Csordas et al. 2021, figure 7).

    Equal bins on [0, 1], closed on the left; the last one holds 1 too. Mass at 0 and 1 and nothing
    in between is what makes thresholding safe.

    Raises:
      ValueError: `bins` is not positive.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}.")
    edges = jnp.asarray(np.linspace(0, 1, bins + 1, dtype=np.float32))

    def count(leaf: Float[Array, "..."]) -> Int[Array, " bins"]:
        mean = jax.nn.sigmoid(leaf.astype(jnp.float32)).reshape(-1)
        # By the edges themselves: floor(mean * bins) is off by one where the product rounds.
        index = jnp.searchsorted(edges, mean, side="right") - 1
        return jnp.bincount(jnp.minimum(index, bins - 1), length=bins).astype(jnp.int32)

    counts = sum(map(count, jax.tree.leaves(logits)), start=jnp.zeros(bins, jnp.int32))
    return Histogram(edges, counts, counts / jnp.maximum(counts.sum(), 1) * bins)
