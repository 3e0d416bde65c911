"""Which operation a masked network performs, whatever it was asked for."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

__all__ = ["operation_confusion"]


def operation_confusion(
    predicted: Integer[Array, "batch digits"],
    candidates: Integer[Array, "batch ops digits"],
    requested: Integer[Array, " batch"],
) -> Float[Array, "ops ops+1"]:
    """Returns how often, in percent, the answer is that of each operation (figure 12).

    Rows are the requested operation, columns the operation whose result was predicted, all digits
    right; the last column is none of them. A prediction that is the result of two operations counts
    in both columns; then each row is normalised to 100. A row without examples is 0.

    Args:
      predicted: the digits the network answers.
      candidates: the digits of every operation's result on the same operands.
      requested: the operation asked for, an index into the `ops` axis.

    Raises:
      ValueError: the shapes do not fit.
    """
    batch, ops, digits = candidates.shape
    if predicted.shape != (batch, digits) or requested.shape != (batch,):
        raise ValueError(
            f"candidates of shape {candidates.shape} (batch, ops, digits) need predicted of shape "
            f"{(batch, digits)} and requested of shape {(batch,)}, got {predicted.shape} and "
            f"{requested.shape}."
        )
    matches = jnp.all(predicted[:, None, :] == candidates, axis=-1)
    columns = jnp.concatenate([matches, ~matches.any(axis=1, keepdims=True)], axis=1)
    rows = requested[:, None] == jnp.arange(ops)[None, :]
    counts = jnp.sum(rows[:, :, None] & columns[:, None, :], axis=0, dtype=jnp.int32)
    return 100 * counts / jnp.maximum(counts.sum(axis=1, keepdims=True), 1)
