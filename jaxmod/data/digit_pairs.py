"""Pairs of digits: the parity of both says which of the two is the answer (Bena and Goodman)."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Key, UInt8

from jaxmod.data.images import CLASSES, Images

__all__ = [
    "DigitPairs",
    "Pairs",
    "TargetRule",
    "make_pairs",
    "pair_target",
    "redrawable",
    "sample_pairs",
    "scaled",
    "subtask",
]

TargetRule = Literal["equation", "prose"]
"""Which digit is the answer. The paper's numbered equation gives the second one for equal parities and the
first for different ones, its prose the other way round."""

# With one seed, what is drawn for one purpose is independent of the rest (`jaxmod.data.variants`).
_PAIRS = 3


class Pairs(NamedTuple):
    """Pairs of images; sub-network k sees image k."""

    image: UInt8[np.ndarray, "pairs 2 height width"]
    digit: Int32[np.ndarray, "pairs 2"]
    target: Int32[np.ndarray, " pairs"]


class DigitPairs(NamedTuple):
    """The pairs of both splits."""

    train: Pairs
    test: Pairs
    source: str
    """What the images are, how they were paired, and by which rule they have their targets."""


def pair_target(
    digit: Int32[np.ndarray, "pairs 2"], rule: TargetRule = "equation"
) -> Int32[np.ndarray, " pairs"]:
    """Returns `P D0 + (1 - P) D1` with `P = (D0 + D1) mod 2`; by the rule "prose" P and 1 - P change places.

    Raises:
      ValueError: there is no such rule.

    >>> pair_target(np.array([[2, 4], [2, 5]], np.int32)).tolist()
    [4, 2]
    """
    if rule not in get_args(TargetRule):
        raise ValueError(f"target_rule must be one of {', '.join(get_args(TargetRule))}, got {rule!r}.")
    differ = digit.sum(axis=1) % 2 == 1
    first = differ if rule == "equation" else ~differ
    return np.where(first, digit[:, 0], digit[:, 1])


def make_pairs(images: Images, seed: int = 42, target_rule: TargetRule = "equation") -> DigitPairs:
    """Returns each image with one other of its split, but for pairs whose digits may not meet.

    The second images are a random permutation of the first ones. Pairs with `(D1 - D0) mod 10` of 0 or 1
    are left out: the first have no parity to tell, and without the others both parities are as frequent.
    80 of the 100 pairs of classes remain, and about that part of the images.

    Args:
      images: grey ones of 10 classes, as `load_images` gives them.
      seed: fixes the permutations; each split has its own.
      target_rule: which digit is the answer: `pair_target`.

    Raises:
      ValueError: there is no such rule; the images are not grey; a split has no pair left.
    """
    splits = []
    for i, (split, x, y) in enumerate(
        (("train", images.x_train, images.y_train), ("test", images.x_test, images.y_test))
    ):
        if x.ndim != 3:
            raise ValueError(
                f"x_{split} has shape {list(x.shape)}, expected grey images [N, height, width] "
                f"({images.source}); colour images can be made grey by jaxmod.data.grey."
            )
        other = np.random.default_rng([seed, _PAIRS, i]).permutation(len(y))
        rows = np.stack([np.arange(len(y)), other], axis=1)
        digit = y[rows]
        kept = (digit[:, 1] - digit[:, 0]) % CLASSES > 1
        if not kept.any():
            raise ValueError(
                f"No pair of the {len(y)} images of the {split} split remains ({images.source}): the digits "
                "of all of them are equal or follow each other. Take more images."
            )
        rows, digit = rows[kept], digit[kept]
        splits.append(Pairs(x[rows], digit, pair_target(digit, target_rule)))
    return DigitPairs(*splits, source=f"pairs of {images.source}, seed {seed}, target rule {target_rule}")


def redrawable(pairs: Pairs) -> dict[str, np.ndarray]:
    """Returns the pairs as `sample_pairs` wants them: with the order of the second images by their digit."""
    order = np.argsort(pairs.digit[:, 1], kind="stable").astype(np.int32)
    return {"image": pairs.image, "digit": pairs.digit, "order": order}


def sample_pairs(
    key: Key[Array, ""], batch_size: int, data: Mapping[str, Array], rule: TargetRule = "equation"
) -> dict[str, Array]:
    """Returns `image` and `label` of pairs that are put together anew: no two need ever be the same.

    The first image is that of any pair, the second one that of any pair whose digit may meet the first digit;
    all of them alike.

    Args:
      key: typed.
      batch_size: pairs.
      data: from `redrawable`.
      rule: which digit is the answer: `pair_target`.
    """
    first_key, second_key = jax.random.split(key)
    image, digit, order = data["image"], data["digit"], data["order"]
    size = len(order)
    first = jax.random.randint(first_key, (batch_size,), 0, size)
    own = digit[first, 0]
    # By their digit, the second images stand in a circle of ten arcs, of which all but two may be met.
    starts = jnp.searchsorted(digit[order, 1], jnp.arange(CLASSES + 1))
    lengths = jnp.diff(starts)
    met = size - lengths[own] - lengths[(own + 1) % CLASSES]
    place = starts[(own + 2) % CLASSES] + jax.random.randint(second_key, (batch_size,), 0, met)
    second = order[place % size]
    other = digit[second, 1]
    first_answers = (((own + other) % 2) == 1) == (rule == "equation")
    return {
        "image": jnp.stack([image[first, 0], image[second, 1]], axis=1),
        "label": jnp.where(first_answers, own, other),
    }


def subtask(pairs: Pairs, k: Literal[0, 1]) -> Pairs:
    """Returns the pairs with digit `k` as their target, whatever the other one is."""
    return pairs._replace(target=pairs.digit[:, k])


def scaled(
    image: UInt8[Array, "*batch height width"] | UInt8[np.ndarray, "*batch height width"],
) -> Float[Array, "*batch pixels"]:
    """Returns the pixels in a row, in [0, 1].

    The paper does not say how it scales them, and later code has them standardised (to mean 0 and variance
    1 on MNIST). Units are then saturated from the start, and networks with a single link had not learned to
    communicate after the paper's five epochs.

    It is meant for the loss: bytes are a quarter of what floats take on the device.
    """
    pixels = jnp.asarray(image).reshape(*image.shape[:-2], image.shape[-2] * image.shape[-1])
    return pixels.astype(jnp.float32) / 255
