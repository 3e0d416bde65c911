"""Finding modules: one mask per task over frozen weights, for all tasks and runs at once."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, PyTree

from jaxmod import masks, trees
from jaxmod.estimators import gumbel_sigmoid
from jaxmod.train import devices, inputs, precision, randomness
from jaxmod.train.axes import Axes, resolve_axes
from jaxmod.train.loops import Program, fit, observer
from jaxmod.train.state import MaskState
from jaxmod.train.steps import clipped_adam, combine, make_mask_step
from jaxmod.train.tasks import make_source
from jaxmod.types import Batch, BinaryMask, Estimator, Logits, Metrics, Params, Where
from jaxmod.workdir import Stage, Workdir, fingerprint, open_stage
from jaxmod.writers import Progress

__all__ = ["Found", "MaskConfig", "find_modules"]


@dataclasses.dataclass(frozen=True)
class MaskConfig:
    """How masks are trained; the defaults are those of the addition/multiplication experiment."""

    steps: int = 20_000
    batch_size: int = 128
    num_samples: int = 4
    """Masks sampled per step, each for its part of the batch."""
    learning_rate: ArrayLike = 1e-2
    """A number, or one per run. Not used if an optimizer is given."""
    beta: ArrayLike = 1e-4
    """A number, or one per run. The penalty's weight is `alpha = beta / batch_size`."""
    clip_norm: float | None = 1.0
    """Largest global norm of the gradient of the trained logits; None: no clipping."""
    chunk_steps: int = 1000
    """Steps in one compiled call; evaluation, metrics and checkpoints happen between calls."""
    eval_examples: int = 1024
    """Examples that `evaluate` sees at the end of a chunk: one fixed draw per run."""
    seed: int = 0
    """Of the randomness that all runs share (`shared_key`)."""
    axes: Axes = Axes()
    """How samples, tasks and runs are run; by default as measured best for the backend."""
    bfloat16: bool = False
    """Frozen weights and examples in bfloat16, and with them the activations of a model that takes its
    dtype from them. Logits, their gradient and the optimizer stay float32; so should the loss."""

    def __post_init__(self) -> None:
        inputs.check_positive_integers(
            self, "steps", "batch_size", "num_samples", "chunk_steps", "eval_examples"
        )
        if self.batch_size % self.num_samples:
            raise ValueError(
                f"MaskConfig: num_samples={self.num_samples} does not divide batch_size={self.batch_size}; "
                "each sample needs an equal part of the batch."
            )
        for name, lowest in (("learning_rate", "positive"), ("beta", "zero or more")):
            value = np.asarray(getattr(self, name), float)
            if not np.isfinite(value).all() or (value < 0).any() or (name != "beta" and (value == 0).any()):
                raise ValueError(f"MaskConfig: {name} must be {lowest}, got {getattr(self, name)}.")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"MaskConfig: clip_norm must be positive or None, got {self.clip_norm}.")


class Found(NamedTuple):
    """A module: the mask that performs a task, and how it was found.

    All leaves have a leading runs axis if keys was a vector.
    """

    mask: BinaryMask
    logits: Logits
    history: dict[str, np.ndarray]
    """`{name: [chunks]}`: loss, density, and what `evaluate` gives for the thresholded mask."""


