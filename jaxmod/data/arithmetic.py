"""Two-digit addition and multiplication modulo 100, and the addition of two independent pairs.

Numbers are stored as digits, the units first, and shown to a network one-hot. Every operand pair
of the validation and test splits also occurs in the training split: these tasks ask where a network
computes, not whether it generalises.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Num, UInt8

__all__ = [
    "OPERATIONS",
    "candidate_labels",
    "encode_addmul",
    "encode_double_addition",
    "load_addmul",
    "load_double_addition",
    "split_by_operation",
]

OPERATIONS = ("add", "mul")
"""By the numbers they have in "op"."""

_SEED = 0x12345678
_STREAMS = {"train": 0, "test": 1, "valid": 2}
_SIZES = {"train": 1_000_000, "test": 10_000, "valid": 10_000}


def load_addmul(split: str, size: int | None = None) -> dict[str, np.ndarray]:
    """Returns examples of `a + b` and `a * b` modulo 100, the same at every call.

    NumPy's `RandomState(0x12345678 + i)` draws all operands, then all operations, as in the code of
    Csordas et al. 2021.

    Args:
      split: "train", "valid" or "test".
      size: number of examples, by default 1,000,000 for training and 10,000 otherwise. Another
        size is another draw, not a part of the default one.

    Returns:
      "digits": uint8 [size, 4], the units and tens of `a`, then those of `b`.
      "op": uint8 [size], 0 for addition and 1 for multiplication.
      "labels": uint8 [size, 2], units and tens of the result.

    Raises:
      ValueError: there is no such split; the size is not positive.
    """
    random, size = _random_state(split, size)
    operands = random.randint(0, 100, (size, 2), dtype=np.int64)
    op = random.randint(0, 2, (size,), dtype=np.int64)
    digits = _digits(operands)
    labels = candidate_labels(digits)[np.arange(size), op]
    return {"digits": digits, "op": op.astype(np.uint8), "labels": labels}


def split_by_operation(data: Mapping[str, Any], whole: str) -> dict[str, np.ndarray]:
    """Returns the rows of each task: everything (named `whole`), additions, multiplications.

    >>> rows = split_by_operation({"op": np.array([1, 0, 1])}, whole="all")
    >>> {name: x.tolist() for name, x in rows.items()}
    {'all': [0, 1, 2], 'add': [1], 'mul': [0, 2]}
    """
    rows = {whole: np.arange(len(data["op"]))}
    return rows | {name: np.flatnonzero(data["op"] == op) for op, name in enumerate(OPERATIONS)}


def load_double_addition(split: str, size: int | None = None) -> dict[str, np.ndarray]:
    """Returns examples of two additions modulo 100 side by side, the same at every call.

    All operands of pair 1 are drawn first, then those of pair 2, from one generator.

    Args:
      split: "train", "valid" or "test".
      size: as in `load_addmul`.

    Returns:
      "digits": uint8 [size, 2, 4], for each pair the units and tens of `a`, then those of `b`.
      "labels": uint8 [size, 2, 2], for each pair units and tens of the sum.

    Raises:
      ValueError: there is no such split; the size is not positive.
    """
    random, size = _random_state(split, size)
    pairs = [random.randint(0, 100, (size, 1, 2), dtype=np.int64) for _ in range(2)]
    digits = _digits(np.concatenate(pairs, axis=1))
    return {"digits": digits, "labels": candidate_labels(digits)[..., 0, :]}


def encode_addmul(
    digits: Integer[Array, "batch 4"], op: Integer[Array, " batch"]
) -> Float[Array, "batch 42"]:
    """Returns the network's input: four digits one-hot over 10, then the operation one-hot over 2."""
    return jnp.concatenate([_one_hot_digits(digits), jax.nn.one_hot(op, 2, dtype=jnp.float32)], axis=-1)


def encode_double_addition(
    digits: Integer[Array, "batch 2 4"], shown: Num[Array, "batch 2"]
) -> Float[Array, "batch 80"]:
    """Returns the network's input: the digits of both pairs one-hot over 10.

    Args:
      digits: as loaded.
      shown: 1 where a pair is shown; the 40 inputs of a pair at 0 are all zero.
    """
    pairs = _one_hot_digits(digits) * shown[..., None].astype(jnp.float32)
    return pairs.reshape(*digits.shape[:-2], 80)


def candidate_labels(digits: UInt8[Any, "*batch 4"]) -> UInt8[Any, "*batch 2 2"]:
    """Returns the right answers of both operations, whichever was asked for.

    Works on NumPy and on JAX arrays and returns the same kind. [..., 0, :] are units and tens of
    the sum, [..., 1, :] those of the product.

    >>> import numpy as np
    >>> candidate_labels(np.array([7, 1, 9, 0], np.uint8)).tolist()  # 17 + 9, 17 * 9
    [[6, 2], [3, 5]]
    """
    xp = digits.__array_namespace__()
    numbers = digits.astype(xp.int32)  # 99 * 99 does not fit in a byte
    a = numbers[..., 0] + 10 * numbers[..., 1]
    b = numbers[..., 2] + 10 * numbers[..., 3]
    results = xp.stack([a + b, a * b], axis=-1)
    return xp.stack([results % 10, results // 10 % 10], axis=-1).astype(xp.uint8)


def _random_state(split: str, size: int | None) -> tuple[np.random.RandomState, int]:
    if split not in _STREAMS:
        raise ValueError(f"split must be one of 'train', 'valid', 'test', got {split!r}.")
    size = _SIZES[split] if size is None else size
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}.")
    return np.random.RandomState(_SEED + _STREAMS[split]), size


def _digits(operands: np.ndarray) -> np.ndarray:
    """[..., 2] numbers below 100 -> [..., 4] digits, the units of each first."""
    digits = np.stack([operands % 10, operands // 10], axis=-1)
    return digits.reshape(*operands.shape[:-1], 4).astype(np.uint8)


def _one_hot_digits(digits: Integer[Array, "*batch 4"]) -> Float[Array, "*batch 40"]:
    one_hot = jax.nn.one_hot(digits, 10, dtype=jnp.float32)
    return one_hot.reshape(*digits.shape[:-1], 40)
