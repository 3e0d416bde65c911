"""Buckets of lengths: short sequences do not pay for the longest.

In a step all examples come from one bucket, each bucket has a shape of its own, and the step costs what that
shape costs. The bucket is drawn in proportion to its size and an example within it uniformly, so that every
example is as likely as without buckets; but the examples of a batch are of similar lengths.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jaxmod.train.axes import Axes
from jaxmod.train.tasks import num_examples
from jaxmod.types import Batch

__all__ = ["Buckets", "bucket_axes", "make_buckets"]

_BUCKET = 1  # of what is drawn from the shared key; the coin of teacher forcing has 0


class Buckets(NamedTuple):
    """Tasks whose batches come from one bucket each."""

    shapes: tuple[tuple[int, int], ...]
    """Steps of source and target in each bucket, for `networks.make_functions`; the last has room for all."""
    examples: dict[str, np.ndarray]
    """Of all tasks: the `data` of `train_network` and `find_modules`."""
    tasks: dict[str, Callable[..., Batch]]
    """`sample_batch(key, batch_size, data, shared_key)` of each task, by name."""


def make_buckets(tasks: Mapping[str, Mapping[str, np.ndarray]], count: int) -> Buckets:
    """Returns the tasks in buckets of about as many examples each, by source and target length together.

    A step of all runs has one bucket, drawn from the key that they share; masks are to be trained with
    `bucket_axes`.

    Args:
      tasks: name -> examples.
      count: of buckets; fewer are made where lengths are equal.

    Raises:
      ValueError: `count` is not positive; a task has no examples.
    """
    if count < 1:
        raise ValueError(f"buckets={count}: expected 1 or more.")
    sizes = {name: num_examples(dict(task), name) for name, task in tasks.items()}
    total = {name: task["source_length"] + task["target_length"] for name, task in tasks.items()}
    everything = np.concatenate(list(total.values()))
    edges = np.unique(np.quantile(everything, np.arange(1, count + 1) / count, method="higher"))
    bucket = {name: np.searchsorted(edges, lengths) for name, lengths in total.items()}
    order = {name: np.argsort(of, kind="stable") for name, of in bucket.items()}
    first, *_ = tasks.values()
    examples = {
        part: np.concatenate([task[part][order[name]] for name, task in tasks.items()]) for part in first
    }
    numbers = np.concatenate([np.sort(of) for of in bucket.values()])
    # The last bucket has room for every example, whatever lengths its own have.
    inside = [numbers == i for i in range(len(edges) - 1)] + [numbers >= 0]
    shapes = tuple(
        (int(examples["source_length"][of].max()), int(examples["target_length"][of].max())) for of in inside
    )
    samplers, offset = {}, 0
    for name, of in bucket.items():
        ends = np.cumsum(np.bincount(of, minlength=len(edges)))
        samplers[name] = _sampler(offset, ends)
        offset += sizes[name]
    return Buckets(shapes, examples, samplers)


def bucket_axes(count: int) -> Axes:
    """Returns how masks are trained on so many buckets: vmapped tasks or samples would compute every one."""
    return Axes("unroll", "map") if count > 1 else Axes()


def _sampler(offset: int, ends: np.ndarray) -> Callable[..., Batch]:
    starts, size = np.concatenate([[0], ends[:-1]]), int(ends[-1])

    def sample_batch(
        key: Key[Array, ""], batch_size: int, data: Batch, shared_key: Key[Array, ""] | None = None
    ) -> Batch:
        """Draws a batch of one bucket; without a shared key, for evaluation, of all: the last has room."""
        bucket, low, high = jnp.full((), len(ends) - 1, jnp.int32), 0, size
        if shared_key is not None:
            position = jax.random.randint(jax.random.fold_in(shared_key, _BUCKET), (), 0, size)
            bucket = jnp.sum(position >= jnp.asarray(ends), dtype=jnp.int32)
            low, high = jnp.asarray(starts)[bucket], jnp.asarray(ends)[bucket]
        rows = offset + jax.random.randint(key, (batch_size,), low, high)
        drawn = jax.tree.map(lambda x: x.at[rows].get(mode="promise_in_bounds"), data)
        return {**drawn, "bucket": jnp.broadcast_to(bucket, (batch_size,))}

    return sample_batch
