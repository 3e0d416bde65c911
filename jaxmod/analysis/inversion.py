"""Masks that ask what a module's complement, or half of it, still computes."""

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp

from jaxmod import masks, trees
from jaxmod.types import BinaryMask

__all__ = ["first_half", "half_masks", "inverse_masks"]


def inverse_masks(
    mask: BinaryMask,
    control: BinaryMask | None = None,
    io_layers: Sequence[str] = (),
    io: Literal["none", "fullmask", "ones"] = "none",
) -> BinaryMask:
    """Returns the complement of `mask`, with the input and output layers treated as `io` says.

    If two sub-functions are performed by separate weights, the complement of one module still
    performs the other (Csordas et al. 2021, figures 2 and 10).

    Args:
      mask: the module to leave out.
      control: the mask of the full task, for `io="fullmask"`.
      io_layers: paths of the layers that read the inputs and write the outputs.
      io: what these layers get: `"none"`, the complement as all others (the paper);
        `"fullmask"`, the control mask; `"ones"`, every weight. The last two ask whether a failing
        complement has only lost its wires.

    Raises:
      ValueError: `io` is not one of the three, or it lacks the layers or the control mask it needs;
        a path is not in `mask`; the control mask does not match.
    """
    if io not in ("none", "fullmask", "ones"):
        raise ValueError(f"io is {io!r}, expected 'none', 'fullmask' or 'ones'.")
    if io != "none" and not io_layers:
        raise ValueError(f"io={io!r} needs io_layers, the paths of the input and output layers; got none.")
    _check_paths(mask, io_layers, "io_layers")
    inverse = masks.invert(mask)
    if io == "none":
        return inverse
    if io == "ones":
        return _with_layers(inverse, control=None, layers=io_layers)
    if control is None:
        raise ValueError("io='fullmask' puts the control mask in the I/O layers; pass control=.")
    masks.union(mask, control)  # raises if the trees differ
    return _with_layers(inverse, control, io_layers)


def half_masks(control: BinaryMask, first_half: Sequence[str]) -> tuple[BinaryMask, BinaryMask]:
    """Returns `(early, late)`: the control mask in one half of the layers, all weights in the other.

    `early` masks the layers of `first_half`, `late` the rest. A mask that only removes unneeded
    weights leaves what one half passes to the other as it was, so that both still perform the task.

    Raises:
      ValueError: a path is not in the mask.
    """
    _check_paths(control, first_half, "first_half")
    paths = [path for path, _ in trees.paths_and_leaves(control)]
    early = _with_layers(control, None, [path for path in paths if path not in first_half])
    return early, _with_layers(control, None, first_half)


def first_half(layers: Sequence[str], *, round_up: bool) -> list[str]:
    """Returns the first half of `layers`; the middle one of an odd number belongs to it if `round_up`.

    Args:
      layers: paths in the order of computation (not of the tree, where `layer_10` is before
        `layer_2`).
      round_up: True for the add/mul FNN, False for the double-addition FNN, as in the authors' code.
    """
    return list(layers[: (len(layers) + round_up) // 2])


def _with_layers(mask: BinaryMask, control: BinaryMask | None, layers: Sequence[str]) -> BinaryMask:
    """Returns `mask` with the named leaves taken from `control`, all True if that is None."""
    source = dict(trees.paths_and_leaves(control))
    return trees.map_with_path(
        lambda path, m: source.get(path, jnp.ones(jnp.shape(m), bool)) if path in layers else m, mask
    )


def _check_paths(mask: BinaryMask, layers: Sequence[str], name: str) -> None:
    known = [path for path, _ in trees.paths_and_leaves(mask)]
    unknown = [path for path in layers if path not in known]
    if unknown:
        raise ValueError(f"{name}: {unknown} are not in the mask, which has {known}.")
