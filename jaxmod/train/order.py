"""The order in which the examples of a task come: at random, or pass after pass over all of them.

A pass is a permutation that is evaluated where it is needed: which example comes at position p of a training
is known from the key and p alone. Nothing is sorted, stored or carried along, and a training resumes in the
middle of a pass.
"""

from typing import Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, Key, UInt32

from jaxmod import noise

__all__ = ["MOST_POSITIONS", "Order", "ordered_rows", "shuffled"]

Order = Literal["random", "epochs", "fixed"]
"""`random`: examples are drawn with replacement; `epochs`: every example once in each pass, a fresh order for
each pass and run; `fixed`: the examples as they come, pass after pass."""

MOST_POSITIONS = 2**32
"""The most examples that a training in passes may see: positions are words of 32 bits."""

# The statistics of tests/train/test_order.py are those of random permutations from 16 rounds on. The proof
# wants 6 log2(size), so this covers two million examples.
_ROUNDS = 128


def ordered_rows(
    order: Order, key: Key[Array, ""], step: Int[Array, ""], batch_size: int, size: Int[Array, ""]
) -> Int[Array, " batch"]:
    """Returns the rows of the batch of a step, each below `size`, for the orders `epochs` and `fixed`.

    Batches follow one another without a gap: the one in which a pass ends goes on with the next pass, so
    there are no partial batches. It may hold an example twice.

    Args:
      order: not `random`.
      key: of the run; the same at every step.
      step: counted from 0.
      batch_size: may be larger than `size`.
      size: the number of examples.
    """
    total = jnp.asarray(size).astype(jnp.uint32)
    first = jnp.asarray(step).astype(jnp.uint32) * jnp.uint32(batch_size)
    position = first + jnp.arange(batch_size, dtype=jnp.uint32)
    row = position % total
    if order == "epochs":
        row = shuffled(noise.words(key), position // total, row, total)
    return row.astype(jnp.int32)


def shuffled(
    seed: UInt32[Array, "2"],
    epoch: UInt32[Array, " n"],
    index: UInt32[Array, " n"],
    size: UInt32[Array, ""],
) -> UInt32[Array, " n"]:
    """Returns the element at each index of the permutation of `range(size)` that belongs to an epoch.

    The swap-or-not shuffle (Hoang, Morris, Rogaway 2012): each round pairs x with k - x mod size for a random
    k, and swaps the pair if a random bit of the round and the pair says so. The random numbers are hashes
    of the epoch, the round and the seed.

    Args:
      seed: the `noise.words` of a key.
      epoch: may differ between the elements.
      index: below `size`.
      size: of the permutation, at most 2**31; the work does not depend on it.
    """

    def swap_or_not(i: Array, x: Array) -> Array:
        counter = 2 * (epoch * jnp.uint32(_ROUNDS) + i.astype(jnp.uint32))
        first, second = (noise.scramble(counter + jnp.uint32(j), seed[0], seed[1]) for j in (0, 1))
        k = _high_word(first, size)  # uniform below size, to size / 2**32
        partner = jnp.where(k >= x, k - x, k + size - x)
        bit = noise.scramble(jnp.maximum(x, partner), second, first) >> 31
        return jnp.where(bit == 1, partner, x)

    # Partly unrolled: as quick on a CPU, and fewer kernels to launch on a GPU.
    return lax.fori_loop(0, _ROUNDS, swap_or_not, index, unroll=8)


def _high_word(a: UInt32[Array, " n"], b: UInt32[Array, ""]) -> UInt32[Array, " n"]:
    """Returns `a * b >> 32`. `lax.mulhi` is the same, but XLA refuses it in a program for several devices."""
    low = jnp.uint32(0xFFFF)
    middle = (a >> 16) * (b & low) + ((a & low) * (b & low) >> 16)
    return (a >> 16) * (b >> 16) + (middle >> 16) + ((a & low) * (b >> 16) + (middle & low) >> 16)
