"""How far two modules consist of the same weights, per layer and in total."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmod import masks, trees
from jaxmod.types import BinaryMask

__all__ = ["Sharing", "densities", "remaining", "sharing", "weights_kept", "weights_ratio"]


class Sharing(NamedTuple):
    """The overlap of a target mask with a reference mask, each number in [0, 1]."""

    shared: Float[Array, ""]
    """`|t & r| / |t|`: the part of the target that the reference has too. Not symmetric."""
    iou: Float[Array, ""]
    """`|t & r| / |t | r|`."""
    io_min: Float[Array, ""]
    """`|t & r| / min(|t|, |r|)`."""


def weights_kept(mask: BinaryMask) -> dict[str, Int[Array, ""]]:
    """Returns `{path: number of weights the leaf keeps, ..., "total": their sum}`.

    Integers, because float32 cannot count beyond 2**24.

    Raises:
      ValueError: a leaf's path is `"total"`, or two leaves have one path.

    >>> {path: int(n) for path, n in weights_kept({"w": jnp.array([True, False, True])}).items()}
    {'w': 2, 'total': 2}
    """
    leaves = trees.paths_and_leaves(mask)
    counts = {path: jnp.sum(m, dtype=jnp.int32) for path, m in leaves}
    if "total" in counts:
        raise ValueError("a mask leaf has the path 'total', which names the sum over leaves; rename it.")
    if len(counts) < len(leaves):
        raise ValueError(f"two mask leaves have the same path, among {[path for path, _ in leaves]}.")
    return counts | {"total": sum(counts.values(), start=jnp.zeros((), jnp.int32))}


def densities(mask: BinaryMask) -> dict[str, Float[Array, ""]]:
    """Returns `{path: kept part of the leaf, ..., "total": that of all masked weights}`.

    Raises:
      ValueError: as `weights_kept`.

    >>> {path: float(x) for path, x in densities({"w": jnp.array([True, False])}).items()}
    {'w': 0.5, 'total': 0.5}
    """
    kept = weights_kept(mask)
    sizes = {path: m.size for path, m in trees.paths_and_leaves(mask)}
    sizes["total"] = sum(sizes.values())
    return {path: n.astype(jnp.float32) / max(sizes[path], 1) for path, n in kept.items()}


def sharing(target: BinaryMask, reference: BinaryMask) -> dict[str, Sharing]:
    """Returns `{path: Sharing, ..., "total": Sharing}` (Csordas et al. 2021, figures 1, 9 and 13).

    The total counts over all masked leaves before it divides. An empty mask gives 0.

    Raises:
      ValueError: the masks differ in structure or shapes; a leaf's path is `"total"`.

    >>> t, r = {"w": jnp.array([True, True, False])}, {"w": jnp.array([True, False, True])}
    >>> float(sharing(t, r)["total"].shared)
    0.5
    """
    both = weights_kept(masks.intersection(target, reference))
    kept_t, kept_r = weights_kept(target), weights_kept(reference)

    def statistics(path: str) -> Sharing:
        n, t, r = both[path], kept_t[path], kept_r[path]
        return Sharing(_part(n, t), _part(n, t + r - n), _part(n, jnp.minimum(t, r)))

    return {path: statistics(path) for path in both}


def remaining(mask: BinaryMask, control: BinaryMask) -> dict[str, Float[Array, ""]]:
    """Returns `{path: |m & c| / |c|, ..., "total"}`: the part of the control mask that `mask` keeps.

    Raises:
      ValueError: as `sharing`.
    """
    return {path: overlap.shared for path, overlap in sharing(control, mask).items()}


def weights_ratio(first: BinaryMask, second: BinaryMask) -> Float[Array, ""]:
    """Returns `|second| / |first|`, all leaves together; 0 if `first` is empty.

    With the add and the mul mask it is 3.8 in Csordas et al. 2021, figure 11.
    """
    n, total = weights_kept(second)["total"], weights_kept(first)["total"]
    return jnp.where(total > 0, _part(n, total), 0.0)


def _part(count: Int[Array, ""], whole: Int[Array, ""]) -> Float[Array, ""]:
    return count.astype(jnp.float32) / jnp.maximum(whole, 1).astype(jnp.float32)
