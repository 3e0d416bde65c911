"""Choosing alpha, the weight of the penalty: as large as the accuracy allows."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from jaxmod.analysis.evaluate import evaluate as evaluate_masks
from jaxmod.find import MaskConfig, find_modules
from jaxmod.train.inputs import num_runs, one_run, per_run
from jaxmod.train.randomness import Stream, check_keys, stream_key
from jaxmod.train.tasks import num_examples
from jaxmod.types import Batch, Params

__all__ = ["find_alpha"]

_VALIDATION_EXAMPLES = 10_000


def find_alpha(
    loss_fn: Callable[..., Any],
    params: Params,
    data: PyTree | Callable[..., Batch],
    *,
    keys: Array,
    evaluate: Callable[[Params, Batch], dict[str, Array]],
    alphas: Sequence[float] = tuple(float(a) for a in np.geomspace(1e-8, 1e-4, 9)),
    keep: float = 0.95,
    config: MaskConfig = MaskConfig(),
    metric: str | None = None,
    validation: PyTree | None = None,
    params_axis: int | None = None,
    **options: Any,
) -> tuple[float, list[dict[str, float]]]:
    """Returns `(alpha, table)`: the largest alpha whose control mask keeps the accuracy.

    The rule of Csordas et al. 2021, appendix C.2, as a search: a mask is trained on the whole task for
    every alpha, and the chosen one is the last before the accuracy falls below `keep` times that of the
    unmasked network. All alphas and keys are runs of one compiled program, with the same noise.

    Args:
      loss_fn: as for `find_modules`.
      params: the trained network.
      data: the whole task: a pytree of arrays or a function `sample_batch(key, batch_size)`.
      keys: one typed key, or a vector: accuracies are means over them.
      evaluate: `(params, batch) -> {name: per-example values}`.
      alphas: what to try. `beta = alpha * batch_size`.
      keep: the part of the unmasked accuracy to keep.
      config: its beta is replaced.
      metric: which of `evaluate`'s values is the accuracy; default `accuracy`, or the only one.
      validation: examples to measure on; default 10,000 of `data`, evenly spaced (or drawn).
      params_axis: 0 if params are stacked along a runs axis, one per key.
      **options: further arguments of `find_modules` (where, estimator, optimizer, progress, workdir).

    Returns:
      The alpha, and one row per alpha in rising order: `alpha`, `beta`, `accuracy`, `kept` (accuracy over
      the unmasked accuracy), `density`, `adequate` (1.0 or 0.0).

    Raises:
      ValueError: even the smallest alpha loses too much (the message holds the table); bad input.
    """
    alphas = sorted(float(a) for a in alphas)
    if not alphas or alphas[0] < 0 or not np.isfinite(alphas).all():
        raise ValueError(f"alphas must be finite numbers of zero or more, at least one, got {alphas}.")
    if not 0 < keep <= 1:
        raise ValueError(f"keep must be in (0, 1], got {keep}.")
    check_keys(keys)
    tried, runs = len(alphas), num_runs(keys, params, params_axis)
    run_keys = jnp.atleast_1d(keys)
    if validation is None:
        validation = _validation(data, run_keys[0])
    evaluate_one = functools.partial(evaluate, one_run(params, params_axis))
    name = _metric_name(jax.eval_shape(evaluate_one, validation), metric)
    beta = np.repeat(np.asarray(alphas) * config.batch_size, runs)
    rate = per_run("learning_rate", config.learning_rate, runs)
    many = params
    if params_axis == 0:
        many = jax.tree.map(lambda x: jnp.tile(x, (tried,) + (1,) * (jnp.ndim(x) - 1)), params)
    found = find_modules(
        loss_fn,
        many,
        {"control": data},
        keys=jnp.tile(run_keys, tried),
        config=dataclasses.replace(config, beta=beta, learning_rate=jnp.tile(rate, tried)),
        evaluate=evaluate,
        params_axis=params_axis,
        **options,
    )["control"]
    table = evaluate_masks(
        evaluate,
        many,
        {"unmasked": None, "control": found.mask},
        {"whole": validation},
        params_axis=params_axis,
    )
    accuracy, unmasked = (
        np.asarray(table[mask]["whole"][name]).reshape(tried, runs).mean(axis=1)
        for mask in ("control", "unmasked")
    )
    density = found.history["density"][:, -1].reshape(tried, runs).mean(axis=1)
    rows = [
        {
            "alpha": alpha,
            "beta": alpha * config.batch_size,
            "accuracy": float(accuracy[i]),
            "kept": float(accuracy[i] / max(unmasked[i], np.finfo(float).tiny)),
            "density": float(density[i]),
            "adequate": float(accuracy[i] >= keep * unmasked[i]),
        }
        for i, alpha in enumerate(alphas)
    ]
    adequate = [row["adequate"] == 1.0 for row in rows]
    if not adequate[0]:
        shown = "; ".join(f"alpha {r['alpha']:.3g}: {r['accuracy']:.4f}" for r in rows)
        raise ValueError(
            f"no alpha keeps {keep:.0%} of the unmasked {name} {unmasked[0]:.4f}: {shown}. "
            "Try smaller alphas, more steps or a higher learning rate."
        )
    first_drop = adequate.index(False) if False in adequate else tried
    return alphas[first_drop - 1], rows


def _metric_name(values: dict[str, Array], metric: str | None) -> str:
    name = metric or ("accuracy" if "accuracy" in values else next(iter(values)))
    if name not in values or (metric is None and name != "accuracy" and len(values) > 1):
        raise ValueError(f"metric={metric!r}: choose one of what evaluate returns, {list(values)}.")
    return name


def _validation(data: PyTree | Callable[..., Batch], key: Key[Array, ""]) -> PyTree:
    if callable(data):
        return data(stream_key(key, Stream.EVALUATE), batch_size=_VALIDATION_EXAMPLES)
    count = num_examples(data, "data")
    rows = np.linspace(0, count - 1, min(count, _VALIDATION_EXAMPLES)).astype(int)
    return jax.tree.map(lambda x: x[rows], data)