def find_modules(
    loss_fn: Callable[..., Any],
    params: Params,
    tasks: Mapping[str, Any],
    *,
    keys: Array,
    config: MaskConfig = MaskConfig(),
    where: Where = trees.DEFAULT_WHERE,
    estimator: Estimator | None = None,
    data: PyTree | None = None,
    evaluate: Callable[[Params, Batch], dict[str, Array]] | None = None,
    optimizer: optax.GradientTransformation | None = None,
    logits: Logits | None = None,
    trainable: PyTree | str | None = None,
    params_axis: int | None = None,
    has_aux: bool = False,
    workdir: str | PathLike[str] | Workdir | Stage | None = None,
    progress: bool = False,
) -> dict[str, Found]:
    """Returns the module of every task: `{name: Found(mask, logits, history)}`.

    The weights are frozen; per task and run a mask over them is trained on the task's data alone
    (Csordas et al. 2021, section 3). All tasks and runs train together in one compiled program. Run i
    draws bit for bit the noise and batches that it draws alone; the order of tasks changes nothing.
    Several devices share the runs, as many as can have equal shares; what is returned is on one.

    Args:
      loss_fn: `(params, batch, key) -> scalar`, or `(scalar, metrics)` with `has_aux`. A further
        parameter named `shared_key` receives a key that all runs share in a step.
      params: any pytree of arrays.
      tasks: name -> a pytree of arrays with a leading example axis, an integer vector of rows of
        `data`, or a function `sample_batch(key, batch_size)`, which may also take `data`, and
        `shared_key=None`: the key that all runs share in a step, not given where examples are drawn to be
        evaluated.
      keys: one typed key, or a vector with one per run.
      config: steps, sizes, rates.
      where: the leaves to mask: a regex on paths, or `(path, leaf) -> bool`.
      estimator: default `gumbel_sigmoid()`.
      data: one pool of examples on the device, for tasks that are rows of it.
      evaluate: `(params, batch) -> {name: per-example values}`, run at chunk ends on the thresholded
        mask with a fixed draw of the task's examples.
      optimizer: any optax transformation; default: clipping by global norm over the trained logits,
        then Adam (eps 1e-8).
      logits: start values, which then say what is masked in place of `where`; a leaf may have a
        leading runs axis.
      trainable: a tree of bools or a regex: the masked leaves to train. The others are sampled from
        their start values but stay as they are.
      params_axis: 0 if params are stacked along a runs axis; None: one network for all keys.
      has_aux: `loss_fn` returns `(loss, {name: scalar})`.
      workdir: a folder (made if missing) for checkpoints, metrics and masks; the same call again
        resumes, another config, params or data are refused (functions cannot be compared: a changed
        loss or optimizer wants a new folder). Or an open `Workdir`, or one of its stages.
      progress: report every chunk.

    Raises:
      ValueError: bad input, named; nothing was computed.
      MemoryError: what the program is given does not fit; what to change is named.
      NonFiniteError: a run turned NaN; the last checkpoint in `workdir` holds all runs.
    """
    estimator = gumbel_sigmoid() if estimator is None else estimator
    randomness.check_keys(keys)
    run_keys = jnp.atleast_1d(keys)
    runs = inputs.num_runs(keys, params, params_axis)
    first = inputs.one_run(params, params_axis)
    start = inputs.start_logits(run_keys, first, where, estimator, logits)
    trained, held = inputs.split_trainable(start, trainable)
    inputs.check_params(params)
    used, source = params, make_source(tasks, data)
    if config.bfloat16:
        used, first = precision.to_bfloat16((params, first))
        functions = tuple(map(precision.draw_bfloat16, source.functions))
        source = source._replace(draw=precision.draw_bfloat16(source.draw), functions=functions)
    num_samples = config.num_samples if estimator.stochastic else 1
    inputs.check_loss(loss_fn, has_aux, first, source, config.batch_size, num_samples)
    inputs.check_evaluate(evaluate, first, source, config.eval_examples)
    per_run = {
        "key": run_keys,
        "alpha": inputs.per_run("beta", config.beta, runs) / config.batch_size,
        "learning_rate": inputs.per_run("learning_rate", config.learning_rate, runs),
        "held": held,
    }
    shared = {"pool": source.pool, "shared_key": randomness.shared_stream(config.seed)}
    (per_run if params_axis == 0 else shared)["params"] = jax.tree.map(jnp.asarray, used)

    axes = resolve_axes(config.axes)
    optimizer = clipped_adam(config.clip_norm) if optimizer is None else optimizer
    program = Program(
        step=make_mask_step(loss_fn, estimator, optimizer, num_samples, axes.samples, has_aux),
        draw=source.draw,
        observe=_make_observe(estimator, evaluate),
        batch_size=config.batch_size,
        observe_size=config.eval_examples,
        axes=axes,
        mesh=devices.runs_mesh(runs),
    )
    names = source.names
    each_task = jax.tree.map(lambda x: jnp.repeat(x[:, None], len(names), axis=1), trained)
    state = MaskState(each_task, jax.vmap(jax.vmap(optimizer.init))(each_task))

    def record() -> dict[str, Any]:
        return {
            "config": dataclasses.asdict(config),
            "estimator": estimator.name,
            "key_impl": str(jax.random.key_impl(keys)),
            "keys": fingerprint(jax.random.key_data(keys)),
            "masked": [path for path, _ in trees.paths_and_leaves(start)],
            "trained": [path for path, _ in trees.paths_and_leaves(trained)],
            "start": fingerprint(start),
            "tasks": list(names),
            "params": fingerprint(params),
            "data": fingerprint((source.task, source.pool)),
        }

    with open_stage(workdir, "masks", record) as stage:
        state, history = fit(
            program,
            state,
            runs=per_run,
            tasks=source.task,
            shared=shared,
            names=names,
            steps=config.steps,
            chunk_steps=config.chunk_steps,
            stage=stage,
            progress=Progress(stage.name if stage else "masks", config.steps) if progress else None,
        )
        final = devices.local(state.logits, program.mesh)
        found = {}
        for i, name in enumerate(names):
            whole = combine(jax.tree.map(lambda x, i=i: x[:, i], final), held)
            mask = jax.vmap(estimator.threshold)(whole)  # each run by itself: it may rank the logits
            _warn_of_empty_layers(name, mask)
            if keys.ndim == 0:
                mask, whole = jax.tree.map(lambda x: x[0], (mask, whole))
            pick = (0, i) if keys.ndim == 0 else (slice(None), i)
            task_history = {metric: values[pick] for metric, values in history.items()}
            found[name] = Found(mask, whole, task_history)
        if stage is not None and not isinstance(workdir, Stage | Workdir):
            masks.save_masks(
                stage.workdir / "masks.npz", {name: module.mask for name, module in found.items()}
            )
    return found


@functools.lru_cache(maxsize=64)
def _make_observe(
    estimator: Estimator, evaluate: Callable[[Params, Batch], dict[str, Array]] | None
) -> Callable[[dict[str, Any], MaskState, Batch], Metrics]:
    def params_of(inputs: dict[str, Any], state: MaskState) -> Params:
        return masks.apply_mask(inputs["params"], estimator.threshold(combine(state.logits, inputs["held"])))

    observed = observer(params_of, evaluate)

    def observe(inputs: dict[str, Any], state: MaskState, batch: Batch) -> Metrics:
        mask = estimator.threshold(combine(state.logits, inputs["held"]))
        return {"density": masks.density(mask), **observed(inputs, state, batch)}

    return observe


def _warn_of_empty_layers(task: str, mask: BinaryMask) -> None:
    """Warns of layers that keep nothing in some run: whatever they pass on is lost (C.6.1).

    Not of biases, without which a layer still passes on its inputs.
    """
    runs = jax.tree.leaves(mask)[0].shape[0]
    for run in range(runs):
        paths = masks.empty_layers(jax.tree.map(lambda m, run=run: m[run], mask))
        empty = [path for path in paths if not path.endswith("bias")]
        if empty:
            warnings.warn(
                f"task {task!r}, run {run}: the mask keeps no weight of {', '.join(map(repr, empty))}. "
                "Lower beta, or give the layer fewer interchangeable weights.",
                stacklevel=3,
            )
