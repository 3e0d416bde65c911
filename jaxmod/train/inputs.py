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
from jaxmod.train.tasks import Source, batch_shapes
from jaxmod.types import Estimator, Logits, Params, Where

__all__ = [
    "check_evaluate",
    "check_loss",
    "check_params",
    "check_positive_integers",
    "num_runs",
    "one_run",
    "per_run",
    "split_trainable",
    "start_logits",
]


def check_positive_integers(config: Any, *names: str) -> None:
    """Raises ValueError naming the first of the fields that is no positive integer."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{type(config).__name__}: {name} must be a positive integer, got {value!r}.")


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


RESERVED_METRICS = ("loss", "density", "finite")


def check_loss(
    loss_fn: Callable[..., Any],
    has_aux: bool,
    params: Params,
    source: Source,
    batch_size: int,
    num_samples: int = 1,
) -> None:
    """Raises ValueError unless the loss, traced on a sample's part of a batch, is a floating scalar."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    part = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((batch_size // num_samples, *x.shape[1:]), x.dtype),
        batch_shapes(source, batch_size),
    )
    out = jax.eval_shape(with_all_keys(loss_fn, has_aux), params, part, key, key)
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
    if not isinstance(metrics, dict):
        raise ValueError(f"has_aux=True: metrics must be a dict of scalars, got a {type(metrics).__name__}.")
    for name, value in metrics.items():
        if getattr(value, "shape", None) != ():
            came = getattr(value, "shape", type(value).__name__)
            raise ValueError(f"loss_fn: metric {name!r} must be a scalar, got shape {came}.")
    _check_names("loss_fn", metrics)


def check_evaluate(
    evaluate: Callable[..., Any] | None, params: Params, source: Source, batch_size: int
) -> None:
    """Raises ValueError unless `evaluate`, traced on a batch, gives named values for every example."""
    if evaluate is None:
        return
    values = jax.eval_shape(evaluate, params, batch_shapes(source, batch_size))
    if not isinstance(values, dict):
        raise ValueError(f"evaluate must return {{name: per-example values}}, got a {type(values).__name__}.")
    for name, value in values.items():
        if getattr(value, "shape", ())[:1] != (batch_size,):
            raise ValueError(
                f"evaluate gave {name!r} as {value} for {batch_size} examples, expected one value per "
                "example; leave the mean to the caller."
            )
    _check_names("evaluate", values)


def _check_names(giver: str, metrics: dict[str, Any]) -> None:
    for name in metrics:
        if name in RESERVED_METRICS:
            raise ValueError(
                f"{giver} names a metric {name!r}, which the history keeps for itself; rename it."
            )


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
    trees.check_arrays(params)
    if logits is None:
        trees.select(params, where)
        return jax.vmap(lambda key: estimator.init(stream_key(key, Stream.INIT), params, where))(keys)
    runs = keys.size

    def start(path: str, weight: Array, given: Array | None) -> Array | None:
        if given is None:
            return None
        given = jnp.asarray(given)
        if not jnp.issubdtype(given.dtype, jnp.floating) or not bool(jnp.all(jnp.isfinite(given))):
            raise ValueError(
                f"logits leaf {path!r} of dtype {given.dtype} must hold finite floats, as est.init gives."
            )
        if given.shape not in (weight.shape, (runs, *weight.shape)):
            raise ValueError(
                f"logits leaf {path!r} has shape {given.shape}, expected {weight.shape}, "
                f"or with the runs {(runs, *weight.shape)}."
            )
        return jnp.broadcast_to(given.astype(jnp.float32), (runs, *weight.shape))

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
            # The tree may mirror the params, and so say something of leaves that are not masked.
            chosen = jax.tree.map(
                lambda x, t: None if x is None else bool(t), logits, trainable, is_leaf=lambda x: x is None
            )
        except ValueError as error:
            raise ValueError(f"trainable does not mirror the masked params: {error}") from error
    if not any(jax.tree.leaves(chosen)):
        masked = ", ".join(repr(path) for path, _ in trees.paths_and_leaves(logits)[:10])
        raise ValueError(f"trainable={trainable!r} selects none of the masked leaves: {masked}.")
    trained = jax.tree.map(lambda x, t: x if t else None, logits, chosen)
    held = jax.tree.map(lambda x, t: None if t else x, logits, chosen)
    return trained, held
