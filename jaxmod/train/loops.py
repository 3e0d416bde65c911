"""The training loop: a scanned chunk of steps, and between chunks whatever Python does.

One engine for dense weights, masks and both; the step is what differs. All tasks and runs of a stage
train in one compiled program per chunk length, the runs spread over the devices of a mesh if there is one.
"""

import functools
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array

from jaxmod import hosts
from jaxmod.train import devices, memory
from jaxmod.train.axes import Axes, over
from jaxmod.train.order import Order, ordered_rows
from jaxmod.train.randomness import StepKeys, Stream, step_keys, stream_key
from jaxmod.train.steps import Step
from jaxmod.train.tasks import Draw, take_rows
from jaxmod.types import Batch, Metrics, Params
from jaxmod.workdir import Stage
from jaxmod.writers import Progress

__all__ = ["NonFiniteError", "Program", "fit", "observer"]


class NonFiniteError(FloatingPointError):
    """A run turned NaN or infinite. With a workdir, the last checkpoint still holds all runs."""


class Program(NamedTuple):
    """What is compiled: everything static. Equal programs share their compiled code."""

    step: Step
    draw: Draw
    observe: Callable[[dict[str, Any], Any, Batch], Metrics]
    """`observe(inputs, state, batch) -> metrics` at the end of a chunk, on a fixed draw of examples."""
    batch_size: int
    observe_size: int
    axes: Axes
    mesh: Mesh | None = None
    """The devices that share the runs; None: one device has them all."""
    order: Order = "random"
    """In which the examples of a task come; any but random is for tasks that are no functions."""


def _train_one(
    program: Program, length: int, state: Any, run: Any, task: Any, shared: Any, start: Any
) -> tuple[Any, Metrics]:
    """Trains one run on one task for `length` steps and observes it at the end."""
    inputs = {**shared, **run}

    def body(state: Any, step: Any) -> tuple[Any, Metrics]:
        keys = step_keys(inputs["key"], inputs["shared_key"], step)
        return program.step(inputs, state, _batch(program, inputs, task, keys), keys)

    state, metrics = lax.scan(body, state, start + jnp.arange(length))
    batch = program.draw(
        stream_key(inputs["key"], Stream.EVALUATE), task, inputs["pool"], program.observe_size
    )
    numbers = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.inexact)]
    observed = {
        **jax.tree.map(lambda m: jnp.mean(m, axis=0), metrics),
        **program.observe(inputs, state, batch),
    }
    return state, {**observed, "finite": jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in numbers]))}


def _batch(program: Program, inputs: dict[str, Any], task: Any, keys: StepKeys) -> Batch:
    if program.order == "random":
        return program.draw(keys.data, task, inputs["pool"], program.batch_size, keys.shared)
    key = stream_key(inputs["key"], Stream.ORDER)
    rows = ordered_rows(program.order, key, keys.step, program.batch_size, task["size"])
    return take_rows(task, inputs["pool"], rows)


def _train_chunk(
    program: Program, length: int, state: Any, runs: Any, tasks: Any, shared: Any, start: Any
) -> tuple[Any, Metrics]:
    one = functools.partial(_train_one, program, length)
    for_tasks = over(one, program.axes.tasks or "vmap", (0, None, 0, None, None))
    for_runs = over(for_tasks, program.axes.runs or "vmap", (0, 0, None, None, None))
    everywhere = devices.each_share(for_runs, program.mesh, (True, True, False, False, False))
    return everywhere(state, runs, tasks, shared, start)


_compiled_chunk = jax.jit(_train_chunk, static_argnums=(0, 1), donate_argnums=2)


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


def fit(
    program: Program,
    state: Any,
    *,
    runs: dict[str, Any],
    tasks: dict[str, Any],
    shared: dict[str, Any],
    names: tuple[str, ...],
    steps: int,
    chunk_steps: int,
    stage: Stage | None = None,
    progress: Progress | None = None,
) -> tuple[Any, dict[str, np.ndarray]]:
    """Returns `(state, history)` after `steps` steps of every run on every task.

    Args:
      program: the static part.
      state: leading axes runs, tasks on every leaf; donated.
      runs: what differs between runs, `key` among it; leading runs axis.
      tasks: what tells tasks apart; leading tasks axis.
      shared: what all runs share: `pool`, `shared_key`, perhaps `params`.
      names: the tasks' names, for messages.
      steps: in all; the last chunk may be shorter.
      chunk_steps: between two looks from Python.
      stage: where checkpoints and metrics go. Its newest good checkpoint is continued.
      progress: told after every chunk.

    Returns:
      The final state, where the program left it (`devices.local` brings it home), and for each metric an
      array [runs, tasks, chunks].

    Raises:
      MemoryError: what the program is given does not fit; what to change is named.
      NonFiniteError: names run, task and the range of steps; the last checkpoint is left as it was.
    """
    progress = progress if hosts.is_first() else None
    state = devices.place(state, program.mesh, split=True, donate=True)
    runs = devices.place(runs, program.mesh, split=True)
    tasks, shared = devices.place((tasks, shared), program.mesh, split=False)
    starts = range(0, steps, chunk_steps)
    lengths = [min(chunk_steps, steps - start) for start in starts]
    traced = _compiled_chunk.trace(program, lengths[0], state, runs, tasks, shared, np.int32(0))
    history = {
        name: np.full((*x.shape, len(starts)), np.nan, np.float32)
        for name, x in traced.out_info[1].items()
        if name != "finite"
    }
    done = 0
    if stage is not None and (restored := stage.restore({"state": state, "history": history})) is not None:
        done, saved = restored
        state, history = jax.tree.map(jnp.asarray, saved["state"]), _writable(saved["history"])
    if done < steps:
        needed = memory.check(traced.jaxpr, program.axes, program.mesh)
        if progress is not None:
            print(needed, file=sys.stderr)
    for chunk, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        end = start + length
        if end <= done:
            continue
        clock = time.perf_counter()
        with memory.out_of_memory(program.axes):
            state, metrics = _compiled_chunk(program, length, state, runs, tasks, shared, np.int32(start))
            metrics = devices.gather(metrics)
        seconds = time.perf_counter() - clock
        _check_finite(metrics, names, start, end)
        for name, values in history.items():
            values[..., chunk] = metrics[name]
        if stage is not None:
            _log(stage, end, names, metrics, length / seconds)
            stage.save(end, {"state": state, "history": history})
        if progress is not None:
            progress.update(end, {name: metrics[name] for name in history})
    return state, history


def _writable(history: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.array(values) for name, values in history.items()}


def _check_finite(metrics: Mapping[str, Any], names: tuple[str, ...], start: int, end: int) -> None:
    bad = ~np.asarray(metrics["finite"]) | ~np.isfinite(metrics["loss"])
    if bad.any():
        where = ", ".join(f"run {run}, task {names[task]!r}" for run, task in np.argwhere(bad)[:10])
        raise NonFiniteError(
            f"the loss or the state is not finite in {where}, between steps {start} and {end}. "
            "Lower the learning rate or look at the data of that task. A workdir's last checkpoint is good."
        )


def _log(stage: Stage, step: int, names: tuple[str, ...], metrics: Mapping[str, Any], speed: float) -> None:
    for i, task in enumerate(names):
        values = {name: np.asarray(m)[:, i].tolist() for name, m in metrics.items() if name != "finite"}
        stage.log(step, {"task": task, **values, "steps_per_second": round(speed, 2)})
