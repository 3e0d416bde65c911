"""How well a mask finds a module that is known: precision and recall; intervals for means over networks."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import stdtrit

from jaxmod import masks, trees
from jaxmod.types import BinaryMask

__all__ = ["Interval", "Recovery", "mean_interval", "recovery"]


class Recovery(NamedTuple):
    """A found mask beside the truth, all leaves together."""

    precision: Float[Array, ""]
    """The part of what was found that is true."""
    recall: Float[Array, ""]
    """The part of the truth that was found."""
    f1: Float[Array, ""]
    """Their harmonic mean."""


class Interval(NamedTuple):
    """A mean, and where it may lie."""

    mean: float
    low: float
    high: float


def recovery(found: BinaryMask, truth: BinaryMask) -> Recovery:
    """Returns how well `found` is the `truth`; what is undefined because a mask is empty is 0.

    Raises:
      ValueError: the masks differ in structure or shapes.

    >>> found, truth = {"w": jnp.array([True, True, False])}, {"w": jnp.array([True, False, False])}
    >>> [round(float(x), 3) for x in recovery(found, truth)]
    [0.5, 1.0, 0.667]
    """
    both, hits, wanted = (
        trees.tree_sum(lambda m: jnp.sum(m, dtype=jnp.float32), mask)
        for mask in (masks.intersection(found, truth), found, truth)
    )
    return Recovery(*(both / jnp.maximum(whole, 1) for whole in (hits, wanted, (hits + wanted) / 2)))


def mean_interval(values: Float[np.ndarray, " runs"], level: float = 0.95) -> Interval:
    """Returns the mean and its confidence interval by Student's t; one value has no width.

    >>> [round(x, 2) for x in mean_interval(np.array([1.0, 2.0, 3.0]))]
    [2.0, -0.48, 4.48]
    """
    runs = len(values)
    mean = float(np.mean(values))
    if runs == 1:
        return Interval(mean, mean, mean)
    error = float(np.std(values, ddof=1)) / runs**0.5
    half = float(stdtrit(runs - 1, (1 + level) / 2)) * error
    return Interval(mean, mean - half, mean + half)
