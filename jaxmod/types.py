"""The words of the library as types: params, logits, mask, batch, estimator.

Logits and masks mirror the params they belong to, with `None` where a leaf is left alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
from jaxtyping import Array, Key, PyTree

__all__ = ["Batch", "BinaryMask", "Estimator", "Logits", "Mask", "Metrics", "Params", "Where"]

Params: TypeAlias = PyTree
"""Any pytree of arrays, of JAX or NumPy; frozen while masks are trained. `trees.select` checks it."""

Logits: TypeAlias = PyTree
"""Mirrors the params: one logit per masked weight, `None` where a leaf is not masked."""

Mask: TypeAlias = PyTree
"""Mirrors the params: a number in [0, 1] (a sample) or a bool (a thresholded mask) per weight."""

BinaryMask: TypeAlias = PyTree
"""A mask of bools."""

Batch: TypeAlias = PyTree
"""A pytree of arrays with a leading example axis."""

Metrics: TypeAlias = dict[str, Array]

Where: TypeAlias = str | Callable[[str, jax.Array], bool]
"""Selects leaves: a regex on paths such as `"encoder/kernel"`, or `(path, leaf) -> bool`."""


class Estimator(NamedTuple):
    """How a binary mask is parametrised, sampled and made definite; pure functions only.

    It is to masks what an optimizer is to gradients in Optax. A new one is one factory that
    returns this tuple, cached so that equal arguments, however spelt, give the same object: jitted
    programs are then reused.
    """

    name: str
    """The factory with its hyperparameters, as recorded in `config.json`."""
    init: Callable[..., Logits]
    """`init(key, params, where) -> logits`."""
    sample: Callable[[Key[Array, ""], Logits], Mask]
    """`sample(key, logits) -> mask`, differentiable in the logits."""
    threshold: Callable[[Logits], BinaryMask]
    """`threshold(logits) -> binary mask`, deterministic."""
    penalty: Callable[[Logits], Any]
    """`penalty(logits) -> scalar`; the engine adds `alpha * penalty`."""
    stochastic: bool = True
    """False if `sample` ignores its key: one sample per step is enough."""
