"""A small study: pairs of images that tell their digit at a glance, and networks on them."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmod.data.digit_pairs import Pairs, pair_target
from jaxmod.joined.training import Training

TRAINING = Training(hidden=6, steps=3, epochs=2, batch_size=16, readouts=True)
LINKS = jnp.array([1, 9, 36])
KEYS = jax.random.split(jax.random.key(3), 3)


def easy_pairs(count: int, seed: int = 0) -> Pairs:
    """Images of 2 x 5 pixels, of which the one of the digit is white."""
    digit = np.random.default_rng(seed).integers(0, 10, (count, 2)).astype(np.int32)
    image = (255 * np.eye(10)[digit]).reshape(count, 2, 2, 5).astype(np.uint8)
    return Pairs(image, digit, pair_target(digit))
