"""The largest numbers of an array without a sort, which would cost more than a step of a small network."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

__all__ = ["kth_largest", "largest", "ordered"]

_LOWEST = jnp.iinfo(jnp.int32).min


def largest(scores: Float[Array, "..."], count: Int[Array, ""] | int) -> Bool[Array, "..."]:
    """Returns where the `count` largest scores are, exactly that many; of equal ones those that come first.

    NaN counts as larger than infinity, or as smaller than minus infinity, by its sign bit.

    Args:
      scores: floats of at most 32 bits; those of 64 are compared as 32.
      count: between 0 and the number of scores; may be traced.

    >>> largest(jnp.array([1.0, -3.0, 2.0, 1.0]), 2).tolist()
    [True, False, True, False]
    """
    order = ordered(scores).ravel()
    threshold = kth_largest(order, count)
    above, equal = order > threshold, order == threshold
    wanted = count - jnp.sum(above)

    def first(_: None) -> Array:
        position = jnp.where(equal, -jnp.arange(order.size, dtype=jnp.int32), _LOWEST)
        return equal & (position >= kth_largest(position, wanted))

    tied = lax.cond(jnp.sum(equal) == wanted, lambda _: equal, first, None)
    return ((above | tied) & (count > 0)).reshape(scores.shape)


def ordered(values: Float[Array, "..."]) -> Int[Array, "..."]:
    """Returns integers of the same order: the bits of a float, those below zero turned round.

    Subnormal numbers count as zero, as they do elsewhere in XLA.
    """
    values = values.astype(jnp.float32)
    bits = lax.bitcast_convert_type(jnp.where(values == 0, 0.0, values), jnp.int32)  # -0.0 is 0.0
    return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def kth_largest(values: Int[Array, "..."], k: Int[Array, ""] | int) -> Int[Array, ""]:
    """Returns the `k`-th largest integer; the largest there is at all if `k` is 0.

    Built bit by bit from the highest on: a bit is set if still `k` values reach the number.
    """
    # Counts are exact in float32 below 2**24, and the sum is half as dear as that of integers on a CPU.
    counts = jnp.float32 if values.size < 2**24 else jnp.int32

    def reached(threshold: Array) -> Array:
        return jnp.sum(values >= threshold, dtype=counts) >= k

    def set_bit(i: Array, threshold: Array) -> Array:
        higher = threshold | (1 << (30 - i))
        return jnp.where(reached(higher), higher, threshold)

    start = jnp.where(reached(jnp.int32(0)), jnp.int32(0), jnp.int32(_LOWEST))
    return lax.fori_loop(0, 31, set_bit, start)
