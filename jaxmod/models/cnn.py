"""Simple convolutional network for small images."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxmod.models.convolution import Method, check_images, convolve
from jaxmod.models.fnn import linear

__all__ = ["SimpleCNN"]


class SimpleCNN(nn.Module):
    """Convolutions `conv_1`, `conv_2`, ..., the mean over all places, then a linear `output`.

    Convolutions are 3x3 with stride 1, padding 1 and a bias. Each is followed by ReLU, and by 2x2 max
    pooling unless it is the last. Dropout sits on the last two, before the ReLU: 0.25, then 0.5
    (Csordas et al. 2021, table 2).

    Attributes:
      channels: outputs of each convolution.
      outputs: units of the output layer.
      dropout: the paper's "no dropout" network is the same without.
      method: of the convolutions; None: what is fast on the backend.
    """

    outputs: int
    channels: Sequence[int] = (32, 64, 128, 256)
    dropout: bool = True
    method: Method | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], train: bool = False
    ) -> Float[Array, "batch outputs"]:
        """Returns the output layer's values. Units are dropped only if `train`, by the rng `dropout`.

        Raises:
          ValueError: `x` are no images, or too small to be halved after every convolution but the last.
        """
        check_images(x, "SimpleCNN", smallest=2 ** (len(self.channels) - 1))
        rates = {len(self.channels) - 1: 0.25, len(self.channels): 0.5}
        for i, size in enumerate(self.channels, start=1):
            x = _conv(size, x.shape[-1], f"conv_{i}", self.method)(x)
            if self.dropout and i in rates:
                x = nn.Dropout(rates[i], deterministic=not train)(x)
            x = nn.relu(x)
            if i < len(self.channels):
                x = _max_pool(x)
        return linear(self.outputs, x.shape[-1], "output")(jnp.mean(x, axis=(1, 2)))


def _conv(features: int, inputs: int, name: str, method: Method | None) -> nn.Conv:
    """Returns a 3x3 convolution with kernel and bias from U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = 1 / math.sqrt(9 * inputs)

    def init(key: Array, shape: Sequence[int], dtype: type = float) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return nn.Conv(
        features,
        (3, 3),
        padding=1,
        kernel_init=init,
        bias_init=init,
        conv_general_dilated=functools.partial(convolve, method=method),
        name=name,
    )


def _max_pool(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns channels"]:
    """Returns the largest of each 2x2 square; an odd last row or column is left out.

    A reshape, because the gradient of `nn.max_pool` adds a quarter to the network's step on a CPU.
    """
    batch, height, width, channels = x.shape
    rows, columns = height // 2, width // 2
    x = x[:, : 2 * rows, : 2 * columns]
    return x.reshape(batch, rows, 2, columns, 2, channels).max(axis=(2, 4))
