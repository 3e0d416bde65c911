"""What the benchmarks share: chunks compiled ahead, contenders that take turns, flags, rows and tables."""

import importlib.metadata
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from absl import flags
from jax.extend import core as jex

import jaxmod as jm
from jaxmod.train import devices, loops, memory

__all__ = [
    "Chunk",
    "define_list",
    "environment",
    "parse",
    "product_flops",
    "publish",
    "ratio",
    "table",
    "take_turns",
    "verdict",
]


class Chunk:
    """A chunk of training steps, compiled ahead, and the state that it goes on from.

    Calling it runs the chunk and returns the seconds it took. It is made with a first run behind it.
    """

    def __init__(self, program: loops.Program, length: int, state: Any, runs: Any, tasks: Any, shared: Any):
        """Takes what `jaxmod.train.loops.fit` takes; `state` has no tasks axis, and is copied."""
        runs = devices.place(runs, program.mesh, split=True)
        tasks, shared = devices.place((tasks, shared), program.mesh, split=False)
        arguments = (runs, tasks, shared, jnp.int32(0))
        state = jax.tree.map(lambda x: jnp.array(x)[:, None], state)
        self._state = devices.place(state, program.mesh, split=True)
        started = time.perf_counter()
        traced = loops._compiled_chunk.trace(program, length, self._state, *arguments)
        self.estimate = memory.estimate(traced.jaxpr)
        self.flops = product_flops(traced.jaxpr.jaxpr)
        self.compiled = traced.lower().compile()
        self.compile_seconds = time.perf_counter() - started
        self._chunk = lambda state: self.compiled(state, *arguments)[0]
        self.length = length
        self()

    def __call__(self) -> float:
        started = time.perf_counter()
        self._state = jax.block_until_ready(self._chunk(self._state))
        return time.perf_counter() - started


def product_flops(jaxpr: Any) -> int:
    """Returns the multiplications and additions of a program's products and convolutions, loops in full.

    XLA's own count has a loop's body once.
    """
    total = 0
    for equation in jaxpr.eqns:
        inner = sum(map(product_flops, jex.jaxprs_in_params(equation.params)))
        total += inner * equation.params.get("length", 1)
        made = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2 * made * math.prod(shape[axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            total += 2 * made * math.prod(kernel) // outputs
    return total


def take_turns(contenders: Mapping[Any, Callable[[], float]], rounds: int) -> dict[Any, list[float]]:
    """Returns the seconds of each contender in each round: one call each a round."""
    seconds: dict[Any, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            seconds[name].append(contender())
    return seconds


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """Returns the median over the rounds of one contender's time over another's."""
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


def environment() -> dict[str, Any]:
    """Returns device and versions."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")}
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "cpus": os.cpu_count(),
        **versions,
        "jaxmod": jm.__version__,
    }


def publish(rows: Iterable[dict[str, Any]], out: str | None) -> list[dict[str, Any]]:
    """Returns the rows; each is printed as a line of JSON when it is there, to the file `out` as well."""
    kept = []
    if out is not None:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_text("")
    for row in rows:
        line = json.dumps(row)
        print(line, flush=True)
        if out is not None:
            with Path(out).open("a") as file:
                file.write(f"{line}\n")
        kept.append(row)
    return kept


def verdict(value: float, target: float | None, relation: Literal["<=", ">="]) -> str:
    """Returns the target and whether it is met; nothing where there is none.

    >>> verdict(1.3, 1.2, "<=")
    '<= 1.2 NO'
    """
    if target is None:
        return ""
    met = value <= target if relation == "<=" else value >= target
    return f"{relation} {target:g} {'yes' if met else 'NO'}"


def table(lines: Sequence[Sequence[str]]) -> str:
    """Returns lines of cells, the titles first, in columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def define_list(
    values: flags.FlagValues, name: str, default: Sequence[str], allowed: Iterable[str], text: str
):
    """Defines a flag of comma-separated words, each of which must be allowed."""
    allowed = list(allowed)
    shown = ", ".join(allowed)
    flags.DEFINE_list(name, list(default), f"{text}: some of {shown}.", flag_values=values)
    flags.register_validator(
        name,
        lambda given: bool(given) and set(given) <= set(allowed),
        f"expected one or more of {shown}.",
        flag_values=values,
    )


def parse(name: str, text: str | None, values: flags.FlagValues, argv: Sequence[str]) -> flags.FlagValues:
    """Returns the flags. They are a set of their own, so that importing a benchmark defines none."""
    flags.DEFINE_string("out", None, "a file that gets the rows too, as JSON lines.", flag_values=values)
    if {"--help", "-h"} & set(argv):
        print(f"{text}\n{values.get_help()}")
        raise SystemExit(0)
    try:
        _, *rest = values([name, *argv])
    except flags.Error as error:
        sys.exit(f"{name}: {error}")
    if rest:
        sys.exit(f"{name}: {rest[0]!r} is no option; see --help.")
    return values
