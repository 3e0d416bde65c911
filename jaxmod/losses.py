"""Losses and scores of answers that are several digits, per example."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

__all__ = ["all_digits_right", "digit_cross_entropy"]


def digit_cross_entropy(
    outputs: Float[Array, "*batch digits classes"], labels: Integer[Array, "*batch digits"]
) -> Float[Array, "*batch"]:
    """Returns the softmax cross-entropy of each example, the mean over its digits, in float32.

    Raises:
      ValueError: the labels do not match the outputs' leading axes.
    """
    _check_shapes(outputs, labels)
    log_probs = jax.nn.log_softmax(outputs.astype(jnp.float32), axis=-1)
    # A product with one-hot rows; picking by index would make the gradient a scatter.
    picked = jnp.sum(log_probs * jax.nn.one_hot(labels, outputs.shape[-1]), axis=-1)
    return -jnp.mean(picked, axis=-1)


def all_digits_right(
    outputs: Float[Array, "*batch digits classes"], labels: Integer[Array, "*batch digits"]
) -> Bool[Array, "*batch"]:
    """Returns whether the largest output of every digit of an example is at its label.

    Raises:
      ValueError: the labels do not match the outputs' leading axes.
    """
    _check_shapes(outputs, labels)
    return jnp.all(jnp.argmax(outputs, axis=-1) == labels, axis=-1)


def _check_shapes(outputs: Array, labels: Array) -> None:
    if labels.ndim == 0 or outputs.shape[:-1] != labels.shape:
        raise ValueError(
            f"outputs have shape {outputs.shape} and labels {labels.shape}, expected [..., digits, classes] "
            "and [..., digits]; reshape the model's outputs to one row per digit."
        )
