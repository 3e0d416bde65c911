"""Two recurrent sub-networks with a few links in between; the more certain one answers (Bena and Goodman)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key

from jaxmod import noise, topk
from jaxmod.types import Params

__all__ = ["LINKS", "SubNetworks", "decide", "place_links", "swap"]

LINKS = r"links/to_[01]/kernel"
"""The paths of the links, for `trees.select`."""

_RANGE = 0.1


class SubNetworks(nn.Module):
    """Sub-networks `net_0` and `net_1`, each with an image of its own, and the links between them.

    For sub-network n and the other one m, with `h_0 = 0` and the same image at all steps:

        h_t^n = tanh(W_ih^n x^n + b_ih^n + W_hh^n h_{t-1}^n + b_hh^n + W^{m->n} h_{t-1}^m)
        r^n   = W_hr^n h_T^n + b_hr^n

    The params of `net_n` are `input` (W_ih, b_ih), `recurrent` (W_hh, b_hh) and `readout` (W_hr, b_hr), all
    uniform in (-0.1, 0.1). `links/to_n/kernel` [from, to] has the links that lead to sub-network n; zeros
    are links that do not exist, and all are zero until `place_links`. In the first step no message arrives.

    Attributes:
      hidden: units of each sub-network.
      classes: of the answer.
      steps: of the recurrence, T.
      bottleneck: if not None, that many linear units `bottleneck` between the state and the readout.
      before_recurrence: add messages to the state before W_hh, as the authors' code does, and not after it as
        in the equation. A single link then reaches all units at once.
    """

    hidden: int = 100
    classes: int = 10
    steps: int = 5
    bottleneck: int | None = None
    before_recurrence: bool = False

    def setup(self) -> None:
        if self.steps < 1:
            raise ValueError(f"SubNetworks: steps must be at least 1, got {self.steps}.")
        self.net_0, self.net_1 = (_SubNetwork(self.hidden, self.classes, self.bottleneck) for _ in range(2))
        self.links = _Links(self.hidden)

    def __call__(self, x: Float[Array, "batch 2 features"]) -> Float[Array, "batch 2 classes"]:
        """Returns the readouts of both sub-networks; `decide` makes an answer of them."""
        return self.readouts(self.features(self.states(x)))

    def states(self, x: Float[Array, "batch 2 features"]) -> Float[Array, "batch 2 hidden"]:
        """Returns the states after the last step, `h_T`."""
        nets = (self.net_0, self.net_1)
        drive = [net.input(x[:, n]) for n, net in enumerate(nets)]
        h = [jnp.zeros_like(d[:1]) for d in drive]  # one row: the first step needs no products of the others
        for _ in range(self.steps):
            received = self.links(h)
            if self.before_recurrence:
                h = [jnp.tanh(drive[n] + net.recurrent(h[n] + received[n])) for n, net in enumerate(nets)]
            else:
                h = [jnp.tanh(drive[n] + net.recurrent(h[n]) + received[n]) for n, net in enumerate(nets)]
        return jnp.stack(h, axis=1)

    def features(self, states: Float[Array, "batch 2 hidden"]) -> Float[Array, "batch 2 features"]:
        """Returns what the readouts read: the bottlenecks' units, or the states if there are none."""
        if self.bottleneck is None:
            return states
        return jnp.stack(
            [net.bottleneck(states[:, n]) for n, net in enumerate((self.net_0, self.net_1))], axis=1
        )

    def readouts(self, features: Float[Array, "batch 2 features"]) -> Float[Array, "batch 2 classes"]:
        """Returns the readouts of these features."""
        return jnp.stack(
            [net.readout(features[:, n]) for n, net in enumerate((self.net_0, self.net_1))], axis=1
        )


def decide(
    readouts: Float[Array, "*batch 2 classes"],
) -> tuple[Float[Array, "*batch classes"], Int[Array, "*batch"]]:
    """Returns the readout that holds the largest value, and whose it is; of equal ones that of `net_0`."""
    decider = jnp.argmax(jnp.max(readouts, axis=-1), axis=-1)
    first = jnp.expand_dims(decider == 0, -1)
    return jnp.where(first, readouts[..., 0, :], readouts[..., 1, :]), decider


def place_links(key: Key[Array, ""], params: Params, count: Int[Array, ""] | int) -> Params:
    """Returns the params with `count` links each way in place of those that there were.

    Places are uniform without replacement, weights uniform in (-0.1, 0.1), never 0.

    Args:
      key: typed; each way has numbers of its own.
      params: of `SubNetworks`.
      count: between 0 and hidden^2; may be traced, so that runs of one program can differ in it.

    Raises:
      ValueError: a count that is an int and out of range.
    """
    size = params["links"]["to_0"]["kernel"].size
    if isinstance(count, int) and not 0 <= count <= size:
        raise ValueError(f"place_links: count must be between 0 and {size} (hidden^2), got {count}.")
    links = {
        name: {"kernel": _place(k, params["links"][name]["kernel"], count)}
        for name, k in zip(("to_0", "to_1"), jax.random.split(key), strict=True)
    }
    return {**params, "links": links}


def swap(params: Params) -> Params:
    """Returns the params with both sub-networks exchanged: swapped images then give swapped readouts."""
    links = params["links"]
    return {
        "net_0": params["net_1"],
        "net_1": params["net_0"],
        "links": {"to_0": links["to_1"], "to_1": links["to_0"]},
    }


@jax.jit  # op by op, each would be compiled by itself
def _place(key: Array, kernel: Array, count: Array | int) -> Array:
    where_key, weight_key = jax.random.split(key)
    present = topk.largest(noise.uniform(where_key, kernel.shape), count)
    # These uniform numbers are never 1/2, so that a link is never 0.
    weights = _RANGE * (2 * noise.uniform(weight_key, kernel.shape) - 1)
    return jnp.where(present, weights, 0)


class _SubNetwork(nn.Module):
    """The layers of one sub-network; how they are joined is told by `SubNetworks`."""

    hidden: int
    classes: int
    units: int | None

    def setup(self) -> None:
        self.input = _dense(self.hidden)
        self.recurrent = _dense(self.hidden)
        if self.units is not None:
            self.bottleneck = _dense(self.units)
        self.readout = _dense(self.classes)


class _Links(nn.Module):
    hidden: int

    def setup(self) -> None:
        self.to_0 = nn.Dense(self.hidden, use_bias=False, kernel_init=nn.initializers.zeros)
        self.to_1 = nn.Dense(self.hidden, use_bias=False, kernel_init=nn.initializers.zeros)

    def __call__(self, states: list[Array]) -> list[Array]:
        return [self.to_0(states[1]), self.to_1(states[0])]


def _dense(features: int) -> nn.Dense:
    return nn.Dense(features, kernel_init=_uniform, bias_init=_uniform)


def _uniform(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    return jax.random.uniform(key, shape, dtype, -_RANGE, _RANGE)
