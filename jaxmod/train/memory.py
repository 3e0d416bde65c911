"""How much memory a program needs, said before it is compiled.

The traced program is walked in its order, counting the bytes of the arrays that are alive at once. What XLA
fuses away and what it adds in copies about cancel where several samples are drawn; with one sample its own
count, after compiling, is less than half of this one (`benchmarks/memory.py`). How the axes are run is in the
program itself: a vmapped axis is in the shapes, a mapped one is a loop whose body counts once.
"""

import contextlib
import math
import os
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.sharding import Mesh

from jaxmod.train.axes import Axes

__all__ = ["Memory", "check", "estimate", "out_of_memory"]


class Memory(NamedTuple):
    """Bytes on one device."""

    arguments: int
    """What the program is given: weights, optimizer state, data."""
    temporaries: int
    """What it makes on the way, at most at one time."""


def estimate(program: core.ClosedJaxpr) -> Memory:
    """Returns what a traced program needs, on each device if it is spread over several."""
    shares = [
        inner for eqn in program.jaxpr.eqns if eqn.primitive.name == "shard_map" for inner in _inner(eqn)
    ]
    jaxpr = shares[0] if shares else program.jaxpr
    return Memory(sum(map(_size, [*jaxpr.constvars, *jaxpr.invars])), _most_alive(jaxpr))


def check(program: core.ClosedJaxpr, axes: Axes, mesh: Mesh | None = None) -> str:
    """Returns a line that says how much of the memory a program is going to take.

    Warns if it may not fit: the estimate of what it makes on the way is rough, so half of that counts, and
    the program is let through.

    Raises:
      MemoryError: what it is given alone does not fit.
    """
    arguments, temporaries = estimate(program)
    limit, devices = _limit(mesh)
    where = f" on each of {devices} devices" if devices > 1 else ""
    line = f"memory: about {_bytes(arguments + temporaries)} of {_bytes(limit)}{where}"
    if arguments > limit:
        raise MemoryError(
            f"{line}; its weights, optimizer state and data alone take {_bytes(arguments)}. "
            "Train fewer runs or tasks at a time, or on more devices."
        )
    if arguments + temporaries / 2 > limit:
        warnings.warn(
            f"{line}; {_bytes(temporaries)} of it for what is alive at once within a step. If it does not "
            f"fit, {_options(axes)}.",
            stacklevel=2,
        )
    return line


@contextlib.contextmanager
def out_of_memory(axes: Axes) -> Iterator[None]:
    """Turns XLA's word that a device is full into a MemoryError that says what to change."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        advice = f"Train fewer runs or tasks at a time, or {_options(axes)}."
        raise MemoryError(f"the program does not fit. {advice} XLA said: {error}") from error


def _options(axes: Axes) -> str:
    modes = [f"{name}='map'" for name, mode in axes._asdict().items() if mode != "map"]
    options = [f"axes=Axes({', '.join(modes)})"] * bool(modes) + ["a smaller batch_size or eval_examples"]
    return f"give {', '.join(options)}, or (for masks) a smaller num_samples"


def _most_alive(jaxpr: core.Jaxpr) -> int:
    """Returns the most bytes alive at once of what a program makes, its results included."""
    last_use = {v: i for i, eqn in enumerate(jaxpr.eqns) for v in eqn.invars if isinstance(v, core.Var)}
    last_use |= {v: len(jaxpr.eqns) for v in jaxpr.outvars if isinstance(v, core.Var)}
    alive: dict[core.Var, int] = {}
    total = most = 0
    for i, eqn in enumerate(jaxpr.eqns):
        made = {v: _size(v) for v in eqn.outvars}
        inner = max(map(_most_alive, _inner(eqn)), default=0)
        # A loop stacks its results besides what its body makes; the results of a call are its body's.
        loop = eqn.primitive.name in ("scan", "while")
        now = inner + sum(made.values()) if loop else max(inner, sum(made.values()))
        most = max(most, total + now)
        kept = {v: size for v, size in made.items() if last_use.get(v, i) > i}
        used = {v for v in eqn.invars if isinstance(v, core.Var) and last_use[v] == i}
        total += sum(kept.values()) - sum(alive.pop(v, 0) for v in used)
        alive |= kept
    return most


def _inner(eqn: core.JaxprEqn) -> list[core.Jaxpr]:
    """Returns the programs inside a step of a program: a loop's body, the branches of a condition."""
    values = [x for v in eqn.params.values() for x in (v if isinstance(v, tuple | list) else (v,))]
    closed = [v.jaxpr if isinstance(v, core.ClosedJaxpr) else v for v in values]
    return [v for v in closed if isinstance(v, core.Jaxpr)]


def _size(v: core.Var) -> int:
    aval: Any = v.aval
    if not hasattr(aval, "dtype"):
        return 0
    # The elements of a key array say nothing of their size; keys of any generator are small.
    size = 16 if jnp.issubdtype(aval.dtype, jax.dtypes.prng_key) else aval.dtype.itemsize
    return math.prod(aval.shape) * size


def _limit(mesh: Mesh | None) -> tuple[int, int]:
    """Returns the bytes that each device has, and how many devices there are."""
    local = jax.local_devices()[:1] if mesh is None else list(mesh.local_devices)
    stats = local[0].memory_stats() or {}
    # The CPU's devices have no memory of their own but share the machine's.
    ram = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // len(local)
    return stats.get("bytes_limit", ram), 1 if mesh is None else mesh.size


def _bytes(count: float) -> str:
    """Returns `"1.2 GB"`."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.2g} {name}" if count < 10 * unit else f"{count / unit:.0f} {name}"
    return f"{count / 1e3:.0f} kB"
