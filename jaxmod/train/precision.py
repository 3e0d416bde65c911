"""Half the bytes: weights and examples in bfloat16, for accelerators whose matrix units want it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxmod.types import Batch

__all__ = ["draw_bfloat16", "to_bfloat16"]


def to_bfloat16(tree: PyTree) -> PyTree:
    """Returns the tree with its floating leaves in bfloat16; others, integer labels say, stay as they are."""
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.bfloat16) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


@functools.lru_cache(maxsize=64)  # equal programs share their compiled code
def draw_bfloat16(draw: Callable[..., Batch]) -> Callable[..., Batch]:
    """Returns a draw, or a task's function, whose batches are those of `draw` in bfloat16."""

    @functools.wraps(draw)  # whether a task's function takes the pool is seen from its signature
    def draw_and_cast(*args: Any, **kwargs: Any) -> Any:
        return to_bfloat16(draw(*args, **kwargs))

    return draw_and_cast
