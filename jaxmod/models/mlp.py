"""The multi-layer perceptron of Filan et al. 2020: Keras' initialisation, dropout after hidden layers."""

from collections.abc import Sequence

from flax import linen as nn
from jaxtyping import Array, Float

from jaxmod.models.dropout import dropout

__all__ = ["MLP"]


class MLP(nn.Module):
    """Layers `layer_1`, `layer_2`, ... of sizes `hidden` with ReLU, then a linear `output`.

    Kernels start Glorot-uniform, biases at zero.

    Attributes:
      hidden: units of each hidden layer.
      outputs: units of the output layer.
      dropout: while training, of the values of every hidden layer; the paper has 0, 0.5 and 0.2. Inputs are
        not dropped: the paper's words may be read so, its code does not.
    """

    hidden: Sequence[int] = (256,) * 4
    outputs: int = 10
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch features"], *, train: bool = False
    ) -> Float[Array, "*batch outputs"]:
        """Returns the output layer's values. Values are dropped only if `train`, by the rng `dropout`.

        Raises:
          ValueError: a rate of dropout outside [0, 1).
        """
        if not 0 <= self.dropout < 1:
            raise ValueError(f"MLP: dropout must be at least 0 and below 1, got {self.dropout}.")
        for i, size in enumerate(self.hidden, start=1):
            x = nn.relu(_dense(size, f"layer_{i}")(x))
            x = dropout(self, x, self.dropout, train)
        return _dense(self.outputs, "output")(x)


def _dense(features: int, name: str) -> nn.Dense:
    return nn.Dense(features, kernel_init=nn.initializers.glorot_uniform(), name=name)
