"""What a masked network answers in place of what it was asked for: another operation, or another class."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

__all__ = ["class_confusion", "largest_other_drop", "operation_confusion", "relative_drop"]


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


def class_confusion(
    predicted: Integer[Array, " examples"], labels: Integer[Array, " examples"], classes: int
) -> Float[Array, "classes classes"]:
    """Returns how often, in percent, examples of each class (rows) are taken for each class (columns).

    Each row sums to 100 (figure 18); the row of a class without examples is 0.

    >>> class_confusion(jnp.array([0, 1, 1]), jnp.array([0, 0, 1]), 2).tolist()
    [[50.0, 50.0], [0.0, 100.0]]
    """
    counts = jnp.zeros((classes, classes), jnp.int32).at[labels, predicted].add(1)
    return 100 * counts / jnp.maximum(counts.sum(axis=1, keepdims=True), 1)


def relative_drop(
    without: Float[Array, "classes classes"], control: Float[Array, "classes classes"]
) -> Float[Array, " classes"]:
    """Returns by how much, in percent of what it was, the accuracy on each class drops (figure 6a).

    `100 (C_control[j, j] - C[j, j]) / C_control[j, j]`, at most 100; below 0 for a class that gains; NaN for
    one that the control mask never gets right.

    Args:
      without: `class_confusion` under the mask of a class that was left out.
      control: under the control mask.
    """
    before, after = jnp.diagonal(control), jnp.diagonal(without)
    return jnp.where(before > 0, 100 * (before - after) / jnp.where(before > 0, before, 1), jnp.nan)


def largest_other_drop(drop: Float[Array, " classes"], target: int) -> Float[Array, ""]:
    """Returns the largest drop of another class, in percent of the target's drop (figure 6b).

    0 if no other class drops; NaN if the target does not drop, or a drop is NaN.

    Args:
      drop: `relative_drop` under the mask trained without the target.
      target: the class that was left out.
    """
    others, own = jnp.delete(drop, target, assume_unique_indices=True), drop[target]
    return jnp.where(own > 0, 100 * jnp.maximum(others.max(), 0) / jnp.where(own > 0, own, 1), jnp.nan)
