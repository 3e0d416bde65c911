"""Residual networks for 32x32 images (He et al. 2016, section 4.2)."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxmod.models.convolution import Method, check_images, convolve
from jaxmod.models.fnn import linear

__all__ = ["ResNet", "ResNet110"]


class ResNet(nn.Module):
    """A 3x3 convolution `stem`, three groups of residual blocks, the mean over all places, `output`.

    The blocks of a group that are alike run as one `nn.scan`, so that a program of 110 layers compiles as
    fast as one of ten. Their weights are stacked: `group_2/conv_1/kernel` is [blocks, 3, 3, in, out], and
    a mask of it has a bit for every weight of every block. The first block of a later group halves the
    image, has more channels and a 1x1 convolution as its shortcut: `group_2_start`, `group_3_start`.

    Convolutions have no bias. BatchNorm has eps 1e-5, and its running statistics (collection
    `batch_stats`) move by a tenth at each step.

    Attributes:
      blocks: blocks in each group; the network has 6 * blocks + 2 layers.
      outputs: units of the output layer.
      channels: of each group.
      method: of the convolutions; None: what is fast on the backend.
    """

    blocks: int
    outputs: int
    channels: Sequence[int] = (16, 32, 64)
    method: Method | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], train: bool = False
    ) -> Float[Array, "batch outputs"]:
        """Returns the output layer's values.

        With `train` BatchNorm uses the statistics of the batch and updates the running ones (apply with
        `mutable=["batch_stats"]`); without, it uses the running ones and leaves them as they are.

        Raises:
          ValueError: `x` are no images.
        """
        check_images(x, "ResNet")
        x = _conv(self.channels[0], "stem", self.method)(x)
        x = nn.relu(_norm("stem_norm", train)(x))
        for group, size in enumerate(self.channels, start=1):
            alike = self.blocks
            if group > 1:
                alike -= 1
                x, _ = _Block(size, 2, train, self.method, name=f"group_{group}_start")(x, None)
            if alike:
                x, _ = _scanned(alike)(size, 1, train, self.method, name=f"group_{group}")(x, None)
        return linear(self.outputs, x.shape[-1], "output")(jnp.mean(x, axis=(1, 2)))


ResNet110 = functools.partial(ResNet, 18)
"""`ResNet110(outputs=10)`: 1,730,714 weights."""


class _Block(nn.Module):
    """`relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))`, in the form that `nn.scan` wants."""

    features: int
    stride: int
    train: bool
    method: Method | None

    @nn.compact
    def __call__(self, x: Array, _: None) -> tuple[Array, None]:
        y = _conv(self.features, "conv_1", self.method, stride=self.stride)(x)
        y = nn.relu(_norm("norm_1", self.train)(y))
        y = _conv(self.features, "conv_2", self.method)(y)
        y = _norm("norm_2", self.train)(y)
        if self.stride > 1:
            x = _conv(self.features, "shortcut", self.method, window=1, stride=self.stride)(x)
            x = _norm("shortcut_norm", self.train)(x)
        return nn.relu(x + y), None


def _scanned(blocks: int) -> Any:
    return nn.scan(
        _Block,
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True},
        length=blocks,
    )


def _conv(features: int, name: str, method: Method | None, window: int = 3, stride: int = 1) -> nn.Conv:
    """Returns a convolution without bias whose kernel is normal with std sqrt(2 / (window^2 * out))."""
    std = math.sqrt(2 / (window**2 * features))

    def init(key: Array, shape: Sequence[int], dtype: type = float) -> Array:
        return std * jax.random.normal(key, shape, dtype)

    return nn.Conv(
        features,
        (window, window),
        strides=stride,
        padding=window // 2,
        use_bias=False,
        kernel_init=init,
        conv_general_dilated=functools.partial(convolve, method=method),
        name=name,
    )


def _norm(name: str, train: bool) -> nn.BatchNorm:
    # PyTorch's momentum of 0.1 is what the new statistics weigh; Flax gives the weight of the old ones.
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name=name)
