"""One network learns tasks in turn, and masks keep what it has (Csordas et al. 2021, section 3.3, C.5).

For each task weights and a mask over them are trained together. What the mask of an earlier task uses stays
as it is, bit for bit; all else starts anew. So earlier tasks are solved as before, and how much of a new
mask lies on used weights tells what is reused.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from jaxmod import masks, trees
from jaxmod.estimators import gumbel_sigmoid
from jaxmod.find import MaskConfig
from jaxmod.train import devices, inputs, randomness
from jaxmod.train.axes import resolve_axes
from jaxmod.train.loops import Program, fit, observer
from jaxmod.train.state import JointState
from jaxmod.train.steps import clipped_adam, make_joint_step
from jaxmod.train.tasks import make_source
from jaxmod.types import Batch, BinaryMask, Estimator, Metrics, Params
from jaxmod.workdir import Stage, fingerprint, open_stage
from jaxmod.writers import Progress

__all__ = ["Learned", "learn_in_turn"]

_TASKS = 1001  # a stream of a run's key beside those of its training, which count from 0


class Learned(NamedTuple):
    """A network after a task, leading runs axis."""

    params: Params
    """All weights: those that are used by no mask so far are left over from this task's training."""
    mask: BinaryMask
    """Of the task."""
    used: BinaryMask
    """What the masks of earlier tasks use, without what `reset` starts anew."""
    history: dict[str, np.ndarray]


def learn_in_turn(
    loss_fn: Callable[..., Any],
    init: Callable[[Key[Array, ""]], Params],
    tasks: Iterator[tuple[str, PyTree]],
    *,
    keys: Key[Array, " runs"],
    config: MaskConfig,
    used_logit: float = 2.0,
    new_logit: float = 2.0,
    estimator: Estimator | None = None,
    reset: str | None = None,
    evaluate: Callable[[Params, Batch], dict[str, Array]] | None = None,
    stage: Callable[[str], Stage | None] = lambda name: None,
    progress: bool = False,
) -> Iterator[tuple[str, Learned]]:
    """Yields `(name, Learned)` for each task, as soon as it is learned.

    All leaves of the params are masked, biases too. Adam starts anew for every task, over weights and logits
    alike, with the rate of `config`; the gradient of used weights is zeroed before clipping.

    Args:
      loss_fn: `(params, batch, key) -> scalar`.
      init: `key -> params`.
      tasks: names and pytrees of arrays with a leading example axis, asked for one by one; the same names and
        data in the same order resume.
      keys: one for each run.
      config: of each task; `beta / batch_size` is alpha.
      used_logit: where the logits of used weights start.
      new_logit: those of all others. Below `used_logit`, masks prefer what is there (figure 15).
      estimator: of the masks, by default `gumbel_sigmoid()`; one whose logits stand for each weight alone, as
        not those of `edge_popup`, which are ranked.
      reset: a regex on paths of leaves that every task starts anew, as in the authors' later code. Earlier
        tasks then need those leaves as they were.
      evaluate: `(params, batch) -> {name: per-example values}`, run at chunk ends under the mask.
      stage: `name -> stage` of a workdir; each task is one.
      progress: report every chunk.

    Raises:
      ValueError: bad keys, params or data; `config.bfloat16`, as weights are trained here.
      NonFiniteError: a run turned NaN.
    """
    randomness.check_keys(keys)
    if config.bfloat16:
        raise ValueError("bfloat16 is for frozen weights; here they are trained. Leave it at False.")
    estimator = estimator or gumbel_sigmoid()
    params, used = None, None
    for number, (name, task) in enumerate(tasks):
        task_keys = jax.vmap(lambda key, n=number: jax.random.fold_in(jax.random.fold_in(key, _TASKS), n))(
            keys
        )
        fresh = jax.vmap(lambda key: init(randomness.stream_key(key, randomness.Stream.INIT)))(task_keys)
        inputs.check_params(fresh)
        if params is None or used is None:
            params, used = fresh, jax.tree.map(lambda w: jnp.zeros(w.shape, bool), fresh)
        kept = used
        if reset is not None and number:
            chosen = trees.select(fresh, reset)
            kept = jax.tree.map(lambda again, u: u & (not again), chosen, used)
        _warn_of_full_layers(name, kept)
        begun = jax.tree.map(jnp.where, kept, params, fresh)
        logits = jax.tree.map(lambda u: jnp.where(u, used_logit, new_logit).astype(jnp.float32), kept)
        learned = _learn(
            loss_fn, estimator, task, begun, logits, kept, task_keys, config, evaluate, stage(name), progress
        )
        yield name, learned
        params, used = learned.params, masks.union(used, learned.mask)


