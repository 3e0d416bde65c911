"""How far parts of a network are specialized on sub-tasks: three measures of Bena and Goodman.

Each is a number M(n, k) for part n and sub-task k, from what any network gives: the states of a part's units,
or a mask over its params. `specialization` then compares a part's own sub-task with another.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key

from jaxmod import trees
from jaxmod.train.order import ordered_rows
from jaxmod.types import BinaryMask

__all__ = [
    "Correlation",
    "Readout",
    "linear_cka",
    "mask_shares",
    "partners",
    "readout_accuracy",
    "readout_optimizer",
    "specialization",
    "state_correlation",
    "train_readout",
]


def specialization(own: Float[Array, "*n"], other: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Returns `(own - other) / (own + other)`, in [-1, 1].

    1: the part serves its own sub-task alone; 0: both alike. A negative measure, as a correlation may be,
    counts as 0: else the fraction has no bounds. NaN where neither measure is above 0, or one is NaN.

    Args:
      own: M(n, n), of parts on their own sub-task.
      other: M(n, k) on another one.

    >>> specialization(jnp.array([0.75, 1.0]), jnp.array([0.25, 0.0])).tolist()
    [0.5, 1.0]
    """
    own, other = jnp.maximum(own, 0), jnp.maximum(other, 0)
    total = own + other
    return jnp.where(total == 0, jnp.nan, (own - other) / jnp.where(total == 0, 1, total))


def mask_shares(mask: BinaryMask, parts: Mapping[str, str]) -> dict[str, Float[Array, ""]]:
    """Returns for each part of a network the share of a mask that lies in it: `|S & theta_n| / |S|`.

    Over parts that make up all that is masked the shares sum to 1. NaN if the mask keeps nothing.

    Args:
      mask: of one sub-task.
      parts: name -> a regex on the paths of its leaves.

    Raises:
      ValueError: a part has no leaf.

    >>> mask = {"a": {"w": jnp.array([True, True, False])}, "b": {"w": jnp.array([True, False])}}
    >>> shares = mask_shares(mask, {"first": "a/.*", "second": "b/.*"})
    >>> {name: round(float(share), 2) for name, share in shares.items()}
    {'first': 0.67, 'second': 0.33}
    """
    kept = {path: jnp.sum(leaf, dtype=jnp.int32) for path, leaf in trees.paths_and_leaves(mask)}
    total = sum(kept.values(), start=jnp.zeros((), jnp.int32))
    shares = {}
    for name, pattern in parts.items():
        inside = [count for path, count in kept.items() if re.fullmatch(pattern, path)]
        if not inside:
            raise ValueError(f"part {name!r}: no leaf matches {pattern!r}; the mask has {list(kept)[:10]}.")
        share = sum(inside[1:], start=inside[0]) / jnp.maximum(total, 1)
        shares[name] = jnp.where(total == 0, jnp.nan, share)
    return shares


class Correlation(NamedTuple):
    """How alike the states of examples of one class are."""

    value: Float[Array, ""]
    """Mean Pearson correlation over pairs; NaN if there is no pair."""
    skipped: Int[Array, ""]
    """Examples that were left out: their states do not vary over the units."""


@functools.partial(jax.jit, static_argnames="classes")
def state_correlation(
    states: Float[Array, "examples units"], labels: Int[Array, " examples"], classes: int
) -> Correlation:
    """Returns the expected correlation over the units between the states of two examples of one class.

    `M = E[corr(h(x), h(x')) | D(x) = D(x')]`, over all pairs of different examples and not a draw of
    them: an example stands in as many pairs as its class has others, and each example counts alike. With
    the states centred and of norm 1, the pairs of a class of n sum to `|sum of states|^2 - n`.

    Args:
      states: e.g. the last hidden states of a sub-network.
      labels: from 0; of the digit that the pairs have in common.
      classes: how many.
    """
    centred = states - states.mean(axis=1, keepdims=True)
    norm = jnp.linalg.norm(centred, axis=1, keepdims=True)
    # Rounding of the mean leaves a constant state a little above zero.
    varies = norm > 1e-6 * jnp.maximum(jnp.linalg.norm(states, axis=1, keepdims=True), 1e-30)
    unit = jnp.where(varies, centred / jnp.where(varies, norm, 1), 0)
    member = jax.nn.one_hot(labels, classes) * varies
    count = member.sum(axis=0)
    summed = jnp.square(jnp.linalg.norm(member.T @ unit, axis=1)) - count
    mean = jnp.where(count > 1, summed / jnp.maximum(count * (count - 1), 1), 0)
    weight = jnp.where(count > 1, count, 0)
    value = jnp.sum(weight * mean) / weight.sum()
    return Correlation(value, jnp.sum(~varies, dtype=jnp.int32))


