"""Training two joined sub-networks on pairs of digits.

Networks with other numbers of links are runs of one program. Facts and defaults are those of Bena and
Goodman, and where the paper is silent of their later code.
"""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, Key

from jaxmod import trees
from jaxmod.data.digit_pairs import Pairs, TargetRule, redrawable, sample_pairs, scaled
from jaxmod.deep_r import Rate, deep_r, paper_noise, paper_rate
from jaxmod.models.subnetworks import LINKS, SubNetworks, decide, place_links
from jaxmod.train.dense import DenseConfig, Trained, train_network
from jaxmod.types import Batch, Params
from jaxmod.workdir import Stage

__all__ = [
    "Training",
    "cut_links",
    "dense_config",
    "epoch_steps",
    "fixed_links",
    "make_loss",
    "make_model",
    "make_optimizer",
    "start",
    "train",
]


@dataclasses.dataclass(frozen=True)
class Training:
    """How networks are trained."""

    hidden: int = 100
    steps: int = 5
    """Of the recurrence."""
    bottleneck: int | None = None
    before_recurrence: bool = False
    """Messages enter before W_hh, as in the authors' code."""
    epochs: int = 5
    passes: int = 1
    """Over the data in an epoch. Rates fall after each epoch."""
    batch_size: int = 128
    learning_rate: float = 0.5
    """Adadelta's, for the sub-networks; times 0.9 after each epoch."""
    noise: float = 1e-4
    """Size of the random walk of links at density 0; it falls to 0 at density 1."""
    l1: float = 1e-4
    rewired: bool = True
    """Deep-R; else links stay where they were put first."""
    readouts: bool = False
    """Readouts are trained; else they stay as they start, as in the authors' code."""
    redrawn: bool = False
    """Pairs are put together anew for each batch; else they are the same in all epochs, as in the code."""
    target_rule: TargetRule = "equation"
    """Of pairs that are redrawn."""


def make_model(training: Training, classes: int = 10) -> Any:  # for type checkers modules are not hashable
    """Returns the two sub-networks, `SubNetworks`."""
    return SubNetworks(
        training.hidden, classes, training.steps, training.bottleneck, training.before_recurrence
    )


def epoch_steps(training: Training, pairs: Pairs) -> int:
    """Returns the steps of an epoch."""
    return max(1, round(training.passes * len(pairs.target) / training.batch_size))


def dense_config(training: Training, pairs: Pairs) -> DenseConfig:
    """Returns how long and on what batches networks are trained; a chunk is an epoch.

    Raises:
      ValueError: a size is not positive, or the training sees more pairs than can be counted.
    """
    steps = epoch_steps(training, pairs)
    order = "random" if training.redrawn else "epochs"
    return DenseConfig(training.epochs * steps, training.batch_size, steps, order=order)


def start(model: Any, pairs: Pairs, keys: Key[Array, " runs"], links: Int[Array, " runs"]) -> Params:
    """Returns untrained params with a leading runs axis; run i has `links[i]` links each way."""
    shape = (1, 2, int(np.prod(pairs.image.shape[2:])))

    def one(key: Array, count: Array) -> Params:
        weights, places = jax.random.split(key)
        return place_links(places, model.init(weights, jnp.zeros(shape))["params"], count)

    return jax.jit(jax.vmap(one))(keys, links)


def train(
    pairs: Pairs,
    params: Params,
    keys: Key[Array, " runs"],
    training: Training,
    workdir: Stage | None = None,
    progress: bool = False,
) -> Trained:
    """Returns the networks trained to name the digit that the parity of both digits says.

    The more certain sub-network answers, and the cross-entropy is that of its readout. The history has
    `accuracy`, and `decided`, the share of the answers that come from sub-network 0.

    Args:
      pairs: of the training split.
      params: from `start`.
      keys: one for each run.
      training: sizes and rates.
      workdir: where checkpoints go.
      progress: report every epoch.
    """
    steps = epoch_steps(training, pairs)
    if training.redrawn:
        task, data = _sampler(training.target_rule), redrawable(pairs)
    else:
        task, data = {"image": pairs.image, "label": pairs.target}, None
    return train_network(
        make_loss(make_model(training)),
        params,
        task,
        data=data,
        keys=keys,
        config=dense_config(training, pairs),
        optimizer=make_optimizer(training, steps),
        workdir=workdir,
        progress=progress,
    )


@functools.cache  # the same functions again, so that no program is compiled twice
def _sampler(rule: TargetRule) -> Any:
    def sample_batch(key: Key[Array, ""], batch_size: int, data: Any) -> Batch:
        return sample_pairs(key, batch_size, data, rule)

    return sample_batch


@functools.lru_cache(maxsize=16)
def make_loss(model: Any) -> Any:
    """Returns the `dense_loss`: cross-entropy of the more certain readout, for batches of image and label."""

    def loss(params: Params, state: Any, batch: Batch, key: Key[Array, ""]):
        del key
        answer, decider = decide(model.apply({"params": params}, scaled(batch["image"])))
        losses = optax.softmax_cross_entropy_with_integer_labels(answer, batch["label"])
        right = jnp.argmax(answer, axis=-1) == batch["label"]
        return jnp.mean(losses), (state, {"accuracy": right.mean(), "decided": jnp.mean(decider == 0)})

    return loss


@functools.lru_cache(maxsize=16)
def make_optimizer(training: Training, steps: int) -> optax.GradientTransformationExtraArgs:
    """Returns Deep-R for the links and Adadelta for the sub-networks; `steps` make an epoch."""
    rate = optax.exponential_decay(training.learning_rate, steps, 0.9, staircase=True)
    link_rate = paper_rate(steps_per_epoch=steps)
    if training.rewired:
        links = deep_r(link_rate, noise=paper_noise(training.noise), l1=training.l1)
    else:
        links = fixed_links(link_rate)
    weights = optax.adadelta(rate, rho=0.9, eps=1e-6)

    def label(path: str, _: Any) -> str:
        if re.fullmatch(LINKS, path):
            return "links"
        return "weights" if training.readouts or "/readout/" not in path else "frozen"

    kinds: Any = {"links": links, "weights": weights, "frozen": optax.set_to_zero()}
    return optax.partition(kinds, functools.partial(trees.map_with_path, label))


def fixed_links(rate: Rate) -> optax.GradientTransformationExtraArgs:
    """Returns Adam for weights that stay where they are: entries that are 0 have no gradient.

    Args:
      rate: of the step, and of the part of a leaf that is not 0.
    """

    def scaled_by_rate(step: Array, updates: Any, params: Params) -> Any:
        return jax.tree.map(lambda u, w: -jnp.asarray(rate(step, jnp.mean(w != 0))) * u, updates, params)

    def init_fn(params: Params) -> tuple[Array, Any]:
        return jnp.zeros((), jnp.int32), adam.init(params)

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        step, inner = state
        updates = jax.tree.map(lambda g, w: jnp.where(w == 0, 0.0, g), updates, params)
        updates, inner = adam.update(updates, inner)
        return scaled_by_rate(step, updates, params), (step + 1, inner)

    adam = optax.scale_by_adam()
    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]


def cut_links(params: Params) -> Params:
    """Returns the params without links."""
    return {**params, "links": jax.tree.map(jnp.zeros_like, params["links"])}
