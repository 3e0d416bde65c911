"""LINES: images of white vertical lines, whose class is the number of lines less one."""

import numpy as np
from jaxtyping import Int32, UInt8

from jaxmod.data.images import CLASSES, Images, generate

__all__ = ["lines"]

_SIZE = 28
_STREAM = 0  # beside those of `variants`


def lines(num_train: int = 60_000, num_test: int = 10_000, seed: int = 42) -> Images:
    """Returns black images of 28x28 with 1 to 10 white columns; the class is their number less one.

    The number of lines is drawn uniformly, then as many distinct columns (Filan et al. 2020,
    appendix A.5). Images of few lines occur in both splits: there are only 28 with one.

    Args:
      num_train: number of training images.
      num_test: number of test images; it does not change those of the other split.
      seed: fixes the images.

    Raises:
      ValueError: a number is not positive.
    """
    return generate("lines", _draw, (num_train, num_test), (seed, _STREAM))


def _draw(
    random: np.random.Generator, size: int
) -> tuple[UInt8[np.ndarray, "size 28 28"], Int32[np.ndarray, " size"]]:
    labels = random.integers(CLASSES, size=size, dtype=np.int32)
    # A random order of the columns: the first label + 1 of them are white.
    rank = random.permuted(np.tile(np.arange(_SIZE), (size, 1)), axis=1)
    columns = np.where(rank <= labels[:, None], 255, 0).astype(np.uint8)
    return np.repeat(columns[:, None, :], _SIZE, axis=1), labels
