"""Many graphs in one program: one by one or all at once, on one device or several."""

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


def test_one_by_one_all_at_once_and_on_two_devices():
    given = chunk(4)
    labels, values, residuals = spectral._program(K, None, True)(*given)
    assert labels[1, 4] == -1 and (np.asarray(labels[0]) >= 0).all() and residuals.max() < 1e-4
    at_once = spectral._program(K, None, False)(*given)
    mesh = devices.own_mesh(4)
    assert mesh is not None and mesh.size == 2
    split = devices.place(given[:2], mesh, split=True)
    on_two = spectral._program(K, mesh, True)(*split, devices.place(given[2], mesh, split=False))
    for other in (at_once, on_two):
        np.testing.assert_allclose(other[1], values, atol=1e-5)
        assert (np.asarray(other[0]) == np.asarray(labels)).mean() > 0.98


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
    program: Any = spectral._program(K, devices.own_mesh(4), jax.default_backend() == "cpu")
    assert program._cache_size() == 1


def test_the_first_of_two_hosts_clusters_alone(monkeypatch):
    monkeypatch.setattr(spectral, "CHUNK", 4)
    layers, uniforms, _ = chunk(4)
    graphs = [(tuple(w[i] for w in layers), uniforms[i]) for i in range(4)]
    alone = list(spectral.solve(graphs, K))
    own = jax.local_devices()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "local_devices", lambda host=0: own if host == 0 else ["a device of host 1"])
    for a, b in zip(alone, spectral.solve(graphs, K), strict=True):
        np.testing.assert_array_equal(a.labels, b.labels)
