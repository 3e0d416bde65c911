"""Half the bytes: weights and examples in bfloat16, for accelerators whose matrix units want it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxmod.train.tasks import Draw

__all__ = ["draw_bfloat16", "to_bfloat16"]


def to_bfloat16(tree: PyTree) -> PyTree:
    """Returns the tree with its floating leaves in bfloat16; others, integer labels say, stay as they are."""
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.bfloat16) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


@functools.lru_cache(maxsize=64)  # equal programs share their compiled code
def draw_bfloat16(draw: Draw) -> Draw:
    """Returns a draw whose batches are those of `draw` in bfloat16."""

    def draw_and_cast(*args: Any) -> Any:
        return to_bfloat16(draw(*args))

    return draw_and_cast
