"""Phase 1: training the networks whose modules are looked for."""

import dataclasses
from collections.abc import Callable
from os import PathLike
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key, PyTree

from jaxmod import trees
from jaxmod.train import devices, inputs, randomness
from jaxmod.train.axes import Axes, resolve_axes
from jaxmod.train.loops import Program, fit, observer
from jaxmod.train.order import MOST_POSITIONS, Order
from jaxmod.train.state import DenseState
from jaxmod.train.steps import make_dense_step
from jaxmod.train.tasks import batch_shapes, make_source
from jaxmod.types import Batch, Params
from jaxmod.workdir import Stage, Workdir, fingerprint, open_stage
from jaxmod.writers import Progress

__all__ = ["DenseConfig", "Trained", "train_network"]


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
    """Of the randomness that all runs share (`shared_key`)."""
    axes: Axes = Axes()
    order: Order = "random"
    """`random`: examples are drawn with replacement; `epochs`: each comes once in every pass, in an order of
    its own for each pass and run; `fixed`: as they are, pass after pass. Batches go on into the next pass."""

    def __post_init__(self) -> None:
        inputs.check_positive_integers(self, "steps", "batch_size", "chunk_steps", "eval_examples")
        if self.order not in get_args(Order):
            raise ValueError(
                f"DenseConfig: order must be one of {', '.join(get_args(Order))}, got {self.order!r}."
            )
        if self.order != "random" and self.steps * self.batch_size > MOST_POSITIONS:
            raise ValueError(
                f"DenseConfig: steps={self.steps} of batch_size={self.batch_size} see more than 2**32 "
                f"examples, the most that order={self.order!r} counts; take fewer, or order='random'."
            )


class Trained(NamedTuple):
    """A trained network; a leading runs axis on everything if keys was a vector."""

    params: Params
    model_state: Any
    history: dict[str, np.ndarray]


def train_network(
    dense_loss: Callable[..., Any],
    init: Callable[[Key[Array, ""]], Params] | Params,
    task: PyTree | Callable[..., Batch],
    *,
    data: PyTree | None = None,
    keys: Array,
    config: DenseConfig = DenseConfig(),
    optimizer: optax.GradientTransformation,
    model_state: Any = None,
    evaluate: Callable[[Params, Batch], dict[str, Array]] | None = None,
    workdir: str | PathLike[str] | Workdir | Stage | None = None,
    progress: bool = False,
) -> Trained:
    """Trains one network per key, all in one compiled program, shared by several devices if there are.

    Args:
      dense_loss: `(params, model_state, batch, key) -> (loss, (model_state, metrics))`. A further
        parameter named `shared_key` receives a key that all runs share in a step.
      init: `key -> params`; each run starts from its own. Or the params themselves, with a leading runs axis
        if keys is a vector, as an earlier call returned them: training goes on with a fresh optimizer.
      task: a pytree of arrays, an integer vector of rows of `data`, or a function
        `sample_batch(key, batch_size)`, which may take `data` and `shared_key` as in `find_modules`.
      data: one pool of examples on the device.
      keys: one typed key, or a vector with one per run.
      config: steps and sizes.
      optimizer: any optax transformation; its `update` may take `step` (`jaxmod.pruning`).
      model_state: what layers carry along, e.g. BatchNorm statistics; the same start for all runs.
      evaluate: `(params, batch) -> {name: per-example values}`, run at chunk ends.
      workdir: where checkpoints and metrics go: a folder, an open `Workdir`, or one of its stages. The
        same call again resumes; other values are refused (functions cannot be compared).
      progress: report every chunk.

    Raises:
      ValueError: bad keys, params or data; an order other than random for a task that is a function.
      MemoryError: what the program is given does not fit; what to change is named.
      NonFiniteError: a run turned NaN.
    """
    randomness.check_keys(keys)
    source = make_source({"network": task}, data)
    if source.functions and config.order != "random":
        raise ValueError(
            f"order={config.order!r} needs a task of arrays or of rows of data; a function makes its own "
            "batches."
        )
    batch_shapes(source, config.batch_size)  # raises for a function whose batches have another size
    one_run = keys.ndim == 0
    keys = jnp.atleast_1d(keys)
    params = _start(init, keys, one_run)
    state = DenseState(params, _stack(model_state, len(keys)), jax.vmap(optimizer.init)(params))
    program = Program(
        step=make_dense_step(dense_loss, optimizer),
        draw=source.draw,
        observe=observer(_dense_params, evaluate),
        batch_size=config.batch_size,
        observe_size=config.eval_examples,
        axes=resolve_axes(config.axes),
        mesh=devices.runs_mesh(len(keys)),
        order=config.order,
    )

    def record() -> dict[str, Any]:
        return {
            "config": dataclasses.asdict(config),
            "key_impl": str(jax.random.key_impl(keys)),
            "keys": fingerprint(jax.random.key_data(keys)),
            "start": fingerprint((params, model_state)),
            "data": fingerprint((source.task, source.pool)),
        }

    with open_stage(workdir, "network", record) as stage:
        state, history = fit(
            program,
            jax.tree.map(lambda x: x[:, None], state),
            runs={"key": keys},
            tasks=source.task,
            shared={"pool": source.pool, "shared_key": randomness.shared_stream(config.seed)},
            names=source.names,
            steps=config.steps,
            chunk_steps=config.chunk_steps,
            stage=stage,
            progress=Progress(stage.name if stage else "network", config.steps) if progress else None,
        )
    pick = (0, 0) if one_run else (slice(None), 0)
    trained = (*devices.local((state.params, state.model_state), program.mesh), history)
    return Trained(*jax.tree.map(lambda x: x[pick], trained))


def _start(init: Callable[..., Params] | Params, keys: Array, one_run: bool) -> Params:
    """Returns the params of every run, leading runs axis."""
    # Not whether it can be called: a model of Equinox can, and is a tree of arrays.
    if not any(isinstance(x, (jax.Array, np.ndarray)) for x in jax.tree.leaves(init)):
        if not callable(init):
            raise ValueError(
                f"init must be a function of a key or params, got {init!r}, which has no arrays."
            )
        return jax.vmap(lambda key: init(randomness.stream_key(key, randomness.Stream.INIT)))(keys)
    trees.check_arrays(init)
    inputs.check_params(init)
    params = jax.tree.map(lambda x: jnp.asarray(x)[None] if one_run else jnp.asarray(x), init)
    for path, leaf in trees.paths_and_leaves(params):
        if leaf.shape[:1] != keys.shape:
            raise ValueError(
                f"init leaf {path!r} has shape {leaf.shape}, expected a leading axis of {len(keys)} runs, "
                "one per key."
            )
    return params


def _dense_params(inputs: dict[str, Any], state: DenseState) -> Params:
    del inputs
    return state.params


def _stack(tree: PyTree, runs: int) -> PyTree:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (runs, *jnp.shape(x))), tree)
