"""Runs spread over devices: each trains its own share, and none needs to hear of another.

The devices form a mesh of one axis, over the runs. Every device runs the program that it would run alone with
its share of the runs, so the compiled program has no collectives. With several hosts the mesh spans them all;
what is computed from the trained arrays is local again, the same on every host.
"""

import contextlib
import functools
import os
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import PyTree

__all__ = [
    "RUNS_AT_ONCE",
    "core_mesh",
    "each_share",
    "gather",
    "local",
    "map_runs",
    "on_several_hosts",
    "one_for_each_core",
    "own_mesh",
    "own_parts",
    "place",
    "put",
    "runs_mesh",
    "usable_cores",
]

RUNS_AT_ONCE = 16
"""What an accelerator takes of runs that are only looked at (`map_runs`)."""


def one_for_each_core() -> None:
    """Makes JAX see a device for each core of the CPU that this process may use.

    Runs that share them train more quickly, and graphs are clustered at as many times the speed. To be called
    before anything else uses JAX, and without effect after that, or where JAX has been told how many by
    JAX_NUM_CPU_DEVICES or XLA_FLAGS.
    """
    told = jax.config.jax_num_cpu_devices > 0  # pyright: ignore[reportAttributeAccessIssue]
    if told or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    with contextlib.suppress(RuntimeError):  # JAX has its devices already
        jax.config.update("jax_num_cpu_devices", usable_cores())


