"""Real images as arrays: scikit-learn's digits, MNIST, Fashion-MNIST, CIFAR-10.

What is loaded is what was published: never another data set in its place, and never silently a copy
that differs. `sources` says where the files are looked for.
"""

import hashlib
import os
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Shaped, UInt8

from jaxmod.data import sources

__all__ = ["CLASSES", "IMAGES", "Images", "generate", "load_images"]

IMAGES = ("digits", "mnist", "fashion_mnist", "cifar10")
"""What `load_images` can load."""

CLASSES = 10
"""Every data set here has ten."""

_SHAPES = {"mnist": (28, 28), "fashion_mnist": (28, 28), "cifar10": (32, 32, 3)}

# Of the arrays as the IDX files that were published (uncompressed), and, for sources that shuffle, of
# the sorted examples of a split, each its label and its pixels.
_MD5 = {
    "mnist": {
        "x_train": "6bbc9ace898e44ae57da46a324031adb",
        "y_train": "a25bea736e30d166cdddb491f175f624",
        "x_test": "2646ac647ad5339dbf082846283269ea",
        "y_test": "27ae3e4e09519cfbb04c329615203637",
        "train": "439d484d9320dab7955fa784668fa949",
        "test": "3084f28755a020d08f89e8d0274454e7",
    },
    "fashion_mnist": {
        "x_train": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "y_train": "9018921c3c673c538a1fc5bad174d6f9",
        "x_test": "8181f5470baa50b63fa0f6fddb340f0a",
        "y_test": "15d484375f8d13e6eb1aabb0c3f46965",
        "train": "b59a46de0440aebbe05903d3d9d5e724",
        "test": "6fa28f6f9ea2bae01fc4278a8c7fcd39",
    },
}

# Sums of red, green and blue over the 50,000 training images: the means that many publish,
# 125.306918046875, 122.950394140625 and 113.86538318359375, times their 51,200,000 pixels.
_CIFAR10_SUMS = (6_415_714_204, 6_295_060_180, 5_829_907_619)


class Images(NamedTuple):
    """Images with their classes, on the host."""

    x_train: UInt8[np.ndarray, "train height width *channels"]
    y_train: Int32[np.ndarray, " train"]
    x_test: UInt8[np.ndarray, "test height width *channels"]
    y_test: Int32[np.ndarray, " test"]
    source: str
    """What they are, and whether they differ from the original: for reports. It names no place."""
    path: str = ""
    """The file or folder that they came from; empty if they were not loaded."""


def generate(
    name: str,
    draw: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]],
    sizes: tuple[int, int],
    seed: tuple[int, int],
) -> Images:
    """Returns a data set that is drawn, not loaded; each split has random numbers of its own.

    Args:
      name: of the data set.
      draw: `draw(random, size) -> (images, labels)`.
      sizes: of the training and the test split.
      seed: what the user gives, and a number that tells this data set from others.

    Raises:
      ValueError: a size is not positive.
    """
    if min(sizes) < 1:
        raise ValueError(f"num_train and num_test must be at least 1, got {sizes[0]} and {sizes[1]}.")
    train, test = (draw(np.random.default_rng([*seed, split]), size) for split, size in enumerate(sizes))
    return Images(*train, *test, source=f"{name}, generated with seed {seed[0]}")