def partners(key: Key[Array, ""], labels: Int[Array, " examples"]) -> Int[Array, " examples"]:
    """Returns for each example another one of its class: a random permutation that leaves none in its place.

    An example that is alone in its class is its own partner.
    """
    size = labels.shape[0]
    shuffled = jax.random.permutation(key, size)
    order = shuffled[jnp.argsort(labels[shuffled], stable=True)]  # class after class, at random within
    sorted_labels = labels[order]
    first = jnp.searchsorted(sorted_labels, sorted_labels, side="left")
    last = jnp.searchsorted(sorted_labels, sorted_labels, side="right") - 1
    place = jnp.arange(size)
    following = jnp.where(place == last, first, place + 1)
    return jnp.zeros(size, order.dtype).at[order].set(order[following])


def linear_cka(x: Float[Array, "examples units"], y: Float[Array, "examples units"]) -> Float[Array, ""]:
    """Returns the linear CKA of two sets of states, `|Y^T X|^2 / (|X^T X| |Y^T Y|)`, in [0, 1].

    The norms are Frobenius norms. Columns are centred first (Kornblith et al. 2019). NaN if the states of a
    set are all alike.
    """
    x, y = (a - a.mean(axis=0, keepdims=True) for a in (x, y))
    cross, own, other = (jnp.linalg.norm(a.T @ b) for a, b in ((y, x), (x, x), (y, y)))
    return jnp.square(cross) / (own * other)


class Readout(NamedTuple):
    """A linear layer."""

    kernel: Float[Array, "units classes"]
    bias: Float[Array, " classes"]


def readout_optimizer(epoch_steps: int) -> optax.GradientTransformation:
    """Returns the paper's optimizer for readouts: Adadelta, rate 0.5, times 0.9 after each epoch."""
    rate = optax.exponential_decay(0.5, max(epoch_steps, 1), 0.9, staircase=True)
    return optax.adadelta(rate, rho=0.9, eps=1e-6)


def train_readout(
    key: Key[Array, ""],
    states: Float[Array, "examples units"],
    labels: Int[Array, " examples"],
    *,
    classes: int,
    optimizer: optax.GradientTransformation,
    steps: int,
    batch_size: int = 128,
    init: float = 0.1,
) -> Readout:
    """Returns a linear readout of frozen states, trained from new weights with cross-entropy.

    The states are given and not the network, which stays as it is and runs only once. It can be jitted,
    mapped and vmapped over keys, networks and sub-tasks.

    Args:
      key: of the start, uniform in [-init, init], and of the order of the examples.
      states: of the units that are read.
      labels: what is to be said about each example.
      classes: how many.
      optimizer: e.g. `readout_optimizer`.
      steps: in all; every pass takes each example once.
      batch_size: examples in a step.
      init: largest first weight.
    """
    start_key, order_key = jax.random.split(key)
    kernel_key, bias_key = jax.random.split(start_key)
    start = Readout(
        jax.random.uniform(kernel_key, (states.shape[1], classes), minval=-init, maxval=init),
        jax.random.uniform(bias_key, (classes,), minval=-init, maxval=init),
    )

    def loss(readout: Readout, rows: Array) -> Array:
        logits = _read(readout, states[rows])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

    def step(carry: Any, i: Array) -> tuple[Any, None]:
        readout, state = carry
        rows = ordered_rows("epochs", order_key, i, batch_size, jnp.asarray(labels.shape[0]))
        updates, state = optimizer.update(jax.grad(loss)(readout, rows), state, readout)
        return (optax.apply_updates(readout, updates), state), None

    (readout, _), _ = lax.scan(step, (start, optimizer.init(start)), jnp.arange(steps))
    return readout


def readout_accuracy(
    readout: Readout, states: Float[Array, "examples units"], labels: Int[Array, " examples"]
) -> Float[Array, ""]:
    """Returns the part of the examples whose label has the largest logit."""
    return jnp.mean(jnp.argmax(_read(readout, states), axis=-1) == labels)


def _read(readout: Readout, states: Array) -> Array:
    return states @ readout.kernel + readout.bias[None]