def _learn(
    loss_fn: Callable[..., Any],
    estimator: Estimator,
    task: PyTree,
    params: Params,
    logits: Params,
    used: BinaryMask,
    keys: Key[Array, " runs"],
    config: MaskConfig,
    evaluate: Callable[[Params, Batch], dict[str, Array]] | None,
    workdir: Stage | None,
    progress: bool,
) -> Learned:
    source, runs = make_source({"task": task}, None), len(keys)
    one = inputs.one_run(params, 0)
    inputs.check_loss(loss_fn, False, one, source, config.batch_size, config.num_samples)
    inputs.check_evaluate(evaluate, one, source, config.eval_examples)
    axes, optimizer = resolve_axes(config.axes), clipped_adam(config.clip_norm)
    program = Program(
        step=make_joint_step(loss_fn, estimator, optimizer, config.num_samples, axes.samples),
        draw=source.draw,
        observe=_observe(estimator, evaluate),
        batch_size=config.batch_size,
        observe_size=config.eval_examples,
        axes=axes,
        mesh=devices.runs_mesh(runs),
    )
    per_run = {
        "key": keys,
        "alpha": inputs.per_run("beta", config.beta, runs) / config.batch_size,
        "learning_rate": inputs.per_run("learning_rate", config.learning_rate, runs),
        "used": used,
    }

    def record() -> dict[str, Any]:
        return {
            "config": dataclasses.asdict(config),
            "estimator": estimator.name,
            "key_impl": str(jax.random.key_impl(keys)),
            "keys": fingerprint(jax.random.key_data(keys)),
            "start": fingerprint((params, logits, used)),
            "data": fingerprint((source.task, source.pool)),
        }

    state = JointState(params, logits, jax.vmap(optimizer.init)((params, logits)))
    with open_stage(workdir, "task", record) as stage:
        state, history = fit(
            program,
            jax.tree.map(lambda x: x[:, None], state),
            runs=per_run,
            tasks=source.task,
            shared={"pool": source.pool, "shared_key": randomness.shared_stream(config.seed)},
            names=source.names,
            steps=config.steps,
            chunk_steps=config.chunk_steps,
            stage=stage,
            progress=Progress(stage.name if stage else "task", config.steps) if progress else None,
        )
    params, logits = jax.tree.map(
        lambda x: x[:, 0], devices.local((state.params, state.logits), program.mesh)
    )
    history = {metric: values[:, 0] for metric, values in history.items()}
    return Learned(params, jax.vmap(estimator.threshold)(logits), used, history)


@functools.lru_cache(maxsize=16)  # the same function again, so that no program is compiled twice
def _observe(
    estimator: Estimator, evaluate: Callable[[Params, Batch], dict[str, Array]] | None
) -> Callable[[dict[str, Any], JointState, Batch], Metrics]:
    def params_of(inputs: dict[str, Any], state: JointState) -> Params:
        del inputs
        return masks.apply_mask(state.params, estimator.threshold(state.logits))

    observed = observer(params_of, evaluate)

    def observe(inputs: dict[str, Any], state: JointState, batch: Batch) -> Metrics:
        density = masks.density(estimator.threshold(state.logits))
        return {"density": density, **observed(inputs, state, batch)}

    return observe


def _warn_of_full_layers(name: str, used: BinaryMask) -> None:
    for path, u in trees.paths_and_leaves(used):
        full = np.flatnonzero(np.asarray(u).reshape(len(u), -1).all(axis=1))
        if full.size and not path.endswith("bias"):
            warnings.warn(
                f"task {name!r}: earlier tasks use every weight of {path!r} in run "
                f"{', '.join(map(str, full))}; nothing new can be learned there. Take a larger network, or a "
                "larger beta.",
                stacklevel=3,
            )