def load_images(name: str, data_dir: str | os.PathLike[str] | None = None) -> Images:
    """Returns the training and test images of a data set, as published.

    Args:
      name: "digits" (comes with scikit-learn; 1,497 and 300 images of 8x8), "mnist" or
        "fashion_mnist" (60,000 and 10,000 of 28x28), "cifar10" (50,000 and 10,000 of 32x32x3).
      data_dir: the folder with `NAME.npz`; where else is looked is told at `sources.find`.

    Returns:
      Images. MNIST and Fashion-MNIST are checked by md5. Copies of CIFAR-10 that are not the
      original (JPEG, for instance) are loaded, and `source` says so. TensorFlow Datasets stores
      the examples of each split in another order than the other sources.

    Raises:
      FileNotFoundError: the data set is not on this computer; the commands that bring it are named.
      ValueError: there is no data set of this name, or what was found is not it.
    """
    if name not in IMAGES:
        raise ValueError(f"name must be one of {', '.join(IMAGES)}, got {name!r}.")
    if name == "digits":
        return _digits()
    stored = sources.find(name, data_dir)
    where, source = f"{name} from {stored.path}", name
    arrays = dict(stored.arrays)
    for split in ("train", "test"):
        x, y = f"x_{split}", f"y_{split}"
        arrays[x] = _checked_images(arrays[x], _SHAPES[name], f"{where}: {x}")
        arrays[y] = _checked_labels(arrays[y], len(arrays[x]), f"{where}: {y}")
    if name in _MD5:
        _check_md5(arrays, _MD5[name], stored.in_order, where)
    elif tuple(arrays["x_train"].sum((0, 1, 2), dtype=np.int64).tolist()) != _CIFAR10_SUMS:
        source += " (not the original images: the sums of their channels differ)"
    return Images(**arrays, source=source, path=stored.path)


def _digits() -> Images:
    """A sixth of every class is for testing, drawn once and for all."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = np.rint(x.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # the pixels count to 16
    order = np.random.default_rng(42).permutation(len(y))
    by_class = order[np.argsort(y[order], kind="stable")]
    is_test = np.isin(order, by_class[::6])
    train, test = order[~is_test], order[is_test]
    y = y.astype(np.int32)
    return Images(x[train], y[train], x[test], y[test], "digits of scikit-learn")


def _checked_images(
    x: Shaped[np.ndarray, "..."], shape: tuple[int, ...], what: str
) -> UInt8[np.ndarray, "images height width *channels"]:
    if x.shape[1:] == (*shape, 1):
        x = x[..., 0]
    if x.dtype != np.uint8 or x.shape[1:] != shape or not len(x):
        sizes = ", ".join(str(size) for size in shape)
        raise ValueError(f"{what} is {x.dtype} {list(x.shape)}, expected uint8 [N, {sizes}] from 0 to 255.")
    return x


def _checked_labels(y: Shaped[np.ndarray, "..."], images: int, what: str) -> Int32[np.ndarray, " images"]:
    if y.shape == (images, 1):  # so Keras returns those of CIFAR-10
        y = y[:, 0]
    if not np.issubdtype(y.dtype, np.integer) or y.shape != (images,):
        raise ValueError(
            f"{what} is {y.dtype} {list(y.shape)}, expected a whole number for each of the {images} images."
        )
    if y.min() < 0 or y.max() >= CLASSES:
        raise ValueError(f"{what} goes from {y.min()} to {y.max()}, expected 0 to {CLASSES - 1}.")
    absent = sorted(set(range(CLASSES)) - set(y.tolist()))
    if absent:
        raise ValueError(f"{what} has no example of class {', '.join(map(str, absent))}.")
    return y.astype(np.int32)


def _check_md5(arrays: dict[str, np.ndarray], expected: dict[str, str], in_order: bool, where: str) -> None:
    if in_order:
        got = {name: _idx_md5(array) for name, array in arrays.items()}
    else:
        got = {
            split: _unordered_md5(arrays[f"x_{split}"], arrays[f"y_{split}"]) for split in ("train", "test")
        }
    for name, md5 in got.items():
        if md5 != expected[name]:
            raise ValueError(
                f"{where}: {name} is not that of the original: md5 {md5}, expected {expected[name]} "
                f"({'of the uncompressed IDX file' if in_order else 'of the sorted examples'}). "
                "Remove it and bring the data set anew."
            )


def _idx_md5(array: Shaped[np.ndarray, "..."]) -> str:
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    return hashlib.md5(header + array.astype(np.uint8).tobytes()).hexdigest()


def _unordered_md5(x: UInt8[np.ndarray, "images height width"], y: Int32[np.ndarray, " images"]) -> str:
    examples = np.column_stack([y.astype(np.uint8), x.reshape(len(x), -1)])
    return hashlib.md5(b"".join(sorted(example.tobytes() for example in examples))).hexdigest()