def usable_cores() -> int:
    """Returns how many cores of the CPU this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def runs_mesh(runs: int) -> Mesh | None:
    """Returns the devices for that many runs, None if one device takes them all.

    The most devices that can have equal shares, equally many on every host. Where the hosts cannot have
    equal shares, each trains all of the runs. A device chosen with `jax.default_device` is kept to.
    """
    if jax.config.jax_default_device is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return None
    hosts = range(jax.process_count())
    if runs % len(hosts):
        warnings.warn(
            f"{len(hosts)} hosts cannot share {runs} run{'s' * (runs > 1)} equally, so every host trains all "
            "of them. Make the runs a multiple of the hosts.",
            stacklevel=3,
        )
        hosts = [jax.process_index()]
    on_host = [jax.local_devices(host) for host in hosts]
    most = min(runs // len(hosts), *map(len, on_host))
    each = max(n for n in range(1, most + 1) if runs // len(hosts) % n == 0)
    devices = [device for local in on_host for device in local[:each]]
    if len(devices) == 1:
        return None
    # Not jax.make_mesh: it wants an order that makes talking cheap, and refuses devices that have none,
    # several nodes of GPUs or five of eight TPU cores among them. Runs do not talk.
    return Mesh(np.array(devices), ("runs",), axis_types=(AxisType.Auto,))


def own_mesh(runs: int) -> Mesh | None:
    """Returns the most devices of this host with equal shares of the runs, None if one takes them all.

    Not those of other hosts, which have other things to do: in a `Workdir.part` host 0 computes alone.
    """
    if jax.config.jax_default_device is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return None
    own = jax.local_devices()
    each = max(n for n in range(1, min(runs, len(own)) + 1) if runs % n == 0)
    return None if each == 1 else Mesh(np.array(own[:each]), ("runs",), axis_types=(AxisType.Auto,))


def core_mesh(runs: int) -> Mesh:
    """Returns the most CPU devices of this host with equal shares of the runs, one of them at least.

    Those of the CPU whatever the default backend is: for what needs every bit of float32, as accelerators
    multiply matrices with fewer, and for programs of many small steps. Where JAX was told to leave the CPU
    out (JAX_PLATFORMS=cuda), the devices that there are. A CPU device chosen with `jax.default_device` is
    kept to.
    """
    chosen = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if getattr(chosen, "platform", None) == "cpu":
        own = [chosen]
    else:
        try:
            own = jax.local_devices(backend="cpu")
        except RuntimeError:
            own = jax.local_devices()
    each = max(n for n in range(1, min(runs, len(own)) + 1) if runs % n == 0)
    return Mesh(np.array(own[:each]), ("runs",), axis_types=(AxisType.Auto,))


def map_runs(f: Callable[..., PyTree], runs: PyTree, *shared: PyTree) -> PyTree:
    """Returns `f(run, *shared)` of each run, with a leading runs axis; devices of this host share the runs.

    A core of a CPU takes one run after the other, an accelerator takes `RUNS_AT_ONCE` together.

    Args:
      f: the same function again finds the program that was compiled.
      runs: a tree of arrays with a leading runs axis.
      *shared: the same for all runs.
    """
    mesh = own_mesh(len(jax.tree.leaves(runs)[0]))
    placed = [place(tree, mesh, split=False) for tree in shared]
    at_once = None if jax.default_backend() == "cpu" else RUNS_AT_ONCE
    return local(_mapped(f, mesh, len(shared), at_once)(place(runs, mesh, split=True), *placed), mesh)


@functools.lru_cache(maxsize=64)
def _mapped(
    f: Callable[..., PyTree], mesh: Mesh | None, shared: int, at_once: int | None
) -> Callable[..., PyTree]:
    def some_at_once(runs: PyTree, *given: PyTree) -> PyTree:
        return lax.map(lambda run: f(run, *given), runs, batch_size=at_once)

    return jax.jit(each_share(some_at_once, mesh, (True, *[False] * shared)))


def each_share(f: Callable[..., Any], mesh: Mesh | None, split: tuple[bool, ...]) -> Callable[..., Any]:
    """Returns `f` as each device runs it on its share of the runs.

    Args:
      f: its results have a leading runs axis.
      mesh: None: `f` as it is.
      split: for each argument whether it has a leading runs axis; the others are whole on every device.
    """
    if mesh is None:
        return f
    specs = tuple(_spec(s) for s in split)
    # Without the check of what varies between devices: a scan in a user's loss may start from zeros.
    return jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=_spec(True), check_vma=False)


def place(tree: PyTree, mesh: Mesh | None, split: bool, donate: bool = False) -> PyTree:
    """Returns arrays of this host placed on the mesh: split along their leading runs axis, or whole.

    Args:
      tree: the same whole arrays on every host, which keeps no more than its part of them.
      mesh: None: the tree as it is.
      split: along the runs axis.
      donate: the memory of a tree that is split is given up.
    """
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, _spec(split))
    placed = jax.tree.map(lambda x: put(x, sharding), tree)
    if donate and split:
        # Split in two or more, the parts are copies; only what was there already is the same.
        for x in jax.tree.leaves(tree):
            if isinstance(x, jax.Array) and x.sharding != sharding:
                x.delete()
    return placed


def put(x: Any, sharding: Sharding) -> jax.Array:
    """Returns an array of this host under a sharding that other hosts may have a part in."""
    if sharding.is_fully_addressable or on_several_hosts(x):
        return jax.device_put(x, sharding)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = put(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    whole = np.asarray(x)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def on_several_hosts(x: Any) -> bool:
    """Returns whether other hosts have parts of an array."""
    return isinstance(x, jax.Array) and not x.is_fully_addressable


def own_parts(x: Any) -> list[tuple[int, np.ndarray]]:
    """Returns the equal parts of an array that this host has, numbered along the first axis."""
    if not on_several_hosts(x):
        return [(0, np.asarray(x))]
    rows = x.sharding.shard_shape(x.shape)[0]
    return [((shard.index[0].start or 0) // rows, np.asarray(shard.data)) for shard in x.addressable_shards]


def gather(tree: PyTree) -> PyTree:
    """Returns the whole arrays of a tree on every host, as NumPy arrays."""

    def whole(x: jax.Array) -> np.ndarray:
        return multihost_utils.process_allgather(x, tiled=True) if on_several_hosts(x) else np.asarray(x)

    return jax.tree.map(whole, tree)


def local(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Returns arrays of the mesh as ordinary ones of this host: whole, and free to be used anywhere."""
    return tree if mesh is None else jax.tree.map(jnp.asarray, gather(tree))


def _spec(split: bool) -> PartitionSpec:
    return PartitionSpec("runs") if split else PartitionSpec()
