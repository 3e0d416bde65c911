"""Phase 1: training the networks whose modules are looked for."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key, PyTree

from jaxmod.train import randomness
from jaxmod.train.axes import Axes, resolve_axes
from jaxmod.train.loops import Program, fit
from jaxmod.train.state import DenseState
from jaxmod.train.steps import make_dense_step
from jaxmod.train.tasks import make_source
from jaxmod.types import Batch, Metrics, Params
from jaxmod.workdir import Stage
from jaxmod.writers import Progress

__all__ = ["DenseConfig", "Trained", "observer", "train_network"]


@dataclasses.dataclass(frozen=True)
class DenseConfig:
    """How long and on what batches a network is trained; the optimizer has the rest."""

    steps: int = 20_000
    batch_size: int = 128
    chunk_steps: int = 1000
    """Steps in one compiled call; evaluation, metrics and checkpoints happen between calls."""
    eval_examples: int = 1024
    """Examples that `evaluate` sees at the end of a chunk: one fixed draw per run."""
    seed: int = 0
    """Of the randomness that all runs share."""
    axes: Axes = Axes()

    def __post_init__(self) -> None:
        check_positive(self, "steps", "batch_size", "chunk_steps", "eval_examples")


class Trained(NamedTuple):
    """A trained network; a leading runs axis on everything if keys was a vector."""

    params: Params
    model_state: Any
    history: dict[str, np.ndarray]


def check_positive(config: Any, *names: str) -> None:
    """Raises ValueError naming the first of the fields that is no positive integer."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{type(config).__name__}: {name} must be a positive integer, got {value!r}.")


@functools.lru_cache(maxsize=64)
def observer(
    params_of: Callable[[dict[str, Any], Any], Params],
    evaluate: Callable[[Params, Batch], dict[str, Array]] | None,
) -> Callable[[dict[str, Any], Any, Batch], Metrics]:
    """Returns `observe(inputs, state, batch)`: the means of what `evaluate` says of each example."""

    def observe(inputs: dict[str, Any], state: Any, batch: Batch) -> Metrics:
        if evaluate is None:
            return {}
        return {name: jnp.mean(x) for name, x in evaluate(params_of(inputs, state), batch).items()}

    return observe


def train_network(
    dense_loss: Callable[..., Any],
    init: Callable[[Key[Array, ""]], Params],
    task: PyTree | Callable[..., Batch],
    *,
    data: PyTree | None = None,
    keys: Array,
    config: DenseConfig = DenseConfig(),
    optimizer: optax.GradientTransformation,
    model_state: Any = None,
    evaluate: Callable[[Params, Batch], dict[str, Array]] | None = None,
    workdir: Stage | None = None,
    progress: bool = False,
) -> Trained:
    """Trains one network per key, all in one compiled program.

    Args:
      dense_loss: `(params, model_state, batch, key) -> (loss, (model_state, metrics))`.
      init: `key -> params`; each run starts from its own.
      task: a pytree of arrays, an integer vector of rows of `data`, or a function
        `sample_batch(key, batch_size)`, which may take a third argument `data`.
      data: one pool of examples on the device.
      keys: one typed key, or a vector with one per run.
      config: steps and sizes.
      optimizer: any optax transformation.
      model_state: what layers carry along, e.g. BatchNorm statistics; the same start for all runs.
      evaluate: `(params, batch) -> {name: per-example values}`, run at chunk ends.
      workdir: the stage of a `Workdir` in which checkpoints and metrics go.
      progress: report every chunk.

    Raises:
      ValueError: bad keys or data.
      NonFiniteError: a run turned NaN.
    """
    randomness.check_keys(keys)
    source = make_source({"network": task}, data)
    one_run = keys.ndim == 0
    keys = jnp.atleast_1d(keys)
    params = jax.vmap(lambda key: init(randomness.stream_key(key, randomness.Stream.INIT)))(keys)
    state = DenseState(params, _stack(model_state, len(keys)), jax.vmap(optimizer.init)(params))
    program = Program(
        step=make_dense_step(dense_loss, optimizer),
        draw=source.draw,
        observe=observer(_dense_params, evaluate),
        batch_size=config.batch_size,
        observe_size=config.eval_examples,
        axes=resolve_axes(config.axes),
    )
    state, history = fit(
        program,
        jax.tree.map(lambda x: x[:, None], state),
        runs={"key": keys},
        tasks=source.task,
        shared={"pool": source.pool, "shared_key": jax.random.key(config.seed)},
        names=source.names,
        steps=config.steps,
        chunk_steps=config.chunk_steps,
        stage=workdir,
        progress=Progress(workdir.name if workdir else "network", config.steps) if progress else None,
    )
    pick = (0, 0) if one_run else (slice(None), 0)
    state, history = jax.tree.map(lambda x: x[pick], (state, history))
    return Trained(state.params, state.model_state, history)


def _dense_params(inputs: dict[str, Any], state: DenseState) -> Params:
    del inputs
    return state.params


def _stack(tree: PyTree, runs: int) -> PyTree:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (runs, *jnp.shape(x))), tree)
