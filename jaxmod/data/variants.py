"""The data sets of Filan et al. 2020 by name: real, random, generated, and mixtures of two."""

import os

import numpy as np
from jaxtyping import Int32, UInt8

from jaxmod.data.grey import grey_28
from jaxmod.data.images import CLASSES, IMAGES, Images, generate, load_images
from jaxmod.data.lines import lines

__all__ = ["DATASETS", "load_dataset", "mixture", "random_images"]

_MIXTURES = {
    "lines-mnist": ("lines", "mnist"),
    "lines-cifar10": ("lines", "cifar10"),
    "mnist-cifar10": ("mnist", "cifar10"),
}

DATASETS = (*IMAGES, "random", "lines", *(f"{name}{end}" for name in _MIXTURES for end in ("", "-sep")))
"""What `load_dataset` can load."""

# With one seed, what is drawn for one purpose is independent of the rest; LINES has stream 0.
_RANDOM, _MIXTURE = 1, 2


def load_dataset(name: str, data_dir: str | os.PathLike[str] | None = None, seed: int = 42) -> Images:
    """Returns a data set of grey images with 10 classes, 28x28 (the digits: 8x8).

    Args:
      name: one of `DATASETS`. Those of `load_images`, CIFAR-10 by `grey_28`; "random"; "lines"; a
        mixture such as "lines-mnist", or "lines-mnist-sep" where the classes are separate.
      data_dir: as in `load_images`.
      seed: fixes what is generated and the order of mixtures. The rest does not depend on it.

    Raises:
      ValueError: there is no such data set, or what was found is not it.
      FileNotFoundError: it, or a part of it, is not on this computer.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {name!r}.")
    if name.removesuffix("-sep") in _MIXTURES:
        parts = _MIXTURES[name.removesuffix("-sep")]
        first, second = (load_dataset(part, data_dir, seed) for part in parts)
        return mixture(first, second, separate=name.endswith("-sep"), seed=seed)
    if name == "random":
        return random_images(seed=seed)
    if name == "lines":
        return lines(seed=seed)
    images = load_images(name, data_dir)
    if name != "cifar10":
        return images
    return images._replace(
        x_train=grey_28(images.x_train),
        x_test=grey_28(images.x_test),
        source=f"{images.source}, as 28x28 grey",
    )


def random_images(num_train: int = 60_000, num_test: int = 10_000, seed: int = 42) -> Images:
    """Returns images of 28x28 uniformly random pixels with uniformly random classes: nothing to learn.

    Args:
      num_train: number of training images.
      num_test: number of test images; it does not change those of the other split.
      seed: fixes the images.

    Raises:
      ValueError: a number is not positive.
    """
    return generate("random", _draw_random, (num_train, num_test), (seed, _RANDOM))


def mixture(first: Images, second: Images, separate: bool, seed: int = 42) -> Images:
    """Returns the images of two data sets in one random order, as one data set.

    Args:
      first: one data set.
      second: the other, with images of the same size.
      separate: False keeps all examples, so that every class has images of both (X-Y). True keeps
        classes 0 to 4 of the first and 5 to 9 of the second (X-Y-SEP).
      seed: fixes the order.

    Raises:
      ValueError: the images are not of one size.
    """
    if first.x_train.shape[1:] != second.x_train.shape[1:]:
        raise ValueError(
            "both data sets must have images of one size, got "
            f"{list(first.x_train.shape[1:])} ({first.source}) and "
            f"{list(second.x_train.shape[1:])} ({second.source})."
        )
    splits = []
    for i, split in enumerate(("train", "test")):
        x = np.concatenate([getattr(part, f"x_{split}") for part in (first, second)])
        y = np.concatenate([getattr(part, f"y_{split}") for part in (first, second)])
        rows = np.random.default_rng([seed, _MIXTURE, i]).permutation(len(y))
        if separate:
            of_first = np.arange(len(y)) < len(getattr(first, f"y_{split}"))
            rows = rows[(of_first == (y < CLASSES // 2))[rows]]
        splits += [x[rows], y[rows]]
    kind = "separate" if separate else "overlapping"
    return Images(
        *splits,
        source=f"{first.source} and {second.source}, {kind} classes, seed {seed}",
        path=" and ".join(part.path for part in (first, second) if part.path),
    )


def _draw_random(
    random: np.random.Generator, size: int
) -> tuple[UInt8[np.ndarray, "size 28 28"], Int32[np.ndarray, " size"]]:
    x = random.integers(256, size=(size, 28, 28), dtype=np.uint8)
    return x, random.integers(CLASSES, size=size, dtype=np.int32)
