"""Masks as a pytree beside the weights: joining, set algebra, density, random controls, files.

A mask mirrors the params, with `None` where a leaf is left alone. `apply_mask` is the only place
where weights and masks meet.
"""

import json
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from os import PathLike

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxmod import files, trees
from jaxmod.types import BinaryMask, Mask, Params

__all__ = [
    "apply_mask",
    "density",
    "difference",
    "empty_layers",
    "intersection",
    "invert",
    "load_masks",
    "random_mask_like",
    "save_masks",
    "union",
]


def apply_mask(params: Params, mask: Mask) -> Params:
    """Returns `w * b` leaf by leaf (Csordas et al. 2021, section 3), dtypes kept.

    Args:
      params: the frozen weights.
      mask: mirrors `params`; where it is `None` the weight is passed through. `None` as the whole
        mask leaves all weights as they are.

    Raises:
      ValueError: the mask does not mirror the params (the first difference is named).

    >>> import jax.numpy as jnp
    >>> module = apply_mask({"w": jnp.array([1.0, 2.0]), "b": jnp.ones(1)},
    ...                     {"w": jnp.array([True, False]), "b": None})
    >>> module["w"].tolist()
    [1.0, 0.0]
    """
    if mask is None:
        return params
    trees.check_mirrors(mask, params, "mask")
    return jax.tree.map(lambda w, m: w if m is None else w * m.astype(w.dtype), params, mask)


def invert(mask: BinaryMask) -> BinaryMask:
    """Returns the complement within the masked leaves: the weights that `mask` leaves out."""
    return jax.tree.map(jnp.logical_not, mask)


def _combine(op: Callable[..., Array], a: BinaryMask, b: BinaryMask) -> BinaryMask:
    none = {"is_leaf": lambda x: x is None}
    if (problem := trees.first_difference(a, b)) is not None or jax.tree.structure(
        a, **none
    ) != jax.tree.structure(b, **none):
        raise ValueError(f"the two masks do not match: {problem or 'their structures differ'}.")
    return jax.tree.map(op, a, b)


def union(a: BinaryMask, b: BinaryMask) -> BinaryMask:
    """Returns the weights in either mask. Raises ValueError if the trees differ."""
    return _combine(jnp.logical_or, a, b)


def intersection(a: BinaryMask, b: BinaryMask) -> BinaryMask:
    """Returns the weights in both masks. Raises ValueError if the trees differ."""
    return _combine(jnp.logical_and, a, b)


def difference(a: BinaryMask, b: BinaryMask) -> BinaryMask:
    """Returns the weights of `a` that are not in `b`. Raises ValueError if the trees differ."""
    return _combine(lambda x, y: x & ~y, a, b)


def density(mask: BinaryMask) -> Float[Array, ""]:
    """Returns the kept part of all masked weights, a number in [0, 1]."""
    kept = trees.tree_sum(lambda m: jnp.sum(m, dtype=jnp.float32), mask)
    return kept / max(sum(m.size for m in jax.tree.leaves(mask)), 1)


def empty_layers(mask: BinaryMask) -> list[str]:
    """Returns the paths of the leaves that keep no weight: nothing passes through such a layer."""
    return [path for path, m in trees.paths_and_leaves(mask) if not np.asarray(m).any()]


def random_mask_like(key: Key[Array, ""], binary: BinaryMask) -> BinaryMask:
    """Returns a mask that keeps as many weights of each leaf as `binary`, chosen at random.

    The size-matched control: what it performs or shares is what chance gives.
    """

    def shuffle(key: Key[Array, ""], mask: Array) -> Array:
        # Keep the k largest of n random numbers, k traced. 32-bit integers have ties, and a tie at
        # the threshold would keep one too many, so the order is that of a stable argsort.
        order = jnp.argsort(jax.random.bits(key, (mask.size,)))
        ranks = jnp.zeros(mask.size, jnp.int32).at[order].set(jnp.arange(mask.size, dtype=jnp.int32))
        return (ranks < jnp.sum(mask)).reshape(mask.shape)

    return jax.tree.map(shuffle, trees.split_keys(key, binary), binary)


def save_masks(path: str | PathLike[str], masks: Mask) -> None:
    """Writes binary masks, one or a dict of them, to an `.npz`: eight weights a byte.

    The file is replaced only when it is complete. Its manifest holds path and shape of each leaf.

    Raises:
      ValueError: a leaf is not bool; threshold it first.
    """
    arrays, manifest = {}, []
    for i, (leaf_path, leaf) in enumerate(trees.paths_and_leaves(masks)):
        leaf = np.asarray(leaf)
        if leaf.dtype != bool:
            raise ValueError(
                f"mask leaf {leaf_path!r} has dtype {leaf.dtype}, expected bool; save est.threshold(logits)."
            )
        arrays[f"bits_{i}"] = np.packbits(leaf.reshape(-1))
        manifest.append({"path": leaf_path, "shape": leaf.shape})
    header = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    files.write_atomically(path, partial(np.savez, manifest=header, **arrays))


def load_masks(path: str | PathLike[str], like: Params) -> BinaryMask:
    """Returns the masks of a file by `save_masks`.

    Args:
      path: the `.npz` file.
      like: the params that one mask mirrors (leaves without a mask become `None`). If the file
        holds a dict of masks, a dict with the same names is returned. Leading axes of the masks
        that params do not have (runs) are kept.

    Raises:
      ValueError: the file belongs to another tree (the first differing path is named), or holds
        no masks.
    """
    try:
        leaves = _read_leaves(path)
    except FileNotFoundError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, OSError, ValueError) as error:
        raise ValueError(f"{path} is no masks file by save_masks, or is damaged: {error}.") from error
    known = {p for p, _ in trees.paths_and_leaves(like)}
    # One mask or a dict of them: whichever reading fits more leaves, so that the path that an error
    # names is the one that differs.
    if sum(p in known for p in leaves) >= sum(p.partition("/")[2] in known for p in leaves):
        return _restore(leaves, like, f"{path}: mask leaf ")
    named: dict[str, dict[str, np.ndarray]] = {}
    for leaf, mask in leaves.items():
        name, _, inner = leaf.partition("/")
        named.setdefault(name, {})[inner] = mask
    return {name: _restore(m, like, f"{path}: mask {name!r}, leaf ") for name, m in named.items()}


def _read_leaves(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    leaves = {}
    with np.load(path, allow_pickle=False) as data:
        if "manifest" not in data:
            raise ValueError("it has no manifest")
        for i, entry in enumerate(json.loads(bytes(data["manifest"]))):
            shape = tuple(entry["shape"])
            bits = np.unpackbits(data[f"bits_{i}"], count=int(np.prod(shape)))
            leaves[entry["path"]] = bits.astype(bool).reshape(shape)
    return leaves


def _restore(leaves: dict[str, np.ndarray], like: Params, what: str) -> BinaryMask:
    known = dict(trees.paths_and_leaves(like))
    for path, mask in leaves.items():
        if path not in known:
            raise ValueError(f"{what}{path!r} is not in params; was it saved for another model?")
        shape = np.shape(known[path])
        if mask.shape[max(mask.ndim - len(shape), 0) :] != shape:
            raise ValueError(f"{what}{path!r} has shape {mask.shape}, params have {shape}.")
    return trees.map_with_path(lambda path, _: jnp.asarray(leaves[path]) if path in leaves else None, like)
