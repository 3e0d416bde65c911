"""Many graphs in one program: one by one or all at once, on one device or several."""

import types
from typing import Any

import jax
import numpy as np

from jaxmod.structure import eigen, kmeans, spectral
from jaxmod.train import devices
from tests.structure.graphs import random_layers

SIZES = (60, 30, 30, 5)
K = 3


def chunk(count):
    graphs = [random_layers(SIZES, seed, keep=0.4) for seed in range(count)]
    graphs[1][0][4] = 0
    layers = tuple(np.stack(layer) for layer in zip(*graphs, strict=True))
    uniforms = np.random.default_rng(0).random((count, 10, kmeans.draws(K)), np.float32)
    start = np.random.default_rng(0).standard_normal((K + eigen.BUFFER, 35), np.float32)
    return layers, uniforms, start


class OneGPU:
    """A mesh of one device that says it is no CPU."""

    size = 1
    devices = np.array([types.SimpleNamespace(platform="gpu")])


def test_one_by_one_all_at_once_and_on_two_devices(monkeypatch):
    given = chunk(4)
    two = devices.core_mesh(4)
    assert two.size == 2

    def on(mesh):
        split = devices.place(given[:2], mesh, split=True)
        return spectral._program(K, mesh)(*split, devices.place(given[2], mesh, split=False))

    labels, values, residuals = on(devices.core_mesh(1))
    assert labels[1, 4] == -1 and (np.asarray(labels[0]) >= 0).all() and residuals.max() < 1e-4
    on_two = on(two)
    assert on_two[0].sharding.device_set == set(jax.devices())
    monkeypatch.setattr(devices, "each_share", lambda f, mesh, split: f)
    at_once = spectral._program(K, OneGPU())(*given)  # pyright: ignore[reportArgumentType]
    for other in (at_once, on_two):
        np.testing.assert_allclose(other[1], values, atol=1e-5)
        assert (np.asarray(other[0]) == np.asarray(labels)).mean() > 0.98


def test_graphs_stay_on_the_cpu_beside_an_accelerator(monkeypatch):
    layers, uniforms, _ = chunk(2)
    graphs = [(tuple(w[i] for w in layers), uniforms[i]) for i in range(2)]
    small = [(random_layers((4, 5, 3), seed), uniforms[seed]) for seed in range(2)]
    expected = [list(spectral.solve(some, K)) for some in (graphs, small)]
    cpu = jax.local_devices(backend="cpu")
    monkeypatch.setattr(
        jax, "local_devices", lambda *_, backend=None: cpu if backend == "cpu" else ["an accelerator"]
    )
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    placed, put = [], jax.device_put
    monkeypatch.setattr(jax, "device_put", lambda x, to: placed.append(to.device_set) or put(x, to))
    for some, found in zip((graphs, small), expected, strict=True):
        for a, b in zip(spectral.solve(some, K), found, strict=True):
            np.testing.assert_array_equal(a.labels, b.labels)
    assert len(placed) > 6 and all(some <= set(cpu) for some in placed)


def test_one_program_for_any_number_of_graphs(monkeypatch):
    monkeypatch.setattr(spectral, "CHUNK", 4)
    spectral._program.cache_clear()
    layers, uniforms, _ = chunk(11)
    graphs = [(tuple(w[i] for w in layers), uniforms[i]) for i in range(11)]
    everything = list(spectral.solve(graphs, K))
    assert len(everything) == 11
    few = list(spectral.solve(graphs[:6], K))
    for a, b in zip(few, everything[:6], strict=True):
        np.testing.assert_array_equal(a.labels, b.labels)
    program: Any = spectral._program(K, devices.core_mesh(4))
    assert program._cache_size() == 1


def test_the_first_of_two_hosts_clusters_alone(monkeypatch):
    monkeypatch.setattr(spectral, "CHUNK", 4)
    layers, uniforms, _ = chunk(4)
    graphs = [(tuple(w[i] for w in layers), uniforms[i]) for i in range(4)]
    alone = list(spectral.solve(graphs, K))
    own = jax.local_devices()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        jax, "local_devices", lambda host=0, backend=None: ["a device of host 1"] if host else own
    )
    for a, b in zip(alone, spectral.solve(graphs, K), strict=True):
        np.testing.assert_array_equal(a.labels, b.labels)
