"""CIFAR-10 in the format of MNIST: 28x28 pixels, grey."""

import numpy as np
from jaxtyping import UInt8

__all__ = ["grey_28"]

_LUMINANCE = (0.2125, 0.7154, 0.0721)
_CHUNK = 1000  # images in float64 at a time: 25 MB


def grey_28(x: UInt8[np.ndarray, "images height width channels"]) -> UInt8[np.ndarray, "images 28 28"]:
    """Returns colour images of 32x32 resized to 28x28 and turned to grey, as in Filan et al. 2020.

    Linear interpolation between the centres of the pixels, then the luminance
    `0.2125 R + 0.7154 G + 0.0721 B`, then the nearest whole number. It gives what scikit-image's
    `rgb2gray(resize(x, (28, 28), anti_aliasing=True))` gives, to the rounding: for so small a change
    of size the standard deviation of its smoothing, `(32 / 28 - 1) / 2` pixels, is below the width at
    which it has any effect. Both steps are linear, so here the luminance comes first.

    Raises:
      ValueError: the images are not 32x32 in three colours.
    """
    from scipy import ndimage

    if x.shape[1:] != (32, 32, 3):
        raise ValueError(f"x has shape {list(x.shape)}, expected [N, 32, 32, 3].")
    grey = np.empty((len(x), 28, 28), np.uint8)
    for start in range(0, len(x), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        small = ndimage.zoom(
            x[chunk] @ np.array(_LUMINANCE), (1, 28 / 32, 28 / 32), order=1, mode="mirror", grid_mode=True
        )
        grey[chunk] = np.rint(np.asarray(small))
    return grey
