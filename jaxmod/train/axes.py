"""One way to run a function over a leading axis: vmapped, mapped in a loop, or unrolled."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["Axes", "Mode", "over", "resolve_axes"]

Mode = Literal["vmap", "map", "unroll"]


class Axes(NamedTuple):
    """How each axis of a study is run; `None` leaves the choice to `resolve_axes`."""

    samples: Mode | None = None
    tasks: Mode | None = None
    runs: Mode | None = None


def resolve_axes(axes: Axes) -> Axes:
    """Returns `axes` with every `None` filled in for the current backend.

    Accelerators batch everything. On the CPU, unrolled samples let XLA fuse noise into the product
    with the weights, and whole chunks mapped over tasks and runs keep the matrices in the cache
    (`benchmarks/mask_step.py`).

    Raises:
      ValueError: a mode is not one of the three.
    """
    on_cpu = jax.default_backend() == "cpu"
    default = Axes("unroll", "map", "map") if on_cpu else Axes("vmap", "vmap", "vmap")
    given = {name: mode for name, mode in axes._asdict().items() if mode is not None}
    chosen = default._replace(**given)
    for name, mode in chosen._asdict().items():
        if mode not in ("vmap", "map", "unroll"):
            raise ValueError(f"axes: {name} must be 'vmap', 'map' or 'unroll', got {mode!r}.")
    return chosen


def over(f: Callable[..., Any], mode: Mode, in_axes: tuple[int | None, ...]) -> Callable[..., Any]:
    """Returns `f` run over the leading axis of the arguments whose entry in `in_axes` is 0.

    The results are stacked along a new leading axis, whatever the mode.
    """
    if mode == "vmap":
        return jax.vmap(f, in_axes)

    def merge(mapped: Any, args: tuple[Any, ...]) -> Any:
        rest = iter(mapped)
        return f(*(arg if axis is None else next(rest) for arg, axis in zip(args, in_axes, strict=True)))

    def run(*args: Any) -> Any:
        mapped = tuple(arg for arg, axis in zip(args, in_axes, strict=True) if axis is not None)
        if mode == "map":
            return lax.map(lambda xs: merge(xs, args), mapped)
        length = jax.tree.leaves(mapped)[0].shape[0]
        results = [merge(jax.tree.map(lambda x, i=i: x[i], mapped), args) for i in range(length)]
        return jax.tree.map(lambda *xs: jnp.stack(xs), *results)

    return run
