"""What breaks if a part of a network is taken out: single and double lesions (Filan et al. 2020).

A sub-module is the part of a cluster that lies in one hidden layer. Its lesion sets the incoming weights and
the biases of its neurons to zero, so that they are silent: a ReLU of zero. The control is a lesion of as
many random neurons of that layer; neurons that have no weight but zeros are never taken.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmod.train.devices import map_runs
from jaxmod.types import Params

__all__ = ["SubModule", "count_right", "hidden_sizes", "random_lesions", "sub_modules"]

CHUNK = 64
"""Lesions in a call of the compiled program."""


class SubModule(NamedTuple):
    """The neurons of one cluster in one hidden layer."""

    layer: int
    """Hidden layers count from 1."""
    cluster: int
    neurons: Bool[np.ndarray, " layer"]
    connected: Bool[np.ndarray, " layer"]
    """Which neurons of the layer have a weight that is not zero."""

    @property
    def name(self) -> str:
        """Layer and cluster, as the paper writes them: `1-0`."""
        return f"{self.layer}-{self.cluster}"

    @property
    def size(self) -> int:
        """How many neurons."""
        return int(np.count_nonzero(self.neurons))


def sub_modules(labels: Sequence[Int[np.ndarray, " layer"]]) -> list[SubModule]:
    """Returns the sub-modules that have neurons, layer by layer.

    Args:
      labels: a cluster for each neuron of every layer, inputs first and outputs last, -1 for a neuron
        without weights: `cluster(...).labels`.

    Raises:
      ValueError: there is no hidden layer.
    """
    if len(labels) < 3:
        raise ValueError(
            f"labels of {len(labels)} layers: expected the inputs, one or more hidden layers and the outputs."
        )
    return [
        SubModule(layer, int(cluster), ids == cluster, ids >= 0)
        for layer, ids in enumerate(map(np.asarray, labels[1:-1]), start=1)
        for cluster in np.unique(ids[ids >= 0])
    ]


def count_right(
    params: Params,
    inputs: Float[Array, "examples features"],
    labels: Int[Array, " examples"],
    keep: Sequence[Bool[np.ndarray, "lesions layer"]],
) -> Int[np.ndarray, " lesions"]:
    """Returns how many examples a network gets right under each lesion.

    The devices of this host share the lesions and take one (a CPU) or 16 at a time: memory does not grow
    with them. The layers up to the first one that is damaged are computed once for all lesions that begin
    there.

    Args:
      params: of an `MLP`.
      inputs: as the network takes them.
      labels: the right answers.
      keep: for each hidden layer, which neurons each lesion leaves.

    Raises:
      ValueError: `keep` does not fit the hidden layers.
    """
    hidden, output = _layers(params)
    sizes = hidden_sizes(params)
    lesions = len(keep[0]) if len(keep) else 0
    if [np.shape(k) for k in keep] != [(lesions, size) for size in sizes]:
        raise ValueError(
            f"keep has shapes {[np.shape(k) for k in keep]}, expected [lesions, neurons] for each hidden "
            f"layer, which have {sizes} neurons."
        )
    damaged = np.stack([~k.all(axis=1) for k in keep])
    damaged[-1] = True  # no lesion at all: only the last layer is left to compute
    first = damaged.argmax(axis=0)
    right = np.zeros(lesions, np.int64)
    values = jnp.asarray(inputs)
    for layer, weights in enumerate(hidden):
        values = _relu_layer(values, weights)
        rows = np.flatnonzero(first == layer)
        for chunk in (rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)):
            padded = np.resize(chunk, CHUNK)
            left = [k[padded] for k in keep[layer:]]
            counts = map_runs(_right_under, left, (*hidden[layer + 1 :], output), values, jnp.asarray(labels))
            right[chunk] = np.asarray(counts)[: len(chunk)]
    return right


def hidden_sizes(params: Params) -> list[int]:
    """Returns the neurons of each hidden layer of an `MLP`."""
    return [kernel.shape[1] for kernel, _ in _layers(params)[0]]


_Layer: TypeAlias = tuple[Float[Array, "inputs outputs"], Float[Array, " outputs"]]


def _layers(params: Params) -> tuple[list[_Layer], _Layer]:
    """Returns kernel and bias of each hidden layer, and of the output layer."""
    names = [*(f"layer_{i}" for i in range(1, len(params))), "output"]
    if sorted(names) != sorted(params) or len(names) < 2:
        raise ValueError(
            f"params have the layers {', '.join(map(repr, params))}, expected those of an MLP: 'layer_1', "
            "'layer_2', ... and 'output'."
        )
    *hidden, output = ((jnp.asarray(params[n]["kernel"]), jnp.asarray(params[n]["bias"])) for n in names)
    return hidden, output


@jax.jit
def _relu_layer(values: Array, layer: _Layer) -> Array:
    return jax.nn.relu(values @ layer[0] + layer[1][None])


def _right_under(keep: Sequence[Array], layers: Sequence[_Layer], values: Array, labels: Array) -> Array:
    """Returns the right answers under one lesion, from the values of the first layer that it may damage."""
    x = jnp.where(keep[0][None], values, 0.0)
    for layer, left in zip(layers[:-1], keep[1:], strict=True):
        x = jnp.where(left[None], _relu_layer(x, layer), 0.0)
    kernel, bias = layers[-1]
    return jnp.sum(jnp.argmax(x @ kernel + bias[None], axis=-1) == labels)


def random_lesions(
    key: Key[Array, ""], among: Bool[np.ndarray, " layer"], count: int, draws: int
) -> Bool[np.ndarray, "draws layer"]:
    """Returns sets of `count` random neurons of a layer, drawn without replacement.

    Args:
      key: of all draws.
      among: which neurons may be taken.
      count: how many are taken.
      draws: how many sets.

    Raises:
      ValueError: there are fewer neurons than are to be taken.
    """
    if not 0 <= count <= np.count_nonzero(among):
        raise ValueError(
            f"count: {count} neurons of a layer with {np.count_nonzero(among)} that may be taken. A control "
            "cannot be larger than its layer."
        )
    return np.asarray(_random_lesions(key, jnp.asarray(among), count, draws))


@jax.jit(static_argnums=3)
def _random_lesions(key: Array, among: Array, count: Array, draws: int) -> Array:
    scores = jnp.where(among[None], jax.random.uniform(key, (draws, len(among))), 2.0)
    return jnp.argsort(jnp.argsort(scores, axis=1), axis=1) < count
