"""Runs on the two simulated devices of the test process; eight, and two hosts, are in `test_spread.py`."""

import contextlib
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmod as jm
from jaxmod.train import devices, loops
from jaxmod.train.axes import Axes
from tests.helpers import tiny_data, tiny_loss, tiny_params

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


@pytest.mark.parametrize(
    ("runs", "on_host", "expected"),
    [
        (8, [8], 8), (10, [8], 5), (6, [8], 6), (7, [8], 7), (11, [8], None), (1, [8], None), (3, [1], None),
        (8, [1, 1], 2), (8, [4, 4], 8), (6, [4, 4], 6), (10, [4, 4], 2), (12, [4, 3], 6), (2, [4, 4], 2),
        (9, [4, 4], 3), (1, [4, 4], None),
    ],
)  # fmt: skip
def test_the_most_devices_with_equal_shares(monkeypatch, runs, on_host, expected):
    monkeypatch.setattr(jax, "process_count", lambda: len(on_host))
    monkeypatch.setattr(jax, "process_index", lambda: 0)
    monkeypatch.setattr(jax, "local_devices", lambda host: [(host, i) for i in range(on_host[host])])
    monkeypatch.setattr(devices, "Mesh", lambda array, names, axis_types: [tuple(d) for d in array])
    uneven = runs % len(on_host)
    with pytest.warns(UserWarning, match="hosts cannot share") if uneven else contextlib.nullcontext():
        mesh: Any = devices.runs_mesh(runs)  # the list of devices, as patched above
    assert (mesh and len(mesh)) == expected
    if mesh and not uneven:
        counts = {host: sum(device[0] == host for device in mesh) for host in range(len(on_host))}
        assert len(set(counts.values())) == 1
    elif mesh:
        assert {host for host, _ in mesh} == {0}  # every host trains all runs on its own devices


def test_a_chosen_device_is_kept_to():
    assert devices.runs_mesh(2) is not None
    with jax.default_device(jax.devices()[1]):
        assert devices.runs_mesh(2) is None


def test_there_and_back(key):
    mesh = devices.runs_mesh(4)
    tree = {"x": jnp.arange(12.0).reshape(4, 3), "keys": jax.random.split(key, 4), "none": None}
    placed = devices.place(tree, mesh, split=True)
    assert {shard.data.shape for shard in placed["x"].addressable_shards} == {(2, 3)}
    assert jnp.array_equal(jax.random.key_data(placed["keys"]), jax.random.key_data(tree["keys"]))
    home = devices.local(placed["x"], mesh)
    assert not home.committed and len(home.devices()) == 1
    np.testing.assert_array_equal(home, tree["x"])
    assert devices.place(tree, None, split=True) is tree and devices.local(tree, None) is tree
    whole = devices.place(tree["x"], mesh, split=False)
    assert whole.is_fully_replicated and len(whole.devices()) == 2
    devices.place(tree, mesh, split=True, donate=True)
    assert tree["x"].is_deleted()


def compiled(monkeypatch, axes):
    """Returns the compiled program of find_modules for two runs, and the Program it was made from."""

    class Captured(Exception):  # noqa: N818
        pass

    class Spy:
        def trace(self, *args):
            raise Captured(args)

    chunk = loops._compiled_chunk
    with monkeypatch.context() as patch, pytest.raises(Captured) as caught:
        patch.setattr(loops, "_compiled_chunk", Spy())
        key = jax.random.key(0)
        config = jm.MaskConfig(4, batch_size=8, num_samples=2, chunk_steps=4, eval_examples=8, axes=axes)
        jm.find_modules(
            tiny_loss, tiny_params(key), {"a": tiny_data(0), "b": tiny_data(1)},
            keys=jax.random.split(key, 2), config=config,
        )  # fmt: skip
    arguments = caught.value.args[0]
    return chunk.lower(*arguments).compile().as_text() or "", arguments[0]


@pytest.mark.parametrize("axes", [Axes("unroll", "map", "map"), Axes("vmap", "vmap", "vmap")])
def test_the_compiled_program_has_no_collectives(monkeypatch, axes):
    text, program = compiled(monkeypatch, axes)
    assert program.mesh is not None and program.mesh.size == 2
    assert text and not any(name in text for name in COLLECTIVES)


def test_collectives_would_be_seen():
    x = devices.place(jnp.arange(4.0), devices.runs_mesh(4), split=True)
    text = jax.jit(jnp.sum).lower(x).compile().as_text() or ""
    assert any(name in text for name in COLLECTIVES)


@pytest.mark.parametrize(("runs", "own", "expected"), [(4, 2, 2), (32, 8, 8), (32, 5, 4), (1, 2, None)])
def test_a_mesh_of_this_host_alone(monkeypatch, runs, own, expected):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 0)
    monkeypatch.setattr(jax, "local_devices", lambda host=0: [(host, i) for i in range(own)])
    monkeypatch.setattr(devices, "Mesh", lambda array, names, axis_types: [tuple(d) for d in array])
    mesh: Any = devices.own_mesh(runs)  # the list of devices, as patched above
    assert (mesh and len(mesh)) == expected
    assert not mesh or {host for host, _ in mesh} == {0}


def test_a_mesh_of_cores_beside_an_accelerator(monkeypatch):
    cpu = jax.devices("cpu")
    with monkeypatch.context() as patch:
        patch.setattr(
            jax, "local_devices", lambda *_, backend=None: cpu if backend == "cpu" else ["an accelerator"]
        )
        assert list(devices.core_mesh(4).devices) == cpu
        assert list(devices.core_mesh(3).devices) == cpu[:1]
    with jax.default_device(cpu[1]):
        assert list(devices.core_mesh(4).devices) == cpu[1:]


def test_without_the_cpu_there_are_the_others(monkeypatch):
    there = jax.devices()

    def local_devices(backend=None):
        if backend == "cpu":
            raise RuntimeError("Unknown backend cpu")
        return there

    monkeypatch.setattr(jax, "local_devices", local_devices)
    assert list(devices.core_mesh(2).devices) == there


@pytest.mark.parametrize("runs", [1, 4])
def test_mapped_runs_are_those_of_a_loop(runs):
    x, shared = np.arange(3.0 * runs).reshape(runs, 3), {"scale": np.float32(2)}
    found = devices.map_runs(_scaled, {"x": x}, shared)
    np.testing.assert_array_equal(found, [2 * row.sum() for row in x])
    devices._mapped.cache_clear()
    with jax.default_device(jax.devices()[0]):
        np.testing.assert_array_equal(devices.map_runs(_scaled, {"x": x}, shared), found)
    # As on an accelerator, a number at once that does not divide the runs.
    np.testing.assert_array_equal(devices._mapped(_scaled, None, 1, 3)({"x": x}, shared), found)


def _scaled(run, shared):
    return run["x"].sum() * shared["scale"]


def test_a_device_for_each_core_in_a_fresh_process():
    source = (
        "from jaxmod.train import devices; devices.one_for_each_core(); import jax; print(jax.device_count())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}

    def counted(**more: str) -> int:
        run = subprocess.run(
            [sys.executable, "-c", source], env=environment | more, capture_output=True, text=True, check=True
        )
        return int(run.stdout)

    assert counted() == len(os.sched_getaffinity(0))
    assert counted(JAX_NUM_CPU_DEVICES="5") == 5
    assert counted(XLA_FLAGS="--xla_force_host_platform_device_count=3") == 3


def test_devices_that_are_there_stay():
    before = jax.devices()
    devices.one_for_each_core()
    assert jax.devices() == before
