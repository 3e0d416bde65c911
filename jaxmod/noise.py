"""Random bits that XLA can fuse into the kernel that uses them.

`jax.random.bits` with the default Threefry-2x32 generator runs as a loop on the CPU, so its bits
make a round trip through memory: they cost about ten times the weights they mask. The same function
of (key, index of the element), written out, is plain elementwise arithmetic. `bits` returns
exactly the bits of `jax.random.bits`; other generators are passed on to JAX.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, UInt32

__all__ = ["bits", "uniform"]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


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


def uniform(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Returns float32 numbers strictly inside (0, 1), symmetric about 1/2.

    23 bits and half a step, `u = (k + 1/2) / 2**23`: `u` and `1 - u` are both exact, and neither is
    ever 0, so that `log(u)` and `log(1 - u)` are finite.
    """
    return ((bits(key, shape) >> 9).astype(jnp.float32) + 0.5) * jnp.float32(2.0**-23)


def _flat_index(shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    index = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :])
        index = index + lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
    return index
