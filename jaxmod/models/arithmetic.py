"""A network that adds and multiplies (Csordas et al. 2021, 4.1), with its loss and its score."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxmod.data.arithmetic import encode_addmul
from jaxmod.losses import all_digits_right, digit_cross_entropy
from jaxmod.models.fnn import FNN
from jaxmod.models.lstm import LSTMClassifier
from jaxmod.types import Batch, Params

__all__ = ["Network", "addmul_network"]

_LSTM_STEPS = 3


class Network(NamedTuple):
    """A network as `train_network`, `find_modules` and `evaluate` take it."""

    init: Callable[[Array], Params]
    """`init(key) -> params`."""
    predict: Callable[[Params, Batch], Array]
    """`predict(params, batch) -> outputs [batch, digits, 10]`, units first."""
    loss_fn: Callable[[Params, Batch, Array], Array]
    """`loss_fn(params, batch, key) -> scalar`: the mean cross-entropy of the digits; the key is not used."""
    evaluate: Callable[[Params, Batch], dict[str, Array]]
    """`evaluate(params, batch) -> {"accuracy": [batch]}`: whether all digits of an example are right."""


def addmul_network(model: FNN | LSTMClassifier) -> Network:
    """Returns the network whose examples are those of `load_addmul`.

    Args:
      model: has 20 outputs, ten for each digit. An LSTM sees the same input at three steps and answers at
        the last.
    """
    in_time = isinstance(model, LSTMClassifier)

    def see(batch):
        x = encode_addmul(batch["digits"], batch["op"])
        return jnp.repeat(x[:, None], _LSTM_STEPS, axis=1) if in_time else x

    def init(key):
        return model.init(key, see({"digits": jnp.zeros((1, 4), int), "op": jnp.zeros(1, int)}))["params"]

    def predict(params, batch):
        x = see(batch).astype(jax.tree.leaves(params)[0].dtype)
        outputs: Any = model.apply({"params": params}, x)
        last = outputs[:, -1] if in_time else outputs
        return last.reshape(-1, 2, 10)

    def loss_fn(params, batch, key):
        del key
        return jnp.mean(digit_cross_entropy(predict(params, batch), batch["labels"]))

    def evaluate(params, batch):
        return {"accuracy": all_digits_right(predict(params, batch), batch["labels"])}

    return Network(init, predict, loss_fn, evaluate)
