"""Sequences of different lengths: their end token, their loss and their accuracy.

Tokens are integers `0 .. vocabulary - 1`, padded at the end with anything, beside a vector of lengths. The
one special token, `vocabulary`, ends a sequence (and starts the decoder); data do not contain it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer

__all__ = ["append_end", "end_from_first_end", "sequence_cross_entropy", "sequence_right"]


def append_end(
    tokens: Integer[Array, "*batch steps"], length: Integer[Array, "*batch"], end: int
) -> Int[Array, "*batch steps+1"]:
    """Returns the tokens with `end` from position `length` on, one position longer.

    Whatever stood in the padding is gone, so that it cannot reach a model.

    >>> append_end(jnp.array([[3, 1, 9], [2, 9, 9]]), jnp.array([2, 1]), end=4).tolist()
    [[3, 1, 4, 4], [2, 4, 4, 4]]

    Raises:
      ValueError: not one length for each sequence.
    """
    _check_lengths(tokens, length)
    longer = jnp.pad(tokens.astype(jnp.int32), [(0, 0)] * (tokens.ndim - 1) + [(0, 1)])
    return jnp.where(_positions(longer) < length[..., None], longer, end)


def end_from_first_end(tokens: Integer[Array, "*batch steps"], end: int) -> Integer[Array, "*batch steps"]:
    """Returns the tokens with `end` from the first `end` on.

    >>> end_from_first_end(jnp.array([[3, 4, 1, 4], [2, 2, 2, 2]]), end=4).tolist()
    [[3, 4, 4, 4], [2, 2, 2, 2]]
    """
    ended = jnp.cumsum(tokens == end, axis=-1) > 0
    return jnp.where(ended, end, tokens)


def sequence_cross_entropy(
    outputs: Float[Array, "*batch target_steps+1 classes"],
    target: Integer[Array, "*batch target_steps"],
    target_length: Integer[Array, "*batch"],
) -> Float[Array, "*batch"]:
    """Returns the softmax cross-entropy of each sequence, summed over its tokens and its end, in float32.

    The mean over a batch is then the loss of Csordas et al. 2021: the sum over valid positions divided by
    the batch size. The last class is the end token.

    Raises:
      ValueError: the outputs do not have one step more than the targets; not one length for each sequence.
    """
    _check_steps("outputs", outputs.shape[:-1], target)
    labels = append_end(target, target_length, end=outputs.shape[-1] - 1)
    log_probs = jax.nn.log_softmax(outputs.astype(jnp.float32), axis=-1)
    # A product with one-hot rows; picking by index would make the gradient a scatter.
    picked = jnp.sum(log_probs * jax.nn.one_hot(labels, outputs.shape[-1]), axis=-1)
    return -jnp.sum(jnp.where(_positions(labels) <= target_length[..., None], picked, 0), axis=-1)


def sequence_right(
    predicted: Integer[Array, "*batch target_steps+1"],
    target: Integer[Array, "*batch target_steps"],
    target_length: Integer[Array, "*batch"],
    end: int,
) -> Bool[Array, "*batch"]:
    """Returns whether a sequence is right as a whole: every token, and the end just after the last.

    Raises:
      ValueError: the predictions do not have one step more than the targets; not one length for each
        sequence.
    """
    _check_steps("predicted tokens", predicted.shape, target)
    labels = append_end(target, target_length, end)
    beyond = _positions(labels) > target_length[..., None]
    return jnp.all((predicted == labels) | beyond, axis=-1)


def _positions(tokens: Array) -> Array:
    """The position of each token, with as many axes as `tokens`, for comparing with lengths."""
    return jnp.arange(tokens.shape[-1]).reshape((1,) * (tokens.ndim - 1) + (-1,))


def _check_lengths(tokens: Array, length: Array) -> None:
    if tokens.ndim == 0 or tokens.shape[:-1] != length.shape:
        raise ValueError(
            f"tokens have shape {tokens.shape} and lengths {length.shape}, expected [..., steps] and [...]; "
            "give one length for each sequence."
        )


def _check_steps(name: str, shape: tuple[int, ...], target: Array) -> None:
    if shape != (*target.shape[:-1], target.shape[-1] + 1):
        raise ValueError(
            f"{name} have the steps {shape} and targets {target.shape}, expected one step more than the "
            "targets: the end token is predicted too."
        )
