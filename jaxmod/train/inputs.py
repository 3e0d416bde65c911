"""What a mask stage is given, checked before any work and brought to one shape: leading runs axes."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, PyTree

from jaxmod import trees
from jaxmod.train.randomness import Stream, stream_key
from jaxmod.train.steps import with_all_keys
from jaxmod.train.tasks import Source
from jaxmod.types import Estimator, Logits, Params, Where

__all__ = [
    "check_loss",
    "check_params",
    "num_runs",
    "one_run",
    "per_run",
    "split_trainable",
    "start_logits",
]


def num_runs(keys: Array, params: Params, params_axis: int | None) -> int:
    """Returns the number of runs; raises ValueError where params and keys disagree about it."""
    if params_axis not in (None, 0):
        raise ValueError(f"params_axis must be 0 or None, got {params_axis!r}.")
    runs = keys.size
    if params_axis == 0:
        if keys.ndim == 0:
            raise ValueError("params_axis=0 needs a vector of keys, one per run, got one key.")
        for path, leaf in trees.paths_and_leaves(params):
            if np.ndim(leaf) == 0 or np.shape(leaf)[0] != runs:
                raise ValueError(
                    f"params_axis=0: leaf {path!r} has shape {np.shape(leaf)}, expected a leading axis "
                    f"of {runs} runs, one per key."
                )
    return runs


def one_run(params: Params, params_axis: int | None) -> Params:
    """Returns the params of the first run."""
    return params if params_axis is None else jax.tree.map(lambda x: x[0], params)


def check_params(params: Params) -> None:
    """Raises ValueError naming the first leaf with NaN or infinite values."""
    for path, leaf in trees.paths_and_leaves(params):
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and not bool(jnp.all(jnp.isfinite(leaf))):
            raise ValueError(f"params leaf {path!r} holds NaN or infinite values; was it trained to the end?")


def check_loss(
    loss_fn: Callable[..., Any],
    has_aux: bool,
    params: Params,
    source: Source,
    batch_size: int,
) -> None:
    """Raises ValueError unless the loss, traced on a batch of shapes, is a floating scalar."""
    key = jax.eval_shape(lambda: jax.random.key(0))

    def loss_of_a_batch(params: Params, key: Key[Array, ""]) -> Any:
        batch = source.draw(key, jax.tree.map(lambda x: x[0], source.task), source.pool, batch_size)
        return with_all_keys(loss_fn, has_aux)(params, batch, key, key)

    out = jax.eval_shape(loss_of_a_batch, params, key)
    if not (isinstance(out, tuple) and len(out) == 2):
        raise ValueError("has_aux=True: loss_fn must return (loss, metrics).")
    loss, metrics = out
    if not hasattr(loss, "shape") or loss.shape or not jnp.issubdtype(loss.dtype, jnp.floating):
        came = (
            f"an array of shape {loss.shape} and {loss.dtype}"
            if hasattr(loss, "shape")
            else f"a {type(loss).__name__}"
        )
        hint = "pass has_aux=True" if isinstance(loss, tuple) else "take the mean over the batch"
        raise ValueError(f"loss_fn must return a floating scalar, got {came}; {hint}.")
    for name, value in metrics.items():
        if value.shape:
            raise ValueError(f"loss_fn: metric {name!r} must be a scalar, got shape {value.shape}.")


def per_run(name: str, value: ArrayLike, runs: int) -> Float[Array, " runs"]:
    """Returns a number, or one per run, as a vector over runs."""
    value = jnp.asarray(value, jnp.float32)
    if value.shape not in ((), (runs,)):
        raise ValueError(f"{name} must be a number or one per run ({runs}), got shape {value.shape}.")
    return jnp.broadcast_to(value, (runs,))


def start_logits(
    keys: Key[Array, " runs"],
    params: Params,
    where: Where,
    estimator: Estimator,
    logits: Logits | None,
) -> Logits:
    """Returns the start values of every run, leading runs axis; `params` are those of one run.

    Raises:
      ValueError: `where` selects nothing or no floats; given logits do not mirror the params.
    """
    if logits is None:
        trees.select(params, where)
        return jax.vmap(lambda key: estimator.init(stream_key(key, Stream.INIT), params, where))(keys)
    runs = keys.size

    def start(path: str, weight: Array, given: Array | None) -> Array | None:
        if given is None:
            return None
        given = jnp.asarray(given)
        if given.shape not in (weight.shape, (runs, *weight.shape)):
            raise ValueError(
                f"logits leaf {path!r} has shape {given.shape}, expected {weight.shape}, "
                f"or with the runs {(runs, *weight.shape)}."
            )
        return jnp.broadcast_to(given, (runs, *weight.shape))

    try:
        jax.tree.map(lambda weight, given: None, params, logits)
    except ValueError as error:
        raise ValueError(f"logits do not mirror params: {error}") from error
    started = trees.map_with_path(start, params, logits)
    if not jax.tree.leaves(started):
        raise ValueError("logits hold no leaf, so nothing would be masked.")
    return started


def split_trainable(logits: Logits, trainable: PyTree | str | None) -> tuple[Logits, Logits]:
    """Returns `(trained, held)`: two trees that fill each other's `None`.

    Raises:
      ValueError: `trainable` selects no masked leaf, or does not mirror the params.
    """
    if trainable is None:
        chosen = jax.tree.map(lambda _: True, logits)
    elif isinstance(trainable, str):
        pattern = re.compile(trainable)
        chosen = trees.map_with_path(lambda path, _: pattern.fullmatch(path) is not None, logits)
    else:
        try:
            chosen = jax.tree.map(lambda _, t: bool(t), logits, trainable)
        except ValueError as error:
            raise ValueError(f"trainable does not mirror the masked params: {error}") from error
    if not any(jax.tree.leaves(chosen)):
        masked = ", ".join(repr(path) for path, _ in trees.paths_and_leaves(logits)[:10])
        raise ValueError(f"trainable={trainable!r} selects none of the masked leaves: {masked}.")
    trained = jax.tree.map(lambda x, t: x if t else None, logits, chosen)
    held = jax.tree.map(lambda x, t: None if t else x, logits, chosen)
    return trained, held
