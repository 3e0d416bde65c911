"""The masks that say what a trained mask means: its complements, a random mask, half of the control."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import jax
from jaxtyping import Array, Key

from jaxmod import masks as mask_ops
from jaxmod import trees
from jaxmod.analysis.inversion import half_masks, inverse_masks
from jaxmod.types import BinaryMask

__all__ = ["HALVES", "IO_VARIANTS", "with_variants"]

IO_VARIANTS: Final[dict[str, Literal["fullmask", "ones"]]] = {"control I/O": "fullmask", "full I/O": "ones"}
"""What the input and output layers of a complement get, as rows and `inverse_masks` call it."""

HALVES = ("early masked", "late masked")
"""The rows of `half_masks`."""


def with_variants(
    masks: Mapping[str, BinaryMask | None],
    keys: Key[Array, "*runs"] | None = None,
    control: str | None = None,
    io_layers: Sequence[str] = (),
    first_half: Sequence[str] = (),
) -> dict[str, BinaryMask | None]:
    """Returns the masks by name, and the variants of them that the other arguments ask for.

    Args:
      masks: name -> binary mask, `None` for the network as it is; all with a leading runs axis, or none.
      keys: adds `unmasked` and, for every mask, its complement `not NAME` and `random NAME`, a random
        mask of the same size in every layer. One key, or one per run.
      control: the name of the mask of the whole task.
      io_layers: adds `not NAME, control I/O` and `not NAME, full I/O` for the other masks over the same
        leaves as the control: complements with the control mask, or every weight, in these layers.
      first_half: adds `early masked` and `late masked`: the control mask in these layers alone, or in
        the others.

    Raises:
      ValueError: the control is unknown, or missing where I/O layers or a half are given; a path is not
        in the masks; a mask has the name of a variant.
    """
    named = {name: mask for name, mask in masks.items() if mask is not None}
    variants = {}
    if keys is not None:
        # The same key for all masks: a random mask depends neither on the others nor on their order.
        draw = mask_ops.random_mask_like if keys.ndim == 0 else jax.vmap(mask_ops.random_mask_like)
        variants |= {f"not {name}": mask_ops.invert(mask) for name, mask in named.items()}
        variants |= {f"random {name}": draw(keys, mask) for name, mask in named.items()}
    if control is not None:
        if control not in named:
            raise ValueError(f"control={control!r} is not among the masks {list(named)}.")
        variants |= _variants_with_control(named, control, io_layers, first_half)
    elif io_layers or first_half:
        raise ValueError("io_layers and first_half need control=, the name of the mask of the whole task.")
    if taken := sorted(masks.keys() & variants.keys()):
        raise ValueError(f"masks {taken} have names that variants of other masks get; rename them.")
    return ({} if keys is None else {"unmasked": None}) | dict(masks) | variants


def _variants_with_control(
    masks: Mapping[str, BinaryMask], control: str, io_layers: Sequence[str], first_half: Sequence[str]
) -> dict[str, BinaryMask]:
    variants = {}
    if io_layers:
        variants |= {
            f"not {name}, {title}": inverse_masks(masks[name], masks[control], io_layers, io)
            for name in same_leaves(masks, control)
            for title, io in IO_VARIANTS.items()
        }
    if first_half:
        variants |= zip(HALVES, half_masks(masks[control], first_half), strict=True)
    return variants


def same_leaves(masks: Mapping[str, BinaryMask | None], name: str) -> list[str]:
    """Returns the names of the other masks over the same leaves as the named one, if that is a mask."""
    like = masks[name]
    if like is None:
        return []
    others = {other: mask for other, mask in masks.items() if other != name and mask is not None}
    return [other for other, mask in others.items() if trees.first_difference(mask, like) is None]
