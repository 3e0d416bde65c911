"""Feed-forward network: linear layers with ReLU between them."""

import math
from collections.abc import Sequence

import jax
from flax import linen as nn
from jaxtyping import Array, Float

__all__ = ["SIZES", "FNN", "linear"]

SIZES = {"mini": (100, 100, 50), "tiny": (200, 200, 100), "small": (400, 400, 200)}
SIZES |= {"medium": (800,) * 4, "big": (2000,) * 4, "huge": (4000,) * 4}
"""Hidden layers by name, in rising order: the paper's networks from small on, and two that are smaller."""


def linear(features: int, fan_in: int, name: str) -> nn.Dense:
    """Returns a dense layer with kernel and bias from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    PyTorch's default, which the experiments of Csordas et al. 2021 start from. Linen tells an
    initialiser of biases nothing about the inputs, hence `fan_in` as an argument.
    """
    bound = 1 / math.sqrt(fan_in)

    def init(key: Array, shape: Sequence[int], dtype: type = float) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return nn.Dense(features, kernel_init=init, bias_init=init, name=name)


class FNN(nn.Module):
    """Layers `layer_1`, `layer_2`, ... of sizes `hidden`, then a linear `output`.

    Attributes:
      hidden: units of each hidden layer; the paper's are in `SIZES`.
      outputs: units of the output layer.
    """

    hidden: Sequence[int]
    outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch outputs"]:
        """Returns the output layer's values, without a nonlinearity."""
        for i, size in enumerate(self.hidden, start=1):
            x = nn.relu(linear(size, x.shape[-1], f"layer_{i}")(x))
        return linear(self.outputs, x.shape[-1], "output")(x)
