"""Tasks as data on the device: what the engine draws batches from.

A task is a pytree of arrays, a vector of rows of a common pool, or a function that makes batches.
All tasks of a study live in one pool, so that they can be drawn from in one compiled program.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Key, PyTree

from jaxmod import trees
from jaxmod.types import Batch

__all__ = ["Draw", "batch_shapes", "Source", "check_rows", "make_source", "num_examples", "take_rows"]

Draw = Callable[..., Batch]
"""`draw(key, task, pool, batch_size, shared_key=None) -> batch`."""


class Source(NamedTuple):
    """All tasks of a study, ready to be drawn from."""

    names: tuple[str, ...]
    draw: Draw
    """Static: the same for equal kinds of tasks, so that programs are reused."""
    task: dict[str, Array]
    """What tells the tasks apart; leading tasks axis."""
    pool: Any
    """Arrays that all tasks share."""
    functions: tuple[Callable[..., Batch], ...] = ()
    """The tasks that are functions, by name; their batches are only known when they are called."""


def num_examples(task: PyTree, name: str) -> int:
    """Returns the length of a task's example axis.

    Raises:
      ValueError: no arrays, no examples, a scalar leaf, or leaves of different lengths.
    """
    leaves = trees.paths_and_leaves(task)
    if not leaves:
        raise ValueError(f"task {name!r} holds no arrays.")
    lengths = {}
    for path, leaf in leaves:
        if np.ndim(leaf) == 0:
            raise ValueError(f"task {name!r}: leaf {path!r} is a scalar, expected a leading example axis.")
        lengths[path] = np.shape(leaf)[0]
    (first, length), *rest = lengths.items()
    for path, other in rest:
        if other != length:
            raise ValueError(
                f"task {name!r}: leaf {path!r} has {other} examples, but {first!r} has {length}; "
                "all arrays of a task need the same length."
            )
    if length == 0:
        raise ValueError(f"task {name!r} has no examples.")
    return length


def make_source(tasks: Mapping[str, Any], data: PyTree | None = None) -> Source:
    """Returns the source of a study's batches.

    Args:
      tasks: name -> a pytree of arrays, an integer vector of rows of `data`, or a function
        `sample_batch(key, batch_size)`; a function with a parameter named `data` receives the pool, one
        with a parameter named `shared_key` a key that all runs share in a step. It needs a default: what
        is drawn to be observed is drawn without it.
      data: the pool of examples that index vectors and functions read.

    Raises:
      ValueError: no tasks, kinds mixed, or a task that no batch can be drawn from.
    """
    if not tasks:
        raise ValueError("tasks is empty, expected at least one named task.")
    names = tuple(tasks)
    for name in names:
        if not isinstance(name, str) or "/" in name or not name:
            raise ValueError(f"task name {name!r} must be a word without '/': it is part of paths in files.")
    pool = None if data is None else jax.tree.map(jnp.asarray, data)
    size = 0 if data is None else num_examples(data, "data")
    functions = [callable(task) for task in tasks.values()]
    if all(functions):
        made = tuple(tasks.values())
        for name, f in tasks.items():
            _check_parameters(name, f, pool)
        return Source(names, _draw_from_functions(made), {"index": jnp.arange(len(names))}, pool, made)
    if any(functions):
        raise ValueError("tasks mixes functions and arrays; give every task in the same way.")
    if pool is not None:
        rows = [check_rows(name, task, size) for name, task in tasks.items()]
        lengths = [len(r) for r in rows]
        contents = {"examples": pool, "rows": jnp.asarray(np.concatenate(rows))}
    else:
        lengths = [num_examples(task, name) for name, task in tasks.items()]
        contents = {"examples": _concatenate(tasks)}
    ends = np.cumsum(lengths)
    if ends[-1] >= 2**31:
        raise ValueError(f"the tasks hold {ends[-1]} examples together, the limit is 2**31 - 1.")
    task = {"offset": jnp.asarray(ends - lengths, jnp.int32), "size": jnp.asarray(lengths, jnp.int32)}
    return Source(names, _draw_rows, task, contents)


def batch_shapes(source: Source, batch_size: int) -> PyTree:
    """Returns the shapes and dtypes of a batch, which are those of every task.

    Raises:
      ValueError: a task that is a function gives batches of another size, or unlike the first task's.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    if not source.functions:
        task = jax.tree.map(lambda x: x[0], source.task)
        return jax.eval_shape(lambda key: source.draw(key, task, source.pool, batch_size), key)
    shapes = []
    for name, f in zip(source.names, source.functions, strict=True):
        call = functools.partial(_call, f, batch_size, _arguments(f, data=source.pool))
        shapes.append(jax.eval_shape(call, key))
        if (got := num_examples(shapes[-1], name)) != batch_size:
            raise ValueError(f"task {name!r}: sample_batch gave {got} examples when asked for {batch_size}.")
        if jax.tree.structure(shapes[-1]) != jax.tree.structure(shapes[0]) or shapes[-1] != shapes[0]:
            first = source.names[0]
            raise ValueError(
                f"tasks {first!r} and {name!r} give batches that differ: {shapes[0]} and {shapes[-1]}."
            )
    return shapes[0]


