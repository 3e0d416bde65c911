"""Random numbers that XLA can fuse into the kernel that uses them.

Generators that run as a loop, as those of `jax.random` do on the CPU, send their bits through memory: they
cost ten times the weights they mask. Written out as elementwise arithmetic on (key, index of the element),
the noise is computed where it is used and never stored. Two generators are written so:

`mix32` is our own, the cheapest: three multiplications. `docs/noise.md` has its tests.
`bits` gives exactly the bits of `jax.random.bits` (Threefry-2x32), at nine times the operations.
"""

import math
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, UInt32

__all__ = ["Generator", "Seed", "bits", "leaf_seeds", "mix32", "scramble", "uniform", "words"]

Generator = Literal["mix32", "jax"]
"""`mix32`, or the generator of the key, as `jax.random` has it."""

Seed: TypeAlias = Key[Array, ""] | UInt32[Array, "2"]
"""A key, or the `words` of one, which can be drawn for many keys at once."""

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def words(key: Key[Array, ""]) -> UInt32[Array, "2"]:
    """Returns what `mix32` makes of a key: two words drawn with the key's own generator."""
    return bits(key, (2,))


def leaf_seeds(
    key: Key[Array, ""], count: int, generator: Generator
) -> Key[Array, " leaves"] | UInt32[Array, "leaves 2"]:
    """Returns a seed of its own for each of `count` leaves, as `uniform` takes it."""
    keys = jax.random.split(key, count)
    # Of all leaves at once: written out for each, the words would be most of a large program.
    return jax.vmap(words)(keys) if generator == "mix32" else keys


def mix32(seed: Seed, shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """Returns 32 random bits per element: a hash of the element's index under two words drawn from a key.

    Three rounds of multiply and xor-shift with the constants of "triple32" (Wellons, found by search for the
    least avalanche bias), a word of the key added before the first and another joined by xor before the
    second: added there too, it would make all leaves windows of one sequence. The words are themselves
    drawn with the key's generator (`words`), so that neighbouring keys have nothing in common; an old-style
    key, which is two uint32, would be taken for such words and must not be given.

    For a fixed key this is a bijection of the index: within one leaf no two of the 2**32 words are the same.

    Raises:
      ValueError: 2**32 elements or more.
    """
    if math.prod(shape) >= 2**32:
        raise ValueError(f"a leaf of shape {shape} has 2**32 elements or more; use noise='jax'.")
    first, second = seed if seed.dtype == jnp.uint32 else words(seed)
    return scramble(_flat_index(shape), first, second)


def scramble(
    x: UInt32[Array, "..."], first: UInt32[Array, "..."], second: UInt32[Array, "..."]
) -> UInt32[Array, "..."]:
    """Returns the hash of words that `mix32` takes of an index; for two given words it is a bijection."""
    x = x + first
    x = (x ^ (x >> 17)) * jnp.uint32(0xED5AD4BB)
    x = x ^ second
    x = (x ^ (x >> 11)) * jnp.uint32(0xAC4C1B51)
    x = (x ^ (x >> 15)) * jnp.uint32(0x31848BAB)
    return x ^ (x >> 14)


def bits(key: Key[Array, ""], shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """Returns `jax.random.bits(key, shape)`, bit for bit, in a form that fuses.

    Threefry-2x32 with 20 rounds (Salmon et al. 2011) of the element's 64-bit index, its two words
    combined by xor, as JAX does with `jax_threefry_partitionable`, its default.
    """
    partitionable = jax.config.jax_threefry_partitionable  # pyright: ignore[reportAttributeAccessIssue]
    threefry = str(jax.random.key_impl(key)) == "threefry2x32"
    if not (threefry and partitionable and math.prod(shape) < 2**32):
        return jax.random.bits(key, shape)
    k0, k1 = jax.random.key_data(key)
    keys = (k0, k1, k0 ^ k1 ^ jnp.uint32(_PARITY))
    # The high word of the index is 0 below 2**32 elements.
    x0, x1 = jnp.broadcast_to(keys[0], shape), _flat_index(shape) + keys[1]
    for i in range(5):
        for rotation in _ROTATIONS[i % 2]:
            x0 = x0 + x1
            x1 = x0 ^ ((x1 << rotation) | (x1 >> (32 - rotation)))
        x0 = x0 + keys[(i + 1) % 3]
        x1 = x1 + keys[(i + 2) % 3] + jnp.uint32(i + 1)
    return x0 ^ x1


def uniform(seed: Seed, shape: tuple[int, ...], generator: Generator = "mix32") -> Float[Array, "..."]:
    """Returns float32 numbers strictly inside (0, 1), symmetric about 1/2.

    23 bits and half a step, `u = (k + 1/2) / 2**23`: `u` and `1 - u` are both exact, and neither is
    ever 0, so that `log(u)` and `log(1 - u)` are finite.
    """
    drawn = mix32(seed, shape) if generator == "mix32" else bits(seed, shape)
    return ((drawn >> 9).astype(jnp.float32) + 0.5) * jnp.float32(2.0**-23)


def _flat_index(shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    index = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :])
        index = index + lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
    return index
