"""Where every random number of a run comes from.

One key per run, named streams, the step folded in: resuming needs only the step. No stream knows
its task, so that neither the order nor the number of tasks changes anything.
"""

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

__all__ = ["StepKeys", "Stream", "check_keys", "shared_stream", "step_keys", "stream_key"]


class Stream(enum.IntEnum):
    """The purposes of randomness within a run. The numbers are part of every result: never renumber."""

    INIT = 0
    DATA = 1
    NOISE = 2
    LOSS = 3
    EVALUATE = 4
    ORDER = 5


class StepKeys(NamedTuple):
    """The keys of one step, and its number."""

    data: Key[Array, ""]
    noise: Key[Array, ""]
    loss: Key[Array, ""]
    shared: Key[Array, ""]
    """The same for all runs: a decision taken from it skips work under `vmap` too."""
    step: Int[Array, ""]
    """Counted from 0, the same for all runs as well."""


def stream_key(key: Key[Array, ""], stream: Stream) -> Key[Array, ""]:
    """Returns the key of one stream of a run."""
    return jax.random.fold_in(key, int(stream))


def shared_stream(seed: int) -> Key[Array, ""]:
    """Returns the key that all runs share, from which each step's is folded.

    The last number is folded in first: the keys that `jax.random.split` gives the runs are those of
    `fold_in` with small numbers, and a run of the same seed may have one of these.
    """
    return jax.random.fold_in(jax.random.key(seed), 2**32 - 1)


def step_keys(key: Key[Array, ""], shared_key: Key[Array, ""], step: Int[Array, ""]) -> StepKeys:
    """Returns the keys of a step from the run's key and the key shared by all runs."""
    streams = (stream_key(key, s) for s in (Stream.DATA, Stream.NOISE, Stream.LOSS))
    return StepKeys(*(jax.random.fold_in(k, step) for k in (*streams, shared_key)), step=step)


def check_keys(keys: Any) -> None:
    """Raises ValueError unless `keys` is one typed key or a vector of them, sound under `vmap`."""
    if not isinstance(keys, jax.Array) or not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        kind = f"an array of {keys.dtype}" if hasattr(keys, "dtype") else f"{keys!r}"
        raise ValueError(
            f"keys must be a typed key or a vector of typed keys, got {kind}; "
            "make one with jax.random.key(seed), several with jax.random.split(key, runs)."
        )
    if keys.ndim > 1 or keys.size == 0:
        raise ValueError(f"keys must be one key or a non-empty vector, got shape {keys.shape}.")
    impl = str(jax.random.key_impl(keys))
    if impl in ("rbg", "unsafe_rbg"):
        raise ValueError(
            f"keys of the {impl!r} generator give all runs the noise of the first one under vmap; "
            "use jax.random.key(seed, impl='threefry2x32')."
        )