def _check_parameters(name: str, f: Callable[..., Batch], pool: Any) -> None:
    """Raises ValueError if a task has a parameter without a value, with what is always there."""
    try:
        inspect.signature(f).bind(None, 0, **_arguments(f, data=pool))
    except TypeError as error:
        raise ValueError(
            f"task {name!r} cannot be called: {error}. Expected sample_batch(key, batch_size), if need be "
            "with data, where data are given, and shared_key=None, which has to have a default."
        ) from error


def _arguments(f: Callable[..., Batch], **offered: Any) -> dict[str, Any]:
    """Returns those of the arguments offered that `f` has parameters for; None is no offer."""
    wanted = inspect.signature(f).parameters
    return {name: value for name, value in offered.items() if name in wanted and value is not None}


def _call(f: Callable[..., Batch], batch_size: int, extra: dict[str, Any], key: Key[Array, ""]) -> Batch:
    return f(key, batch_size, **extra)


def _draw_rows(
    key: Key[Array, ""],
    task: dict[str, Array],
    pool: Any,
    batch_size: int,
    shared_key: Key[Array, ""] | None = None,
) -> Batch:
    """Draws examples independently and with replacement, as the authors' code does."""
    del shared_key
    return take_rows(task, pool, jax.random.randint(key, (batch_size,), 0, task["size"]))


def take_rows(task: dict[str, Array], pool: Any, rows: Int[Array, " batch"]) -> Batch:
    """Returns the examples of a task, no function, in some of its rows."""
    rows = task["offset"] + rows
    take = functools.partial(_take, rows=rows)
    if "rows" in pool:
        take = functools.partial(_take, rows=_take(pool["rows"], rows))
    return jax.tree.map(take, pool["examples"])


def _take(x: Array, rows: Array) -> Array:
    return x.at[rows].get(mode="promise_in_bounds")


@functools.lru_cache(maxsize=64)
def _draw_from_functions(functions: tuple[Callable[..., Batch], ...]) -> Draw:
    def draw(
        key: Key[Array, ""],
        task: dict[str, Array],
        pool: Any,
        batch_size: int,
        shared_key: Key[Array, ""] | None = None,
    ) -> Batch:
        offered = {"data": pool, "shared_key": shared_key}
        branches = [functools.partial(_call, f, batch_size, _arguments(f, **offered)) for f in functions]
        return lax.switch(task["index"], branches, key)

    return draw


def check_rows(name: str, task: Any, size: int) -> np.ndarray:
    """Returns a task's rows of a pool of `size` examples.

    Raises:
      ValueError: not an integer vector, empty, or a row that the pool does not have.
    """
    rows = np.asarray(task) if isinstance(task, (np.ndarray, jax.Array)) else None
    if rows is None or rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
        came = "a pytree" if rows is None else f"an array of {rows.dtype} and shape {rows.shape}"
        raise ValueError(
            f"task {name!r} is {came}; with data given, a task is an integer vector of rows of data "
            "(np.flatnonzero turns a bool vector into one)."
        )
    num_examples(rows, name)
    if rows.min() < 0 or rows.max() >= size:
        bad = rows.min() if rows.min() < 0 else rows.max()
        raise ValueError(f"task {name!r} has row {bad}, but data has {size} examples.")
    return rows.astype(np.int32)


def _concatenate(tasks: Mapping[str, PyTree]) -> PyTree:
    (first, like), *rest = tasks.items()
    structure = jax.tree.structure(like)
    for name, task in rest:
        if jax.tree.structure(task) != structure:
            raise ValueError(
                f"tasks {first!r} and {name!r} differ in structure: {structure} and "
                f"{jax.tree.structure(task)}; all tasks need the same arrays."
            )
        for (path, a), b in zip(trees.paths_and_leaves(like), jax.tree.leaves(task), strict=True):
            if (np.shape(a)[1:], a.dtype) != (np.shape(b)[1:], b.dtype):
                raise ValueError(
                    f"tasks {first!r} and {name!r} differ at leaf {path!r}: examples of shape "
                    f"{np.shape(a)[1:]} and {a.dtype} against {np.shape(b)[1:]} and {b.dtype}."
                )
    return jax.tree.map(lambda *xs: jnp.concatenate([jnp.asarray(x) for x in xs]), *tasks.values())
