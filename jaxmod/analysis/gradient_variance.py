"""How noisy the gradient of mask logits is: what several mask samples in a batch are for."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from jaxmod import masks, trees
from jaxmod.estimators import gumbel_sigmoid
from jaxmod.types import Batch, Estimator, Logits, Params

__all__ = ["gradient_variance"]


def gradient_variance(
    key: Key[Array, ""],
    loss_fn: Callable[..., Array],
    params: Params,
    logits: Logits,
    batch: Batch,
    *,
    num_samples: int,
    draws: int = 256,
    estimator: Estimator | None = None,
) -> dict[str, Float[Array, ""]]:
    """Returns `{path: variance, ..., "total"}` of the estimated mask gradient over draws of the noise.

    The estimate is that of a training step (Csordas et al. 2021, section 3): the batch is cut into
    `num_samples` contiguous parts, each sees a mask of its own, and the gradients of their losses are
    averaged. A leaf's variance is summed over its weights, unbiased (`draws - 1`). The batch stays as it
    is, so that nothing but the masks varies; the penalty's gradient is constant and left out.

    The work of an estimate does not depend on `num_samples`, and its variance falls with it, at best as
    `1 / num_samples`: examples that share a mask share its error.

    Args:
      key: of the noise.
      loss_fn: `(params, batch, key) -> scalar`, the mean over the batch.
      params: the frozen weights.
      logits: where in training to look, e.g. at the start or at the end.
      batch: a pytree of arrays with a leading example axis.
      num_samples: masks in an estimate.
      draws: independent estimates to take the variance over.
      estimator: default `gumbel_sigmoid()`.

    Raises:
      ValueError: `num_samples` does not divide the batch; fewer than 2 draws; a leaf's path is `"total"`.
    """
    sample = (gumbel_sigmoid() if estimator is None else estimator).sample
    size = jax.tree.leaves(batch)[0].shape[0]
    if num_samples < 1 or size % num_samples:
        raise ValueError(f"num_samples={num_samples} does not divide the batch of {size} examples.")
    if draws < 2:
        raise ValueError(f"draws must be at least 2, got {draws}: one estimate has no variance.")
    parts = jax.tree.map(lambda x: x.reshape(num_samples, -1, *x.shape[1:]), batch)

    @jax.grad
    def gradient(logits: Logits, key: Array, part: Batch) -> Array:
        noise_key, loss_key = jax.random.split(key)
        return loss_fn(masks.apply_mask(params, sample(noise_key, logits)), part, loss_key)

    def estimate(key: Array) -> Logits:
        one = functools.partial(gradient, logits)
        gradients = lax.map(lambda xs: one(*xs), (jax.random.split(key, num_samples), parts))
        return jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)

    def body(moments: tuple[Logits, Logits], xs: tuple[Array, Array]) -> tuple[tuple[Logits, Logits], None]:
        # Welford's update: sums of squares would cancel where the mean dwarfs the spread.
        (mean, squares), (count, key) = moments, xs
        off = jax.tree.map(jnp.subtract, estimate(key), mean)
        mean = jax.tree.map(lambda m, d: m + d / count, mean, off)
        squares = jax.tree.map(lambda q, d: q + d * d * (1 - 1 / count), squares, off)
        return (mean, squares), None

    zeros = jax.tree.map(jnp.zeros_like, logits)
    counts = jnp.arange(1, draws + 1, dtype=jnp.float32)
    (_, squares), _ = lax.scan(body, (zeros, zeros), (counts, jax.random.split(key, draws)))
    variances = {path: jnp.sum(q) / (draws - 1) for path, q in trees.paths_and_leaves(squares)}
    if "total" in variances:
        raise ValueError("a leaf has the path 'total', which names the sum over leaves; rename it.")
    return variances | {"total": jnp.sum(jnp.stack([*variances.values()]))}
